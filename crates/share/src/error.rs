//! Why a plug-in was not shared.

use std::path::{Path, PathBuf};

/// Why a plug-in was not shared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What is to be a reference is none.
    #[error("`{reference}`: {reason}")]
    Reference {
        /// As given.
        reference: String,
        /// What is expected.
        reason: String,
    },
    /// Nobody answers, or not as expected.
    #[error("{address}: {reason}")]
    Away {
        /// What was asked.
        address: String,
        /// What stands in the way.
        reason: String,
    },
    /// The answer is no.
    #[error("{address}: {status}{}{said}", if said.is_empty() { "" } else { ": " })]
    Refused {
        /// What was asked.
        address: String,
        /// The status of HTTP.
        status: u16,
        /// In the server's words.
        said: String,
    },
    /// Bytes are not those that were pushed.
    #[error("{blob} has SHA-256 {found}, expected {expected}")]
    Tampered {
        /// Which bytes, and of what.
        blob: String,
        /// The digest that was promised.
        expected: String,
        /// The digest that was found.
        found: String,
    },
    /// It holds something else.
    #[error("{reference}: {reason}")]
    NoPlugin {
        /// Where.
        reference: String,
        /// Why.
        reason: String,
    },
    /// There is no folder for a cache.
    #[error("there is no place for a cache: neither XDG_CACHE_HOME nor HOME is a path")]
    NoCache,
    /// A file cannot be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A plug-in cannot be read, or the hub does not give it.
    #[error(transparent)]
    Plugin(#[from] melo_vit::Error),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path: path.clone(), source }
    }
}
