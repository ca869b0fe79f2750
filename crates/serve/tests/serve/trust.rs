//! Keys, the audit and TLS, through the doors.

use crate::common::{self, Running, client, config, engine, file, form, image, plugin, probabilities, put, read};
use melo_serve::{Config, Entry, Error, KeyFile, NewKey, Scope, Server, TlsFiles, Trust, entries, verify};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

struct Room {
    folder: TempDir,
    server: Running,
    predict: String,
    admin: String,
}

fn prepared(change: impl FnOnce(&mut Config)) -> (TempDir, Config, [String; 2]) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    let plugin = plugin(&*engine(), "chest", 1);
    put(&folder.path().join("plugins"), "chest", &file(engine().backbone(), &plugin));
    let keys = folder.path().join("keys.toml");
    let mut file = KeyFile::default();
    let secrets = [("ris", Scope::Predict), ("ml-ops", Scope::Admin)].map(|(name, scope)| {
        let new = NewKey::new(name, &[scope], None).expect("a key");
        file.add(&new).expect("it is new");
        new.secret
    });
    file.write(&keys).expect("it is written");
    let audit = Some(folder.path().join("audit.sqlite"));
    config.trust = Trust { keys: Some(keys), audit, ..Trust::default() };
    change(&mut config);
    (folder, config, secrets)
}

fn room() -> Room {
    let (folder, config, [predict, admin]) = prepared(|_| {});
    Room { folder, server: Running::start(config), predict, admin }
}

impl Room {
    fn ask(&self, method: &str, path: &str, key: Option<&str>, body: &[u8]) -> (u16, Value) {
        let mut request = ureq::http::Request::builder().method(method).uri(self.server.url(path));
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        read(client().run(request.body(body).expect("a request")))
    }

    fn audit(&self) -> PathBuf {
        self.folder.path().join("audit.sqlite")
    }
}

/// The records of answers.
fn answers(room: &Room) -> Vec<Entry> {
    let all = entries(&room.audit(), 99, None).expect("entries");
    all.into_iter().filter(|entry| entry.record.action == "answer").collect()
}

#[test]
fn every_door_but_the_open_ones_needs_a_key_of_its_scope() {
    let room = room();
    for path in ["/", "/v2/health/live", "/v2/health/ready", "/v1/openapi.json"] {
        assert_eq!(room.ask("GET", path, None, b"").0, 200, "{path}");
    }
    let doors = [
        ("GET", "/v1/tasks"),
        ("GET", "/v1/tasks/chest"),
        ("GET", "/v1/samples"),
        ("GET", "/metrics"),
        ("GET", "/v2"),
        ("GET", "/v2/models/chest"),
        ("POST", "/v1/predict"),
        ("POST", "/v2/models/chest/infer"),
    ];
    for (method, path) in doors {
        let (status, answer) = room.ask(method, path, None, b"");
        assert_eq!(status, 401, "{path}");
        assert!(answer["error"]["code"] == "unauthorized" || (path.starts_with("/v2") && answer["error"].is_string()));
        assert_eq!(room.ask(method, path, Some("melo_wrong"), b"").0, 401, "{path}");
        for key in [&room.predict, &room.admin] {
            let (status, answer) = room.ask(method, path, Some(key), b"");
            assert!(status == 200 || status == 400, "{path}: {status} {answer}");
        }
    }
    for (method, path) in [
        ("PUT", "/v1/tasks/chest"),
        ("PUT", "/v1/tasks/chest/pin"),
        ("DELETE", "/v1/tasks/chest/pin"),
        ("DELETE", "/v1/tasks/chest"),
    ] {
        assert_eq!(room.ask(method, path, None, b"").0, 401, "{method} {path}");
        assert_eq!(room.ask(method, path, Some(&room.predict), b"").0, 403, "{method} {path}");
        let (status, answer) = room.ask(method, path, Some(&room.admin), b"no plug-in");
        assert!([200, 204, 422].contains(&status), "{method} {path}: {status} {answer}");
    }
    let actions = entries(&room.audit(), 99, None).expect("entries");
    let found: Vec<(&str, &str)> =
        actions.iter().map(|entry| (entry.record.action.as_str(), entry.record.who.as_str())).collect();
    let begun = [("start", "melo"), ("serve", "melo"), ("refuse", "unknown"), ("login", "ris"), ("login", "ml-ops")];
    let asked = ["put", "pin", "unpin", "remove"].map(|action| (action, "ml-ops"));
    assert_eq!(found, [&begun[..], &asked, &[("withdraw", "melo")]].concat(), "refusals of one address are counted");
}

