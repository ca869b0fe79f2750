//! What can be wrong with an image file.

use std::path::PathBuf;

use crate::dicom::tag::Tag;
use crate::limits::{MAX_ASPECT, MAX_PIXELS};

/// Why a file gave no pixels, or pixels gave no file. Every variant names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is missing, is a directory, or may not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file holds no byte.
    #[error("{}: expected an image, found an empty file", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The first bytes are those of no supported format.
    #[error("{}: not an image: expected PNG, JPEG, TIFF, BMP, DICOM, NIfTI-1 or NumPy, first bytes are {found}", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// Up to eight first bytes, in hexadecimal and as text.
        found: String,
    },
    /// The header promises an image that the rest of the file does not hold: truncated or corrupt.
    #[error("{}: damaged {format}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// `"PNG"`, `"JPEG"`, `"TIFF"`, `"BMP"`, `"NIfTI"`, `"npy"` or `"npz"`.
        format: &'static str,
        /// What the decoder found.
        reason: String,
    },
    /// A valid file of a kind that is not read, such as CMYK or floating-point samples.
    #[error("{}: {format} of a kind that is not read: {found}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// `"PNG"`, `"JPEG"`, `"TIFF"`, `"BMP"`, `"NIfTI"`, `"npy"` or `"npz"`.
        format: &'static str,
        /// What was found, and what would be read.
        found: String,
    },
    /// A DICOM attribute is missing, damaged, or of a kind that is not read.
    #[error("{}: {attribute} {reason}", path.display())]
    Attribute {
        /// The file.
        path: PathBuf,
        /// The attribute.
        attribute: Tag,
        /// What of it, as the rest of a sentence.
        reason: String,
    },
    /// A DICOM attribute was asked for by a name that is none.
    #[error("{}: `{attribute}` is no attribute: expected a keyword such as PatientSex, or a tag such as 00100040", path.display())]
    UnknownAttribute {
        /// The file.
        path: PathBuf,
        /// The name.
        attribute: String,
    },
    /// A valid file that does not hold the image, or the window, that was asked for.
    #[error("{}: {format}: {reason}", path.display())]
    NoSuchImage {
        /// The file.
        path: PathBuf,
        /// `"NIfTI"`, `"npy"` or `"npz"`.
        format: &'static str,
        /// What was asked for, and what there is.
        reason: String,
    },
    /// No column or no row.
    #[error("{}: expected at least one pixel, the header says {width} x {height}", path.display())]
    NoPixels {
        /// The file.
        path: PathBuf,
        /// Columns claimed.
        width: u64,
        /// Rows claimed.
        height: u64,
    },
    /// More than [`MAX_PIXELS`] pixels claimed; refused before anything is allocated.
    #[error("{}: expected at most {MAX_PIXELS} pixels, the header says {width} x {height}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Columns claimed.
        width: u64,
        /// Rows claimed.
        height: u64,
    },
    /// One side more than [`MAX_ASPECT`] times the other.
    #[error("{}: expected sides within {MAX_ASPECT}:1 of each other, the header says {width} x {height}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Columns claimed.
        width: u64,
        /// Rows claimed.
        height: u64,
    },
    /// The file could not be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}
