//! Adding rows.

use super::chain::{COLUMNS, Field, Head, hash, with_fields};
use super::file::{
    APPLICATION, ARCHIVED, Identity, PATIENCE, SCHEMA, VERSION, beside, failed, identity, known, private, unguarded,
    version,
};
use super::record::Record;
use super::verify::{self, Broken};
use crate::error::Error;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, ToSql, TransactionBehavior, params_from_iter};
use std::path::{Path, PathBuf};

/// Rows at the end that are checked when a file is opened for writing.
const TAIL: i64 = 1000;
/// A file that is open for writing.
pub(super) struct Store {
    path: PathBuf,
    pub(super) connection: Connection,
    /// The file, and its journal, which SQLite keeps as long as the file is open.
    files: [(PathBuf, Identity); 2],
    /// Changes when another connection changes the file.
    version: i64,
    /// What the last attempt would have made the head, whether or not it went through.
    attempted: Option<Head>,
}

impl Store {
    /// Opens a file, or begins one.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        // SQLite gives its journal the permissions of the file, so the file is made first.
        drop(private(path)?);
        let failed = failed(path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(&failed)?;
        connection.busy_timeout(PATIENCE).map_err(&failed)?;
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(&failed)?;
        if tables > 0 {
            known(&connection, path)?;
            if version(&connection).map_err(&failed)? == ARCHIVED {
                let reason = "it is an archive, in which nothing is written any more".to_owned();
                return Err(Error::Damaged { path: path.to_owned(), reason });
            }
        }
        // Readers and the writer do not wait for each other, and a commit is on disk when it returns.
        connection.pragma_update(None, "journal_mode", "wal").map_err(&failed)?;
        connection.pragma_update(None, "synchronous", "full").map_err(&failed)?;
        connection.pragma_update(None, "trusted_schema", "off").map_err(&failed)?;
        if tables == 0 {
            let begin = connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(&failed)?;
            begin.pragma_update(None, "application_id", APPLICATION).map_err(&failed)?;
            begin.pragma_update(None, "user_version", VERSION).map_err(&failed)?;
            begin.execute_batch(SCHEMA).map_err(&failed)?;
            begin.commit().map_err(&failed)?;
        }
        // Makes the journal.
        connection.execute_batch("BEGIN IMMEDIATE; COMMIT").map_err(&failed)?;
        let identity = |path: PathBuf| match identity(&path) {
            Ok(identity) => Ok((path, identity)),
            Err(reason) => Err(Error::Damaged { path, reason: format!("the file {reason}") }),
        };
        let files = [identity(path.to_owned())?, identity(beside(path, "-wal"))?];
        let version = data_version(&connection).map_err(&failed)?;
        Ok(Store { path: path.to_owned(), connection, files, version, attempted: None })
    }

    /// Whether what is written is still found under the file's name.
    fn in_place(&self) -> Result<(), Error> {
        let changed = self.files.iter().find_map(|(path, known)| match identity(path) {
            Ok(found) if found == *known => None,
            Ok(_) => Some((path, "is another one than was opened".to_owned())),
            Err(reason) => Some((path, reason)),
        });
        match changed {
            None => Ok(()),
            Some((path, reason)) => {
                let name = path.file_name().unwrap_or(path.as_os_str()).display();
                Err(Error::Audit {
                    path: self.path.clone(),
                    reason: format!("{name} {reason}: nothing is recorded in it any more"),
                })
            }
        }
    }

    /// Whether another process changed the file since, and left its end or its guards as they must not be.
    fn is_ours(&mut self, head: &Head) -> Result<(), Error> {
        let version = data_version(&self.connection).map_err(failed(&self.path))?;
        if version != self.version {
            let found = self.head()?;
            if found != *head {
                return Err(self.foreign(&found, head));
            }
            self.version = version;
        }
        Ok(())
    }

    /// The last row after an attempt that failed behind `known`: the attempt may have gone through.
    pub(super) fn head_after(&self, known: &Head) -> Result<Head, Error> {
        let found = self.head()?;
        match found == *known || self.attempted.as_ref() == Some(&found) {
            true => Ok(found),
            false => Err(self.foreign(&found, known)),
        }
    }

