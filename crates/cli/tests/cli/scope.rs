//! Which images are for a plug-in, from a training to an answer.

use crate::workplace::{Workplace, embedded_backbone, melo, number, run, train};
use melo::synthetic::Phantom;
use melo::vit::PluginInfo;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A plug-in of blood smears on the embedded backbone, in seconds.
pub(crate) fn trained(place: &Workplace, images: [usize; 3], more: &[&str]) -> (PathBuf, PathBuf, String) {
    let data = place.phantoms(Phantom::BloodSmear, 64, images);
    let out = place.at("smear.safetensors");
    let mut command = train(&embedded_backbone(), &data, &out);
    let said = run(command.args(["--overwrite", "--task", "smear"]).args(more)).good();
    (data, out, said)
}

fn on(verb: &[&str], plugin: &Path) -> Command {
    let mut command = melo();
    command.args(verb).arg("--backbone").arg(embedded_backbone()).arg("--plugin").arg(plugin);
    command
}

#[test]
fn images_of_another_kind_are_not_for_a_plugin() {
    let place = Workplace::new();
    let (data, out, said) = trained(&place, [40, 24, 24], &["--method", "linear", "--scope-false-alarms", "0.1"]);
    assert!(said.contains("scope: ") && said.contains("promised at most 0.1"), "{said}");
    let info = PluginInfo::read(&out).expect("a plug-in");
    let limits = info.card.scope_limits.as_ref().expect("a scope");
    assert_eq!((limits.false_alarms, limits.patients, info.card.format), (0.1, 24, 10));
    assert!(info.card.metric_intervals.contains_key("test_scope_flagged"));
    assert!((1_000..100_000).contains(&info.scope_bytes), "{} bytes", info.scope_bytes);
    let shown = run(melo().args(["plugin", "info"]).arg(&out)).good();
    assert!(shown.contains(&format!("{} bytes", info.scope_bytes)), "{shown}");
    let sheet = run(melo().args(["plugin", "card"]).arg(&out)).good();
    assert!(sheet.contains("Scope, on the test split") && sheet.contains("10 % of images of new patients"), "{sheet}");

    let films = Workplace::new();
    let others = films.phantoms(Phantom::ChestFilm, 64, [1, 1, 12]);
    let (own, other) = (data.with_file_name("test_0.png"), others.with_file_name("test_0.png"));
    let answers = run(on(&["predict", "--json"], &out).args([&own, &other])).json_lines();
    let of = |answer: &Value| (answer["in_scope"].clone(), number(&answer["scope_score"]));
    let [(_, near), (inside, far)] = [of(&answers[0]), of(&answers[1])];
    assert!(inside == Value::Bool(false) && far > 1.0 && near < far, "{answers:?}");
    let said = run(on(&["predict"], &out).arg(&other)).good();
    assert!(said.contains("not in scope (") && said.contains("do not rely on this"), "{said}");

    let mut eval = on(&["eval"], &out);
    eval.arg("--data").arg(&data);
    let measured = run(eval.arg("--json")).json();
    assert_eq!(number(&measured["scope_flagged"]), info.card.metrics["test_scope_flagged"]);
    let against = |json: &[&str]| {
        let mut eval = on(&["eval"], &out);
        run(eval.arg("--data").arg(&data).args(json).arg("--scope").args([&others, &other]))
    };
    let found = against(&["--json"]).json();
    assert_eq!((&found["images"], &found["others"][0]["images"]), (&24.into(), &12.into()));
    assert_eq!((&found["others"][1]["images"], &found["others"][2]["images"]), (&1.into(), &13.into()));
    assert!(number(&found["others"][2]["auroc"]) > 0.95 && number(&found["others"][2]["fpr95"]) <= 0.1, "{found}");
    assert_eq!(found["flagged"], measured["scope_flagged"]);
    let table = against(&[]).good();
    assert!(table.contains("AUROC") && table.contains("all of these"), "{table}");

    let mut recalibrate = melo();
    recalibrate.args(["plugin", "recalibrate"]).arg(&out).arg("--backbone").arg(embedded_backbone());
    run(recalibrate.arg("--data").arg(&data).args(["--precision", "bf16", "--scope-false-alarms", "0.2"])).good();
    let card = PluginInfo::read(&out).expect("a plug-in").card;
    let [own, new] = [card.scope_limits.expect("its own"), card.calibrations[0].scope_limits.clone().expect("another")];
    assert_eq!((own.false_alarms, new.false_alarms), (0.1, 0.2));
    assert!(new.limits.expect("patients")[0] < own.limits.expect("patients")[0] * 1.01, "more are flagged");
}

