//! What a server is told about whom it trusts.

use crate::audit::CheckpointConfig;
use crate::auth::{Access, OidcConfig};
use crate::defaults::{DRAIN, LAME_DUCK, MAX_CONNECTIONS};
use crate::error::Error;
use crate::syslog::SyslogConfig;
use crate::tls::TlsFiles;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Keys, encryption, records, and bounds for those who connect.
#[derive(Clone, Debug, PartialEq)]
pub struct Trust {
    /// File of the audit; none where nothing is to be kept.
    pub audit: Option<PathBuf>,
    /// Where the audit's signed checkpoints go.
    pub checkpoints: Option<CheckpointConfig>,
    /// Where the audit's records are sent as well.
    pub syslog: Option<SyslogConfig>,
    /// File of keys.
    pub keys: Option<PathBuf>,
    /// Identity provider whose tokens are taken.
    pub oidc: Option<OidcConfig>,
    /// Certificate and its key; without them requests come unencrypted.
    pub tls: Option<TlsFiles>,
    /// Connections at a time; more are turned away.
    pub max_connections: usize,
    /// How long requests are still taken after the server was asked to stop, while it says that it is not ready: a balancer sees it
    /// and sends the next ones elsewhere.
    pub lame_duck: Duration,
    /// How long requests that were begun are waited for after that.
    pub drain: Duration,
    /// Collector of OpenTelemetry that is told of requests.
    pub otlp_endpoint: Option<String>,
    /// Names that a server without keys is asked by beside addresses and `localhost`, such as a proxy's.
    pub allowed_hosts: Vec<String>,
    /// Lets anyone in from anywhere, if neither keys nor a provider are given.
    pub insecure: bool,
}

impl Default for Trust {
    /// No keys, no records: for a server on loopback.
    fn default() -> Self {
        Trust {
            audit: None,
            checkpoints: None,
            syslog: None,
            keys: None,
            oidc: None,
            tls: None,
            max_connections: MAX_CONNECTIONS,
            lame_duck: LAME_DUCK,
            drain: DRAIN,
            otlp_endpoint: None,
            allowed_hosts: Vec::new(),
            insecure: false,
        }
    }
}

impl Trust {
    /// Whether a server that lets in whom `access` says may listen on an address.
    pub(crate) fn allows(&self, address: SocketAddr, access: &Access) -> Result<(), Error> {
        if address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        if access.is_open() && !self.insecure {
            return Err(Error::Open { address });
        }
        if self.tls.is_none() {
            tracing::warn!(%address, "images and keys come unencrypted over the network");
        }
        Ok(())
    }
}

/// True for a host, in small letters, that is this machine whatever the network says.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_server_keeps_to_this_machine() {
        let (open, trust) = (Access::default(), Trust::default());
        for address in ["127.0.0.1:80", "[::1]:80", "127.8.8.8:80", "[::ffff:127.0.0.1]:80"] {
            assert!(trust.allows(address.parse().unwrap(), &open).is_ok(), "{address}");
        }
        let insecure = Trust { insecure: true, ..Trust::default() };
        for address in ["0.0.0.0:80", "[::]:80", "10.0.0.7:80", "[::ffff:10.0.0.7]:80"] {
            let address = address.parse().unwrap();
            let error = trust.allows(address, &open).unwrap_err();
            assert!(matches!(error, Error::Open { address: found } if found == address), "{error}");
            assert!(insecure.allows(address, &open).is_ok());
        }
    }
}
