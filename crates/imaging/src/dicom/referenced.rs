//! What an image that is referred to says of its patient, its place and itself.

use std::path::Path;

use super::data_set::{DataSet, Fault, Value};
use super::layout::Layout;
use super::tag::{self, Tag, Vr};
use super::{Error, with_file};

/// Attributes of the patient and general study modules (PS3.3, C.7.1.1 and C.7.2.1), with true where a derived object has
/// them even if they are empty (type 2).
const COPIED: [(Tag, &Vr, bool); 17] = [
    (Tag(0x0010, 0x0010), b"PN", true),
    (Tag(0x0010, 0x0020), b"LO", true),
    (Tag(0x0010, 0x0021), b"LO", false),
    (Tag(0x0010, 0x0030), b"DA", true),
    (Tag(0x0010, 0x0040), b"CS", true),
    (Tag(0x0010, 0x1010), b"AS", false),
    (Tag(0x0010, 0x2201), b"LO", false),
    (Tag(0x0010, 0x2297), b"PN", false),
    (Tag(0x0010, 0x2299), b"LO", false),
    (Tag(0x0012, 0x0062), b"CS", false),
    (Tag(0x0012, 0x0063), b"LO", false),
    (Tag(0x0008, 0x0020), b"DA", true),
    (Tag(0x0008, 0x0030), b"TM", true),
    (Tag(0x0008, 0x0090), b"PN", true),
    (Tag(0x0020, 0x0010), b"SH", true),
    (Tag(0x0008, 0x0050), b"SH", true),
    (Tag(0x0008, 0x1030), b"LO", false),
];

/// One frame of an image.
pub(crate) struct Referenced {
    pub(crate) class: String,
    pub(crate) instance: String,
    pub(crate) study: String,
    pub(crate) series: String,
    /// `SpecificCharacterSet` of the bytes that are copied.
    pub(crate) character_set: Option<String>,
    /// Patient and study, as bytes.
    pub(crate) copied: Vec<(Tag, &'static Vr, Vec<u8>)>,
    pub(crate) columns: usize,
    pub(crate) rows: usize,
    pub(crate) frames: usize,
    pub(crate) frame_of_reference: Option<String>,
    /// Texts of `ImagePositionPatient`, `ImageOrientationPatient`, `PixelSpacing` and `SliceThickness`.
    pub(crate) position: Option<String>,
    pub(crate) orientation: Option<String>,
    pub(crate) spacing: Option<String>,
    pub(crate) thickness: Option<String>,
    /// `LossyImageCompression`, its ratio and its method.
    pub(crate) lossy: Option<(String, Option<String>, Option<String>)>,
}

/// Frame `place`, 0 the first, of the image in `bytes`.
///
/// # Errors
/// [`Error::Attribute`].
pub(crate) fn referenced(bytes: &[u8], name: &Path, place: usize) -> Result<Referenced, Error> {
    with_file(bytes, name, |file| {
        let set = &file.set;
        let layout = Layout::of(set)?;
        if place >= layout.frames {
            return Err(Fault::new(tag::FRAMES, format!("is {}: there is no frame {}", layout.frames, place + 1)));
        }
        let uid = |tag| set.text(tag).ok_or_else(|| Fault::new(tag, "is missing"));
        let groups = || set.items(tag::FRAME_GROUPS).get(place).into_iter().chain(set.items(tag::SHARED_GROUPS));
        // In the image itself, or in the functional groups of its frames.
        let text = |sequence, tag| {
            let nested = || groups().find_map(|group: &DataSet| group.items(sequence).first()?.text(tag));
            set.text(tag).or_else(nested)
        };
        let copied = COPIED.iter().filter_map(|&(tag, vr, always)| {
            let value = set.find(tag).and_then(|element| match element.value {
                Value::Bytes(bytes) => Some(bytes.to_vec()),
                _ => None,
            });
            let value = padded(value.unwrap_or_default());
            (always || !value.is_empty()).then_some((tag, vr, value))
        });
        Ok(Referenced {
            class: uid(tag::CLASS)?,
            instance: uid(tag::INSTANCE)?,
            study: uid(tag::STUDY)?,
            series: uid(tag::SERIES)?,
            character_set: set.text(tag::CHARACTER_SET),
            copied: copied.collect(),
            columns: layout.columns,
            rows: layout.rows,
            frames: layout.frames,
            frame_of_reference: set.text(tag::FRAME_OF_REFERENCE),
            position: text(tag::PLANE_POSITION, tag::POSITION),
            orientation: text(tag::PLANE_ORIENTATION, tag::ORIENTATION),
            spacing: text(tag::PIXEL_MEASURES, tag::PIXEL_SPACING),
            thickness: text(tag::PIXEL_MEASURES, tag::SLICE_THICKNESS),
            lossy: set.text(tag::LOSSY).map(|lossy| (lossy, set.text(tag::LOSSY_RATIO), set.text(tag::LOSSY_METHOD))),
        })
    })
}

/// Without the padding it had, with a space where it needs one.
fn padded(mut value: Vec<u8>) -> Vec<u8> {
    while matches!(value.last(), Some(0 | b' ')) {
        value.pop();
    }
    if value.len() % 2 == 1 {
        value.push(b' ');
    }
    value
}
