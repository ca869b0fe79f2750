//! What of the image goes into its results: patient and study as they stand there, and what it is referred to by.

use super::elements::{put, sequence};
use crate::dicom::known;
use dicom_core::value::{PrimitiveValue, Value};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use melo_imaging::dicom::uid;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Attributes of the patient and general study modules (PS3.3, C.7.1.1 and C.7.2.1), with true where a result has them
/// even if they are empty (type 2).
const COPIED: [(Tag, VR, bool); 17] = [
    (tags::PATIENT_NAME, VR::PN, true),
    (tags::PATIENT_ID, VR::LO, true),
    (tags::ISSUER_OF_PATIENT_ID, VR::LO, false),
    (tags::PATIENT_BIRTH_DATE, VR::DA, true),
    (tags::PATIENT_SEX, VR::CS, true),
    (tags::PATIENT_AGE, VR::AS, false),
    (tags::PATIENT_SPECIES_DESCRIPTION, VR::LO, false),
    (tags::RESPONSIBLE_PERSON, VR::PN, false),
    (tags::RESPONSIBLE_ORGANIZATION, VR::LO, false),
    (tags::PATIENT_IDENTITY_REMOVED, VR::CS, false),
    (tags::DEIDENTIFICATION_METHOD, VR::LO, false),
    (tags::STUDY_DATE, VR::DA, true),
    (tags::STUDY_TIME, VR::TM, true),
    (tags::REFERRING_PHYSICIAN_NAME, VR::PN, true),
    (tags::STUDY_ID, VR::SH, true),
    (tags::ACCESSION_NUMBER, VR::SH, true),
    (tags::STUDY_DESCRIPTION, VR::LO, false),
];

/// An image, or a bag of them, that was answered for.
#[derive(Clone)]
pub(in crate::dicom) struct Source {
    /// SOP Instance UID; of a series its own.
    pub(in crate::dicom) instance: String,
    /// SHA-256 of the data set; of a series of the digests of its images.
    pub(in crate::dicom) digest: [u8; 32],
    /// The one image, or those of the series in their order: SOP Class UID, SOP Instance UID.
    images: Vec<[String; 2]>,
    pub(super) study: String,
    pub(in crate::dicom) series: String,
    pub(super) modality: String,
    pub(super) instance_number: String,
    pub(in crate::dicom) frames: usize,
    pub(super) burned_in: Option<String>,
    pub(super) lossy: Option<String>,
    /// Bytes as they stand in the image, in its character set.
    copied: Vec<(Tag, VR, Vec<u8>)>,
    /// Specific Character Set; none where all text is ASCII, or Unicode.
    character_set: Option<String>,
}

