//! Grades and numbers from a table to every answer.

use crate::server::Server;
use crate::workplace::{Workplace, melo, number, on, run, train};
use melo::imaging::{Pixels, write_png};
use melo::vit::PluginInfo;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Side of the images, px.
const SIDE: usize = 32;
/// Images of train, val and test.
const IMAGES: [(&str, usize); 3] = [("train", 40), ("val", 20), ("test", 20)];

/// Grey images, each as bright as its number: a table with the column `age`, from 20 to 100, and the column `label`, a grade.
fn ages(place: &Workplace) -> PathBuf {
    let mut table = String::from("path,split,age,label\n");
    for (split, images) in IMAGES {
        for index in 0..images {
            let share = (index * 7 % images) as f32 / images as f32;
            let name = format!("{split}_{index}.png");
            let grey = (40.0 + 160.0 * share) as u8;
            write_png(&place.at(&name), &Pixels { width: SIDE, height: SIDE, rgb: vec![grey; 3 * SIDE * SIDE] })
                .expect("the image can be written");
            let grade = ["low", "middle", "high"][(3.0 * share) as usize];
            table += &format!("{name},{split},{},{grade}\n", 20.0 + 80.0 * share);
        }
    }
    place.write("labels.csv", table)
}

fn trained(place: &Workplace, data: &Path, name: &str, flags: &[&str]) -> (Value, PathBuf) {
    let out = place.at(format!("{name}.safetensors"));
    let mut command = train(&place.tiny_backbone("vit", 5, None), data, &out);
    command.args(["--epochs", "12", "--lr", "0.02", "--batch-size", "8", "--no-augment", "--json"]).args(flags);
    (run(&mut command).json(), out)
}

#[test]
fn numbers_are_trained_measured_answered_and_served_in_their_units() {
    let place = Workplace::new();
    let data = ages(&place);
    let (report, plugin) =
        trained(&place, &data, "age", &["--task", "age", "--kind", "regression", "--label-column", "age"]);
    assert!(number(&report["val_r2"]) > 0.8 && report.get("val_auc_macro").is_none(), "{report}");
    let card = PluginInfo::read(&plugin).expect("a plug-in").card;
    assert_eq!((card.format, card.classes.join(","), card.temperature), (10, "age".to_owned(), 1.0));
    assert!(card.metrics["test_mae/age"] < 8.0 && card.metrics["test_baseline_mae/age"] > 15.0, "{:?}", card.metrics);
    assert_eq!(card.test.expect("a test split").pairs[0].len(), 20);

    let table = place.at("predictions.csv");
    let mut measured = on(&place, &["eval"], &plugin);
    let measured = run(measured.arg("--data").arg(&data).arg("--json").arg("--predictions").arg(&table)).json();
    assert_eq!((&measured["n"], &measured["classes"]), (&20.into(), &serde_json::json!(["age"])));
    assert_eq!(measured["mae/age"], card.metrics["test_mae/age"]);
    let low_high = &measured["intervals"]["mae/age"];
    assert!(
        number(&low_high[0]) <= number(&measured["mae/age"]) && number(&measured["mae/age"]) <= number(&low_high[1])
    );
    let table = std::fs::read_to_string(table).expect("the table is written");
    assert!(table.starts_with("path,label_age,age,scope_score\ntest_0.png,20,"), "{table}");

    let image = place.at("test_0.png");
    let answer = run(on(&place, &["predict"], &plugin).arg("--json").arg(&image)).json();
    let age = number(&answer["values"]["age"]);
    assert!((10.0..60.0).contains(&age), "{answer}");
    assert!(answer.get("probabilities").is_none() && answer.get("predicted").is_none());
    let said = run(on(&place, &["predict"], &plugin).arg(&image)).good();
    assert!(said.contains(&format!("age {age:.4}")), "{said}");
    let mut maps = on(&place, &["predict"], &plugin);
    maps.arg(&image).arg("--heatmap").arg(place.at("maps")).arg("--json");
    assert_eq!(run(&mut maps).json()["heatmaps"][0]["class"], "age");

    run(melo().args(["plugin", "card"]).arg(&plugin).arg("--out").arg(place.at("card.html"))).good();
    let page = std::fs::read_to_string(place.at("card.html")).expect("the page is written");
    assert!(page.contains("Numbers, on the test split") && page.contains("Answers against the truth"), "{page}");

    let plugins = place.at("plugins");
    std::fs::create_dir(&plugins).expect("a folder");
    std::fs::copy(&plugin, plugins.join("age.safetensors")).expect("the plug-in is copied");
    let mut command = melo();
    command.arg("serve").arg("--backbone").arg(place.at("vit.safetensors")).arg("--plugins").arg(&plugins);
    command.args(["--listen", "127.0.0.1:0", "--log", "off", "--state"]).arg(place.at("state"));
    let server = Server::start(&place, &mut command);
    assert_eq!(server.get("/v1/tasks")["tasks"][0]["kind"], "regression");
    let model = server.get("/v2/models/age");
    assert_eq!(model["outputs"][0]["name"], "values");
    let bytes = std::fs::read(&image).expect("the image");
    let served = server.predict(&[("image", Some("test_0.png"), &bytes), ("tasks", None, b"all")]).expect("an answer");
    let served = &served["images"][0]["answers"][0];
    assert!((number(&served["values"]["age"]) - age).abs() < 1e-3, "{served}, offline {age}");
    assert!(served.get("probabilities").is_none() && served.get("findings").is_none(), "{served}");
    assert_eq!(server.signal("-TERM"), Some(0));
}

