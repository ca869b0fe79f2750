//! A disk that is full: nothing is answered or acknowledged that is not kept, and all goes on when there is room again.

#![cfg(unix)]

use crate::form::Field;
use crate::peer::{announce, connect, data_set, image, send, store};
use crate::server::Server;
use crate::workplace::{Workplace, embedded_backbone, melo, run};
use dicom_core::value::{PrimitiveValue, Value as DicomValue};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use melo::synthetic::Phantom;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Blocks of 512 bytes that a file may have: what a start writes fits, and the records of some answers.
const BLOCKS: &str = "512";
/// As many bytes.
const MOST: usize = 512 * 512;
/// The embedded plug-ins.
const TASKS: u64 = Phantom::ALL.len() as u64;

/// `melo serve` with a DICOM network.
fn with_room(place: &Workplace) -> Command {
    let mut command = melo();
    command.args(["serve", "--listen", "127.0.0.1:0", "--dicom-listen", "127.0.0.1:0", "--dicom-tasks", "all"]);
    command.args(["--log", "json", "--backbone"]).arg(embedded_backbone());
    command.arg("--plugins").arg(embedded_backbone().with_file_name("phantoms"));
    command.arg("--state").arg(place.at("state"));
    command
}

/// The same, where no file can grow beyond [`BLOCKS`]. The signal is ignored, so that such a write fails as it does on a
/// full disk: with an error, part of it written.
fn without_room(place: &Workplace) -> Command {
    let inner = with_room(place);
    let arguments: Vec<OsString> =
        [inner.get_program()].into_iter().chain(inner.get_args()).map(ToOwned::to_owned).collect();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", BLOCKS]).args(arguments).stdin(Stdio::null());
    command
}

/// Asks until something else than an answer comes: how many came, and the refusal.
fn fill(server: &Server, fields: &[Field<'_>]) -> (u64, u16, Value) {
    for given in 0..1000 {
        match server.said(fields) {
            (200, _) => {}
            (status, refusal) => return (given, status, refusal),
        }
    }
    panic!("the limit is never reached");
}

/// No thread of the server that runs, or ran last, has ended in a panic.
fn nothing_panicked(place: &Workplace) {
    let log = std::fs::read_to_string(place.at("server.log")).expect("the log");
    assert!(!log.contains("panicked"), "{log}");
}

fn film(place: &Workplace) -> Vec<u8> {
    place.image("film.png", Phantom::ALL[0], 1, 5_000, 96);
    std::fs::read(place.at("film.png")).expect("the image")
}

/// `melo audit verify`: the number of records, and `HASH@ROWS`, of a whole chain.
fn verified(place: &Workplace, arguments: &[&str]) -> (u64, String) {
    let mut verify = melo();
    verify.args(["audit", "verify", "--json"]).args(arguments).arg(place.at("state/audit.sqlite"));
    let verified = run(&mut verify).json();
    assert_eq!(verified["ok"], true, "{verified}");
    let rows = verified["rows"].as_u64().expect("a number");
    (rows, format!("{}@{rows}", verified["hash"].as_str().expect("a hash")))
}

#[test]
fn what_cannot_be_recorded_is_not_answered() {
    let place = Workplace::new();
    let film = film(&place);
    let fields: [Field<'_>; 2] = [("image", Some("film.png"), &film), ("tasks", None, b"all")];
    let mut server = Server::start(&place, &mut without_room(&place));
    let (given, status, refusal) = fill(&server, &fields);
    assert!(given > 0, "the limit leaves room for some records");
    let expected = serde_json::json!({ "error": {
        "code": "unavailable",
        "message": "the audit could not be written, and nothing is done without it",
    }});
    assert_eq!((status, &refusal), (503, &expected));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(server.said(&fields), (503, expected.clone()), "together as one by one"));
        }
    });
    for (path, status) in [("/v2/health/live", 200), ("/v2/health/ready", 503), ("/v1/tasks", 200)] {
        assert_eq!(server.status(path), status, "{path}");
    }
    assert_eq!(server.child.try_wait().expect("the child is ours"), None, "it goes on");
    drop(server);
    nothing_panicked(&place);
    let (rows, head) = verified(&place, &[]);
    // One of the start, one a task that is served from then on.
    let begun = 1 + TASKS;
    assert_eq!(rows, begun + given * TASKS, "the records of the {given} answers that were given, and no others");
    let server = Server::start(&place, &mut with_room(&place));
    server.predict(&fields).expect("an answer");
    drop(server);
    let (rows, _) = verified(&place, &["--expect-head", &head]);
    assert_eq!(rows, begun + 1 + (given + 1) * TASKS, "it began again");
}

