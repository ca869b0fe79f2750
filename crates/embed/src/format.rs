//! The files that features are written as.

mod npy;
#[cfg(feature = "parquet")]
mod parquet;
mod safetensors;

use crate::about::{About, Failed};
use crate::error::Error;
use crate::inputs::Column;
use crate::partial::Partial;
use std::path::{Path, PathBuf};

/// A format, told by the output's ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// NumPy's array, with a table of its rows and what it is beside it.
    Npy,
    /// Tensors `features` and `rows`, the table as text.
    Safetensors,
    /// A table with a column `features`; with the feature `parquet` of this crate.
    Parquet,
}

impl Format {
    /// The format of an output.
    ///
    /// # Errors
    /// [`Error::Format`], [`Error::NoParquet`].
    pub fn of(output: &Path) -> Result<Self, Error> {
        let ending = output.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "npy" => Ok(Format::Npy),
            "safetensors" => Ok(Format::Safetensors),
            "parquet" if cfg!(feature = "parquet") => Ok(Format::Parquet),
            "parquet" => Err(Error::NoParquet { path: output.to_owned() }),
            _ => Err(Error::Format { path: output.to_owned() }),
        }
    }

    /// Bytes in front of the values, which are known at the end.
    pub(crate) fn start(self, about: &About) -> u64 {
        match self {
            Format::Npy => npy::START as u64,
            Format::Safetensors => safetensors::start(about) as u64,
            Format::Parquet => 0,
        }
    }

    /// Makes the output of what was collected.
    pub(crate) fn finish(
        self,
        output: &Path,
        about: &About,
        failed: &[Failed],
        columns: &[Column],
        partial: &mut Partial,
    ) -> Result<(), Error> {
        match self {
            Format::Npy => npy::finish(output, about, failed, partial),
            Format::Safetensors => safetensors::finish(output, about, failed, partial),
            #[cfg(feature = "parquet")]
            Format::Parquet => parquet::finish(output, about, failed, columns, partial),
            #[cfg(not(feature = "parquet"))]
            Format::Parquet => {
                let _ = columns;
                Err(Error::NoParquet { path: output.to_owned() })
            }
        }
    }
}

/// Files that are written beside an output: of an `.npy` the table of its rows and what it is.
pub fn sidecars(output: &Path) -> Vec<PathBuf> {
    match Format::of(output) {
        Ok(Format::Npy) => vec![output.with_extension("rows.csv"), output.with_extension("about.json")],
        _ => Vec::new(),
    }
}