#[test]
fn grades_are_trained_and_answered_by_their_median() {
    let place = Workplace::new();
    let data = ages(&place);
    let grades = ["--grades", "low,middle,high", "--label-column", "label"];
    let (report, plugin) = trained(&place, &data, "grade", &grades);
    assert!(number(&report["val_kappa"]) > 0.5 && number(&report["val_auc_macro"]) > 0.5, "{report}");
    let card = PluginInfo::read(&plugin).expect("a plug-in").card;
    assert_eq!((card.format, card.classes.join(",")), (10, "low,middle,high".to_owned()));
    let measured = run(on(&place, &["eval"], &plugin).arg("--data").arg(&data).arg("--json")).json();
    assert_eq!(measured["kappa_quadratic"], card.metrics["test_kappa_quadratic"]);
    assert_eq!(measured["mae"], card.metrics["test_mae"]);
    let answer = run(on(&place, &["predict"], &plugin).arg("--json").arg(place.at("test_0.png"))).json();
    assert!(["low", "middle", "high"].contains(&answer["predicted"].as_str().expect("a grade")), "{answer}");
    assert_eq!(answer["probabilities"].as_object().map(serde_json::Map::len), Some(3));
}

#[test]
fn kinds_that_contradict_the_data_are_refused_by_name() {
    let place = Workplace::new();
    let data = ages(&place);
    let backbone = place.tiny_backbone("vit", 5, None);
    let out = place.at("x.safetensors");
    let refused = |flags: &[&str], parts: &[&str]| {
        run(train(&backbone, &data, &out).args(["--epochs", "1"]).args(flags)).refused(1, parts);
        assert!(!out.exists());
    };
    refused(
        &["--kind", "regression", "--label-column", "label"],
        &["labels.csv", "line 2", "expected a number", "low"],
    );
    refused(&["--kind", "ordinal", "--label-column", "label"], &["order of the grades", "high", "--grades"]);
    refused(&["--grades", "low,high", "--label-column", "label"], &["middle"]);
    let numbers = ["--kind", "regression", "--label-column", "age"];
    let balanced = [&numbers[..], &["--class-weights", "balanced"]].concat();
    run(train(&backbone, &data, &out).args(balanced)).refused(2, &["class", "numbers have no classes"]);
    let (_, plugin) = trained(&place, &data, "age", &[&numbers[..], &["--epochs", "1"]].concat()[..4]);
    let classes = place.write("classes.csv", "path,split,label\ntest_0.png,test,low\ntest_1.png,test,high\n");
    run(on(&place, &["eval"], &plugin).arg("--data").arg(classes)).refused(1, &["classes.csv", "expected a number"]);
}
