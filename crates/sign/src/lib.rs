//! Who stands behind a file: Ed25519 keys and signatures in the files of minisign (<https://jedisct1.github.io/minisign/>), which that
//! program makes and reads too; the list of keys that are trusted; short texts signed as notes (<https://c2sp.org/signed-note>).

mod error;
mod key;
mod note;
mod signature;
mod trusted;

pub use error::Error;
pub use key::{KeyId, PublicKey, SecretKey};
pub use note::Note;
pub use signature::{Signature, beside};
pub use trusted::{Signer, TrustedKeys, Untrusted};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::path::Path;

/// What stands for a file in a list of trusted keys: its SHA-256 in hexadecimal digits.
pub fn sha256(file: &[u8]) -> String {
    Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The text of a file of this kind, which has so many bytes at most.
fn text_of(path: &Path, kind: &str, most: u64) -> Result<String, Error> {
    let bytes = std::fs::metadata(path).map_err(Error::io(path))?.len();
    if bytes > most {
        return Err(Error::damaged(path, format!("it has {bytes} bytes, {kind} at most {most}")));
    }
    std::fs::read_to_string(path).map_err(Error::io(path))
}

/// The bytes of a line in base64, if it is one of exactly that many.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// The lines of a file of keys or signatures, which others may have written with a carriage return.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.trim_end_matches('\r'))
}
