//! Volumes embedded whole: from files to every answer, and what is of images alone.

use crate::server::Server;
use crate::workplace::{Workplace, bytes, melo, melo_with_threads, number, on, run, train, train_by};
use melo::vit::PluginInfo;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Side of the volumes, voxels.
const SIDE: usize = 24;
/// Volumes of train, val and test.
const VOLUMES: [(&str, usize); 3] = [("train", 32), ("val", 16), ("test", 16)];

fn is_sick(index: usize) -> bool {
    index % 2 == 1
}

/// Grey noise, and in a sick one a bright cube.
fn voxels(index: usize) -> Vec<u8> {
    let mut state = (index as u32).wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        60 + (state >> 27) as u8
    };
    let mut grey: Vec<u8> = (0..SIDE.pow(3)).map(|_| noise()).collect();
    if is_sick(index) {
        for (z, y) in (6..18).flat_map(|z| (6..18).map(move |y| (z, y))) {
            grey[(z * SIDE + y) * SIDE + 6..(z * SIDE + y) * SIDE + 18].fill(240);
        }
    }
    grey
}

/// A NumPy file of one volume.
fn npy(voxels: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({SIDE}, {SIDE}, {SIDE}), }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let padding = 64 - (11 + header.len()) % 64;
    bytes.extend(((header.len() + padding + 1) as u16).to_le_bytes());
    bytes.extend(format!("{header}{}\n", " ".repeat(padding)).bytes());
    bytes.extend(voxels);
    bytes
}

pub(crate) fn volumes(place: &Workplace) -> PathBuf {
    let (mut table, mut index) = (String::from("path,split,label\n"), 0);
    for (split, count) in VOLUMES {
        for _ in 0..count {
            std::fs::write(place.at(format!("v{index}.npy")), npy(&voxels(index))).expect("a volume");
            table += &format!("v{index}.npy,{split},{}\n", if is_sick(index) { "sick" } else { "well" });
            index += 1;
        }
    }
    place.write("volumes.csv", table)
}

const FLAGS: [&str; 8] =
    ["--volumes", "--volume-size", "32", "--volume-patch", "8", "--lr", "0.005", "--vertical-flip"];

fn command(place: &Workplace, data: &Path, name: &str, epochs: &str) -> (Command, PathBuf) {
    let out = place.at(format!("{name}.safetensors"));
    let mut command = train(&place.tiny_backbone("vit", 5, None), data, &out);
    command.args(["--epochs", epochs, "--batch-size", "8", "--task", name, "--patience", "0", "--json"]);
    (command, out)
}

pub(crate) fn trained(place: &Workplace, data: &Path, epochs: &str) -> (Value, PathBuf) {
    let (mut command, out) = command(place, data, "ct", epochs);
    (run(command.args(FLAGS)).json(), out)
}

#[test]
fn volumes_are_learnt_measured_and_answered_beside_images() {
    let place = Workplace::new();
    let data = volumes(&place);
    let (report, plugin) = trained(&place, &data, "6");
    assert!(number(&report["val_auc_macro"]) > 0.9, "{report}");
    let info = PluginInfo::read(&plugin).expect("a plug-in");
    let card = &info.card;
    assert_eq!((card.format, card.preprocess.size, card.preprocess.depth), (9, 32, Some(32)));
    assert_eq!(info.shapes["volume_embed.proj.weight"], [64, 1, 8, 16, 16]);
    let shown = run(melo().args(["plugin", "info"]).arg(&plugin)).good();
    assert!(shown.contains("patches 8 voxels deep") && shown.contains("32 x 32 x 32 voxels"), "{shown}");
    let mut recalibrate = melo();
    recalibrate.args(["plugin", "recalibrate"]).arg(&plugin).arg("--backbone").arg(place.at("vit.safetensors"));
    recalibrate.arg("--data").arg(&data).args(["--precision", "bf16", "--out"]).arg(place.at("bf16.safetensors"));
    run(&mut recalibrate).good();

    let table = place.at("predictions.csv");
    let mut measured = on(&place, &["eval"], &plugin);
    let measured = run(measured.arg("--data").arg(&data).arg("--json").arg("--predictions").arg(&table)).json();
    assert_eq!(measured["auc_macro"], card.metrics["test_auc_macro"]);
    let answers = on_files(&place, &plugin, &[48, 49, 50]);
    let mut table = csv::Reader::from_path(table).expect("predictions");
    for (row, answer) in table.records().map(|row| row.expect("a row")).zip(&answers) {
        let sick: f32 = row[3].parse().expect("a probability");
        assert_eq!(Some(sick), answer["probabilities"]["sick"].as_f64().map(|p| p as f32), "{row:?}");
    }

    // One server, one request: the volume's task and a task of images, each as it is offline.
    let film = place.at("film.png");
    let rgb = (0..64 * 64 * 3).map(|at: usize| (at * 89 % 251) as u8).collect();
    melo::imaging::write_png(&film, &melo::imaging::Pixels { width: 64, height: 64, rgb }).expect("an image");
    let mut films = String::from("path,split,label\nfilm.png,train,a\n");
    (1..32).for_each(|index| {
        let (split, label) = (if index < 24 { "train" } else { "val" }, ["a", "b"][index % 2]);
        films += &format!("v{index}.npy,{split},{label}\n");
    });
    let films = place.write("films.csv", films);
    let (mut of_films, other) = command(&place, &films, "films", "4");
    run(&mut of_films).json();
    let offline = run(on(&place, &["predict"], &other).arg("--json").arg(place.at("v49.npy"))).json();
    let folder = place.at("served");
    std::fs::create_dir(&folder).expect("a folder");
    [&plugin, &other].into_iter().for_each(|path| {
        std::fs::copy(path, folder.join(path.file_name().expect("a name"))).expect("a copy");
    });
    let mut serve = melo();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--log", "off", "--backbone"]).arg(place.at("vit.safetensors"));
    let server = Server::start(&place, serve.arg("--plugins").arg(&folder).arg("--state").arg(place.at("state")));
    let volume = bytes(&place.at("v49.npy"));
    let said =
        server.predict(&[("image", Some("v49.npy"), &volume), ("tasks", None, b"ct"), ("tasks", None, b"films")]);
    let said = said.unwrap_or_else(|error| panic!("{error}: {}", server.get("/v1/tasks")["problems"]));
    let of = |task: &str| {
        let all = said["images"][0]["answers"].as_array().expect("answers");
        all.iter().find(|answer| answer["task"] == task).expect("an answer")["probabilities"].clone()
    };
    assert_eq!((of("ct"), of("films")), (answers[1]["probabilities"].clone(), offline["probabilities"].clone()));
    let (status, said) = server.said(&[("image", Some("film.png"), &bytes(&film)), ("tasks", None, b"ct")]);
    assert!(status == 422 && said.to_string().contains("film.png: not a volume"), "{status} {said}");
    let said =
        server.predict(&[("image", Some("film.png"), &bytes(&film)), ("tasks", None, b"all")]).expect("an answer");
    assert_eq!(said["images"][0]["answers"].as_array().map(Vec::len), Some(1), "{said}");
    let model = server.get("/v2/models/ct");
    assert_eq!(model["inputs"].as_array().map(Vec::len), Some(1), "{model}");
}

