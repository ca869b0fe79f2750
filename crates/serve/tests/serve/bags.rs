//! Tasks of bags beside tasks of single images: which files are one bag, and that each is answered as it is offline.

use crate::common::peer::{part10, slice_of};
use crate::common::{
    Field, Running, assert_close, bag_plugin, config, engine, expected, expected_of_bag, file, image, plugin,
    probabilities, put, until,
};
use base64::Engine as _;
use melo_serve::{Config, entries};
use melo_vit::Plugin;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

struct Room {
    folder: tempfile::TempDir,
    /// `chest` answers for single images, `ct` for bags.
    plugins: [Plugin; 2],
    server: Running,
}

fn room(change: impl FnOnce(&mut Config)) -> Room {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = engine();
    let plugins = [plugin(&*engine, "chest", 2), bag_plugin(&*engine, "ct", 3)];
    for plugin in &plugins {
        put(&folder.path().join("plugins"), &plugin.card.task, &file(engine.backbone(), plugin));
    }
    let mut config = config(folder.path());
    config.trust.audit = Some(folder.path().join("audit.sqlite"));
    change(&mut config);
    Room { folder, plugins, server: Running::start(config) }
}

impl Room {
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }

    /// Asks, and gives the answer to the bag that is number `index`.
    fn bag(&self, files: &[(&str, &[u8])], tasks: &str, index: usize) -> Value {
        let (status, said) = self.server.predict(&fields(files, tasks));
        assert_eq!(status, 200, "{said}");
        said["bags"][index].clone()
    }

    fn assert_is(&self, bag: &Value, files: &[PathBuf]) {
        let (wanted, attention) = expected_of_bag(&engine(), &self.plugins[1], files);
        let answer = &bag["answers"][0];
        assert_close(&probabilities(answer), &wanted, "the bag");
        let found: Vec<f32> = floats(&answer["attention"]);
        assert_close(&found, &attention, "attention");
        let most = attention.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).expect("an image").0;
        assert_eq!(answer["leading"][0], most);
    }
}

fn fields<'a>(files: &[(&'a str, &'a [u8])], tasks: &'a str) -> Vec<Field<'a>> {
    let mut fields: Vec<Field<'a>> = files.iter().map(|(name, bytes)| ("image", Some(*name), *bytes)).collect();
    fields.push(("tasks", None, tasks.as_bytes()));
    fields
}

fn floats(values: &Value) -> Vec<f32> {
    values.as_array().expect("numbers").iter().map(|value| value.as_f64().expect("a number") as f32).collect()
}

/// A NumPy file of one volume.
fn volume(slices: usize) -> Vec<u8> {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': (1, {slices}, 16, 16), }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let padding = 64 - (11 + header.len()) % 64;
    bytes.extend(((header.len() + padding + 1) as u16).to_le_bytes());
    bytes.extend(format!("{header}{}\n", " ".repeat(padding)).bytes());
    bytes.extend((0..slices * 256).map(|at| (at * 31 / 7 % 251) as u8));
    bytes
}

#[test]
fn a_volume_is_a_bag_and_so_are_all_other_files_beside_tasks_of_single_images() {
    let room = room(|_| ());
    let (films, volume) = ([image(1), image(2), image(3)], volume(6));
    let sent = [("a.png", &films[0][..]), ("v.npy", &volume), ("b.png", &films[1]), ("a.png", &films[2])];
    let (status, said) = room.server.predict(&fields(&sent, "chest,ct"));
    assert_eq!(status, 200, "{said}");
    let images = said["images"].as_array().expect("images");
    assert_eq!(images.len(), 4, "a task of single images answers each file");
    let engine = engine();
    for (at, film) in [(0, 0), (2, 1), (3, 2)] {
        let wanted = expected(&engine, &room.plugins[0], &films[film]);
        assert_close(&probabilities(&images[at]["answers"][0]), &wanted, "a film");
    }
    let bags = said["bags"].as_array().expect("bags");
    assert_eq!(
        (bags.len(), &bags[0]["images"], &bags[1]["name"]),
        (2, &json!(["a.png", "b.png", "a.png"]), &json!("v.npy"))
    );
    let paths: Vec<PathBuf> = films.iter().zip(0..).map(|(film, at)| room.write(&format!("{at}.png"), film)).collect();
    room.assert_is(&bags[0], &paths);
    let path = room.write("v.npy", &volume);
    let parts = melo_imaging::parts(&path, melo_vit::rendering::Plane::Axial).expect("slices");
    assert_eq!(parts.len(), 6);
    room.assert_is(&bags[1], &parts);
    let (_, only) = room.server.predict(&fields(&sent[..1], "ct"));
    assert_eq!((&only["images"], only["bags"][0]["answers"][0]["attention"][0].as_f64()), (&json!([]), Some(1.0)));
    let (_, single) = room.server.predict(&fields(&sent[..1], "chest"));
    assert!(single.get("bags").is_none(), "{single}");
}