#[test]
fn an_ensemble_has_the_scope_of_the_plugin_that_its_members_share() {
    let place = Workplace::new();
    let asked = ["--folds", "2", "--epochs", "1", "--scope-false-alarms", "0.2"];
    let (data, out, said) = trained(&place, [24, 12, 12], &asked);
    assert!(said.contains("scope: ") && said.contains("promised at most 0.2"), "{said}");
    let info = PluginInfo::read(&out).expect("a plug-in");
    let limits = info.card.scope_limits.as_ref().expect("a scope");
    assert_eq!((limits.patients, info.card.format), (12, 12), "the validation split's, which no base was trained on");
    assert!(info.scope_bytes > 1_000, "{} bytes", info.scope_bytes);
    let films = Workplace::new();
    let other = films.phantoms(Phantom::ChestFilm, 64, [1, 1, 1]).with_file_name("test_0.png");
    let scores = |plugin: &Path| {
        let asked = [data.with_file_name("test_0.png"), other.clone()];
        let answers = run(on(&["predict", "--json"], plugin).args(asked)).json_lines();
        assert_eq!(answers[1]["in_scope"], Value::Bool(false), "{answers:?}");
        [&answers[0], &answers[1]].map(|answer| number(&answer["scope_score"]))
    };
    let of_all = scores(&out);
    let fold = place.at("fold.safetensors");
    run(melo().args(["plugin", "fold"]).arg(&out).args(["--fold", "2", "--out"]).arg(&fold)).good();
    for (of_all, of_fold) in of_all.into_iter().zip(scores(&fold)) {
        assert!((of_all - of_fold).abs() < 1e-3 * of_all, "{of_all}, of a fold alone {of_fold}");
    }
    let measured = run(on(&["eval"], &out).arg("--data").arg(&data).arg("--json")).json();
    assert_eq!(number(&measured["scope_flagged"]), info.card.metrics["test_scope_flagged"]);
    let mut recalibrate = melo();
    recalibrate.args(["plugin", "recalibrate"]).arg(&out).arg("--backbone").arg(embedded_backbone());
    run(recalibrate.arg("--data").arg(&data).args(["--precision", "bf16"])).good();
    let card = PluginInfo::read(&out).expect("a plug-in").card;
    assert_eq!(card.calibrations[0].scope_limits.as_ref().expect("another").patients, 12);
}

#[test]
fn too_few_patients_say_nothing_and_no_scope_leaves_it_out() {
    let place = Workplace::new();
    let (data, out, said) = trained(&place, [16, 8, 4], &["--method", "linear"]);
    assert!(said.contains("nothing is said of an image being in scope: 8 patients"), "{said}");
    let answer = || run(on(&["predict", "--json"], &out).arg(data.with_file_name("test_0.png"))).json();
    assert_eq!(answer().get("in_scope"), None);
    let mut eval = on(&["eval"], &out);
    run(eval.arg("--data").arg(&data).arg("--scope").arg(&data)).refused(1, &["does not tell which images are for it"]);
    trained(&place, [16, 8, 4], &["--method", "linear", "--no-scope"]);
    let info = PluginInfo::read(&out).expect("a plug-in");
    assert_eq!((info.card.scope, info.scope_bytes, info.card.format), (None, 0, 9));
    assert_eq!(answer().get("scope_score"), None);
    let asked = |more: &[&str]| {
        let mut command = train(&embedded_backbone(), &data, &place.at("no.safetensors"));
        run(command.args(more))
    };
    asked(&["--scope-false-alarms", "1"])
        .refused(2, &["scope_false_alarms", "is 1, expected a number between 0 and 1"]);
    assert_eq!(asked(&["--scope-false-alarms", "0.1", "--no-scope"]).status, 2, "one excludes the other");
}

#[test]
fn what_is_said_of_validation_is_said_of_classes_as_they_are_called() {
    let place = Workplace::new();
    let data = place.phantoms(Phantom::BloodSmear, 64, [80, 80, 4]);
    // One of four classes has a third of the images of the others.
    let table = std::fs::read_to_string(&data).expect("the manifest");
    let rows = table.lines().enumerate().filter(|(at, line)| !line.ends_with(",monocyte_like") || at % 3 == 0);
    let rows: String = rows.map(|(_, line)| format!("{line}\n")).collect();
    let data = place.write("blood_smear/uneven.csv", rows);
    let out = place.at("uneven.safetensors");
    let mut command = train(&embedded_backbone(), &data, &out);
    let said = run(command.args(["--method", "linear", "--json"])).json();
    let table = place.at("val.csv");
    let mut eval = on(&["eval", "--json"], &out);
    let measured = run(eval.arg("--data").arg(&data).args(["--split", "val", "--predictions"]).arg(&table)).json();
    assert_eq!(number(&said["val_acc"]), number(&measured["acc"]), "{said}");
    let card = PluginInfo::read(&out).expect("a plug-in").card;
    assert_eq!(card.metrics["val_acc"], number(&measured["acc"]));
    let mut rows = csv::Reader::from_path(&table).expect("the predictions");
    let right = rows.records().map(|row| row.expect("a row")).filter(|row| row[1] == row[2]).count();
    let images = number(&measured["n"]);
    assert!((right as f64 / images - number(&measured["acc"])).abs() < 1e-9, "the table says what is called");
}
