//! What a balancer asks: whether requests should come here, and what an autoscaler reads.

use crate::common::{self, Running, client, config, engine, file, image, plugin, put, until};
use melo_serve::{BatchConfig, Config, Error, Server};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server with the tasks `chest` and `skin`.
fn room(change: impl FnOnce(&mut Config)) -> (TempDir, Running) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    for (task, seed) in [("chest", 1), ("skin", 2)] {
        put(&folder.path().join("plugins"), task, &file(engine().backbone(), &plugin(&*engine(), task, seed)));
    }
    change(&mut config);
    (folder, Running::start(config))
}

fn ready(server: &Running) -> (u16, Value) {
    let (status, body) = server.get("/v2/health/ready");
    (status, body["reasons"].clone())
}

/// Whether the only reason not to be ready begins so.
fn unready(server: &Running, reason: &str) {
    let (status, reasons) = ready(server);
    assert_eq!((server.get("/readyz").0, server.get("/healthz").0), (503, 200));
    let reasons: Vec<&str> = reasons.as_array().expect("reasons").iter().filter_map(Value::as_str).collect();
    assert!(status == 503 && reasons.len() == 1 && reasons[0].starts_with(reason), "{reason}: {status} {reasons:?}");
    assert_eq!(server.get("/v2/health/live").0, 200, "it lives");
}

#[test]
fn a_server_of_no_plugin_lives_and_is_not_ready() {
    let (folder, server) = room(|_| {});
    assert_eq!(ready(&server).0, 200);
    for task in ["chest", "skin"] {
        std::fs::remove_file(folder.path().join(format!("plugins/{task}.safetensors"))).expect("removed");
    }
    until("nothing is served", || ready(&server).0 == 503);
    unready(&server, "no plug-in is served");
    put(&folder.path().join("plugins"), "chest", &file(engine().backbone(), &plugin(&*engine(), "chest", 3)));
    until("a plug-in again", || ready(&server).0 == 200);
}

#[test]
fn a_queue_that_is_pressed_for_some_time_is_not_ready_until_it_is_not() {
    let pressed_for = Duration::from_millis(300);
    let (_folder, server) = room(|config| config.batches = BatchConfig { queue: 10, pressed_for, ..config.batches });
    let admit = |rows| server.service.batches.admit("ris", rows).expect("there is room");
    let (most, last) = (admit(8), admit(1));
    let since = Instant::now();
    assert_eq!(ready(&server).0, 200, "not at once");
    until("not ready", || ready(&server).0 == 503);
    assert!(since.elapsed() >= pressed_for - Duration::from_millis(50), "{:?}", since.elapsed());
    unready(&server, "the queue has 9 of 10 rows");
    assert!(server.get("/metrics").1.as_str().expect("text").contains("melo_ready 0"));
    drop(last);
    assert_eq!(ready(&server).0, 200, "8 of 10 are no more than a share");
    let again = admit(1);
    assert_eq!(ready(&server).0, 200, "the time begins anew");
    drop((most, again));
}

#[test]
fn a_queue_that_may_be_full_is_ready() {
    let full = BatchConfig { queue: 4, pressed_share: 1.5, pressed_for: Duration::ZERO, ..common::batches() };
    let (_folder, server) = room(|config| config.batches = full);
    let held = server.service.batches.admit("ris", 4).expect("there is room");
    assert_eq!(ready(&server).0, 200);
    drop(held);
}

#[test]
fn who_is_asked_to_stop_is_not_ready_and_answers_for_a_while() {
    let grace = Duration::from_millis(1500);
    let (_folder, mut server) = room(|config| config.trust.lame_duck = grace);
    let picture = image(1);
    let fields: [common::Field<'_>; 2] = [("image", Some("a.png"), &picture), ("tasks", None, b"chest")];
    let address = server.address;
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            until("not ready", || {
                let text = client().get(format!("http://{address}/v2/health/ready")).call().expect("an answer");
                let closes = text.headers().get("connection").is_some_and(|value| value == "close");
                assert_eq!(closes, text.status() == 503, "a connection is not kept when the end is near");
                text.status() == 503
            });
            let (kind, body) = common::form(&fields);
            let url = format!("http://{address}/v1/predict");
            common::read(client().post(url).header("content-type", kind).send(&body[..])).0
        });
        std::thread::sleep(Duration::from_millis(100));
        let since = Instant::now();
        server.stop();
        assert!(since.elapsed() >= grace, "{:?}", since.elapsed());
        assert_eq!(asked.join().expect("no panic"), 200);
    });
    assert!(TcpStream::connect(address).is_err(), "the port is closed");
}

