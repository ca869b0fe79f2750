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
    /// A heat map of an image whose pixels were not kept when it was prepared.
    #[error("the image was prepared without keeping its pixels, so nothing can be laid over them")]
    NoPixels,
}
