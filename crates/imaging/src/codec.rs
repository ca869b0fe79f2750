//! What the codecs of DICOM give: samples of up to 16 bits before any meaning.

/// A decoded frame.
pub(crate) struct Decoded {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) channels: usize,
    /// Precision of a sample.
    pub(crate) bits: u32,
    /// True if the codec undid a colour transform, so that three channels are red, green and blue.
    pub(crate) rgb: bool,
    /// `[height, width, channels]`; negative numbers in two's complement of `bits`.
    pub(crate) values: Vec<u32>,
}
