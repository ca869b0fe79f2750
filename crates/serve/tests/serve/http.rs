//! The doors of HTTP: `/v1`, the Open Inference Protocol, metrics, errors.

use crate::common::{
    self, Running, assert_close, client, config, engine, expected, file, image, plugin, probabilities, put, until,
};
use base64::Engine;
use dicom_core::value::{PrimitiveValue, Value as Stored};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use melo_serve::{BatchConfig, Config};
use melo_vit::Plugin;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// A server with the tasks `chest`, `skin` and `eye`.
struct Room {
    folder: TempDir,
    plugins: Vec<Plugin>,
    server: Running,
}

const TASKS: [&str; 3] = ["chest", "skin", "eye"];

fn room_with(change: impl FnOnce(&mut Config)) -> Room {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    let plugins: Vec<Plugin> = TASKS.iter().zip(1..).map(|(task, seed)| plugin(&*engine(), task, seed)).collect();
    for plugin in &plugins {
        put(&folder.path().join("plugins"), &plugin.card.task, &file(engine().backbone(), plugin));
    }
    change(&mut config);
    Room { folder, plugins, server: Running::start(config) }
}

fn room() -> Room {
    room_with(|_| {})
}

#[test]
fn many_tasks_on_many_images_are_answered_as_they_would_be_offline() {
    let room = room();
    let images = [image(1), image(2)];
    let fields: Vec<common::Field<'_>> =
        vec![("image", Some("one.png"), &images[0]), ("tasks", None, b"all"), ("image", Some("two.png"), &images[1])];
    let (status, answer) = room.server.predict(&fields);
    assert_eq!(status, 200, "{answer}");
    for (at, name) in ["one.png", "two.png"].into_iter().enumerate() {
        let found = &answer["images"][at];
        assert_eq!(found["name"], name);
        let answers = found["answers"].as_array().expect("answers");
        assert_eq!(answers.len(), 3);
        for answer in answers {
            let task = answer["task"].as_str().expect("a name");
            let plugin = room.plugins.iter().find(|plugin| plugin.card.task == task).expect("a task of ours");
            assert_close(&probabilities(answer), &expected(&engine(), plugin, &images[at]), task);
            let single = answer["kind"] == "single_label";
            assert_eq!(answer.get("predicted").is_some(), single);
            assert_eq!(answer.get("findings").is_some() && answer.get("thresholds").is_some(), !single);
            assert_eq!(answer["backbone"], engine().backbone().digest());
        }
    }
}

#[test]
fn versions_are_addressable() {
    let room = room();
    let (_, tasks) = room.server.get("/v1/tasks");
    let chest = tasks["tasks"].as_array().expect("tasks").iter().find(|task| task["name"] == "chest").expect("chest");
    let version = chest["version"].as_str().expect("a digest");
    let mut newer = plugin(&*engine(), "chest", 9);
    newer.card.metrics.insert("test_acc".to_owned(), 0.75);
    put(&room.folder.path().join("plugins"), "chest", &file(engine().backbone(), &newer));
    until("the new version", || room.server.get("/v1/tasks/chest").1["version"] != version);
    let picture = image(4);
    for (name, plugin) in [("chest".to_owned(), &newer), (format!("chest@{version}"), &room.plugins[0])] {
        let (status, answer) =
            room.server.predict(&[("image", Some("a.png"), &picture), ("tasks", None, name.as_bytes())]);
        assert_eq!(status, 200, "{answer}");
        let found = probabilities(&answer["images"][0]["answers"][0]);
        assert_close(&found, &expected(&engine(), plugin, &picture), &name);
    }
    let (status, shown) = room.server.get(&format!("/v1/tasks/chest@{}", &version[..8]));
    assert_eq!((status, &shown["card"]["task"]), (200, &json!("chest")));
    assert_eq!(
        (&shown["version"], &shown["metrics"]),
        (&json!(version), &chest["metrics"]),
        "of the version asked for"
    );
    assert_eq!(room.server.get("/v1/tasks/chest").1["metrics"]["test_acc"], json!(0.75));
}