#[test]
fn an_answer_is_in_the_audit_under_the_name_of_its_request() {
    let room = room();
    let (kind, body) = form(&[("image", Some("Doe^John.png"), &image(1)), ("tasks", None, b"all")]);
    let request = client().post(room.server.url("/v1/predict")).header("content-type", kind);
    let response = request.header("x-api-key", &room.predict).header("x-request-id", "pacs-7").send(&body[..]);
    let response = response.expect("an answer");
    assert_eq!(response.headers()["x-request-id"], "pacs-7");
    let (status, answer) = read(Ok(response));
    assert_eq!(status, 200, "{answer}");
    let answer = &answer["images"][0]["answers"][0];
    let found = answers(&room);
    assert_eq!(found.len(), 1);
    let record = &found[0].record;
    assert_eq!((record.who.as_str(), record.via.as_str(), record.request_id.as_str()), ("ris", "http", "pacs-7"));
    assert_eq!(record.task, "chest");
    assert_eq!(record.plugin_digest.as_deref(), answer["version"].as_str());
    assert_eq!(Some(record.backbone_digest.as_str()), answer["backbone"].as_str());
    assert_eq!(record.output, answer["probabilities"]);
    assert_eq!(probabilities(answer).len(), 3);
    let bytes = std::fs::read(room.audit()).expect("the file");
    assert!(!bytes.windows(4).any(|part| part == b"John"), "names of files are not kept");
    assert_eq!(verify(&room.audit(), None).expect("a report").broken, None);
}

#[test]
fn a_second_server_on_the_same_audit_is_refused_by_name() {
    let room = room();
    let (_folder, mut config, _) = prepared(|_| {});
    config.trust.audit = Some(room.audit());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let error = runtime.block_on(Server::start(config, engine())).err().expect("an error");
    assert!(matches!(error, Error::InUse { .. }), "{error}");
}

