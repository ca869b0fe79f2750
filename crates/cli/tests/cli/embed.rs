//! `melo embed`: inputs as the other verbs take them, files that say whose numbers they hold, and a kill that loses one chunk.

use crate::workplace::{Workplace, bytes, melo, run, train};
use melo::synthetic::Phantom;
use melo::vit::TensorFile;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// A tiny backbone, a task and its plug-in, made once for all tests, which only read them.
struct Bench {
    workplace: Workplace,
    backbone: PathBuf,
    data: PathBuf,
    plugin: PathBuf,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let workplace = Workplace::lasting("embed");
    let backbone = workplace.tiny_backbone("vit", 1, None);
    let data = workplace.phantoms(Phantom::Fundus, 32, [40, 20, 20]);
    let plugin = workplace.at("fundus.safetensors");
    run(train(&backbone, &data, &plugin).args(["--epochs", "1"])).good();
    Bench { workplace, backbone, data, plugin }
});

impl Bench {
    fn embed(&self, out: &Path) -> Command {
        let mut command = melo();
        command.arg("embed").arg("--backbone").arg(&self.backbone).arg("--out").arg(out);
        command
    }

    fn image(&self, index: usize) -> PathBuf {
        self.workplace.at(format!("fundus/test_{index}.png"))
    }
}

fn features(path: &Path, shape: &[usize]) -> Vec<f32> {
    TensorFile::open(path).expect("a safetensors file").read("features", shape).expect("the features")
}

fn rows(array: &Path) -> Vec<String> {
    let table = std::fs::read_to_string(array.with_extension("rows.csv")).expect("a table beside the array");
    table.lines().map(str::to_owned).collect()
}

fn about(array: &Path) -> Value {
    serde_json::from_slice(&bytes(&array.with_extension("about.json"))).expect("JSON beside the array")
}

#[test]
fn a_manifest_gives_a_row_an_image_with_what_it_says() {
    let (bench, place) = (&*BENCH, Workplace::new());
    let out = place.at("val.npy");
    let report = run(bench.embed(&out).arg("--data").arg(&bench.data).args(["--split", "val", "--json"])).json();
    assert_eq!((&report["rows"], &report["shape"]), (&20.into(), &serde_json::json!([20, 64])));
    assert_eq!((&report["what"], &report["block"], &report["norm"]), (&"pooled".into(), &1.into(), &true.into()));
    assert_eq!((&report["dtype"], &report["precision"], &report["resumed"]), (&"f32".into(), &"f32".into(), &0.into()));
    assert_eq!((&report["failed"], &report["plugin_digest"]), (&serde_json::json!([]), &Value::Null));
    assert_eq!(report["bytes"], bytes(&out).len());
    assert_eq!(report["backbone_digest"], about(&out)["backbone"]["digest"]);
    let rows = rows(&out);
    assert_eq!((rows.len(), rows[0].as_str()), (21, "row,path,digest,line,patient_id,split,label"));
    assert!(rows[1].starts_with("0,val_0.png,") && rows[1].contains(",42,,val,"), "{}", rows[1]);
}

#[test]
fn a_plugin_changes_features_and_brings_its_preprocessing() {
    let (bench, place) = (&*BENCH, Workplace::new());
    let of = |name: &str, plugin: bool| {
        let out = place.at(name);
        let mut command = bench.embed(&out);
        if plugin {
            command.arg("--plugin").arg(&bench.plugin);
        }
        run(command.arg(bench.image(0)).arg("--json")).json();
        features(&out, &[1, 64])
    };
    let (bare, adapted) = (of("bare.safetensors", false), of("adapted.safetensors", true));
    assert_ne!(bare, adapted);
    let info = run(melo().args(["plugin", "info", "--json"]).arg(&bench.plugin)).json();
    let said = TensorFile::open(&place.at("adapted.safetensors")).expect("the file").metadata().expect("its header");
    let said: Value = serde_json::from_str(&said["melo.embed"]).expect("JSON");
    assert_eq!(said["task"], "fundus");
    assert_eq!(said["plugin_digest"], info["plugin_digest"]);
    let no = place.at("no.npy");
    let ran = run(bench.embed(&no).arg("--plugin").arg(&bench.plugin).args(["--image-size", "64"]).arg(bench.image(0)));
    assert!(ran.status == 2 && ran.stderr.contains("--image-size"), "a plug-in says its size: {ran:?}");
}

