//! Patients without their names.

use crate::error::Error;
use melo_vit::hex;
use ring::hmac;
use std::path::Path;

/// Bytes of a key at least.
pub(crate) const LEAST: usize = 16;
/// What a key's fingerprint is the code of; no Patient ID has a NUL.
const FINGERPRINT: &[u8] = b"melo-archive\0";

/// A secret under which a Patient ID becomes the same code everywhere, and from which nobody without it comes back: IDs are short, so that
/// a plain hash of them is undone by trying all.
#[derive(Clone, Debug)]
pub struct PatientKey(hmac::Key);

impl PatientKey {
    /// The bytes of a file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::ShortKey`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        match bytes.len() {
            found if found < LEAST => Err(Error::ShortKey { path: path.to_owned(), found }),
            _ => Ok(PatientKey(hmac::Key::new(hmac::HMAC_SHA256, &bytes))),
        }
    }

    /// HMAC-SHA-256 (RFC 2104) of a Patient ID in UTF-8, 64 hexadecimal digits.
    pub fn code(&self, patient_id: &str) -> String {
        hex(hmac::sign(&self.0, patient_id.as_bytes()).as_ref())
    }

    /// Tells keys apart, and nothing else of them; 16 hexadecimal digits.
    pub(crate) fn fingerprint(&self) -> String {
        hex(&hmac::sign(&self.0, FINGERPRINT).as_ref()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_rfc_4231_and_keys_differ() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("a key");
            PatientKey::read(&path)
        };
        let first = key("first", &[0x0b; 20]).expect("long enough");
        assert_eq!(first.code("Hi There"), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        let second = key("second", &[0x0c; 20]).expect("long enough");
        assert_ne!(first.fingerprint(), second.fingerprint());
        let short = key("short", &[1; 15]).expect_err("too short").to_string();
        assert!(short.contains("short: a key of 15 bytes, expected at least 16"), "{short}");
    }
}
