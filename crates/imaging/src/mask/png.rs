//! Masks as PNG: indices of a palette, never its colours.

use std::io::{self, Cursor};
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, DecodingError, Encoder, Limits, Transformations};

use super::grid::grey;
use super::{Grid, MASK_COLOURS, Mask, Values};
use crate::png::check_palette;
use crate::source::Source;
use crate::{Error, decode, file};

/// The samples as they are stored: of 1, 2 and 4 bits unscaled, of a palette its indices.
pub(super) fn stored(bytes: &[u8], source: Source) -> Result<Grid, Error> {
    let broken = |error: DecodingError| match error {
        DecodingError::LimitsExceeded => source.unsupported("more bytes than are decoded"),
        error => source.damaged(error),
    };
    check_palette(bytes, source)?;
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: decode::MAX_BYTES as usize });
    decoder.set_transformations(Transformations::IDENTITY);
    // An image of no pixel is refused below in our words.
    let header = decoder.read_header_info().map_err(broken)?;
    let (width, height) = (header.width, header.height);
    source.check_size(width.into(), height.into())?;
    let mut reader = decoder.read_info().map_err(broken)?;
    let size = reader.output_buffer_size().ok_or_else(|| source.damaged("more bytes than there can be"))?;
    let mut samples = vec![0; size];
    let output = reader.next_frame(&mut samples).map_err(broken)?;
    let (width, height) = (width as usize, height as usize);
    let channels = match output.color_type {
        ColorType::Grayscale | ColorType::Indexed => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
    };
    let values = match output.bit_depth {
        BitDepth::Sixteen => {
            let words: Vec<u16> = samples.as_chunks().0.iter().map(|&two| u16::from_be_bytes(two)).collect();
            Values::Words(grey(&words, channels, width, source)?)
        }
        BitDepth::Eight => Values::Bytes(grey(&samples, channels, width, source)?),
        depth => {
            let bits = depth as usize;
            let mut indices = Vec::with_capacity(width * height);
            for row in samples.chunks_exact(output.line_size) {
                let index = |column: usize| {
                    let bit = column * bits;
                    row[bit / 8] >> (8 - bits - bit % 8) & ((1 << bits) - 1)
                };
                indices.extend((0..width).map(index));
            }
            Values::Bytes(indices)
        }
    };
    Ok(Grid { width, height, values })
}

/// An 8-bit PNG of class indices, with [`MASK_COLOURS`] as its palette, so that viewers show colours; [`IGNORE`](super::IGNORE)
/// is index 255.
///
/// # Errors
/// A side of more than 2³¹ − 1 pixels, which PNG cannot tell.
///
/// # Panics
/// If `mask` has no pixel or `mask.labels` is not `[height, width]`.
pub fn encode_mask_png(mask: &Mask) -> io::Result<Vec<u8>> {
    mask.check();
    let side = |length: usize| u32::try_from(length).map_err(io::Error::other);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, side(mask.width)?, side(mask.height)?);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_palette(MASK_COLOURS.as_flattened());
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer.write_image_data(&mask.labels).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)?;
    Ok(bytes)
}

/// Writes [`encode_mask_png`]: first to a temporary file beside `path`, then renamed.
///
/// # Errors
/// [`Error::Write`].
///
/// # Panics
/// As [`encode_mask_png`].
pub fn write_mask_png(path: &Path, mask: &Mask) -> Result<(), Error> {
    let written = encode_mask_png(mask).and_then(|bytes| file::replace(path, &bytes));
    written.map_err(|source| Error::Write { path: path.into(), source })
}
