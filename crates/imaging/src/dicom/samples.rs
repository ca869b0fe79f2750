//! One frame's stored values, whatever the compression.

use super::data_set::{DataSet, Fault};
use super::layout::{Frame, Layout, Photometric, frame};
use super::syntax::Syntax;
use super::{rle, tag};
use crate::source::Source;
use crate::{codec, jpeg, jpeg_ls, jpeg2000};

/// Stored values, `[rows, columns, channels]`, as unsigned numbers of `bits`.
#[derive(Debug)]
pub(super) struct Samples {
    pub(super) values: Vec<u32>,
    pub(super) bits: u32,
    pub(super) signed: bool,
    /// What the values mean once decoded.
    pub(super) photometric: Photometric,
}

impl Samples {
    /// The number that a stored value stands for.
    pub(super) fn value(&self, stored: u32) -> i64 {
        signed_value(stored, self.bits, self.signed)
    }

    /// Least and largest number; nothing where there is none.
    pub(super) fn range(&self) -> Option<(i64, i64)> {
        let numbers = || self.values.iter().map(|&stored| self.value(stored));
        numbers().min().zip(numbers().max())
    }

    /// Whether pixels differ.
    pub(super) fn is_varied(&self) -> bool {
        let channels = if matches!(self.photometric, Photometric::Rgb | Photometric::Ybr) { 3 } else { 1 };
        let mut pixels = self.values.chunks_exact(channels);
        pixels.next().is_some_and(|first| pixels.any(|pixel| pixel != first))
    }
}

/// `stored` of `bits` as a number.
pub(super) fn signed_value(stored: u32, bits: u32, signed: bool) -> i64 {
    let value = i64::from(stored);
    if signed && value >> (bits - 1) & 1 == 1 { value - (1 << bits) } else { value }
}

/// A frame's pixels that a compressed byte may stand for: a black frame of JPEG 2000 or JPEG-LS is a few hundred
/// bytes, so small frames are exempt.
const MAX_PIXELS_PER_BYTE: usize = 2048;
const EXEMPT_PIXELS: usize = 1 << 22;

/// Decodes frame `place`, 0 the first.
pub(super) fn decode(set: &DataSet, layout: &Layout, syntax: Syntax, place: usize) -> Result<Samples, Fault> {
    let frame = frame(set, layout, syntax, place)?;
    let of_frame = |reason: String| Fault::new(tag::PIXELS, format!("frame {}: {reason}", place + 1));
    let compressed = !matches!(syntax, Syntax::Native(_) | Syntax::Deflated);
    if compressed && layout.pixels() > EXEMPT_PIXELS.max(frame.bytes.len().saturating_mul(MAX_PIXELS_PER_BYTE)) {
        let (bytes, columns, rows) = (frame.bytes.len(), layout.columns, layout.rows);
        return Err(of_frame(format!("{bytes} bytes cannot hold {columns} x {rows} pixels")));
    }
    match syntax {
        Syntax::Native(encoding) => Ok(masked(layout, native(&frame, layout, encoding.big_endian))),
        Syntax::Deflated => Ok(masked(layout, native(&frame, layout, false))),
        Syntax::Rle => {
            if layout.allocated == 1 || layout.photometric == Photometric::Ybr422 {
                return Err(Fault::new(
                    tag::TRANSFER_SYNTAX,
                    "is RLE, of 1-bit or subsampled pixels, which is not read",
                ));
            }
            let bytes_per_sample = (layout.allocated / 8) as usize;
            let values = rle::decode(&frame.bytes, layout.pixels(), layout.samples, bytes_per_sample);
            Ok(masked(layout, values.map_err(of_frame)?))
        }
        Syntax::Jpeg | Syntax::JpegLs | Syntax::Jpeg2000 => {
            let expected = Some((layout.columns as u64, layout.rows as u64));
            let source = |format| Source { name: std::path::Path::new(""), format, expected };
            let decoded = match syntax {
                Syntax::Jpeg => {
                    let ycc = !matches!(layout.photometric, Photometric::Rgb);
                    jpeg::decode_samples(&frame.bytes, source("JPEG"), ycc)
                }
                Syntax::JpegLs => jpeg_ls::decode(&frame.bytes, source("JPEG-LS")),
                _ => jpeg2000::decode(&frame.bytes, source("JPEG 2000")),
            };
            let decoded = decoded.map_err(|error| of_frame(error.to_string()))?;
            of_codec(layout, decoded)
        }
    }
}

