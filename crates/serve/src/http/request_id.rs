//! One name a request, in its answer, the log and the audit.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use melo_vit::hex;

/// Where a name comes in, and where it goes out.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest name that is taken over from the caller.
const CHARS: usize = 64;

/// The name of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RequestId(pub(crate) String);

impl RequestId {
    /// The caller's, if it is short and harmless in a log; else a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let harmless = |text: &&str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !text.is_empty() && text.len() <= CHARS && text.bytes().all(known)
        };
        let given = headers.get(HEADER).and_then(|value| value.to_str().ok()).filter(harmless);
        given.map_or_else(Self::random, |text| RequestId(text.to_owned()))
    }

    /// 128 random bits.
    pub(crate) fn random() -> Self {
        let mut bytes = [0; 16];
        // Without a source of randomness names are equal, and requests still answered.
        let _ = getrandom::fill(&mut bytes);
        RequestId(hex(&bytes))
    }

    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &[u8]) -> RequestId {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(text).unwrap());
        RequestId::of(&headers)
    }

    #[test]
    fn a_harmless_name_is_taken_over() {
        assert_eq!(of(b"pacs-7.2026_10").0, "pacs-7.2026_10");
    }

    #[test]
    fn anything_else_gets_a_new_one() {
        for text in [&b""[..], b"a b", b"{\"a\":1}", b"\xff\xfe", &[b'a'; 65], b"Doe^John"] {
            let id = of(text).0;
            assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        }
        assert_ne!(RequestId::random(), RequestId::random());
    }
}
