//! The structured report: Comprehensive SR, TID 1500 "Measurement Report" (PS3.16).

use super::common::{MANUFACTURER, common};
use super::content::{Code, Item, Relation};
use super::elements::{put, sequence};
use super::source::Source;
use crate::answer::Answer;
use crate::dicom::config::ResultKind;
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use melo_imaging::dicom::uid;
use melo_vit::hex;
use melo_vit::{INTENDED_USE, TaskKind};
use std::time::Duration;

/// Longest text that we put into one item.
const TEXT_CHARS: usize = 1024;

/// Modality (CID 29) with its meaning and the procedure (CID 100 and SNOMED CT) that it reports on.
const PROCEDURES: [(&str, &str, &str, &str); 12] = [
    ("CR", "Computed Radiography", "168537006", "Plain X-ray"),
    ("DX", "Digital Radiography", "168537006", "Plain X-ray"),
    ("MG", "Mammography", "71651007", "Mammography"),
    ("CT", "Computed Tomography", "77477000", "Computed tomography"),
    ("MR", "Magnetic Resonance", "113091000", "Magnetic resonance imaging"),
    ("US", "Ultrasound", "16310003", "Ultrasonography"),
    ("XA", "X-Ray Angiography", "77343006", "Angiography"),
    ("OP", "Ophthalmic Photography", "363679005", "Imaging procedure"),
    ("OPT", "Ophthalmic Tomography", "363679005", "Imaging procedure"),
    ("SM", "Slide Microscopy", "363679005", "Imaging procedure"),
    ("XC", "External-camera Photography", "363679005", "Imaging procedure"),
    ("OT", "Other Modality", "363679005", "Imaging procedure"),
];

pub(super) fn build(source: &Source, answer: &Answer, received: Duration) -> InMemDicomObject {
    let mut object = common(source, answer, ResultKind::Report, uids::COMPREHENSIVE_SR_STORAGE, received);
    put(&mut object, tags::MODALITY, VR::CS, "SR");
    put(&mut object, tags::SERIES_NUMBER, VR::IS, "9901");
    put(&mut object, tags::SERIES_DESCRIPTION, VR::LO, source.text(&format!("melo {}", answer.task), 64));
    sequence(&mut object, tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, Vec::new());
    put(&mut object, tags::COMPLETION_FLAG, VR::CS, "COMPLETE");
    put(&mut object, tags::VERIFICATION_FLAG, VR::CS, "UNVERIFIED");
    put(&mut object, tags::PRELIMINARY_FLAG, VR::CS, "PRELIMINARY");
    sequence(&mut object, tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, Vec::new());
    sequence(&mut object, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, vec![source.evidence()]);
    for element in content(source, answer).finish() {
        object.put(element);
    }
    object
}

/// TID 1500.
fn content(source: &Source, answer: &Answer) -> Item {
    let language = Code::new("en", "RFC5646", "English");
    let (_, _, procedure, meaning) = modality(source);
    let procedure = Code::sct(procedure, meaning);
    let measurements = Item::container(&Code::dcm("126010", "Imaging Measurements"), None)
        .with(Relation::Contains, group(source, answer));
    let language_of = Code::dcm("121049", "Language of Content Item and Descendants");
    let root = Item::container(&Code::dcm("126000", "Imaging Measurement Report"), Some("1500"))
        .with(Relation::HasConceptMod, Item::code(&language_of, &language));
    observer(root, answer)
        .with(Relation::HasConceptMod, Item::code(&Code::dcm("121058", "Procedure reported"), &procedure))
        .with(Relation::Contains, library(source, answer))
        .with(Relation::Contains, measurements)
}

/// TID 1002 and 1004: the observer is a device.
fn observer(item: Item, answer: &Answer) -> Item {
    let device = Code::dcm("121007", "Device");
    let text = |code: &str, meaning: &str, text: &str| Item::text(&Code::dcm(code, meaning), text.to_owned());
    let device_uid = uid::derived(&["device", &answer.backbone]);
    item.with(Relation::HasObsContext, Item::code(&Code::dcm("121005", "Observer Type"), &device))
        .with(Relation::HasObsContext, Item::identifier(&Code::dcm("121012", "Device Observer UID"), &device_uid))
        .with(Relation::HasObsContext, text("121013", "Device Observer Name", "melo serve"))
        .with(Relation::HasObsContext, text("121014", "Device Observer Manufacturer", MANUFACTURER))
        .with(Relation::HasObsContext, text("121015", "Device Observer Model Name", env!("CARGO_PKG_VERSION")))
}

/// TID 1600 with the image, or all of a series.
fn library(source: &Source, answer: &Answer) -> Item {
    let (code, meaning, ..) = modality(source);
    let modality = Item::code(&Code::dcm("121139", "Modality"), &Code::dcm(code, meaning));
    let group = Item::container(&Code::dcm("126200", "Image Library Group"), None);
    let images = source.references(frame(source, answer)).into_iter();
    let group = images.fold(group.with(Relation::HasAcqContext, modality), |group, image| {
        group.with(Relation::Contains, Item::image(None, image))
    });
    Item::container(&Code::dcm("111028", "Image Library"), None).with(Relation::Contains, group)
}

