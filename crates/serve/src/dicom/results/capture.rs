//! The secondary capture: the image with its heat map or mask, as any viewer shows it (PS3.3, section A.8.1).

use super::common::common;
use super::content::Code;
use super::elements::{put, sequence};
use super::source::Source;
use super::{letters, report};
use crate::answer::{Answer, ByName, LeadingHeatmap};
use crate::dicom::config::ResultKind;
use dicom_core::VR;
use dicom_core::value::PrimitiveValue;
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use melo_imaging::{Pixels, resize};
use melo_vit::{INTENDED_USE, Interpolation, TaskKind};
use std::path::Path;
use std::time::Duration;

/// Smaller images are enlarged to about this width, so that the text under them can be read, px.
const WIDTH: usize = 320;
/// Findings that are named in the text.
const NAMED: usize = 6;

/// None where the answer has no heat map and no mask; of a bag its leading image is shown.
///
/// # Errors
/// A sentence: our own PNG could not be read, which is a defect.
pub(super) fn build(source: &Source, answer: &Answer, received: Duration) -> Result<Option<InMemDicomObject>, String> {
    let leading = answer.heatmaps.first();
    let (what, of, png, colour) = match (leading, &answer.heatmap, &answer.mask) {
        (Some(LeadingHeatmap { image, heatmap }), ..) => {
            let place = format!("image {} of {}, which counted most", image + 1, answer.attention.len());
            let colour = format!("Colour: where {} was seen in {place}.", heatmap.class);
            ("Heat map", format!(" for {} in {place}", heatmap.class), &heatmap.png, colour)
        }
        (None, Some(heatmap), _) => {
            let colour = format!("Colour: where {} was seen.", heatmap.class);
            ("Heat map", format!(" for {}", heatmap.class), &heatmap.png, colour)
        }
        (None, None, Some(mask)) => {
            ("Mask", String::new(), &mask.overlay, "Colour: each class, with its outline.".to_owned())
        }
        (None, None, None) => return Ok(None),
    };
    let drawn = melo_imaging::decode(png, Path::new("a picture of ours")).map_err(|error| error.to_string())?;
    let drawn = enlarged(drawn);
    let lines = [INTENDED_USE.to_owned(), summary(answer), colour];
    let mut pixels = letters::below(&drawn, &lines);
    // Values of OB have an even length.
    if pixels.rgb.len() % 2 == 1 {
        pixels.rgb.push(0);
    }
    let mut object = common(source, answer, ResultKind::Capture, uids::SECONDARY_CAPTURE_IMAGE_STORAGE, received);
    put(&mut object, tags::MODALITY, VR::CS, "OT");
    put(&mut object, tags::SERIES_NUMBER, VR::IS, "9902");
    put(
        &mut object,
        tags::SERIES_DESCRIPTION,
        VR::LO,
        source.text(&format!("melo {} {}", answer.task, what.to_lowercase()), 64),
    );
    put(&mut object, tags::CONVERSION_TYPE, VR::CS, "WSD");
    put(&mut object, tags::IMAGE_TYPE, VR::CS, dicom_core::dicom_value!(Strs, ["DERIVED", "SECONDARY"]));
    put(&mut object, tags::PATIENT_ORIENTATION, VR::CS, PrimitiveValue::Empty);
    let derivation = format!("{what} of {}{of}, plug-in {}", answer.task, &answer.version);
    put(&mut object, tags::DERIVATION_DESCRIPTION, VR::ST, source.text(&derivation, 1024));
    put(&mut object, tags::IMAGE_COMMENTS, VR::LT, source.text(&format!("{INTENDED_USE} {}", summary(answer)), 1024));
    let mut reference = match leading.map(|map| map.image) {
        Some(image) if source.is_series() => source.reference(image, None),
        Some(frame) => source.reference(0, Some(frame)),
        None => source.reference(0, report::frame(source, answer)),
    };
    let purpose = Code::dcm("121322", "Source image for image processing operation").item();
    sequence(&mut reference, tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, vec![purpose]);
    sequence(&mut object, tags::SOURCE_IMAGE_SEQUENCE, vec![reference]);
    // Whether text identifies the patient: what we write does not, what was there before may.
    if let Some(burned_in) = &source.burned_in {
        put(&mut object, tags::BURNED_IN_ANNOTATION, VR::CS, burned_in.as_str());
    }
    if let Some(lossy) = &source.lossy {
        put(&mut object, tags::LOSSY_IMAGE_COMPRESSION, VR::CS, lossy.as_str());
    }
    put(&mut object, tags::SAMPLES_PER_PIXEL, VR::US, 3_u16);
    put(&mut object, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB");
    put(&mut object, tags::PLANAR_CONFIGURATION, VR::US, 0_u16);
    put(&mut object, tags::ROWS, VR::US, side(pixels.height)?);
    put(&mut object, tags::COLUMNS, VR::US, side(pixels.width)?);
    put(&mut object, tags::BITS_ALLOCATED, VR::US, 8_u16);
    put(&mut object, tags::BITS_STORED, VR::US, 8_u16);
    put(&mut object, tags::HIGH_BIT, VR::US, 7_u16);
    put(&mut object, tags::PIXEL_REPRESENTATION, VR::US, 0_u16);
    put(&mut object, tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(pixels.rgb.into()));
    Ok(Some(object))
}

fn side(length: usize) -> Result<u16, String> {
    u16::try_from(length).map_err(|_| format!("a heat map of {length} pixels"))
}

fn enlarged(pixels: Pixels) -> Pixels {
    let times = WIDTH.div_ceil(pixels.width).min(WIDTH.div_ceil(pixels.height).max(1));
    match times {
        0 | 1 => pixels,
        times => resize(&pixels, pixels.width * times, pixels.height * times, Interpolation::Bilinear),
    }
}

/// The answer in a line.
fn summary(answer: &Answer) -> String {
    let named = |class: usize| {
        let ByName { classes, values } = answer.outputs();
        let (name, value) = (&classes[class], values[class]);
        format!("{name} {value:.2}")
    };
    let said = match answer.kind {
        TaskKind::SingleLabel | TaskKind::Ordinal => named(answer.decision.best()),
        TaskKind::Regression | TaskKind::Segmentation => {
            let numbers: Vec<String> = (0..answer.values.values.len()).take(NAMED).map(named).collect();
            numbers.join(", ")
        }
        TaskKind::MultiLabel => {
            let found: Vec<String> = answer.decision.findings.iter().copied().take(NAMED).map(named).collect();
            if found.is_empty() { "no finding".to_owned() } else { found.join(", ") }
        }
    };
    let warning = match answer.scope {
        Some(scope) if !scope.in_scope => "NOT IN SCOPE, do not rely on it: ",
        _ => "",
    };
    format!("{}: {warning}{said}", answer.task)
}