#[test]
fn a_heat_map_and_a_preview_are_pictures_of_the_images_size() {
    let room = room();
    let picture = image(5);
    let fields: [common::Field<'_>; 4] = [
        ("image", Some("a.png"), &picture),
        ("tasks", None, b"chest, skin"),
        ("heatmap", None, b"true"),
        ("preview", None, b"true"),
    ];
    let (status, answer) = room.server.predict(&fields);
    assert_eq!(status, 200, "{answer}");
    let decode = |text: &Value| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.as_str().expect("text")).expect("base64");
        melo_imaging::decode(&bytes, std::path::Path::new("a.png")).expect("a PNG")
    };
    let original = melo_imaging::decode(&picture, std::path::Path::new("a.png")).expect("a PNG");
    assert_eq!(decode(&answer["images"][0]["preview"]), original);
    for answer in answer["images"][0]["answers"].as_array().expect("answers") {
        let heatmap = &answer["heatmap"];
        let drawn = decode(&heatmap["png"]);
        assert_eq!((drawn.width, drawn.height), (original.width, original.height));
        assert_ne!(drawn, original);
        let grid = heatmap["grid"].as_u64().expect("a number") as usize;
        assert_eq!(heatmap["values"].as_array().expect("values").len(), grid * grid);
    }
}

