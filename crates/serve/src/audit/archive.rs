//! Older rows into a file of their own, which is a chain by itself; the live one begins behind them.
//!
//! ```text
//! verify -> OUT.part: rows, guards, on the disk -> verify -> OUT -> one transaction: rows go, the anchor comes -> room is given back
//! ```
//!
//! A process that ends anywhere leaves every row in one of the files at least: before the transaction rows may be in both, and the same call
//! once more goes on there.

use super::chain::{COLUMNS, Head};
use super::file::{
    ANCHOR, ANCHORED, APPLICATION, ARCHIVED, VERSION, anchor, beside, failed, guards, private, table, unguarded,
};
use super::record::{Action, Record};
use super::store::{Store, insert};
use super::verify::{Anchor, verify};
use crate::clock::now_ms;
use crate::disk::sync_folder;
use crate::error::Error;
use melo_vit::folder_of;
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params_from_iter};
use serde_json::json;
use std::path::{Path, PathBuf};

/// What was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// Number of its first row.
    pub first: i64,
    /// Its last row, behind which the live file begins.
    pub last: Head,
    /// The last row of the live file.
    pub head: Head,
}

/// Moves the rows that were written before a time (ms since 1970 in UTC), but not the last one and none behind `noted`, to `out`; none
/// where there are none. The live file must be whole, hold what was noted, and be written by nobody.
///
/// # Errors
/// [`Error::InUse`] while a server writes it; [`Error::Damaged`] where a file is broken, or `out` is there and something else;
/// [`Error::Io`], [`Error::Audit`].
pub fn archive(path: &Path, before_ms: i64, out: &Path, noted: Option<&Anchor>) -> Result<Option<Archived>, Error> {
    let mut live = Live::open(path, noted)?;
    let wanted = live.last_before(before_ms, noted)?;
    let (start, last) = match (wanted, out.exists()) {
        (wanted, true) => live.known(out, wanted)?,
        (Some(last), false) => {
            live.write(out, &last)?;
            (live.start.clone(), last)
        }
        (None, false) => return Ok(None),
    };
    if live.start != last {
        live.cut(&last)?;
    }
    live.give_room_back()?;
    Ok(Some(Archived { first: start.rows + 1, last, head: live.head }))
}

/// A file that nobody else writes.
struct Live {
    path: PathBuf,
    store: Store,
    /// Behind which row it begins.
    start: Head,
    head: Head,
    _lock: std::fs::File,
}

impl Live {
    fn open(path: &Path, noted: Option<&Anchor>) -> Result<Self, Error> {
        drop(std::fs::File::open(path).map_err(Error::io(path))?);
        let lock = super::lock(path)?;
        let store = Store::open(path)?;
        let report = verify(path, noted)?;
        if let Some(broken) = &report.broken {
            return Err(store.damaged(broken));
        }
        let start = anchor(&store.connection).map_err(failed(path))?;
        Ok(Live { path: path.to_owned(), store, start, head: report.head, _lock: lock })
    }

    /// Beginning and end of an archive that an earlier call made, with just the rows that are to go, or that have gone.
    fn known(&self, out: &Path, wanted: Option<Head>) -> Result<(Head, Head), Error> {
        let other = |reason: String| Error::Damaged { path: out.to_owned(), reason };
        let report = verify(out, None)?;
        if let Some(broken) = report.broken {
            return Err(other(format!("it is there already, and broken: {broken}")));
        }
        let (start, last) = (report.behind.unwrap_or_else(Head::empty), report.head);
        let is_whole = wanted.is_none() && last == self.start;
        if is_whole || start == self.start && wanted.as_ref() == Some(&last) {
            return Ok((start, last));
        }
        let (first, last, own) = (start.rows + 1, last.rows, self.path.display());
        let wanted = match wanted {
            Some(wanted) => format!("rows {} to {}", self.start.rows + 1, wanted.rows),
            None => "no rows".to_owned(),
        };
        Err(other(format!(
            "it is there already, with rows {first} to {last}, and of {own} {wanted} would go: give another file"
        )))
    }

    /// The last of the first rows that are older, and may go.
    fn last_before(&self, before_ms: i64, noted: Option<&Anchor>) -> Result<Option<Head>, Error> {
        let sql = "SELECT n, hash FROM records WHERE n < min(?2, coalesce((SELECT min(n) FROM records WHERE time_ms >= ?1), ?2)) \
                   ORDER BY n DESC LIMIT 1";
        let most = noted.and_then(Anchor::rows).map_or(self.head.rows, |noted| self.head.rows.min(noted + 1));
        let head = |row: &rusqlite::Row| Ok(Head { rows: row.get(0)?, hash: row.get(1)? });
        self.store.connection.query_row(sql, (before_ms, most), head).optional().map_err(failed(&self.path))
    }

