//! Ensembles of folds from a training to an answer, and back to single plug-ins.

use crate::server::Server;
use crate::workplace::{Workplace, bytes, melo, number, on, run, train};
use melo::synthetic::Phantom;
use melo::vit::PluginInfo;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A training of three folds of few images; with `--lr 0.01` a tiny backbone learns something in two epochs.
fn folds(place: &Workplace, data: &Path, out: &Path) -> Command {
    let mut command = train(&place.at("vit.safetensors"), data, out);
    command.args(["--folds", "3", "--epochs", "2", "--lr", "0.01", "--batch-size", "4"]);
    command
}

fn place() -> (Workplace, PathBuf, PathBuf) {
    let place = Workplace::new();
    place.tiny_backbone("vit", 1, None);
    let data = place.phantoms(Phantom::BloodSmear, 40, [16, 8, 8]);
    let out = place.at("ensemble.safetensors");
    (place, data, out)
}

fn probabilities(answer: &serde_json::Value, field: &str) -> BTreeMap<String, f64> {
    let of = answer[field].as_object().unwrap_or_else(|| panic!("{answer} has {field}"));
    of.iter().map(|(class, value)| (class.clone(), number(value))).collect()
}

#[test]
fn an_ensemble_is_one_file_for_every_verb_and_its_folds_are_plugins() {
    let (place, data, out) = place();
    let ran = run(folds(&place, &data, &out).arg("--json"));
    for fold in 1..=3 {
        assert!(ran.stderr.contains(&format!("fold {fold} of 3")), "{}", ran.stderr);
    }
    let said = ran.json();
    assert_eq!(said["folds"], 3);
    let info = PluginInfo::read(&out).expect("a plug-in");
    let card = &info.card;
    let ensemble = card.ensemble.as_ref().expect("an ensemble");
    assert_eq!((ensemble.members.len(), card.format, card.provenance.train_images), (3, 11, 24));
    assert_eq!(ensemble.members.iter().map(|member| member.val_images).sum::<usize>(), 24, "each validated once");
    assert!(ensemble.members.iter().all(|member| member.train_images + member.val_images == 24));
    assert_eq!(
        card.sets.as_ref().map(|rule| rule.patients[0]),
        Some(8),
        "sets are fitted out of fold on what the base has not seen"
    );
    let mut seeds = BTreeSet::new();
    for fold in 1..=3 {
        let read =
            |name: &str| std::fs::read_to_string(place.at(format!("ensemble.run/fold-{fold}/{name}"))).expect("a run");
        let config: serde_json::Value = serde_json::from_str(&read("config.json")).expect("settings");
        assert_eq!(config["kept"], "last", "the base knows most of the fold: it can choose no epoch");
        seeds.insert(config["seed"].as_u64().expect("a seed"));
        assert!(read("epochs.csv").trim_end().ends_with(",true"), "the last epoch is the one that is kept");
    }
    assert_eq!((seeds.len(), card.provenance.seed), (3, 0), "each member's order and initial values are its own");
    let shown = run(melo().args(["plugin", "info"]).arg(&out)).good();
    assert!(shown.contains("ensemble    3 folds, an answer is their mean"), "{shown}");
    assert!(run(melo().args(["plugin", "card"]).arg(&out)).good().contains("## Folds"));

    let image = data.with_file_name("test_0.png");
    let answer = run(on(&place, &["predict"], &out).arg("--json").arg(&image)).json();
    let (mean, spread) = (probabilities(&answer, "probabilities"), probabilities(&answer, "spread"));
    let mut said_by: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for fold in 1..=3 {
        let single = place.at(format!("fold_{fold}.safetensors"));
        let mut write = melo();
        write.args(["plugin", "fold"]).arg(&out).args(["--fold", &fold.to_string(), "--out"]).arg(&single);
        assert!(run(&mut write).good().contains(&format!("fold {fold}, trained on ")));
        run(melo()
            .args(["plugin", "certify", "--check"])
            .arg(&single)
            .arg("--backbone")
            .arg(place.at("vit.safetensors")))
        .good();
        let alone = run(on(&place, &["predict"], &single).arg("--json").arg(&image)).json();
        assert!(alone.get("spread").is_none());
        for (class, p) in probabilities(&alone, "probabilities") {
            said_by.entry(class).or_default().push(p);
        }
    }
    for (class, said) in said_by {
        let of_three = said.iter().sum::<f64>() / 3.0;
        let deviation = (said.iter().map(|p| (p - of_three).powi(2)).sum::<f64>() / 2.0).sqrt();
        assert!((mean[&class] - of_three).abs() < 1e-5, "{class}: {} for {of_three}", mean[&class]);
        assert!((spread[&class] - deviation).abs() < 1e-5, "{class}: {} for {deviation}", spread[&class]);
    }
    assert!(run(on(&place, &["predict"], &out).arg(&image)).good().contains(" ± 0."));
    let maps = place.at("maps");
    run(on(&place, &["predict"], &out).arg("--heatmap").arg(&maps).arg(&image)).good();

    let table = place.at("test.csv");
    let mut eval = on(&place, &["eval"], &out);
    let measured = run(eval.arg("--json").arg("--data").arg(&data).arg("--predictions").arg(&table)).json();
    assert_eq!(number(&measured["auc_macro"]), card.metrics["test_auc_macro"]);
    let mut rows = csv::Reader::from_path(&table).expect("the predictions");
    let columns = rows.headers().expect("a head").clone();
    let row = rows.records().map(|row| row.expect("a row")).find(|row| &row[0] == "test_0.png").expect("the image");
    for (class, p) in &mean {
        let at = columns.iter().position(|column| column == format!("p_{class}")).expect("a column");
        assert_eq!(row[at].parse::<f32>().expect("a number"), *p as f32, "to the last bit");
    }
    let on_val = run(on(&place, &["eval"], &out).arg("--data").arg(&data).args(["--split", "val"]));
    assert!(on_val.stderr.contains("trained on the validation split too"), "{}", on_val.stderr);
    on_val.good();

    let backbone = place.at("vit.safetensors");
    let refused =
        |args: &[&str]| run(melo().args(args).arg("--backbone").arg(&backbone).arg("--out").arg(place.at("no")));
    let path = out.to_str().expect("UTF-8");
    let is_one = ["is an ensemble of 3 folds", "melo plugin fold"];
    refused(&["plugin", "export", path, "--format", "peft"]).refused(1, &is_one);
    refused(&["plugin", "export", path, "--format", "onnx"]).refused(1, &is_one);
    refused(&["plugin", "merge", path, "--layout", "timm"]).refused(1, &is_one);
    run(on(&place, &["eval"], &out).arg("--data").arg(&data).args(["--splits", "3"]))
        .refused(2, &["--splits is for single"]);
    run(melo().args(["plugin", "fold"]).arg(&out).args(["--fold", "4", "--out"]).arg(place.at("no")))
        .refused(1, &["has no fold 4: its folds are 1 to 3"]);
}

