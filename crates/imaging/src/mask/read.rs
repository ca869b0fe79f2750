//! Files to masks.

use std::collections::BTreeMap;
use std::path::Path;

use melo_vit::Rendering;

use super::grid::grey;
use super::{Grid, IGNORE, Mask, Values, png};
use crate::reference::{self, Fragment};
use crate::source::Source;
use crate::{Error, appearance, decode, dicom, nifti, numpy, tiff};

/// How far a number may be from a whole one, for slopes in single precision.
const WHOLE: f64 = 1e-4;
/// How many values of a file an error lists.
const LISTED: usize = 8;

/// How the values of a mask's file become classes, and which image of the file it is.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskReading {
    /// Number of classes, 1 to 255: labels are below it.
    pub classes: usize,
    /// Values that stand for another class than their own number: `{255: 1}` for masks of 0 and 255. Others stand for
    /// themselves.
    pub values: BTreeMap<i64, u8>,
    /// The value that becomes [`IGNORE`], unless [`values`](Self::values) says otherwise of it.
    pub ignore: Option<i64>,
    /// Which slice, frame or page; the path's own fragment wins. As for the image, so that both are of one place.
    pub rendering: Rendering,
    /// `SOPInstanceUID` of the image: of a DICOM segmentation of several slices, the one that refers to it.
    pub instance: Option<String>,
}

impl Default for MaskReading {
    /// Any class from 0 to 254; 255 is ignored.
    fn default() -> Self {
        Self {
            classes: 255,
            values: BTreeMap::new(),
            ignore: Some(IGNORE.into()),
            rendering: Rendering::default(),
            instance: None,
        }
    }
}

impl MaskReading {
    /// That of `classes` classes.
    pub fn of_classes(classes: usize) -> Self {
        Self { classes, ..Self::default() }
    }

    fn label(&self, value: f64) -> Option<u8> {
        let whole = value.round();
        // NaN is near no number.
        if !((value - whole).abs() <= WHOLE && whole.abs() < 9e15) {
            return None;
        }
        let whole = whole as i64;
        if let Some(&label) = self.values.get(&whole) {
            return (usize::from(label) < self.classes || label == IGNORE).then_some(label);
        }
        if self.ignore == Some(whole) {
            return Some(IGNORE);
        }
        u8::try_from(whole).ok().filter(|&label| usize::from(label) < self.classes.min(IGNORE.into()))
    }

    /// The values that are taken, in words.
    fn expected(&self) -> String {
        let mut words = format!("0 to {}", self.classes.clamp(1, IGNORE.into()) - 1);
        for (value, label) in &self.values {
            words += &format!(", {value} (class {label})");
        }
        if let Some(ignore) = self.ignore.filter(|ignore| !self.values.contains_key(ignore)) {
            words += &format!(", {ignore} (ignored)");
        }
        words
    }

    fn labels(&self, grid: Grid, path: &Path) -> Result<Mask, Error> {
        let Grid { width, height, values } = grid;
        let labels: Option<Vec<u8>> = match &values {
            Values::Bytes(bytes) => {
                let table: Vec<Option<u8>> = (0..=u8::MAX).map(|byte| self.label(byte.into())).collect();
                bytes.iter().map(|&byte| table[usize::from(byte)]).collect()
            }
            _ => values.iter().map(|value| self.label(value)).collect(),
        };
        match labels {
            Some(labels) => Ok(Mask { width, height, labels }),
            None => Err(self.outside(width, &values, path)),
        }
    }

    /// The error of the first value that is no class.
    fn outside(&self, width: usize, values: &Values, path: &Path) -> Error {
        let first = values.iter().enumerate().find(|&(_, value)| self.label(value).is_none());
        let (at, value) = first.unwrap_or_default();
        let mut found: Vec<f64> = Vec::new();
        for value in values.iter() {
            if found.len() <= LISTED && !found.iter().any(|known| known.to_bits() == value.to_bits()) {
                found.push(value);
            }
        }
        found.sort_by(f64::total_cmp);
        let more = if found.len() > LISTED { ", …" } else { "" };
        let listed: Vec<String> = found.iter().take(LISTED).map(f64::to_string).collect();
        Error::MaskValue {
            path: path.into(),
            value,
            column: at % width,
            row: at / width,
            expected: self.expected(),
            found: listed.join(", ") + more,
        }
    }
}

