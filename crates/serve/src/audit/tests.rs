//! A chain that was tampered with in every way that SQL knows.

use super::*;
use rusqlite::Connection;
use serde_json::json;
use std::time::Instant;

pub(super) fn record(index: usize) -> Record {
    Record {
        action: Action::Answer,
        request_id: format!("r{index}"),
        who: "ris".to_owned(),
        via: "http".to_owned(),
        input_digest: Some(format!("{index:064x}")),
        sop_instance_uid: (index % 2 == 1).then(|| format!("1.2.{index}")),
        task: "chest".to_owned(),
        plugin_digest: Some("ab".repeat(32)),
        backbone_digest: "cd".repeat(32),
        precision: "f32".to_owned(),
        output: json!({ "effusion": index as f32 / 7.0, "mass": 0.04_f32 }),
    }
}

pub(super) fn chain(rows: usize) -> (tempfile::TempDir, PathBuf, Head) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.sqlite");
    let audit = Audit::open(&path, None).unwrap();
    let records: Vec<Record> = (1..=rows).map(record).collect();
    audit.append(&records).unwrap();
    let head = audit.head();
    (folder, path, head)
}

/// Takes the guards away and changes the file.
pub(super) fn tamper(path: &Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    let triggers = "DROP TRIGGER records_are_not_changed; DROP TRIGGER records_are_not_removed; \
                    DROP TRIGGER records_come_last;";
    connection.execute_batch(triggers).unwrap();
    connection.execute_batch(sql).unwrap();
}

pub(super) fn broken(path: &Path, anchor: Option<&str>) -> Option<Broken> {
    let anchor = anchor.map(|text| text.parse().unwrap());
    verify(path, anchor.as_ref()).unwrap().broken
}

#[test]
fn a_chain_verifies_and_goes_on_after_opening_again() {
    let (_folder, path, head) = chain(5);
    let audit = Audit::open(&path, None).unwrap();
    assert_eq!(audit.head(), head);
    audit.append(&[record(6)]).unwrap();
    let report = verify(&path, Some(&head.to_string().parse().unwrap())).unwrap();
    assert_eq!((report.head, report.broken), (audit.head(), None));
    assert_eq!(audit.head().rows, 6);
}