    /// Writes an archive, which has its name when it is whole and on the disk.
    fn write(&self, out: &Path, last: &Head) -> Result<(), Error> {
        let part = beside(out, ".part");
        for left in [part.clone(), beside(&part, "-journal")] {
            match std::fs::remove_file(&left) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&left)(error)),
                _ => {}
            }
        }
        drop(private(&part)?);
        self.copy(&part, last).map_err(failed(&part))?;
        let found = verify(&part, None)?;
        if found.broken.is_some() || found.head != *last {
            let reason = "what was written is not what was read".to_owned();
            return Err(Error::Damaged { path: part, reason });
        }
        std::fs::rename(&part, out).map_err(Error::io(out))?;
        sync_folder(folder_of(out)).map_err(Error::io(out))
    }

    fn copy(&self, part: &Path, last: &Head) -> rusqlite::Result<()> {
        let columns = COLUMNS.join(", ");
        let mut connection = Connection::open(part)?;
        connection.pragma_update(None, "synchronous", "full")?;
        let all = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        all.pragma_update(None, "application_id", APPLICATION)?;
        all.execute_batch(table())?;
        {
            let places = vec!["?"; COLUMNS.len() + 1].join(", ");
            let mut insert = all.prepare(&format!("INSERT INTO records ({columns}, hash) VALUES ({places})"))?;
            let select = format!("SELECT {columns}, hash FROM records WHERE n <= ?1 ORDER BY n");
            let mut select = self.store.connection.prepare(&select)?;
            let mut rows = select.query([last.rows])?;
            while let Some(row) = rows.next()? {
                let values = (0..=COLUMNS.len()).map(|column| row.get_ref(column).map(ToSqlOutput::Borrowed));
                insert.execute(params_from_iter(values.collect::<Result<Vec<_>, _>>()?))?;
            }
        }
        all.execute_batch(guards())?;
        begin_behind(&all, &self.start, ARCHIVED)?;
        all.commit()
    }

    /// In one transaction the rows go, the anchor comes, and a row says so.
    fn cut(&mut self, last: &Head) -> Result<(), Error> {
        let failed = failed(&self.path);
        let cut = self.store.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let head = move_start(&cut, &self.head, last).map_err(&failed)?;
        if let Some(what) = unguarded(&cut).map_err(&failed)? {
            return Err(Error::Audit {
                path: self.path.clone(),
                reason: format!("it was not cut as it should be: {what}"),
            });
        }
        cut.commit().map_err(&failed)?;
        (self.start, self.head) = (last.clone(), head);
        Ok(())
    }

    fn give_room_back(&self) -> Result<(), Error> {
        let shrink = || {
            self.store.connection.execute_batch("VACUUM")?;
            self.store.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        };
        shrink().map_err(failed(&self.path))
    }
}

fn move_start(cut: &Connection, head: &Head, last: &Head) -> rusqlite::Result<Head> {
    let mut select = cut.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'records'")?;
    let names: Vec<String> = select.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for name in names {
        cut.execute_batch(&format!("DROP TRIGGER {name}"))?;
    }
    cut.execute("DELETE FROM records WHERE n <= ?1", [last.rows])?;
    cut.execute_batch(guards())?;
    cut.execute_batch("DROP TABLE IF EXISTS anchor")?;
    begin_behind(cut, last, ANCHORED)?;
    let record = Record {
        action: Action::Archive,
        request_id: String::new(),
        who: "melo".to_owned(),
        via: "server".to_owned(),
        input_digest: None,
        sop_instance_uid: None,
        task: String::new(),
        plugin_digest: None,
        backbone_digest: String::new(),
        precision: String::new(),
        output: said_of(last),
    };
    let added = insert(cut, head, [record].iter(), now_ms())?;
    Ok(added.last().unwrap_or(head).clone())
}

/// What the record of an archive says.
pub(super) fn said_of(last: &Head) -> serde_json::Value {
    json!({ "rows": last.rows, "hash": last.hash })
}

