//! What can be wrong with an image file.

use std::path::{Path, PathBuf};

use crate::dicom::tag::Tag;
use crate::limits::{MAX_ASPECT, MAX_PIXELS};

/// Why a file gave no pixels, or pixels gave no file. Every variant names the file; an image inside another file has no name
/// of its own, and none is said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is missing, is a directory, or may not be read.
    #[error("{}cannot be read: {source}", at(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file holds no byte.
    #[error("{}expected an image, found an empty file", at(path))]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The first bytes are those of no supported format.
    #[error(
        "{}not an image: this is {found}. PNG, JPEG, TIFF, BMP, WebP, GIF, JPEG 2000, DICOM, NIfTI-1 and NumPy are read",
        at(path)
    )]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What it looks like, in words.
        found: String,
    },
    /// A file of another kind where a volume is expected.
    #[error("{}not a volume: a NIfTI-1 file, or an array of NumPy of three axes, is expected", at(path))]
    NotAVolume {
        /// The file.
        path: PathBuf,
    },
    /// The header promises an image that the rest of the file does not hold: truncated or corrupt.
    #[error("{}damaged {format}: {reason}", at(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// `"PNG"`, `"JPEG"`, `"TIFF"`, `"BMP"`, `"WebP"`, `"GIF"`, `"JPEG 2000"`, `"NIfTI"`, `"npy"` or `"npz"`.
        format: &'static str,
        /// What the decoder found.
        reason: String,
    },
    /// A valid file of a kind that is not read, such as L*a*b* colour.
    #[error("{}{format} of a kind that is not read: {found}", at(path))]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// `"PNG"`, `"JPEG"`, `"TIFF"`, `"BMP"`, `"WebP"`, `"GIF"`, `"JPEG 2000"`, `"NIfTI"`, `"npy"` or `"npz"`.
        format: &'static str,
        /// What was found, and what would be read.
        found: String,
    },
    /// A DICOM attribute is missing, damaged, or of a kind that is not read.
    #[error("{}{attribute} {reason}", at(path))]
    Attribute {
        /// The file.
        path: PathBuf,
        /// The attribute.
        attribute: Tag,
        /// What of it, as the rest of a sentence.
        reason: String,
    },
    /// A DICOM attribute was asked for by a name that is none.
    #[error(
        "{}`{attribute}` is no attribute: expected a keyword such as PatientSex, or a tag such as 00100040",
        at(path)
    )]
    UnknownAttribute {
        /// The file.
        path: PathBuf,
        /// The name.
        attribute: String,
    },
    /// A valid file that does not hold the image, or the window, that was asked for.
    #[error("{}{format}: {reason}", at(path))]
    NoSuchImage {
        /// The file.
        path: PathBuf,
        /// `"TIFF"`, `"GIF"`, `"NIfTI"`, `"npy"` or `"npz"`.
        format: &'static str,
        /// What was asked for, and what there is.
        reason: String,
    },
    /// No column or no row.
    #[error("{}expected at least one pixel, the header says {width} x {height}", at(path))]
    NoPixels {
        /// The file.
        path: PathBuf,
        /// Columns claimed.
        width: u64,
        /// Rows claimed.
        height: u64,
    },
    /// More than [`MAX_PIXELS`] pixels claimed; refused before anything is allocated.
    #[error("{}expected at most {MAX_PIXELS} pixels, the header says {width} x {height}", at(path))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Columns claimed.
        width: u64,
        /// Rows claimed.
        height: u64,
    },
    /// More than [`MAX_PIXELS`] pixels after the resize that a preprocessing asks for; refused before it is made.
    #[error(
        "{}expected at most {MAX_PIXELS} pixels after the resize, the preprocessing asks for {width} x {height}",
        at(path)
    )]
    FittedTooLarge {
        /// The file.
        path: PathBuf,
        /// Columns after the resize.
        width: u64,
        /// Rows after the resize.
        height: u64,
    },
    /// One side more than [`MAX_ASPECT`] times the other.
    #[error("{}expected sides within {MAX_ASPECT}:1 of each other, the header says {width} x {height}", at(path))]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Columns claimed.
        width: u64,
        /// Rows claimed.
        height: u64,
    },
    /// A mask's file holds a value that is no class.
    #[error(
        "{}value {value} at column {column}, row {row} (0 the first) is no class: expected {expected}; the file holds {found}",
        at(path)
    )]
    MaskValue {
        /// The mask.
        path: PathBuf,
        /// The first such value, row by row.
        value: f64,
        /// Its column, 0 the first.
        column: usize,
        /// Its row, 0 the first.
        row: usize,
        /// Values that are taken, in words.
        expected: String,
        /// Values of the file, the least few.
        found: String,
    },
    /// A mask of colours.
    #[error(
        "{}a {format} mask of colours, red {}, green {}, blue {} at column {column}, row {row} (0 the first): expected \
         one number a pixel, grey or the index of a palette",
        at(path), colour[0], colour[1], colour[2]
    )]
    MaskColour {
        /// The mask.
        path: PathBuf,
        /// As in [`Error::Damaged`].
        format: &'static str,
        /// Red, green and blue of the first pixel of unequal ones.
        colour: [f64; 3],
        /// Its column, 0 the first.
        column: usize,
        /// Its row, 0 the first.
        row: usize,
    },
    /// A mask in a format whose compression may change values.
    #[error(
        "{}a mask as {format}, whose compression changes values: PNG, TIFF, NIfTI, DICOM and NumPy keep them",
        at(path)
    )]
    LossyMask {
        /// The mask.
        path: PathBuf,
        /// The format.
        format: &'static str,
    },
    /// A mask of another size than its image's.
    #[error("{}the mask is {} x {}, its image {} x {}", at(path), mask.0, mask.1, image.0, image.1)]
    MaskSize {
        /// The mask.
        path: PathBuf,
        /// Columns and rows of the mask.
        mask: (usize, usize),
        /// Columns and rows of the image, as it is read.
        image: (usize, usize),
    },
    /// The file could not be written.
    #[error("{}cannot be written: {source}", at(path))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl Error {
    /// The same of a file that is named elsewhere.
    pub fn without_name(mut self) -> Self {
        match &mut self {
            Self::Read { path, .. }
            | Self::Empty { path }
            | Self::NotAnImage { path, .. }
            | Self::NotAVolume { path }
            | Self::Damaged { path, .. }
            | Self::Unsupported { path, .. }
            | Self::Attribute { path, .. }
            | Self::UnknownAttribute { path, .. }
            | Self::NoSuchImage { path, .. }
            | Self::NoPixels { path, .. }
            | Self::TooLarge { path, .. }
            | Self::TooLong { path, .. }
            | Self::FittedTooLarge { path, .. }
            | Self::MaskValue { path, .. }
            | Self::MaskColour { path, .. }
            | Self::LossyMask { path, .. }
            | Self::MaskSize { path, .. }
            | Self::Write { path, .. } => path.clear(),
        }
        self
    }
}

impl Error {
    /// The file, or what bytes without a file were called.
    pub fn path(&self) -> &Path {
        use Error as E;
        match self {
            E::Read { path, .. }
            | E::Empty { path, .. }
            | E::NotAnImage { path, .. }
            | E::NotAVolume { path, .. }
            | E::Damaged { path, .. }
            | E::Unsupported { path, .. }
            | E::Attribute { path, .. }
            | E::UnknownAttribute { path, .. }
            | E::NoSuchImage { path, .. }
            | E::NoPixels { path, .. }
            | E::TooLarge { path, .. }
            | E::FittedTooLarge { path, .. }
            | E::TooLong { path, .. }
            | E::MaskValue { path, .. }
            | E::MaskColour { path, .. }
            | E::LossyMask { path, .. }
            | E::MaskSize { path, .. }
            | E::Write { path, .. } => path,
        }
    }
}

/// `path: `, or nothing for bytes that have no name.
fn at(path: &Path) -> impl std::fmt::Display {
    if path.as_os_str().is_empty() { String::new() } else { format!("{}: ", path.display()) }
}
