//! Masks as DICOM Segmentation (PS3.3, section A.51): binary, a segment and a frame for each class but the background.

use std::io;
use std::path::Path;

use dicom_core::value::{DataSetSequence, PrimitiveValue, Value};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

use super::Mask;
use crate::dicom::{Referenced, referenced};
use crate::{Error, file};

/// The private coding scheme of classes that have no code of their own (PS3.3, table 8-1: private designators begin with 99).
const SCHEME: &str = "99MELO";
/// The dimensions of all segmentations written here: segment, then position.
const DIMENSIONS: &str = "2.25.129401053572262565044737367204092509137";
/// Implementation Class UID of what writes the file (PS3.7, annex D).
const IMPLEMENTATION: &str = "2.25.102558822070333331548792746086296818243";

/// A code (PS3.3, section 8): SNOMED CT's is `SCT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentCode {
    /// Such as `41329004`.
    pub value: String,
    /// Such as `SCT`; at most 16 characters.
    pub scheme: String,
    /// Such as `Polyp`; at most 64 characters.
    pub meaning: String,
}

/// What one class is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its name.
    pub label: String,
    /// Category and type of what is segmented, such as Morphologically Abnormal Structure and Polyp; without them the class is
    /// coded by its name, in the private scheme `99MELO`.
    pub codes: Option<[SegmentCode; 2]>,
}

/// What a segmentation says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentationAbout {
    /// The classes from 1 on, in order; class 0 is the background.
    pub segments: Vec<Segment>,
    /// `SOPInstanceUID`: the caller's, so that the same answer is the same object.
    pub instance_uid: String,
    /// `SeriesInstanceUID`.
    pub series_uid: String,
    /// `SeriesDescription`.
    pub series_description: String,
    /// `SegmentAlgorithmName`, such as the task.
    pub algorithm: String,
    /// `ManufacturerModelName`, such as `melo predict`.
    pub model_name: String,
    /// `DeviceSerialNumber`, such as the plug-in's version.
    pub serial_number: String,
    /// `SoftwareVersions`.
    pub software_versions: String,
    /// `ContentDate`, `YYYYMMDD`.
    pub date: String,
    /// `ContentTime`, `HHMMSS`.
    pub time: String,
}

/// A DICOM Segmentation of frame `frame`, 0 the first, of the image in `source`, whose file `name` serves only the errors: patient and
/// study are copied, as are its frame of reference, position, orientation and spacing where it has them.
///
/// Labels beyond the segments, and [`IGNORE`](super::IGNORE), are of no segment.
///
/// # Errors
/// [`Error::Attribute`] if the image lacks an identifier, [`Error::MaskSize`] if the mask is of another size;
/// [`Error::Write`] if the object cannot be encoded.
///
/// # Panics
/// If `mask` has no pixel or `mask.labels` is not `[height, width]`; if there is no segment.
pub fn encode_mask_dicom(
    mask: &Mask,
    source: &[u8],
    name: &Path,
    frame: usize,
    about: &SegmentationAbout,
) -> Result<Vec<u8>, Error> {
    mask.check();
    assert!(!about.segments.is_empty(), "a segmentation without a segment");
    let image = referenced(source, name, frame)?;
    mask.check_size(Path::new(""), image.columns, image.rows)?;
    let object = object(mask, &image, frame, about);
    encoded(object, about).map_err(|source| Error::Write { path: name.into(), source })
}

/// Writes [`encode_mask_dicom`]: first to a temporary file beside `path`, then renamed.
///
/// # Errors
/// Those of [`encode_mask_dicom`]; [`Error::Write`].
///
/// # Panics
/// As [`encode_mask_dicom`].
pub fn write_mask_dicom(
    path: &Path,
    mask: &Mask,
    source: &[u8],
    name: &Path,
    frame: usize,
    about: &SegmentationAbout,
) -> Result<(), Error> {
    let bytes = encode_mask_dicom(mask, source, name, frame, about)?;
    file::replace(path, &bytes).map_err(|source| Error::Write { path: path.into(), source })
}

fn encoded(object: InMemDicomObject, about: &SegmentationAbout) -> io::Result<Vec<u8>> {
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(uids::SEGMENTATION_STORAGE)
        .media_storage_sop_instance_uid(&about.instance_uid)
        .implementation_class_uid(IMPLEMENTATION)
        .implementation_version_name("MELO");
    let object = object.with_meta(meta).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

fn put(object: &mut InMemDicomObject, tag: Tag, vr: VR, value: impl Into<PrimitiveValue>) {
    object.put(DataElement::new(tag, vr, Value::Primitive(value.into())));
}

fn sequence(object: &mut InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>) {
    object.put(DataElement::new(tag, VR::SQ, Value::from(DataSetSequence::from(items))));
}

/// An item of these elements.
fn item(fill: impl FnOnce(&mut InMemDicomObject)) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    fill(&mut item);
    item
}