#[test]
fn what_is_read_is_what_was_recorded() {
    let (_folder, path, head) = chain(3);
    let found = entries(&path, 2, None).unwrap();
    assert_eq!(found.iter().map(|entry| entry.n).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(found[1].hash, head.hash);
    assert_eq!(found[1].prev_hash, found[0].hash);
    let (stored, wanted) = (serde_json::to_value(&found[1].record).unwrap(), serde_json::to_value(record(3)).unwrap());
    assert_eq!(stored, wanted);
    assert!(entries(&path, 9, Some("other")).unwrap().is_empty());
    assert!((crate::clock::now_ms() - found[1].time_ms).abs() < 60_000);
}

#[test]
fn changes_are_refused_by_the_file_itself() {
    let (_folder, path, _) = chain(3);
    let connection = Connection::open(&path).unwrap();
    let copy = "INSERT OR REPLACE INTO records SELECT * FROM records WHERE n = 2";
    for sql in ["UPDATE records SET who = 'x' WHERE n = 2", "DELETE FROM records WHERE n = 3", copy] {
        let error = connection.execute(sql, []).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{sql}: {error}");
    }
    drop(connection);
    assert_eq!(broken(&path, None), None);
}

#[test]
fn every_changed_column_is_found() {
    for (column, value) in [
        ("time_ms", "time_ms + 1"),
        ("action", "'put'"),
        ("request_id", "'r9'"),
        ("who", "'nobody'"),
        ("via", "'dicom'"),
        ("input_digest", "NULL"),
        ("sop_instance_uid", "'1.2.3'"),
        ("task", "task || ' '"),
        ("plugin_digest", "upper(plugin_digest)"),
        ("backbone_digest", "''"),
        ("precision", "'bf16'"),
        ("output", "'{}'"),
        ("prev_hash", "hash"),
        ("hash", "prev_hash"),
        ("output", "cast(output as text) || char(0)"),
    ] {
        let (_folder, path, _) = chain(6);
        tamper(&path, &format!("UPDATE records SET {column} = {value} WHERE n = 4"));
        let found = broken(&path, None).unwrap_or_else(|| panic!("{column}"));
        assert_eq!((found.row, found.kind), (4, Kind::Changed), "{column}: {found}");
    }
}

#[test]
fn a_changed_row_with_a_hash_made_anew_is_found_at_the_next() {
    let (_folder, path, _) = chain(6);
    let mut forged = record(3);
    forged.who = "nobody".to_owned();
    let found = entries(&path, 9, None).unwrap();
    let place = (3, found[2].time_ms, found[2].prev_hash.as_str());
    let own = chain::with_fields(place, &forged, |fields| chain::hash(fields));
    tamper(&path, &format!("UPDATE records SET who = 'nobody', hash = '{own}' WHERE n = 3"));
    let found = broken(&path, None).unwrap();
    assert_eq!((found.row, found.kind), (4, Kind::Changed), "{found}");
    assert!(found.reason.contains("row 3"), "{found}");
}

#[test]
fn removed_rows_are_found() {
    let (_folder, path, _) = chain(9);
    tamper(&path, "DELETE FROM records WHERE n IN (4, 5)");
    let found = broken(&path, None).unwrap();
    assert_eq!((found.row, found.kind), (4, Kind::Removed), "{found}");
    assert!(found.reason.contains("4 to 5"), "{found}");
    let (_folder, path, _) = chain(9);
    tamper(&path, "DELETE FROM records WHERE n = 1");
    assert_eq!(broken(&path, None).map(|found| (found.row, found.kind)), Some((1, Kind::Removed)));
}

#[test]
fn removed_rows_are_found_where_the_others_were_numbered_anew() {
    let (_folder, path, _) = chain(9);
    tamper(&path, "DELETE FROM records WHERE n IN (4, 5); UPDATE records SET n = n - 2 WHERE n > 5");
    let found = broken(&path, None).unwrap();
    assert_eq!((found.row, found.kind), (4, Kind::Removed), "{found}");
}

#[test]
fn inserted_rows_are_found() {
    let shift = "UPDATE records SET n = -n - 1 WHERE n >= 4; UPDATE records SET n = -n WHERE n < 0;";
    // A copy of another row, as it is.
    let (_folder, path, _) = chain(9);
    let columns = chain::COLUMNS[1..].join(", ");
    let copy = format!("INSERT INTO records (n, {columns}, hash) SELECT 4, {columns}, hash FROM records WHERE n = 2");
    tamper(&path, &format!("{shift} {copy}"));
    let found = broken(&path, None).unwrap();
    assert_eq!((found.row, found.kind), (4, Kind::Inserted), "{found}");
    // One that is right by itself.
    let (_folder, path, _) = chain(9);
    let rows = entries(&path, 9, None).unwrap();
    let forged = record(77);
    let own = chain::with_fields((4, 5, &rows[2].hash), &forged, |fields| chain::hash(fields));
    let insert = format!(
        "INSERT INTO records (n, {columns}, hash) VALUES (4, 5, 'answer', 'r77', 'ris', 'http', '{}', '1.2.77', 'chest', \
         '{}', '{}', 'f32', '{}', '{}', '{own}')",
        forged.input_digest.clone().unwrap(),
        forged.plugin_digest.clone().unwrap(),
        forged.backbone_digest,
        forged.output,
        rows[2].hash
    );
    tamper(&path, &format!("{shift} {insert}"));
    let found = broken(&path, None).unwrap();
    assert_eq!((found.row, found.kind), (4, Kind::Inserted), "{found}");
    // Before the first.
    let (_folder, path, _) = chain(3);
    let zero = format!("INSERT INTO records (n, {columns}, hash) SELECT 0, {columns}, hash FROM records WHERE n = 2");
    tamper(&path, &zero);
    assert!(broken(&path, None).is_some());
}

#[test]
fn reordered_rows_are_found() {
    let (_folder, path, _) = chain(9);
    tamper(
        &path,
        "UPDATE records SET n = 99 WHERE n = 4; UPDATE records SET n = 4 WHERE n = 6; UPDATE records SET n = 6 WHERE n = 99",
    );
    let found = broken(&path, None).unwrap();
    assert_eq!((found.row, found.kind), (4, Kind::Reordered), "{found}");
}

#[test]
fn a_cut_end_is_found_by_an_anchor_and_a_careless_one_without() {
    let (_folder, path, head) = chain(9);
    tamper(&path, "DELETE FROM records WHERE n > 6");
    assert_eq!(broken(&path, None).map(|found| (found.row, found.kind)), Some((6, Kind::Cut)), "SQLite counts");
    tamper_again(&path, "UPDATE sqlite_sequence SET seq = 6");
    let without = broken(&path, None);
    assert_eq!(without.map(|found| found.kind), Some(Kind::Unguarded));
    tamper_again(&path, &file::SCHEMA[file::SCHEMA.find("CREATE TRIGGER").unwrap()..]);
    assert_eq!(broken(&path, None), None, "a careful cut leaves no trace in the file");
    for anchor in [head.to_string(), head.hash.clone()] {
        let found = broken(&path, Some(&anchor)).unwrap();
        assert_eq!((found.row, found.kind), (6, Kind::Cut), "{found}");
    }
    // Rows that came after the cut do not hide it.
    let audit = Audit::open(&path, None).unwrap();
    audit.append(&(0..9).map(record).collect::<Vec<_>>()).unwrap();
    let found = broken(&path, Some(&head.to_string())).unwrap();
    assert_eq!((found.row, found.kind), (9, Kind::Rewritten), "{found}");
    assert!(broken(&path, Some(&head.hash)).is_some());
    assert_eq!(Anchor::from_str("abc"), Err(InvalidAnchor::Hash));
    let wrong = Anchor::from_str(&format!("{}@x", head.hash));
    assert_eq!(wrong, Err(InvalidAnchor::Rows { found: "x".to_owned() }));
}

use std::str::FromStr;

pub(super) fn tamper_again(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_server_does_not_go_on_behind_a_broken_end() {
    for sql in [
        "UPDATE records SET who = 'x' WHERE n = 5",
        "DELETE FROM records WHERE n = 6",
        "DELETE FROM records WHERE n = 3",
        "UPDATE records SET prev_hash = hash WHERE n = 1",
    ] {
        let (_folder, path, _) = chain(6);
        tamper(&path, sql);
        let error = Audit::open(&path, None).err().unwrap_or_else(|| panic!("{sql}"));
        assert!(matches!(error, Error::Damaged { .. }), "{sql}: {error}");
        assert!(error.to_string().contains("audit.sqlite"), "{error}");
    }
    let (_folder, path, _) = chain(6);
    tamper(&path, "");
    assert!(matches!(Audit::open(&path, None), Err(Error::Damaged { .. })), "the triggers are gone");
}

#[test]
fn a_second_writer_is_refused_by_name_and_readers_are_not() {
    let (_folder, path, _) = chain(3);
    let audit = Audit::open(&path, None).unwrap();
    let error = Audit::open(&path, None).err().unwrap();
    assert!(matches!(error, Error::InUse { .. }) && error.to_string().contains("audit.sqlite"), "{error}");
    audit.append(&[record(4)]).unwrap();
    assert_eq!(verify(&path, None).unwrap().head, audit.head());
    drop(audit);
    Audit::open(&path, None).unwrap();
}

#[test]
fn files_that_are_no_audit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.sqlite");
    assert!(matches!(verify(&path, None), Err(Error::Io { .. })), "a missing one is not made");
    assert!(!path.exists());
    std::fs::write(&path, "not a database, but a text that is long enough to be looked at as a header").unwrap();
    assert!(matches!(Audit::open(&path, None), Err(Error::Damaged { .. })));
    assert!(matches!(verify(&path, None), Err(Error::Damaged { .. })));
    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (x)").unwrap();
    assert!(matches!(Audit::open(&path, None), Err(Error::Damaged { .. })));
    assert!(matches!(verify(&path, None), Err(Error::Damaged { .. })));
}

#[test]
fn a_damaged_page_is_an_error_or_a_broken_row_never_a_panic() {
    let (_folder, path, head) = chain(400);
    let written = entries(&path, 500, None).unwrap();
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() > 40_000, "everything is in the file once it is closed");
    let (mut errors, mut broken) = (0, 0);
    for place in (100..whole.len()).step_by(997) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x5a;
        std::fs::write(&path, &bytes).unwrap();
        let read = entries(&path, 500, None);
        match verify(&path, None) {
            // Room that no row takes.
            Ok(Report { head: found, broken: None, .. }) => {
                assert_eq!(found, head, "byte {place}");
                assert_eq!(read.unwrap(), written, "byte {place}: a chain that verifies is the one that was written");
            }
            Ok(_) => broken += 1,
            Err(error) => {
                assert!(matches!(error, Error::Damaged { .. } | Error::Audit { .. }), "byte {place}: {error}");
                errors += 1;
            }
        }
    }
    assert!(errors > 0 && broken > 0, "{errors} errors, {broken} broken rows");
}

