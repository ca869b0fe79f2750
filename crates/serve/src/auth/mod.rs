//! Who may ask what.
//!
//! Callers show a key of the key file, or a token of the hospital's identity provider. Where neither is configured,
//! anyone may ask for answers and nobody may change what is served.

mod identity;
mod key;
mod key_file;
mod oidc;
mod rate;
mod ring_provider;

use crate::error::{Error, Refusal};
use crate::journal::Journal;
use axum::http::{HeaderMap, header};
use key_file::Keys;
use oidc::Oidc;
use std::path::Path;

pub(crate) use identity::ANONYMOUS;
pub use identity::{Identity, Scope};
pub use key::{Key, NewKey};
pub use key_file::KeyFile;
pub use oidc::OidcConfig;

/// How callers show who they are.
#[derive(Default)]
pub struct Access {
    keys: Option<Keys>,
    oidc: Option<Oidc>,
}

impl Access {
    /// With a key file, an identity provider, both or neither. Changes of the key file go into the journal.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Damaged`] of the key file, [`Error::Settings`] of the provider, also where it cannot
    /// be reached.
    pub(crate) fn open(keys: Option<&Path>, oidc: Option<&OidcConfig>, journal: &Journal) -> Result<Self, Error> {
        let keys = keys.map(|path| Keys::open(path, journal.clone())).transpose()?;
        Ok(Access { keys, oidc: oidc.map(Oidc::start).transpose()? })
    }

    /// Whether anyone may ask.
    pub fn is_open(&self) -> bool {
        self.keys.is_none() && self.oidc.is_none()
    }

    /// Who sent these headers.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`].
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        if self.is_open() {
            return Ok(Identity { name: ANONYMOUS.to_owned(), scopes: vec![Scope::Predict], address: None });
        }
        let shown = shown(headers)?;
        match (&self.keys, &self.oidc) {
            (Some(keys), _) if shown.starts_with(key::PREFIX) => keys.identify(shown),
            (_, Some(oidc)) if !shown.starts_with(key::PREFIX) => oidc.identify(shown).await,
            (Some(_), None) => Err(Refusal::Unauthorized(format!("keys begin with `{}`", key::PREFIX))),
            _ => Err(Refusal::Unauthorized("keys are not taken here, only tokens of the identity provider".to_owned())),
        }
    }
}

/// The one key or token of a request.
fn shown(headers: &HeaderMap) -> Result<&str, Refusal> {
    let refused = |text: &str| Refusal::Unauthorized(text.to_owned());
    let mut values = headers.get_all(header::AUTHORIZATION).iter().chain(headers.get_all("x-api-key"));
    let value = values
        .next()
        .ok_or_else(|| refused("this needs a key: send `Authorization: Bearer KEY`, or `X-API-Key: KEY`"))?;
    if values.next().is_some() {
        return Err(refused("more than one key was sent"));
    }
    let text = value.to_str().map_err(|_| refused("the key is not text"))?;
    if !headers.contains_key(header::AUTHORIZATION) {
        return Ok(text.trim());
    }
    match text.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Ok(key.trim()),
        _ => Err(refused("only `Authorization: Bearer KEY` is understood")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_key_comes_in_either_header() {
        assert_eq!(shown(&headers(&[("authorization", "Bearer melo_a")])), Ok("melo_a"));
        assert_eq!(shown(&headers(&[("authorization", "bearer  melo_a ")])), Ok("melo_a"));
        assert_eq!(shown(&headers(&[("x-api-key", "melo_a")])), Ok("melo_a"));
    }

    #[test]
    fn no_key_two_keys_and_other_schemes_are_refused() {
        for pairs in [
            &[][..],
            &[("authorization", "Basic YTpi")],
            &[("authorization", "melo_a")],
            &[("authorization", "Bearer melo_a"), ("x-api-key", "melo_a")],
            &[("x-api-key", "melo_a"), ("x-api-key", "melo_b")],
        ] {
            assert!(matches!(shown(&headers(pairs)), Err(Refusal::Unauthorized(_))), "{pairs:?}");
        }
    }
}
