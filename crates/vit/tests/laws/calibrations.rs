//! Answers are read by the calibration of what computes them, or not at all.

use crate::tiny;
use crate::variants::lora;
use melo_reference::Reference;
use melo_vit::{
    ComputedOn, Device, Engine, Error, FindingSet, Plugin, PluginInfo, Precision, ReadBy, Recalibration, SelfTest,
    SetBy, SetMembers, SetMethod, SetRule, Storage, Target, TaskCard,
};
use std::collections::BTreeMap;
use std::sync::Arc;

fn engine(precision: Precision) -> Arc<dyn Engine> {
    tiny::engine_of(tiny::checkpoint(&tiny::config(), 1), precision, 2, 2)
}

/// A plug-in of three findings, calibrated in f32.
fn finished() -> Plugin {
    let engine = engine(Precision::F32);
    let mut plugin = tiny::plugin(engine.backbone(), &lora(4, 2.0, &[Target::Q, Target::V]), 3, 2);
    plugin.finish(&*engine, Storage::F32).expect("images of this size");
    plugin
}

fn calibration(card: &TaskCard, self_test: SelfTest, temperature: f32) -> Recalibration {
    let thresholds = vec![0.25, 0.5, 0.75];
    let is_old = self_test.meaning.is_empty();
    let by = ReadBy { temperature, thresholds: &thresholds, sets: None, scope_limits: None };
    let self_test = if is_old { self_test } else { self_test.read_by(card, by) };
    Recalibration {
        sets: None,
        scope_limits: None,
        temperature,
        thresholds,
        self_test,
        images: 12,
        data_digest: "d".into(),
        split_digest: "s".into(),
        data: "tiny/labels.csv".into(),
        date: "2026-11-28".into(),
        software: "melo".into(),
        metrics: BTreeMap::from([("val_auc_macro".to_owned(), 0.75)]),
    }
}

/// The same answers, said to be of another engine or precision, `by` further away.
fn moved(test: &SelfTest, engine: &str, precision: Precision, by: f32) -> SelfTest {
    let mut moved = SelfTest { engine: engine.to_owned(), precision, ..test.clone() };
    moved.logits.iter_mut().chain(&mut moved.bare_logits).flatten().for_each(|x| *x += by);
    moved
}

fn on(engine: &str, precision: Precision) -> ComputedOn {
    ComputedOn { engine: engine.to_owned(), precision }
}

#[test]
fn the_calibration_of_the_engine_at_hand_is_chosen() {
    let mut plugin = finished();
    let own = plugin.card.self_test.clone().expect("it is finished");
    let new = calibration(&plugin.card, moved(&own, "cpu", Precision::Int8, 0.0), 2.0);
    plugin.card.recalibrate(new);
    let new = calibration(&plugin.card, moved(&own, "abacus", Precision::Bf16, 0.0), 3.0);
    plugin.card.recalibrate(new);
    let chosen = |engine: &str, precision| {
        let chosen = plugin.card.calibration_for(&on(engine, precision));
        (chosen.made.to_string(), chosen.temperature)
    };
    assert_eq!(chosen("cpu", Precision::F32), ("f32".to_owned(), 1.5));
    assert_eq!(chosen("cpu", Precision::Int8), ("int8".to_owned(), 2.0));
    assert_eq!(chosen("abacus", Precision::Bf16), ("bf16 on abacus".to_owned(), 3.0));
    // Where there is none, that of the same precision is the nearest, and else the card's own.
    assert_eq!(chosen("cpu", Precision::Bf16), ("bf16 on abacus".to_owned(), 3.0));
    assert_eq!(chosen("abacus", Precision::Int8), ("int8".to_owned(), 2.0));
    assert_eq!(chosen("abacus", Precision::Bf16x3), ("f32".to_owned(), 1.5));
    let places: Vec<String> = plugin.card.all_calibrations().iter().map(|known| known.made.to_string()).collect();
    assert_eq!(places, ["f32", "int8", "bf16 on abacus"]);
}

