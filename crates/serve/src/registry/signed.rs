//! Whose plug-ins are taken.

use crate::error::Error;
use crate::watched::{Watched, text_of};
use melo_sign::{Signature, Signer, TrustedKeys, Untrusted, beside};
use std::path::{Path, PathBuf};

/// Whose plug-ins a server takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignatureConfig {
    /// The list of trusted keys, read again when it changes; without it signatures say nothing.
    pub trusted_keys: Option<PathBuf>,
    /// Plug-ins that nobody in the list signed are refused.
    pub required: bool,
}

/// Longest list that is read, bytes.
const BYTES: u64 = 16 << 20;

fn list(path: &Path) -> Result<TrustedKeys, Error> {
    let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
    text_of(path, "a list of trusted keys", BYTES)?.parse().map_err(damaged)
}

/// The list, and how much hangs on it.
pub(super) struct Signers {
    list: Option<Watched<TrustedKeys>>,
    required: bool,
}

impl Signers {
    pub(super) fn open(config: &SignatureConfig) -> Result<Self, Error> {
        if config.required && config.trusted_keys.is_none() {
            return Err(Error::Settings("signatures are required, and no list says whose".to_owned()));
        }
        let watched = config.trusted_keys.as_deref().map(|path| Watched::open(path, list)).transpose()?;
        Ok(Signers { list: watched, required: config.required })
    }

    /// True where signatures are looked at.
    pub(super) fn is_asked(&self) -> bool {
        self.list.is_some()
    }

    /// Who signed a file, before anything else of it is looked at; `sha256` is its digest.
    ///
    /// # Errors
    /// Why it is not taken, in words.
    pub(super) fn admit(
        &self,
        file: &[u8],
        sha256: &str,
        signature: Option<&Signature>,
    ) -> Result<Option<Signer>, String> {
        let Some(watched) = &self.list else { return Ok(None) };
        watched.with(unheard, |list| {
            list.check_file(sha256).map_err(said)?;
            match signature.map(|signature| list.signer(file, signature)) {
                None if self.required => {
                    Err("it is not signed, and only plug-ins that are signed are served here".to_owned())
                }
                None => Ok(None),
                Some(Err(Untrusted::Key(_))) if !self.required => Ok(None),
                Some(signer) => signer.map(Some).map_err(said),
            }
        })
    }

    /// Whether what was admitted still is.
    ///
    /// # Errors
    /// Why it is not, in words.
    pub(super) fn check(&self, sha256: &str, signer: Option<&Signer>) -> Result<(), String> {
        let Some(watched) = &self.list else { return Ok(()) };
        watched.with(unheard, |list| {
            list.check_file(sha256).map_err(said)?;
            match signer.map(|signer| list.name(signer.key)) {
                Some(Err(Untrusted::Key(_))) if !self.required => Ok(()),
                Some(Err(untrusted)) => Err(said(untrusted)),
                Some(Ok(_)) | None => Ok(()),
            }
        })
    }
}

/// What is trusted now is asked for at every use.
fn unheard(_: &TrustedKeys, _: &TrustedKeys) {}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn said(untrusted: Untrusted) -> String {
    untrusted.to_string()
}

/// The signature beside a file, if there is one.
///
/// # Errors
/// Why it cannot be read, in words.
pub(super) fn signature_beside(path: &Path) -> Result<Option<Signature>, String> {
    match Signature::read(&beside(path)) {
        Ok(signature) => Ok(Some(signature)),
        Err(melo_sign::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(melo_sign::Error::Damaged { reason, .. }) => Err(format!("its signature: {reason}")),
        Err(error) => Err(format!("its signature: {error}")),
    }
}
