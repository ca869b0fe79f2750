//! The little of the distribution specification (<https://github.com/opencontainers/distribution-spec>) that plug-ins need.

use crate::credentials;
use crate::error::Error;
use crate::http::{Answer, Client, WORDS, encoded, is_near};
use melo_sign::sha256;
use std::cell::RefCell;
use ureq::http::Method;

/// A registry, asked as whoever `docker login` left a password for.
pub(crate) struct Registry {
    client: Client,
    host: String,
    base: String,
    /// The header that the last challenge was met with.
    authorization: RefCell<Option<String>>,
}

impl Registry {
    /// Unencrypted on this machine, encrypted beyond it.
    pub(crate) fn new(host: &str) -> Self {
        let scheme = if is_near(host) { "http" } else { "https" };
        let base = format!("{scheme}://{host}");
        Registry { client: Client::new(), host: host.to_owned(), base, authorization: RefCell::new(None) }
    }

    /// Asks for a path, or an address that the registry gave; where it wants to know who asks, once more.
    pub(crate) fn ask(
        &self,
        method: &Method,
        place: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        most: u64,
    ) -> Result<Answer, Error> {
        let address = if place.starts_with('/') { format!("{}{place}", self.base) } else { place.to_owned() };
        let is_own = address.strip_prefix(&self.base).is_some_and(|path| path.starts_with('/'));
        let asked = || {
            let authorization = self.authorization.borrow().clone().filter(|_| is_own);
            let mut headers = headers.to_vec();
            headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
            self.client.ask(method, &address, &headers, body, most)
        };
        let answer = asked()?;
        match answer.header("www-authenticate") {
            Some(challenge) if answer.status == 401 && is_own => {
                let met = self.meet(challenge, &answer)?;
                *self.authorization.borrow_mut() = Some(met);
                asked()
            }
            _ => Ok(answer),
        }
    }

    /// What a challenge (RFC 7235; the token specification of Docker's registry) is met with.
    fn meet(&self, challenge: &str, answer: &Answer) -> Result<String, Error> {
        let own = credentials::of(&self.host);
        let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return own.map(|own| format!("Basic {own}")).ok_or_else(|| answer.refused());
        }
        let parameter = |name: &str| {
            let quoted = rest.split(&format!("{name}=\"")).nth(1)?;
            quoted.split('"').next().filter(|value| !value.is_empty())
        };
        let realm = parameter("realm").ok_or_else(|| answer.refused())?;
        let unsafe_host = realm.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or_default());
        if !realm.starts_with("https://") && !unsafe_host.is_some_and(is_near) {
            let reason = format!("it sends to {realm} for a token: https is expected beyond this machine");
            return Err(Error::Away { address: answer.address.clone(), reason });
        }
        let query = ["service", "scope"].into_iter().filter_map(|name| {
            let value = parameter(name)?;
            Some(format!("{name}={}", encoded(value)))
        });
        let between = if realm.contains('?') { '&' } else { '?' };
        let address = format!("{realm}{between}{}", query.collect::<Vec<_>>().join("&"));
        let basic = own.map(|own| format!("Basic {own}"));
        let headers: Vec<(&str, &str)> = basic.iter().map(|basic| ("authorization", basic.as_str())).collect();
        let given = self.client.ask(&Method::GET, &address, &headers, &[], WORDS)?.success()?;
        let json = given.json()?;
        let token = json["token"].as_str().or_else(|| json["access_token"].as_str());
        token.map(|token| format!("Bearer {token}")).ok_or_else(|| given.refused())
    }

    /// Sends bytes, unless they are there.
    pub(crate) fn put_blob(&self, repository: &str, bytes: &[u8]) -> Result<(), Error> {
        let digest = format!("sha256:{}", sha256(bytes));
        let there = self.ask(&Method::HEAD, &format!("/v2/{repository}/blobs/{digest}"), &[], &[], WORDS)?;
        if there.is_success() {
            return Ok(());
        }
        let begun = self.ask(&Method::POST, &format!("/v2/{repository}/blobs/uploads/"), &[], &[], WORDS)?.success()?;
        let place = begun.header("location").ok_or_else(|| begun.refused())?;
        let between = if place.contains('?') { '&' } else { '?' };
        let place = format!("{place}{between}digest={digest}");
        let kind = [("content-type", "application/octet-stream")];
        self.ask(&Method::PUT, &place, &kind, bytes, WORDS)?.success()?;
        Ok(())
    }
}