#[test]
fn a_bound_plugin_decides_as_its_calibration_says() {
    let mut plugin = finished();
    let logits = [0.6, -0.6, 2.0];
    let f32 = engine(Precision::F32);
    let own = plugin.clone().bind(&*f32).expect("at home").decide(&logits);
    for precision in [Precision::Bf16, Precision::Int8] {
        let engine = engine(precision);
        let test = SelfTest::take(&*engine, &plugin).expect("images of this size");
        let new = calibration(&plugin.card, test, 4.0);
        plugin.card.recalibrate(new);
        let bound = plugin.clone().prove(&*engine).expect("just taken");
        assert!(bound.is_at_home() && bound.is_on(&*engine) && !bound.is_on(&*f32));
        assert_eq!(bound.calibration().made, on("cpu", precision));
        let decision = bound.decide(&logits);
        let expected: Vec<f32> = logits.iter().map(|x| 1.0 / (1.0 + (-x / 4.0f32).exp())).collect();
        assert!(decision.probabilities.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6));
        assert_eq!((own.findings.as_slice(), decision.findings.as_slice()), ([0, 2].as_slice(), [0].as_slice()));
        let mut probabilities = logits.to_vec();
        bound.probabilities(&mut probabilities);
        assert_eq!(probabilities, decision.probabilities);
    }
    assert_eq!(plugin.bind(&*f32).expect("at home still").decide(&logits), own);
}

#[test]
fn answers_that_are_others_elsewhere_are_refused_with_both_places() {
    let own = finished().card.self_test.expect("it is finished");
    let scale = own.logits.iter().flatten().fold(0f32, |most, x| most.max(x.abs()));
    for (made, here) in [
        (Precision::Bf16, Precision::F32),
        (Precision::Int8, Precision::F32),
        (Precision::F32, Precision::Bf16),
        (Precision::F32, Precision::Int8),
        (Precision::Bf16, Precision::Int8),
    ] {
        let mut plugin = finished();
        plugin.card.self_test = Some(moved(&own, "cpu", made, scale));
        let engine = engine(here);
        for refused in [plugin.clone().bind(&*engine), plugin.clone().prove(&*engine)] {
            let error = refused.expect_err("answers that differ by as much as they are large");
            assert!(
                matches!(&error, Error::NotCalibrated { made: was, on: is, .. } if **was == on("cpu", made) && **is == on("cpu", here))
            );
            let message = error.to_string();
            for part in ["task `tiny`", &format!("calibrated in {made}"), &format!("answers in {here}"), "class `"] {
                assert!(message.contains(part), "{message}");
            }
        }
        // What mends it.
        let test = SelfTest::take(&*engine, &plugin).expect("images of this size");
        let new = calibration(&plugin.card, test, 2.0);
        plugin.card.recalibrate(new);
        assert_eq!(plugin.prove(&*engine).expect("mended").calibration().temperature, 2.0);
    }
}

#[test]
fn where_it_was_calibrated_a_difference_is_the_plugin_s() {
    let mut plugin = finished();
    let own = plugin.card.self_test.clone().expect("it is finished");
    plugin.card.self_test = Some(moved(&own, "cpu", Precision::F32, 1.0));
    let engine = engine(Precision::F32);
    plugin.clone().bind(&*engine).expect("nothing is asked where it was calibrated");
    let error = plugin.prove(&*engine).expect_err("other answers");
    assert!(matches!(error, Error::SelfTestDiffers { .. }), "{error}");
}

#[test]
fn another_engine_is_another_place() {
    let reference = Reference.load(tiny::checkpoint(&tiny::config(), 1).freeze()).expect("it computes all networks");
    let mut plugin = finished();
    let bound = plugin.clone().bind(&*reference).expect("the same answers");
    assert!(!bound.is_at_home() && bound.is_on(&*reference) && !bound.is_on(&*engine(Precision::F32)));
    let own = plugin.card.self_test.clone().expect("it is finished");
    plugin.card.self_test = Some(moved(&own, "cpu", Precision::F32, 1.0));
    let error = plugin.bind(&*reference).expect_err("other answers");
    assert!(error.to_string().contains("answers in f32 on reference"), "{error}");
}

#[test]
fn a_card_without_a_self_test_is_used_as_it_is_and_not_relied_on() {
    let mut plugin = finished();
    plugin.card.self_test = None;
    let engine = engine(Precision::Int8);
    let bound = plugin.clone().bind(&*engine).expect("there is nothing to hold it to");
    assert!(!bound.is_at_home());
    assert!(matches!(plugin.prove(&*engine), Err(Error::NoSelfTest { .. })));
}

