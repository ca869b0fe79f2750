//! How pixels lie in a data set: the Image Pixel module (DICOM PS3.3, section C.7.6.3) and its frames.

use std::borrow::Cow;

use super::data_set::{DataSet, Fault, Value};
use super::syntax::Syntax;
use super::tag;
use crate::limits::{self, BadSize, MAX_ASPECT, MAX_PIXELS};

/// What the samples of a pixel mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Photometric {
    /// The least value is white.
    Monochrome1,
    /// The least value is black.
    Monochrome2,
    Palette,
    Rgb,
    /// ITU-R BT.601, full range.
    Ybr,
    /// The same, chroma of two columns together.
    Ybr422,
    /// The reversible and irreversible transforms of JPEG 2000, which its decoder undoes.
    YbrOfJpeg2000,
}

impl Photometric {
    fn of(set: &DataSet) -> Result<Self, Fault> {
        let fault = |reason: String| Fault::new(tag::PHOTOMETRIC, reason);
        match set.text(tag::PHOTOMETRIC).as_deref() {
            Some("MONOCHROME1") => Ok(Self::Monochrome1),
            Some("MONOCHROME2") => Ok(Self::Monochrome2),
            Some("PALETTE COLOR") => Ok(Self::Palette),
            Some("RGB") => Ok(Self::Rgb),
            Some("YBR_FULL") => Ok(Self::Ybr),
            Some("YBR_FULL_422") => Ok(Self::Ybr422),
            Some("YBR_ICT" | "YBR_RCT") => Ok(Self::YbrOfJpeg2000),
            Some(other) => Err(fault(format!(
                "is {}; MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB, YBR_FULL, YBR_FULL_422, YBR_ICT and YBR_RCT are \
                 read",
                other.escape_debug()
            ))),
            None => Err(fault("is missing".into())),
        }
    }

    fn samples(self) -> usize {
        match self {
            Self::Monochrome1 | Self::Monochrome2 | Self::Palette => 1,
            _ => 3,
        }
    }
}

/// The Image Pixel module, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) frames: usize,
    pub(super) photometric: Photometric,
    /// 1 or 3.
    pub(super) samples: usize,
    /// Samples of one kind together, instead of pixel by pixel.
    pub(super) planar: bool,
    /// 1, 8, 16 or 32.
    pub(super) allocated: u32,
    pub(super) stored: u32,
    pub(super) high_bit: u32,
    pub(super) signed: bool,
}

impl Layout {
    pub(super) fn of(set: &DataSet) -> Result<Self, Fault> {
        if set.find(tag::PIXELS).is_none() {
            for other in [tag::FLOAT_PIXELS, tag::DOUBLE_PIXELS] {
                if set.find(other).is_some() {
                    return Err(Fault::new(other, "is not read; whole numbers in (7FE0,0010) PixelData are"));
                }
            }
            return Err(Fault::new(tag::PIXELS, "is missing: the file holds no image"));
        }
        let number = |tag| set.number(tag).ok_or_else(|| Fault::new(tag, "is missing"));
        let photometric = Photometric::of(set)?;
        let (rows, columns) = (usize::from(number(tag::ROWS)?), usize::from(number(tag::COLUMNS)?));
        check_size(rows, columns)?;
        let samples = usize::from(number(tag::SAMPLES)?);
        if samples != photometric.samples() {
            let expected = photometric.samples();
            return Err(Fault::new(tag::SAMPLES, format!("is {samples}; of this photometric expected {expected}")));
        }
        let allocated = u32::from(number(tag::BITS_ALLOCATED)?);
        if !matches!(allocated, 1 | 8 | 16 | 32) || allocated == 1 && samples > 1 {
            return Err(Fault::new(tag::BITS_ALLOCATED, format!("is {allocated}; 1 (grey), 8, 16 and 32 are read")));
        }
        let stored = set.number(tag::BITS_STORED).map_or(allocated, u32::from);
        if !(1..=allocated).contains(&stored) {
            return Err(Fault::new(tag::BITS_STORED, format!("is {stored}, of {allocated} bits allocated")));
        }
        let high_bit = set.number(tag::HIGH_BIT).map_or(stored - 1, u32::from);
        if !(stored - 1..allocated).contains(&high_bit) {
            let reason = format!("is {high_bit}, of {stored} bits stored in {allocated}");
            return Err(Fault::new(tag::HIGH_BIT, reason));
        }
        let signed = match set.number(tag::PIXEL_REPRESENTATION) {
            None | Some(0) => false,
            Some(1) => true,
            Some(other) => return Err(Fault::new(tag::PIXEL_REPRESENTATION, format!("is {other}; 0 and 1 are read"))),
        };
        let planar = match set.number(tag::PLANAR).filter(|_| samples > 1) {
            None | Some(0) => false,
            Some(1) if photometric != Photometric::Ybr422 => true,
            Some(other) => return Err(Fault::new(tag::PLANAR, format!("is {other}; 0 and 1 are read"))),
        };
        let frames = match set.decimals(tag::FRAMES)?.as_deref() {
            // Some writers state 0 for the only one; what is there says so.
            None | Some(&[0.0, ..]) => 1,
            Some(&[frames, ..]) if frames >= 1.0 && frames.fract() == 0.0 && frames < 2f64.powi(31) => frames as usize,
            Some(other) => return Err(Fault::new(tag::FRAMES, format!("is {other:?}; expected a number from 1"))),
        };
        Ok(Self { rows, columns, frames, photometric, samples, planar, allocated, stored, high_bit, signed })
    }