#[test]
fn nothing_is_answered_that_cannot_be_recorded() {
    let room = room();
    let connection = rusqlite::Connection::open(room.audit()).expect("the file");
    let full = "CREATE TRIGGER full BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'no space'); END";
    connection.execute_batch(full).expect("a trigger");
    let ask = || {
        let (kind, body) = form(&[("image", Some("a.png"), &image(1)), ("tasks", None, b"all")]);
        let request = client().post(room.server.url("/v1/predict")).header("content-type", kind);
        read(request.header("x-api-key", &room.predict).send(&body[..]))
    };
    let (status, answer) = ask();
    assert_eq!((status, &answer["error"]["code"]), (503, &Value::from("unavailable")));
    assert!(answer.get("images").is_none());
    let (status, _) = room.ask("DELETE", "/v1/tasks/chest", Some(&room.admin), b"");
    assert_eq!(status, 503, "nor is anything changed");
    connection.execute_batch("DROP TRIGGER full").expect("room again");
    let (status, answer) = ask();
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn beyond_this_machine_it_listens_only_with_keys() {
    let (_folder, mut config, _) = prepared(|config| {
        config.listen = "0.0.0.0:0".to_owned();
        config.trust.keys = None;
    });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let error = runtime.block_on(Server::start(config.clone(), engine())).err().expect("an error");
    assert!(matches!(error, melo_serve::Error::Open { .. }), "{error}");
    config.trust.insecure = true;
    assert!(runtime.block_on(Server::start(config, engine())).is_ok());
}

/// A certificate for `localhost`, written as two files; the certificate to trust.
fn certificate(folder: &TempDir) -> (TlsFiles, ureq::tls::Certificate<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let files = TlsFiles { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem"), client_ca: None };
    std::fs::write(&files.cert, made.cert.pem()).expect("it is written");
    std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("it is written");
    (files, ureq::tls::Certificate::from_der(made.cert.der()).to_owned())
}

fn live(server: &Running, trusted: &ureq::tls::Certificate<'static>) -> Result<u16, ureq::Error> {
    let roots = ureq::tls::RootCerts::Specific(Arc::new(vec![trusted.clone()]));
    let tls = ureq::tls::TlsConfig::builder().root_certs(roots).build();
    let agent = ureq::Agent::config_builder().tls_config(tls).timeout_global(Some(Duration::from_secs(20))).build();
    let url = format!("https://localhost:{}/v2/health/live", server.address.port());
    Ok(agent.new_agent().get(url).call()?.status().as_u16())
}

#[test]
fn tls_is_spoken_and_a_new_certificate_is_taken_over() {
    let mut first = None;
    let (folder, mut config, _) = prepared(|_| {});
    let (files, trusted) = certificate(&folder);
    config.trust.tls = Some(files.clone());
    let server = first.insert(Running::start(config));
    assert_eq!(live(server, &trusted).expect("an answer"), 200);
    assert!(client().get(server.url("/v2/health/live")).call().is_err(), "plain HTTP is not spoken");
    // A certificate without its key changes nothing.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&files.cert, other.cert.pem()).expect("it is written");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(live(server, &trusted).expect("the one from before"), 200);
    std::fs::write(&files.key, other.signing_key.serialize_pem()).expect("it is written");
    let renewed = ureq::tls::Certificate::from_der(other.cert.der()).to_owned();
    common::until("the new certificate", || live(server, &renewed).is_ok());
    assert!(live(server, &trusted).is_err());
}

#[test]
fn certificates_that_cannot_be_used_are_refused_at_the_start() {
    let (folder, config, _) = prepared(|_| {});
    let (files, _) = certificate(&folder);
    let (other_folder, ..) = prepared(|_| {});
    let (others, _) = certificate(&other_folder);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").expect("it is written");
    for (cert, key, named) in [
        (files.cert.clone(), others.key, "cert.pem"),
        (files.key.clone(), files.key.clone(), "key.pem"),
        (files.cert.clone(), files.cert.clone(), "cert.pem"),
        (empty.clone(), files.key.clone(), "empty.pem"),
        (folder.path().join("none.pem"), files.key.clone(), "none.pem"),
    ] {
        let mut config = config.clone();
        config.trust.tls = Some(TlsFiles { cert, key, client_ca: None });
        let error = runtime.block_on(Server::start(config, engine())).err().expect("an error").to_string();
        assert!(error.contains(named), "{named}: {error}");
    }
}

#[test]
fn a_key_that_asks_too_often_is_told_when_to_come_again() {
    let (_folder, config, [predict, admin]) = prepared(|config| {
        let path = config.trust.keys.as_ref().expect("a key file");
        let mut file = KeyFile::read(path).expect("keys");
        file.keys[0].per_minute = Some(2);
        file.write(path).expect("written");
    });
    let server = Running::start(config);
    let ask = |key: &str| client().get(server.url("/v1/tasks")).header("x-api-key", key).call().expect("an answer");
    assert_eq!([ask(&predict).status(), ask(&predict).status()], [200, 200]);
    let refused = ask(&predict);
    let wait: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=31).contains(&wait), "{wait}");
    let (status, said) = read(Ok(refused));
    assert_eq!((status, &said["error"]["code"]), (429, &"too_often".into()), "{said}");
    assert_eq!(ask(&admin).status(), 200, "another key is not held up");
}

#[test]
fn a_caller_who_fills_the_queue_leaves_a_place_to_others() {
    let batches = melo_serve::BatchConfig { queue: 8, ..common::batches() };
    let (_folder, config, [predict, admin]) = prepared(|config| config.batches = batches);
    let server = Running::start(config);
    let (kind, body) = form(&[("image", Some("a.png"), &image(1)), ("tasks", None, b"chest")]);
    let ask = |key: &str| {
        let request = client().post(server.url("/v1/predict")).header("x-api-key", key).header("content-type", &kind);
        read(request.send(&body[..])).0
    };
    let held = server.service.batches.admit("ris", 8).expect("there is room");
    assert_eq!((ask(&predict), ask(&admin)), (429, 200), "the key of `ris`, and of another");
    drop(held);
    assert_eq!(ask(&predict), 200);
}

#[test]
fn callers_without_keys_are_told_apart_by_their_addresses() {
    let batches = melo_serve::BatchConfig { queue: 8, ..common::batches() };
    let (_folder, config, _) = prepared(|config| {
        config.batches = batches;
        config.trust = Trust::default();
    });
    let server = Running::start(config);
    let (kind, body) = form(&[("image", Some("a.png"), &image(1)), ("tasks", None, b"chest")]);
    let ask = || read(client().post(server.url("/v1/predict")).header("content-type", &kind).send(&body[..])).0;
    let another = server.service.batches.admit("anonymous 10.0.0.7", 8).expect("there is room");
    assert_eq!(ask(), 200);
    drop(another);
    let own = server.service.batches.admit("anonymous 127.0.0.1", 8).expect("there is room");
    assert_eq!(ask(), 429);
    drop(own);
}
