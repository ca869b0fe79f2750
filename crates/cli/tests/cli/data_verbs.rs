//! `melo data preset`, `presets` and `pack`: the real binary on small trees, and a training from a pack.

use crate::workplace::{Workplace, bytes, melo, run, train};
use melo::synthetic::Phantom;
use melo::vit::{PluginInfo, TensorFile};
use std::path::Path;

/// BUSI in miniature, with a mask.
fn busi(workplace: &Workplace) {
    for name in ["benign/benign (1)", "benign/benign (1)_mask", "normal/normal (1)", "malignant/malignant (1)"] {
        workplace.write(&format!("busi/{name}.png"), b"not opened");
    }
}

#[test]
fn a_preset_is_checked_written_and_not_written_over() {
    let workplace = Workplace::new();
    busi(&workplace);
    let (folder, csv) = (workplace.at("busi"), workplace.at("busi/labels.csv"));
    let text = run(melo().args(["data", "preset", "busi", "--check"]).arg(&folder)).good();
    assert!(text.contains("images    3 (published: 780)") && text.contains("class     benign: 1"), "{text}");
    assert!(!csv.exists(), "a check writes nothing");
    let value = run(melo().args(["data", "preset", "busi", "--json"]).arg(&folder)).json();
    assert_eq!((&value["images"]["found"], &value["images"]["expected"]), (&3.into(), &780.into()));
    assert_eq!(value["manifest"], csv.to_string_lossy().as_ref());
    let text = String::from_utf8(bytes(&csv)).expect("it is text");
    assert_eq!(text.lines().next(), Some("path,label"));
    assert_eq!(text.lines().count(), 4);
    run(melo().args(["data", "preset", "busi"]).arg(&folder)).refused(1, &["labels.csv: exists already"]);
    run(melo().args(["data", "preset", "busi", "--overwrite"]).arg(&folder)).good();
}

#[test]
fn presets_are_refused_by_name() {
    let workplace = Workplace::new();
    busi(&workplace);
    let folder = workplace.at("busi");
    run(melo().args(["data", "preset", "no-such-set"]).arg(&folder)).refused(2, &["no preset \"no-such-set\"", "busi"]);
    run(melo().args(["data", "preset", "busi", "--policy", "ones"]).arg(&folder)).refused(2, &["policy ones"]);
    run(melo().args(["data", "preset", "ham10000"]).arg(&folder))
        .refused(1, &["looked for **/HAM10000_metadata.csv", "benign/"]);
    run(melo().args(["data", "preset", "busi"]).arg(workplace.at("none"))).refused(1, &["none: cannot be read"]);
    std::fs::remove_dir_all(workplace.at("busi/normal")).expect("it is there");
    std::fs::remove_dir_all(workplace.at("busi/malignant")).expect("it is there");
    let ran = run(melo().args(["data", "preset", "busi", "--check"]).arg(&folder));
    assert_eq!(ran.status, 1);
    assert!(ran.stdout.contains("problem   expected at least two classes"), "{}", ran.stdout);
    let ran = run(melo().args(["data", "preset", "busi"]).arg(&folder));
    assert!(ran.status == 1 && ran.stderr.contains("nothing written") && !workplace.at("busi/labels.csv").exists());
}

#[test]
fn presets_are_listed() {
    let text = run(melo().args(["data", "presets"])).good();
    assert!(text.lines().any(|line| line.starts_with("nih-chestxray14") && line.contains("112120")), "{text}");
    let lines = run(melo().args(["data", "presets", "--json"])).json_lines();
    assert_eq!(lines.len(), text.lines().count());
    assert!(lines.iter().all(|line| line["url"].is_string() && line["licence"].is_string()));
}

fn pack(manifest: &Path, out: &Path) -> std::process::Command {
    let mut command = melo();
    command.args(["data", "pack"]).arg(manifest).arg("--out").arg(out).args(["--size", "32"]);
    command
}

