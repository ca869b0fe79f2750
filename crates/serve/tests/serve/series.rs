//! Series on the DICOM network: when one is complete, that it is answered once, and what of it is refused.

use crate::common::peer::{connect, data_set, part10, slice_of, store};
use crate::common::{
    Running, assert_close, bag_plugin, client, config, engine, expected_of_bag, file, plugin, put, read, until,
};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use melo_serve::{DestinationConfig, DicomConfig, ResultKind, Stored, entries};
use melo_vit::Plugin;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A server whose task `ct` answers for bags, and `chest` for single images.
struct Room {
    folder: tempfile::TempDir,
    ct: Plugin,
    server: Option<Running>,
}

impl Room {
    fn closed() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = engine();
        let ct = bag_plugin(&*engine, "ct", 3);
        for plugin in [&plugin(&*engine, "chest", 2), &ct] {
            put(&folder.path().join("plugins"), &plugin.card.task, &file(engine.backbone(), plugin));
        }
        Room { folder, ct, server: None }
    }

    fn open() -> Self {
        let mut room = Room::closed();
        room.start();
        room
    }

    fn start(&mut self) {
        let mut config = config(self.folder.path());
        config.trust.audit = Some(self.folder.path().join("audit.sqlite"));
        config.dicom = Some(DicomConfig {
            listen: Some("127.0.0.1:0".to_owned()),
            tasks: vec!["all".to_owned()],
            series_quiet_s: 1,
            destination: vec![DestinationConfig {
                name: "pacs".to_owned(),
                // Nobody listens there.
                address: Some("127.0.0.1:9".to_owned()),
                ae_title: Some("PACS".to_owned()),
                url: None,
                authorization_file: None,
                tls: None,
                results: vec![ResultKind::Report, ResultKind::Capture],
            }],
            ..DicomConfig::default()
        });
        self.server = Some(Running::start(config));
    }

    fn server(&self) -> &Running {
        self.server.as_ref().expect("it runs")
    }

    fn spool(&self, folder: &str) -> PathBuf {
        self.folder.path().join("state/spool").join(folder)
    }

    fn send(&self, objects: &[InMemDicomObject]) {
        let mut association = connect(self.server().dicom(), "MELO").expect("an association");
        objects.iter().for_each(|object| assert_eq!(store(&mut association, &instance(object), &data_set(object)), 0));
        association.release().expect("a release");
    }

    /// Records of the task of bags, of one series.
    fn of_series(&self, uid: &str) -> Vec<Stored> {
        let all = entries(&self.folder.path().join("audit.sqlite"), 1000, Some("ct")).expect("the audit is read");
        all.into_iter()
            .map(|entry| entry.record)
            .filter(|record| record.sop_instance_uid.as_deref() == Some(uid))
            .collect()
    }

    fn answered(&self, uid: &str, times: usize) -> Vec<Stored> {
        until("the series is answered", || self.of_series(uid).len() >= times);
        let records = self.of_series(uid);
        assert_eq!(records.len(), times, "{records:?}");
        records
    }

    /// That a record is what is said of these images in this order.
    fn assert_is(&self, record: &Stored, slices: &[InMemDicomObject]) {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |(at, slice): (usize, &InMemDicomObject)| {
            let path = folder.path().join(format!("{at}.dcm"));
            std::fs::write(&path, part10(slice.clone())).expect("written");
            path
        };
        let paths: Vec<PathBuf> = slices.iter().enumerate().map(write).collect();
        let (wanted, _) = expected_of_bag(&engine(), &self.ct, &paths);
        let found: Vec<f32> = record
            .output
            .as_object()
            .expect("classes")
            .values()
            .map(|p| p.as_f64().expect("a number") as f32)
            .collect();
        assert_close(&found, &wanted, "the series");
        assert!(record.input_digest.as_ref().is_some_and(|digest| digest.ends_with(&format!("#bag={}", slices.len()))));
    }

    fn refused(&self, count: usize, parts: &[&str]) {
        until("it is refused", || files(&self.spool("refused"), "json").len() == count);
        for note in files(&self.spool("refused"), "json") {
            let text = std::fs::read_to_string(note).expect("a reason");
            parts.iter().for_each(|part| assert!(text.contains(part), "expected {part:?} in {text}"));
        }
    }

    fn reports(&self) -> Vec<dicom_object::DefaultDicomObject> {
        let all = files(&self.spool("outgoing/pacs"), "dcm").into_iter();
        let all = all.map(|path| dicom_object::open_file(path).expect("a result"));
        let named = |object: &dicom_object::DefaultDicomObject| {
            let text = object.element(tags::SERIES_DESCRIPTION).expect("a description").to_str().expect("text");
            text.trim_end_matches('\0').trim() == "melo ct"
        };
        all.filter(|object| object.meta().media_storage_sop_class_uid().starts_with(uids::COMPREHENSIVE_SR_STORAGE))
            .filter(named)
            .collect()
    }
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|found| found == ending)).collect();
    paths.sort();
    paths
}

