//! Where a chain stood, signed: kept where nobody who can write the audit can write, it shows that rows were lost or written anew.
//! The bytes are specified in `docs/audit.md`.

use super::chain::{Head, NOTHING};
use super::verify::Anchor;
use crate::clock::{now_ms, parse, rfc3339};
use crate::error::Error;
use crate::watched::text_of;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use melo_sign::{Note, PublicKey, SecretKey};
use melo_vit::{hex, write_atomically};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest file of a checkpoint that is read, bytes.
const BYTES: u64 = 64 << 10;

/// Where checkpoints go, and who signs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// The file of the last one: on another disk or machine than the audit.
    pub file: PathBuf,
    /// The secret key, a file of `minisign -G -W`.
    pub key: PathBuf,
    /// How old the last one may be while rows were added since.
    pub every: Duration,
}

/// A place in a chain, as it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last row then.
    pub head: Head,
    /// When it was signed, ms since 1970 in UTC.
    pub time_ms: i64,
    /// Whose audit it is, where that was said.
    pub replica: Option<String>,
}

impl Checkpoint {
    /// The head of a replica's chain, now.
    pub fn now(head: Head, replica: Option<String>) -> Self {
        Checkpoint { head, time_ms: now_ms(), replica }
    }

    /// What `melo audit verify` holds a chain to.
    pub fn anchor(&self) -> Anchor {
        Anchor::of(&self.head)
    }

    /// Signed under the name that [`Checkpoint::origin`] gives the key.
    pub fn sign(&self, key: &SecretKey) -> Note {
        let origin = Checkpoint::origin(key.public());
        let hash = STANDARD.encode(bytes_of(&self.head.hash));
        let replica = self.replica.as_ref().map_or(String::new(), |replica| format!("replica {replica}\n"));
        let text = format!("{origin}\n{}\n{hash}\ntime {}\n{replica}", self.head.rows, rfc3339(self.time_ms));
        Note::new(text, &origin, key)
    }

    /// What the first line says, and whose name stands in the signature.
    pub fn origin(key: &PublicKey) -> String {
        format!("melo.audit/{}", key.id())
    }

    /// Writes the signed note, which it gives, in the place of an older one, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path, key: &SecretKey) -> Result<Note, Error> {
        let note = self.sign(key);
        let write = write_atomically(path, note.to_string().as_bytes());
        let failed = |source| Error::Io { path: path.to_owned(), source };
        write.map_err(|error| failed(std::io::Error::other(error.to_string())))?;
        Ok(note)
    }

    /// Reads a note that `key` signed.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`].
    pub fn read(path: &Path, key: &PublicKey) -> Result<Self, Error> {
        let damaged = |reason: &str| Error::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        let text = text_of(path, "a checkpoint", BYTES)?;
        let note: Note = text.parse().map_err(damaged)?;
        let origin = Checkpoint::origin(key);
        if !note.is_of(&origin, key) {
            return Err(damaged(&format!("it is not signed by key {}, or was changed after it was signed", key.id())));
        }
        Checkpoint::parse(note.text(), &origin).ok_or_else(|| damaged("it is signed, but no checkpoint of an audit"))
    }

    fn parse(text: &str, origin: &str) -> Option<Self> {
        let mut lines = text.lines();
        let first = lines.next()? == origin;
        let rows = lines.next()?.parse().ok().filter(|&rows: &i64| rows >= 0)?;
        let hash = STANDARD.decode(lines.next()?).ok().filter(|hash| hash.len() == NOTHING.len() / 2)?;
        let time_ms = parse(lines.next()?.strip_prefix("time ")?)?;
        let replica = lines.next().and_then(|line| line.strip_prefix("replica ")).map(str::to_owned);
        first.then(|| Checkpoint { head: Head { rows, hash: hex(&hash) }, time_ms, replica })
    }
}

/// The bytes that hexadecimal digits of ours stand for.
fn bytes_of(digits: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or_default() as u8;
    digits.as_bytes().chunks(2).map(|pair| pair.iter().fold(0, |all, byte| all << 4 | digit(byte))).collect()
}

/// The last checkpoint of a chain that is being written.
pub(super) struct Checkpoints {
    config: CheckpointConfig,
    key: SecretKey,
    replica: String,
    pub(super) last: Option<Head>,
    /// Whose the last one was when the server began.
    of: Option<String>,
}

impl Checkpoints {
    /// Reads the last one, of which nothing is known yet where the chain is empty.
    pub(super) fn open(config: &CheckpointConfig, replica: &str, chain: &Path, head: &Head) -> Result<Self, Error> {
        let key = SecretKey::read(&config.key).map_err(|error| Error::Settings(error.to_string()))?;
        let (last, of) = match Checkpoint::read(&config.file, key.public()) {
            Ok(checkpoint) => (Some(checkpoint.head), checkpoint.replica),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => (None, None),
            Err(error) => return Err(error),
        };
        if last.is_none() && head.rows > 0 {
            let (path, checkpoint) = (chain.to_owned(), config.file.clone());
            return Err(Error::NoCheckpoint { path, rows: head.rows, checkpoint });
        }
        Ok(Checkpoints { config: config.clone(), key, replica: replica.to_owned(), last, of })
    }

    /// Why a chain does not hold the last one, where that is another replica's.
    pub(super) fn explain(&self, error: Error) -> Error {
        let Some(other) = self.of.as_ref().filter(|other| **other != self.replica) else { return error };
        let reason =
            format!("it is the checkpoint of replica `{other}`, and this is replica `{}`: {error}", self.replica);
        Error::Damaged { path: self.config.file.clone(), reason }
    }

    pub(super) fn every(&self) -> Duration {
        self.config.every
    }

    /// Where the last one is.
    pub(super) fn file(&self) -> &Path {
        &self.config.file
    }

    /// Signs a head, unless the last one is the same, and puts it into the log too.
    pub(super) fn sign(&mut self, head: &Head) -> Result<(), Error> {
        if self.last.as_ref() == Some(head) {
            return Ok(());
        }
        let note = Checkpoint::now(head.clone(), Some(self.replica.clone())).write(&self.config.file, &self.key)?;
        tracing::info!(rows = head.rows, %note, "audit checkpoint");
        self.last = Some(head.clone());
        Ok(())
    }
}