fn on_files(place: &Workplace, plugin: &Path, indices: &[usize]) -> Vec<Value> {
    let mut predict = on(place, &["predict"], plugin);
    run(predict.arg("--json").args(indices.iter().map(|index| place.at(format!("v{index}.npy"))))).json_lines()
}

#[test]
fn a_run_of_volumes_goes_on_to_the_same_bytes() {
    let place = Workplace::new();
    let data = volumes(&place);
    let (_, whole) = trained(&place, &data, "2");
    let whole = bytes(&whole);
    // The number of threads changes nothing, and neither does a run that is gone on with when it is done.
    let again = |mut command: Command, flag: &str| {
        command.args(["--epochs", "2", "--batch-size", "8", "--task", "ct", "--patience", "0", flag]).args(FLAGS);
        run(&mut command).good();
        bytes(&place.at("ct.safetensors"))
    };
    let (backbone, out) = (place.at("vit.safetensors"), place.at("ct.safetensors"));
    assert!(again(train_by(melo_with_threads(1), &backbone, &data, &out), "--overwrite") == whole, "another plug-in");
    assert!(again(train(&backbone, &data, &out), "--resume") == whole, "another plug-in after it was gone on with");
}

#[test]
fn what_is_of_images_alone_refuses_volumes_by_name() {
    let place = Workplace::new();
    let data = volumes(&place);
    let (_, plugin) = trained(&place, &data, "1");
    let refused = |command: &mut Command, status: i32, words: &str| run(command).refused(status, &[words]);
    let mut maps = on(&place, &["predict"], &plugin);
    refused(maps.arg("--heatmap").arg(place.at("maps")).arg(place.at("v1.npy")), 2, "--heatmap is for images");
    for format in ["onnx", "peft", "authors"] {
        let mut export = melo();
        export.args(["plugin", "export"]).arg(&plugin).arg("--backbone").arg(place.at("vit.safetensors"));
        refused(export.args(["--format", format, "--out"]).arg(place.at("out.onnx")), 1, "`ct` answers for volumes");
    }
    let mut merge = melo();
    merge.args(["plugin", "merge"]).arg(&plugin).arg("--backbone").arg(place.at("vit.safetensors"));
    refused(
        merge.args(["--layout", "timm"]).arg("--out").arg(place.at("merged.safetensors")),
        1,
        "`ct` answers for volumes",
    );
    let mut embed = on(&place, &["embed"], &plugin);
    refused(embed.arg("--data").arg(&data).arg("--out").arg(place.at("x.npy")), 1, "`ct` answers for volumes");
    let attempts: [(&[&str], i32, &str); 7] = [
        (&["--volumes", "--method", "linear"], 2, "the embedding of volumes is trained with low-rank updates"),
        (&["--volumes", "--method", "full"], 2, "the embedding of volumes is trained with low-rank updates"),
        (&["--volumes", "--volume-size", "40"], 2, "--volume-size 40: expected a multiple of the backbone's patch, 16"),
        (&["--volumes", "--volume-patch", "7"], 2, "--volume-patch 7: expected a divisor of the volume's side, 64"),
        (&["--volumes", "--volume-size", "640"], 2, "more than 67108864 voxels"),
        (&["--volumes", "--bag-axis", "axial"], 2, "--bag-axis"),
        (&["--volume-size", "32"], 2, "--volumes"),
    ];
    for (flags, status, words) in attempts {
        let out = run(train(&place.at("vit.safetensors"), &data, &place.at("y.safetensors")).args(flags));
        assert!(out.status == status && out.stderr.contains(words), "{flags:?}: {out:?}");
    }
    let png = place.at("film.png");
    let pixels = melo::imaging::Pixels { width: 8, height: 8, rgb: vec![7; 192] };
    melo::imaging::write_png(&png, &pixels).expect("an image");
    let out = run(on(&place, &["predict"], &plugin).arg(&png));
    assert!(out.status == 1 && out.stderr.contains("film.png: not a volume: a NIfTI-1 file"), "{out:?}");
}
