//! Encryption by rustls, for HTTP and for DICOM, and who must show a certificate for it. Certificates are renewed by other programs, so the
//! files are read again when they change.

use crate::error::Error;
use crate::watched::{Stamp, stamp};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TlsFiles {
    /// The certificate and those that vouch for it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who vouches for callers: those who show no certificate of these authorities are turned away. Without it anyone may connect.
    pub client_ca: Option<PathBuf>,
}

/// What a caller of others believes and shows, files in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TlsClientFiles {
    /// Who vouches for the one that is called.
    pub ca: PathBuf,
    /// The name in its certificate, where that is not the host of its address.
    pub server_name: Option<String>,
    /// The certificate that is shown, where one is asked for, and those that vouch for it.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// What the files say, or said when they could last be used.
pub(crate) struct Certificates {
    files: TlsFiles,
    protocols: Vec<Vec<u8>>,
    known: Mutex<Known>,
}

struct Known {
    config: Arc<ServerConfig>,
    stamps: [Option<Stamp>; 3],
    looked: Instant,
}

impl Certificates {
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`].
    pub(crate) fn open(files: &TlsFiles, protocols: &[&str]) -> Result<Self, Error> {
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stamps = stamps(files);
        let known = Known { config: read(files, &protocols)?, stamps, looked: Instant::now() };
        Ok(Certificates { files: files.clone(), protocols, known: Mutex::new(known) })
    }

    /// For the next connection. Those that are open keep what they began with.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.elapsed() >= LOOK {
            known.looked = Instant::now();
            let found = stamps(&self.files);
            if found != known.stamps {
                known.stamps = found;
                self.read_into(&mut known);
            }
        }
        Arc::clone(&known.config)
    }

    /// Reads the files, changed or not.
    pub(crate) fn reread(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.stamps = stamps(&self.files);
        self.read_into(&mut known);
    }

    fn read_into(&self, known: &mut Known) {
        match read(&self.files, &self.protocols) {
            Ok(config) => {
                known.config = config;
                tracing::info!("the certificate was read again");
            }
            // Between the writing of one file and of the other they do not fit.
            Err(error) => tracing::warn!(%error, "the certificate cannot be used; the one from before stays"),
        }
    }
}

fn stamps(files: &TlsFiles) -> [Option<Stamp>; 3] {
    [stamp(&files.cert), stamp(&files.key), files.client_ca.as_deref().and_then(stamp)]
}

fn damaged(path: &Path, reason: impl Into<String>) -> Error {
    Error::Damaged { path: path.to_owned(), reason: reason.into() }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = std::fs::read(path).map_err(Error::io(path))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| damaged(path, error.to_string()))?;
    if chain.is_empty() { Err(damaged(path, "it holds no certificate in PEM")) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let pem = std::fs::read(path).map_err(Error::io(path))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| damaged(path, "it holds no private key in PEM"))
}

fn authorities(path: &Path) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|error| damaged(path, error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

fn read(files: &TlsFiles, protocols: &[Vec<u8>]) -> Result<Arc<ServerConfig>, Error> {
    let unfit = |error: tokio_rustls::rustls::Error| damaged(&files.cert, format!("with its key: {error}"));
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(unfit)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities(path)?, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| damaged(path, error.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(chain(&files.cert)?, private_key(&files.key)?).map_err(unfit)?;
    config.alpn_protocols = protocols.to_vec();
    Ok(Arc::new(config))
}

impl TlsClientFiles {
    /// What a connection to others is made with.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`], [`Error::Settings`].
    pub fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        let unfit = |error: tokio_rustls::rustls::Error| damaged(&self.ca, error.to_string());
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(unfit)?;
        let builder = builder.with_root_certificates(authorities(&self.ca)?);
        let config = match (&self.cert, &self.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let config = builder.with_client_auth_cert(chain(cert)?, private_key(key)?);
                config.map_err(|error| damaged(cert, format!("with its key: {error}")))?
            }
            _ => return Err(Error::Settings("tls: `cert` and `key` go together".to_owned())),
        };
        Ok(Arc::new(config))
    }
}
