//! Prediction sets through the doors of HTTP.

use crate::common::{Running, config, engine, file, image, plugin, put};
use base64::Engine as _;
use melo_vit::{SetBy, SetMethod, SetRule, Storage};
use serde_json::json;

#[test]
fn sets_are_answered_over_http_and_as_a_tensor() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    // Findings of an odd seed, classes of an even one.
    for (task, seed, thresholds) in
        [("chest", 1, vec![None; 6]), ("skin", 2, vec![None, Some(0.0), None]), ("eye", 4, vec![])]
    {
        let mut plugin = plugin(&*engine(), task, seed);
        let patients = vec![3; thresholds.len()];
        let rule = SetRule { method: SetMethod::Lac, coverage: 0.9, by: SetBy::Class, thresholds, patients };
        plugin.card.sets = (task != "eye").then_some(rule);
        plugin.finish(&*engine(), Storage::F32).expect("the self-test runs");
        put(&folder.path().join("plugins"), task, &file(engine().backbone(), &plugin));
    }
    let server = Running::start(config);
    let picture = image(3);
    let (status, answer) = server.predict(&[("image", Some("a.png"), &picture), ("tasks", None, b"all")]);
    assert_eq!(status, 200, "{answer}");
    let set = |task: &str| {
        let answers = answer["images"][0]["answers"].as_array().expect("answers");
        answers.iter().find(|answer| answer["task"] == task).expect("a task of ours")["set"].clone()
    };
    let names: Vec<String> =
        answer["images"][0]["answers"][0]["probabilities"].as_object().expect("classes").keys().cloned().collect();
    assert_eq!(set("skin"), json!({"coverage": 0.9, "method": "lac", "classes": [names[0], names[2]]}));
    assert_eq!(set("chest")["findings"][&names[1]], "either");
    assert!(set("eye").is_null(), "it makes none");

    let base64 = base64::engine::general_purpose::STANDARD.encode(&picture);
    let infer = |task: &str| {
        let inputs = [json!({"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64]})];
        let request = json!({"inputs": inputs, "outputs": [{"name": "set"}]}).to_string();
        server.send("POST", &format!("/v2/models/{task}/infer"), request.as_bytes())
    };
    let (_, model) = server.get("/v2/models/chest");
    assert_eq!(model["outputs"][2], json!({"name": "set", "datatype": "FP32", "shape": [-1, 3, 2]}), "{model}");
    let output = |task: &str| infer(task).1["outputs"][0].clone();
    assert_eq!(
        (&output("chest")["shape"], output("chest")["data"].as_array().map(Vec::len)),
        (&json!([1, 3, 2]), Some(6))
    );
    assert_eq!((&output("skin")["shape"], &output("skin")["data"]), (&json!([1, 3]), &json!([1.0, 0.0, 1.0])));
    assert_eq!(infer("eye").0, 400, "it has no such output");
}
