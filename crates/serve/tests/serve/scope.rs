//! Which images are for a task, through the doors of HTTP, in the metrics and in the charts.

use crate::common::{Running, config, engine, file, image, plugin, put};
use base64::Engine as _;
use melo_serve::drift_of;
use melo_vit::{Scope, ScopeConfig, ScopeLimits, Storage};
use serde_json::{Value, json};

#[test]
fn an_image_out_of_scope_is_said_counted_recorded_and_charted() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    config.trust.audit = Some(folder.path().join("state/audit.sqlite"));
    // Of the one every image is far beyond its limits, of the other within them, the third does not know.
    for (task, seed, limit) in [("far", 1, Some(1e-6)), ("near", 3, Some(1e6)), ("eye", 5, None)] {
        let mut plugin = plugin(&*engine(), task, seed);
        let shape = ScopeConfig { blocks: vec![0], dimensions: 2, points: 1, neighbour: 1 };
        let mut scope = Scope::zeros(&shape, engine().backbone().config());
        scope.scale.fill(1.0);
        (scope.whitening[0], scope.whitening[3]) = (1.0, 1.0);
        let limits = |limit: f64| ScopeLimits { false_alarms: 0.05, limits: Some([limit; 2]), patients: 20 };
        if let Some(limit) = limit {
            (plugin.card.scope, plugin.card.scope_limits) = (Some(shape), Some(limits(limit)));
            plugin.scope = Some(scope);
        }
        plugin.finish(&*engine(), Storage::F32).expect("the self-test runs");
        put(&folder.path().join("plugins"), task, &file(engine().backbone(), &plugin));
    }
    let server = Running::start(config);
    let picture = image(3);
    let (status, answer) = server.predict(&[("image", Some("a.png"), &picture), ("tasks", None, b"all")]);
    assert_eq!(status, 200, "{answer}");
    let of = |task: &str| {
        let answers = answer["images"][0]["answers"].as_array().expect("answers");
        answers.iter().find(|answer| answer["task"] == task).expect("a task of ours").clone()
    };
    assert_eq!((&of("far")["in_scope"], &of("near")["in_scope"]), (&json!(false), &json!(true)));
    let score = of("far")["scope_score"].as_f64().expect("a number");
    assert!(score > 1.0 && of("near")["scope_score"].as_f64().is_some_and(|near| near < 1.0), "{answer}");
    assert_eq!((of("eye").get("in_scope"), of("eye").get("scope_score")), (None, None));

    let base64 = base64::engine::general_purpose::STANDARD.encode(&picture);
    let infer = |task: &str| {
        let inputs = [json!({"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64]})];
        let request = json!({"inputs": inputs, "outputs": [{"name": "scope_score"}]}).to_string();
        server.send("POST", &format!("/v2/models/{task}/infer"), request.as_bytes())
    };
    let output = infer("far").1["outputs"][0].clone();
    let found = output["data"][0].as_f64().expect("a number") as f32;
    assert_eq!((&output["shape"], found), (&json!([1, 1]), score as f32));
    assert_eq!(infer("eye").0, 400, "it has no such output");

    let metrics = server.get("/metrics").1;
    let metrics = metrics.as_str().expect("text");
    for line in ["melo_out_of_scope_total{task=\"far\"} 2", "melo_out_of_scope_total{task=\"near\"} 0"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(!metrics.contains("melo_out_of_scope_total{task=\"eye\"}"), "{metrics}");
    let charts = server.get("/v1/tasks/far").1["drift"].as_array().expect("charts").clone();
    let now = |charts: &[Value]| {
        charts.iter().find(|chart| chart["figure"] == "log2_scope").map(|chart| chart["now"].clone())
    };
    let charted = now(&charts).and_then(|now| now.as_f64()).expect("a chart");
    assert!((charted - score.log2()).abs() < 1e-4, "{charted}, {score}");
    drop(server);
    let report =
        drift_of(&folder.path().join("state/audit.sqlite"), &folder.path().join("state/plugins")).expect("an audit");
    let told = report.figures.iter().find(|figure| figure.row.task == "far" && figure.row.figure == "log2_scope");
    assert!(told.is_some_and(|figure| (figure.row.now - charted).abs() < 1e-9 && figure.row.images == 2), "{report:?}");
}
