//! Clients that hang, vanish or send anything: the server goes on answering others, and lets go.

use crate::common::{Running, client, config, engine, file, form, image, plugin, put, until};
use melo_serve::{Config, Trust};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than any bound of the tests, shorter than patience.
const LONG: Duration = Duration::from_secs(60);

struct Room {
    _folder: TempDir,
    server: Running,
}

fn room(change: impl FnOnce(&mut Config)) -> Room {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    let plugin = plugin(&*engine(), "chest", 1);
    put(&folder.path().join("plugins"), "chest", &file(engine().backbone(), &plugin));
    change(&mut config);
    Room { _folder: folder, server: Running::start(config) }
}

impl Room {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.address).expect("a connection");
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        stream.set_write_timeout(Some(LONG)).expect("a timeout");
        stream
    }

    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        // A server that has heard enough hangs up, which is its right.
        let _ = stream.write_all(bytes);
        stream
    }

    /// Bytes in, whatever comes back out, until the server hangs up.
    fn answer(&self, bytes: &[u8]) -> String {
        rest(&mut self.send(bytes))
    }

    /// The same of a client that says that it will send no more, so that what is not whole is given up at once.
    fn hurried(&self, bytes: &[u8]) -> String {
        let mut stream = self.send(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        rest(&mut stream)
    }

    /// A right request is answered, and soon.
    fn still_answers(&self) {
        let started = Instant::now();
        let (status, answer) = self.server.predict(&[("image", Some("a.png"), &image(1)), ("tasks", None, b"chest")]);
        assert_eq!(status, 200, "{answer}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}

fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        let gone = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        assert!(gone, "the server holds on: {error}");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn request(head: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{head}\r\nhost: localhost\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn a_body_that_stops_is_given_up_with_an_answer() {
    let room = room(|config| config.limits.timeout = Duration::from_secs(1));
    let (kind, body) = form(&[("image", Some("a.png"), &image(1)), ("tasks", None, b"all")]);
    for path in ["/v1/predict", "/v2/models/chest/infer"] {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: 9999\r\n\r\n");
        let mut stream = room.send(head.as_bytes());
        stream.write_all(&body[..20]).expect("half a body");
        let started = Instant::now();
        let answer = rest(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 504"), "{path}: {answer}");
        assert!(started.elapsed() < Duration::from_secs(5), "{path}");
    }
    room.still_answers();
}

#[test]
fn a_body_that_trickles_is_given_up_too() {
    let room = room(|config| config.limits.timeout = Duration::from_secs(1));
    let mut stream =
        room.send(b"POST /v2/models/chest/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999\r\n\r\n");
    let started = Instant::now();
    while stream.write_all(b"{").is_ok() && started.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    room.still_answers();
}

#[test]
fn headers_that_do_not_come_cost_nothing_but_a_place() {
    let room = room(|_| {});
    let slow: Vec<TcpStream> =
        (0..100).map(|_| room.send(b"GET /v1/tasks HTTP/1.1\r\nhost: localhost\r\nx-slow: ")).collect();
    room.still_answers();
    drop(slow);
    room.still_answers();
}

#[test]
#[ignore = "waits for the bound on headers, half a minute"]
fn headers_that_do_not_come_are_given_up() {
    let room = room(|_| {});
    let started = Instant::now();
    let mut trickling = room.send(b"GET /v1/tasks HTTP/1.1\r\nhost: localhost\r\n");
    let mut idle = room.send(b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut silent = room.connect();
    let trickle = std::thread::spawn(move || {
        while trickling.write_all(b"x-a: b\r\n").is_ok() && started.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    rest(&mut silent);
    assert!(rest(&mut idle).starts_with("HTTP/1.1 200"));
    trickle.join().expect("no panic");
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
}

#[test]
fn places_are_bounded_and_the_next_one_is_told_at_once() {
    let room = room(|config| config.trust = Trust { max_connections: 3, ..Trust::default() });
    let mut held: Vec<TcpStream> = (0..3).map(|_| room.send(b"GET / HTTP/1.1\r\n")).collect();
    until("a connection too many", || {
        let answer = room.answer(b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1")
    });
    held.pop();
    until("a place", || room.answer(&request("GET /v2/health/live HTTP/1.1", b"")).starts_with("HTTP/1.1 200"));
}

/// Whether 503 has come, without waiting for it.
fn refused_busy(stream: &TcpStream) -> bool {
    let mut answer = [0; 1024];
    stream.set_nonblocking(true).expect("a socket");
    let came = stream.peek(&mut answer).unwrap_or(0);
    let answer = String::from_utf8_lossy(&answer[..came]);
    answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after")
}

#[test]
fn what_all_bodies_hold_is_bounded() {
    // Four bodies of full size may be in memory. Of five, which is refused is a matter of who comes last; once they are
    // gone there is room again.
    let room = room(|_| {});
    let most = 1 << 20;
    let head = format!("POST /v2/models/chest/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {most}\r\n\r\n");
    let almost = vec![b' '; most - 1];
    let held: Vec<TcpStream> = (0..5).map(|_| room.send(&[head.as_bytes(), &almost].concat())).collect();
    until("no room for one of five", || held.iter().any(refused_busy));
    assert!(held.iter().filter(|stream| refused_busy(stream)).count() < 5, "the others go on");
    drop(held);
    until("room again", || {
        !room.answer(&request("POST /v2/models/chest/infer HTTP/1.1", &almost)).starts_with("HTTP/1.1 503")
    });
    room.still_answers();
}

#[test]
fn too_much_is_refused_in_our_words() {
    let room = room(|_| {});
    let large =
        b"POST /v2/models/chest/infer HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 1048577\r\n\r\n";
    let (kind, names) = form(&[("image", Some("a.png"), &image(1)), ("tasks", None, "a,".repeat(5000).as_bytes())]);
    let names = request(&format!("POST /v1/predict HTTP/1.1\r\ncontent-type: {kind}"), &names);
    for (bytes, status, code) in [
        (large.to_vec(), "413", "\"error\":\""),
        (names, "413", "more than 4096 tasks"),
        (request("PATCH /v1/predict HTTP/1.1", b""), "405", "\"code\":\"bad_request\""),
        (request("GET /nowhere HTTP/1.1", b""), "404", "\"code\":\"not_found\""),
        (request("GET /v1/tasks/..%2f..%2fetc%2fpasswd HTTP/1.1", b""), "404", "\"code\":\"not_found\""),
        (request("GET /v1/tasks/%ff%fe HTTP/1.1", b""), "400", "\"code\":\"bad_request\""),
        (request("POST /v1/predict HTTP/1.1\r\ncontent-type: text/plain", b"x"), "400", "\"code\":\"bad_request\""),
    ] {
        let answer = room.answer(&bytes);
        let head = String::from_utf8_lossy(&bytes[..50]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code), "{head}: {answer}");
        assert!(answer.contains("x-request-id: "), "{answer}");
    }
    let many = "x-a: b\r\n".repeat(500);
    let long = format!("x-long: {}\r\n", "y".repeat(1 << 20));
    for headers in [many, long] {
        let answer =
            room.answer(format!("GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    room.still_answers();
}

#[test]
fn forms_that_are_broken_are_refused() {
    let room = room(|_| {});
    let (kind, good) = form(&[("image", Some("a.png"), &image(1)), ("tasks", None, b"all")]);
    let send = |kind: &str, body: &[u8]| {
        room.answer(&request(&format!("POST /v1/predict HTTP/1.1\r\ncontent-type: {kind}"), body))
    };
    assert!(send(&kind, &good).starts_with("HTTP/1.1 200"));
    for cut in [0, 1, 10, 40, 80, 120, good.len() / 2, good.len() - 30, good.len() - 5] {
        let answer = send(&kind, &good[..cut]);
        assert!(answer.starts_with("HTTP/1.1 400"), "cut at {cut}: {answer}");
    }
    for (kind, body) in [
        ("multipart/form-data", &good[..]),
        ("multipart/form-data; boundary=", &good),
        ("multipart/form-data; boundary=other", &good),
        (&kind, b"------melo-test-boundary\r\n\r\n\r\n------melo-test-boundary--\r\n"),
        (&kind, b"------melo-test-boundary\r\ncontent-disposition: form-data\r\n\r\nx\r\n------melo-test-boundary--\r\n"),
        (&kind, b"------melo-test-boundary\r\ncontent-disposition: form-data; name=\"\xff\"\r\n\r\nx\r\n------melo-test-boundary--\r\n"),
        (&kind, "-".repeat(100_000).as_bytes()),
    ] {
        let answer = send(kind, body);
        assert!(answer.starts_with("HTTP/1.1 400"), "{kind}: {answer}");
    }
    room.still_answers();
}

#[test]
fn clients_that_vanish_free_their_places_and_rows() {
    let room = room(|config| config.trust.max_connections = 64);
    let (kind, body) = form(&[("image", Some("a.png"), &image(1)), ("tasks", None, b"all")]);
    let whole = request(&format!("POST /v1/predict HTTP/1.1\r\ncontent-type: {kind}"), &body);
    let mut chance = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..300 {
        let cut = chance.random_range(0..=whole.len());
        drop(room.send(&whole[..cut]));
    }
    until("an empty queue", || room.server.service.batches.load() == 0);
    // The last of them may not have been looked at yet: until then their places are taken.
    until("free places", || room.answer(&whole).starts_with("HTTP/1.1 200"));
    room.still_answers();
}

#[test]
fn anything_at_all_is_survived() {
    fuzz(&room(|_| {}), 400, 11);
}

#[test]
#[ignore = "ten minutes of anything, and memory that must stay flat"]
fn anything_at_all_is_survived_for_long() {
    let room = room(|config| config.limits.timeout = Duration::from_secs(2));
    fuzz(&room, 2000, 1);
    let before = resident();
    let started = Instant::now();
    let mut seed = 2;
    while started.elapsed() < Duration::from_secs(600) {
        fuzz(&room, 1000, seed);
        seed += 1;
    }
    let after = resident();
    println!("{} rounds, resident {before} to {after} bytes", seed - 2);
    assert!(after < before + (32 << 20), "{before} to {after}");
}

/// Right requests with bytes changed, cut out, doubled; and bytes that are nothing.
fn fuzz(room: &Room, rounds: usize, seed: u64) {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let (kind, body) =
        form(&[("image", Some("a.png"), &image(1)), ("tasks", None, b"all"), ("heatmap", None, b"true")]);
    let infer = br#"{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","data":["AAAA"]}],"outputs":[{"name":"logits"}]}"#;
    let right = [
        request(&format!("POST /v1/predict HTTP/1.1\r\ncontent-type: {kind}"), &body),
        request("POST /v2/models/chest/infer HTTP/1.1\r\ninference-header-content-length: 50", infer),
        request("GET /v1/tasks/chest HTTP/1.1", b""),
        request("PUT /v1/tasks/chest HTTP/1.1", b"\x08\0\0\0\0\0\0\0{}      "),
        b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
            .to_vec(),
    ];
    for round in 0..rounds {
        let mut bytes = right[round % right.len()].clone();
        for _ in 0..chance.random_range(1..6) {
            let at = chance.random_range(0..bytes.len());
            let to = chance.random_range(at..bytes.len().min(at + 64).max(at + 1));
            match chance.random_range(0..4) {
                0 => bytes[at] = chance.random(),
                1 => drop(bytes.drain(at..to)),
                2 => drop(bytes.splice(at..at, bytes[at..to].to_vec())),
                _ => bytes.insert(at, b"\r\n:;=\"-{}[]\0\xff"[chance.random_range(0..13)]),
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        if round % 7 == 0 {
            bytes = vec![0; chance.random_range(1..5000)];
            chance.fill_bytes(&mut bytes);
        }
        let answer = room.hurried(&bytes);
        assert!(!answer.starts_with("HTTP/1.1 500"), "seed {seed}, round {round}: {answer}\n{bytes:?}");
    }
    room.still_answers();
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[test]
fn the_end_is_bounded() {
    let mut room = room(|config| config.trust.drain = Duration::from_secs(1));
    let mut idle = room.send(b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut begun = [0; 15];
    idle.read_exact(&mut begun).expect("an answer");
    let _hanging = room.send(b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n");
    let _half = room.send(b"GET / HTTP");
    let started = Instant::now();
    room.server.stop();
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert!(client().get(room.server.url("/v2/health/live")).call().is_err());
}