#[test]
fn sets_are_the_calibrations_and_no_one_edits_them_unseen() {
    let rule = |most: f64| SetRule {
        method: SetMethod::Lac,
        coverage: 0.9,
        by: SetBy::Class,
        thresholds: vec![Some(most); 6],
        patients: vec![20; 6],
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("task.safetensors");
    let (f32, int8) = (engine(Precision::F32), engine(Precision::Int8));
    let mut plugin = finished();
    plugin.card.sets = Some(rule(0.75));
    plugin.finish(&*f32, Storage::F32).expect("images of this size");
    let test = SelfTest::take(&*int8, &plugin).expect("images of this size");
    let new = calibration(&plugin.card, test, 2.0);
    let sets = Some(rule(0.25));
    let by = ReadBy { temperature: 2.0, thresholds: &new.thresholds, sets: sets.as_ref(), scope_limits: None };
    let self_test = new.self_test.clone().read_by(&plugin.card, by);
    plugin.card.recalibrate(Recalibration { sets, self_test, ..new });
    plugin.save(&path, f32.backbone().config(), Storage::F32).expect("a folder to write to");
    let read = Plugin::load(&path, f32.backbone()).expect("what was written");
    assert_eq!((read.card.format, &read.card), (9, &TaskCard { format: 9, ..plugin.card.clone() }));
    let members = |engine: &dyn Engine| {
        let set = read.clone().bind(engine).expect("at home").decide(&[3.0, 0.0, -3.0]).set.expect("it makes sets");
        set.members
    };
    let (there, absent, either) = (FindingSet::Present, FindingSet::Absent, FindingSet::Either);
    assert_eq!(members(&*f32), SetMembers::Findings(vec![there, either, absent]));
    // At a temperature of 2 the outer ones are 0.82 and 0.18, and 0.5 is neither.
    assert_eq!(members(&*int8), SetMembers::Findings(vec![there, FindingSet::Neither, absent]));
    let mut edited = read.clone();
    edited.card.sets = Some(rule(0.8));
    let refused = edited.bind(&*f32).unwrap_err();
    assert!(matches!(&refused, Error::MeaningChanged { fields, .. } if fields == &["sets"]), "{refused:?}");
    let mut bare = read;
    bare.card.sets = None;
    assert!(matches!(bare.bind(&*f32), Err(Error::MeaningChanged { .. })));
}

#[test]
fn a_new_calibration_replaces_the_one_of_its_place_alone() {
    let mut plugin = finished();
    let own = plugin.card.self_test.clone().expect("it is finished");
    for (precision, temperature) in [(Precision::Int8, 2.0), (Precision::Bf16, 3.0), (Precision::Int8, 4.0)] {
        let new = calibration(&plugin.card, moved(&own, "cpu", precision, 0.0), temperature);
        plugin.card.recalibrate(new);
    }
    let known = plugin.card.calibrations.iter().map(|known| (known.made().to_string(), known.temperature));
    assert_eq!(known.collect::<Vec<_>>(), [("bf16".to_owned(), 3.0), ("int8".to_owned(), 4.0)]);
    // Also of the card's own place, whose first calibration stays on record.
    let new = calibration(&plugin.card, own, 5.0);
    plugin.card.recalibrate(new);
    assert_eq!(plugin.card.calibration_for(&on("cpu", Precision::F32)).temperature, 5.0);
    assert_eq!((plugin.card.temperature, plugin.card.calibrations.len()), (1.5, 3));
}

#[test]
fn a_card_is_written_in_the_oldest_format_that_holds_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("task.safetensors");
    let engine = engine(Precision::F32);
    let mut plugin = finished();
    plugin.card.format = 4;
    plugin.card.self_test.as_mut().expect("it is finished").meaning.clear();
    let write = |plugin: &Plugin| {
        plugin.save(&path, engine.backbone().config(), Storage::F32).expect("a folder to write to");
        let bytes = std::fs::read(&path).expect("what was written");
        (PluginInfo::read(&path).expect("what was written"), String::from_utf8_lossy(&bytes).into_owned())
    };
    let (info, text) = write(&plugin);
    assert_eq!((info.card.format, &info.card), (4, &plugin.card));
    assert!(!text.contains("calibrations"), "nothing of a later format is said");
    let own = plugin.card.self_test.clone().expect("it is finished");
    let new = calibration(&plugin.card, own, 2.0);
    plugin.card.recalibrate(new);
    let (later, _) = write(&plugin);
    assert_eq!(later.card.format, 5);
    assert_eq!(later.card.calibrations, plugin.card.calibrations);
    assert_ne!(later.digest, info.digest);
    // Taken away again, the file is what it was.
    plugin.card.calibrations.clear();
    assert_eq!(write(&plugin).0.digest, info.digest);
    assert_eq!(write(&finished()).0.card.format, 8, "what a self-test means");
}