#[test]
fn who_starts_lives_and_is_not_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    // Self-tests of this many plug-ins take a while.
    for number in 0..60 {
        let name = format!("task{number}");
        put(&folder.path().join("plugins"), &name, &file(engine().backbone(), &plugin(&*engine(), &name, number)));
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    config.listen = port.to_string();
    let (told, tell) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || told.send(Running::start(config)).expect("the test waits"));
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(port).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    };
    let starting = loop {
        if let Some(answer) = ask("/v2/health/ready") {
            break answer;
        }
    };
    assert!(starting.starts_with("HTTP/1.1 503") && starting.contains("the server is starting"), "{starting}");
    if let Some(refused) = ask("/v1/tasks").filter(|answer| answer.starts_with("HTTP/1.1 503")) {
        assert!(refused.contains("retry-after: 1") && refused.contains("\"starting\""), "{refused}");
    }
    let server = tell.recv().expect("it starts");
    thread.join().expect("no panic");
    assert_eq!((server.get("/v2/health/live").0, ready(&server).0), (200, 200));
    assert_eq!((server.get("/healthz").0, server.get("/readyz").0), (200, 200));
}

#[test]
fn metrics_say_what_a_replica_has_to_do() {
    let (_folder, server) = room(|config| config.batches = BatchConfig { queue: 8, ..config.batches });
    let picture = image(1);
    assert_eq!(server.predict(&[("image", Some("a.png"), &picture), ("tasks", None, b"all")]).0, 200);
    until("an empty queue", || server.service.batches.load() == 0);
    let held = server.service.batches.admit("ris", 8).expect("there is room");
    assert_eq!(server.predict(&[("image", Some("a.png"), &picture), ("tasks", None, b"all")]).0, 503);
    let metrics = server.get("/metrics").1;
    let text = metrics.as_str().expect("text");
    for line in [
        "melo_ready 1",
        "melo_queue_rows 8",
        "melo_queue_capacity_rows 8",
        "melo_queue_share 1",
        "melo_in_flight_requests 0",
        "melo_refused_total{code=\"full\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let busy = text.lines().find_map(|line| line.strip_prefix("melo_engine_busy_seconds_total "));
    assert!(busy.is_some_and(|seconds| seconds.parse::<f64>().is_ok_and(|seconds| seconds > 0.0)), "{busy:?}");
    drop(held);
}

#[test]
fn replicas_share_a_folder_and_write_nothing_into_it() {
    let shared = tempfile::tempdir().expect("a folder");
    let plugins = shared.path().join("plugins");
    put(&plugins, "chest", &file(engine().backbone(), &plugin(&*engine(), "chest", 1)));
    let states: Vec<TempDir> = (0..2).map(|_| tempfile::tempdir().expect("a folder")).collect();
    let servers: Vec<Running> = states
        .iter()
        .map(|state| Running::start(Config { plugins: Some(plugins.clone()), ..config(state.path()) }))
        .collect();
    let version = |server: &Running| server.get("/v1/tasks/chest").1["version"].clone();
    let (first, names) = (version(&servers[0]), || std::fs::read_dir(&plugins).expect("the folder").count());
    assert_eq!(version(&servers[1]), first);
    put(&plugins, "chest", &file(engine().backbone(), &plugin(&*engine(), "chest", 3)));
    until("the new version at both", || servers.iter().all(|server| version(server) != first));
    assert_eq!(version(&servers[0]), version(&servers[1]));
    assert_eq!(names(), 1);
}

#[test]
fn no_share_and_no_name_are_refused() {
    let refused = |change: fn(&mut Config)| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(folder.path());
        change(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let Err(Error::Settings(reason)) = runtime.block_on(Server::start(config, engine())) else {
            panic!("it starts");
        };
        reason
    };
    let shares: [fn(&mut Config); 3] = [
        |config| config.batches.pressed_share = 0.0,
        |config| config.batches.pressed_share = -1.0,
        |config| config.batches.pressed_share = f64::NAN,
    ];
    for reason in shares.map(refused) {
        assert!(reason.contains("is no share of a queue"), "{reason}");
    }
    assert!(refused(|config| config.replica = "a b".to_owned()).contains("no name of a replica"));
}