/// Samples pixel by pixel, each as its allocated bits are.
fn native(frame: &Frame, layout: &Layout, big_endian: bool) -> Vec<u32> {
    let bytes = &frame.bytes;
    let count = layout.pixels() * layout.samples;
    let stored: Vec<u32> = match (layout.allocated, big_endian) {
        // PS3.5, section 8.1.1: the first pixel is the least significant bit.
        (1, _) => {
            return (frame.bit..frame.bit + count).map(|at| u32::from(bytes[at / 8] >> (at % 8) & 1)).collect();
        }
        (8, _) => bytes.iter().map(|&byte| byte.into()).collect(),
        (16, false) => bytes.as_chunks().0.iter().map(|&two| u16::from_le_bytes(two).into()).collect(),
        (16, true) => bytes.as_chunks().0.iter().map(|&two| u16::from_be_bytes(two).into()).collect(),
        (_, false) => bytes.as_chunks().0.iter().map(|&four| u32::from_le_bytes(four)).collect(),
        (_, true) => bytes.as_chunks().0.iter().map(|&four| u32::from_be_bytes(four)).collect(),
    };
    if layout.photometric == Photometric::Ybr422 {
        // PS3.3, C.7.6.3.1.2: Y, Y, Cb, Cr of two columns; both take the chroma.
        let mut values = Vec::with_capacity(count);
        for row in stored.chunks_exact(layout.columns.div_ceil(2) * 4) {
            for column in 0..layout.columns {
                let four = &row[column / 2 * 4..][..4];
                values.extend([four[column % 2], four[2], four[3]]);
            }
        }
        return values;
    }
    if !layout.planar {
        return stored;
    }
    let pixels = layout.pixels();
    (0..count).map(|at| stored[at % layout.samples * pixels + at / layout.samples]).collect()
}

/// The stored bits of allocated ones; what else is in them (overlays, PS3.5 section 8.1.2) is dropped.
fn masked(layout: &Layout, mut values: Vec<u32>) -> Samples {
    let shift = layout.high_bit + 1 - layout.stored;
    let mask = mask(layout.stored);
    values.iter_mut().for_each(|value| *value = *value >> shift & mask);
    let photometric = match layout.photometric {
        Photometric::Ybr422 => Photometric::Ybr,
        other => other,
    };
    Samples { values, bits: layout.stored, signed: layout.signed, photometric }
}

fn mask(bits: u32) -> u32 {
    u32::MAX >> (32 - bits)
}

/// Checks that a compressed stream is the image that the data set describes.
fn of_codec(layout: &Layout, decoded: codec::Decoded) -> Result<Samples, Fault> {
    let codec::Decoded { width, height, channels, bits, rgb, mut values } = decoded;
    if (width, height) != (layout.columns, layout.rows) {
        return Err(Fault::new(tag::PIXELS, format!("decodes to {width} x {height} pixels")));
    }
    if channels != layout.samples {
        let reason = format!("is {}, and the compressed frame has {channels} components", layout.samples);
        return Err(Fault::new(tag::SAMPLES, reason));
    }
    // A signed value fills the bits that the stream has.
    let bits = if layout.signed { layout.stored.min(bits) } else { layout.stored };
    // A lossy stream may decode to a little more than the stored bits hold, and so wraps, as in GDCM, DCMTK and pydicom.
    let mask = mask(bits);
    values.iter_mut().for_each(|value| *value &= mask);
    let photometric = match layout.photometric {
        _ if rgb => Photometric::Rgb,
        Photometric::YbrOfJpeg2000 => Photometric::Rgb,
        Photometric::Ybr422 => Photometric::Ybr,
        other => other,
    };
    Ok(Samples { values, bits, signed: layout.signed, photometric })
}
