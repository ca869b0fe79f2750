//! What every decoder gives, and every resize takes.

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
    pub(crate) fn check(&self) {
        assert!(self.width > 0 && self.height > 0, "pixels of {} x {}", self.width, self.height);
        assert_eq!(self.rgb.len(), self.width * self.height * 3, "length of [{}, {}, 3]", self.height, self.width);
    }
}