#[test]
fn folders_lists_and_single_images_are_the_same_rows() {
    let (bench, place) = (&*BENCH, Workplace::new());
    let names: Vec<String> = (0..3).map(|index| format!("{index}.png")).collect();
    for (index, name) in names.iter().enumerate() {
        std::fs::copy(bench.image(index), place.at(name)).expect("a copy");
    }
    let list = place.write("list.txt", names.join("\n"));
    let folder = place.at("");
    let of = |name: &str, inputs: &[&Path]| {
        let out = place.at(name);
        run(bench.embed(&out).args(inputs)).good();
        features(&out, &[3, 64])
    };
    let one_by_one: Vec<PathBuf> = names.iter().map(|name| place.at(name)).collect();
    let expected = of("a.safetensors", &one_by_one.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    assert_eq!(of("b.safetensors", &[&folder]), expected);
    assert_eq!(of("c.safetensors", &[Path::new("--list"), &list]), expected);
}

#[test]
fn every_kind_block_and_dtype() {
    let (bench, place) = (&*BENCH, Workplace::new());
    for (what, shape) in [("class", vec![1, 64]), ("mean", vec![1, 64]), ("grid", vec![1, 2, 2, 64])] {
        let mut seen: Vec<Vec<f32>> = Vec::new();
        for more in [&[][..], &["--block", "0"], &["--block", "0", "--no-norm"]] {
            let out = place.at("features.safetensors");
            run(bench.embed(&out).arg(bench.image(0)).args(["--what", what]).args(more)).good();
            let values = features(&out, &shape);
            assert!(!seen.contains(&values), "{what} {more:?}");
            seen.push(values);
        }
    }
    let out = place.at("half.npy");
    run(bench.embed(&out).arg(bench.image(0)).args(["--dtype", "f16", "--precision", "bf16"])).good();
    assert_eq!(bytes(&out).len(), 128 + 64 * 2);
    assert_eq!((&about(&out)["dtype"], &about(&out)["precision"]), (&"f16".into(), &"bf16".into()));
}

#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_and_ends_with_the_same_bytes() {
    let (bench, place) = (&*BENCH, Workplace::new());
    let command = |out: &Path| {
        let mut command = bench.embed(out);
        command.arg("--data").arg(&bench.data).args(["--what", "grid"]);
        command
    };
    let (straight, out) = (place.at("straight.safetensors"), place.at("killed.safetensors"));
    run(&mut command(&straight)).good();
    let journal = place.at("killed.safetensors.partial/journal.json");
    let mut child = command(&out).spawn().expect("the command starts");
    let chunk = || std::fs::read_to_string(&journal).is_ok_and(|journal| !journal.contains("\"done\":0"));
    while !chunk() && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().expect("the process ends");
    let report = run(command(&out).arg("--json")).json();
    assert_eq!(report["rows"], 80);
    assert!(bytes(&out) == bytes(&straight));
    assert!(!place.at("killed.safetensors.partial").exists());
    assert_eq!(place.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn a_broken_image_is_named_and_the_others_are_written() {
    let (bench, place) = (&*BENCH, Workplace::new());
    let broken = place.write("broken.png", "no image");
    let out = place.at("features.npy");
    let ran = run(bench.embed(&out).arg(bench.image(0)).arg(&broken).arg(bench.image(1)).arg("--json"));
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("broken.png"), "{}", ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).expect("a report all the same");
    assert_eq!((&report["rows"], &report["failed"][0]["row"]), (&2.into(), &1.into()));
    assert!(rows(&out)[2].starts_with("2,"));
    let ran = run(bench.embed(&place.at("none.npy")).arg(&broken).arg(place.at("gone.png")));
    let last = ran.stderr.lines().last();
    assert!(ran.status == 1 && last.is_some_and(|line| line.contains("none of 2 images could be read")), "{ran:?}");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_computed() {
    let (bench, place) = (&*BENCH, Workplace::new());
    let refused = |out: &Path, more: &[&str], status: i32, parts: &[&str]| {
        run(bench.embed(out).arg(bench.image(0)).args(more)).refused(status, parts);
    };
    refused(&place.at("features.csv"), &[], 2, &["features.csv", ".npy, .safetensors or .parquet"]);
    refused(&place.at("gone/features.npy"), &[], 2, &["features.npy", "the folder does not exist"]);
    refused(&bench.backbone, &[], 2, &["vit.safetensors", "would replace"]);
    refused(&place.at("features.npy"), &["--block", "2"], 2, &["block 2", "blocks are 0 to 1"]);
    refused(&place.at("features.npy"), &["--no-norm"], 2, &["what heads read has its norms"]);
    refused(&place.at("features.npy"), &["--image-size", "40"], 2, &["40", "16"]);
    if !cfg!(feature = "parquet") {
        refused(&place.at("features.parquet"), &[], 2, &["features.parquet", "--features parquet"]);
    }
    let labels = place.write("features.rows.csv", bytes(&bench.data));
    run(bench.embed(&place.at("features.npy")).arg("--data").arg(&labels)).refused(2, &["would replace"]);
    assert_eq!(bytes(&labels), bytes(&bench.data));
}