/// Says behind which row a file begins, and as which version.
fn begin_behind(connection: &Connection, start: &Head, version: i64) -> rusqlite::Result<()> {
    if *start == Head::empty() {
        return connection.pragma_update(None, "user_version", VERSION);
    }
    connection.pragma_update(None, "user_version", version)?;
    connection.execute_batch(ANCHOR)?;
    connection.execute("INSERT INTO anchor (n, hash) VALUES (?1, ?2)", (start.rows, &start.hash))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{broken, chain, record, tamper, tamper_again};
    use super::super::{Audit, Broken, Kind, verify_together};
    use super::*;

    /// Rows of which the first `old` are older than a time.
    fn aged(old: usize, rows: usize) -> (tempfile::TempDir, PathBuf, i64) {
        let (folder, path, _) = chain(old);
        std::thread::sleep(std::time::Duration::from_millis(5));
        let before = crate::clock::now_ms();
        let audit = Audit::open(&path, None).unwrap();
        audit.append(&(old + 1..=rows).map(record).collect::<Vec<_>>()).unwrap();
        (folder, path, before)
    }

    fn out(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("old.sqlite")
    }

    fn whole(path: &Path, archives: &[PathBuf], anchor: Option<&Anchor>) -> Head {
        let reports = verify_together(path, archives, anchor).unwrap();
        assert!(reports.iter().all(|(_, report)| report.broken.is_none()), "{reports:?}");
        assert_eq!(reports[0].1.behind, None, "from the first row on");
        reports.last().unwrap().1.head.clone()
    }

    #[test]
    fn older_rows_move_and_both_files_are_chains() {
        let (folder, path, before) = aged(5, 9);
        let (all, out) = (verify(&path, None).unwrap().head, out(&folder));
        let at = |row: usize| super::super::entries(&path, 99, None).unwrap()[row - 1].hash.clone();
        let noted: Vec<Anchor> = [3, 5, 7].map(|row| Anchor::of(&Head { rows: row as i64, hash: at(row) })).into();
        let moved = archive(&path, before, &out, Some(&noted[2])).unwrap().unwrap();
        assert_eq!((moved.first, moved.last.rows, moved.head.rows), (1, 5, 10));
        let old = verify(&out, Some(&noted[0])).unwrap();
        assert_eq!((&old.head, old.behind, old.broken), (&moved.last, None, None));
        let live = verify(&path, Some(&noted[2])).unwrap();
        assert_eq!((&live.head, live.behind.as_ref(), live.broken), (&moved.head, Some(&moved.last), None));
        assert_eq!(verify(&path, Some(&noted[1])).unwrap().broken, None, "the last archived row is known");
        let unknown = verify(&path, Some(&noted[0])).unwrap().broken.unwrap();
        assert_eq!((unknown.row, unknown.kind), (3, Kind::Archived), "{unknown}");
        for noted in noted.iter().chain([&Anchor::of(&all)]) {
            assert_eq!(whole(&path, std::slice::from_ref(&out), Some(noted)), moved.head);
        }
        let last = super::super::entries(&path, 1, None).unwrap().remove(0);
        assert_eq!((last.n, last.record.action.as_str()), (10, "archive"));
        assert_eq!(last.record.output["hash"], moved.last.hash);
        // A server goes on, and a second archive begins where the first ended.
        let audit = Audit::open(&path, None).unwrap();
        assert_eq!(audit.head(), moved.head);
        audit.append(&[record(11), record(12)]).unwrap();
        drop(audit);
        let second = folder.path().join("older.sqlite");
        let again = archive(&path, i64::MAX, &second, None).unwrap().unwrap();
        assert_eq!((again.first, again.last.rows, again.head.rows), (6, 11, 13));
        assert_eq!(verify(&second, None).unwrap().behind, Some(moved.last));
        let closed = Audit::open(&second, None).err().unwrap().to_string();
        assert!(closed.contains("older.sqlite") && closed.contains("archive"), "{closed}");
        assert_eq!(whole(&path, &[second.clone(), out.clone()], Some(&Anchor::of(&all))), again.head, "in any order");
        let apart = verify_together(&path, std::slice::from_ref(&out), None).unwrap_err().to_string();
        assert!(apart.contains("audit.sqlite") && apart.contains("old.sqlite") && apart.contains("@11"), "{apart}");
    }

    #[test]
    fn nothing_is_moved_that_must_stay() {
        let (folder, path, before) = aged(3, 6);
        let first = out(&folder);
        assert_eq!(archive(&path, 0, &first, None).unwrap(), None);
        assert!(!first.exists());
        let checkpoint =
            Anchor::of(&Head { rows: 2, hash: super::super::entries(&path, 5, None).unwrap()[0].hash.clone() });
        let audit = Audit::open(&path, None).unwrap();
        assert!(matches!(archive(&path, before, &first, None), Err(Error::InUse { .. })), "a server writes it");
        drop(audit);
        let moved = archive(&path, before, &first, Some(&checkpoint)).unwrap().unwrap();
        assert_eq!(moved.last.rows, 2, "not behind the checkpoint");
        let (folder, path, _) = aged(3, 6);
        let all = archive(&path, i64::MAX, &out(&folder), None).unwrap().unwrap();
        assert_eq!((all.last.rows, all.head.rows), (5, 7), "the last row stays");
        assert!(matches!(archive(&path.with_extension("none"), 0, &first, None), Err(Error::Io { .. })));
        let (folder, path, before) = aged(3, 6);
        tamper(&path, "UPDATE records SET who = 'x' WHERE n = 2");
        let error = archive(&path, before, &out(&folder), None).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }) && !out(&folder).exists(), "{error}");
    }

    #[test]
    fn a_call_that_was_cut_off_is_finished_by_the_next() {
        // With a part of a file; with the archive and the whole live file; with all but the end.
        for step in 0..3 {
            let (folder, path, before) = aged(5, 9);
            let (all, out) = (verify(&path, None).unwrap().head, out(&folder));
            let mut live = Live::open(&path, None).unwrap();
            let last = live.last_before(before, None).unwrap().unwrap();
            std::fs::write(beside(&out, ".part"), "half of a file").unwrap();
            if step > 0 {
                live.write(&out, &last).unwrap();
                let both = verify_together(&path, std::slice::from_ref(&out), None);
                drop(live);
                assert!(both.unwrap_err().to_string().contains("begins behind"), "rows are in both");
                live = Live::open(&path, None).unwrap();
            }
            if step > 1 {
                live.cut(&last).unwrap();
            }
            drop(live);
            let moved = archive(&path, before, &out, None).unwrap().unwrap();
            assert_eq!((moved.first, moved.last.rows, moved.head.rows), (1, 5, 10), "step {step}");
            assert_eq!(whole(&path, std::slice::from_ref(&out), Some(&Anchor::of(&all))), moved.head);
            let again = archive(&path, before, &out, None).unwrap().unwrap();
            assert_eq!((again.last, again.head), (moved.last, moved.head), "once more changes nothing");
            let other = archive(&path, i64::MAX, &out, None).unwrap_err();
            assert!(matches!(&other, Error::Damaged { path, .. } if *path == out), "{other}");
        }
    }

    #[test]
    fn a_file_is_no_archive_of_itself_or_of_another() {
        let (folder, path, before) = aged(5, 9);
        let copy = folder.path().join("copy.sqlite");
        std::fs::copy(&path, &copy).unwrap();
        let (_other_folder, other, _) = chain(5);
        for out in [&path, &copy, &other] {
            let error = archive(&path, before, out, None).unwrap_err().to_string();
            assert!(error.contains("it is there already"), "{error}");
        }
        assert_eq!(verify(&path, None).unwrap().head.rows, 9, "nothing went");
    }

    #[test]
    fn an_anchor_that_was_changed_is_found() {
        let found = |sql: &str| -> Option<Broken> {
            let (folder, path, before) = aged(5, 9);
            archive(&path, before, &out(&folder), None).unwrap();
            tamper(&path, sql);
            tamper_again(&path, guards());
            verify(&path, None).unwrap().broken
        };
        let unguard = "DROP TRIGGER anchor_is_not_changed; DROP TRIGGER anchor_is_not_removed;";
        let guard =
            &ANCHOR[ANCHOR.find("CREATE TRIGGER").unwrap()..ANCHOR.find("CREATE TRIGGER anchor_is_one").unwrap()];
        let hash = "UPDATE anchor SET hash = replace(hash, '0', '1')";
        assert_eq!(found(&format!("{unguard} {hash}")).map(|found| (found.row, found.kind)), Some((6, Kind::Changed)));
        let row = "UPDATE anchor SET n = 4";
        assert_eq!(found(&format!("{unguard} {row}")).map(|found| (found.row, found.kind)), Some((5, Kind::Removed)));
        let gone = "DELETE FROM anchor";
        assert_eq!(found(&format!("{unguard} {gone}")).map(|found| (found.row, found.kind)), Some((1, Kind::Removed)));
        assert_eq!(found(unguard).map(|found| found.kind), Some(Kind::Unguarded));
        let said = "UPDATE anchor SET n = 6, hash = (SELECT hash FROM records WHERE n = 6)";
        let said = found(&format!("{unguard} {said}; DELETE FROM records WHERE n = 6; {guard}")).unwrap();
        assert_eq!((said.row, said.kind), (6, Kind::Removed), "{said}");
        assert!(said.reason.contains("no record says"), "{said}");
        let first = "DELETE FROM records WHERE n = 6";
        assert_eq!(found(first).map(|found| (found.row, found.kind)), Some((6, Kind::Removed)));
        let (folder, path, before) = aged(5, 9);
        archive(&path, before, &out(&folder), None).unwrap();
        for sql in ["UPDATE anchor SET n = 7", "DELETE FROM anchor", "INSERT INTO anchor VALUES (9, '')"] {
            let error = Connection::open(&path).unwrap().execute(sql, []).unwrap_err().to_string();
            assert!(error.contains("append-only"), "{sql}: {error}");
        }
        assert_eq!(broken(&path, None), None);
    }
}
