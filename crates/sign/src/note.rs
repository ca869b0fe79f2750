//! Short texts that are signed: <https://c2sp.org/signed-note>.

use crate::key::{PublicKey, SecretKey};
use crate::{base64, bytes};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// Type of an Ed25519 key in notes.
const ED25519: u8 = 1;
/// How a line of signature begins: an em dash.
const DASH: &str = "\u{2014} ";

/// A text and its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    /// The key's name, and four bytes of its digest with the 64 of the signature.
    signatures: Vec<(String, [u8; 68])>,
}

impl Note {
    /// Signs a text under a name of the key.
    ///
    /// # Panics
    /// If the text does not end a line, or the name is empty or has spaces or `+`.
    pub fn new(text: String, name: &str, key: &SecretKey) -> Self {
        assert!(text.ends_with('\n'), "a text of whole lines");
        assert!(!name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+'), "a name of a key");
        let mut signature = [0; 68];
        signature[..4].copy_from_slice(&hash(name, key.public()));
        signature[4..].copy_from_slice(&key.sign(text.as_bytes()));
        Note { text, signatures: vec![(name.to_owned(), signature)] }
    }

    /// The text; worth as much as [`Note::is_of`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True where the secret half of `key` signed the text under that name.
    pub fn is_of(&self, name: &str, key: &PublicKey) -> bool {
        self.signatures.iter().any(|(by, signature)| {
            let (front, own) = signature.split_at(4);
            let own: Result<&[u8; 64], _> = own.try_into();
            by == name && front == hash(name, key) && own.is_ok_and(|own| key.signed(self.text.as_bytes(), own))
        })
    }

    /// A key as tools for notes take it: `name+hash+key`.
    pub fn verifier(name: &str, key: &PublicKey) -> String {
        let digits: String = hash(name, key).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name}+{digits}+{}", base64(&[&[ED25519][..], key.key()].concat()))
    }
}

/// What tells keys of one name apart.
fn hash(name: &str, key: &PublicKey) -> [u8; 4] {
    let digest = Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(key.key()).finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|(name, signature)| writeln!(f, "{DASH}{name} {}", base64(signature)))
    }
}

impl FromStr for Note {
    type Err = &'static str;

    /// Signatures of other kinds are passed over, as the specification asks.
    fn from_str(note: &str) -> Result<Self, &'static str> {
        let wrong = "it is no signed note: expected a text, an empty line and signatures";
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(wrong)?;
        let mut known = Vec::new();
        for line in signatures.lines() {
            let (name, signature) = line.strip_prefix(DASH).and_then(|line| line.split_once(' ')).ok_or(wrong)?;
            known.extend(bytes(signature).map(|signature| (name.to_owned(), signature)));
        }
        if !signatures.ends_with('\n') || signatures.is_empty() {
            return Err(wrong);
        }
        Ok(Note { text: format!("{text}\n"), signatures: known })
    }
}
