//! Keys in minisign's files.

use crate::error::Error;
use crate::{base64, bytes, lines, text_of};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

/// Names the algorithm in keys.
const ALGORITHM: &[u8; 2] = b"Ed";
/// Names the checksum of a secret key.
const CHECKSUM: &[u8; 2] = b"B2";
/// Longest file of a key that is read, bytes.
const BYTES: u64 = 4096;

/// What tells keys apart: drawn with the key, and as trustworthy as whoever says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(crate) [u8; 8]);

/// 16 hexadecimal digits, as minisign prints it.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

/// A key that tells whether its secret half made a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    key: [u8; 32],
}

impl PublicKey {
    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Reads a file of minisign: a comment and a line.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = text_of(path, "a key", BYTES)?;
        let line = second_line(&text).ok_or_else(|| Error::damaged(path, "it is no public key of minisign"))?;
        line.parse().map_err(|reason: &str| Error::damaged(path, reason))
    }

    /// Writes the same.
    ///
    /// # Errors
    /// [`Error::Io`], also for a file that is there already.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = format!("untrusted comment: minisign public key {}\n{self}\n", self.id);
        let write = || File::create_new(path)?.write_all(text.as_bytes());
        write().map_err(Error::io(path))
    }

    /// Whether the secret half signed these bytes so.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key).verify(message, signature).is_ok()
    }

    pub(crate) fn key(&self) -> &[u8; 32] {
        &self.key
    }
}

impl fmt::Display for PublicKey {
    /// One line in base64, as minisign prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64(&[&ALGORITHM[..], &self.id.0, &self.key].concat()))
    }
}

impl FromStr for PublicKey {
    type Err = &'static str;

    fn from_str(line: &str) -> Result<Self, &'static str> {
        let wrong = "expected a public key of minisign, 56 letters that begin with RW";
        let all: [u8; 42] = bytes(line).ok_or(wrong)?;
        let ([algorithm, id, key], []) = split(&all, [2, 8, 32]) else { return Err(wrong) };
        let (true, Ok(id), Ok(key)) = (algorithm == ALGORITHM, id.try_into(), key.try_into()) else {
            return Err(wrong);
        };
        Ok(PublicKey { id: KeyId(id), key })
    }
}

/// A key that signs.
pub struct SecretKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SecretKey {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn generate() -> Result<Self, Error> {
        let (mut id, mut seed) = ([0; 8], [0; 32]);
        let random = SystemRandom::new();
        random.fill(&mut id).and_then(|()| random.fill(&mut seed)).map_err(|_| Error::Random)?;
        SecretKey::new(KeyId(id), seed).ok_or(Error::Random)
    }

    fn new(id: KeyId, seed: [u8; 32]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
        let key = pair.public_key().as_ref().try_into().ok()?;
        Some(SecretKey { seed, pair, public: PublicKey { id, key } })
    }

    /// The half that others get.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Reads a file of minisign, made by `minisign -G -W` or by [`SecretKey::write`].
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`], also for one that others than its owner may read, or that needs a password.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let damaged = |reason: &str| Error::damaged(path, reason);
        #[cfg(unix)]
        {
            let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
            if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
                return Err(damaged("others than its owner may read this secret key: chmod 600"));
            }
        }
        let text = text_of(path, "a key", BYTES)?;
        let wrong = || damaged("it is no secret key of minisign");
        let all: [u8; 158] = second_line(&text).and_then(bytes).ok_or_else(wrong)?;
        let parts = [2, 2, 2, 32 + 8 + 8, 8, 32, 32, 32];
        // Without a password minisign leaves the checksum, which is the last part, at zero.
        let ([algorithm, derivation, checksum, _, id, seed, key, _], []) = split(&all, parts) else {
            return Err(wrong());
        };
        if algorithm != ALGORITHM || checksum != CHECKSUM {
            return Err(wrong());
        }
        match derivation {
            [0, 0] => {}
            b"Sc" => {
                let reason = "it is protected by a password: sign with `minisign -S` itself, or take a key without (`minisign -G -W`)";
                return Err(damaged(reason));
            }
            _ => return Err(wrong()),
        }
        let (Ok(id), Ok(seed)) = (id.try_into(), seed.try_into()) else { return Err(wrong()) };
        let read = SecretKey::new(KeyId(id), seed).filter(|read| read.public.key == key);
        read.ok_or_else(|| damaged("its two halves do not belong together: some of it was changed"))
    }

    /// Writes the same, readable by its owner alone.
    ///
    /// # Errors
    /// [`Error::Io`], also for a file that is there already.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let PublicKey { id, key } = &self.public;
        let parts = [ALGORITHM, &[0, 0], CHECKSUM, &[0; 48][..], &id.0, &self.seed, key, &[0; 32]];
        let text = format!("untrusted comment: minisign secret key {id}\n{}\n", base64(&parts.concat()));
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || -> std::io::Result<()> {
            // A temporary file is its owner's alone, and keeps that under its new name.
            let mut file = tempfile::Builder::new().prefix(".melo-key-").tempfile_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist_noclobber(path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(Error::io(path))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public.id)
    }
}

/// Bytes cut into parts of these lengths, and what is left.
fn split<const N: usize>(mut all: &[u8], lengths: [usize; N]) -> ([&[u8]; N], &[u8]) {
    let parts = lengths.map(|length| {
        let (part, rest) = all.split_at(length.min(all.len()));
        all = rest;
        part
    });
    (parts, all)
}

/// What stands behind a first line of comment.
fn second_line(text: &str) -> Option<&str> {
    let mut lines = lines(text);
    lines.next().filter(|line| line.starts_with("untrusted comment:"))?;
    lines.next()
}
