//! A key: 256 random bits, of which only the SHA-256 is kept.
//!
//! Passwords need a slow hash, because people choose them and attackers can guess what people choose. Nobody chooses a
//! key: there are 2^256 of them, and no guess at a fast hash gets through these, so a slow one would only slow down
//! every request.

use super::identity::Scope;
use crate::error::Error;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use melo_vit::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What keys begin with, so that people and scanners for secrets know one when they see it.
pub(super) const PREFIX: &str = "melo_";
/// Longest name of a key.
const NAME_CHARS: usize = 64;

/// What is kept of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Who has it; goes into the audit.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// SHA-256 of the key as text, in hexadecimal digits.
    pub sha256: String,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// From when on it is refused: a day, or a time in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Requests in a minute; as many as the server can where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
}

/// A key that was just made. The only place where it stands.
pub struct NewKey {
    /// For its user, once.
    pub secret: String,
    /// For the file.
    pub key: Key,
}

impl NewKey {
    /// A key of random bits.
    ///
    /// # Errors
    /// [`Error::Settings`] if name, scopes or expiry cannot be, or the system gives no random bits.
    pub fn new(name: &str, scopes: &[Scope], expires: Option<&str>) -> Result<Self, Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| Error::Settings(format!("no random bits: {error}")))?;
        let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let key = Key {
            name: name.to_owned(),
            scopes: scopes.to_vec(),
            sha256: hex(&Sha256::digest(secret.as_bytes())),
            created: crate::clock::rfc3339(crate::clock::now_ms()),
            expires: expires.map(str::to_owned),
            per_minute: None,
        };
        key.check().map_err(Error::Settings)?;
        Ok(NewKey { secret, key })
    }
}

impl Key {
    /// Whether it says what a key must say.
    pub(super) fn check(&self) -> Result<(), String> {
        let Key { name, scopes, sha256, expires, .. } = self;
        let harmless = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
        if name.is_empty() || name.len() > NAME_CHARS || !name.chars().all(harmless) {
            return Err(format!(
                "`{}` is no name of a key: 1 to {NAME_CHARS} letters, digits, `.`, `_`, `-`, `@`",
                name.escape_debug()
            ));
        }
        if self.per_minute == Some(0) {
            return Err(format!("key `{name}`: per_minute is at least 1"));
        }
        if scopes.is_empty() {
            return Err(format!("key `{name}` has no scopes: give predict, admin or both"));
        }
        if sha256.len() != 64 || !sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!("key `{name}`: sha256 is not 64 hexadecimal digits in lower case"));
        }
        if let Some(text) = expires
            && crate::clock::parse(text).is_none()
        {
            return Err(format!(
                "key `{name}` expires on `{}`, expected a day such as 2027-01-31, or 2027-01-31T12:00:00Z",
                text.escape_debug()
            ));
        }
        Ok(())
    }

    /// Whether it was refused from some time on, and that time has come.
    pub fn is_expired(&self) -> bool {
        let expires = self.expires.as_deref().map(|text| crate::clock::parse(text).unwrap_or(i64::MIN));
        expires.is_some_and(|expires| expires <= crate::clock::now_ms())
    }

    /// Whether it has this SHA-256; takes the same time whether or not it has.
    pub(super) fn is(&self, sha256: &str) -> bool {
        self.sha256.as_bytes().ct_eq(sha256.as_bytes()).into()
    }
}
