//! Why processes that were started together cannot work together.

use crate::launch::Launch;
use melo_train::TeamError;
use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No library of the launcher's kind.
    #[error("started as {launch}, and no MPI library of that kind was found: {}", tried.join(", "))]
    NoLibrary {
        /// Who started it.
        launch: Launch,
        /// What was looked for.
        tried: Vec<String>,
    },
    /// A library that was named cannot be loaded.
    #[error("{}: {reason}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// A library without a function of MPI, or of no binary interface that is known.
    #[error("{}: not an MPI library of a known kind: {reason}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it lacks, or says of itself.
        reason: String,
    },
    /// A library that does not know of the other processes: the launcher is not its own.
    #[error("started as {launch}, but {library} knows of {size}: it is not the launcher's")]
    Apart {
        /// Who started it.
        launch: Launch,
        /// The library, in its own words.
        library: String,
        /// Processes that it knows of.
        size: usize,
    },
    /// A library that may not be called from more than one thread, even one after the other.
    #[error("{library} may be called by one thread alone")]
    Threads {
        /// The library, in its own words.
        library: String,
    },
    /// A function failed.
    #[error("{function} failed with code {code}")]
    Call {
        /// The function.
        function: &'static str,
        /// What it returned.
        code: i32,
    },
}

impl From<Error> for TeamError {
    fn from(error: Error) -> Self {
        TeamError::Lost { reason: error.to_string() }
    }
}
