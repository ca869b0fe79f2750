//! Untrusted bytes to pixels to network input: the only executor of [`melo_vit::Preprocess`].
//!
//! ```text
//! read / decode     bytes              -> Pixels                     (error on anything odd)
//! read_with         bytes, Rendering   -> Pixels                     (of DICOM, NIfTI and NumPy: which image, which window)
//! dicom             bytes              -> header values, frames, series
//! fit               Pixels             -> Pixels, resized            (deterministic: cache this)
//! read_fit          a file            -> Pixels, resized            (read, then fit: faster for grey PNG)
//! crop_normalise    resized Pixels     -> [3, size, size] f32
//! prepare           fit, then crop_normalise
//! heatmap::overlay  Pixels, relevance  -> Pixels                     (the same geometry, backwards)
//! ```
//!
//! The numbers are those of timm's `transforms_imagenet_eval` over Pillow, so that weights trained in Python
//! see the pixels that they were trained on.

mod codec;
mod decode;
pub mod dicom;
mod error;
mod grey;
pub mod heatmap;
mod jpeg;
mod jpeg2000;
mod jpeg_ls;
mod levels;
mod nifti;
mod numbers;
mod numpy;
mod png;
mod preprocess;
mod reference;
mod resize;

use std::path::Path;

pub use decode::{MAX_ASPECT, MAX_PIXELS, decode, decode_with, read, read_with};
pub use error::Error;
pub use grey::read_fit;
pub use png::{encode_png, write_png};
pub use preprocess::{crop_normalise, fit, normalise, prepare};
pub use reference::file_of;
pub use resize::resize;

/// Extensions of image files, in lower case: for finding images in folders. Decoding goes by content.
pub const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "tif", "tiff", "bmp", "dcm", "dicom"];

/// True when the name ends in one of [`EXTENSIONS`], in any case.
pub fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|found| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(found)))
}

/// Decoded 8-bit RGB pixels, row by row, `[height, width, 3]`; grey images hold three equal channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Samples, `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

impl Pixels {
    /// Holds [`Pixels`] made by hand to their own word.
    ///
    /// # Panics
    /// If a side is zero or `rgb` is not `[height, width, 3]`.
    fn check(&self) {
        assert!(self.width > 0 && self.height > 0, "pixels of {} x {}", self.width, self.height);
        assert_eq!(self.rgb.len(), self.width * self.height * 3, "length of [{}, {}, 3]", self.height, self.width);
    }
}