#[test]
fn a_series_is_a_bag_in_the_order_of_its_places_whatever_order_it_comes_in() {
    let room = room(|_| ());
    let slices: Vec<Vec<u8>> = (0..5).map(|z| part10(slice_of("1.2.5", z, 20))).collect();
    let paths: Vec<PathBuf> = (0..5).map(|z| room.write(&format!("{z}.dcm"), &slices[z])).collect();
    let names = ["s0", "s1", "s2", "s3", "s4"];
    let sent = |order: [usize; 5]| order.map(|z| (names[z], &slices[z][..]));
    let sorted = room.bag(&sent([0, 1, 2, 3, 4]), "ct", 0);
    let mixed = room.bag(&sent([3, 0, 4, 2, 1]), "ct", 0);
    room.assert_is(&sorted, &paths);
    assert_eq!((&mixed["images"], &mixed["digest"]), (&json!(names), &sorted["digest"]));
    assert_eq!(mixed["answers"], sorted["answers"]);
    // Other images have no places, and stay as they were sent.
    let films = [image(1), image(2)];
    let [one, other] = [[0, 1], [1, 0]].map(|order| {
        room.bag(&order.map(|at| (names[at], &films[at][..])), "ct", 0)["answers"][0]["attention"].clone()
    });
    assert_ne!(one, other);
}

#[test]
fn bags_that_cannot_be_answered_are_refused_by_name_and_hold_up_nobody() {
    let room = room(|config| {
        config.limits.bag_images = 9;
        config.batches.max_wait = std::time::Duration::from_millis(300);
    });
    let refused = |files: &[(&str, &[u8])], tasks: &str, more: Option<Field<'_>>, status: u16, parts: &[&str]| {
        let mut fields = fields(files, tasks);
        fields.extend(more);
        let (found, said) = room.server.predict(&fields);
        let said = said.to_string();
        assert_eq!(found, status, "{said}");
        parts.iter().for_each(|part| assert!(said.contains(part), "expected {part:?} in {said}"));
    };
    let (small, large) = (part10(slice_of("1.2.5", 1, 20)), part10(slice_of("1.2.5", 2, 24)));
    let sizes = ["series 1.2.5", "slices of one size", "20 x 20 in a.dcm", "24 x 24 in b.dcm"];
    refused(&[("a.dcm", &small), ("b.dcm", &large)], "ct", None, 422, &sizes);
    let long = volume(10);
    refused(&[("long.npy", &long)], "ct", None, 413, &["long.npy", "a bag of 10 images", "at most 9"]);
    let film = image(1);
    let films = vec![("a.png", &film[..]); 9];
    refused(&films, "chest,ct", None, 413, &["9 images", "`chest` answers for single images", "at most 8"]);
    let frame = Some(("frame", None, &b"2"[..]));
    refused(&films[..2], "ct", frame, 400, &["`frame`", "`ct` answers for bags"]);
    // In one batch with a bag whose last image is cut short, the others are answered.
    let cut = &film[..film.len() - 20];
    std::thread::scope(|scope| {
        let good = scope.spawn(|| room.server.predict(&fields(&films[..1], "chest")).0);
        let bag = scope.spawn(|| room.server.predict(&fields(&films[..2], "ct")).0);
        refused(&[("a.png", &film), ("cut.png", cut)], "ct", None, 422, &["cut.png"]);
        assert_eq!((good.join().expect("an answer"), bag.join().expect("an answer")), (200, 200));
    });
}

#[test]
fn a_bag_counts_as_its_images_and_one_larger_than_the_queue_is_taken_alone() {
    let room = room(|config| config.batches.queue = 4);
    let volume = volume(20);
    let files = [("v.npy", &volume[..])];
    room.bag(&files, "ct", 0);
    let text = room.server.service.metrics.text(0);
    assert!(text.contains("melo_answers_total{task=\"ct\"} 20") && text.contains("melo_batch_rows_sum 20"), "{text}");
    let held = room.server.service.batches.admit("another", 1).expect("there is room");
    assert_eq!(room.server.predict(&fields(&files, "ct")).0, 503);
    drop(held);
    until("nothing is left behind", || room.server.service.batches.load() == 0);
    assert_eq!(room.server.predict(&fields(&files, "ct")).0, 200);
}