fn instance(object: &InMemDicomObject) -> String {
    object.element(tags::SOP_INSTANCE_UID).expect("an identifier").to_str().expect("text").into_owned()
}

/// Slices of a series by place.
fn series(uid: &str, places: std::ops::Range<usize>) -> Vec<InMemDicomObject> {
    places.map(|z| slice_of(uid, z, 20)).collect()
}

#[test]
fn series_of_one_association_are_answered_once_each_in_the_order_of_their_places() {
    let room = Room::open();
    let (one, other) = (series("1.2.7", 0..5), series("1.2.8", 0..3));
    let order = [3, 0, 4, 1, 2].map(|z| one[z].clone());
    let mut sent = order.to_vec();
    sent.splice(2..2, other.iter().cloned());
    // Twice the same is once.
    sent.push(one[3].clone());
    room.send(&sent);
    room.assert_is(&room.answered("1.2.7", 1)[0], &one);
    room.assert_is(&room.answered("1.2.8", 1)[0], &other);
    until("nothing waits", || files(&room.spool("incoming"), "dcm").is_empty() && room.reports().len() == 2);
    let references = |report: &dicom_object::DefaultDicomObject| {
        let items =
            |object: &InMemDicomObject, tag| object.element(tag).expect("a sequence").items().expect("items").to_vec();
        let study = items(report, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE).remove(0);
        items(&items(&study, tags::REFERENCED_SERIES_SEQUENCE)[0], tags::REFERENCED_SOP_SEQUENCE).len()
    };
    let mut found: Vec<usize> = room.reports().iter().map(references).collect();
    found.sort_unstable();
    assert_eq!(found, [3, 5], "reports refer to all images of their series");
    let mut chest = entries(&room.folder.path().join("audit.sqlite"), 1000, Some("chest")).expect("the audit");
    chest.retain(|entry| entry.record.input_digest.is_some());
    assert_eq!(chest.len(), 9, "a task of single images answers each");
    let captures = || files(&room.spool("outgoing/pacs"), "dcm").len();
    until("all are written", || captures() >= 2 * 9 + 2 * 2);
    assert_eq!(captures(), 2 * 9 + 2 * 2, "a report and a capture an object and task, and a series and task");
}

