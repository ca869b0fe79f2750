//! The DICOM network on loopback: what peers store is answered, refused or kept, and nothing is lost.

use crate::common::peer::{announce, command, connect, data_set, image, part10, send, status, store, value};
use crate::common::{self, Field, Running, config, engine, file, plugin, put, until};
use dicom_core::value::{PrimitiveValue, Value};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::DefaultDicomObject;
use dicom_ul::pdu::PDataValueType;
use dicom_ul::{ClientAssociationOptions, Pdu};
use melo_serve::{Config, DestinationConfig, DicomConfig, PeerConfig, ResultKind, RouteConfig, Server, Values};
use melo_vit::INTENDED_USE;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn dicom() -> DicomConfig {
    let modality = ("modality".to_owned(), Values::Many(vec!["dx".to_owned(), "CR".to_owned()]));
    DicomConfig {
        listen: Some("127.0.0.1:0".to_owned()),
        ae_title: "MELO".to_owned(),
        route: vec![RouteConfig { tasks: vec!["all".to_owned()], conditions: [modality].into() }],
        retry_max_s: 1,
        retry_refused: 2,
        ..DicomConfig::default()
    }
}

/// A server with two tasks under `folder`, with or without a receiver of results.
pub(crate) fn settings(folder: &Path, receiver: Option<SocketAddr>) -> Config {
    let engine = engine();
    for (task, seed) in [("chest", 2), ("skin", 3)] {
        put(&folder.join("plugins"), task, &file(engine.backbone(), &plugin(&*engine, task, seed)));
    }
    let destination = receiver.map(|address| DestinationConfig {
        name: "pacs".to_owned(),
        address: Some(address.to_string()),
        ae_title: Some("PACS".to_owned()),
        tls: None,
        url: None,
        authorization_file: None,
        results: vec![ResultKind::Report, ResultKind::Capture],
    });
    let dicom = DicomConfig { destination: destination.into_iter().collect(), ..dicom() };
    Config { dicom: Some(dicom), ..config(folder) }
}

pub(crate) fn store_image(running: &Running, instance: &str, modality: &str) -> u16 {
    let mut association = connect(running.dicom(), "MELO").expect("an association");
    let status = store(&mut association, instance, &data_set(&image(instance, modality)));
    association.release().expect("a release");
    status
}

fn objects(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|found| found == "dcm")).collect();
    paths.sort();
    paths
}

fn open(path: &Path) -> DefaultDicomObject {
    dicom_object::open_file(path).expect("a DICOM file")
}

fn text(object: &DefaultDicomObject, tag: dicom_object::Tag) -> String {
    object.element(tag).expect("the attribute").to_str().expect("text").trim_end_matches('\0').to_owned()
}

/// A port that nobody listens on.
pub(crate) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

fn spool(folder: &Path) -> PathBuf {
    folder.join("state/spool")
}

#[test]
fn an_echo_is_answered_and_a_wrong_title_rejected() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = settings(folder.path(), None);
    if let Some(dicom) = &mut settings.dicom {
        dicom.calling_ae_titles = vec!["TEST".to_owned()];
    }
    let running = Running::start(settings);
    let mut association = connect(running.dicom(), "MELO").expect("an association");
    let echo =
        command(&[(0x0002, uids::VERIFICATION.as_bytes()), (0x0100, &[0x30, 0]), (0x0110, &[9, 0]), (0x0800, &[1, 1])]);
    association.send(&value(1, PDataValueType::Command, echo)).expect("sent");
    assert_eq!(status(&mut association), 0);
    association.release().expect("a release");
    assert!(connect(running.dicom(), "OTHER").is_err(), "another called title");
    let other = ClientAssociationOptions::new().calling_ae_title("ELSE").called_ae_title("MELO");
    let other = other.with_presentation_context(uids::VERIFICATION, vec![uids::IMPLICIT_VR_LITTLE_ENDIAN]);
    assert!(other.establish(running.dicom()).is_err(), "another calling title");
}