    fn foreign(&self, found: &Head, expected: &Head) -> Error {
        let reason = format!("another process wrote it: it ends with {found}, expected {expected}");
        Error::Audit { path: self.path.clone(), reason }
    }

    /// Whether the chain holds the row that was noted.
    pub(super) fn holds(&self, noted: &Head) -> Result<(), Error> {
        match verify::holds(&self.connection, &self.path, noted)? {
            None => Ok(()),
            Some(broken) => Err(self.damaged(&broken)),
        }
    }

    pub(super) fn damaged(&self, broken: &Broken) -> Error {
        let reason = format!("{broken}; keep it as evidence, `melo audit verify` tells more, and begin a new one");
        Error::Damaged { path: self.path.clone(), reason }
    }

    /// The last row; the rows before it are checked as far as that takes no time.
    pub(super) fn head(&self) -> Result<Head, Error> {
        let found = verify::tail(&self.connection, &self.path, TAIL)?;
        match found.broken {
            None => Ok(found.head),
            Some(broken) => Err(self.damaged(&broken)),
        }
    }

    /// Adds rows behind a head in one transaction, written at a time, ms since 1970 in UTC. The new rows.
    pub(super) fn append<'a>(
        &mut self,
        head: &Head,
        records: impl Iterator<Item = &'a Record>,
        time_ms: i64,
    ) -> Result<Vec<Head>, Error> {
        self.in_place()?;
        self.is_ours(head)?;
        let failed = failed(&self.path);
        let before = head.rows;
        let batch = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let rows = insert(&batch, head, records, time_ms).map_err(&failed)?;
        let head = rows.last().unwrap_or(head);
        // What a guard that is not ours did with them.
        let sql = "SELECT count(*) FROM records WHERE n > ?1 UNION ALL SELECT count(*) FROM records WHERE n = ?2 AND hash = ?3";
        let written = |batch: &Connection| -> rusqlite::Result<Vec<i64>> {
            let mut select = batch.prepare(sql)?;
            let counts = select.query_map((before, head.rows, &head.hash), |row| row.get(0))?;
            counts.collect()
        };
        if let Some(what) = unguarded(&batch).map_err(&failed)? {
            let reason = format!("its guards are not what they were: {what}");
            return Err(Error::Audit { path: self.path.clone(), reason });
        }
        let expected = [head.rows - before, i64::from(head.rows > before)];
        if written(&batch).map_err(&failed)? != expected {
            let reason = "rows were not written as they should be".to_owned();
            return Err(Error::Audit { path: self.path.clone(), reason });
        }
        self.attempted = Some(head.clone());
        batch.commit().map_err(&failed)?;
        self.version = data_version(&self.connection).map_err(&failed)?;
        self.in_place()?;
        Ok(rows)
    }
}

/// Adds rows behind a head, and gives them.
pub(super) fn insert<'a>(
    batch: &Connection,
    head: &Head,
    records: impl Iterator<Item = &'a Record>,
    time_ms: i64,
) -> rusqlite::Result<Vec<Head>> {
    let places = vec!["?"; COLUMNS.len() + 1].join(", ");
    let sql = format!("INSERT INTO records ({}, hash) VALUES ({places})", COLUMNS.join(", "));
    let mut insert = batch.prepare(&sql)?;
    let mut added: Vec<Head> = Vec::new();
    for record in records {
        let before = added.last().unwrap_or(head);
        let n = before.rows + 1;
        let own = with_fields((n, time_ms, &before.hash), record, |fields| {
            let own = hash(fields);
            let values = fields.iter().copied().chain([Field::Text(&own)]);
            match insert.execute(params_from_iter(values))? {
                1 => Ok(own),
                rows => Err(rusqlite::Error::StatementChangedRows(rows)),
            }
        });
        added.push(Head { rows: n, hash: own? });
    }
    Ok(added)
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

impl ToSql for Field<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        let value = match self {
            Field::Null => ValueRef::Null,
            Field::Integer(value) => ValueRef::Integer(*value),
            Field::Text(text) => ValueRef::Text(text.as_bytes()),
        };
        Ok(rusqlite::types::ToSqlOutput::Borrowed(value))
    }
}
