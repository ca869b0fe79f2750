//! The list of keys that are trusted.

use crate::key::{KeyId, PublicKey};
use crate::lines;
use crate::signature::Signature;
use std::collections::BTreeMap;
use std::str::FromStr;

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// With which key.
    pub key: KeyId,
    /// As the list of trusted keys calls it.
    pub name: String,
    /// What was signed with the file.
    pub comment: String,
}

/// Why nobody who is trusted stands behind a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Untrusted {
    /// Another key made the signature.
    #[error("it is signed by key {0}, which is not among the trusted keys")]
    Key(KeyId),
    /// The key was trusted once.
    #[error("it is signed by key {key}, which is revoked{because}")]
    Revoked {
        /// The key.
        key: KeyId,
        /// `: ` and the reason of the list, or nothing.
        because: String,
    },
    /// The file itself was taken back.
    #[error("this file is revoked{0}")]
    File(String),
    /// The signature is of other bytes, or was changed.
    #[error("its signature by key {0} is not of this file: one of the two was changed")]
    Differs(KeyId),
}

/// Keys that are trusted, and keys and files that no longer are.
///
/// The text has an entry a line: a public key as minisign prints it, and a name; `revoked`, then such a key or the SHA-256 of a file, and a
/// reason. What begins with `#` or `untrusted comment:` is passed over, so that public key files may be put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedKeys {
    keys: Vec<(PublicKey, String)>,
    revoked_keys: Vec<(PublicKey, String)>,
    revoked_files: BTreeMap<String, String>,
}

impl TrustedKeys {
    /// Number of keys that are trusted.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True where nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// One key, under a name.
    pub fn of(key: PublicKey, name: String) -> Self {
        TrustedKeys { keys: vec![(key, name)], ..TrustedKeys::default() }
    }

    /// Why a file is refused whoever signed it; `sha256` in hexadecimal digits.
    ///
    /// # Errors
    /// [`Untrusted::File`].
    pub fn check_file(&self, sha256: &str) -> Result<(), Untrusted> {
        match self.revoked_files.get(sha256) {
            Some(reason) => Err(Untrusted::File(because(reason))),
            None => Ok(()),
        }
    }

    /// What the list calls a key.
    ///
    /// # Errors
    /// [`Untrusted::Revoked`], [`Untrusted::Key`].
    pub fn name(&self, key: KeyId) -> Result<&str, Untrusted> {
        self.find(key).map(|(_, name)| name.as_str())
    }

    fn find(&self, key: KeyId) -> Result<&(PublicKey, String), Untrusted> {
        if let Some((_, reason)) = self.revoked_keys.iter().find(|(revoked, _)| revoked.id() == key) {
            return Err(Untrusted::Revoked { key, because: because(reason) });
        }
        self.keys.iter().find(|(known, _)| known.id() == key).ok_or(Untrusted::Key(key))
    }

    /// Who signed a file.
    ///
    /// # Errors
    /// [`Untrusted`], but for [`Untrusted::File`].
    pub fn signer(&self, file: &[u8], signature: &Signature) -> Result<Signer, Untrusted> {
        let key = signature.key();
        let (public, name) = self.find(key)?;
        match signature.is_of(file, public) {
            true => Ok(Signer { key, name: name.clone(), comment: signature.comment().to_owned() }),
            false => Err(Untrusted::Differs(key)),
        }
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

impl FromStr for TrustedKeys {
    /// What is wrong with which line.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = TrustedKeys::default();
        for (number, line) in lines(text).map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') || line.starts_with("untrusted comment:") {
                continue;
            }
            let (revoked, entry) = match line.strip_prefix("revoked ") {
                Some(entry) => (true, entry.trim_start()),
                None => (false, line),
            };
            let (word, rest) = entry.split_once(char::is_whitespace).unwrap_or((entry, ""));
            let rest = rest.trim().to_owned();
            if revoked && word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                all.revoked_files.insert(word.to_ascii_lowercase(), rest);
                continue;
            }
            let key: PublicKey = word.parse().map_err(|reason| format!("line {}: {reason}", number + 1))?;
            let keys = if revoked { &mut all.revoked_keys } else { &mut all.keys };
            if keys.iter().any(|(known, _)| known.id() == key.id()) {
                return Err(format!("line {}: key {} stands in it twice", number + 1, key.id()));
            }
            keys.push((key, rest));
        }
        Ok(all)
    }
}
