//! Adapters of others through the real binary: import, export and import again, merge, ONNX; wrong uses.

use crate::workplace::{Ran, Workplace, bytes, melo, run};
use melo::synthetic::Phantom;
use melo::vit::{Plugin, PluginInfo, Storage, TaskCard, write_tensors};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const D: usize = 64;

/// A file of the authors for the tiny backbone: two blocks, rank 2, two classes.
fn authors_file(workplace: &Workplace) -> PathBuf {
    let shapes = (0..4).flat_map(|i| [(format!("w_a_{i:03}"), vec![2, D]), (format!("w_b_{i:03}"), vec![D, 2])]);
    let shapes: Vec<_> = shapes
        .chain([("fc_64in_2out_weight".to_owned(), vec![2, D]), ("fc_64in_2out_bias".to_owned(), vec![2])])
        .collect();
    let value = |i: usize| (i as f32 * 0.7).sin() * 0.3;
    let values: Vec<Vec<f32>> = shapes.iter().map(|(_, s)| (0..s.iter().product()).map(value).collect()).collect();
    let tensors: Vec<_> = shapes.into_iter().zip(&values).map(|((n, s), v)| (n, s, v.as_slice())).collect();
    let path = workplace.at("lora.safetensors");
    write_tensors(&path, &tensors, HashMap::new(), Storage::F32).expect("the file can be written");
    path
}

fn plugin(verb: &str, from: &Path, backbone: &Path, out: &Path, more: &[&str]) -> Ran {
    let mut command = melo();
    command.args(["plugin", verb]).arg(from).arg("--backbone").arg(backbone).arg("--out").arg(out).args(more);
    run(&mut command)
}

