//! Drift through the doors: charts of what is answered, an alarm, a restart, and the same of the audit afterwards.

use crate::common::{self, Running, config, engine, file, image, plugin, put};
use melo_imaging::{Pixels, encode_png};
use melo_serve::{Config, drift_of};
use melo_vit::TestRecord;
use serde_json::Value;
use std::path::Path;

/// Of a test split of 400 images in which the first class was called once in four, and the others never.
fn test_record() -> TestRecord {
    TestRecord { images: 400, counts: vec![[80, 20, 0, 300], [0, 0, 0, 400], [0, 0, 0, 400]], ..TestRecord::default() }
}

fn room(folder: &Path) -> Config {
    let mut chest = plugin(&*engine(), "chest", 1);
    chest.card.test = Some(test_record());
    // The first finding is reported always, the others never.
    chest.card.thresholds = vec![0.0, 1.0, 1.0];
    chest.finish(&*engine(), melo_vit::Storage::F32).expect("the self-test runs");
    put(&folder.join("plugins"), "chest", &file(engine().backbone(), &chest));
    let mut config = config(folder);
    config.trust.audit = Some(folder.join("state/audit.sqlite"));
    config
}

fn ask(server: &Running, images: &[Vec<u8>]) {
    for images in images.chunks(8) {
        let mut fields: Vec<common::Field<'_>> =
            images.iter().map(|image| ("image", Some("a.png"), &image[..])).collect();
        fields.push(("tasks", None, b"chest"));
        let (status, answer) = server.predict(&fields);
        assert_eq!(status, 200, "{answer}");
    }
}

fn charts(server: &Running) -> Vec<Value> {
    server.get("/v1/tasks/chest").1["drift"].as_array().expect("charts").clone()
}

fn chart<'a>(charts: &'a [Value], figure: &str) -> &'a Value {
    charts.iter().find(|chart| chart["figure"] == figure).unwrap_or_else(|| panic!("no {figure}: {charts:?}"))
}

#[test]
fn what_drifts_is_seen_goes_on_over_a_restart_and_stands_in_the_audit() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = room(folder.path());
    let mut server = Running::start(config.clone());
    let usual: Vec<Vec<u8>> = (0..520).map(image).collect();
    ask(&server, &usual);
    let before = charts(&server);
    let called = chart(&before, "called finding 0");
    assert_eq!((&called["reference"], &called["reference_images"]), (&Value::from(0.25), &Value::from(400)));
    assert_eq!(
        (&called["now"], &called["outside"]),
        (&Value::from(1.0), &Value::from(true)),
        "always, was one in four"
    );
    assert_eq!(chart(&before, "called finding 1")["outside"], false);
    let brightness = chart(&before, "brightness");
    assert_eq!((&brightness["reference_images"], &brightness["images"]), (&Value::from(500), &Value::from(20)));
    assert!(brightness["reference"].as_f64().is_some_and(|mean| (0.3..0.7).contains(&mean)), "{brightness}");
    server.stop();
    let server = Running::start(config);
    assert_eq!(charts(&server), before, "a restart goes on");
    let black = Pixels { width: 40, height: 32, rgb: vec![0; 40 * 32 * 3] };
    ask(&server, &vec![encode_png(&black).expect("a PNG"); 64]);
    let after = charts(&server);
    for figure in ["brightness", "log2_side"] {
        let chart = chart(&after, figure);
        assert_eq!((&chart["outside"], &chart["images"]), (&Value::from(true), &Value::from(84)), "{chart}");
    }
    let metrics = server.get("/metrics").1;
    let text = metrics.as_str().expect("text");
    let outside = |figure: &str| {
        text.lines().any(|line| {
            line.starts_with("melo_drift_outside{") && line.contains(&format!("\"{figure}\"")) && line.ends_with(" 1")
        })
    };
    assert!(outside("brightness") && outside("called finding 0") && !outside("called finding 1"), "{text}");
    let report =
        drift_of(&folder.path().join("state/audit.sqlite"), &folder.path().join("state/plugins")).expect("a report");
    assert!(report.unknown.is_empty());
    let told = |figure: &str| report.figures.iter().find(|found| found.row.figure == figure);
    let called = told("called finding 0").expect("a figure");
    assert_eq!((called.row.now, called.row.images, called.alarms.len()), (1.0, 584, 1));
    assert!(told("brightness").is_none(), "an audit holds nothing of images");
    let unknown = drift_of(&folder.path().join("state/audit.sqlite"), folder.path()).expect("a report").unknown;
    assert_eq!(unknown, [called.row.version.as_str()]);
}

#[test]
fn charts_that_cannot_be_read_begin_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = room(folder.path());
    std::fs::create_dir_all(folder.path().join("state")).expect("a folder");
    std::fs::write(folder.path().join("state/drift.json"), "{\"format\":1,\"monitors\":{\"x\":").expect("written");
    let server = Running::start(config);
    ask(&server, &[image(1)]);
    assert_eq!(chart(&charts(&server), "called finding 0")["images"], 1);
}