#[test]
fn a_bag_is_one_row_of_the_audit_with_a_digest_that_anyone_can_make() {
    let room = room(|_| ());
    let films = [image(1), image(2)];
    let sent = [("a.png", &films[0][..]), ("b.png", &films[1][..])];
    let bag = room.bag(&sent, "ct", 0);
    let hex = |bytes: &[u8]| melo_vit::hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes));
    let digest = hex(format!("{}\n{}\n", hex(&films[0]), hex(&films[1])).as_bytes());
    assert_eq!(bag["digest"], digest);
    let mut records = entries(&room.folder.path().join("audit.sqlite"), 10, None).expect("the audit is read");
    // Events have no input.
    records.retain(|entry| entry.record.input_digest.is_some());
    assert_eq!(records.len(), 1);
    let record = &records[0].record;
    assert_eq!((record.input_digest.as_deref(), &*record.task), (Some(&*format!("{digest}#bag=2")), "ct"));
}

#[test]
fn heat_maps_of_a_bag_are_those_of_its_leading_images() {
    let room = room(|_| ());
    let volume = volume(8);
    let mut asked = fields(&[("v.npy", &volume)], "ct");
    asked.push(("heatmap", None, b"true"));
    let (status, said) = room.server.predict(&asked);
    assert_eq!(status, 200, "{said}");
    let answer = &said["bags"][0]["answers"][0];
    let maps = answer["heatmaps"].as_array().expect("heat maps");
    let of: Vec<&Value> = maps.iter().map(|map| &map["image"]).collect();
    assert_eq!(json!(of), answer["leading"]);
    assert_eq!(maps.len(), 5);
    for map in maps {
        let png =
            base64::engine::general_purpose::STANDARD.decode(map["png"].as_str().expect("base64")).expect("bytes");
        let drawn = melo_imaging::decode(&png, Path::new("map")).expect("a PNG");
        assert_eq!((drawn.width, drawn.height), (16, 16));
        assert!(map["class"].is_string() && map["grid"].is_u64());
    }
}

#[test]
fn the_open_inference_protocol_gives_a_row_a_bag_and_takes_no_pixels() {
    let room = room(|_| ());
    let (films, volume) = ([image(1), image(2)], volume(5));
    let (status, model) = room.server.get("/v2/models/ct");
    assert_eq!((status, model["inputs"].as_array().map(Vec::len)), (200, Some(1)), "{model}");
    assert_eq!(model["parameters"]["bag"], true);
    let encoded: Vec<String> =
        [&films[0], &films[1], &volume].map(|file| base64::engine::general_purpose::STANDARD.encode(file)).to_vec();
    let ask = |inputs: Value| {
        room.server.send("POST", "/v2/models/ct/infer", json!({ "inputs": [inputs] }).to_string().as_bytes())
    };
    let (status, said) = ask(json!({ "name": "image", "shape": [3], "datatype": "BYTES", "data": encoded }));
    assert_eq!((status, &said["outputs"][0]["shape"]), (200, &json!([2, 3])), "{said}");
    for (files, at) in [(vec![("a", &films[0][..]), ("b", &films[1])], 0), (vec![("v.npy", &volume[..])], 3)] {
        let bag = room.bag(&files, "ct", 0);
        assert_close(&floats(&said["outputs"][0]["data"])[at..at + 3], &probabilities(&bag["answers"][0]), "a bag");
    }
    let pixels = vec![0.5; 3 * 12 * 12];
    let (status, said) = ask(json!({ "name": "pixels", "shape": [1, 3, 12, 12], "datatype": "FP32", "data": pixels }));
    assert!(status == 400 && said.to_string().contains("`ct` answers for bags"), "{said}");
}

#[test]
fn tasks_say_how_they_take_bags() {
    let room = room(|_| ());
    let (_, said) = room.server.get("/v1/tasks");
    let of = |name: &str| {
        let tasks = said["tasks"].as_array().expect("tasks");
        tasks.iter().find(|task| task["name"] == name).expect("a task")["bag"].clone()
    };
    assert_eq!(of("ct"), json!({ "pooling": "gated_attention", "axis": "axial", "ordered": true }));
    assert_eq!(of("chest"), Value::Null);
    let broken = {
        let mut plugin = room.plugins[1].clone();
        plugin.bag.as_mut().expect("bags").score[0] += 0.5;
        file(engine().backbone(), &plugin)
    };
    let refused =
        room.server.service.registry.accept(&broken, None, "test", |_| None).err().map(|refusal| refusal.to_string());
    assert!(refused.as_ref().is_some_and(|said| said.contains("self-test")), "its pooling is proven, too: {refused:?}");
}
