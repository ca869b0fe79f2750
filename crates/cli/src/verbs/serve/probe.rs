//! `melo serve --probe`: whether the server of the same settings is ready.

use super::Settings;
use crate::Failure;
use melo::serve::defaults;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;
use ureq::tls::TlsConfig;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks once.
pub(super) fn run(settings: &Settings) -> Result<(), Failure> {
    let listen = settings.listen.as_deref().unwrap_or(defaults::LISTEN);
    let scheme = if settings.tls_cert.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}/v2/health/ready", reached(listen)?);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .proxy(None)
        // Nothing is told but whether it is ready, and its certificate is for other names than the one it is asked by.
        .tls_config(TlsConfig::builder().disable_verification(true).build())
        .build()
        .into();
    let unready = |reason: String| Failure::Message(format!("{url}: {reason}"));
    let mut response = agent.get(&url).call().map_err(|error| unready(error.to_string()))?;
    if response.status().is_success() {
        return Ok(());
    }
    Err(unready(response.body_mut().read_to_string().unwrap_or_else(|error| error.to_string())))
}

/// The address by which a server on this machine is reached that listens on `listen`: all addresses are loopback's.
fn reached(listen: &str) -> Result<SocketAddr, Failure> {
    let wrong = |reason: String| Failure::Message(format!("{listen}: {reason}"));
    let mut address = listen
        .to_socket_addrs()
        .map_err(|error| wrong(error.to_string()))?
        .next()
        .ok_or_else(|| wrong("it has no address".to_owned()))?;
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Ok(address)
}