#[test]
fn a_killed_ensemble_goes_on_with_its_fold_to_the_same_bytes() {
    let (place, data, out) = place();
    run(&mut folds(&place, &data, &out)).good();
    let other = place.at("other.safetensors");
    // As a kill in the second fold leaves it.
    run(&mut folds(&place, &data, &other)).good();
    let run_of = |fold: usize| place.at(format!("other.run/fold-{fold}"));
    std::fs::remove_dir_all(run_of(3)).expect("it was trained");
    std::fs::remove_file(&other).expect("it was written");
    let second = run_of(2);
    std::fs::remove_file(second.join("last.safetensors")).expect("it was trained");
    run(&mut folds(&place, &data, &other)).refused(1, &["other.run", "holds a run", "--resume"]);
    let ran = run(folds(&place, &data, &other).arg("--resume"));
    assert_eq!(ran.stderr.matches("resuming after epoch 2").count(), 1, "{}", ran.stderr);
    ran.good();
    assert_eq!(bytes(&other), bytes(&out));
    let changed = run(folds(&place, &data, &other).args(["--resume", "--folds", "4"]));
    assert_ne!(changed.status, 0, "a flag is given once");
    let mut four = train(&place.at("vit.safetensors"), &data, &other);
    four.args(["--folds", "4", "--epochs", "2", "--lr", "0.01", "--batch-size", "4", "--resume"]);
    run(&mut four).refused(1, &["cannot resume", "setting `folds` was 3 and is now 4"]);
}

#[test]
fn a_server_says_how_far_the_members_are_apart() {
    let (place, data, out) = place();
    run(&mut folds(&place, &data, &out)).good();
    let image = data.with_file_name("test_0.png");
    let answer = run(on(&place, &["predict"], &out).arg("--json").arg(&image)).json();
    let task = answer["task"].as_str().expect("a task").to_owned();
    std::fs::create_dir(place.at("plugins")).expect("a folder");
    std::fs::copy(&out, place.at("plugins").join("one.safetensors")).expect("copied");
    let mut command = melo();
    command.arg("serve").arg("--backbone").arg(place.at("vit.safetensors")).arg("--plugins").arg(place.at("plugins"));
    command.args(["--listen", "127.0.0.1:0", "--log", "off", "--state"]).arg(place.at("state"));
    let server = Server::start(&place, &mut command);
    let model = server.get(&format!("/v2/models/{task}"));
    let named = model["outputs"].as_array().expect("outputs").iter().find(|output| output["name"] == "spread");
    assert_eq!(named.map(|output| output["shape"].clone()), Some(serde_json::json!([-1, 4])), "{model}");
    let outputs = server.infer(&task, &bytes(&image), &["spread", "probabilities"]);
    for (name, field) in [("spread", "spread"), ("probabilities", "probabilities")] {
        let of_classes = probabilities(&answer, field);
        let served: Vec<f64> = outputs[name]["data"].as_array().expect("numbers").iter().map(number).collect();
        let classes = model["parameters"]["classes"].as_array().expect("classes");
        assert_eq!((outputs[name]["shape"].clone(), served.len()), (serde_json::json!([1, 4]), 4));
        for (class, value) in classes.iter().zip(served) {
            let said = of_classes[class.as_str().expect("a name")];
            assert!((value - said).abs() < 1e-6, "{name} of {class}: {value}, offline {said}");
        }
    }
    assert_eq!(server.signal("-TERM"), Some(0));
}

