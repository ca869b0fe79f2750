//! Why an archive is not computed.

use std::path::{Path, PathBuf};

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// From the engine, or of a plug-in that answers for bags.
    #[error(transparent)]
    Engine(#[from] melo_vit::Error),
    /// From the predictor.
    #[error(transparent)]
    Predict(Box<melo_predict::Error>),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// No plug-in was named.
    #[error("no plug-in: expected at least one")]
    NoPlugin,
    /// A plug-in was named twice.
    #[error("task `{task}`: the plug-in {digest} is named twice")]
    Twice {
        /// Its task.
        task: String,
        /// SHA-256 of its file.
        digest: String,
    },
    /// Chunks of no image.
    #[error("chunks of 0 images: expected at least 1")]
    NoChunk,
    /// The inputs hold no image.
    #[error("{inputs}: no image found")]
    NoInput {
        /// As they were named.
        inputs: String,
    },
    /// An address that leads nowhere.
    #[error("{}: expected a path, s3://BUCKET/PREFIX or file:///PATH", name.display())]
    Place {
        /// As it was named.
        name: PathBuf,
    },
    /// Objects, in a build that does not reach them.
    #[error("s3://{bucket}: this build reads no object stores")]
    NoStores {
        /// The bucket.
        bucket: String,
    },
    /// A store that cannot be asked, or refuses to say what it holds.
    #[error("s3://{bucket}: {reason}")]
    Store {
        /// The bucket.
        bucket: String,
        /// What the store, or the way to it, says.
        reason: String,
    },
    /// A store that gives nothing any more, whichever object is asked for.
    #[error("{object}: {reason}")]
    Lost {
        /// The object that was asked for.
        object: String,
        /// What the store, or the way to it, says.
        reason: String,
    },
    /// Too short to keep anybody from trying them all.
    #[error("{}: a key of {found} bytes, expected at least {} (`head -c 32 /dev/urandom`)", path.display(), crate::patient::LEAST)]
    ShortKey {
        /// The key's file.
        path: PathBuf,
        /// Its length.
        found: usize,
    },
    /// Another process is at work in this folder.
    #[error("{}: another process is at it", folder.display())]
    Busy {
        /// The archive's folder.
        folder: PathBuf,
    },
    /// The folder holds what this archive has not written.
    #[error("{}: not of this archive", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The folder was begun with something else.
    #[error("{}: cannot go on: {what} was {was} and is now {now}", folder.display())]
    Differs {
        /// The archive's folder.
        folder: PathBuf,
        /// What is not as it was, a field of the plan.
        what: String,
        /// How the archive was begun.
        was: String,
        /// What was asked for now.
        now: String,
    },
    /// A worker would compute something else than was planned.
    #[error("{}: {what} is planned as {planned} and is {here} here", folder.display())]
    NotPlanned {
        /// The archive's folder.
        folder: PathBuf,
        /// What is another, a field of the plan.
        what: String,
        /// As it is planned.
        planned: String,
        /// As it is here.
        here: String,
    },
    /// A file of the archive is not as it was written.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A NATS server that cannot be reached, or does not do what it is asked.
    #[error("{server}: {reason}")]
    Broker {
        /// Its address, without secrets.
        server: String,
        /// What it says, or the way to it.
        reason: String,
    },
    /// A NATS server that knows nobody with these credentials.
    #[error("{server}: refuses these credentials")]
    Refused {
        /// Its address, without secrets.
        server: String,
    },
    /// A NATS server, or an account on it, that keeps no messages.
    #[error("{server}: JetStream is not enabled")]
    NoJetStream {
        /// Its address, without secrets.
        server: String,
    },
    /// Two archives would share a queue.
    #[error("{server}: the queue `{name}` is of another archive, {folder}, plan {}", plan.get(..12).unwrap_or(plan))]
    Taken {
        /// The server's address, without secrets.
        server: String,
        /// The queue.
        name: String,
        /// The folder of the other archive.
        folder: String,
        /// SHA-256 of its plan.
        plan: String,
    },
    /// A name that NATS would not take.
    #[error("`{name}`: expected a name of letters, digits, `-` and `_`")]
    Name {
        /// As it was given.
        name: String,
    },
    /// Nothing was queued from a folder.
    #[error("{}: nothing was queued from this folder", folder.display())]
    NotQueued {
        /// The archive's folder.
        folder: PathBuf,
    },
    /// A queue that was there once.
    #[error("{server}: the queue `{name}` is not there")]
    Gone {
        /// The server's address, without secrets.
        server: String,
        /// The queue.
        name: String,
    },
    /// Images that are named relative to another folder than the one at hand.
    #[error("images are named relative to {}, and this is {}", planned.display(), here.display())]
    Elsewhere {
        /// Where the plan was made.
        planned: PathBuf,
        /// Where a worker was started.
        here: PathBuf,
    },
    /// Parts are missing.
    #[error("{}: {missing} of {of} parts are not there{}", folder.display(), failed(failures))]
    Incomplete {
        /// The archive's folder.
        folder: PathBuf,
        /// Parts that are not there.
        missing: u64,
        /// Parts of the archive.
        of: u64,
        /// Those of them that are not tried again, with the reason.
        failures: Vec<String>,
    },
    /// No file of a chunk can be read, which says more of this machine than of them.
    #[error("none of {images} files can be read here, the first: {reason}")]
    NoFile {
        /// Files of the chunk.
        images: usize,
        /// The first one's.
        reason: String,
    },
    /// Stopped from outside; finished parts are kept.
    #[error("interrupted after {done} of {of} images, which are kept in {}", folder.display())]
    Interrupted {
        /// Images done.
        done: u64,
        /// Images of the list.
        of: u64,
        /// The archive's folder.
        folder: PathBuf,
    },
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Error::Io { path, source }
    }

    pub(crate) fn damaged(path: &Path, reason: impl std::fmt::Display) -> Self {
        Error::Damaged { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Parts that failed, in words.
fn failed(failures: &[String]) -> String {
    match failures {
        [] => String::new(),
        [first, rest @ ..] => format!(", {} failed, the first: {first}", 1 + rest.len()),
    }
}