/// Reads a mask's file, told apart by content: PNG, TIFF, BMP, GIF, NIfTI-1, DICOM, `.npy` or `.npz`. A path may name one
/// image of a file as for [`read`](crate::read()).
///
/// | file | value of a pixel |
/// |---|---|
/// | PNG and TIFF of a palette | the index, never the colour |
/// | grey of 1 to 16 bits | the number that is stored; of three equal channels, too; alpha is dropped |
/// | BMP, GIF | the grey that is shown |
/// | NIfTI, `.npy`, `.npz` | the number, scaled by the slope of NIfTI, which must be whole; the slice that the image of that path would be |
/// | DICOM Segmentation | the segment's number, 0 where there is none; of a label map, the number |
/// | DICOM of another class | the number that is stored |
///
/// # Errors
/// [`Error::MaskValue`] for a value that is no class, with its first pixel; [`Error::MaskColour`] for one of colours;
/// [`Error::LossyMask`] for a file whose compression changes values; [`Error::Read`], and those of
/// [`decode`](crate::decode()).
pub fn read_mask(path: &Path, reading: &MaskReading) -> Result<Mask, Error> {
    let file = reference::file_of(path);
    let bytes = std::fs::read(&file).map_err(|source| Error::Read { path: path.into(), source })?;
    let fragment = if file == path { Fragment::default() } else { reference::split(path).1 };
    decode_fragment(&bytes, path, &fragment, reading)
}

/// A mask held in memory; `name` serves the errors, and its fragment to name an image of several.
///
/// # Errors
/// Those of [`read_mask`].
pub fn decode_mask(bytes: &[u8], name: &Path, reading: &MaskReading) -> Result<Mask, Error> {
    decode_fragment(bytes, name, &reference::split(name).1, reading)
}

fn decode_fragment(bytes: &[u8], name: &Path, fragment: &Fragment, reading: &MaskReading) -> Result<Mask, Error> {
    reading.labels(stored(bytes, name, fragment, reading)?, name)
}

/// The numbers of the file.
fn stored(bytes: &[u8], name: &Path, fragment: &Fragment, reading: &MaskReading) -> Result<Grid, Error> {
    let rendering: Rendering = fragment.applied(&reading.rendering);
    let lossy = |format| Err(Error::LossyMask { path: name.into(), format });
    let dicom = || {
        // A frame that is named goes before the image that is referred to.
        let instance = reading.instance.as_deref().filter(|_| fragment.frame.is_none());
        dicom::stored_mask(bytes, name, &rendering, instance)
    };
    match bytes {
        [] => Err(Error::Empty { path: name.into() }),
        [0xff, 0xd8, 0xff, ..] => lossy("JPEG"),
        [0xff, 0x4f, 0xff, 0x51, ..] | [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] => lossy("JPEG 2000"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => lossy("WebP"),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => png::stored(bytes, Source::file(name, "PNG")),
        _ if bytes.get(128..132) == Some(b"DICM") => dicom(),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => {
            tiff::stored(bytes, Source::file(name, "TIFF"), &rendering)
        }
        [b'G', b'I', b'F', b'8', ..] => shown(bytes, Source::file(name, "GIF"), &rendering),
        [b'B', b'M', ..] => shown(bytes, Source::file(name, "BMP"), &rendering),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => numpy::stored(bytes, Source::file(name, "npz"), &fragment.place, &rendering),
        _ if bytes.starts_with(melo_npy::MAGIC) => {
            numpy::stored(bytes, Source::file(name, "npy"), &fragment.place, &rendering)
        }
        _ if nifti::is_volume(bytes) => nifti::stored(bytes, Source::file(name, "NIfTI"), &rendering),
        _ if dicom::is_dicom(bytes) => dicom(),
        _ => Err(Error::NotAnImage { path: name.into(), found: appearance::in_words(bytes).to_owned() }),
    }
}

/// Of a format whose samples are 8-bit grey as they are shown.
fn shown(bytes: &[u8], source: Source, rendering: &Rendering) -> Result<Grid, Error> {
    let pixels = decode::decode_with(bytes, source.name, rendering)?;
    let values = Values::Bytes(grey(&pixels.rgb, 3, pixels.width, source)?);
    Ok(Grid { width: pixels.width, height: pixels.height, values })
}
