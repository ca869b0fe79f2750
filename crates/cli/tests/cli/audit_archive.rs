//! Older records of an audit in files of their own: moved, verified, signed, and whatever is killed meanwhile.

use crate::server::Server;
use crate::workplace::{Workplace, melo, run};
use melo::serve::{Action, Audit, Record, entries, rfc3339};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn append(path: &Path, rows: usize) {
    let record = |index: usize| Record {
        action: Action::Answer,
        request_id: format!("r{index}"),
        who: "ris".to_owned(),
        via: "http".to_owned(),
        input_digest: Some(format!("{index:064x}")),
        sop_instance_uid: None,
        task: "chest".to_owned(),
        plugin_digest: Some("ab".repeat(32)),
        backbone_digest: "cd".repeat(32),
        precision: "f32".to_owned(),
        output: json!({ "effusion": 0.5 }),
    };
    let audit = Audit::open(path, None).expect("the audit opens");
    audit.append(&(0..rows).map(record).collect::<Vec<_>>()).expect("records");
}

/// A moment that is behind what was done and before what comes.
fn moment() -> String {
    std::thread::sleep(Duration::from_millis(3));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    rfc3339(i64::try_from(now).expect("a time"))
}

fn verified(file: &Path, archive: &Path) -> Value {
    run(melo().args(["audit", "verify", "--json"]).arg(file).arg("--archive").arg(archive)).json()
}

#[test]
fn a_servers_audit_is_archived_and_goes_on_under_its_checkpoint() {
    let place = Workplace::new();
    let (audit, out) = (place.at("state/audit.sqlite"), place.at("old.sqlite"));
    let (key, public, checkpoint) = (place.at("audit.key"), place.at("audit.pub"), place.at("elsewhere"));
    run(melo().args(["plugin", "keygen"]).arg(&key)).good();
    let start = || {
        let mut command = melo();
        command.args(["serve", "--listen", "127.0.0.1:0", "--log", "off", "--state"]).arg(place.at("state"));
        Server::start(&place, command.arg("--audit-key").arg(&key).arg("--audit-checkpoint").arg(&checkpoint))
    };
    let archive = |before: &str| {
        let mut command = melo();
        command.args(["audit", "archive", "--before", before, "--out"]).arg(&out).arg(&audit);
        run(command.arg("--checkpoint").arg(&checkpoint).arg("--public-key").arg(&public))
    };
    assert_eq!(start().signal("-TERM"), Some(0));
    let before = moment();
    let old = entries(&audit, 1, None).expect("entries").remove(0);
    let server = start();
    archive(&before).refused(1, &["audit.sqlite", "another process"]);
    assert!(!out.exists());
    assert_eq!(server.signal("-TERM"), Some(0));
    std::fs::copy(&checkpoint, place.at("noted")).expect("copied");
    assert_eq!(archive("tomorrow").status, 2);
    assert!(archive("2026-01-01").good().contains("no record is older"));
    let said = archive(&before).good();
    let last = format!("{}@{}", old.hash, old.n);
    assert!(said.contains(&format!("rows 1 to {} moved, head {last}", old.n)), "{}", said);
    // Each by itself says where it begins and ends, and with what was signed before.
    let alone = run(melo().args(["audit", "verify"]).arg(&out).args(["--expect-head", &last])).good();
    assert!(alone.contains(&format!("{} records, whole\nhead {last}", old.n)), "{}", alone);
    let held = |noted: &str| {
        let mut command = melo();
        command.args(["audit", "verify"]).arg(&audit).arg("--checkpoint").arg(place.at(noted));
        run(command.arg("--public-key").arg(&public))
    };
    let live = held("noted").good();
    assert!(live.contains(&format!("from row {} on\nbehind {last}\nhead ", old.n + 1)), "{}", live);
    let both = verified(&audit, &out);
    assert_eq!((&both["ok"], &both["behind"]["hash"]), (&json!(true), &both["archives"][0]["hash"]), "{both}");
    assert_eq!((&both["archives"][0]["behind"], &both["archives"][0]["rows"]), (&Value::Null, &json!(old.n)));
    // The server goes on behind the checkpoint, and the checkpoint with it.
    assert_eq!(start().signal("-TERM"), Some(0));
    held("elsewhere").good();
    held("noted").good();
    let shown = run(melo().args(["audit", "show", "--last", "4", "--json"]).arg(&audit)).good();
    assert!(shown.contains(r#""action":"archive""#), "{}", shown);
}

#[test]
fn a_kill_at_any_time_loses_no_record_and_doubles_none() {
    const OLD: usize = 20_000;
    const TURNS: u32 = 16;
    let place = Workplace::new();
    let (first, audit, out) = (place.at("first.sqlite"), place.at("audit.sqlite"), place.at("old.sqlite"));
    append(&first, OLD);
    let before = moment();
    append(&first, 500);
    let hashes = |path: &Path| -> Vec<(i64, String)> {
        let all = entries(path, u32::MAX, None).expect("entries");
        all.into_iter().filter(|entry| entry.record.action == "answer").map(|entry| (entry.n, entry.hash)).collect()
    };
    let all = hashes(&first);
    let command = || {
        let mut command = melo();
        command.args(["audit", "archive", "--before", &before, "--out"]).arg(&out).arg(&audit);
        command
    };
    let (mut whole, mut moved, mut both) = (0, 0, 0);
    let started = std::time::Instant::now();
    std::fs::copy(&first, &audit).expect("copied");
    run(&mut command()).good();
    let longest = started.elapsed();
    assert!(
        audit.metadata().expect("a file").len() * 10 < first.metadata().expect("a file").len(),
        "room is given back"
    );
    for turn in 0..TURNS {
        for name in ["old.sqlite", "audit.sqlite-wal", "audit.sqlite-shm"] {
            let _ = std::fs::remove_file(place.at(name));
        }
        std::fs::copy(&first, &audit).expect("copied");
        let mut child = command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(longest * turn / TURNS);
        child.kill().expect("killed");
        child.wait().expect("it ended");
        let live = hashes(&audit);
        let archived = if out.exists() { hashes(&out) } else { Vec::new() };
        match (live.len() == all.len(), out.exists()) {
            (true, false) => whole += 1,
            (true, true) => both += 1,
            (false, _) => moved += 1,
        }
        let mut known = [archived, live].concat();
        known.sort();
        known.dedup();
        assert_eq!(known, all, "no record is lost");
        run(&mut command()).good();
        assert_eq!(verified(&audit, &out)["ok"], true);
        assert_eq!([hashes(&out), hashes(&audit)].concat(), all, "and none is there twice");
    }
    println!("killed before {whole}, between {both}, behind {moved}, of {longest:?}");
    assert!(whole > 0, "some are early enough");
}
