//! Why there is no answer.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An image that cannot be read.
    #[error(transparent)]
    Image(#[from] melo_imaging::Error),
    /// From the engine, or from a plug-in's file.
    #[error(transparent)]
    Engine(#[from] melo_vit::Error),
    /// A plug-in that answers for single images was asked about a bag.
    #[error("task `{task}` answers for single images, not for bags of them")]
    NoBags {
        /// The task.
        task: String,
    },
    /// A bag without an image.
    #[error("task `{task}`: an empty bag: expected images, found none")]
    EmptyBag {
        /// The task.
        task: String,
    },
    /// A heat map of an image whose pixels were not kept when it was prepared.
    #[error("the image was prepared without keeping its pixels, so nothing can be laid over them")]
    NoPixels,
}
