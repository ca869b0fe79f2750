//! Writes that fail leave what stood there, and no temporary file.

use crate::raw::{Fixture, assert_error};
use melo_vit::{Error, Plugin, Precision, Recalibration, SelfTest, Storage, write_atomically};
use std::collections::BTreeMap;

#[test]
fn a_plugin_with_nan_is_never_written_over_a_good_one() {
    let mut fixture = Fixture::new();
    let before = std::fs::read(&fixture.path).unwrap();
    fixture.plugin.head.bias[1] = f32::NAN;
    for storage in [Storage::F32, Storage::F16] {
        let error = fixture.plugin.save(&fixture.path, fixture.backbone.config(), storage).unwrap_err();
        assert_error!(error, Error::NonFinite { index: 1, .. }, fixture.path, "head.bias", "NaN");
    }
    assert_eq!(std::fs::read(&fixture.path).unwrap(), before);
    assert_eq!(fixture.files(), ["task.safetensors"]);
}

#[test]
fn a_value_beyond_f16_is_never_written_as_infinity() {
    let mut fixture = Fixture::new();
    let before = std::fs::read(&fixture.path).unwrap();
    fixture.plugin.head.weight[7] = 65_520.0;
    let error = fixture.plugin.save(&fixture.path, fixture.backbone.config(), Storage::F16).unwrap_err();
    assert_error!(error, Error::NonFinite { index: 7, .. }, fixture.path, "head.weight");
    assert_eq!(std::fs::read(&fixture.path).unwrap(), before);
    fixture.plugin.head.weight[7] = 65_504.0;
    fixture.plugin.save(&fixture.path, fixture.backbone.config(), Storage::F16).unwrap();
    assert_eq!(Plugin::load(&fixture.path, &fixture.backbone).unwrap().head.weight[7], 65_504.0);
}

/// One for the fixture's three classes.
fn calibration(temperature: f32, threshold: f32) -> Recalibration {
    let logits = || [vec![0.5, 1.0, 2.0], vec![2.0, -3.0, 0.0]];
    let engine = "cpu".to_owned();
    let self_test = SelfTest {
        engine,
        precision: Precision::Int8,
        logits: logits(),
        bare_logits: logits(),
        meaning: BTreeMap::new(),
    };
    Recalibration {
        sets: None,
        scope_limits: None,
        temperature,
        thresholds: vec![0.5, threshold, 0.5],
        self_test,
        images: 12,
        data_digest: String::new(),
        split_digest: String::new(),
        data: String::new(),
        date: String::new(),
        software: String::new(),
        metrics: BTreeMap::new(),
    }
}

#[test]
fn a_card_that_could_not_be_read_back_is_never_written() {
    let fixture = Fixture::new();
    let before = std::fs::read(&fixture.path).unwrap();
    type Change = fn(&mut Plugin);
    let changes: [(&str, Change); 10] = [
        ("temperature", |plugin| plugin.card.temperature = f32::NAN),
        ("thresholds", |plugin| plugin.card.thresholds.clear()),
        ("classes", |plugin| plugin.card.classes[1] = "finding 0".to_owned()),
        ("metric", |plugin| plugin.card.metrics.extend([("val_auc_macro".to_owned(), f64::NAN)])),
        ("metric", |plugin| plugin.card.metrics.extend([("val_loss".to_owned(), f64::INFINITY)])),
        ("metric_intervals", |plugin| plugin.card.metric_intervals.extend([("acc".to_owned(), [f64::NAN, 1.0])])),
        ("metric_intervals", |plugin| plugin.card.metric_intervals.extend([("acc".to_owned(), [0.9, 0.8])])),
        ("calibrations[0]: temperature", |plugin| plugin.card.recalibrate(calibration(f32::NAN, 0.5))),
        ("calibrations[0]: thresholds", |plugin| plugin.card.recalibrate(calibration(1.0, f32::NAN))),
        ("calibrations[0]: metric", |plugin| {
            let mut new = calibration(1.0, 0.5);
            new.metrics.insert("val_ece".to_owned(), f64::NAN);
            plugin.card.recalibrate(new);
        }),
    ];
    for (word, change) in changes {
        let mut plugin = fixture.plugin.clone();
        change(&mut plugin);
        let error = plugin.save(&fixture.path, fixture.backbone.config(), Storage::F32).unwrap_err();
        assert_error!(error, Error::Card { .. }, fixture.path, word);
        assert_eq!(std::fs::read(&fixture.path).unwrap(), before, "{word}");
    }
}

#[test]
fn a_folder_that_does_not_exist_is_named() {
    let fixture = Fixture::new();
    let path = fixture.folder.path().join("missing").join("task.safetensors");
    let error = fixture.plugin.save(&path, fixture.backbone.config(), Storage::F32).unwrap_err();
    assert_error!(error, Error::Io { .. }, path);
    assert_eq!(fixture.files(), ["task.safetensors"]);
}

#[test]
fn a_file_in_place_of_the_folder_is_left_alone() {
    let fixture = Fixture::new();
    let before = std::fs::read(&fixture.path).unwrap();
    let path = fixture.path.join("task.safetensors");
    assert_error!(write_atomically(&path, b"new").unwrap_err(), Error::Io { .. }, path);
    assert_eq!(std::fs::read(&fixture.path).unwrap(), before);
}

/// Both fail only when the temporary file, already written, is renamed.
#[test]
fn a_failed_rename_leaves_no_temporary_file() {
    let fixture = Fixture::new();
    let occupied = fixture.folder.path().join("occupied");
    std::fs::create_dir(&occupied).unwrap();
    std::fs::write(occupied.join("inside"), "kept").unwrap();
    let endless = fixture.folder.path().join("n".repeat(300));
    for path in [occupied.clone(), endless] {
        let error = fixture.plugin.save(&path, fixture.backbone.config(), Storage::F32).unwrap_err();
        assert_error!(error, Error::Io { .. }, path);
        assert_eq!(fixture.files(), ["occupied", "task.safetensors"]);
    }
    assert_eq!(std::fs::read_to_string(occupied.join("inside")).unwrap(), "kept");
}

#[test]
fn a_reader_meets_the_old_file_or_the_new_one() {
    let fixture = Fixture::new();
    let mut other = fixture.plugin.clone();
    other.head.bias.fill(9.0);
    let written = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for plugin in [&other, &fixture.plugin].into_iter().cycle().take(40) {
                plugin.save(&fixture.path, fixture.backbone.config(), Storage::F32).unwrap();
            }
            written.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !written.load(std::sync::atomic::Ordering::Relaxed) {
            let head = Plugin::load(&fixture.path, &fixture.backbone).unwrap().head;
            assert!(head == other.head || head == fixture.plugin.head);
        }
    });
    assert_eq!(fixture.files(), ["task.safetensors"]);
}
