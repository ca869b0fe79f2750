//! Backbones of others and DICOM through the real binary: info, verify, import; headers as a manifest, a frame and a window.

use crate::workplace::{Workplace, bytes, melo, run, train};
use melo::synthetic::Phantom;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop/tests/golden/families").join(name)
}

#[test]
fn a_backbone_is_told_verified_and_imported() {
    let new = Workplace::new();
    let (folder, expected) = (family("hf-dinov2-registers"), family("hf-dinov2-registers.safetensors"));
    let text = run(melo().args(["backbone", "info"]).arg(&folder)).good();
    assert!(text.contains("4 registers, layer scale") && text.contains("3 classes"), "{text}");

    let verified =
        run(melo().args(["backbone", "verify", "--json"]).arg(&folder).arg("--against").arg(&expected)).json();
    assert!(verified["relative_difference"].as_f64().is_some_and(|difference| difference < 2e-5), "{verified}");
    let digest = verified["backbone_digest"].as_str().expect("a digest");
    run(melo().args(["backbone", "verify"]).arg(&folder).args(["--digest", &digest[..12]])).good();
    run(melo().args(["backbone", "verify"]).arg(&folder).args(["--digest", "00000000"]))
        .refused(1, &[digest, "00000000"]);
    run(melo().args(["backbone", "verify"]).arg(&folder).args(["--digest", &digest[..4]])).refused(2, &["8 digits"]);
    run(melo().args(["backbone", "verify"]).arg(&folder)).refused(2, &["--against"]);
    run(melo().args(["backbone", "verify"]).arg(family("hf-dinov2")).arg("--against").arg(&expected))
        .refused(1, &["hf-dinov2", "logits differ"]);
    run(melo().args(["backbone", "verify"]).arg(&folder).arg("--against").arg(folder.join("model.safetensors")))
        .refused(1, &["`pixels` is missing"]);

    // Own format: the same digest, and needs no JSON.
    let own = new.at("own.safetensors");
    let imported = run(melo().args(["backbone", "import", "--json"]).arg(&folder).arg("--out").arg(&own)).json();
    assert_eq!(imported["backbone_digest"], digest);
    run(melo().args(["backbone", "verify"]).arg(&own).args(["--digest", digest])).good();

    // Weights without a JSON say what to do, and are read once their statistics are named.
    let bare = new.write("dino.pth", bytes(&family("timm-dino-pth/checkpoint.pth")));
    let import = |more: &[&str]| run(melo().args(["backbone", "import"]).arg(&bare).arg("--out").arg(&own).args(more));
    import(&[]).refused(1, &["dino.pth", "--statistics"]);
    // Its width of 24 is no multiple of 64.
    import(&["--statistics", "imagenet"]).refused(1, &["dino.pth", "num_heads"]);
    run(melo().args(["backbone", "import", "--statistics", "imagenet"]).arg(&folder).arg("--out").arg(&own))
        .refused(1, &["config.json", "leave --statistics away"]);
}

/// Of a backbone with attention pooling: trained as any other, heat maps, features; it has no class token.
#[test]
fn a_backbone_without_a_class_token_is_trained_explained_and_embedded() {
    let new = Workplace::new();
    let (backbone, plugin, maps) = (family("timm-siglip"), new.at("fundus.safetensors"), new.at("maps"));
    let data = new.phantoms(Phantom::Fundus, 16, [10, 5, 5]);
    let text = run(melo().args(["backbone", "info"]).arg(&backbone)).good();
    assert!(text.contains("pooling Map, no class token"), "{text}");
    run(train(&backbone, &data, &plugin).args(["--epochs", "2"])).good();
    let mut seen = Vec::new();
    for method in ["gradient", "rollout"] {
        let mut command = melo();
        command.arg("predict").arg("--backbone").arg(&backbone).arg("--plugin").arg(&plugin).arg("--json");
        command.args(["--heatmap-method", method]).arg("--heatmap").arg(&maps).arg(new.at("fundus/test_0.png"));
        let line = run(&mut command).json();
        seen.push(bytes(Path::new(line["heatmaps"][0]["path"].as_str().expect("a path"))));
    }
    assert!(seen[0] != seen[1], "two methods, one map");
    let out = new.at("features.safetensors");
    let embed = |what: &str| {
        let mut command = melo();
        command.arg("embed").arg("--backbone").arg(&backbone).arg("--out").arg(&out).args(["--what", what]);
        run(command.arg(new.at("fundus/test_0.png")))
    };
    embed("pooled").good();
    embed("grid").good();
    embed("class").refused(2, &["the class token of a backbone that has none"]);
}