/// Text of ours: of one value, without control characters, at most `most` long; ASCII where `plain`.
fn text(text: &str, most: usize, plain: bool) -> String {
    let held = |letter: char| match letter {
        '\\' => '/',
        letter if letter.is_control() => ' ',
        letter if plain && !letter.is_ascii() => '?',
        letter => letter,
    };
    text.chars().map(held).take(most).collect::<String>().trim().to_owned()
}

fn object(mask: &Mask, image: &Referenced, frame: usize, about: &SegmentationAbout) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    // ISO 2022 escapes make other characters of ASCII bytes.
    let ascii = image.copied.iter().all(|(_, _, value)| value.iter().all(|byte| byte.is_ascii() && *byte != 0x1b));
    let set = image.character_set.as_deref().filter(|&set| !ascii && set != "ISO_IR 192");
    let plain = set.is_some();
    let sets: Vec<String> = set.unwrap_or("ISO_IR 192").split('\\').map(str::to_owned).collect();
    put(&mut object, tags::SPECIFIC_CHARACTER_SET, VR::CS, PrimitiveValue::Strs(sets.into()));
    for (tag, vr, value) in &image.copied {
        let value = match value.is_empty() {
            true => PrimitiveValue::Empty,
            false => PrimitiveValue::U8(value.as_slice().into()),
        };
        let vr = VR::from_binary(**vr).unwrap_or(VR::LO);
        object.put(DataElement::new(Tag(tag.0, tag.1), vr, Value::Primitive(value)));
    }
    identity(&mut object, image, about, plain);
    let segments = about.segments.iter().zip(1_u16..);
    let described = segments.clone().map(|(segment, number)| described(segment, number, about, plain)).collect();
    sequence(&mut object, tags::SEGMENT_SEQUENCE, described);
    functional_groups(&mut object, image, frame, about);
    pixels(&mut object, mask, image, about);
    object
}

/// The modules about patient, series, equipment and what is referred to.
fn identity(object: &mut InMemDicomObject, image: &Referenced, about: &SegmentationAbout, plain: bool) {
    put(object, tags::STUDY_INSTANCE_UID, VR::UI, image.study.as_str());
    put(object, tags::SOP_CLASS_UID, VR::UI, uids::SEGMENTATION_STORAGE);
    put(object, tags::SOP_INSTANCE_UID, VR::UI, about.instance_uid.as_str());
    put(object, tags::MODALITY, VR::CS, "SEG");
    put(object, tags::SERIES_INSTANCE_UID, VR::UI, about.series_uid.as_str());
    put(object, tags::SERIES_NUMBER, VR::IS, "9903");
    put(object, tags::SERIES_DESCRIPTION, VR::LO, text(&about.series_description, 64, plain));
    put(object, tags::INSTANCE_NUMBER, VR::IS, "1");
    put(object, tags::MANUFACTURER, VR::LO, "melo");
    put(object, tags::MANUFACTURER_MODEL_NAME, VR::LO, text(&about.model_name, 64, plain));
    put(object, tags::DEVICE_SERIAL_NUMBER, VR::LO, text(&about.serial_number, 64, plain));
    put(object, tags::SOFTWARE_VERSIONS, VR::LO, text(&about.software_versions, 64, plain));
    put(object, tags::CONTENT_DATE, VR::DA, about.date.as_str());
    put(object, tags::CONTENT_TIME, VR::TM, about.time.as_str());
    put(object, tags::CONTENT_LABEL, VR::CS, "SEGMENTATION");
    put(object, tags::CONTENT_DESCRIPTION, VR::LO, text(&about.algorithm, 64, plain));
    put(object, tags::CONTENT_CREATOR_NAME, VR::PN, "melo");
    put(object, tags::IMAGE_TYPE, VR::CS, dicom_core::dicom_value!(Strs, ["DERIVED", "PRIMARY"]));
    if let Some(uid) = &image.frame_of_reference {
        put(object, tags::FRAME_OF_REFERENCE_UID, VR::UI, uid.as_str());
        put(object, tags::POSITION_REFERENCE_INDICATOR, VR::LO, PrimitiveValue::Empty);
    }
    // Lossless here; whether the image was says the image (PS3.3, C.8.20.2).
    let (lossy, ratio, method) = image.lossy.clone().unwrap_or_else(|| ("00".to_owned(), None, None));
    put(object, tags::LOSSY_IMAGE_COMPRESSION, VR::CS, lossy);
    if let Some(ratio) = ratio {
        put(object, tags::LOSSY_IMAGE_COMPRESSION_RATIO, VR::DS, ratio);
    }
    if let Some(method) = method {
        put(object, tags::LOSSY_IMAGE_COMPRESSION_METHOD, VR::CS, method);
    }
    let scheme = item(|item| {
        put(item, tags::CODING_SCHEME_DESIGNATOR, VR::SH, SCHEME);
        put(item, tags::CODING_SCHEME_NAME, VR::ST, "Tasks and classes of melo plug-ins");
        put(item, tags::CODING_SCHEME_RESPONSIBLE_ORGANIZATION, VR::ST, "melo");
    });
    sequence(object, tags::CODING_SCHEME_IDENTIFICATION_SEQUENCE, vec![scheme]);
    let series = item(|series| {
        sequence(series, tags::REFERENCED_INSTANCE_SEQUENCE, vec![reference(image)]);
        put(series, tags::SERIES_INSTANCE_UID, VR::UI, image.series.as_str());
    });
    sequence(object, tags::REFERENCED_SERIES_SEQUENCE, vec![series]);
}

