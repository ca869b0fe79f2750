//! Signatures in minisign's files.

use crate::error::Error;
use crate::key::{KeyId, PublicKey, SecretKey};
use crate::{base64, bytes, lines, text_of};
use blake2::{Blake2b512, Digest};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The signature is of the file's BLAKE2b-512, or of its bytes (minisign's older way).
const HASHED: &[u8; 2] = b"ED";
const BARE: &[u8; 2] = b"Ed";
/// Longest file of a signature that is read, bytes.
const BYTES: u64 = 64 << 10;

/// Where the signature of a file is looked for: `FILE.minisig`.
pub fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".minisig");
    PathBuf::from(name)
}

/// A signature of a file, with a comment that is signed too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    hashed: bool,
    id: KeyId,
    own: [u8; 64],
    comment: String,
    whole: [u8; 64],
}

impl Signature {
    /// Signs bytes, and one line of comment with them.
    ///
    /// # Panics
    /// If the comment has more than one line.
    pub fn new(message: &[u8], key: &SecretKey, comment: &str) -> Self {
        assert!(!comment.contains(['\n', '\r']), "a comment is one line");
        let own = key.sign(&Blake2b512::digest(message));
        let whole = key.sign(&[&own[..], comment.as_bytes()].concat());
        Signature { hashed: true, id: key.public().id(), own, comment: comment.to_owned(), whole }
    }

    /// The key that it says it was made with.
    pub fn key(&self) -> KeyId {
        self.id
    }

    /// The signed comment; worth as much as [`Signature::is_of`].
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// True where the secret half of `key` signed these bytes and the comment.
    pub fn is_of(&self, message: &[u8], key: &PublicKey) -> bool {
        let signed = match self.hashed {
            true => key.signed(&Blake2b512::digest(message), &self.own),
            false => key.signed(message, &self.own),
        };
        signed && self.id == key.id() && key.signed(&[&self.own[..], self.comment.as_bytes()].concat(), &self.whole)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = text_of(path, "a signature", BYTES)?;
        text.parse().map_err(|reason: &str| Error::damaged(path, reason))
    }
}

/// The file of minisign.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = if self.hashed { HASHED } else { BARE };
        let own = base64(&[&algorithm[..], &self.id.0, &self.own].concat());
        writeln!(f, "untrusted comment: signature of key {}\n{own}", self.id)?;
        writeln!(f, "trusted comment: {}\n{}", self.comment, base64(&self.whole))
    }
}

impl FromStr for Signature {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let wrong = "it is no signature of minisign: expected a comment, a signature, a trusted comment and its signature, a line each";
        let mut lines = lines(text);
        let mut line = || lines.next().ok_or(wrong);
        line()?.strip_prefix("untrusted comment:").ok_or(wrong)?;
        let own: [u8; 74] = bytes(line()?).ok_or(wrong)?;
        let comment = line()?.strip_prefix("trusted comment: ").ok_or(wrong)?.to_owned();
        let whole = bytes(line()?).ok_or(wrong)?;
        let hashed = match &own[..2] {
            algorithm if algorithm == HASHED => true,
            algorithm if algorithm == BARE => false,
            _ => return Err(wrong),
        };
        let (mut id, mut signature) = ([0; 8], [0; 64]);
        id.copy_from_slice(&own[2..10]);
        signature.copy_from_slice(&own[10..]);
        Ok(Signature { hashed, id: KeyId(id), own: signature, comment, whole })
    }
}
