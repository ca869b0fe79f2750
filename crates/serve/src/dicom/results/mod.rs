//! What receivers get for an image: a structured report and a secondary capture for every plug-in that answered, and a segmentation for
//! every one that gave a mask.

mod capture;
mod common;
mod content;
mod elements;
mod letters;
mod report;
mod segmentation;
mod source;

pub(super) use source::Source;

use super::config::ResultKind;
use crate::answer::Answer;
use common::instance;
use dicom_dictionary_std::uids;
use dicom_object::FileMetaTableBuilder;
use std::time::Duration;

/// A result, ready to be sent.
pub(super) struct ResultObject {
    pub(super) kind: ResultKind,
    /// SOP Instance UID: a function of the image, the plug-in and the kind.
    pub(super) instance: String,
    /// A part-10 file, explicit VR little endian.
    pub(super) file: Vec<u8>,
}

/// All results of one answer to an image, whose file is `bytes`.
///
/// # Errors
/// A sentence: the object could not be written, which is a defect.
pub(super) fn of(
    (source, bytes): (&Source, &[u8]),
    answer: &Answer,
    received: Duration,
) -> Result<Vec<ResultObject>, String> {
    let report = report::build(source, answer, received);
    let capture = capture::build(source, answer, received)?;
    let mask = segmentation::build((source, bytes), answer, received)?;
    let mut results: Vec<ResultObject> = [(ResultKind::Report, Some(report)), (ResultKind::Capture, capture)]
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
        .collect::<Result<_, String>>()?;
    results.extend(mask);
    Ok(results)
}