#[test]
fn an_image_becomes_a_report_and_a_capture_a_task() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(settings(folder.path(), Some(nobody())));
    assert_eq!(store_image(&running, "1.2.3.4", "DX"), 0);
    let outgoing = spool(folder.path()).join("outgoing/pacs");
    until("four results", || objects(&outgoing).len() == 4);
    let found: Vec<DefaultDicomObject> = objects(&outgoing).iter().map(|path| open(path)).collect();
    for path in objects(&outgoing) {
        let bytes = std::fs::read(path).expect("a result");
        let said = bytes.windows(INTENDED_USE.len()).any(|window| window == INTENDED_USE.as_bytes());
        assert!(said, "every result says what it may be used for");
    }
    for object in &found {
        assert_eq!(text(object, tags::PATIENT_NAME), "Peer^Test");
        assert_eq!(text(object, tags::STUDY_INSTANCE_UID), "1.2.3.1");
        assert_ne!(text(object, tags::SERIES_INSTANCE_UID), "1.2.3.2");
    }
    let of = |class: &str| found.iter().filter(|object| text(object, tags::SOP_CLASS_UID) == class).count();
    assert_eq!((of(uids::COMPREHENSIVE_SR_STORAGE), of(uids::SECONDARY_CAPTURE_IMAGE_STORAGE)), (2, 2));
    until("the object is gone", || objects(&spool(folder.path()).join("incoming")).is_empty());
}

#[test]
fn an_image_out_of_scope_is_put_aside_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(settings(folder.path(), Some(nobody())));
    assert_eq!(store_image(&running, "1.2.3.4", "MR"), 0);
    let refused = spool(folder.path()).join("refused");
    until("it is refused", || objects(&refused).len() == 1);
    let note = objects(&refused)[0].with_extension("dcm.json");
    let note = std::fs::read_to_string(note).expect("a reason");
    assert!(note.contains("Modality is `MR`, expected dx or CR") && note.contains("\"from\": \"TEST\""), "{note}");
    assert!(objects(&spool(folder.path()).join("outgoing/pacs")).is_empty());
}

#[test]
fn what_cannot_be_stored_is_answered_with_its_status() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = settings(folder.path(), None);
    if let Some(dicom) = &mut settings.dicom {
        dicom.max_object_mib = 1;
    }
    let running = Running::start(settings);
    let mut association = connect(running.dicom(), "MELO").expect("an association");
    let good = data_set(&image("1.2.3.4", "DX"));
    assert_eq!(store(&mut association, "1.2.3.4", b"no data set"), 0xc000);
    assert_eq!(store(&mut association, "1.2.3.4", &good[..60]), 0xc000, "cut short");
    assert_eq!(store(&mut association, "1.2.3.5", &good), 0xa900, "another instance");
    assert_eq!(store(&mut association, "../../etc/passwd", &good), 0xc000);
    let mut huge = image("1.2.3.4", "DX");
    let bytes = PrimitiveValue::U8(vec![0_u8; 100_000].into());
    huge.put(DataElement::new(tags::PIXEL_DATA, VR::OB, Value::Primitive(bytes)));
    let huge = data_set(&huge);
    announce(&mut association, "1.2.3.4");
    (0..11).for_each(|_| send(&mut association, &huge, false));
    send(&mut association, &huge, true);
    assert_eq!(status(&mut association), 0xa700, "larger than allowed");
    assert_eq!(store(&mut association, "1.2.3.4", &good), 0, "and the association goes on");
    association.release().expect("a release");
    let left = std::fs::read_dir(spool(folder.path()).join("incoming")).expect("the folder");
    let unfinished =
        left.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with('.')));
    assert_eq!(unfinished.count(), 0, "nothing unfinished is left");
    let text = running.service.metrics.text(0);
    for (result, count) in [("accepted", 1), ("mismatch", 1), ("unreadable", 3), ("full", 1)] {
        let line = format!("melo_dicom_received_total{{result=\"{result}\",via=\"dicom\"}} {count}");
        assert!(text.contains(&line), "{line} in {text}");
    }
}

#[test]
fn a_spool_that_cannot_be_written_is_out_of_resources() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = settings(folder.path(), None);
    if let Some(dicom) = &mut settings.dicom {
        dicom.max_waiting = 1;
        dicom.workers = 1;
    }
    let running = Running::start(settings);
    let incoming = spool(folder.path()).join("incoming");
    std::fs::remove_dir_all(&incoming).expect("removed");
    assert_eq!(store_image(&running, "1.2.3.4", "DX"), 0xa700);
    std::fs::create_dir(&incoming).expect("made");
    assert_eq!(store_image(&running, "1.2.3.4", "DX"), 0);
}

