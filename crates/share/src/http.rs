//! Requests of HTTP.

use crate::error::Error;
use std::time::Duration;
use ureq::Agent;
use ureq::http::{HeaderMap, Method, Request};

/// How long an answer with its body may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long nobody may answer.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest answer of words, bytes.
pub(crate) const WORDS: u64 = 4 << 20;

/// Who asks.
pub(crate) struct Client(Agent);

/// An answer, of whatever status.
pub(crate) struct Answer {
    pub(crate) address: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn new() -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(PATIENCE))
            .user_agent(concat!("melo/", env!("CARGO_PKG_VERSION")));
        Client(config.build().new_agent())
    }

    /// Asks, and takes up to `most` bytes for an answer. What is asked encrypted stays so wherever it is redirected to.
    pub(crate) fn ask(
        &self,
        method: &Method,
        address: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        most: u64,
    ) -> Result<Answer, Error> {
        let away = |reason: String| Error::Away { address: address.to_owned(), reason };
        let request = Request::builder().method(method).uri(address);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(body).map_err(|error| away(error.to_string()))?;
        let request = self.0.configure_request(request).https_only(address.starts_with("https://")).build();
        let mut response = self.0.run(request).map_err(|error| away(error.to_string()))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.body_mut().with_config().limit(most).read_to_vec();
        let body = body.map_err(|error| away(error.to_string()))?;
        Ok(Answer { address: address.to_owned(), status, headers, body })
    }
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The answer, if it is a success.
    pub(crate) fn success(self) -> Result<Self, Error> {
        match self.is_success() {
            true => Ok(self),
            false => Err(self.refused()),
        }
    }

    /// What was said instead of a success, in a line.
    pub(crate) fn refused(&self) -> Error {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let said = [&json["errors"][0]["message"], &json["error"], &json["message"]];
        let said = said.iter().find_map(|said| said.as_str()).unwrap_or_default();
        let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
        Error::Refused { address: self.address.clone(), status: self.status, said }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn json(&self) -> Result<serde_json::Value, Error> {
        let wrong = |error| Error::Away { address: self.address.clone(), reason: format!("{error}") };
        serde_json::from_slice(&self.body).map_err(wrong)
    }
}

/// True for an address, or a host with its port, of this machine.
pub(crate) fn is_near(host: &str) -> bool {
    let authority: Result<ureq::http::uri::Authority, _> = host.parse();
    let Ok(authority) = authority else { return false };
    let host = authority.host().to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Percent-encoded but for what is never special (RFC 3986, 2.3).
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
