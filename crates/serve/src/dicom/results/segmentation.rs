//! The segmentation: the mask of an image (PS3.3, section A.51).

use super::ResultObject;
use super::common::{instance, series};
use super::source::Source;
use crate::answer::Answer;
use crate::clock;
use crate::dicom::config::ResultKind;
use melo_imaging::{Segment, SegmentationAbout, encode_mask_dicom};
use std::path::Path;
use std::time::Duration;

/// None where the answer has no mask.
///
/// # Errors
/// A sentence: the object could not be written.
pub(super) fn build(
    (source, bytes): (&Source, &[u8]),
    answer: &Answer,
    received: Duration,
) -> Result<Option<ResultObject>, String> {
    let Some(given) = &answer.mask else { return Ok(None) };
    let kind = ResultKind::Segmentation;
    let (date, time) = clock::dicom(received);
    let classes = answer.of.card.classes.iter().skip(1);
    let about = SegmentationAbout {
        segments: classes.map(|class| Segment { label: source.text(class, 64), codes: None }).collect(),
        instance_uid: instance(source, answer, kind),
        series_uid: series(source, answer, kind),
        series_description: source.text(&format!("melo {} mask", answer.task), 64),
        algorithm: source.text(&answer.task, 64),
        model_name: "melo serve".to_owned(),
        serial_number: answer.version.clone(),
        software_versions: env!("CARGO_PKG_VERSION").to_owned(),
        date,
        time,
    };
    let frame = answer.frame.map_or(0, |frame| frame.saturating_sub(1));
    let file = encode_mask_dicom(&given.mask, bytes, Path::new("the object"), frame, &about);
    let file = file.map_err(|error| error.to_string())?;
    Ok(Some(ResultObject { kind, instance: about.instance_uid, file }))
}
