//! Masks: one class index a pixel, from files of the usual kinds, through the geometry of an image and back.

mod dicom;
mod geometry;
mod grid;
mod paint;
mod png;
mod read;

pub use dicom::{Segment, SegmentCode, SegmentationAbout, encode_mask_dicom, write_mask_dicom};
pub use geometry::{PaddedMask, Restored, fit_mask, prepare_mask, restore};
pub(crate) use grid::{Grid, Values};
pub use paint::{MASK_COLOURS, mask_overlay, mask_overlay_within};
pub use png::{encode_mask_png, write_mask_png};
pub use read::{MaskReading, decode_mask, read_mask};

use std::path::Path;

use crate::Error;

/// The label of a pixel that neither loss nor metric counts, as torchvision's and MONAI's masks have it.
pub const IGNORE: u8 = 255;

/// One class index a pixel, row by row, `[height, width]`; [`IGNORE`] where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Class indices, `[height, width]`.
    pub labels: Vec<u8>,
}

impl Mask {
    /// Pixels of each of `classes` classes, and those of none.
    pub fn counts(&self, classes: usize) -> (Vec<u64>, u64) {
        let mut all = [0u64; 256];
        self.labels.iter().for_each(|&label| all[usize::from(label)] += 1);
        let counts: Vec<u64> = all.into_iter().take(classes).collect();
        let others = self.labels.len() as u64 - counts.iter().sum::<u64>();
        (counts, others)
    }

    /// Refuses a mask of another size than its image's, as the image is read here: with the orientation of a TIFF, without
    /// that of EXIF. `path` is the mask's file.
    ///
    /// # Errors
    /// [`Error::MaskSize`].
    pub fn check_size(&self, path: &Path, width: usize, height: usize) -> Result<(), Error> {
        let (mask, image) = ((self.width, self.height), (width, height));
        if mask == image { Ok(()) } else { Err(Error::MaskSize { path: path.into(), mask, image }) }
    }

    /// Holds a mask made by hand to its own word.
    ///
    /// # Panics
    /// If a side is zero or `labels` is not `[height, width]`.
    pub(crate) fn check(&self) {
        assert!(self.width > 0 && self.height > 0, "a mask of {} x {}", self.width, self.height);
        assert_eq!(self.labels.len(), self.width * self.height, "length of [{}, {}]", self.height, self.width);
    }
}
