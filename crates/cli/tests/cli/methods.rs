//! The training methods of `melo train`, with the real binary: each trains, is measured, and refuses another's flags.

use crate::main_job::auc_without_temperature;
use crate::workplace::{SIDE, Workplace, bytes, embedded_backbone, melo, number, run, train};
use melo::synthetic::Phantom;
use melo::vit::{Checkpoint, PluginInfo, Precision};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn smears(workplace: &Workplace) -> PathBuf {
    workplace.phantoms(Phantom::BloodSmear, SIDE, [16, 8, 8])
}

fn one_epoch(data: &Path, out: &Path, flags: &[&str]) -> Command {
    let mut command = train(&embedded_backbone(), data, out);
    command.args(["--epochs", "1", "--batch-size", "8", "--json"]).args(flags);
    command
}

fn eval(backbone: &Path, plugin: &Path, data: &Path) -> Command {
    let mut command = melo();
    command.arg("eval").arg("--backbone").arg(backbone).arg("--plugin").arg(plugin).arg("--data").arg(data);
    command.args(["--split", "val", "--json"]);
    command
}

fn settings(plugin: &Path) -> Value {
    PluginInfo::read(plugin).expect("a plug-in").card.provenance.settings
}

#[test]
fn full_writes_a_backbone_that_its_plugin_belongs_to() {
    let workplace = Workplace::new();
    let (data, out) = (smears(&workplace), workplace.at("tuned.safetensors"));
    let report = run(&mut one_epoch(&data, &out, &["--method", "full", "--layer-decay", "0.75"])).json();
    let backbone = workplace.at("tuned.backbone.safetensors");
    assert_eq!(report["backbone"], backbone.to_string_lossy().as_ref());
    assert_eq!(report["method"], "full");
    let settings = settings(&out);
    assert_eq!((&settings["learning_rate"], &settings["layer_decay"]), (&0.0001.into(), &0.75.into()));
    let parameters = Checkpoint::read(&backbone).expect("a backbone").config.parameters();
    let head = PluginInfo::read(&out).expect("a plug-in").parameters();
    assert_eq!(report["trainable_parameters"], parameters + head);
    let table = workplace.at("val.csv");
    let measured = run(eval(&backbone, &out, &data).arg("--predictions").arg(&table)).json();
    assert_eq!(measured["backbone_digest"], report["backbone_digest"]);
    assert_eq!(measured["plugin_digest"], report["plugin_digest"]);
    assert_eq!(measured["acc"], report["val_acc"]);
    // Training measures before there is a temperature, which moves the order of images by one of several probabilities.
    let card = PluginInfo::read(&out).expect("a plug-in").card;
    let classes: Vec<&str> = card.classes.iter().map(String::as_str).collect();
    let auc = auc_without_temperature(&table, &classes, f64::from(card.temperature));
    assert!((auc - number(&report["val_auc_macro"])).abs() < 1e-9, "{auc}, {report}");
    run(&mut eval(&embedded_backbone(), &out, &data)).refused(1, &["tuned.safetensors", "belongs to backbone"]);
    run(&mut one_epoch(&data, &out, &["--method", "full"])).refused(1, &["tuned.safetensors", "exists already"]);
}

#[test]
fn full_in_16_bit_belongs_to_the_rounded_backbone() {
    let workplace = Workplace::new();
    let (data, out) = (smears(&workplace), workplace.at("half.safetensors"));
    run(&mut one_epoch(&data, &out, &["--method", "full", "--f16"])).good();
    run(&mut eval(&workplace.at("half.backbone.safetensors"), &out, &data)).good();
}

#[test]
fn full_at_another_image_size_keeps_the_interpolated_positions() {
    let workplace = Workplace::new();
    let (data, out) = (smears(&workplace), workplace.at("small.safetensors"));
    run(&mut one_epoch(&data, &out, &["--method", "full", "--image-size", "48"])).good();
    let backbone = workplace.at("small.backbone.safetensors");
    assert_eq!(Checkpoint::read(&backbone).expect("a backbone").config.image_size, 48);
    run(&mut eval(&backbone, &out, &data)).good();
}