#[test]
fn training_from_a_pack_is_training_from_the_files() {
    let workplace = Workplace::new();
    let backbone = workplace.tiny_backbone("vit", 1, None);
    let data = workplace.phantoms(Phantom::Fundus, 32, [9, 6, 6]);
    let out = workplace.at("fundus.pack");
    let from_backbone =
        run(melo().args(["data", "pack", "--json"]).arg(&data).arg("--out").arg(&out).arg("--backbone").arg(&backbone))
            .json();
    assert_eq!((&from_backbone["images"], &from_backbone["finished"]), (&21.into(), &true.into()));
    let [files, packed] = [("files", &data), ("packed", &out)].map(|(name, data)| {
        let plugin = workplace.at(format!("{name}.safetensors"));
        run(train(&backbone, data, &plugin).args(["--epochs", "2", "--task", "fundus"])).good();
        let mut card = PluginInfo::read(&plugin).expect("a plug-in").card;
        let file = TensorFile::open(&plugin).expect("a plug-in");
        let shapes = file.shapes().expect("a plug-in");
        let tensors: Vec<_> = shapes.iter().map(|(name, shape)| file.read(name, shape).expect("a tensor")).collect();
        // It says what it was trained from.
        let data = std::mem::take(&mut card.provenance.data);
        (card, shapes, tensors, data)
    });
    assert_eq!((&files.3[..], &packed.3[..]), ("fundus/labels.csv", "fundus.pack"));
    assert!((files.0, files.1, files.2) == (packed.0, packed.1, packed.2), "the plug-ins differ");
    run(melo().args(["data", "check"]).arg(&out)).good();
    let other = workplace.at("other.safetensors");
    run(train(&backbone, &out, &other).args(["--crop-mode", "center"]))
        .refused(1, &["fundus.pack: packed for", "center"]);
}

#[test]
fn a_pack_waits_for_broken_images_and_is_refused_when_stale() {
    let workplace = Workplace::new();
    let data = workplace.phantoms(Phantom::Fundus, 32, [6, 6, 6]);
    let out = workplace.at("fundus.pack");
    let image = workplace.at("fundus/test_0.png");
    let good = bytes(&image);
    std::fs::write(&image, &good[..good.len() / 2]).expect("it can be written");
    let ran = run(&mut pack(&data, &out));
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ""));
    assert!(
        ran.stderr.contains("test_0.png: damaged PNG") && ran.stderr.contains("1 of 18 images cannot be read"),
        "{}",
        ran.stderr
    );
    run(melo().args(["data", "check"]).arg(&out)).refused(1, &["fundus.pack: a pack that is not finished"]);
    std::fs::write(&image, good).expect("it can be written");
    run(&mut pack(&data, &out)).good();
    run(melo().args(["data", "check"]).arg(&out)).good();
    run(pack(&data, &workplace.at("deep.pack")).args(["--depth", "16"])).refused(1, &["depth 16"]);
    let text = String::from_utf8(bytes(&data)).expect("it is text");
    let fewer: Vec<&str> = text.lines().take(12).collect();
    std::fs::write(&data, fewer.join("\n")).expect("it can be written");
    run(melo().args(["data", "check"]).arg(&out)).refused(1, &["fundus.pack: stale", "labels.csv has changed"]);
}

/// Eight images `img/0.png` to `img/7.png`.
fn images(workplace: &Workplace) {
    std::fs::create_dir_all(workplace.at("img")).expect("the folder can be made");
    (0..8).for_each(|index| workplace.image(&format!("img/{index}.png"), Phantom::Fundus, 0, index, 48));
}

/// A table of them: what follows the name on each line.
fn table(header: &str, line: impl Fn(usize) -> String) -> String {
    let lines = (0..8).map(|index| format!("img/{index}.png,{}\n", line(index)));
    format!("{header}\n{}", lines.collect::<String>())
}