/// An image of more bytes than a file may have.
fn large(instance: &str, bytes: usize) -> InMemDicomObject {
    let mut object = image(instance, "DX");
    let filling = DicomValue::Primitive(PrimitiveValue::U8(vec![0_u8; bytes].into()));
    object.put(DataElement::new(tags::ENCAPSULATED_DOCUMENT, VR::OB, filling));
    object
}

/// Names in the folder of accepted objects: those of whole ones, and the others.
fn incoming(place: &Workplace) -> (Vec<String>, Vec<String>) {
    let entries = std::fs::read_dir(place.at("state/spool/incoming")).expect("the folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    names.partition(|name| name.ends_with(".dcm") && !name.starts_with('.'))
}

fn until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// SOP Instance UIDs in the audit.
fn answered(place: &Workplace) -> BTreeSet<String> {
    let mut show = melo();
    show.args(["audit", "show", "--json", "--last", "10000"]).arg(place.at("state/audit.sqlite"));
    let records = run(&mut show).json_lines();
    records.iter().filter_map(|record| record["sop_instance_uid"].as_str().map(str::to_owned)).collect()
}

#[test]
fn what_cannot_be_spooled_is_not_acknowledged_and_what_was_is_not_lost() {
    let place = Workplace::new();
    let film = film(&place);
    let fields: [Field<'_>; 2] = [("image", Some("film.png"), &film), ("tasks", None, b"all")];
    let server = Server::start(&place, &mut without_room(&place));
    let mut peer = connect(server.dicom.expect("it listens"), "MELO").expect("an association");
    let small = |instance: &str| data_set(&image(instance, "DX"));
    assert_eq!(store(&mut peer, "1.2.1", &small("1.2.1")), 0);
    // The one fails when it is whole, the other while it comes.
    let too_large = [("1.2.2", MOST + 1_000), ("1.2.3", 5 * MOST)];
    for (instance, bytes) in too_large {
        assert_eq!(store(&mut peer, instance, &data_set(&large(instance, bytes))), 0xa700, "{bytes} bytes");
    }
    assert_eq!(incoming(&place).1, Vec::<String>::new(), "a refused object leaves nothing");
    let (_, status, _) = fill(&server, &fields);
    assert_eq!(status, 503);
    assert_eq!(store(&mut peer, "1.2.4", &small("1.2.4")), 0, "it has room, though its answer has none");
    announce(&mut peer, "1.2.5");
    send(&mut peer, &data_set(&large("1.2.5", 5 * MOST))[..MOST / 2], false);
    until("an object is on its way", || !incoming(&place).1.is_empty());
    drop(server);
    nothing_panicked(&place);
    let (whole, unfinished) = incoming(&place);
    assert_eq!((whole.len(), unfinished.len()), (1, 1), "{whole:?} {unfinished:?}");
    assert_eq!(answered(&place), ["1.2.1".to_owned()].into());

    let server = Server::start(&place, &mut with_room(&place));
    until("what was acknowledged is answered", || incoming(&place) == (Vec::new(), Vec::new()));
    let mut peer = connect(server.dicom.expect("it listens"), "MELO").expect("an association");
    for (instance, bytes) in too_large {
        assert_eq!(store(&mut peer, instance, &data_set(&large(instance, bytes))), 0, "there is room again");
    }
    until("all is answered", || incoming(&place).0.is_empty());
    drop(server);
    assert_eq!(answered(&place), ["1.2.1", "1.2.2", "1.2.3", "1.2.4"].map(str::to_owned).into());
    let refused: PathBuf = place.at("state/spool/refused");
    assert_eq!(std::fs::read_dir(refused).expect("the folder").count(), 0, "nothing was taken for an object");
    verified(&place, &[]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_log_that_cannot_be_written_keeps_no_answer_back() {
    let place = Workplace::new();
    let film = film(&place);
    let fields: [Field<'_>; 2] = [("image", Some("film.png"), &film), ("tasks", None, b"all")];
    let full = std::fs::File::options().write(true).open("/dev/full").expect("the device that is always full");
    let server = Server::logging_to(full, &mut with_room(&place));
    server.predict(&fields).expect("an answer");
    assert_eq!(server.signal("-TERM"), Some(0));
}