#[test]
fn a_killed_server_repeats_what_it_did_not_finish_with_the_same_identifiers() {
    let folder = tempfile::tempdir().expect("a folder");
    let outgoing = spool(folder.path()).join("outgoing/pacs");
    let incoming = spool(folder.path()).join("incoming");
    let receiver = nobody();
    let files = |paths: Vec<PathBuf>| -> Vec<(PathBuf, Vec<u8>)> {
        paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect()
    };
    // The object as it was accepted, for going back to every point at which a process may end.
    let (name, object) = ("00001700000000000000-0000-dicom-TEST%2e1.dcm", part10(image("1.2.3.4", "DX")));
    let accepted = |keep: usize, results: &[(PathBuf, Vec<u8>)]| {
        std::fs::create_dir_all(&incoming).expect("a folder");
        std::fs::create_dir_all(&outgoing).expect("a folder");
        objects(&outgoing).iter().for_each(|path| std::fs::remove_file(path).expect("removed"));
        std::fs::write(incoming.join(name), &object).expect("written");
        std::fs::write(incoming.join(".melo-unfinished"), &object[..300]).expect("written");
        results.iter().take(keep).for_each(|(path, bytes)| std::fs::write(path, bytes).expect("written"));
    };
    let run = || {
        let running = Running::start(settings(folder.path(), Some(receiver)));
        until("all results", || objects(&outgoing).len() == 4 && objects(&incoming).is_empty());
        drop(running);
        assert!(!incoming.join(".melo-unfinished").exists(), "what was not acknowledged is swept");
        files(objects(&outgoing))
    };
    accepted(0, &[]);
    let first = run();
    for keep in 0..=4 {
        accepted(keep, &first);
        assert!(run() == first, "killed after {keep} results: the same files, byte for byte");
    }
}

#[test]
fn an_object_that_ends_the_server_again_and_again_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (incoming, tries) = (spool(folder.path()).join("incoming"), spool(folder.path()).join("tries"));
    std::fs::create_dir_all(&incoming).expect("a folder");
    std::fs::create_dir_all(&tries).expect("a folder");
    std::fs::write(incoming.join("poison.dcm"), part10(image("1.2.3.4", "DX"))).expect("written");
    std::fs::write(tries.join("poison.dcm"), ".....").expect("written");
    let _running = Running::start(settings(folder.path(), None));
    until("it is refused", || objects(&spool(folder.path()).join("refused")).len() == 1);
}

/// A storage SCP that answers with `status`, and what it was sent.
pub(crate) fn receiver(status: u16) -> (SocketAddr, std::sync::mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (told, tell) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let options = dicom_ul::ServerAssociationOptions::new()
            .ae_title("PACS")
            .accept_called_ae_title()
            .with_abstract_syntax(uids::COMPREHENSIVE_SR_STORAGE)
            .with_abstract_syntax(uids::SECONDARY_CAPTURE_IMAGE_STORAGE)
            .with_transfer_syntax(uids::IMPLICIT_VR_LITTLE_ENDIAN);
        for stream in listener.incoming() {
            let Ok(mut association) = options.establish(stream.expect("a peer")) else { continue };
            let (mut message, mut data) = (0, Vec::new());
            while let Ok(Pdu::PData { data: values }) = association.receive() {
                for found in values {
                    match found.value_type {
                        PDataValueType::Command => message += 1,
                        PDataValueType::Data => data.extend(found.data),
                    }
                    if !found.is_last || data.is_empty() {
                        continue;
                    }
                    let id = u16::to_le_bytes(message);
                    let status = status.to_le_bytes();
                    let answer = command(&[(0x0100, &[1, 0x80]), (0x0120, &id), (0x0800, &[1, 1]), (0x0900, &status)]);
                    association
                        .send(&value(found.presentation_context_id, PDataValueType::Command, answer))
                        .expect("sent");
                    let _ = told.send(std::mem::take(&mut data));
                }
            }
            let _ = association.send(&Pdu::ReleaseRP);
        }
    });
    (address, tell)
}

