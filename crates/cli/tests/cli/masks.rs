//! Masks from a table to every answer.

use crate::server::Server;
use crate::workplace::{Workplace, melo, number, on, run, train};
use base64::Engine;
use melo::imaging::{Mask, MaskReading, Pixels, decode_mask, read_mask, write_mask_png, write_png};
use melo::vit::PluginInfo;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Sides of the images, px: not those of the network's input.
const SIDES: (usize, usize) = (48, 40);
/// Images of train, val and test.
const IMAGES: [(&str, usize); 3] = [("train", 24), ("val", 8), ("test", 8)];

/// A dark image with a bright box, and its mask.
fn drawn(index: usize) -> (Pixels, Mask) {
    let (width, height) = SIDES;
    let (left, top) = (4 + index * 7 % 20, 3 + index * 5 % 16);
    let inside = |at: usize| (left..left + 16).contains(&(at % width)) && (top..top + 14).contains(&(at / width));
    let labels: Vec<u8> = (0..width * height).map(|at| u8::from(inside(at))).collect();
    let grey = |(at, &label): (usize, &u8)| [if label == 1 { 200 } else { 30 + (at * 31 % 40) as u8 }; 3];
    let rgb = labels.iter().enumerate().flat_map(grey).collect();
    (Pixels { width, height, rgb }, Mask { width, height, labels })
}

/// Images with masks, and their table.
pub(crate) fn boxes(place: &Workplace) -> PathBuf {
    let mut table = String::from("path,mask,split\n");
    let mut all = 0;
    for (split, images) in IMAGES {
        for index in 0..images {
            let (pixels, mask) = drawn(all);
            let name = format!("{split}_{index}");
            write_png(&place.at(format!("{name}.png")), &pixels).expect("the image can be written");
            write_mask_png(&place.at(format!("{name}_mask.png")), &mask).expect("the mask can be written");
            table += &format!("{name}.png,{name}_mask.png,{split}\n");
            all += 1;
        }
    }
    place.write("labels.csv", table)
}

pub(crate) fn trained(place: &Workplace, data: &Path, name: &str, epochs: &str, flags: &[&str]) -> (Value, PathBuf) {
    let out = place.at(format!("{name}.safetensors"));
    let mut command = train(&place.tiny_backbone("vit", 5, None), data, &out);
    command.args(["--epochs", epochs, "--lr", "0.005", "--batch-size", "4", "--json", "--task", name]).args(flags);
    (run(&mut command).json(), out)
}

