//! Adding rows.

use super::chain::{COLUMNS, Field, Head, hash, with_fields};
use super::file::{APPLICATION, PATIENCE, SCHEMA, VERSION, failed, known, private};
use super::record::Record;
use super::verify;
use crate::clock::now_ms;
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
        Ok(Store { path: path.to_owned(), connection })
    }

    /// The last row; the rows before it are checked as far as that takes no time.
    pub(super) fn head(&self) -> Result<Head, Error> {
        let found = verify::tail(&self.connection, &self.path, TAIL)?;
        match found.broken {
            None => Ok(found.head),
            Some(broken) => {
                let reason =
                    format!("{broken}; keep it as evidence, `melo audit verify` tells more, and begin a new one");
                Err(Error::Damaged { path: self.path.clone(), reason })
            }
        }
    }

    /// Adds rows behind a head in one transaction. The new head.
    pub(super) fn append<'a>(&mut self, head: &Head, records: impl Iterator<Item = &'a Record>) -> Result<Head, Error> {
        let failed = failed(&self.path);
        let mut head = head.clone();
        let batch = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        {
            let places = vec!["?"; COLUMNS.len() + 1].join(", ");
            let sql = format!("INSERT INTO records ({}, hash) VALUES ({places})", COLUMNS.join(", "));
            let mut insert = batch.prepare(&sql).map_err(&failed)?;
            for record in records {
                let n = head.rows + 1;
                let own = with_fields((n, now_ms(), &head.hash), record, |fields| {
                    let own = hash(fields);
                    let values = fields.iter().copied().chain([Field::Text(&own)]);
                    insert.execute(params_from_iter(values))?;
                    Ok(own)
                });
                head = Head { rows: n, hash: own.map_err(&failed)? };
            }
        }
        batch.commit().map_err(&failed)?;
        Ok(head)
    }
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
