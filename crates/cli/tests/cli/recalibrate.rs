//! `melo plugin recalibrate`: a plug-in for a precision whose answers are not those that it was calibrated on.

use crate::workplace::{Ran, Workplace, bytes, melo, run, train};
use melo::synthetic::Phantom;
use melo::vit::{Plugin, PluginInfo, Precision, ReadBy, SelfTest, TaskCard};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A backbone, data, and a plug-in trained on them in f32.
struct Room {
    new: Workplace,
    backbone: PathBuf,
    data: PathBuf,
    task: PathBuf,
}

impl Room {
    fn new() -> Self {
        let new = Workplace::new();
        let backbone = new.tiny_backbone("vit", 1, None);
        let data = new.phantoms(Phantom::BloodSmear, 40, [12, 12, 8]);
        let task = new.at("task.safetensors");
        let mut command = train(&backbone, &data, &task);
        run(command.args([
            "--epochs",
            "3",
            "--batch-size",
            "4",
            "--lr",
            "0.01",
            "--precision",
            "f32",
            "--task",
            "blood",
        ]))
        .good();
        Room { new, backbone, data, task }
    }

    fn recalibrate(&self, task: &Path, data: &Path, more: &[&str]) -> Ran {
        let mut command = melo();
        command.args(["plugin", "recalibrate"]).arg(task).arg("--backbone").arg(&self.backbone);
        run(command.arg("--data").arg(data).args(more))
    }

    fn verb(&self, verb: &str, task: &Path, more: &[&str]) -> Ran {
        let mut command = melo();
        command.arg(verb).args(["--json", "--backbone"]).arg(&self.backbone).arg("--plugin").arg(task).args(more);
        match verb {
            "eval" => run(command.arg("--data").arg(&self.data)),
            _ => run(command.arg(self.data.with_file_name("test_0.png"))),
        }
    }

    /// The same plug-in, as if it had been calibrated in `made`, where other software gave other answers.
    fn of_others(&self, made: Precision) -> PathBuf {
        let card = card(&self.task);
        let mut test = card.self_test.clone().expect("it is finished");
        test.precision = made;
        test.logits.iter_mut().chain(&mut test.bare_logits).flatten().for_each(|x| *x += 5.0);
        let path = self.new.at("others.safetensors");
        Plugin::replace_card(&self.task, &TaskCard { self_test: Some(test), ..card }, &path)
            .expect("it can be written");
        path
    }
}

