//! Which NATS server, and who asks it.

use std::fmt;
use std::path::PathBuf;

/// A NATS server, or several of a cluster, and the credentials for it.
#[derive(Clone, Default)]
pub struct Broker {
    /// `nats://HOST:PORT` or `tls://HOST:PORT`, several with commas between them; `USER:PASSWORD@` or `TOKEN@` before the host.
    pub url: String,
    /// Name and password, instead of those in the URL.
    pub user: Option<(String, String)>,
    /// A token, instead of the one in the URL.
    pub token: Option<String>,
    /// A file of credentials, as `nsc` writes it: a JWT and the seed of its key.
    pub credentials: Option<PathBuf>,
    /// A file with the seed of a user's nkey.
    pub nkey: Option<PathBuf>,
    /// Certificates of the authorities that are trusted instead of the system's, PEM.
    pub ca: Option<PathBuf>,
    /// A certificate and its key for the server, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl Broker {
    /// The addresses without secrets.
    pub fn address(&self) -> String {
        self.url.split(',').map(|url| without_user(url).1).collect::<Vec<_>>().join(",")
    }

    /// What stands before the host of the first URL that has it: a name and a password, or a token.
    pub(crate) fn user_in_url(&self) -> Option<(String, Option<String>)> {
        let user = self.url.split(',').find_map(|url| without_user(url).0)?;
        Some(match user.split_once(':') {
            Some((user, password)) => (decoded(user), Some(decoded(password))),
            None => (decoded(&user), None),
        })
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Broker").field(&self.address()).finish()
    }
}

/// What stands before the host of a URL, and the URL without it.
fn without_user(url: &str) -> (Option<String>, String) {
    let url = url.trim();
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    match rest.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), format!("{scheme}://{host}")),
        None => (None, format!("{scheme}://{rest}")),
    }
}

/// Without percent-encoding (RFC 3986); what is none stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let value =
            digits.filter(|digits| !digits.starts_with('+')).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(url: &str) -> Broker {
        Broker { url: url.to_owned(), ..Broker::default() }
    }

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let with = broker("nats://melo:s3cr%40t@a:4222, tls://b");
        assert_eq!(with.address(), "nats://a:4222,tls://b");
        assert_eq!(with.user_in_url(), Some(("melo".to_owned(), Some("s3cr@t".to_owned()))));
        assert_eq!(format!("{with:?}"), "Broker(\"nats://a:4222,tls://b\")");
        assert_eq!(broker("t0k%zz@host:4222").user_in_url(), Some(("t0k%zz".to_owned(), None)));
        assert_eq!(broker("host").address(), "nats://host");
        assert_eq!(broker("host").user_in_url(), None);
    }
}
