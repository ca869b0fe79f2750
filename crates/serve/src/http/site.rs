//! Pages of other sites, which a browser on this machine shows, and a server that anyone on this machine may ask.
//!
//! Such a page may send forms to loopback, and read answers where its own name was made to lead there (DNS rebinding). What it
//! cannot do is to choose the headers `Host` and `Origin`. Where callers show keys, a page of another site has none.

use crate::error::Refusal;
use axum::http::{HeaderMap, Uri, header};
use std::net::IpAddr;

/// Refuses what a page of another site may have sent. `allowed` are names beside addresses and `localhost`.
///
/// # Errors
/// [`Refusal::Forbidden`].
pub(super) fn check(uri: &Uri, headers: &HeaderMap, allowed: &[String]) -> Result<(), Refusal> {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or("?").to_owned());
    let host = uri.authority().map(ToString::to_string).or_else(|| text(header::HOST)).unwrap_or_default();
    if !is_here(name_of(&host), allowed) {
        let reason = "the server is open to this machine alone, and this name of it is not allowed (allowed-hosts)";
        return Err(Refusal::Forbidden(reason.to_owned()));
    }
    let foreign =
        |origin: String| origin.split_once("://").is_none_or(|(_, origin)| !origin.eq_ignore_ascii_case(&host));
    if text(header::ORIGIN).is_some_and(foreign) {
        return Err(Refusal::Forbidden("the request comes from a page of another site".to_owned()));
    }
    Ok(())
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// Names that no other site has: addresses, and `localhost` (RFC 6761). Without `Host` it is no browser.
fn is_here(name: &str, allowed: &[String]) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.is_empty()
        || lower.parse::<IpAddr>().is_ok()
        || lower == "localhost"
        || lower.ends_with(".localhost")
        || allowed.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_are_refused_by_host_and_origin() {
        let asked = |host: Option<&'static str>, origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            let pairs = [(header::HOST, host), (header::ORIGIN, origin)];
            for (name, value) in pairs {
                if let Some(value) = value {
                    headers.insert(name, header::HeaderValue::from_static(value));
                }
            }
            check(&Uri::from_static("/v1/tasks"), &headers, &["melo.hospital".to_owned()]).is_ok()
        };
        for host in
            ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "LOCALHOST", "a.localhost:1", "melo.hospital:443"]
        {
            assert!(asked(Some(host), None), "{host}");
        }
        for host in ["evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "x"] {
            assert!(!asked(Some(host), None), "{host}");
        }
        assert!(asked(None, None), "no browser");
        assert!(asked(Some("127.0.0.1:8080"), Some("http://127.0.0.1:8080")));
        for origin in ["http://evil.example", "null", "http://127.0.0.1:9090", "https://localhost:8080"] {
            assert!(!asked(Some("127.0.0.1:8080"), Some(origin)), "{origin}");
        }
        let absolute = Uri::from_static("http://evil.example/v1/tasks");
        assert!(check(&absolute, &HeaderMap::new(), &[]).is_err());
    }
}