fn card(path: &Path) -> TaskCard {
    PluginInfo::read(path).expect("a plug-in").card
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

#[test]
fn a_calibration_is_added_and_taken_where_it_is_at_home() {
    let room = Room::new();
    let (before, out) = (bytes(&room.task), room.new.at("out.safetensors"));
    let own = card(&room.task);
    let said = room.recalibrate(&room.task, &room.data, &["--precision", "int8", "--json", "--out", path(&out)]).json();
    assert_eq!(bytes(&room.task), before, "only --out is written");
    let new = card(&out);
    assert_eq!((new.format, new.calibrations.len()), (10, 1));
    assert_eq!(TaskCard { format: own.format, calibrations: Vec::new(), ..new.clone() }, own, "the rest stays");
    let made = &new.calibrations[0];
    assert_eq!(
        (made.made().to_string().as_str(), made.images, made.data.as_str()),
        ("int8", 12, "blood_smear/labels.csv")
    );
    assert_eq!((&made.data_digest, &made.split_digest), (&own.provenance.data_digest, &own.provenance.split_digest));
    assert_eq!(said["plugin_digest"], PluginInfo::read(&out).expect("a plug-in").digest);
    assert_eq!((&said["task"], &said["images"], &said["same_splits"]), (&"blood".into(), &12.into(), &true.into()));
    let place = |reading: &str, of: &str| said[reading][of]["precision"].as_str().expect("a precision").to_owned();
    for (reading, computed, calibrated) in
        [("before", "f32", "f32"), ("unmended", "int8", "f32"), ("after", "int8", "int8")]
    {
        assert_eq!((place(reading, "computed"), place(reading, "calibration")), (computed.into(), calibrated.into()));
        for figure in ["auc_macro", "ece", "brier"] {
            assert!(said[reading][figure].as_f64().is_some_and(|value| (0.0..=2.0).contains(&value)), "{said}");
        }
    }
    assert_eq!(said["before"]["temperature"], said["unmended"]["temperature"]);
    assert_eq!(said["after"]["auc_macro"].as_f64(), made.metrics.get("val_auc_macro").copied());

    let calibrated_in = |ran: Ran| ran.json()["calibration"]["precision"].as_str().expect("a precision").to_owned();
    for verb in ["predict", "eval"] {
        for (precision, expected) in [("f32", "f32"), ("int8", "int8"), ("bf16", "f32")] {
            assert_eq!(
                calibrated_in(room.verb(verb, &out, &["--precision", precision])),
                expected,
                "{verb} {precision}"
            );
        }
    }
    let check = |precision: &str| {
        let mut command = melo();
        command.args(["plugin", "certify", "--check"]).arg(&out).arg("--backbone").arg(&room.backbone);
        run(command.args(["--precision", precision])).good()
    };
    assert!(check("int8").trim_end().ends_with("passes its self-test in int8"));
    assert!(check("bf16").contains("passes its self-test in bf16, calibrated in f32"));
    assert!(run(melo().args(["plugin", "info"]).arg(&out)).good().contains("; in int8 "));
    let page = run(melo().args(["plugin", "card"]).arg(&out)).good();
    assert!(page.contains("Calibrations") && page.contains("12 images of blood_smear/labels.csv"), "{page}");
    assert!(!run(melo().args(["plugin", "card"]).arg(&room.task)).good().contains("Calibrations"));

    // Again, in place: the same place is replaced and the other is kept.
    for precision in ["bf16", "int8"] {
        let said = room.recalibrate(&out, &room.data, &["--precision", precision]).good();
        for part in ["computed in", "calibrated in", "validation split of 12 images", "format 10"] {
            assert!(said.contains(part), "{said}");
        }
    }
    let places: Vec<String> = card(&out).calibrations.iter().map(|known| known.made().to_string()).collect();
    assert_eq!(places, ["bf16", "int8"]);
    assert_eq!(room.new.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn what_another_precision_does_to_answers_is_refused_with_the_command_that_mends_it() {
    let room = Room::new();
    let others = room.of_others(Precision::Int8);
    let mends = "melo plugin recalibrate PLUGIN --backbone BACKBONE --data MANIFEST --precision f32";
    for verb in ["predict", "eval"] {
        room.verb(verb, &others, &[]).refused(1, &["task `blood`", "calibrated in int8", "answers in f32", mends]);
    }
    let mut certify = melo();
    certify.args(["plugin", "certify", "--check"]).arg(&others).arg("--backbone").arg(&room.backbone);
    run(&mut certify).refused(1, &["others.safetensors", "calibrated in int8", mends]);
    // What gave other answers where it was calibrated is not what it was, and no calibration mends that.
    let before = bytes(&others);
    let refused = room.recalibrate(&others, &room.data, &["--precision", "f32"]);
    refused.refused(1, &["others.safetensors", "self-test differs", "not what they were"]);
    assert_eq!(bytes(&others), before);

    // Of an engine that this binary has not, nothing can be said; here it gets a calibration of its own.
    let mut elsewhere = card(&others);
    elsewhere.self_test.as_mut().expect("it has one").engine = "abacus".to_owned();
    Plugin::replace_card(&others, &elsewhere, &others).expect("it can be written");
    room.verb("predict", &others, &[]).refused(1, &["calibrated in int8 on abacus", "answers in f32", mends]);
    let said = room.recalibrate(&others, &room.data, &["--precision", "f32", "--json"]).json();
    assert_eq!((&said["before"], &said["after"]["calibration"]["engine"]), (&Value::Null, &"cpu".into()));
    let line = room.verb("predict", &others, &[]).json();
    assert_eq!((&line["calibration"]["engine"], &line["precision"]), (&"cpu".into(), &"f32".into()));
}

#[test]
fn data_that_do_not_fit_are_refused_and_doubtful_ones_are_named() {
    let room = Room::new();
    let before = bytes(&room.task);
    let refuse =
        |data: &Path, parts: &[&str]| room.recalibrate(&room.task, data, &["--precision", "int8"]).refused(1, parts);
    let other = room.new.phantoms(Phantom::ChestFilm, 40, [2, 2, 2]);
    refuse(&other, &["chest_film"]);
    let findings =
        room.new.write("blood_smear/findings.csv", "path,split,a,b\ntrain_0.png,val,1,0\ntrain_1.png,val,0,1\n");
    refuse(&findings, &["findings.csv", "label"]);
    refuse(&room.new.at("nowhere.csv"), &["nowhere.csv"]);
    let table = String::from_utf8(bytes(&room.data)).expect("text");
    let all_train = room.new.write("blood_smear/train.csv", table.replace(",val,", ",train,"));
    refuse(&all_train, &["val"]);
    assert_eq!(bytes(&room.task), before);
    room.recalibrate(&room.task, &room.data, &["--precision", "int8", "--out", path(&room.data)])
        .refused(2, &["--out", "would replace"]);
    assert_eq!(room.recalibrate(&room.task, &room.data, &[]).status, 2, "a precision is to be said");

    let swapped = room.new.write(
        "blood_smear/swapped.csv",
        table.replace(",test,", ",held,").replace(",val,", ",test,").replace(",held,", ",val,"),
    );
    let ran = room.recalibrate(&room.task, &swapped, &["--precision", "int8", "--json"]);
    assert!(ran.stderr.contains("not the images and splits that blood was trained on"), "{}", ran.stderr);
    assert_eq!(ran.json()["same_splits"], false);
}

#[test]
fn the_calibration_of_a_test_is_taken_of_the_numbers_in_the_file() {
    let room = Room::new();
    room.recalibrate(&room.task, &room.data, &["--precision", "bf16"]).good();
    let device = melo::vit::DeviceSpec { precision: Some(Precision::Bf16), threads: 2 }.open();
    let engine = device.load(melo::interop::read_backbone(&room.backbone).expect("weights")).expect("it computes");
    let plugin = Plugin::load(&room.task, engine.backbone()).expect("a plug-in");
    let expected = SelfTest::take(&*engine, &plugin).expect("images of this size");
    let found = &plugin.card.calibrations[0];
    let (sets, scope_limits) = (found.sets.as_ref(), found.scope_limits.as_ref());
    let by = ReadBy { temperature: found.temperature, thresholds: &found.thresholds, sets, scope_limits };
    assert_eq!(found.self_test, expected.read_by(&plugin.card, by));
}
