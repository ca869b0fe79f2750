//! Several servers of one service: their audits together, and what of them is refused.

use crate::form::Field;
use crate::server::Server;
use crate::workplace::{Workplace, melo, run};
use melo::synthetic::Phantom;
use std::path::PathBuf;
use std::process::Command;

fn serve(place: &Workplace, replica: &str) -> Command {
    let mut command = melo();
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--log", "off", "--replica", replica, "--state"])
        .arg(place.at(replica));
    command.args(["--audit-checkpoint-s", "1", "--audit-key"]).arg(place.at("audit.key"));
    command.arg("--audit-checkpoint").arg(place.at(format!("{replica}.checkpoint")));
    command
}

/// The audits of replicas that each answered an image for four tasks.
fn audits(place: &Workplace, replicas: &[&str]) -> Vec<PathBuf> {
    run(melo().args(["plugin", "keygen"]).arg(place.at("audit.key"))).good();
    place.image("film.png", Phantom::ALL[0], 1, 5_000, 96);
    let image = std::fs::read(place.at("film.png")).expect("the image");
    let fields: [Field<'_>; 2] = [("image", Some("film.png"), &image), ("tasks", None, b"all")];
    let audit = |replica: &&str| {
        let server = Server::start(place, &mut serve(place, replica));
        server.predict(&fields).expect("an answer");
        assert_eq!(server.signal("-TERM"), Some(0));
        place.at(replica).join("audit.sqlite")
    };
    replicas.iter().map(audit).collect()
}

#[test]
fn audits_of_replicas_verify_together_each_by_its_checkpoint() {
    let place = Workplace::new();
    let audits = audits(&place, &["melo-1", "melo-2"]);
    let verify = |files: &[PathBuf]| {
        let mut command = melo();
        command.args(["audit", "verify"]).args(files);
        command
    };
    let with_checkpoints = |mut command: Command| {
        for replica in ["melo-2", "melo-1"] {
            command.arg("--checkpoint").arg(place.at(format!("{replica}.checkpoint")));
        }
        command.arg("--public-key").arg(place.at("audit.pub"));
        command
    };
    let text = run(&mut with_checkpoints(verify(&audits))).good();
    assert!(text.contains("replica melo-1: ") && text.contains("replica melo-2: "), "{text}");
    assert!(text.trim_end().ends_with("all whole") && text.contains("2 audits: "), "{text}");
    let json = run(with_checkpoints(verify(&audits)).arg("--json")).json();
    assert_eq!((&json["ok"], &json["audits"][1]["replicas"][0]), (&true.into(), &"melo-2".into()));
    let rows = |place: usize| json["audits"][place]["rows"].as_i64().expect("rows");
    assert_eq!(json["records"].as_i64(), Some(rows(0) + rows(1)));
    let alone = run(verify(&audits[..1]).arg("--json")).json();
    assert_eq!((&alone["ok"], &alone["replicas"][0]), (&true.into(), &"melo-1".into()));
    let twice = [audits[0].clone(), audits[0].clone()];
    run(&mut verify(&twice)).refused(1, &["are both of replica `melo-1`"]);
    run(&mut with_checkpoints(verify(&[audits[0].clone(), place.at("none.sqlite")]))).refused(1, &["none.sqlite"]);
    run(verify(&audits).arg("--archive").arg(place.at("old.sqlite"))).refused(2, &["--archive", "one audit"]);
    // An older copy of one: only its own checkpoint knows that rows are missing.
    let copy = place.at("copy.sqlite");
    std::fs::copy(&audits[0], &copy).expect("copied");
    let server = Server::start(&place, &mut serve(&place, "melo-1"));
    assert_eq!(server.signal("-TERM"), Some(0));
    run(&mut verify(&[copy.clone(), audits[1].clone()])).good();
    let cut = run(&mut with_checkpoints(verify(&[copy, audits[1].clone()])));
    assert!(cut.status == 1 && cut.stdout.contains("the end was cut off"), "{cut:?}");
    assert!(cut.stderr.contains("1 of 2 audits are broken") && cut.stderr.contains("copy.sqlite"), "{}", cut.stderr);
}

#[test]
fn drift_of_an_audit_is_told_of_the_plugins_beside_it() {
    let place = Workplace::new();
    let audit = audits(&place, &["melo-1"]).remove(0);
    let report = run(melo().args(["audit", "drift", "--json"]).arg(&audit)).json();
    let figures = report["figures"].as_array().expect("figures");
    let confidences = figures.iter().filter(|figure| figure["figure"] == "confidence").count();
    assert_eq!((confidences, &report["unknown"]), (4, &serde_json::json!([])));
    let text = run(melo().args(["audit", "drift"]).arg(&audit)).good();
    assert!(text.contains("too few for a reference"), "{text}");
    let elsewhere = run(melo().args(["audit", "drift", "--plugins"]).arg(place.at("")).arg(&audit));
    assert!(elsewhere.stderr.contains("left out: answers of plug-in"), "{elsewhere:?}");
    assert!(elsewhere.good().contains("no answer of a plug-in that is known"));
}

#[test]
fn names_and_shares_that_cannot_be_are_refused() {
    let place = Workplace::new();
    let with = |arguments: &[&str]| {
        let mut command = melo();
        command.args(["serve", "--listen", "127.0.0.1:0", "--log", "off", "--state"]).arg(place.at("state"));
        run(command.args(arguments))
    };
    with(&["--replica", "melo 1"]).refused(1, &["`melo 1` is no name of a replica"]);
    with(&["--unready-queue-share", "0"]).refused(1, &["0 is no share of a queue"]);
}