#[test]
fn from_the_authors_to_peft_and_back_and_merged() {
    let new = Workplace::new();
    let backbone = new.tiny_backbone("vit", 1, None);
    let (file, task) = (authors_file(&new), new.at("task.safetensors"));
    let words = ["--alpha", "5", "--task", "derm", "--classes", "benign,malignant"];
    let said = plugin("import", &file, &backbone, &task, &words).good();
    assert!(said.contains("rank 2") && said.contains("alpha 5") && said.contains("benign, malignant"), "{said}");

    for layout in ["timm", "hf", "hf-new"] {
        let (folder, again) = (new.at(format!("peft-{layout}")), new.at(format!("again-{layout}.safetensors")));
        plugin("export", &task, &backbone, &folder, &["--format", "peft", "--layout", layout]).good();
        plugin("import", &folder, &backbone, &again, &[]).good();
        assert_eq!(bytes(&again), bytes(&task), "{layout}: the same plug-in");
    }
    let unicad = new.at("unicad.safetensors");
    let ran = plugin("export", &task, &backbone, &unicad, &["--format", "unicad"]);
    assert!(ran.stderr.contains("alpha: it is 5") && ran.stderr.contains("rounds"), "{}", ran.stderr);
    ran.good();
    plugin("export", &task, &backbone, &new.at("x.safetensors"), &["--format", "authors"])
        .refused(1, &["bias of the classifier", "--format unicad"]);

    // The merged checkpoint answers by its own classifier what the plug-in answers on the backbone.
    let merged = new.at("merged.safetensors");
    plugin("merge", &task, &backbone, &merged, &["--layout", "timm"]).good();
    plugin("merge", &task, &backbone, &new.at("hf"), &["--layout", "hf"]).good();
    assert!(new.at("hf/preprocessor_config.json").is_file() && new.at("hf/melo_card.json").is_file());
    new.image("image.png", Phantom::Fundus, 0, 1, 32);
    let probabilities = |ran: Ran| -> Vec<f64> {
        let line = ran.json_lines().remove(0);
        let found = line["probabilities"].as_object();
        found.map_or_else(|| panic!("{line}"), |of| of.values().filter_map(Value::as_f64).collect())
    };
    let predict = |backbone: &Path, task: Option<&Path>| {
        let mut command = melo();
        command.args(["predict", "--json", "--backbone"]).arg(backbone);
        task.map(|task| command.arg("--plugin").arg(task));
        probabilities(run(command.arg(new.at("image.png"))))
    };
    let (with, own) = (predict(&backbone, Some(&task)), predict(&merged, None));
    assert_eq!(with.len(), 2);
    assert!(with.iter().zip(&own).all(|(a, b)| (a - b).abs() < 1e-4), "{with:?} {own:?}");
    let onnx = new.at("task.onnx");
    plugin("export", &task, &backbone, &onnx, &["--format", "onnx"]).good();
    assert!(bytes(&onnx).windows(9).any(|bytes| bytes == b"melo.card"));
    assert_eq!(new.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn a_self_test_is_added_kept_and_run() {
    let new = Workplace::new();
    let backbone = new.tiny_backbone("vit", 1, None);
    let (file, task, old) = (authors_file(&new), new.at("task.safetensors"), new.at("old.safetensors"));
    let words = ["--alpha", "5", "--task", "derm", "--classes", "benign,malignant"];
    let said = plugin("import", &file, &backbone, &task, &words).good();
    assert!(said.contains("self-test   taken in f32"), "{said}");
    let certify = |path: &Path, more: &[&str]| {
        let mut command = melo();
        run(command.args(["plugin", "certify"]).arg(path).arg("--backbone").arg(&backbone).args(more))
    };
    let card = |path: &Path| PluginInfo::read(path).expect("a plug-in").card;
    let before = bytes(&task);
    assert!(certify(&task, &[]).good().contains("passes its self-test in f32"));
    assert!(certify(&task, &["--check", "--precision", "bf16"]).good().contains("passes its self-test in bf16"));
    assert_eq!(bytes(&task), before, "a self-test that is there stays");

    // What software before format 3 wrote, as far as a self-test is concerned.
    let tested = card(&task);
    let bare = TaskCard { format: 4, self_test: None, ..tested.clone() };
    Plugin::replace_card(&task, &bare, &old).expect("the file can be written");
    assert!(run(melo().args(["plugin", "info"]).arg(&old)).good().contains("self-test   none"));
    certify(&old, &["--check"]).refused(1, &["old.safetensors", "no self-test", "melo plugin certify"]);
    let out = new.at("out.safetensors");
    let said = certify(&old, &["--out", out.to_str().expect("the path is UTF-8")]).good();
    assert!(said.contains("wrote") && said.contains("self-test taken in f32"), "{said}");
    assert_eq!(card(&old), bare, "only --out is written");
    certify(&old, &[]).good();
    for path in [&old, &out] {
        assert_eq!(bytes(path), before, "the same numbers on the same machine");
    }

    // Another scale: refused by name, and the file is left as it is.
    let mut scaled = tested;
    scaled.lora.alpha *= 1.05;
    Plugin::replace_card(&task, &scaled, &out).expect("the file can be written");
    certify(&out, &[]).refused(1, &["out.safetensors", "self-test differs", "class `"]);
    assert_eq!(card(&out), scaled);
    let check_and_out = ["--check", "--out", "x.safetensors"];
    assert_eq!(certify(&task, &check_and_out).status, 2);
    certify(&task, &["--out", backbone.to_str().expect("the path is UTF-8")]).refused(2, &["would replace"]);
    assert_eq!(new.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn wrong_uses() {
    let new = Workplace::new();
    let backbone = new.tiny_backbone("vit", 1, None);
    let file = authors_file(&new);
    let out = new.at("out.safetensors");
    let words = ["--task", "derm", "--classes", "benign,malignant"];
    plugin("import", &file, &backbone, &out, &words).refused(1, &["lora.safetensors", "--alpha"]);
    let mut full = vec!["--alpha", "4"];
    plugin("import", &file, &backbone, &out, &full).refused(1, &["--task"]);
    full.extend(["--task", "derm"]);
    plugin("import", &file, &backbone, &out, &full).refused(1, &["2 classes", "--classes"]);
    let names = new.write("names.txt", "a\n\nb\nc\n");
    let mut three = full.clone();
    three.extend(["--classes-file", names.to_str().expect("the path is UTF-8")]);
    plugin("import", &file, &backbone, &out, &three).refused(1, &["2 classes", "3 are named"]);
    full.extend(["--classes", "benign,malignant"]);
    plugin("import", &file, &backbone, &backbone, &full).refused(2, &["would replace"]);
    plugin("import", &backbone, &backbone, &out, &full).refused(1, &["vit.safetensors", "no adapter"]);
    plugin("import", &new.at("nowhere"), &backbone, &out, &full).refused(1, &["nowhere", "No such file"]);
    assert!(!out.exists());
    plugin("import", &file, &backbone, &out, &full).good();
    plugin("export", &out, &backbone, &new.at("x.onnx"), &["--format", "onnx", "--layout", "hf"])
        .refused(2, &["--layout belongs to --format peft"]);
    new.write("full/mine.txt", "mine");
    plugin("export", &out, &backbone, &new.at("full"), &["--format", "peft"]).refused(1, &["full", "not empty"]);
    plugin("merge", &out, &backbone, &new.at("full"), &["--layout", "hf"]).refused(1, &["full", "not empty"]);
    plugin("merge", &out, &backbone, &backbone, &["--layout", "timm"]).refused(2, &["would replace"]);
    let other = new.tiny_backbone("other", 2, None);
    plugin("merge", &out, &other, &new.at("m"), &["--layout", "timm"]).refused(1, &["belongs to backbone"]);
}