    pub(super) fn pixels(&self) -> usize {
        self.rows * self.columns
    }

    /// Bits that a frame takes where it is not compressed.
    pub(super) fn frame_bits(&self) -> u64 {
        let samples = if self.photometric == Photometric::Ybr422 {
            (self.rows * self.columns.div_ceil(2) * 4) as u64
        } else {
            (self.pixels() * self.samples) as u64
        };
        samples * u64::from(self.allocated)
    }
}

fn check_size(rows: usize, columns: usize) -> Result<(), Fault> {
    limits::check_size(columns as u64, rows as u64).map_err(|bad| {
        let reason = match bad {
            BadSize::NoPixels => "expected at least one pixel".into(),
            BadSize::TooLarge => format!("expected at most {MAX_PIXELS} pixels"),
            BadSize::TooLong => format!("expected sides within {MAX_ASPECT}:1 of each other"),
        };
        let (shorter, other) = if rows <= columns { (tag::ROWS, tag::COLUMNS) } else { (tag::COLUMNS, tag::ROWS) };
        Fault::new(shorter, format!("and {other} say {columns} x {rows}: {reason}"))
    })
}

/// Bytes of one frame.
pub(super) struct Frame<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    /// Bits before the frame in its first byte, where a pixel takes one bit.
    pub(super) bit: usize,
}

/// The bytes of frame `place`, 0 the first.
pub(super) fn frame<'a>(set: &DataSet<'a>, layout: &Layout, syntax: Syntax, place: usize) -> Result<Frame<'a>, Fault> {
    let element = set.find(tag::PIXELS).ok_or_else(|| Fault::new(tag::PIXELS, "is missing"))?;
    match (&element.value, syntax) {
        (Value::Bytes(bytes), Syntax::Native(_) | Syntax::Deflated) => {
            let bytes = native(bytes, layout, place)?;
            // In big endian words (OW), the two bytes of a word of two 8-bit samples are swapped.
            if set.big_endian && element.vr == *b"OW" && layout.allocated == 8 {
                let whole = match element.value {
                    Value::Bytes(whole) => whole,
                    _ => bytes.bytes.as_ref(),
                };
                let start = place * (layout.frame_bits() / 8) as usize;
                let swapped = |at: usize| whole.get(at ^ 1).or(whole.get(at)).copied().unwrap_or(0);
                let length = bytes.bytes.len();
                return Ok(Frame { bytes: (start..start + length).map(swapped).collect(), bit: 0 });
            }
            Ok(bytes)
        }
        (Value::Fragments(_), Syntax::Native(_) | Syntax::Deflated) => {
            Err(Fault::new(tag::TRANSFER_SYNTAX, "is one of uncompressed pixels, and PixelData is in fragments"))
        }
        (Value::Fragments(fragments), _) => {
            let bytes = encapsulated(set, fragments, layout, place)?;
            Ok(Frame { bytes, bit: 0 })
        }
        _ => Err(Fault::new(tag::PIXELS, "is not in fragments, as its transfer syntax demands")),
    }
}