impl Source {
    /// # Errors
    /// A sentence that names the attribute.
    pub(in crate::dicom) fn read(bytes: &[u8]) -> Result<Self, String> {
        const WANTED: [&str; 10] = [
            "SOPClassUID",
            "SOPInstanceUID",
            "StudyInstanceUID",
            "SeriesInstanceUID",
            "Modality",
            "InstanceNumber",
            "NumberOfFrames",
            "BurnedInAnnotation",
            "00282110",
            "SpecificCharacterSet",
        ];
        let name = Path::new("object");
        let error = |error: melo_imaging::Error| error.to_string();
        let mut found = melo_imaging::dicom::header(bytes, name, &WANTED).map_err(error)?.into_iter();
        let mut next = || found.next().flatten();
        let mut identifier = |name: &str| match next() {
            Some(value) if uid::is_valid(&value) => Ok(value),
            Some(_) => Err(format!("{name} is no unique identifier")),
            None => Err(format!("{name} is missing")),
        };
        let (class, instance) = (identifier("SOPClassUID")?, identifier("SOPInstanceUID")?);
        let (study, series) = (identifier("StudyInstanceUID")?, identifier("SeriesInstanceUID")?);
        let code = |value: Option<String>| value.filter(|value| value.chars().all(is_of_code));
        let modality = code(next()).unwrap_or_else(|| "OT".to_owned());
        let instance_number = next().filter(|value| value.parse::<i32>().is_ok()).unwrap_or_else(|| "1".to_owned());
        let frames = next().and_then(|value| value.parse().ok()).unwrap_or(1);
        let (burned_in, lossy, character_set) = (code(next()), code(next()), next());
        let names: Vec<String> = COPIED.iter().map(|(tag, ..)| format!("{:04x}{:04x}", tag.0, tag.1)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let raw = melo_imaging::dicom::raw(bytes, name, &names).map_err(error)?;
        let copied = COPIED.iter().zip(raw).filter_map(|(&(tag, vr, always), value)| {
            let value = padded(value.unwrap_or_default());
            (always || !value.is_empty()).then_some((tag, vr, value))
        });
        let copied: Vec<(Tag, VR, Vec<u8>)> = copied.collect();
        // ISO 2022 escapes make other characters of ASCII bytes.
        let plain = copied.iter().all(|(_, _, value)| value.iter().all(|byte| byte.is_ascii() && *byte != 0x1b));
        let unicode = character_set.as_deref() == Some("ISO_IR 192");
        let character_set = character_set.filter(|_| !plain && !unicode);
        Ok(Source {
            images: vec![[class, instance.clone()]],
            instance,
            digest: known::digest(bytes),
            study,
            series,
            modality,
            instance_number,
            frames,
            burned_in,
            lossy,
            copied,
            character_set,
        })
    }

    /// Patient and study, and the character set that they are in.
    pub(super) fn copy(&self, object: &mut InMemDicomObject) {
        let set = self.character_set.as_deref().unwrap_or("ISO_IR 192");
        let sets: Vec<String> = set.split('\\').map(str::to_owned).collect();
        put(object, tags::SPECIFIC_CHARACTER_SET, VR::CS, PrimitiveValue::Strs(sets.into()));
        for (tag, vr, value) in &self.copied {
            let value = match value.is_empty() {
                true => PrimitiveValue::Empty,
                false => PrimitiveValue::U8(value.as_slice().into()),
            };
            object.put(DataElement::new(*tag, *vr, Value::Primitive(value)));
        }
        put(object, tags::STUDY_INSTANCE_UID, VR::UI, self.study.as_str());
    }

    /// Text of ours as the character set can hold it.
    pub(super) fn text(&self, text: &str, most: usize) -> String {
        let unicode = self.character_set.is_none();
        let held = |c: char| match c {
            '\\' => '/',
            c if c.is_control() => ' ',
            c if unicode || c.is_ascii() => c,
            _ => '?',
        };
        text.chars().map(held).take(most).collect::<String>().trim().to_owned()
    }

    /// The images of one series in their order, as one bag; none of no image.
    pub(in crate::dicom) fn of_series(images: Vec<Source>) -> Option<Self> {
        let digest = images.iter().fold(Sha256::new(), |digest, image| digest.chain_update(image.digest)).finalize();
        let all = images.iter().flat_map(|image| image.images.clone()).collect();
        let first = images.into_iter().next()?;
        Some(Source {
            instance: first.series.clone(),
            digest: digest.into(),
            images: all,
            instance_number: "1".to_owned(),
            frames: 1,
            ..first
        })
    }

    /// True for a bag of several objects.
    pub(super) fn is_series(&self) -> bool {
        self.instance == self.series
    }

    /// SOP Instance UID of one of the images.
    pub(super) fn image(&self, index: usize) -> &str {
        &self.images[index][1]
    }

    /// One of the images as an item of Referenced SOP Sequence; of several frames the one that was seen.
    pub(super) fn reference(&self, index: usize, frame: Option<usize>) -> InMemDicomObject {
        let [class, instance] = &self.images[index];
        let mut item = InMemDicomObject::new_empty();
        put(&mut item, tags::REFERENCED_SOP_CLASS_UID, VR::UI, class.as_str());
        put(&mut item, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, instance.as_str());
        if let Some(frame) = frame.filter(|_| self.frames > 1) {
            put(&mut item, tags::REFERENCED_FRAME_NUMBER, VR::IS, (frame + 1).to_string());
        }
        item
    }

    /// All images as items of Referenced SOP Sequence.
    pub(super) fn references(&self, frame: Option<usize>) -> Vec<InMemDicomObject> {
        (0..self.images.len()).map(|index| self.reference(index, frame)).collect()
    }

    /// Current Requested Procedure Evidence Sequence (PS3.3, table C.17-3).
    pub(super) fn evidence(&self) -> InMemDicomObject {
        let mut series = InMemDicomObject::new_empty();
        sequence(&mut series, tags::REFERENCED_SOP_SEQUENCE, self.references(None));
        put(&mut series, tags::SERIES_INSTANCE_UID, VR::UI, self.series.as_str());
        let mut study = InMemDicomObject::new_empty();
        sequence(&mut study, tags::REFERENCED_SERIES_SEQUENCE, vec![series]);
        put(&mut study, tags::STUDY_INSTANCE_UID, VR::UI, self.study.as_str());
        study
    }
}

/// Characters of CS (PS3.5, section 6.2).
fn is_of_code(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, ' ' | '_')
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