#[test]
fn results_arrive_and_leave_the_outbox() {
    let folder = tempfile::tempdir().expect("a folder");
    let (address, arrived) = receiver(0);
    let running = Running::start(settings(folder.path(), Some(address)));
    assert_eq!(store_image(&running, "1.2.3.4", "CR"), 0);
    for _ in 0..4 {
        arrived.recv_timeout(Duration::from_secs(20)).expect("a result");
    }
    until("the outbox is empty", || objects(&spool(folder.path()).join("outgoing/pacs")).is_empty());
}

#[test]
fn results_that_are_refused_again_and_again_are_put_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let (address, _arrived) = receiver(0xc123);
    let running = Running::start(settings(folder.path(), Some(address)));
    assert_eq!(store_image(&running, "1.2.3.4", "CR"), 0);
    let aside = spool(folder.path()).join("undelivered/pacs");
    until("they are aside", || objects(&aside).len() == 4);
    let note = std::fs::read_to_string(objects(&aside)[0].with_extension("dcm.json")).expect("a reason");
    assert!(note.contains("C123"), "{note}");
}

#[test]
fn damaged_pdus_end_their_association_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(settings(folder.path(), None));
    let mut kept = connect(running.dicom(), "MELO").expect("an association");
    // A whole request for an association, as a client writes it.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let client = std::thread::spawn(move || drop(connect(address, "MELO")));
    let (mut stream, _) = listener.accept().expect("a client");
    let mut request = vec![0; 1 << 14];
    let length = stream.read(&mut request).expect("a request");
    request.truncate(length);
    drop(stream);
    client.join().expect("the client ends");
    let send = |bytes: &[u8]| {
        let mut peer = TcpStream::connect(running.dicom()).expect("a connection");
        let _ = peer.write_all(bytes);
        let _ = peer.shutdown(std::net::Shutdown::Write);
        let _ = peer.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = peer.read_to_end(&mut Vec::new());
    };
    for length in (0..request.len()).step_by(7) {
        send(&request[..length]);
    }
    for (position, damage) in (0..request.len()).step_by(5).zip([0, 1, 0x7f, 0xff, 0x21].into_iter().cycle()) {
        let mut damaged = request.clone();
        damaged[position] = damage;
        send(&damaged);
    }
    for huge in [&[1, 0, 0xff, 0xff, 0xff, 0xff][..], &[4, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0], &[9; 64]] {
        send(huge);
    }
    // Fragments where none belong, of contexts that do not exist, of lengths that are not there.
    for data in [
        vec![4, 0, 0, 0, 0, 6, 0, 0, 0, 2, 77, 3],
        vec![4, 0, 0, 0, 0, 6, 0, 0, 0, 2, 1, 2],
        vec![4, 0, 0, 0, 0, 6, 0, 0, 0xff, 0xff, 1, 3],
        vec![4, 0, 0, 0, 0, 4, 0, 0, 0, 0],
        vec![4, 0, 0, 0, 0, 1, 0],
        vec![4, 0, 0, 0, 0, 9, 0, 0, 0, 5, 1, 3, 0, 0, 8],
    ] {
        let mut both = request.clone();
        both.extend(data);
        send(&both);
    }
    assert_eq!(store(&mut kept, "1.2.3.4", &data_set(&image("1.2.3.4", "DX"))), 0, "the others go on");
}

#[test]
fn peers_that_hang_go_away_and_too_many_are_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = settings(folder.path(), None);
    if let Some(dicom) = &mut settings.dicom {
        (dicom.max_associations, dicom.idle_timeout_s, dicom.message_timeout_s) = (2, 60, 2);
    }
    let running = Running::start(settings);
    let mut silent = TcpStream::connect(running.dicom()).expect("a connection");
    let mut slow = TcpStream::connect(running.dicom()).expect("a connection");
    let mut slower = TcpStream::connect(running.dicom()).expect("a connection");
    // Who says nothing has no place.
    for hanging in [&mut slow, &mut slower] {
        hanging.write_all(&[1, 0, 0]).expect("sent");
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(connect(running.dicom(), "MELO").is_err(), "a third is rejected");
    let begun = Instant::now();
    for hanging in [&mut silent, &mut slow, &mut slower] {
        hanging.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let _ = hanging.read_to_end(&mut Vec::new());
    }
    assert!(begun.elapsed() < Duration::from_secs(9), "they were cut off");
    until("there is room again", || connect(running.dicom(), "MELO").is_ok());
}