#[test]
fn masks_are_trained_measured_written_and_served() {
    let place = Workplace::new();
    let data = boxes(&place);
    let (report, plugin) = trained(&place, &data, "boxes", "10", &["--mask-classes", "rest,box"]);
    assert!(number(&report["val_dice"]) > 0.8, "{report}");
    let card = PluginInfo::read(&plugin).expect("a plug-in").card;
    assert_eq!((card.format, card.classes.join(","), card.temperature), (10, "rest,box".to_owned(), 1.0));
    assert_eq!((card.provenance.train_images_of.as_slice(), card.provenance.mask_digest.len()), (&[24, 24][..], 64));

    let table = place.at("images.csv");
    let mut measured = on(&place, &["eval"], &plugin);
    let measured = run(measured.arg("--data").arg(&data).arg("--json").arg("--predictions").arg(&table)).json();
    for figure in ["dice", "iou", "dice/box", "hd95/box", "surface_dice/box"] {
        assert_eq!(measured[figure], card.metrics[&format!("test_{figure}")], "{figure}");
    }
    assert!(number(&measured["dice"]) > 0.8 && measured["n"] == 8, "{measured}");
    let table = std::fs::read_to_string(table).expect("the table is written");
    assert!(table.starts_with("path,dice_box,iou_box,hd95_box,surface_dice_box,share_box,true_share_box\ntest_0.png,"));

    // The mask that is written is the one that was measured.
    let image = place.at("test_0.png");
    let mut predict = on(&place, &["predict"], &plugin);
    predict
        .arg("--json")
        .arg(&image)
        .arg("--masks")
        .arg(place.at("masks"))
        .args(["--mask-format", "png,overlay,nifti"]);
    let answer = run(&mut predict).json();
    let files: Vec<&Path> = answer["masks"]
        .as_array()
        .expect("masks")
        .iter()
        .map(|mask| Path::new(mask["path"].as_str().unwrap()))
        .collect();
    assert!(files[0].ends_with("test_0.boxes.png") && files[1].ends_with("test_0.boxes.overlay.png"), "{files:?}");
    let found = read_mask(files[0], &MaskReading::of_classes(2)).expect("a mask");
    assert_eq!((found.width, found.height), SIDES);
    assert_eq!(read_mask(files[2], &MaskReading::of_classes(2)).expect("a volume").counts(2), found.counts(2));
    let (_, truth) = drawn(32);
    let both = found.labels.iter().zip(&truth.labels).filter(|(a, b)| **a == 1 && **b == 1).count() as f64;
    let dice = 2.0 * both / (found.counts(2).0[1] + truth.counts(2).0[1]) as f64;
    let said: f64 = table.lines().nth(1).and_then(|line| line.split(',').nth(1)).unwrap().parse().unwrap();
    assert!((dice - said).abs() < 1e-9, "{dice} and {said}");
    let share = number(&answer["values"]["box"]);
    assert!((share - found.counts(2).0[1] as f64 / (48.0 * 40.0)).abs() < 0.02, "{answer}");
    assert!(answer.get("probabilities").is_none() && answer.get("predicted").is_none());
    let said = run(on(&place, &["predict"], &plugin).arg(&image)).good();
    assert!(said.contains(&format!("boxes: box {:.2} % of the image", 100.0 * share)), "{said}");

    run(melo().args(["plugin", "card"]).arg(&plugin).arg("--out").arg(place.at("card.html"))).good();
    let page = std::fs::read_to_string(place.at("card.html")).expect("the page is written");
    assert!(page.contains("Classes, on the test split") && page.contains("Surface Dice"), "{page}");
    for (form, flags) in [("onnx", &["--format", "onnx"][..]), ("peft", &["--format", "peft"])] {
        let mut export = melo();
        export.args(["plugin", "export"]).arg(&plugin).arg("--backbone").arg(place.at("vit.safetensors"));
        let ran = run(export.args(flags).arg("--out").arg(place.at(format!("exported.{form}"))));
        assert!(ran.status != 0 && ran.stderr.contains("a head that gives masks"), "{form}: {ran:?}");
    }

    // Beside a classifier, in one request, the server gives what was given alone.
    let labels = std::fs::read_to_string(&data).unwrap().replace("path,mask,split", "path,mask,split,label");
    let labels: String = (labels.lines().enumerate())
        .map(|(at, line)| if at == 0 { format!("{line}\n") } else { format!("{line},{}\n", ["a", "b"][at % 2]) })
        .collect();
    let labels = place.write("classes.csv", labels);
    let (_, classifier) = trained(&place, &labels, "classes", "1", &["--label-column", "label"]);
    let plugins = place.at("plugins");
    std::fs::create_dir(&plugins).expect("a folder");
    for plugin in [&plugin, &classifier] {
        std::fs::copy(plugin, plugins.join(plugin.file_name().unwrap())).expect("the plug-in is copied");
    }
    let mut command = melo();
    command.arg("serve").arg("--backbone").arg(place.at("vit.safetensors")).arg("--plugins").arg(&plugins);
    command.args(["--listen", "127.0.0.1:0", "--log", "off", "--state"]).arg(place.at("state"));
    let server = Server::start(&place, &mut command);
    let bytes = std::fs::read(&image).expect("the image");
    let asked = [("image", Some("test_0.png"), bytes.as_slice()), ("tasks", None, b"all"), ("masks", None, b"true")];
    let served = server.predict(&asked).expect("an answer");
    let answers = served["images"][0]["answers"].as_array().expect("answers");
    let of = |task: &str| answers.iter().find(|answer| answer["task"] == task).expect("an answer of the task");
    assert_eq!(of("boxes")["values"], answer["values"]);
    assert!(of("classes").get("mask").is_none() && of("classes")["predicted"].is_string());
    let png = base64::engine::general_purpose::STANDARD.decode(of("boxes")["mask"]["png"].as_str().unwrap()).unwrap();
    assert_eq!(decode_mask(&png, Path::new("served"), &MaskReading::of_classes(2)).expect("a mask"), found);
    let model = server.get("/v2/models/boxes");
    assert_eq!(
        model["outputs"][1],
        serde_json::json!({"name": "scores", "datatype": "FP32", "shape": [-1, 32, 32, 2]})
    );
    assert_eq!(server.signal("-TERM"), Some(0));
}

