//! Bags from a table and from volumes to every answer, and the verbs that answer for single images alone.

use crate::workplace::{Workplace, melo, number, on, run, train};
use melo::vit::PluginInfo;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Side of the slices, px.
const SIDE: usize = 32;
/// Slices of a volume.
const SLICES: usize = 6;
/// Volumes of train, val and test.
const VOLUMES: [(&str, usize); 3] = [("train", 32), ("val", 16), ("test", 16)];

/// The slice of volume `index` that shows the finding, where it has one.
fn finding(index: usize) -> Option<usize> {
    (index % 2 == 1).then_some(index * 5 % SLICES)
}

/// One slice: grey noise, and in one of a finding a bright square.
fn slice(index: usize, k: usize) -> Vec<u8> {
    let mut state = ((index * SLICES + k) as u32).wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        60 + (state >> 27) as u8
    };
    let mut grey: Vec<u8> = (0..SIDE * SIDE).map(|_| noise()).collect();
    if finding(index) == Some(k) {
        (8..24).for_each(|y| grey[y * SIDE + 8..y * SIDE + 24].fill(240));
    }
    grey
}

/// A NumPy file of one volume.
fn npy(slices: &[Vec<u8>]) -> Vec<u8> {
    let header =
        format!("{{'descr': '|u1', 'fortran_order': False, 'shape': (1, {}, {SIDE}, {SIDE}), }}", slices.len());
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let padding = 64 - (11 + header.len()) % 64;
    bytes.extend(((header.len() + padding + 1) as u16).to_le_bytes());
    bytes.extend(format!("{header}{}\n", " ".repeat(padding)).bytes());
    bytes.extend(slices.concat());
    bytes
}

/// Volumes whose finding sits in one slice: files of volumes with one table, the same slices as images in bags with another.
fn volumes(place: &Workplace) -> (PathBuf, PathBuf) {
    let (mut of_volumes, mut of_slices) =
        (String::from("path,split,label\n"), String::from("path,study,split,label\n"));
    let mut index = 0;
    for (split, count) in VOLUMES {
        for _ in 0..count {
            let label = if finding(index).is_some() { "sick" } else { "well" };
            let slices: Vec<Vec<u8>> = (0..SLICES).map(|k| slice(index, k)).collect();
            std::fs::write(place.at(format!("v{index}.npy")), npy(&slices)).expect("a volume");
            of_volumes += &format!("v{index}.npy,{split},{label}\n");
            for (k, grey) in slices.iter().enumerate() {
                let rgb = grey.iter().flat_map(|&grey| [grey; 3]).collect();
                let pixels = melo::imaging::Pixels { width: SIDE, height: SIDE, rgb };
                let name = format!("s{index}_{k}.png");
                melo::imaging::write_png(&place.at(&name), &pixels).expect("a slice");
                of_slices += &format!("{name},study{index},{split},{label}\n");
            }
            index += 1;
        }
    }
    (place.write("volumes.csv", of_volumes), place.write("slices.csv", of_slices))
}

fn trained(place: &Workplace, data: &Path, name: &str, flags: &[&str]) -> (Value, PathBuf) {
    let out = place.at(format!("{name}.safetensors"));
    let mut command = train(&place.tiny_backbone("vit", 5, None), data, &out);
    command.args(["--epochs", "10", "--lr", "0.01", "--batch-size", "8", "--no-augment", "--task", name, "--json"]);
    (run(command.args(flags)).json(), out)
}