#[test]
fn stow_rs_stores_into_the_same_spool() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(settings(folder.path(), Some(nobody())));
    let post = |path: &str, parts: &[&[u8]]| {
        let mut body = Vec::new();
        for part in parts {
            body.extend(b"--x\r\nContent-Type: application/dicom\r\n\r\n");
            body.extend(*part);
            body.extend(b"\r\n");
        }
        body.extend(b"--x--\r\n");
        let kind = "multipart/related; type=\"application/dicom\"; boundary=x";
        let url = running.url(&format!("/dicomweb/studies{path}"));
        common::read(common::client().post(url).header("content-type", kind).send(&body[..]))
    };
    let good = part10(image("1.2.3.4", "DX"));
    let (status, answer) = post("", &[&good]);
    assert_eq!((status, &answer["00081199"]["Value"][0]["00081155"]["Value"][0]), (200, &"1.2.3.4".into()), "{answer}");
    let (status, answer) = post("/1.2.3.1", &[&good, b"nonsense"]);
    assert_eq!(status, 202, "{answer}");
    assert_eq!(answer["00081198"]["Value"][0]["00081197"]["Value"][0], 0xc000);
    let (status, answer) = post("/9.9.9", &[&good]);
    assert_eq!((status, &answer["00081198"]["Value"][0]["00081197"]["Value"][0]), (409, &0xa900.into()), "{answer}");
    assert_eq!(post("", &[]).0, 400);
    until("results", || objects(&spool(folder.path()).join("outgoing/pacs")).len() == 8);
    let text = running.service.metrics.text(0);
    for (result, count) in [("accepted", 2), ("mismatch", 1), ("unreadable", 1), ("full", 0)] {
        let line = format!("melo_dicom_received_total{{result=\"{result}\",via=\"stow\"}} {count}");
        assert!(text.contains(&line), "{line} in {text}");
    }
}

fn changed(folder: &Path, change: impl FnOnce(&mut DicomConfig)) -> Config {
    let mut settings = settings(folder, None);
    settings.dicom.as_mut().into_iter().for_each(|dicom| dicom.tasks = vec!["all".to_owned()]);
    if let Some(dicom) = &mut settings.dicom {
        change(dicom);
    }
    settings
}

#[test]
fn connections_that_say_nothing_lock_nobody_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(changed(folder.path(), |dicom| {
        (dicom.max_associations, dicom.request_timeout_s) = (4, 1);
    }));
    let silent: Vec<TcpStream> = (0..90).map(|_| TcpStream::connect(running.dicom()).expect("connected")).collect();
    // Some say a little, and no whole request.
    (&silent[80]).write_all(&[1, 0, 0]).expect("written");
    let started = Instant::now();
    assert_eq!(store_image(&running, "1.2.3.4", "DX"), 0);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for stream in &silent {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        assert!(matches!((&*stream).read(&mut [0; 64]), Ok(0) | Err(_)), "it is cut off");
    }
    assert!(started.elapsed() < Duration::from_secs(15), "the time of a request is short");
}

#[test]
fn one_address_does_not_take_every_association() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(changed(folder.path(), |dicom| {
        (dicom.max_associations, dicom.max_associations_per_address) = (3, 1);
    }));
    let first = connect(running.dicom(), "MELO").expect("an association");
    let second = connect(running.dicom(), "MELO");
    assert!(matches!(second, Err(dicom_ul::association::Error::Rejected { .. })), "rejected as one too many");
    first.release().expect("a release");
    until("there is a place again", || connect(running.dicom(), "MELO").is_ok());
}

#[test]
fn a_peer_is_known_by_title_and_address() {
    let peer = |title: &str, address: &str| PeerConfig { ae_title: title.to_owned(), address: address.to_owned() };
    for (peers, taken) in [
        (vec![peer("OTHER", "10.1.2.3"), peer("TEST", "127.0.0.0/8")], true),
        (vec![peer("TEST", "10.1.2.3"), peer("OTHER", "127.0.0.1")], false),
        (vec![peer("TEST", "10.0.0.0/8")], false),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let running = Running::start(changed(folder.path(), |dicom| dicom.peer = peers.clone()));
        assert_eq!(connect(running.dicom(), "MELO").is_ok(), taken, "{peers:?}");
    }
    let wrong = DicomConfig { peer: vec![peer("TEST", "ward 7")], ..dicom() };
    assert!(wrong.check().expect_err("refused").to_string().contains("`ward 7` is no address"));
}

