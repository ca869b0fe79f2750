//! `melo data preset`, `presets` and `pack`: the real binary on small trees, and a training from a pack.

use crate::workplace::{Workplace, bytes, melo, run, train};
use melo::synthetic::Phantom;
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
        bytes(&plugin)
    });
    assert!(files == packed, "the plug-ins differ");
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
