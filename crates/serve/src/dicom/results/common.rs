//! What all results of an image share: identifiers, and the modules that are in every one.

use super::content::SCHEME;
use super::elements::{put, sequence};
use super::source::Source;
use crate::answer::Answer;
use crate::clock;
use crate::dicom::config::ResultKind;
use dicom_core::VR;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use melo_imaging::dicom::uid;
use melo_vit::hex;
use std::time::Duration;

/// The maker's name in equipment modules.
pub(super) const MANUFACTURER: &str = "melo";

/// SOP Instance UID of a result.
pub(super) fn instance(source: &Source, answer: &Answer, kind: ResultKind) -> String {
    let precision = answer.precision.to_string();
    let image = hex(&source.digest);
    uid::derived(&[&source.instance, &image, &answer.version, &answer.backbone, &precision, kind.word()])
}

/// Results of one plug-in for one study are one series of each kind.
pub(super) fn series(source: &Source, answer: &Answer, kind: ResultKind) -> String {
    uid::derived(&[&source.study, &answer.version, "series", kind.word()])
}

/// The modules that all results share: SOP common, patient, study, series, equipment.
pub(super) fn common(
    source: &Source,
    answer: &Answer,
    kind: ResultKind,
    class: &str,
    received: Duration,
) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    source.copy(&mut object);
    let (date, time) = clock::dicom(received);
    put(&mut object, tags::SOP_CLASS_UID, VR::UI, class);
    put(&mut object, tags::SOP_INSTANCE_UID, VR::UI, instance(source, answer, kind));
    put(&mut object, tags::INSTANCE_CREATION_DATE, VR::DA, date.as_str());
    put(&mut object, tags::INSTANCE_CREATION_TIME, VR::TM, time.as_str());
    put(&mut object, tags::CONTENT_DATE, VR::DA, date);
    put(&mut object, tags::CONTENT_TIME, VR::TM, time);
    put(&mut object, tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH, "+0000");
    put(&mut object, tags::SERIES_INSTANCE_UID, VR::UI, series(source, answer, kind));
    put(&mut object, tags::INSTANCE_NUMBER, VR::IS, source.instance_number.as_str());
    put(&mut object, tags::MANUFACTURER, VR::LO, MANUFACTURER);
    put(&mut object, tags::MANUFACTURER_MODEL_NAME, VR::LO, "melo serve");
    put(&mut object, tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION"));
    let mut scheme = InMemDicomObject::new_empty();
    put(&mut scheme, tags::CODING_SCHEME_DESIGNATOR, VR::SH, SCHEME);
    put(&mut scheme, tags::CODING_SCHEME_NAME, VR::ST, "Tasks and classes of melo plug-ins");
    put(&mut scheme, tags::CODING_SCHEME_RESPONSIBLE_ORGANIZATION, VR::ST, MANUFACTURER);
    sequence(&mut object, tags::CODING_SCHEME_IDENTIFICATION_SEQUENCE, vec![scheme]);
    object
}
