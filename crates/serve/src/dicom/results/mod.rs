//! What receivers get for an image: a structured report and a secondary capture for every plug-in that answered.

mod capture;
mod content;
mod letters;
mod report;
mod source;

pub(super) use source::Source;

use super::config::ResultKind;
use super::uid;
use crate::answer::Answer;
use dicom_core::value::{DataSetSequence, PrimitiveValue, Value};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use std::time::Duration;

/// Says what these results are, on every one of them.
const PURPOSE: &str = "Research software, not for diagnostic use";
/// The maker's name in equipment modules.
const MANUFACTURER: &str = "melo";
/// The coding scheme of task and class names, which no standard lists.
const SCHEME: &str = "99MELO";

/// A result, ready to be sent.
pub(super) struct ResultObject {
    pub(super) kind: ResultKind,
    /// SOP Instance UID: a function of the image, the plug-in and the kind.
    pub(super) instance: String,
    /// A part-10 file, explicit VR little endian.
    pub(super) file: Vec<u8>,
}

/// All results of one answer.
///
/// # Errors
/// A sentence: the object could not be written, which is a defect.
pub(super) fn of(source: &Source, answer: &Answer, received: Duration) -> Result<Vec<ResultObject>, String> {
    let report = report::build(source, answer, received);
    let capture = capture::build(source, answer, received)?;
    [(ResultKind::Report, Some(report)), (ResultKind::Capture, capture)]
        .into_iter()
        .filter_map(|(kind, object)| Some((kind, object?)))
        .map(|(kind, object)| {
            let instance = instance(source, answer, kind);
            let meta = FileMetaTableBuilder::new()
                .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
                .media_storage_sop_instance_uid(instance.as_str());
            let mut file = Vec::new();
            let object = object.with_meta(meta).map_err(|error| error.to_string())?;
            object.write_all(&mut file).map_err(|error| error.to_string())?;
            Ok(ResultObject { kind, instance, file })
        })
        .collect()
}

fn instance(source: &Source, answer: &Answer, kind: ResultKind) -> String {
    let precision = answer.precision.to_string();
    uid::derived(&[&source.instance, &answer.version, &answer.backbone, &precision, kind.word()])
}

/// Results of one plug-in for one study are one series of each kind.
fn series(source: &Source, answer: &Answer, kind: ResultKind) -> String {
    uid::derived(&[&source.study, &answer.version, "series", kind.word()])
}

/// The modules that all results share: SOP common, patient, study, series, equipment.
fn common(source: &Source, answer: &Answer, kind: ResultKind, class: &str, received: Duration) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    source.copy(&mut object);
    let (date, time) = date_time(received);
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

fn put(object: &mut InMemDicomObject, tag: Tag, vr: VR, value: impl Into<PrimitiveValue>) {
    object.put(DataElement::new(tag, vr, Value::Primitive(value.into())));
}

fn sequence(object: &mut InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>) {
    object.put(DataElement::new(tag, VR::SQ, Value::from(DataSetSequence::from(items))));
}

/// Date and time of day, UTC (PS3.5, section 6.2: DA, TM).
fn date_time(since_1970: Duration) -> (String, String) {
    let seconds = since_1970.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Proleptic Gregorian calendar in eras of 400 years that begin on 1 March.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let date = format!("{year:04}{month:02}{day:02}");
    let micros = since_1970.subsec_micros();
    (date, format!("{:02}{:02}{:02}.{micros:06}", rest / 3600, rest / 60 % 60, rest % 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date, time) in [
            (0, "19700101", "000000.000000"),
            (951_782_399, "20000228", "235959.000000"),
            (951_782_400, "20000229", "000000.000000"),
            (1_709_251_199, "20240229", "235959.000000"),
            (4_107_542_400, "21000301", "000000.000000"),
        ] {
            assert_eq!(date_time(Duration::from_secs(seconds)), (date.to_owned(), time.to_owned()));
        }
    }
}