#[test]
fn a_frame_is_chosen_by_the_request_and_told_in_the_answer() {
    let room = room_with(|config| config.trust.audit = Some(config.registry.state.join("audit.sqlite")));
    let frames: Vec<u8> = (0..24 * 20 * 3).map(|index: usize| (index * index % 251) as u8).collect();
    let mut object = common::peer::image("1.2.3.4", "US");
    object.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, Stored::Primitive(PrimitiveValue::from("3"))));
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, Stored::Primitive(PrimitiveValue::U8(frames.into()))));
    let file = common::peer::part10(object);
    let ask = |frame: Option<&str>| {
        let mut fields: Vec<common::Field<'_>> = vec![("image", Some("loop"), &file), ("tasks", None, b"chest,skin")];
        fields.extend(frame.map(|frame| ("frame", None, frame.as_bytes())));
        room.server.predict(&fields)
    };
    let mut seen = Vec::new();
    for (frame, number) in [(None, 1), (Some("middle"), 2), (Some("3"), 3), (Some("1"), 1), (Some(""), 1)] {
        let (status, answer) = ask(frame);
        assert_eq!(status, 200, "{answer}");
        let image = &answer["images"][0];
        assert_eq!(image["frames"], 3);
        assert!(image["answers"].as_array().expect("answers").iter().all(|answer| answer["frame"] == number));
        seen.push(probabilities(&image["answers"][0]));
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2], "{seen:?}");
    assert!(seen[0] == seen[3] && seen[0] == seen[4]);
    for (frame, status, word) in
        [("4", 422, "there is no frame 4"), ("0", 400, "a number from 1"), ("last", 400, "frame")]
    {
        let (found, answer) = ask(Some(frame));
        assert_eq!(found, status, "{answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| message.contains(word)), "{answer}");
    }
    let picture = image(1);
    let fields: [common::Field<'_>; 3] =
        [("image", Some("a.png"), &picture), ("tasks", None, b"chest"), ("frame", None, b"2")];
    let (status, answer) = room.server.predict(&fields);
    assert_eq!(status, 422, "a setting without effect is refused: {answer}");
    let audit = room.folder.path().join("state/audit.sqlite");
    let recorded = melo_serve::entries(&audit, 9, None).expect("entries");
    let digests: Vec<String> = recorded.into_iter().filter_map(|entry| entry.record.input_digest).collect();
    assert!(digests.iter().any(|digest| digest.ends_with("#frame=3")), "{digests:?}");
    assert!(digests.iter().any(|digest| digest.len() == 64), "{digests:?}");
}

#[test]
fn numbers_of_32_bits_are_printed_short_at_every_door() {
    let room = room();
    let picture = image(1);
    let text = |mut response: ureq::http::Response<ureq::Body>| response.body_mut().read_to_string().expect("text");
    let get = |path: &str| text(client().get(room.server.url(path)).call().expect("an answer"));
    let form = common::form(&[("image", Some("a.png"), &picture), ("tasks", None, b"all"), ("heatmap", None, b"true")]);
    let post = |path: &str, kind: &str, body: &[u8]| {
        text(client().post(room.server.url(path)).header("content-type", kind).send(body).expect("an answer"))
    };
    let file = base64::engine::general_purpose::STANDARD.encode(&picture);
    let infer = json!({ "inputs": [{ "name": "image", "datatype": "BYTES", "shape": [1], "data": [file] }] });
    let told = [
        get("/v1/tasks"),
        get("/v1/tasks/chest"),
        post("/v1/predict", &form.0, &form.1),
        post("/v2/models/chest/infer", "application/json", infer.to_string().as_bytes()),
    ];
    for text in told {
        // Figures of a card and the temperature's like are of 64 bits: up to 17 digits, and none in these cards.
        let digits = |word: &str| word.bytes().filter(u8::is_ascii_digit).count();
        let words = text.split(|c: char| !(c.is_ascii_digit() || c == '.')).filter(|word| word.starts_with("0."));
        let long: Vec<&str> = words.filter(|word| digits(word) > 13).collect();
        assert!(long.is_empty(), "{long:?}");
    }
}

#[test]
fn wrong_requests_get_one_message_that_names_the_cause() {
    let room = room_with(|config| config.limits.body_bytes = 40_000);
    let picture = image(1);
    let large = vec![0; 80_000];
    let mut many: Vec<common::Field<'_>> = vec![("image", Some("a.png"), &picture); 9];
    many.push(("tasks", None, b"chest"));
    let cases: [(&[common::Field<'_>], u16, &str, &str); 9] = [
        (&[("image", Some("a.png"), &picture)], 400, "bad_request", "no task"),
        (&[("tasks", None, b"chest")], 400, "bad_request", "no image"),
        (&[("image", Some("a.png"), &picture), ("tasks", None, b"liver")], 404, "not_found", "liver"),
        (&[("image", Some("a.png"), &picture), ("tasks", None, b"chest@12345678")], 404, "not_found", "12345678"),
        (&[("image", Some("a.png"), b"no image"), ("tasks", None, b"chest")], 422, "unusable", "a.png"),
        (&[("image", Some("a.png"), &large), ("tasks", None, b"chest")], 413, "too_large", ""),
        (&[("colour", None, b"red")], 400, "bad_request", "colour"),
        (&[("heatmap", None, b"perhaps")], 400, "bad_request", "heatmap"),
        (&many, 413, "too_large", "at most 8"),
    ];
    for (fields, status, code, word) in cases {
        let (found, answer) = room.server.predict(fields);
        assert_eq!((found, answer["error"]["code"].as_str()), (status, Some(code)), "{answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| message.contains(word)), "{answer}");
    }
    let (status, _) = room.server.send("POST", "/v1/predict", b"no form");
    assert_eq!(status, 400);
    assert_eq!(room.server.get("/v1/nothing").0, 404);
    let (status, answer) = room.server.send("PUT", "/v1/tasks/chest", b"");
    assert_eq!((status, answer["error"]["code"].as_str()), (403, Some("forbidden")), "admin is off without keys");
}

#[test]
fn a_full_queue_answers_503_at_once_with_retry_after() {
    let room = room_with(|config| config.batches = BatchConfig { queue: 1, ..config.batches });
    let held = room.server.service.batches.admit("another", 1).expect("there is room");
    let picture = image(1);
    let (kind, body) = common::form(&[("image", Some("a.png"), &picture), ("tasks", None, b"chest")]);
    let send = || client().post(room.server.url("/v1/predict")).header("content-type", &kind).send(&body[..]);
    let refused = send().expect("an answer");
    assert_eq!(refused.status(), 503);
    let after = refused.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(str::parse::<u64>);
    assert!(matches!(after, Some(Ok(1..=60))), "{after:?}");
    drop(held);
    assert_eq!(send().expect("an answer").status(), 200);
}

#[test]
fn what_was_admitted_is_answered_while_the_server_stops() {
    let mut room = room_with(|config| config.batches.max_wait = Duration::from_millis(500));
    let picture = image(1);
    // A permit that is not used keeps the batch open until after the stop has begun.
    let held = room.server.service.batches.admit("another", 1).expect("there is room");
    let (kind, body) = common::form(&[("image", Some("a.png"), &picture), ("tasks", None, b"chest")]);
    let url = room.server.url("/v1/predict");
    let waiting =
        std::thread::spawn(move || common::read(client().post(url).header("content-type", kind).send(&body[..])));
    until("the request is admitted", || room.server.service.batches.load() == 2);
    drop(held);
    room.server.stop();
    let (status, answer) = waiting.join().expect("no panic");
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn metrics_count_requests_batches_and_answers() {
    let room = room();
    let picture = image(1);
    room.server.predict(&[("image", Some("a.png"), &picture), ("tasks", None, b"chest,skin")]);
    // Places are given back right behind the answer.
    until("an empty queue", || room.server.service.batches.load() == 0);
    let (status, text) = room.server.get("/metrics");
    let text = text.as_str().expect("text");
    assert_eq!(status, 200);
    for line in [
        "melo_requests_total{route=\"/v1/predict\",status=\"200\"} 1",
        "melo_answers_total{task=\"chest\"} 1",
        "melo_task_latency_seconds_count{task=\"skin\"} 1",
        "melo_batch_rows_sum 2",
        "melo_tasks 3",
        "melo_queue_rows 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let (_, tasks) = room.server.get("/v1/tasks");
    let live = |name: &str| {
        let tasks = tasks["tasks"].as_array().expect("tasks");
        tasks.iter().find(|task| task["name"] == name).expect("a task")["images_per_minute"].clone()
    };
    assert_eq!((live("chest"), live("eye")), (json!(1), json!(0)));
}

#[test]
fn the_open_inference_protocol_gives_the_same_numbers_four_ways() {
    let room = room();
    let picture = image(6);
    let plugin = &room.plugins[0];
    let wanted = expected(&engine(), plugin, &picture);
    let (status, model) = room.server.get("/v2/models/chest");
    assert_eq!((status, &model["inputs"][1]["shape"]), (200, &json!([-1, 3, 12, 12])), "{model}");
    assert_eq!(room.server.get("/v2/models/chest/ready").0, 200);
    let version = model["versions"][0].as_str().expect("a digest");

    let base64 = base64::engine::general_purpose::STANDARD.encode(&picture);
    let request =
        json!({ "id": "7", "inputs": [{ "name": "image", "shape": [1], "datatype": "BYTES", "data": [base64] }] });
    let (status, answer) =
        room.server.send("POST", &format!("/v2/models/chest/versions/{version}/infer"), request.to_string().as_bytes());
    assert_eq!((status, &answer["id"], &answer["model_version"]), (200, &json!("7"), &json!(version)), "{answer}");
    assert_close(&floats(&answer["outputs"][0]["data"]), &wanted, "image in JSON");

    let spec = &plugin.card.preprocess;
    let prepared = melo_predict::Prepared::of_bytes(&picture, std::path::Path::new("a"), &[spec], false);
    let pixels = prepared.expect("decoded").inputs;
    let request = json!({
        "inputs": [{ "name": "pixels", "shape": [1, 3, 12, 12], "datatype": "FP32", "data": pixels[0].to_vec() }],
        "outputs": [{ "name": "logits" }, { "name": "probabilities" }],
    });
    let (status, answer) = room.server.send("POST", "/v2/models/chest/infer", request.to_string().as_bytes());
    assert_eq!(status, 200, "{answer}");
    assert_close(&floats(&answer["outputs"][1]["data"]), &wanted, "pixels in JSON");
    let mut from_logits = floats(&answer["outputs"][0]["data"]);
    plugin.clone().bind(&*engine()).expect("it is at home").probabilities(&mut from_logits);
    assert_close(&from_logits, &wanted, "logits");

    let mut element = (picture.len() as u32).to_le_bytes().to_vec();
    element.extend_from_slice(&picture);
    let tensor: Vec<u8> = pixels[0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let cases = [("image", json!([1]), "BYTES", element), ("pixels", json!([1, 3, 12, 12]), "FP32", tensor)];
    for (name, shape, kind, data) in cases {
        let parameters = json!({ "binary_data_size": data.len() });
        let request = json!({
            "parameters": { "binary_data_output": true },
            "inputs": [{ "name": name, "shape": shape, "datatype": kind, "parameters": parameters }],
        });
        let mut body = request.to_string().into_bytes();
        let length = body.len();
        body.extend(data);
        let request = client().post(room.server.url("/v2/models/chest/infer"));
        let mut response = request
            .header("inference-header-content-length", length.to_string())
            .send(&body[..])
            .expect("the server answers");
        let length = response.headers()["inference-header-content-length"].to_str().expect("text").parse::<usize>();
        let bytes = response.body_mut().read_to_vec().expect("the body");
        let (_, values) = bytes.split_at(length.expect("a number"));
        let found: Vec<f32> = values.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
        assert_close(&found, &wanted, name);
    }
}

#[test]
fn the_open_inference_protocol_refuses_with_a_sentence() {
    let room = room();
    let pixels = |shape: Value, data: Value| json!({ "inputs": [{ "name": "pixels", "shape": shape, "datatype": "FP32", "data": data }] });
    let huge = usize::MAX / 2;
    let cases = [
        (json!({}), "inputs"),
        (json!({ "inputs": [] }), "one input"),
        (pixels(json!([1, 3, 11, 12]), json!([])), "shape"),
        (pixels(json!([1, 3, 12, 12]), json!([1.0])), "elements"),
        (pixels(json!([huge, 3, 12, 12]), json!([1.0])), ""),
        (pixels(json!(vec![1; 9]), json!([1.0])), "sides"),
        (pixels(json!([1, 3, 12, 12]), json!(["1.0"])), "numbers"),
        (pixels(json!([1, 3, 12, 12]), json!([true])), "numbers, texts"),
        (json!({ "inputs": [{ "name": "image", "shape": [1], "datatype": "BYTES", "data": [1] }] }), "base64"),
        (json!({ "inputs": [{ "name": "image", "shape": [1], "datatype": "BYTES", "data": ["%"] }] }), "base64"),
        (json!({ "inputs": [{ "name": "sound", "shape": [1], "datatype": "BYTES", "data": [] }] }), "sound"),
        (
            json!({ "inputs": [{ "name": "image", "shape": [1], "datatype": "BYTES",
                                 "parameters": { "binary_data_size": u64::MAX } }] }),
            "ends early",
        ),
    ];
    for (request, word) in cases {
        let (status, answer) = room.server.send("POST", "/v2/models/chest/infer", request.to_string().as_bytes());
        assert!((400..500).contains(&status), "{status} {answer}");
        assert!(answer["error"].as_str().is_some_and(|message| message.contains(word)), "{word}: {answer}");
    }
    assert_eq!(room.server.get("/v2/models/liver").0, 404);
    assert_eq!(room.server.get("/v2/health/live").0, 200);
    assert_eq!(room.server.get("/v2/health/ready").0, 200);
}

fn floats(values: &Value) -> Vec<f32> {
    values.as_array().expect("values").iter().map(|value| value.as_f64().expect("a number") as f32).collect()
}

#[test]
fn replacing_a_plugin_again_and_again_under_load_gives_no_wrong_answer() {
    replace_under_load(20);
}

#[test]
#[ignore = "minutes: a thousand replacements"]
fn replacing_a_plugin_a_thousand_times_under_load_gives_no_wrong_answer() {
    replace_under_load(1000);
}

/// Clients ask without pause while `chest` goes from version to version; each answer is that of the version it names.
fn replace_under_load(times: u64) {
    let room = room();
    let picture = image(8);
    let versions: Vec<(Vec<u8>, Vec<f32>)> = (0..4)
        .map(|seed| {
            let plugin = plugin(&*engine(), "chest", 20 + seed);
            (file(engine().backbone(), &plugin), expected(&engine(), &plugin, &picture))
        })
        .collect();
    let first = expected(&engine(), &room.plugins[0], &picture);
    let digest = |bytes: &[u8]| melo_vit::hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes));
    let mut wanted: std::collections::HashMap<String, &[f32]> =
        versions.iter().map(|(bytes, values)| (digest(bytes), values.as_slice())).collect();
    let original = std::fs::read(room.folder.path().join("plugins/chest.safetensors")).expect("read");
    wanted.insert(digest(&original), &first);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = 0;
                    while !done.load(Ordering::Relaxed) || answers == 0 {
                        let fields: [common::Field<'_>; 2] =
                            [("image", Some("a.png"), &picture), ("tasks", None, b"chest")];
                        let (status, answer) = room.server.predict(&fields);
                        assert_eq!(status, 200, "{answer}");
                        let answer = &answer["images"][0]["answers"][0];
                        let version = answer["version"].as_str().expect("a version");
                        assert_close(&probabilities(answer), wanted[version], version);
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        for turn in 0..times {
            let (bytes, _) = &versions[turn as usize % versions.len()];
            let version = room.server.service.registry.accept(bytes, None, "key:test", |_| None).expect("accepted");
            assert_eq!(version.digest, digest(bytes));
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| assert!(client.join().expect("no wrong answer") > 0));
    });
    let stored = std::fs::read_dir(room.folder.path().join("state/plugins")).expect("the store").count();
    assert!(stored <= TASKS.len() + 2, "{stored} files are kept");
}
