//! What can go wrong while a server starts, and why a request is refused.

use std::path::PathBuf;
use std::time::Duration;

/// Why a server could not start, or had to stop.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of ours could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An address could not be listened on.
    #[error("{address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of ours does not hold what it should.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The audit could not be read or written.
    #[error("{path}: {reason}")]
    Audit {
        /// Its file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// An audit has rows, and there is no checkpoint that says where it stood.
    #[error("{path}: it has {rows} rows, and the file of its last checkpoint, {}, is not there", checkpoint.display())]
    NoCheckpoint {
        /// The audit.
        path: PathBuf,
        /// Its rows.
        rows: i64,
        /// Where the checkpoint should be.
        checkpoint: PathBuf,
    },
    /// Two audits, or checkpoints, that should be of two replicas are of one.
    #[error("{first} and {second} are both of replica `{replica}`")]
    SameReplica {
        /// Its name.
        replica: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A checkpoint is of a replica whose audit is not there.
    #[error("{checkpoint}: {}", match replica {
        Some(replica) => format!("it is of replica `{replica}`, of which there is no audit here"),
        None => "it does not say of which replica it is".to_owned(),
    })]
    NoSuchReplica {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Its replica, where it names one.
        replica: Option<String>,
    },
    /// A file that one process writes is written by another.
    #[error("{path}: another process writes it")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A server that anyone could ask would listen beyond this machine.
    #[error(
        "{address} can be reached from other machines, and without keys anyone there could have images answered and read \
         what is served"
    )]
    Open {
        /// Where it would listen.
        address: std::net::SocketAddr,
    },
    /// A storage SCP that anyone could call would listen beyond this machine.
    #[error(
        "{address} can be reached from other machines, and no peer of the DICOM network is named: anyone there could send images"
    )]
    OpenDicom {
        /// Where it would listen.
        address: std::net::SocketAddr,
    },
    /// The settings contradict each other.
    #[error("{0}")]
    Settings(String),
}

impl Error {
    /// An [`Error::Io`] at a path.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { path: path.to_owned(), source }
    }
}

/// Why a request is not answered. Every one has a code that programs can read, and a sentence for people.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The request itself is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// No key, or one that is not known.
    #[error("{0}")]
    Unauthorized(String),
    /// The key does not allow this.
    #[error("{0}")]
    Forbidden(String),
    /// No such task, version or page.
    #[error("{0}")]
    NotFound(String),
    /// More bytes, images or pixels than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// The image, or plug-in, could not be used; the sentence names it and says why.
    #[error("{0}")]
    Unusable(String),
    /// The caller's share of the queue is used up.
    #[error("your share of the queue is used up, try again in {} s", .0.as_secs())]
    Busy(Duration),
    /// There is no room, whoever asks; another server may have some.
    #[error("the server is full, try again in {} s", .0.as_secs())]
    Full(Duration),
    /// The caller asked more often than it may.
    #[error("`{name}` may ask {per_minute} times a minute, try again in {} s", .wait.as_secs() + 1)]
    TooOften {
        /// Name of the key, or of who has the token.
        name: String,
        /// How often it may.
        per_minute: u32,
        /// Until it may again.
        wait: Duration,
    },
    /// The server is starting.
    #[error("the server is starting")]
    Starting,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// It took longer than allowed.
    #[error("not done within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The server cannot keep its word now, such as with a full disk; nothing was answered.
    #[error("{0}")]
    Unavailable(String),
    /// A defect of ours.
    #[error("{0}")]
    Internal(String),
}

impl Refusal {
    /// A word that programs can read.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::BadRequest(_) => "bad_request",
            Refusal::Unauthorized(_) => "unauthorized",
            Refusal::Forbidden(_) => "forbidden",
            Refusal::NotFound(_) => "not_found",
            Refusal::TooLarge(_) => "too_large",
            Refusal::Unusable(_) => "unusable",
            Refusal::Busy(_) => "busy",
            Refusal::Full(_) => "full",
            Refusal::TooOften { .. } => "too_often",
            Refusal::Starting => "starting",
            Refusal::Stopping => "stopping",
            Refusal::Timeout(_) => "timeout",
            Refusal::Unavailable(_) => "unavailable",
            Refusal::Internal(_) => "internal",
        }
    }
}