#[test]
fn an_existing_backbone_is_not_replaced_unasked() {
    let workplace = Workplace::new();
    let (data, out) = (smears(&workplace), workplace.at("tuned.safetensors"));
    workplace.write("tuned.backbone.safetensors", "dear to somebody");
    let command = &mut one_epoch(&data, &out, &["--method", "full"]);
    run(command).refused(1, &["tuned.backbone.safetensors", "exists already"]);
    let mut onto_itself = train(&workplace.at("tuned.backbone.safetensors"), &data, &out);
    onto_itself.args(["--method", "full", "--overwrite"]);
    run(&mut onto_itself).refused(2, &["tuned.backbone.safetensors", "would replace"]);
    assert_eq!(bytes(&workplace.at("tuned.backbone.safetensors")), b"dear to somebody");
}

#[test]
fn linear_is_rank_0() {
    let workplace = Workplace::new();
    let data = smears(&workplace);
    let (linear, rank_0) = (workplace.at("linear.safetensors"), workplace.at("rank_0.safetensors"));
    let report = run(&mut one_epoch(&data, &linear, &["--method", "linear"])).json();
    assert_eq!(report["method"], "linear");
    run(&mut one_epoch(&data, &rank_0, &["--rank", "0"])).good();
    assert_eq!(bytes(&linear), bytes(&rank_0));
    assert_eq!(settings(&linear)["learning_rate"], 0.001);
}

#[test]
fn low_rank_settings_reach_the_card_and_the_file() {
    let workplace = Workplace::new();
    let (data, out) = (smears(&workplace), workplace.at("lora.safetensors"));
    let flags = ["--last-k", "2", "--rank", "3", "--rank-pattern", "7:5", "--rslora", "--alpha", "2"];
    run(one_epoch(&data, &out, &flags).args(["--lora-plus", "4", "--lora-dropout", "0.25"])).good();
    let info = PluginInfo::read(&out).expect("a plug-in");
    let lora = &info.card.lora;
    assert_eq!((lora.rank, lora.alpha, lora.rslora), (3, 2.0, true));
    assert_eq!((lora.blocks.as_slice(), lora.rank_of(6), lora.rank_of(7)), (&[6, 7][..], 3, 5));
    assert_eq!(info.shapes["blocks.7.v.lora_a"], [5, 128]);
    let settings = &info.card.provenance.settings;
    assert_eq!((&settings["lora_plus"], &settings["lora_dropout"]), (&4.0.into(), &0.25.into()));
    assert_eq!((info.card.format, info.card.provenance.precision), (10, Precision::F32));
    assert_eq!(info.card.self_test.expect("a finished plug-in has one").precision, Precision::F32);
    run(&mut eval(&embedded_backbone(), &out, &data)).good();
    let said = run(melo().args(["plugin", "info"]).arg(&out)).good();
    assert!(said.contains("rank 3, 5 in block 7, alpha 2 over the root of the rank, on q v of 2 blocks"), "{said}");
}

/// Whatever of a plug-in is trained.
#[test]
fn a_plugin_trained_in_int8_says_so_and_answers_in_it() {
    let workplace = Workplace::new();
    let (data, out) = (smears(&workplace), workplace.at("int8.safetensors"));
    let int8 = |out: &Path, flags: &[&str]| {
        let mut command = one_epoch(&data, out, &["--precision", "int8"]);
        command.args(flags);
        command
    };
    for (name, flags) in [("adapter", &["--method", "adapter"][..]), ("linear", &["--method", "linear"])] {
        run(&mut int8(&workplace.at(name).with_extension("safetensors"), flags)).good();
    }
    let lora = ["--lora-dropout", "0.25", "--targets", "q,v,o,fc1,fc2"];
    let report = run(&mut int8(&out, &lora)).json();
    assert_eq!(report["precision"], "int8");
    let card = PluginInfo::read(&out).expect("a plug-in").card;
    let made = (card.provenance.precision, card.self_test.expect("a finished plug-in has one").precision);
    assert_eq!(made, (Precision::Int8, Precision::Int8));
    let measured = run(eval(&embedded_backbone(), &out, &data).args(["--precision", "int8"])).json();
    assert_eq!((&measured["auc_macro"], &measured["acc"]), (&report["val_auc_macro"], &report["val_acc"]));
    assert_eq!(measured["calibration"]["precision"], "int8");
    let said = ["precision", "int8", "method full"];
    run(&mut int8(&workplace.at("full.safetensors"), &["--method", "full"])).refused(2, &said);
    assert!(!workplace.at("full.safetensors").exists());
    run(one_epoch(&data, &out, &lora).arg("--resume")).refused(1, &["setting `precision`", "int8", "f32"]);
}

