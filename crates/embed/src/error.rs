//! Why there are no features.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// From the engine, of features that the backbone does not have, or of a plug-in's file.
    #[error(transparent)]
    Engine(#[from] melo_vit::Error),
    /// A manifest, or a pack made for another preprocessing.
    #[error(transparent)]
    Data(#[from] melo_data::Error),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A list without an image.
    #[error("{}: names no image", path.display())]
    NoInput {
        /// The list.
        path: PathBuf,
    },
    /// Another ending than those that are written.
    #[error("{}: features are written as .npy, .safetensors or .parquet", path.display())]
    Format {
        /// The output.
        path: PathBuf,
    },
    /// Parquet, of a build without it.
    #[error("{}: this build writes no Parquet", path.display())]
    NoParquet {
        /// The output.
        path: PathBuf,
    },
    /// 16-bit floats in a format that is written with 32.
    #[error("{}: Parquet is written with 32-bit floats", path.display())]
    ParquetF16 {
        /// The output.
        path: PathBuf,
    },
    /// A value that 16 bits do not hold, or none.
    #[error("{image}: a feature is {value}, which {dtype} does not hold")]
    Value {
        /// The image.
        image: String,
        /// What was computed.
        value: f32,
        /// Numbers of the file.
        dtype: &'static str,
    },
    /// Another process writes this output.
    #[error("{}: another process is at it", partial.display())]
    Busy {
        /// The folder of the unfinished output.
        partial: PathBuf,
    },
    /// No image of the list could be read; each was told.
    #[error("none of {images} images could be read")]
    NoneRead {
        /// Images of the list.
        images: usize,
    },
    /// Stopped from outside; what was computed is kept.
    #[error("interrupted after {done} of {of} images, which are kept in {}", partial.display())]
    Interrupted {
        /// Images done.
        done: usize,
        /// Images of the list.
        of: usize,
        /// The folder of the unfinished output.
        partial: PathBuf,
    },
    /// What was kept of an interrupted run is not what it wrote.
    #[error("{}: {reason}", path.display())]
    Partial {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Error::Io { path, source }
    }
}