#[test]
fn a_training_on_masks_goes_on_where_it_was_and_not_with_other_masks() {
    let place = Workplace::new();
    let data = boxes(&place);
    let run_folder = place.at("run");
    let folder = run_folder.to_str().unwrap();
    let part = trained(&place, &data, "boxes", "2", &["--run", folder]).1;
    std::fs::remove_file(&part).unwrap();
    let (report, _) = trained(&place, &data, "boxes", "3", &["--resume", "--run", folder]);
    assert_eq!(report["epochs"], 3);
    assert!(number(&report["val_dice"]) > 0.5, "{report}");
    let (_, mut mask) = drawn(0);
    mask.labels[0] = 1;
    write_mask_png(&place.at("train_0_mask.png"), &mask).unwrap();
    let again = train(&place.at("vit.safetensors"), &data, &place.at("again.safetensors"))
        .args(["--epochs", "4", "--lr", "0.005", "--batch-size", "4", "--task", "boxes", "--resume", "--run", folder])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("the data"), "{said}");
}

#[test]
fn masks_that_cannot_be_learnt_are_refused_by_name() {
    let place = Workplace::new();
    boxes(&place);
    let backbone = place.tiny_backbone("vit", 5, None);
    let out = place.at("x.safetensors");
    let refused = |table: &str, flags: &[&str], parts: &[&str]| {
        let data = place.write("bad.csv", table);
        let ran = run(train(&backbone, &data, &out).args(["--epochs", "1"]).args(flags));
        let listed = ran.stderr.clone();
        assert!(ran.status != 0 && !out.exists(), "{ran:?}");
        parts.iter().for_each(|part| assert!(listed.contains(part), "expected {part:?} in {listed}"));
    };
    let good = |first: &str| {
        format!("path,mask,split\n{first}\ntrain_1.png,train_1_mask.png,train\nval_0.png,val_0_mask.png,val\n")
    };
    let small = Mask { width: 9, height: 9, labels: vec![1; 81] };
    write_mask_png(&place.at("small.png"), &small).unwrap();
    refused(&good("train_0.png,small.png,train"), &[], &["small.png", "9 x 9", "48 x 40"]);
    let (_, mut outside) = drawn(0);
    outside.labels[50] = 7;
    write_mask_png(&place.at("outside.png"), &outside).unwrap();
    refused(&good("train_0.png,outside.png,train"), &[], &["0, 1, 7", "--mask-values"]);
    refused(&good("train_0.png,outside.png,train"), &["--mask-classes", "rest,box"], &["0, 1, 7", "\"box\""]);
    refused(&good("train_0.png,outside.png,train"), &["--mask-values", "0,1"], &["outside.png", "value 7 at column 2"]);
    refused(&good("train_0.png,gone.png,train"), &[], &["gone.png"]);
    refused(
        &good("train_0.png,train_0_mask.png,train"),
        &["--class-weights", "balanced"],
        &["pixels are not weighted"],
    );
    let bags = "path,mask,split,bag\ntrain_0.png,train_0_mask.png,train,a\nval_0.png,val_0_mask.png,val,b\n";
    refused(bags, &[], &["bad.csv", "masks are of single images"]);
    refused(
        "path,label,split\ntrain_0.png,a,train\nval_0.png,b,val\n",
        &["--kind", "segmentation"],
        &["column of masks"],
    );
    let (_, plugin) = trained(&place, &place.at("labels.csv"), "plugin", "1", &["--mask-head", "linear"]);
    let mut heat = on(&place, &["predict"], &plugin);
    assert_eq!(run(heat.arg(place.at("test_0.png")).arg("--heatmap").arg(place.at("maps"))).status, 0);
    let labels = place.write("classes.csv", "path,label,split\ntest_0.png,a,test\ntest_1.png,b,test\n");
    run(on(&place, &["eval"], &plugin).arg("--data").arg(labels)).refused(1, &["classes.csv", "column of masks"]);
}