#[test]
fn the_port_is_not_open_beyond_this_machine_for_peers_that_nobody_named() {
    let start = |change: fn(&mut DicomConfig)| {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = changed(folder.path(), |dicom| {
            dicom.listen = Some("0.0.0.0:0".to_owned());
            change(dicom);
        });
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async { Server::start(settings, engine()).await.err().map(|error| error.to_string()) })
    };
    let refused = start(|_| {}).expect("refused");
    assert!(refused.contains("no peer of the DICOM network is named"), "{refused}");
    assert_eq!(start(|dicom| dicom.any_peer = true), None);
    let named = |dicom: &mut DicomConfig| {
        dicom.peer = vec![PeerConfig { ae_title: "TEST".to_owned(), address: "10.1.2.3".to_owned() }];
    };
    assert_eq!(start(named), None);
}

#[test]
fn a_disk_down_to_its_reserve_takes_no_object_and_ready_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(changed(folder.path(), |dicom| dicom.reserve_mib = u64::MAX >> 20));
    assert_eq!(store_image(&running, "1.2.3.4", "DX"), 0xa700);
    let (status, body) = running.get("/v2/health/ready");
    assert_eq!((status, body["ready"].as_bool()), (503, Some(false)), "{body}");
    assert!(body["reasons"][0].as_str().is_some_and(|reason| reason.contains("are reserved")), "{body}");
    let image = crate::common::image(1);
    let fields: [Field<'_>; 2] = [("image", Some("a.png"), &image), ("tasks", None, b"all")];
    assert_eq!(running.predict(&fields).0, 200, "what needs no spool is answered");
}

#[test]
fn what_waits_and_what_is_refused_has_a_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(changed(folder.path(), |dicom| {
        (dicom.keep_refused_mib, dicom.tasks) = (0, Vec::new());
    }));
    for count in 0..3 {
        assert_eq!(store_image(&running, &format!("1.2.3.{count}"), "MR"), 0);
    }
    until("they are refused", || objects(&spool(folder.path()).join("incoming")).is_empty());
    until("and not kept", || objects(&spool(folder.path()).join("refused")).is_empty());
    drop(running);
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(changed(folder.path(), |dicom| dicom.max_waiting_mib = 1));
    let mut association = connect(running.dicom(), "MELO").expect("an association");
    let mut huge = image("1.2.3.4", "DX");
    let bytes = PrimitiveValue::U8(vec![0_u8; 3 << 20].into());
    huge.put(DataElement::new(tags::PIXEL_DATA, VR::OB, Value::Primitive(bytes)));
    assert_eq!(store(&mut association, "1.2.3.4", &data_set(&huge)), 0xa700, "more than may wait");
    assert_eq!(store(&mut association, "1.2.3.5", &data_set(&image("1.2.3.5", "DX"))), 0, "and another is taken");
    association.release().expect("a release");
}

#[test]
fn two_images_of_one_identifier_have_no_one_report() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(settings(folder.path(), Some(nobody())));
    let outgoing = spool(folder.path()).join("outgoing/pacs");
    assert_eq!(store_image(&running, "1.2.3.4", "DX"), 0);
    until("four results", || objects(&outgoing).len() == 4);
    assert_eq!(store_image(&running, "1.2.3.4", "DX"), 0);
    until("the same again", || objects(&spool(folder.path()).join("incoming")).is_empty());
    assert!(objects(&spool(folder.path()).join("refused")).is_empty(), "the same image is no other");
    let mut other = image("1.2.3.4", "DX");
    let pixels = PrimitiveValue::U8(vec![9_u8; 24 * 20].into());
    other.put(DataElement::new(tags::PIXEL_DATA, VR::OB, Value::Primitive(pixels)));
    let mut association = connect(running.dicom(), "MELO").expect("an association");
    assert_eq!(store(&mut association, "1.2.3.4", &data_set(&other)), 0);
    association.release().expect("a release");
    let refused = spool(folder.path()).join("refused");
    until("it is refused", || objects(&refused).len() == 1);
    let note = std::fs::read_to_string(objects(&refused)[0].with_extension("dcm.json")).expect("a reason");
    assert!(note.contains("another image with this SOP Instance UID"), "{note}");
}
