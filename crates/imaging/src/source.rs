//! A file being decoded, for its errors.

use std::path::Path;

use crate::Error;
use crate::limits::{self, BadSize};

/// A file, or a stream in one.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) name: &'a Path,
    pub(crate) format: &'static str,
    /// Width and height that a file around the image states; nothing else is accepted.
    pub(crate) expected: Option<(u64, u64)>,
}

impl<'a> Source<'a> {
    pub(crate) fn file(name: &'a Path, format: &'static str) -> Self {
        Self { name, format, expected: None }
    }

    pub(crate) fn damaged(self, reason: impl ToString) -> Error {
        Error::Damaged { path: self.name.into(), format: self.format, reason: reason.to_string() }
    }

    pub(crate) fn unsupported(self, found: impl ToString) -> Error {
        Error::Unsupported { path: self.name.into(), format: self.format, found: found.to_string() }
    }

    /// What was asked for is not in the file.
    pub(crate) fn no_such(self, reason: impl ToString) -> Error {
        Error::NoSuchImage { path: self.name.into(), format: self.format, reason: reason.to_string() }
    }

    /// The lengths of a volume's axes, where it is not nothing and not too much.
    pub(crate) fn check_volume(self, lengths: [usize; 3]) -> Result<[usize; 3], Error> {
        match limits::check_voxels(lengths) {
            true => Ok(lengths),
            false => {
                let most = limits::MAX_VOXELS;
                Err(self.unsupported(format!("a volume of {lengths:?} voxels, where 1 to {most} in all are read")))
            }
        }
    }

    /// Refuses a claimed size that is nothing, too much, or too long.
    pub(crate) fn check_size(self, width: u64, height: u64) -> Result<(), Error> {
        let path = self.name.into();
        if let Some((columns, rows)) = self.expected.filter(|&expected| expected != (width, height)) {
            return Err(
                self.damaged(format!("the image is {width} x {height}, Columns and Rows say {columns} x {rows}"))
            );
        }
        limits::check_size(width, height).map_err(|bad| match bad {
            BadSize::NoPixels => Error::NoPixels { path, width, height },
            BadSize::TooLarge => Error::TooLarge { path, width, height },
            BadSize::TooLong => Error::TooLong { path, width, height },
        })
    }
}
