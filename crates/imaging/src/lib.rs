//! Untrusted bytes to pixels to network input: the only executor of `melo_vit::Preprocess`.

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