#[test]
fn a_finding_in_one_slice_is_found_and_pointed_at() {
    let place = Workplace::new();
    let (of_volumes, of_slices) = volumes(&place);
    let (report, plugin) = trained(&place, &of_volumes, "ct", &["--bag-axis", "axial"]);
    assert!(number(&report["val_auc_macro"]) > 0.9, "{report}");
    let card = PluginInfo::read(&plugin).expect("a plug-in").card;
    assert_eq!(card.format, 9);
    let test = card.test.expect("a test split");
    assert_eq!((test.images, card.provenance.train_images, card.provenance.train_images_of), (16, 32, vec![16, 16]));

    let table = place.at("predictions.csv");
    let mut measured = on(&place, &["eval"], &plugin);
    let measured = run(measured.arg("--data").arg(&of_volumes).arg("--json").arg("--predictions").arg(&table)).json();
    assert_eq!((&measured["n"], &measured["auc_macro"]), (&16.into(), &card.metrics["test_auc_macro"].into()));
    let table = std::fs::read_to_string(table).expect("the table is written");
    assert!(table.starts_with("path,label,predicted,p_sick,p_well\nv48.npy,well,"), "{table}");
    assert_eq!(table.lines().count(), 17);

    // The same slices as images of bags are trained and answered alike.
    let (again, other) = trained(&place, &of_slices, "ct2", &["--bag-column", "study"]);
    assert!(number(&again["val_auc_macro"]) > 0.9, "{again}");
    let mut pointed = 0;
    for index in (48..64).filter(|&index| finding(index).is_some()) {
        let answer = run(on(&place, &["predict"], &plugin).arg("--json").arg(place.at(format!("v{index}.npy")))).json();
        assert_eq!(answer["images"].as_array().map(Vec::len), Some(SLICES));
        let attention: Vec<f64> = answer["attention"].as_array().expect("an array").iter().map(number).collect();
        assert!((attention.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{answer}");
        pointed += usize::from(answer["leading"][0] == finding(index).expect("a finding"));
        let mut files = on(&place, &["predict"], &plugin);
        files.arg("--json").args((0..SLICES).map(|k| place.at(format!("s{index}_{k}.png"))));
        assert_eq!(run(&mut files).json()["probabilities"], answer["probabilities"]);
    }
    assert!(pointed >= 6, "the right slice leads in {pointed} of 8 volumes");
    let said = run(on(&place, &["predict"], &other).args((0..SLICES).map(|k| place.at(format!("s49_{k}.png"))))).good();
    assert!(said.contains("(6 images)\n    ") && said.contains("s49_"), "{said}");

    // Heat maps are those of the leading slices.
    let mut maps = on(&place, &["predict"], &plugin);
    maps.arg("--json").arg(place.at("v49.npy")).arg("--heatmap").arg(place.at("maps"));
    let answer = run(&mut maps).json();
    let drawn = answer["heatmaps"].as_array().expect("heat maps");
    assert_eq!((drawn.len(), &drawn[0]["image"]), (5, &answer["leading"][0]), "{answer}");
    for map in drawn {
        let drawn = melo::imaging::read(Path::new(map["path"].as_str().expect("a path"))).expect("a PNG");
        assert_eq!((drawn.width, drawn.height), (SIDE, SIDE));
    }
}

#[test]
fn the_mean_and_the_maximum_are_trained_and_come_back() {
    let place = Workplace::new();
    let (_, of_slices) = volumes(&place);
    for pooling in ["mean", "max"] {
        let flags = ["--bag-column", "study", "--pooling", pooling, "--method", "linear"];
        let (_, plugin) = trained(&place, &of_slices, pooling, &flags);
        let card = PluginInfo::read(&plugin).expect("a plug-in").card;
        assert_eq!(card.bag.expect("bags").pooling.in_words(), pooling);
        let mut measured = on(&place, &["eval"], &plugin);
        measured.args(["--bag-column", "study", "--json", "--data"]).arg(&of_slices);
        assert_eq!(run(&mut measured).json()["auc_macro"], card.metrics["test_auc_macro"]);
    }
}

#[test]
fn a_study_compares_methods_by_bags() {
    let place = Workplace::new();
    let (_, of_slices) = volumes(&place);
    place.tiny_backbone("vit", 5, None);
    let study = |more: &str, out: &str| {
        let methods =
            if more.contains("full") { more } else { "methods = [\"lora\", \"linear\"]\nreference = \"linear\"\n" };
        let task = if more.contains("subgroups") { more } else { "" };
        let file = place.write(
            "study.toml",
            format!(
                "[study]\nname = \"bags\"\nseeds = [0]\nbootstrap = 100\n{methods}[train]\nepochs = 2\n[[backbone]]\nname = \"vit\"\n\
                 weights = \"vit.safetensors\"\n[[task]]\nname = \"ct\"\nlabels = \"slices.csv\"\nbag_column = \"study\"\n{task}"
            ),
        );
        let mut command = melo();
        command.arg("study").arg(file).arg("--out").arg(place.at(out)).arg("--json");
        run(&mut command)
    };
    let printed = study("", "out").json();
    assert_eq!((&printed["cells"], &printed["cells_done"]), (&2.into(), &2.into()), "{printed}");
    let results = std::fs::read_to_string(place.at("out/results.json")).expect("results");
    assert!(results.replace(' ', "").contains("\"image\":\"study"), "examples are bags");
    assert!(of_slices.exists());
    assert_eq!(study("", "out").json()["cells_done"], 2, "what is done is not done again");
    study("methods = [\"full\", \"linear\"]\n", "full").refused(1, &["task ct", "method full does not train on"]);
    study("subgroups = [\"label\"]\n", "groups").refused(1, &["task ct: subgroups are of single images"]);
}

#[test]
fn what_answers_for_single_images_refuses_bags_by_name() {
    let place = Workplace::new();
    let (of_volumes, of_slices) = volumes(&place);
    let flags = ["--bag-axis", "axial", "--method", "linear", "--epochs", "1"];
    let (_, plugin) = trained(&place, &of_volumes, "ct", &flags[..4]);
    let image = place.at("s1_0.png");
    let refused = |command: &mut Command, status: i32, words: &str| run(command).refused(status, &[words]);
    let mut export = melo();
    export.args(["plugin", "export"]).arg(&plugin).arg("--backbone").arg(place.at("vit.safetensors"));
    refused(export.args(["--format", "onnx", "--out"]).arg(place.at("ct.onnx")), 1, "`ct` answers for bags of images");
    // A table of single images, and a plug-in of single images on bags.
    refused(on(&place, &["eval"], &plugin).arg("--data").arg(&of_slices), 1, "its images are in no bags");
    let (_, single) = trained(&place, &of_slices, "single", &["--method", "linear"]);
    let mut eval = on(&place, &["eval"], &single);
    refused(eval.args(["--bag-column", "study", "--data"]).arg(&of_slices), 1, "`single` answers for single images");
    refused(
        on(&place, &["predict"], &single).arg("--plugin").arg(&plugin).arg(&image),
        2,
        "ask them one after the other",
    );
    let mut pooled = train(&place.at("vit.safetensors"), &of_slices, &place.at("x.safetensors"));
    refused(pooled.args(["--pooling", "mean"]), 1, "its images are in no bags");
    let mut full = train(&place.at("vit.safetensors"), &of_slices, &place.at("x.safetensors"));
    refused(full.args(["--bag-column", "study", "--method", "full"]), 2, "bags are answered beside a frozen backbone");
    let mut pack = melo();
    pack.args(["data", "pack"]).arg(&of_slices).args(["--bag-column", "study", "--out"]).arg(place.at("pack"));
    refused(pack.arg("--backbone").arg(place.at("vit.safetensors")), 1, "which a pack does not hold");
}