#[test]
fn an_ensemble_is_recalibrated_out_of_fold_on_its_own_data_alone() {
    let (place, data, out) = place();
    run(&mut folds(&place, &data, &out)).good();
    let recalibrate = |data: &Path| {
        let mut command = melo();
        command.args(["plugin", "recalibrate"]).arg(&out).arg("--backbone").arg(place.at("vit.safetensors"));
        command.arg("--data").arg(data).args(["--precision", "bf16"]);
        command
    };
    run(&mut recalibrate(&data)).good();
    let card = PluginInfo::read(&out).expect("a plug-in").card;
    assert_eq!(card.calibrations[0].images, 8, "every image that neither the base nor its member has seen");
    run(on(&place, &["predict"], &out).args(["--precision", "bf16"]).arg(data.with_file_name("test_0.png"))).good();
    let other = place.phantoms(Phantom::BloodSmear, 40, [12, 12, 8]);
    run(&mut recalibrate(&other)).refused(1, &["not the images and splits that the folds of"]);
}

#[test]
fn a_fold_may_be_without_images_that_are_new_to_its_member() {
    let (place, _, out) = place();
    let data = place.phantoms(Phantom::BloodSmear, 40, [16, 2, 8]);
    run(&mut folds(&place, &data, &out)).good();
    let mut recalibrate = melo();
    recalibrate.args(["plugin", "recalibrate"]).arg(&out).arg("--backbone").arg(place.at("vit.safetensors"));
    run(recalibrate.arg("--data").arg(&data).args(["--precision", "bf16"])).good();
    let card = PluginInfo::read(&out).expect("a plug-in").card;
    assert_eq!(card.calibrations[0].images, 2, "two of three folds hold one each, or one holds both");
}

#[test]
fn no_patient_of_the_base_is_said_out_of_fold() {
    let (place, data, out) = place();
    let table = std::fs::read_to_string(&data).expect("the manifest");
    let mut lines = table.lines();
    let head = lines.next().expect("a head");
    // Four of the eight validation images are of patients of the training split.
    let rows = lines.enumerate().map(|(at, line)| {
        let patient = if (16..20).contains(&at) { at - 16 } else { at };
        format!("{line},p{patient}\n")
    });
    let leak = place.write("blood_smear/leak.csv", format!("{head},patient_id\n{}", rows.collect::<String>()));
    let ran = run(&mut folds(&place, &leak, &out));
    assert!(ran.stderr.contains("4 patients in more than one split"), "{}", ran.stderr);
    ran.good();
    let card = PluginInfo::read(&out).expect("a plug-in").card;
    assert_eq!(card.sets.map(|rule| rule.patients[0]), Some(4), "those that the base does not know");
    run(folds(&place, &leak, &place.at("strict.safetensors")).arg("--strict")).refused(1, &["refused by --strict"]);
}

#[test]
fn folds_that_cannot_be_are_refused() {
    let (place, data, out) = place();
    let table = std::fs::read_to_string(&data).expect("the manifest");
    let (mut rare, mut kept) = (0, String::new());
    for line in table.lines() {
        let of_rare = line.ends_with(",eosinophil_like") && !line.contains(",test,");
        rare += usize::from(of_rare);
        if line.starts_with("path,") || line.ends_with(",neutrophil_like") || (of_rare && rare <= 2) {
            kept += &format!("{line}\n");
        }
    }
    let few = place.write("blood_smear/few.csv", kept);
    let ran = run(train(&place.at("vit.safetensors"), &few, &out).args(["--folds", "5", "--epochs", "1"]));
    assert!(!ran.stderr.contains("fold 1 of 5"), "before anything is trained: {}", ran.stderr);
    ran.refused(2, &["folds: is 5, and every image of fold ", "too few patients of a class"]);
    let refused = |flags: &[&str], parts: &[&str]| {
        run(train(&place.at("vit.safetensors"), &data, &out).args(flags)).refused(2, parts);
    };
    refused(&["--folds", "1"], &["folds", "is 1, expected 2 to 20"]);
    refused(&["--folds", "21"], &["is 21, expected 2 to 20"]);
    refused(
        &["--folds", "5", "--method", "linear", "--scope-false-alarms", "0.1"],
        &["--scope-false-alarms: folds that are not trained on top of one plug-in have no scope"],
    );
    refused(&["--folds", "5", "--method", "full"], &["--folds is for --method lora, linear or adapter, not for full"]);
}