#[test]
fn an_open_association_is_waited_for_and_a_stow_request_is_one_series() {
    let room = Room::open();
    let slices = series("1.2.7", 0..3);
    let mut association = connect(room.server().dicom(), "MELO").expect("an association");
    let mut send =
        |slice: &InMemDicomObject| assert_eq!(store(&mut association, &instance(slice), &data_set(slice)), 0);
    slices[..2].iter().for_each(&mut send);
    std::thread::sleep(Duration::from_millis(1800));
    assert!(room.of_series("1.2.7").is_empty(), "its association is open");
    send(&slices[2]);
    association.release().expect("a release");
    room.assert_is(&room.answered("1.2.7", 1)[0], &slices);

    let slices = series("1.2.8", 0..4);
    let mut body = Vec::new();
    for slice in slices.iter().rev() {
        body.extend(b"--b\r\nContent-Type: application/dicom\r\n\r\n");
        body.extend(part10(slice.clone()));
        body.extend(b"\r\n");
    }
    body.extend(b"--b--\r\n");
    let request = client()
        .post(room.server().url("/dicomweb/studies"))
        .header("content-type", "multipart/related; type=\"application/dicom\"; boundary=b");
    assert_eq!(read(request.send(&body[..])).0, 200);
    let records = room.answered("1.2.8", 1);
    room.assert_is(&records[0], &slices);
    assert_eq!(records[0].via, "stow");
}

#[test]
fn a_series_that_grows_is_answered_again_when_all_of_it_comes() {
    let room = Room::open();
    let slices = series("1.2.7", 0..6);
    room.send(&slices[..4]);
    room.assert_is(&room.answered("1.2.7", 1)[0], &slices[..4]);
    // One that was answered brings nothing new.
    room.send(&slices[1..2]);
    room.send(&slices[4..]);
    let parts = ["answered with 4 images before", "2 new ones came", "send the whole series again"];
    room.refused(3, &parts);
    room.send(&slices);
    room.assert_is(&room.answered("1.2.7", 2)[1], &slices);
}

#[test]
fn slices_of_two_sizes_and_two_images_of_one_identifier_are_refused_by_name() {
    let room = Room::open();
    room.send(&[slice_of("1.2.7", 1, 20), slice_of("1.2.7", 2, 24)]);
    room.refused(2, &["series 1.2.7", "slices of one size", "20 x 20 in 1.2.7.1 and 24 x 24 in 1.2.7.2"]);
    let mut forged = slice_of("1.2.8", 2, 20);
    let uid = slice_of("1.2.8", 1, 20).element(tags::SOP_INSTANCE_UID).expect("an identifier").clone();
    forged.put(uid);
    let room = Room::open();
    room.send(&[slice_of("1.2.8", 1, 20), forged]);
    until("one of them is refused, or both", || !files(&room.spool("refused"), "json").is_empty());
    let note = std::fs::read_to_string(&files(&room.spool("refused"), "json")[0]).expect("a reason");
    assert!(note.contains("SOP Instance UID"), "{note}");
}

#[test]
fn a_killed_server_goes_on_with_a_series_wherever_its_images_lay() {
    let slices = series("1.2.7", 0..5);
    let name = |at: usize| format!("{:020}-{at:04}-dicom-TEST.dcm", 1_700_000_000_000_000_000 + at);
    let mut results = Vec::new();
    for folders in [
        ["series/TEST-1.2.7"; 5],
        ["series/TEST-1.2.7~"; 5],
        ["series/TEST-1.2.7~", "series/TEST-1.2.7", "incoming", "incoming", "series/TEST-1.2.7"],
    ] {
        let mut room = Room::closed();
        for (at, folder) in folders.into_iter().enumerate() {
            let folder = room.spool(folder);
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(folder.join(name(at)), part10(slices[at].clone())).expect("written");
        }
        room.start();
        room.assert_is(&room.answered("1.2.7", 1)[0], &slices);
        until("it is done", || {
            files(&room.spool("incoming"), "dcm").is_empty() && !room.spool("series/TEST-1.2.7~").exists()
        });
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(1500) {
            assert_eq!(room.of_series("1.2.7").len(), 1, "once");
            std::thread::sleep(Duration::from_millis(100));
        }
        let reports = room.reports();
        assert_eq!(reports.len(), 1);
        results.push(instance(&reports[0]));
    }
    results.dedup();
    assert_eq!(results.len(), 1, "with the same identifiers");
}