/// TID 1501: all probabilities, or all numbers, of a task.
fn group(source: &Source, answer: &Answer) -> Item {
    let concept = |code: &str, meaning: &str| Code::dcm(code, meaning);
    let tracking = uid::derived(&[&source.instance, &hex(&source.digest), &answer.version, "tracking"]);
    let text = |text: &str| source.text(text, TEXT_CHARS);
    let mut group = Item::container(&concept("125007", "Measurement Group"), Some("1501"))
        .with(Relation::HasObsContext, Item::text(&concept("112039", "Tracking Identifier"), text(&answer.task)))
        .with(Relation::HasObsContext, Item::identifier(&concept("112040", "Tracking Unique Identifier"), &tracking));
    if let Some(class) = &answer.predicted {
        let finding = class_code(source, class);
        group = group.with(Relation::Contains, Item::code(&concept("121071", "Finding"), &finding));
    }
    group = algorithm(group, source, answer);
    if source.is_series() {
        let series = Item::identifier(&concept("112002", "Series Instance UID"), &source.series);
        group = group.with(Relation::HasObsContext, series);
    }
    let of = Code::sct("260753009", "Source");
    for image in source.references(frame(source, answer)) {
        group = group.with(Relation::Contains, Item::image(Some(&of), image));
    }
    for (index, (class, &value)) in answer.probabilities.classes.iter().zip(&answer.probabilities.values).enumerate() {
        group = group.with(Relation::Contains, probability(source, answer, index, class, value));
    }
    for (name, &value) in answer.values.classes.iter().zip(&answer.values.values) {
        group = group.with(Relation::Contains, Item::number(&class_code(source, name), value));
    }
    if answer.kind == TaskKind::MultiLabel {
        for (index, class) in answer.probabilities.classes.iter().enumerate() {
            let seen = match answer.decision.findings.contains(&index) {
                true => Code::sct("52101004", "Present"),
                false => Code::sct("2667000", "Absent"),
            };
            group = group.with(Relation::Contains, Item::code(&class_code(source, class), &seen));
        }
    }
    if let Some(scope) = answer.scope {
        let said = match scope.in_scope {
            true => format!("Image in scope, score {:.2} of 1", scope.score),
            false => format!(
                "IMAGE NOT IN SCOPE, score {:.2} of 1: unlike the images that this was trained on, do not rely on the answer",
                scope.score
            ),
        };
        group = group.with(Relation::Contains, Item::text(&concept("121106", "Comment"), text(&said)));
    }
    if let Some(set) = &answer.set {
        let said = format!("Prediction set, {set}");
        group = group.with(Relation::Contains, Item::text(&concept("121106", "Comment"), text(&said)));
    }
    if !answer.spread.values.is_empty() {
        let of = answer.spread.classes.iter().zip(&answer.spread.values);
        let of: Vec<String> = of.map(|(class, spread)| format!("{class} {spread:.3}")).collect();
        let said = format!("Standard deviation of what {} folds say: {}", answer.of.card.members(), of.join(", "));
        group = group.with(Relation::Contains, Item::text(&concept("121106", "Comment"), text(&said)));
    }
    if !answer.leading.is_empty() {
        let counted = Item::text(&concept("121106", "Comment"), text(&counted(source, answer)));
        group = group.with(Relation::Contains, counted);
    }
    group.with(Relation::Contains, Item::text(&concept("121106", "Comment"), INTENDED_USE.to_owned()))
}

/// Which images of a bag counted most.
fn counted(source: &Source, answer: &Answer) -> String {
    let named = |&image: &usize| {
        let share = answer.attention[image];
        match source.is_series() {
            true => format!("{share:.3} image {} ({})", image + 1, source.image(image)),
            false => format!("{share:.3} frame {}", image + 1),
        }
    };
    let leading: Vec<String> = answer.leading.iter().map(named).collect();
    format!("Of {} images these counted most: {}", answer.attention.len(), leading.join(", "))
}

/// TID 300: a class's probability, and the threshold that a finding is reported from.
fn probability(source: &Source, answer: &Answer, index: usize, class: &str, value: f32) -> Item {
    let meaning = source.text(&format!("Probability of {class}"), 64);
    let name = Code::ours(&format!("probability of {class}"), meaning);
    let finding = Item::code(&Code::dcm("121071", "Finding"), &class_code(source, class));
    let item = Item::number(&name, value).with(Relation::HasConceptMod, finding);
    match answer.thresholds.as_ref().and_then(|thresholds| thresholds.get(index)) {
        None => item,
        Some(&threshold) => {
            let name = Code::ours("threshold", "Decision threshold".to_owned());
            item.with(Relation::HasProperties, Item::number(&name, threshold))
        }
    }
}

/// TID 4019: which plug-in, on what, computed how.
fn algorithm(item: Item, source: &Source, answer: &Answer) -> Item {
    let parameters = Code::dcm("111002", "Algorithm Parameters");
    let name = source.text(&format!("melo {}", answer.task), TEXT_CHARS);
    let backbone = format!("backbone SHA-256 {}", answer.backbone);
    let precision = match answer.calibration.precision == answer.precision {
        true => format!("precision {}", answer.precision),
        false => format!("precision {}, calibrated in {}", answer.precision, answer.calibration),
    };
    item.with(Relation::HasConceptMod, Item::text(&Code::dcm("111001", "Algorithm Name"), name))
        .with(Relation::HasConceptMod, Item::text(&Code::dcm("111003", "Algorithm Version"), answer.version.clone()))
        .with(Relation::HasConceptMod, Item::text(&parameters, backbone))
        .with(Relation::HasConceptMod, Item::text(&parameters, precision))
}

fn class_code(source: &Source, class: &str) -> Code {
    Code::ours(class, source.text(class, 64))
}

fn modality(source: &Source) -> (&'static str, &'static str, &'static str, &'static str) {
    let known = PROCEDURES.iter().find(|known| known.0 == source.modality);
    *known.unwrap_or(&PROCEDURES[PROCEDURES.len() - 1])
}

/// The frame that the plug-in's card asks for; none of a bag, which is all of them.
pub(super) fn frame(source: &Source, answer: &Answer) -> Option<usize> {
    if !answer.attention.is_empty() {
        return None;
    }
    answer.of.card.preprocess.rendering.frame.place(source.frames)
}