/// The image, by its class and instance.
fn reference(image: &Referenced) -> InMemDicomObject {
    item(|item| {
        put(item, tags::REFERENCED_SOP_CLASS_UID, VR::UI, image.class.as_str());
        put(item, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, image.instance.as_str());
    })
}

fn code(value: &str, scheme: &str, meaning: &str) -> InMemDicomObject {
    item(|item| {
        put(item, tags::CODE_VALUE, VR::SH, text(value, 16, true));
        put(item, tags::CODING_SCHEME_DESIGNATOR, VR::SH, text(scheme, 16, true));
        put(item, tags::CODE_MEANING, VR::LO, meaning);
    })
}

/// An item of Segment Sequence (PS3.3, C.8.20.4).
fn described(segment: &Segment, number: u16, about: &SegmentationAbout, plain: bool) -> InMemDicomObject {
    let [category, kind] = match &segment.codes {
        Some(codes) => {
            codes.each_ref().map(|found| code(&found.value, &found.scheme, &text(&found.meaning, 64, plain)))
        }
        None => [
            code("class", SCHEME, "Class of a task"),
            code(&format!("class-{number}"), SCHEME, &text(&segment.label, 64, plain)),
        ],
    };
    item(|item| {
        put(item, tags::SEGMENT_NUMBER, VR::US, number);
        put(item, tags::SEGMENT_LABEL, VR::LO, text(&segment.label, 64, plain));
        put(item, tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC");
        put(item, tags::SEGMENT_ALGORITHM_NAME, VR::LO, text(&about.algorithm, 64, plain));
        sequence(item, tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, vec![category]);
        sequence(item, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, vec![kind]);
    })
}

/// What holds of all frames and of each, and by what they are told apart (PS3.3, C.7.6.16 and C.7.6.17).
fn functional_groups(object: &mut InMemDicomObject, image: &Referenced, frame: usize, about: &SegmentationAbout) {
    let placed = image.frame_of_reference.is_some() && image.position.is_some() && image.orientation.is_some();
    let numbers = |value: &str| PrimitiveValue::Strs(value.split('\\').map(|part| part.trim().to_owned()).collect());
    let organization = item(|item| put(item, tags::DIMENSION_ORGANIZATION_UID, VR::UI, DIMENSIONS));
    sequence(object, tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![organization]);
    let dimension = |pointer: Tag, group: Tag, label: &str| {
        item(|item| {
            put(item, tags::DIMENSION_ORGANIZATION_UID, VR::UI, DIMENSIONS);
            put(item, tags::DIMENSION_INDEX_POINTER, VR::AT, PrimitiveValue::Tags([pointer].as_slice().into()));
            put(item, tags::FUNCTIONAL_GROUP_POINTER, VR::AT, PrimitiveValue::Tags([group].as_slice().into()));
            put(item, tags::DIMENSION_DESCRIPTION_LABEL, VR::LO, label);
        })
    };
    let number = (tags::REFERENCED_SEGMENT_NUMBER, tags::SEGMENT_IDENTIFICATION_SEQUENCE, "Segment Number");
    let position = (tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE, "Image Position Patient");
    let dimensions = [Some(number), placed.then_some(position)].into_iter().flatten();
    let dimensions: Vec<_> = dimensions.map(|(pointer, group, label)| dimension(pointer, group, label)).collect();
    sequence(object, tags::DIMENSION_INDEX_SEQUENCE, dimensions);
    let shared = item(|shared| {
        if let Some(spacing) = &image.spacing {
            let measures = item(|item| {
                put(item, tags::PIXEL_SPACING, VR::DS, numbers(spacing));
                if let Some(thickness) = &image.thickness {
                    put(item, tags::SLICE_THICKNESS, VR::DS, thickness.as_str());
                }
            });
            sequence(shared, tags::PIXEL_MEASURES_SEQUENCE, vec![measures]);
        }
        if let Some(orientation) = image.orientation.as_deref().filter(|_| placed) {
            let plane = item(|item| put(item, tags::IMAGE_ORIENTATION_PATIENT, VR::DS, numbers(orientation)));
            sequence(shared, tags::PLANE_ORIENTATION_SEQUENCE, vec![plane]);
        }
    });
    sequence(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]);
    let own = |(_, number): (&Segment, u16)| {
        item(|group| {
            let place = if placed { vec![u32::from(number), 1] } else { vec![u32::from(number)] };
            let content = item(|item| {
                put(item, tags::DIMENSION_INDEX_VALUES, VR::UL, PrimitiveValue::U32(place.into()));
            });
            sequence(group, tags::FRAME_CONTENT_SEQUENCE, vec![content]);
            if let Some(position) = image.position.as_deref().filter(|_| placed) {
                let plane = item(|item| put(item, tags::IMAGE_POSITION_PATIENT, VR::DS, numbers(position)));
                sequence(group, tags::PLANE_POSITION_SEQUENCE, vec![plane]);
            }
            let mut source = reference(image);
            if image.frames > 1 {
                put(&mut source, tags::REFERENCED_FRAME_NUMBER, VR::IS, (frame + 1).to_string());
            }
            put(&mut source, tags::SPATIAL_LOCATIONS_PRESERVED, VR::CS, "YES");
            let purpose = code("121322", "DCM", "Source image for image processing operation");
            sequence(&mut source, tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, vec![purpose]);
            let derivation = item(|item| {
                sequence(item, tags::SOURCE_IMAGE_SEQUENCE, vec![source]);
                let derived = code("113076", "DCM", "Segmentation");
                sequence(item, tags::DERIVATION_CODE_SEQUENCE, vec![derived]);
            });
            sequence(group, tags::DERIVATION_IMAGE_SEQUENCE, vec![derivation]);
            let segment = item(|item| put(item, tags::REFERENCED_SEGMENT_NUMBER, VR::US, number));
            sequence(group, tags::SEGMENT_IDENTIFICATION_SEQUENCE, vec![segment]);
        })
    };
    let own = about.segments.iter().zip(1..).map(own).collect();
    sequence(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, own);
}