/// An explicit little-endian data set of two frames of 4 × 4 grey values, the second brighter, and its header.
fn two_frames(patient: &str) -> Vec<u8> {
    let mut file = vec![0; 128];
    file.extend(b"DICM");
    let mut add = |group: u16, element: u16, vr: &[u8; 2], value: &[u8]| {
        file.extend(group.to_le_bytes());
        file.extend(element.to_le_bytes());
        file.extend(vr);
        let padded = value.len().next_multiple_of(2);
        match vr {
            b"OW" => file.extend([&[0, 0][..], &(padded as u32).to_le_bytes()].concat()),
            _ => file.extend((padded as u16).to_le_bytes()),
        }
        file.extend(value);
        file.resize(file.len() + padded - value.len(), b' ');
    };
    add(0x0002, 0x0010, b"UI", b"1.2.840.10008.1.2.1\0");
    add(0x0008, 0x0060, b"CS", b"CT");
    add(0x0010, 0x0020, b"LO", patient.as_bytes());
    for (element, value) in
        [(0x0002, 1u16), (0x0010, 4), (0x0011, 4), (0x0100, 16), (0x0101, 16), (0x0102, 15), (0x0103, 1)]
    {
        if element == 0x0010 {
            add(0x0028, 0x0004, b"CS", b"MONOCHROME2");
            add(0x0028, 0x0008, b"IS", b"2");
        }
        add(0x0028, element, b"US", &value.to_le_bytes());
    }
    add(0x0028, 0x1052, b"DS", b"-1024");
    add(0x0028, 0x1053, b"DS", b"1");
    let hounsfield = (0..32).map(|i| if i < 16 { -600 + 10 * i } else { 40 });
    let stored: Vec<u8> = hounsfield.flat_map(|value: i16| (value + 1024).to_le_bytes()).collect();
    add(0x7fe0, 0x0010, b"OW", &stored);
    file
}

#[test]
fn dicom_headers_become_a_manifest_and_frames_are_images() {
    let new = Workplace::new();
    new.write("study/b/2.dcm", two_frames("P2"));
    new.write("study/1.dcm", two_frames("P1"));
    new.write("study/notes.txt", b"no image");
    let (study, csv) = (new.at("study"), new.at("images.csv"));
    let said = run(melo().args(["data", "dicom", "--json"]).arg(&study).arg("--out").arg(&csv)).json();
    assert_eq!((&said["images"], &said["without_value"]["patient_id"]), (&Value::from(2), &Value::from(0)), "{said}");
    let text = String::from_utf8(bytes(&csv)).expect("text");
    assert!(text.starts_with("path,patient_id,PatientSex,"), "{text}");
    assert!(text.contains("study/1.dcm,P1,,,CT") && text.contains("study/b/2.dcm,P2,,,CT"), "{text}");

    let columns = ["--column", "patient_id=PatientID", "--column", "kind=0008,0060", "--frames", "all"];
    run(melo().args(["data", "dicom"]).arg(&study).args(columns).arg("--out").arg(&csv)).good();
    let text = String::from_utf8(bytes(&csv)).expect("text");
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains("study/b/2.dcm#frame=2,P2,CT"), "{text}");
    new.write("lists/notes.txt", b"a folder beside the images");
    let beside = new.at("lists/images.csv");
    run(melo().args(["data", "dicom"]).arg(&study).args(columns).arg("--out").arg(&beside)).good();
    let text = String::from_utf8(bytes(&beside)).expect("text");
    assert!(text.contains("\n../study/b/2.dcm#frame=2,P2,CT"), "{text}");
    let ran = run(melo().args(["data", "dicom"]).arg(&study).args(["--column", "x=NoSuchWord"]).arg("--out").arg(&csv));
    assert!(ran.status == 2 && ran.stderr.contains("`NoSuchWord` is no keyword"), "{}", ran.stderr);

    // Both frames of one file, and a file of that name is still the first frame.
    let backbone = new.tiny_backbone("vit", 1, Some(3));
    let answer = |image: &str| {
        let image = new.at(image);
        let lines = run(melo().arg("predict").arg("--backbone").arg(&backbone).arg(image).arg("--json")).json_lines();
        lines[0].to_string()
    };
    let probabilities =
        |line: String| line.split_once("\"probabilities\"").map(|(_, rest)| rest.to_owned()).expect("an answer");
    let (first, second) = (probabilities(answer("study/1.dcm#frame=1")), probabilities(answer("study/1.dcm#frame=2")));
    assert_ne!(first, second, "frames are different images");
    assert_eq!(probabilities(answer("study/1.dcm")), first);
    run(melo().arg("predict").arg("--backbone").arg(&backbone).arg(new.at("study/1.dcm#frame=3")))
        .refused(1, &["1.dcm", "frame 3"]);
}

#[test]
fn another_feature_is_imported_where_it_is_asked_for() {
    let new = Workplace::new();
    let (own, again) = (new.at("own.safetensors"), new.at("again.safetensors"));
    let import = |pool: &str, weights: &Path, out: &Path| {
        run(melo().args(["backbone", "import", "--json", "--pool", pool]).arg(weights).arg("--out").arg(out))
    };
    assert_eq!(import("tokenavg", &family("virchow2"), &own).json()["config"]["pool"], "tokenavg");
    import("avg", &own, &again).refused(1, &["own.safetensors", "no other feature"]);
    import("token", &family("timm-gap"), &again).refused(1, &["config.json", "class_token"]);
    assert!(!again.exists());
}