fn native<'a>(bytes: &'a [u8], layout: &Layout, place: usize) -> Result<Frame<'a>, Fault> {
    let bits = layout.frame_bits();
    let needed = (bits * layout.frames as u64).div_ceil(8);
    if (bytes.len() as u64) < needed {
        return Err(Fault::new(
            tag::PIXELS,
            format!(
                "holds {} bytes; {} frames of {} x {} need {needed}",
                bytes.len(),
                layout.frames,
                layout.columns,
                layout.rows
            ),
        ));
    }
    let start = bits * place as u64;
    let (first, last) = ((start / 8) as usize, (start + bits).div_ceil(8) as usize);
    Ok(Frame { bytes: Cow::Borrowed(&bytes[first..last]), bit: (start % 8) as usize })
}

/// Frame `place` of fragments, the first of which is the offset table (PS3.5, annex A.4).
fn encapsulated<'a>(
    set: &DataSet<'a>,
    fragments: &[&'a [u8]],
    layout: &Layout,
    place: usize,
) -> Result<Cow<'a, [u8]>, Fault> {
    let [table, fragments @ ..] = fragments else {
        return Err(Fault::new(tag::PIXELS, "holds no offset table, not even an empty one"));
    };
    if fragments.is_empty() {
        return Err(Fault::new(tag::PIXELS, "holds no fragment"));
    }
    // PS3.3, C.7.6.3.1.8: 64-bit offsets in an element of their own.
    let extended = set.bytes(tag::EXTENDED_OFFSETS).unwrap_or_default();
    let extended: Vec<u64> = extended.as_chunks().0.iter().map(|&offset| u64::from_le_bytes(offset)).collect();
    let basic: Vec<u64> = table.as_chunks().0.iter().map(|&offset| u32::from_le_bytes(offset).into()).collect();
    // A table that is off, as many are, is none: then fragments are counted, or looked into.
    let stated = [extended, basic].into_iter().filter(|offsets| !offsets.is_empty());
    let by_table = stated.map(|offsets| by_offsets(fragments, &offsets, layout.frames, place));
    let by_table = by_table.reduce(Result::or);
    let of_frame = match by_table {
        _ if layout.frames == 1 => fragments,
        Some(Ok(of_frame)) => of_frame,
        _ if fragments.len() == layout.frames => &fragments[place..=place],
        Some(Err(fault)) => by_starts(fragments, layout.frames, place).map_err(|_| fault)?,
        None => by_starts(fragments, layout.frames, place)?,
    };
    Ok(match of_frame {
        [only] => Cow::Borrowed(only),
        several => Cow::Owned(several.concat()),
    })
}

/// Offsets count from the first fragment's item tag.
fn by_offsets<'f, 'a>(
    fragments: &'f [&'a [u8]],
    offsets: &[u64],
    frames: usize,
    place: usize,
) -> Result<&'f [&'a [u8]], Fault> {
    let fault = |reason: String| Fault::new(tag::PIXELS, format!("has an offset table that {reason}"));
    if offsets.len() != frames {
        return Err(fault(format!("names {} frames of {frames}", offsets.len())));
    }
    let mut start = 0u64;
    let starts: Vec<u64> = fragments
        .iter()
        .map(|fragment| {
            let this = start;
            start += 8 + fragment.len() as u64;
            this
        })
        .collect();
    let find = |offset: u64| {
        starts.binary_search(&offset).map_err(|_| fault(format!("names byte {offset}, where no fragment begins")))
    };
    if offsets[0] != 0 || !offsets.is_sorted_by(|one, next| one < next) {
        return Err(fault("does not run from the first fragment on".into()));
    }
    for &offset in offsets {
        find(offset)?;
    }
    let first = find(offsets[place])?;
    let behind = match offsets.get(place + 1) {
        Some(&next) => find(next)?,
        None => fragments.len(),
    };
    if behind <= first {
        return Err(fault(format!("names no byte for frame {}", place + 1)));
    }
    Ok(&fragments[first..behind])
}

/// Frames begin where a JPEG, JPEG-LS or JPEG 2000 stream does.
fn by_starts<'f, 'a>(fragments: &'f [&'a [u8]], frames: usize, place: usize) -> Result<&'f [&'a [u8]], Fault> {
    let begins = |fragment: &&[u8]| matches!(fragment, [0xff, 0xd8, 0xff, ..] | [0xff, 0x4f, 0xff, 0x51, ..]);
    let starts: Vec<usize> = (0..fragments.len()).filter(|&at| begins(&fragments[at])).collect();
    if starts.len() != frames {
        let reason = format!("holds {} fragments for {frames} frames, and no offset table", fragments.len());
        return Err(Fault::new(tag::PIXELS, reason));
    }
    Ok(&fragments[starts[place]..starts.get(place + 1).copied().unwrap_or(fragments.len())])
}