#[test]
fn a_full_disk_refuses_and_leaves_the_chain_whole() {
    let (_folder, path, head) = chain(3);
    let mut store = Store::open(&path).unwrap();
    let pages: i64 = store.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    store.connection.pragma_update(None, "max_page_count", pages).unwrap();
    let many: Vec<Record> = (0..1000).map(record).collect();
    let error = store.append(&head, many.iter(), 0).unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    assert_eq!(store.head().unwrap(), head);
    store.connection.pragma_update(None, "max_page_count", 1 << 20).unwrap();
    let head = store.append(&head, many.iter(), 0).unwrap().pop().unwrap();
    drop(store);
    assert_eq!(verify(&path, None).unwrap(), Report { head, behind: None, broken: None, replicas: Vec::new() });
}

#[test]
fn concurrent_appends_share_their_way_to_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.sqlite");
    let audit = Audit::open(&path, None).unwrap();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for caller in 0..16 {
            let audit = &audit;
            scope.spawn(move || (0..25).for_each(|index| audit.append(&[record(caller * 100 + index)]).unwrap()));
        }
    });
    println!("400 appends by 16 callers in {:?}", started.elapsed());
    assert_eq!(
        verify(&path, None).unwrap(),
        Report { head: audit.head(), behind: None, broken: None, replicas: Vec::new() }
    );
    assert_eq!(audit.head().rows, 400);
}

#[test]
fn what_is_beside_the_file_is_its_owners_alone() {
    let (folder, path, _) = chain(1);
    let _audit = Audit::open(&path, None).unwrap();
    #[cfg(unix)]
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{:?}", file.path());
    }
}
