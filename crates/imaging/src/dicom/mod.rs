//! DICOM files to pixels, and to what their headers say (DICOM PS3.3, PS3.5, PS3.10).
//!
//! | in | is |
//! |---|---|
//! | transfer syntaxes | implicit and explicit little endian, big endian, deflated, RLE, JPEG (baseline, extended, progressive, lossless), JPEG-LS, JPEG 2000 (High-Throughput too) |
//! | photometric | `MONOCHROME1`, `MONOCHROME2`, `RGB`, `YBR_FULL`, `YBR_FULL_422`, `YBR_ICT`, `YBR_RCT`, `PALETTE COLOR` |
//! | samples | 1, 8, 16 or 32 bits allocated, any number stored, signed or not |
//! | grey | modality table or rescale; value-of-interest table or window; padding black |
//!
//! Overlays, burnt-in or separate, presentation states and colour profiles are left alone.

mod colour;
mod data_set;
mod grey;
mod layout;
mod lut;
mod referenced;
mod rle;
mod samples;
mod segmentation;
mod series;
mod syntax;
pub(crate) mod tag;
pub mod uid;

use std::borrow::Cow;
use std::path::Path;

use melo_vit::Rendering;
use melo_vit::rendering::Window;

use crate::seen::{self, Place, Seen};
use crate::{Error, Pixels};
use data_set::{DataSet, Encoding, Fault, Value};
use layout::{Layout, Photometric};
pub(crate) use referenced::{Referenced, referenced};
pub(crate) use segmentation::stored_mask;
pub use series::{DirectoryRecord, Instance, Series, directory, series};
use syntax::{EXPLICIT, IMPLICIT, Syntax};
pub use tag::{Tag, has_long_length};

/// True for the bytes of a DICOM file, with the preamble of PS3.10, section 7.1, or without it.
pub fn is_dicom(bytes: &[u8]) -> bool {
    start(bytes).is_some()
}

/// Renders one frame to 8-bit RGB; `name` serves only the errors.
///
/// # Errors
/// [`Error::Attribute`], which names the attribute that is missing, damaged, or of a kind that is not read.
pub fn render(bytes: &[u8], name: &Path, rendering: &Rendering) -> Result<Pixels, Error> {
    render_seen(bytes, name, rendering).map(|(pixels, _)| pixels)
}

/// [`render`], and what was seen of it.
pub(crate) fn render_seen(bytes: &[u8], name: &Path, rendering: &Rendering) -> Result<(Pixels, Seen), Error> {
    with_file(bytes, name, |file| {
        let layout = Layout::of(&file.set)?;
        let place = rendering.frame.place(layout.frames).ok_or_else(|| {
            let reason = format!("is {}: there is no frame {}", layout.frames, rendering.frame);
            Fault::new(tag::FRAMES, reason)
        })?;
        let samples = samples::decode(&file.set, &layout, file.syntax?, place)?;
        let rgb = match samples.photometric {
            Photometric::Monochrome1 | Photometric::Monochrome2 => {
                let levels = grey::levels(&file.set, &layout, &samples, place, rendering)?;
                levels.into_iter().flat_map(|level| [level; 3]).collect()
            }
            Photometric::Palette => colour::from_palette(&file.set, &samples)?,
            Photometric::Rgb => colour::scaled(&samples),
            Photometric::Ybr | Photometric::Ybr422 => colour::from_ybr(&samples),
            Photometric::YbrOfJpeg2000 => {
                let reason = "is a transform of JPEG 2000, and the pixels are not JPEG 2000";
                return Err(Fault::new(tag::PHOTOMETRIC, reason));
            }
        };
        let is_grey = matches!(samples.photometric, Photometric::Monochrome1 | Photometric::Monochrome2);
        let seen = Seen {
            place: Place::of(place, layout.frames, "frame"),
            range_used: None,
            flat: seen::is_flat(&rgb) && samples.is_varied(),
            window_unused: !is_grey && rendering.window != Window::Auto,
        };
        Ok((Pixels { width: layout.columns, height: layout.rows, rgb }, seen))
    })
}

/// Number of frames of a file that holds an image.
///
/// # Errors
/// Those of [`render`].
pub fn frames(bytes: &[u8], name: &Path) -> Result<usize, Error> {
    with_file(bytes, name, |file| Ok(Layout::of(&file.set)?.frames))
}

/// The values stored in one frame, `[rows, columns, samples]`, before any table, window or colour conversion (but
/// JPEG's own, of lossy colour): for comparing with other readers.
///
/// # Errors
/// Those of [`render`].
pub fn stored_values(bytes: &[u8], name: &Path, frame: usize) -> Result<Vec<i64>, Error> {
    with_file(bytes, name, |file| {
        let layout = Layout::of(&file.set)?;
        if frame >= layout.frames {
            return Err(Fault::new(tag::FRAMES, format!("is {}: there is no frame {}", layout.frames, frame + 1)));
        }
        let samples = samples::decode(&file.set, &layout, file.syntax?, frame)?;
        Ok(samples.values.iter().map(|&stored| samples.value(stored)).collect())
    })
}

/// Values of attributes as text: for columns of a manifest. Attributes are named by keyword (`PatientSex`) or tag
/// (`00100040`); the file needs no image. Several values are joined by `\`; absent and empty ones are `None`.
///
/// # Errors
/// [`Error::UnknownAttribute`] for a keyword that is not known; [`Error::Attribute`] for a damaged file.
pub fn header(bytes: &[u8], name: &Path, attributes: &[&str]) -> Result<Vec<Option<String>>, Error> {
    let tags = tags(name, attributes)?;
    with_file(bytes, name, |file| {
        let of = |tag: Tag| if tag.0 == 2 { value_text(&file.meta, tag) } else { value_text(&file.set, tag) };
        Ok(tags.into_iter().map(of).collect())
    })
}

