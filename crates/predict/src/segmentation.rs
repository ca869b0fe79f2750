//! Masks as DICOM segmentations: what they say of themselves.

use melo_imaging::{Segment, SegmentationAbout, dicom};
use melo_vit::{BoundPlugin, Engine};
use std::path::Path;

/// What the DICOM segmentation of a plug-in's answer to an image in a DICOM file says of itself, but for its date and time and the
/// program's own name: identifiers are functions of image, plug-in, backbone and precision, so that the same answer is the same object.
/// Classes are coded by their names.
///
/// # Errors
/// Those of [`dicom::header`].
pub fn segmentation_about(
    plugin: &BoundPlugin,
    engine: &dyn Engine,
    source: &[u8],
    name: &Path,
) -> Result<SegmentationAbout, melo_imaging::Error> {
    let of_image = dicom::header(source, name, &["SOPInstanceUID", "StudyInstanceUID"])?;
    let [instance, study] = [0, 1].map(|at| of_image[at].clone().unwrap_or_default());
    let (card, backbone) = (&plugin.card, engine.backbone().digest());
    let precision = engine.info().precision.to_string();
    let segments = card.classes.iter().skip(1).map(|class| Segment { label: class.clone(), codes: None });
    Ok(SegmentationAbout {
        segments: segments.collect(),
        instance_uid: dicom::uid::derived(&[&instance, &plugin.digest, backbone, &precision, "segmentation"]),
        series_uid: dicom::uid::derived(&[&study, &plugin.digest, "series", "segmentation"]),
        series_description: card.task.clone(),
        algorithm: card.task.clone(),
        model_name: "melo".to_owned(),
        serial_number: plugin.digest.clone(),
        software_versions: env!("CARGO_PKG_VERSION").to_owned(),
        date: String::new(),
        time: String::new(),
    })
}
