//! Encryption by rustls. Certificates are renewed by other programs, so the files are read again when they change, and
//! at SIGHUP.

use crate::error::Error;
use crate::trust::TlsFiles;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What two files say, the last time that they said something usable.
pub(super) struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
    opened: Stamp,
}

type Stamp = [Option<(SystemTime, u64)>; 2];

impl Tls {
    pub(super) fn open(files: &TlsFiles) -> Result<Self, Error> {
        let opened = stamp(files);
        Ok(Tls { files: files.clone(), current: RwLock::new(read(files)?), opened })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)).into()
    }

    /// Reads the files when they change, for ever. Connections that are open keep what they began with.
    pub(super) async fn reread(self: Arc<Self>) {
        let mut known = self.opened;
        let mut hangup = Hangup::new();
        loop {
            let asked = tokio::select! {
                () = hangup.next() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let found = stamp(&self.files);
            if !asked && found == known {
                continue;
            }
            known = found;
            match read(&self.files) {
                Ok(config) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
                    tracing::info!("the certificate was read again");
                }
                // Between the writing of one file and of the other they do not fit.
                Err(error) => tracing::warn!(%error, "the certificate cannot be used; the one from before stays"),
            }
        }
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    let of = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [of(&files.cert), of(&files.key)]
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, Error> {
    let damaged = |path: &Path, reason: String| Error::Damaged { path: path.to_owned(), reason };
    let pem = std::fs::read(&files.cert).map_err(Error::io(&files.cert))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| damaged(&files.cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(damaged(&files.cert, "it holds no certificate in PEM".to_owned()));
    }
    let pem = std::fs::read(&files.key).map_err(Error::io(&files.key))?;
    let no_key = |_| damaged(&files.key, "it holds no private key in PEM".to_owned());
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(no_key)?;
    let unfit = |error: tokio_rustls::rustls::Error| damaged(&files.cert, format!("with its key: {error}"));
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(unfit)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(unfit)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The signal by which programs are asked to read their settings again.
struct Hangup {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangup {
    #[cfg(unix)]
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Hangup { signal: signal(SignalKind::hangup()).ok() }
    }

    #[cfg(not(unix))]
    fn new() -> Self {
        Hangup {}
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}