#[test]
fn adapter_writes_bottlenecks_that_answer_beside_low_rank_plugins() {
    let workplace = Workplace::new();
    let data = smears(&workplace);
    let (adapter, lora) = (workplace.at("adapter.safetensors"), workplace.at("lora.safetensors"));
    let report = run(&mut one_epoch(&data, &adapter, &["--method", "adapter"])).json();
    assert_eq!(report["method"], "adapter");
    // Eight blocks of width 128, two layers of width 8 with biases, and a head of four classes.
    assert_eq!(report["trainable_parameters"], 8 * (2 * 8 * 128 + 8 + 128) + 4 * 129);
    let measured = run(&mut eval(&embedded_backbone(), &adapter, &data)).json();
    assert_eq!(measured["auc_macro"], report["val_auc_macro"]);
    let said = run(melo().args(["plugin", "info"]).arg(&adapter)).good();
    assert!(said.contains("adapter     bottlenecks of width 8 after 8 blocks"), "{said}");
    run(&mut one_epoch(&data, &lora, &[])).good();
    let predict = |plugins: &[&Path]| {
        let mut command = melo();
        command.arg("predict").arg("--backbone").arg(embedded_backbone()).arg("--json");
        for plugin in plugins {
            command.arg("--plugin").arg(plugin);
        }
        run(command.arg(workplace.at("blood_smear/val_0.png"))).json_lines()
    };
    let (mixed, alone) = (predict(&[&adapter, &lora]), [predict(&[&adapter]), predict(&[&lora])].concat());
    assert_eq!(mixed.len(), 2);
    for (mixed, alone) in mixed.iter().zip(&alone) {
        assert_eq!(mixed["plugin_digest"], alone["plugin_digest"]);
        for (class, probability) in mixed["probabilities"].as_object().expect("probabilities") {
            let difference =
                probability.as_f64().expect("a number") - alone["probabilities"][class].as_f64().expect("too");
            // The same sums in another order, in f32.
            assert!(difference.abs() < 1e-5, "{class}: {difference}");
        }
    }
}

#[test]
fn flags_of_another_method_are_refused() {
    let workplace = Workplace::new();
    let (data, out) = (smears(&workplace), workplace.at("out.safetensors"));
    let cases: [(&[&str], &str); 16] = [
        (&["--method", "linear", "--rank", "4"], "--rank"),
        (&["--method", "full", "--alpha", "4"], "--alpha"),
        (&["--method", "full", "--targets", "q"], "--targets"),
        (&["--method", "linear", "--blocks", "1"], "--blocks"),
        (&["--method", "lora", "--layer-decay", "0.9"], "--layer-decay"),
        (&["--method", "full", "--layer-decay", "0"], "layer_decay"),
        (&["--method", "adapter", "--lora-dropout", "0.1"], "--lora-dropout"),
        (&["--rank", "0", "--rank-pattern", "1:4"], "--rank-pattern"),
        (&["--rank", "0", "--last-k", "1"], "--last-k"),
        (&["--method", "full", "--lora-plus", "16"], "--lora-plus"),
        (&["--method", "linear", "--rslora"], "--rslora"),
        (&["--bottleneck", "8"], "--bottleneck"),
        (&["--last-k", "9"], "--last-k: is 9, but the backbone has 8 blocks"),
        (&["--last-k", "2", "--rank-pattern", "1:4"], "block 1 is not among"),
        (&["--rank-pattern", "1:4,1:8"], "--rank-pattern names a block twice"),
        (&["--method", "adapter", "--bottleneck", "200"], "width 200 exceeds"),
    ];
    for (flags, named) in cases {
        run(&mut one_epoch(&data, &out, flags)).refused(2, &[named]);
    }
    assert!(!out.exists());
}