#[test]
fn warnings_are_printed_and_strict_refuses_them() {
    let workplace = Workplace::new();
    images(&workplace);
    let nan =
        workplace.write("nan.csv", table("path,label,age", |index| format!("{},{index}", ["a", "nan"][index % 2])));
    let ran = run(melo().args(["data", "check"]).arg(&nan));
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.stdout.contains("\"nan\" (4 images: lines 3, 5, 7, ...)"), "{}", ran.stdout);
    let strict = run(melo().args(["data", "check", "--strict"]).arg(&nan));
    assert_eq!(strict.status, 1);
    assert!(strict.stderr.contains("nan.csv") && strict.stderr.contains("refused by --strict"), "{}", strict.stderr);
    let backbone = workplace.tiny_backbone("vit", 1, None);
    let out = workplace.at("x.safetensors");
    let refused = run(train(&backbone, &nan, &out).arg("--strict"));
    assert!(refused.status == 1 && refused.stderr.contains("warning: ") && !out.exists(), "{}", refused.stderr);
    let value = run(melo().args(["data", "check", "--json"]).arg(&nan)).json();
    assert_eq!(value["warnings"][0]["kind"], "missing_as_class");
    assert_eq!(value["notes"][0]["kind"], "metadata");
}

#[test]
fn columns_and_folders_are_named_by_flags() {
    let workplace = Workplace::new();
    images(&workplace);
    let lines = (0..8).map(|index| format!("{index};{};p{}\n", ["a", "b"][index % 2], index / 2)).collect::<String>();
    let csv = workplace.write("lab.csv", format!("Bild;Befund;PatNr\n{lines}"));
    let named = ["--path-column", "Bild", "--label-column", "Befund", "--patient-column", "PatNr"];
    let value =
        run(melo().args(["data", "check", "--json"]).arg(&csv).arg("--images").arg(workplace.at("img")).args(named))
            .json();
    assert_eq!(
        (&value["images"], &value["patients"], &value["problems"]),
        (&8.into(), &4.into(), &serde_json::json!([]))
    );
    run(melo().args(["data", "check"]).arg(&csv)).refused(1, &["no column \"path\"", "--path-column NAME"]);
}

#[test]
fn subgroups_of_the_manifest_and_of_a_table_that_lists_nothing() {
    let workplace = Workplace::new();
    images(&workplace);
    let line = |index: usize| {
        format!(
            "{},{},{}",
            ["train", "val", "test", "test"][index / 2],
            ["a", "b"][index % 2],
            ["F", "M"][index / 2 % 2]
        )
    };
    let data = workplace.write("labels.csv", table("path,split,label,sex", line));
    let (backbone, plugin) = (workplace.tiny_backbone("vit", 1, None), workplace.at("x.safetensors"));
    run(train(&backbone, &data, &plugin).args(["--epochs", "1"])).good();
    let eval = |more: &[&std::ffi::OsStr]| {
        let mut command = melo();
        command
            .args(["eval", "--json", "--backbone"])
            .arg(&backbone)
            .arg("--plugin")
            .arg(&plugin)
            .arg("--data")
            .arg(&data);
        run(command.args(["--subgroup", "sex"]).args(more))
    };
    let value = eval(&[]).json();
    assert_eq!(value["subgroups"][0]["value"], "F");
    let meta = workplace.write("meta.csv", "path,sex\nother/1.png,F\n");
    eval(&["--meta".as_ref(), meta.as_os_str()])
        .refused(1, &["meta.csv: lists none of the 4 images", "\"img/4.png\"", "\"other/1.png\""]);
}

#[test]
fn files_of_a_folder_that_are_left_out_are_named() {
    let workplace = Workplace::new();
    let own = workplace.tiny_backbone("vit", 1, Some(3));
    images(&workplace);
    std::fs::rename(workplace.at("img/1.png"), workplace.at("img/IM0001")).expect("it can be renamed");
    std::fs::create_dir(workplace.at("img/deep")).expect("the folder can be made");
    std::fs::rename(workplace.at("img/2.png"), workplace.at("img/deep/2.jfif")).expect("it can be renamed");
    workplace.write("img/notes.txt", "notes");
    let ran = run(melo().args(["predict", "--json", "--backbone"]).arg(&own).arg(workplace.at("img")));
    assert!(ran.stderr.contains("1 of 9 files is no image: notes.txt"), "{}", ran.stderr);
    assert_eq!(ran.json_lines().len(), 8);
    // Heat maps of an earlier run are no images.
    let maps = workplace.at("img/maps");
    for _ in 0..2 {
        let mut command = melo();
        command.args(["predict", "--json", "--backbone"]).arg(&own).arg(workplace.at("img"));
        assert_eq!(run(command.arg("--heatmap").arg(&maps)).json_lines().len(), 8);
    }
}
