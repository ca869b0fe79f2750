//! Signatures and checkpoints as people use them.

use crate::server::Server;
use crate::workplace::{Workplace, embedded_backbone, melo, run};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A plug-in of the quickstart.
fn plugin(place: &Workplace, name: &str) -> PathBuf {
    let from = embedded_backbone().with_file_name("phantoms").join(name);
    std::fs::copy(from, place.at(name)).expect("copied");
    place.at(name)
}

fn keygen(place: &Workplace, name: &str) -> String {
    let key = run(melo().args(["plugin", "keygen"]).arg(place.at(name))).good();
    assert!(key.starts_with("RW"), "{key}");
    key.trim().to_owned()
}

fn sign(place: &Workplace, plugin: &Path, key: &str) {
    let said = run(melo().args(["plugin", "sign"]).arg(plugin).arg("--key").arg(place.at(key))).good();
    assert!(said.contains("safetensors.minisig: signed by key"), "{said}");
}

#[test]
fn a_plugin_is_signed_verified_and_refused_once_it_was_changed() {
    let place = Workplace::new();
    let (fundus, film) = (plugin(&place, "fundus.safetensors"), plugin(&place, "chest_film.safetensors"));
    let key = keygen(&place, "lab.key");
    run(melo().args(["plugin", "keygen"]).arg(place.at("lab.key"))).refused(1, &["lab.key", "never overwritten"]);
    sign(&place, &fundus, "lab.key");
    let info = run(melo().args(["plugin", "info"]).arg(&fundus)).good();
    assert!(info.contains("signature   by key"), "{info}");
    let verify =
        |arguments: &[&str], plugins: &[&Path]| run(melo().args(["plugin", "verify"]).args(arguments).args(plugins));
    let public = place.at("lab.pub");
    for shown in [public.to_str().expect("text"), &key] {
        let said = verify(&["--public-key", shown], &[&fundus]).good();
        assert!(said.contains("signed by key") && said.contains("task fundus sha256 "), "{said}");
    }
    let list = place.write("trusted.keys", format!("{key} the lab\n"));
    let list = list.to_str().expect("text");
    let said = verify(&["--trusted-keys", list, "--json"], &[&fundus]).json();
    assert_eq!((&said["ok"], &said["name"], &said["reason"]), (&json!(true), &json!("the lab"), &json!(null)));
    verify(&["--trusted-keys", list], &[&film]).refused(1, &["chest_film.safetensors: it is not signed"]);
    // Another plug-in in its place, under the same signature.
    std::fs::copy(&film, &fundus).expect("copied");
    verify(&["--trusted-keys", list], &[&fundus]).refused(1, &["fundus.safetensors", "is not of this file"]);
    keygen(&place, "other.key");
    sign(&place, &fundus, "other.key");
    verify(&["--trusted-keys", list], &[&fundus]).refused(1, &["not among the trusted keys"]);
    verify(&["--trusted-keys", place.at("lab.key").to_str().expect("text")], &[&fundus])
        .refused(1, &["lab.key: line 2"]);
}

#[test]
fn a_server_takes_what_a_trusted_key_signed_and_nothing_else() {
    let place = Workplace::new();
    std::fs::create_dir(place.at("tasks")).expect("made");
    let key = keygen(&place, "lab.key");
    let list = place.write("trusted.keys", format!("{key} the lab\n"));
    for name in ["fundus.safetensors", "mammogram.safetensors"] {
        std::fs::rename(plugin(&place, name), place.at("tasks").join(name)).expect("moved");
    }
    sign(&place, &place.at("tasks/fundus.safetensors"), "lab.key");
    let mut command = melo();
    command.args(["serve", "--listen", "127.0.0.1:0", "--log", "json", "--require-signature", "--backbone"]);
    command.arg(embedded_backbone()).arg("--state").arg(place.at("state"));
    command.arg("--plugins").arg(place.at("tasks")).arg("--trusted-keys").arg(&list);
    let server = Server::start(&place, &mut command);
    let tasks = server.get("/v1/tasks");
    assert_eq!(tasks["tasks"].as_array().expect("a list").len(), 1, "{tasks}");
    assert_eq!(tasks["tasks"][0]["signed_by"]["name"], "the lab");
    let problem = tasks["problems"]["mammogram.safetensors"].as_str().unwrap_or_default();
    assert!(problem.contains("not signed"), "{tasks}");
    run(melo().args(["serve", "--require-signature"])).refused(2, &["trusted-keys"]);
}

#[test]
fn a_server_does_not_start_behind_its_last_checkpoint() {
    let place = Workplace::new();
    keygen(&place, "audit.key");
    let audit = place.at("state/audit.sqlite");
    let command = || {
        let mut command = melo();
        command.args(["serve", "--listen", "127.0.0.1:0", "--log", "json", "--state"]).arg(place.at("state"));
        command.arg("--audit-key").arg(place.at("audit.key"));
        command.arg("--audit-checkpoint").arg(place.at("melo.checkpoint"));
        command
    };
    let mut server = Server::start(&place, &mut command());
    run(Command::new("kill").arg("-TERM").arg(server.child.id().to_string())).good();
    assert!(server.child.wait().expect("it ends").success());
    let verify = || {
        let mut command = melo();
        command.args(["audit", "verify"]).arg(&audit).arg("--checkpoint").arg(place.at("melo.checkpoint"));
        run(command.arg("--public-key").arg(place.at("audit.pub")))
    };
    let said = verify().good();
    assert!(said.contains("records, whole"), "{said}");
    let shown = run(melo().args(["audit", "show"]).arg(&audit)).good();
    assert!(shown.contains("server start by melo") && shown.contains("server stop by melo"), "{shown}");
    // Taken away: another chain verifies by itself, and is not the one.
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", audit.display()));
    }
    let ended = run(command().args(["--audit-checkpoint-s", "1"]));
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("audit.sqlite") && ended.stderr.contains("the checkpoint has"), "{}", ended.stderr);
    verify().refused(1, &["cut off"]);
    let fresh = run(melo().args(["audit", "verify"]).arg(&audit)).good();
    assert!(fresh.contains("0 records, whole"), "{fresh}");
    // Made by hand, a checkpoint begins a new series.
    let mut by_hand = melo();
    by_hand.args(["audit", "checkpoint"]).arg(&audit).arg("--key").arg(place.at("audit.key"));
    run(by_hand.arg("--out").arg(place.at("melo.checkpoint"))).good();
    let server = Server::start(&place, &mut command());
    assert_eq!(server.status("/v2/health/ready"), 200);
    drop(server);
    std::fs::remove_file(place.at("melo.checkpoint")).expect("removed");
    let ended = run(&mut command());
    assert!(ended.status == 1 && ended.stderr.contains("melo audit checkpoint"), "{}", ended.stderr);
    run(melo().args(["serve", "--audit-key", "x.key"])).refused(2, &["audit-checkpoint and audit-key go together"]);
}
