//! For the targets of `fuzz/`: what peers send, read as the SCP and the workers read it.

use super::command::{Command, status};
use super::config::{DicomConfig, RouteConfig, Values};
use super::results::{self, Source};
use super::route::Routes;
use super::spool::examine;
use super::{implicit, scp, storage};
use crate::answer::{Answer, ByName};
use crate::registry::Version;
use melo_vit::{BackboneReference, CropMode, Decision, Interpolation, Precision, Preprocess, TaskCard, TaskKind};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// A PDU (PS3.8, section 9.3).
pub fn pdu(bytes: &[u8]) {
    let _ = dicom_ul::pdu::read_pdu(bytes, DicomConfig::default().max_pdu, true);
}

/// A command set: what answers it can be read.
///
/// # Panics
/// If it cannot.
pub fn command_set(bytes: &[u8]) {
    if let Some(command) = Command::read(bytes) {
        let answer = command.answer(status::SUCCESS, "");
        assert_eq!(Command::read(&answer.write()), Some(answer));
    }
}

/// A data set, in the transfer syntax that the first byte chooses: identifiers, routes, and a report that holds what
/// was copied of it.
///
/// # Panics
/// If the report cannot be written, or not be read again.
pub fn data_set(bytes: &[u8]) {
    let Some((syntax, data_set)) = bytes.split_first() else { return };
    let syntax = storage::SYNTAXES[usize::from(*syntax) % storage::SYNTAXES.len()];
    let mut file = scp::head(storage::CLASSES[0], "1.2.3", syntax, "PEER").expect("a file meta group");
    file.extend_from_slice(data_set);
    let _ = ROUTES.tasks(&file);
    let (Ok(seen), Ok(source)) = (examine(&file), Source::read(&file)) else { return };
    for result in results::of((&source, &file), &ANSWER, Duration::ZERO).expect("a result") {
        let (_, data_set) = implicit::split(&result.file).expect("a file");
        assert!(implicit::from_explicit(data_set).is_some());
        let read = examine(&result.file).expect("an object");
        assert_eq!((read.instance, read.study), (result.instance, seen.study.clone()));
    }
}

static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let conditions = ["modality", "body-part", "StudyDescription"].map(|key| (key.to_owned(), one("x")));
    let route = RouteConfig { tasks: vec!["all".to_owned()], conditions: conditions.into() };
    Routes::new(&DicomConfig { route: vec![route], ..DicomConfig::default() }).expect("routes")
});

fn one(value: &str) -> Values {
    Values::Many(vec![value.to_owned()])
}

static ANSWER: LazyLock<Answer> = LazyLock::new(|| {
    let classes = vec!["effusion".to_owned(), "nödule".to_owned()];
    let preprocess =
        Preprocess { crop_mode: CropMode::Center, interpolation: Interpolation::Bilinear, ..Preprocess::base(16) };
    let backbone = BackboneReference { digest: "b".repeat(64), name: "vit".to_owned() };
    let card = TaskCard::new("chest".to_owned(), TaskKind::MultiLabel, classes.clone(), preprocess, backbone);
    let digest = "a".repeat(64);
    Answer {
        task: card.task.clone(),
        version: digest.clone(),
        kind: card.kind,
        probabilities: ByName { classes, values: vec![0.75, 0.25] },
        values: ByName { classes: Vec::new(), values: Vec::new() },
        spread: ByName { classes: Vec::new(), values: Vec::new() },
        thresholds: Some(card.own_calibration().thresholds),
        predicted: None,
        findings: Some(vec!["effusion".to_owned()]),
        set: None,
        scope: None,
        backbone: card.backbone.digest.clone(),
        precision: Precision::F32,
        calibration: card.own_calibration().made,
        frame: None,
        heatmap: None,
        mask: None,
        attention: Vec::new(),
        leading: Vec::new(),
        heatmaps: Vec::new(),
        of: Arc::new(Version { digest, card, bytes: 0, accepted: 0, source: String::new(), signer: None }),
        logits: vec![1.0, -1.0],
        decision: Decision::new(TaskKind::MultiLabel, vec![0.75, 0.25], &[0.5; 2]),
    }
});
