//! Why something was not logged.

use std::path::PathBuf;

/// Why something was not logged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What is to be a server's address is none.
    #[error("`{address}`: {reason}")]
    Address {
        /// As given.
        address: String,
        /// What is expected.
        reason: &'static str,
    },
    /// The server cannot be asked, or not now.
    #[error("{address}: {reason}")]
    Lost {
        /// What was asked.
        address: String,
        /// What stands in the way.
        reason: String,
    },
    /// The server said no.
    #[error("{address}: {reason}")]
    Refused {
        /// What was asked.
        address: String,
        /// In its words.
        reason: String,
    },
    /// A file cannot be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The plug-in cannot be read again.
    #[error(transparent)]
    Plugin(#[from] melo_vit::Error),
}