/// One bit a pixel, frame behind frame without a gap, the first pixel in the lowest bit (PS3.5, section 8.1.1).
fn pixels(object: &mut InMemDicomObject, mask: &Mask, image: &Referenced, about: &SegmentationAbout) {
    let frames = about.segments.len();
    let area = mask.labels.len();
    let mut bytes = vec![0; (frames * area).div_ceil(16) * 2];
    for (at, &label) in mask.labels.iter().enumerate().filter(|(_, label)| (1..=frames).contains(&usize::from(**label)))
    {
        let bit = (usize::from(label) - 1) * area + at;
        bytes[bit / 8] |= 1 << (bit % 8);
    }
    put(object, tags::SEGMENTATION_TYPE, VR::CS, "BINARY");
    put(object, tags::SEGMENTS_OVERLAP, VR::CS, "NO");
    put(object, tags::NUMBER_OF_FRAMES, VR::IS, frames.to_string());
    put(object, tags::SAMPLES_PER_PIXEL, VR::US, 1_u16);
    put(object, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    // Sides of a DICOM image are of 16 bits.
    put(object, tags::ROWS, VR::US, image.rows as u16);
    put(object, tags::COLUMNS, VR::US, image.columns as u16);
    put(object, tags::BITS_ALLOCATED, VR::US, 1_u16);
    put(object, tags::BITS_STORED, VR::US, 1_u16);
    put(object, tags::HIGH_BIT, VR::US, 0_u16);
    put(object, tags::PIXEL_REPRESENTATION, VR::US, 0_u16);
    put(object, tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(bytes.into()));
}
