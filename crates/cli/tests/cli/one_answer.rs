//! One image under one set of plug-ins has one answer, to the last bit, through whichever door it comes: `predict`, `eval`,
//! the server's HTTP and its DICOM network.

use crate::form::Field;
use crate::peer::{connect, data_set, image, part10, store};
use crate::scope;
use crate::server::Server;
use crate::workplace::{Workplace, embedded_backbone, melo, run};
use dicom_core::value::{PrimitiveValue, Value as DicomValue};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use melo::synthetic::Phantom;
use melo::vit::PluginInfo;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const IMAGES: usize = 5;

/// Bits of probabilities and scope by task and image.
type Answers = BTreeMap<(String, usize), Vec<u32>>;

/// An image of its own for each number.
fn film(number: usize) -> InMemDicomObject {
    let mut film = image(&instance(number), "DX");
    let pixels: Vec<u8> = (0..24 * 20).map(|index: usize| (index * (37 + 3 * number) % 251) as u8).collect();
    let pixels = DicomValue::Primitive(PrimitiveValue::U8(pixels.into()));
    film.put(DataElement::new(tags::PIXEL_DATA, VR::OB, pixels));
    film
}

fn instance(number: usize) -> String {
    format!("1.2.9.{number}")
}

/// Those of the repository, and one that tells which images are for it.
fn plugins(place: &Workplace) -> Vec<PathBuf> {
    let folder = place.at("tasks");
    if !folder.exists() {
        let (_, scoped, _) = scope::trained(place, [24, 20, 4], &["--epochs", "1"]);
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::rename(scoped, folder.join("smear.safetensors")).expect("a plug-in");
        for entry in embedded_backbone().with_file_name("phantoms").read_dir().expect("the folder") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), folder.join(entry.file_name())).expect("a plug-in");
        }
    }
    let mut paths: Vec<PathBuf> =
        folder.read_dir().expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// Bits of all values of an object.
fn bits(values: &Value) -> Vec<u32> {
    let values = values.as_object().expect("an object of numbers").values();
    values.map(|value| (value.as_f64().expect("a number") as f32).to_bits()).collect()
}

/// Bits of the probabilities, and of the score of the scope where there is one.
fn bits_of(answer: &Value) -> Vec<u32> {
    let score = answer.get("scope_score").map(|score| (score.as_f64().expect("a number") as f32).to_bits());
    bits(&answer["probabilities"]).into_iter().chain(score).collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

fn by_predict(place: &Workplace, films: &[PathBuf]) -> Answers {
    let mut predict = melo();
    predict.args(["predict", "--json", "--backbone"]).arg(embedded_backbone());
    for plugin in plugins(place) {
        predict.arg("--plugin").arg(plugin);
    }
    let number = |name: &str| films.iter().position(|film| film == Path::new(name)).expect("one of the images");
    let lines = run(predict.args(films)).json_lines();
    lines.iter().map(|line| ((text(&line["task"]), number(&text(&line["image"]))), bits_of(line))).collect()
}

/// A plug-in a run, each with a manifest of its own classes, the images in another order than elsewhere.
fn by_eval(place: &Workplace) -> Answers {
    let mut answers = Answers::new();
    for plugin in plugins(place) {
        let card = PluginInfo::read(&plugin).expect("a plug-in").card;
        let mut table = String::from("path,split,label\n");
        for number in (0..IMAGES).rev() {
            table += &format!("film_{number}.dcm,test,{}\n", card.classes[number % card.classes.len()]);
        }
        let (labels, out) = (place.write("labels.csv", table), place.at(format!("{}.csv", card.task)));
        let mut eval = melo();
        eval.args(["eval", "--json", "--backbone"]).arg(embedded_backbone()).arg("--plugin").arg(&plugin);
        run(eval.arg("--data").arg(labels).arg("--predictions").arg(&out)).good();
        let mut table = csv::Reader::from_path(out).expect("the predictions");
        for row in table.records().map(|row| row.expect("a row")) {
            let number = row[0].trim_start_matches("film_").trim_end_matches(".dcm").parse().expect("a number");
            let values = row.iter().skip(3).map(|value| value.parse::<f32>().expect("a probability").to_bits());
            answers.insert((card.task.clone(), number), values.collect());
        }
    }
    answers
}

fn by_http(server: &Server, films: &[PathBuf]) -> Answers {
    let bytes: Vec<(String, Vec<u8>)> = (films.iter().enumerate())
        .map(|(number, path)| (number.to_string(), std::fs::read(path).expect("the image")))
        .collect();
    let mut fields: Vec<Field<'_>> =
        bytes.iter().map(|(name, bytes)| ("image", Some(name.as_str()), bytes.as_slice())).collect();
    fields.push(("tasks", None, b"all"));
    let said = server.predict(&fields).expect("an answer");
    let mut answers = Answers::new();
    for (number, image) in said["images"].as_array().expect("images").iter().enumerate() {
        for answer in image["answers"].as_array().expect("answers") {
            answers.insert((text(&answer["task"]), number), bits_of(answer));
        }
    }
    answers
}

/// What the audit holds of images that came by C-STORE.
fn by_dicom(server: &Server, place: &Workplace, tasks: usize) -> Answers {
    let mut peer = connect(server.dicom.expect("it listens"), "MELO").expect("an association");
    for number in 0..IMAGES {
        assert_eq!(store(&mut peer, &instance(number), &data_set(&film(number))), 0);
    }
    let started = Instant::now();
    loop {
        let mut show = melo();
        show.args(["audit", "show", "--json", "--last", "1000"]).arg(place.at("state/audit.sqlite"));
        let records = run(&mut show).json_lines();
        let of_network = records.iter().filter(|record| record["via"] == "dicom");
        let answers: Answers = of_network
            .map(|record| {
                let uid = text(&record["sop_instance_uid"]);
                let number = (0..IMAGES).find(|&number| instance(number) == uid).expect("one of the images");
                ((text(&record["task"]), number), bits(&record["output"]))
            })
            .collect();
        if answers.len() == IMAGES * tasks {
            return answers;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "all images are answered: {records:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_image_has_one_answer_through_every_door() {
    let place = Workplace::new();
    let films: Vec<PathBuf> =
        (0..IMAGES).map(|number| place.write(&format!("film_{number}.dcm"), part10(film(number)))).collect();
    let expected = by_predict(&place, &films);
    assert_eq!(expected.len(), IMAGES * plugins(&place).len());
    let scoped = expected.iter().filter(|((task, _), _)| task == "smear");
    assert!(scoped.clone().all(|(_, bits)| bits.len() == Phantom::BloodSmear.classes().len() + 1), "a score each");
    assert_eq!(scoped.count(), IMAGES);
    let distinct: std::collections::BTreeSet<_> = expected.values().collect();
    assert_eq!(distinct.len(), expected.len(), "images and tasks differ, so that none can stand for another");

    assert_eq!(by_eval(&place), expected, "eval");
    let mut serve = melo();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--dicom-listen", "127.0.0.1:0", "--dicom-tasks", "all"]);
    serve.args(["--log", "off", "--backbone"]).arg(embedded_backbone());
    serve.arg("--plugins").arg(place.at("tasks")).arg("--state").arg(place.at("state"));
    let server = Server::start(&place, &mut serve);
    assert_eq!(by_http(&server, &films), expected, "HTTP");
    assert_eq!(by_dicom(&server, &place, plugins(&place).len()), expected, "DICOM");
}