/// Bytes of attributes as they stand in the file, padding included: for copying names from one file to another without
/// touching their characters. Named as for [`header`]; absent ones and sequences are `None`.
///
/// # Errors
/// Those of [`header`].
pub fn raw(bytes: &[u8], name: &Path, attributes: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let tags = tags(name, attributes)?;
    with_file(bytes, name, |file| {
        let of = |tag: Tag| match file.set.find(tag)?.value {
            Value::Bytes(bytes) => Some(bytes.to_vec()),
            _ => None,
        };
        Ok(tags.into_iter().map(of).collect())
    })
}

fn tags(name: &Path, attributes: &[&str]) -> Result<Vec<Tag>, Error> {
    let tag = |attribute: &&str| {
        let unknown = || Error::UnknownAttribute { path: name.into(), attribute: (*attribute).into() };
        Tag::from_name(attribute).ok_or_else(unknown)
    };
    attributes.iter().map(tag).collect()
}

/// A value as text, by its representation (PS3.5, section 6.2).
fn value_text(set: &DataSet, tag: Tag) -> Option<String> {
    let element = set.find(tag)?;
    let Value::Bytes(bytes) = element.value else { return None };
    let join = |values: Vec<String>| (!values.is_empty()).then(|| values.join("\\"));
    let big = set.big_endian;
    macro_rules! numbers {
        ($kind:ty) => {{
            let number = if big { <$kind>::from_be_bytes } else { <$kind>::from_le_bytes };
            join(bytes.as_chunks().0.iter().map(|&value| number(value).to_string()).collect())
        }};
    }
    match &element.vr {
        b"US" | b"OW" => numbers!(u16),
        b"SS" => numbers!(i16),
        b"UL" => numbers!(u32),
        b"SL" => numbers!(i32),
        b"FL" => numbers!(f32),
        b"FD" => numbers!(f64),
        b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"SQ" => None,
        _ => set.text(tag),
    }
}

/// A file taken apart.
struct File<'a> {
    meta: DataSet<'a>,
    set: DataSet<'a>,
    /// An unknown one matters only to who wants pixels.
    syntax: Result<Syntax, Fault>,
}

/// Reads `bytes` and gives them to `work`, whose fault gets the file's name.
fn with_file<T>(bytes: &[u8], name: &Path, work: impl FnOnce(File) -> Result<T, Fault>) -> Result<T, Error> {
    let whole = || {
        let Some(start) = start(bytes) else {
            return Err(Fault::new(tag::TRANSFER_SYNTAX, "cannot be guessed: the bytes are those of no data set"));
        };
        let (meta, behind) = match start {
            Start::Meta(at) => data_set::read_meta(bytes, at)?,
            Start::DataSet(_) => (DataSet::default(), 0),
        };
        let rest = &bytes[behind..];
        let syntax = match (meta.text(tag::TRANSFER_SYNTAX), start) {
            (Some(uid), _) => Syntax::of(&uid),
            (None, Start::DataSet(encoding)) => Ok(Syntax::Native(encoding)),
            (None, _) => match guess(rest) {
                Some(encoding) => Ok(Syntax::Native(encoding)),
                None => Err(Fault::new(tag::TRANSFER_SYNTAX, "is missing")),
            },
        };
        let data: Cow<[u8]> = match syntax {
            Ok(Syntax::Deflated) => Cow::Owned(data_set::inflate(rest)?),
            _ => Cow::Borrowed(rest),
        };
        let stated = syntax.as_ref().map_or(EXPLICIT, |syntax| syntax.encoding());
        // Some writers state one and write the other; the first element tells.
        let encoding = match guess(&data) {
            Some(found) if found.explicit != stated.explicit && !stated.big_endian && !found.big_endian => found,
            _ => stated,
        };
        let set = data_set::read(&data, encoding)?;
        work(File { meta, set, syntax })
    };
    whole().map_err(|Fault { tag, reason }| Error::Attribute { path: name.into(), attribute: tag, reason })
}

#[derive(Clone, Copy)]
enum Start {
    /// The file meta group begins here.
    Meta(usize),
    /// A bare data set.
    DataSet(Encoding),
}

/// What the first bytes are.
fn start(bytes: &[u8]) -> Option<Start> {
    match bytes {
        _ if bytes.get(128..132) == Some(b"DICM") => Some(Start::Meta(132)),
        [b'D', b'I', b'C', b'M', 2, 0, ..] => Some(Start::Meta(4)),
        [2, 0, element, 0, b'A'..=b'Z', b'A'..=b'Z', ..] if *element <= 0x16 => Some(Start::Meta(0)),
        _ => guess(bytes).map(Start::DataSet),
    }
}

/// How the data set is written, by its first element, which is one of group 8.
fn guess(bytes: &[u8]) -> Option<Encoding> {
    let &[g0, g1, e0, e1, v0, v1, l0, l1, ..] = bytes else { return None };
    let letters = v0.is_ascii_uppercase() && v1.is_ascii_uppercase();
    match [g0, g1] {
        [8, 0] if letters && e1 <= 0x11 => Some(EXPLICIT),
        [0, 8] if letters && e0 <= 0x11 => Some(syntax::BIG_ENDIAN),
        // An implicit length is small and even.
        [8, 0] if e1 == 0 && v0.is_multiple_of(2) && [l0, l1] == [0, 0] && 8 + usize::from(v0) <= bytes.len() => {
            Some(IMPLICIT)
        }
        _ => None,
    }
}
