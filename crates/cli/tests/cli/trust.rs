//! Keys and the audit as people use them: verbs, settings, kills.

use crate::form::Field;
use crate::server::{Server, predict};
use crate::workplace::{Workplace, melo, run};
use melo::synthetic::Phantom;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// `melo serve` with its log in JSON.
fn start(place: &Workplace, arguments: &[&str]) -> Server {
    let mut command = melo();
    command.args(["serve", "--listen", "127.0.0.1:0", "--log", "json", "--state"]).arg(place.at("state"));
    Server::start(place, command.args(arguments))
}

fn ask(server: &Server, key: Option<&str>, image: &[u8]) -> Result<Value, ureq::Error> {
    let fields: [Field<'_>; 2] = [("image", Some("Doe^John.png"), image), ("tasks", None, b"all")];
    let authorization = key.map(|key| format!("Bearer {key}"));
    let headers =
        authorization.iter().flat_map(|value| [("authorization", value.as_str()), ("x-request-id", "pacs-7")]);
    predict(&server.url, &fields, &headers.collect::<Vec<_>>())
}

fn image(place: &Workplace) -> Vec<u8> {
    place.image("film.png", Phantom::ALL[0], 1, 5_000, 96);
    std::fs::read(place.at("film.png")).expect("the image")
}

fn audit(place: &Workplace) -> PathBuf {
    place.at("state/audit.sqlite")
}

#[test]
fn a_key_is_made_used_and_taken_back() {
    let place = Workplace::new();
    let keys = place.at("keys.toml");
    let file = keys.to_str().expect("text");
    let added = run(melo().args(["keys", "add", "ris", "--json", "--file", file])).json();
    let key = added["key"].as_str().expect("a key").to_owned();
    assert!(key.starts_with("melo_"));
    let again = run(melo().args(["keys", "add", "ris", "--file", file]));
    assert_eq!(again.status, 1, "{}", again.stderr);
    run(melo().args(["keys", "add", "ml-ops", "--scope", "admin", "--expires", "2099-01-31", "--file", file])).good();
    let listed = run(melo().args(["keys", "list", "--file", file]));
    assert!(listed.stdout.contains("ml-ops: admin") && listed.stdout.contains("2099-01-31"), "{}", listed.stdout);
    assert!(!listed.stdout.contains(&key));
    let server = start(&place, &["--keys", file]);
    let image = image(&place);
    assert!(matches!(ask(&server, None, &image), Err(ureq::Error::StatusCode(401))));
    ask(&server, Some(&key), &image).expect("an answer");
    let shown = run(melo().args(["audit", "show", "--json", "--last", "1"]).arg(audit(&place))).json();
    assert_eq!((&shown["who"], &shown["request_id"]), (&Value::from("ris"), &Value::from("pacs-7")));
    run(melo().args(["keys", "remove", "ris", "--file", file])).good();
    let mut refused = false;
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(100));
        refused |= matches!(ask(&server, Some(&key), &image), Err(ureq::Error::StatusCode(401)));
        if refused {
            break;
        }
    }
    assert!(refused, "a key that was taken back is refused");
    drop(server);
    let log = std::fs::read_to_string(place.at("server.log")).expect("the log");
    assert!(!log.contains("John") && !log.contains(&key), "{log}");
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let found = lines.iter().find(|line| line["span"]["request_id"] == "pacs-7").expect("a line");
    assert_eq!((&found["status"], &found["who"], &found["route"]), (&200.into(), &"ris".into(), &"/v1/predict".into()));
}

#[test]
fn after_a_kill_under_load_every_answer_that_was_given_is_in_a_whole_chain() {
    let place = Workplace::new();
    let image = image(&place);
    let answered = AtomicUsize::new(0);
    let mut server = start(&place, &[]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while ask(&server, None, &image).is_ok() {
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        while answered.load(Ordering::SeqCst) < 20 {
            std::thread::sleep(Duration::from_millis(10));
        }
        run(Command::new("kill").arg("-KILL").arg(server.child.id().to_string())).good();
    });
    let _ = server.child.wait();
    let verified = run(melo().args(["audit", "verify", "--json"]).arg(audit(&place))).json();
    assert_eq!(verified["ok"], true, "{verified}");
    let (rows, tasks) = (verified["rows"].as_u64().expect("a number"), Phantom::ALL.len() as u64);
    let given = answered.load(Ordering::SeqCst) as u64;
    // One of the start, one a task that is served from then on.
    let answers = rows - 1 - tasks;
    assert!(answers >= given * tasks && answers % tasks == 0, "{rows} records of {given} answers of {tasks} tasks");
    let head = format!("{}@{rows}", verified["hash"].as_str().expect("a hash"));
    let server = start(&place, &[]);
    ask(&server, None, &image).expect("an answer");
    let second = run(melo().args(["serve", "--listen", "127.0.0.1:0", "--state"]).arg(place.at("state")));
    assert!(
        second.status == 1 && second.stderr.contains("audit.sqlite: another process writes it"),
        "{}",
        second.stderr
    );
    drop(server);
    let grown = run(melo().args(["audit", "verify", "--expect-head", &head]).arg(audit(&place)));
    assert_eq!(grown.status, 0, "{}", grown.stderr);
    let other = format!("{}@{rows}", "0123456789abcdef".repeat(4));
    let other = run(melo().args(["audit", "verify", "--expect-head", &other]).arg(audit(&place)));
    assert!(other.status == 1 && other.stderr.contains(&format!("row {rows}")), "{}", other.stderr);
}

#[test]
fn settings_that_contradict_each_other_are_refused_by_name() {
    let place = Workplace::new();
    let oidc = place.write("oidc.toml", "[oidc]\nissuer = \"http://idp.example\"\naudience = \"melo\"\n");
    let oidc = oidc.to_str().expect("text");
    for (arguments, status, why) in [
        (&["--tls-cert", "x.pem"][..], 2, "tls-key"),
        (&["--audit", "x.sqlite", "--no-audit"], 2, "no-audit"),
        (&["--keys", "none.toml"], 1, "none.toml"),
        (&["--oidc-per-minute", "5"], 2, "[oidc]"),
        (&["--oidc-per-minute", "0"], 2, "--oidc-per-minute"),
        (&["--listen", "0.0.0.0:0"], 1, "--insecure"),
        (&["--audit-syslog", "siem:514"], 1, "tcp://HOST:PORT"),
        (&["--audit-syslog", "tls://siem:6514"], 1, "audit-syslog-ca"),
        (&["--audit-syslog", "tls://siem:6514", "--audit-syslog-ca", "none.pem"], 1, "none.pem"),
        (&["--audit-syslog", "udp://siem:514", "--no-audit"], 2, "no-audit"),
        (&["--audit-syslog-ca", "x.pem"], 2, "audit-syslog"),
        (&["--audit-syslog-cert", "x.pem"], 2, "audit-syslog-key"),
        (&["--otlp-endpoint", "collector"], 1, "otlp-endpoint"),
        (&["--config", oidc], 1, "https"),
    ] {
        let mut command = melo();
        command.args(["serve", "--log", "off", "--state"]).arg(place.at("state"));
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let ended = run(command.args(arguments));
        assert_eq!(ended.status, status, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(why), "{arguments:?}: {}", ended.stderr);
    }
}
