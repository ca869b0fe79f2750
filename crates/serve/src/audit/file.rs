//! The file: its tables, how it is opened, its rows read.

use super::chain::{COLUMNS, Entry, Field, Head, Stored};
use crate::error::Error;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// "melo" in ASCII: the application id of SQLite's header.
pub(super) const APPLICATION: i64 = 0x6d65_6c6f;
/// Version of the tables.
pub(super) const VERSION: i64 = 1;
/// Version of a file whose first rows are in an archive: it has [`ANCHOR`] too.
pub(super) const ANCHORED: i64 = 2;
/// Version of an archive that begins so, in which nothing is written any more.
pub(super) const ARCHIVED: i64 = 3;
/// How long a lock of another process is waited for, such as that of a backup.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What must stand in the file. The triggers stop mistakes, the chain shows intent.
pub(super) const SCHEMA: &str = "\
CREATE TABLE records (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  time_ms INTEGER NOT NULL,
  action TEXT NOT NULL,
  request_id TEXT NOT NULL,
  who TEXT NOT NULL,
  via TEXT NOT NULL,
  input_digest TEXT,
  sop_instance_uid TEXT,
  task TEXT NOT NULL,
  plugin_digest TEXT,
  backbone_digest TEXT NOT NULL,
  precision TEXT NOT NULL,
  output TEXT NOT NULL,
  prev_hash TEXT NOT NULL,
  hash TEXT NOT NULL
) STRICT;
CREATE TRIGGER records_are_not_changed BEFORE UPDATE ON records
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: rows are not changed'); END;
CREATE TRIGGER records_are_not_removed BEFORE DELETE ON records
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: rows are not removed'); END;
CREATE TRIGGER records_come_last BEFORE INSERT ON records
WHEN NEW.n IS NOT (SELECT coalesce(max(n), 0) + 1 FROM records)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: rows are added at its end'); END;
";

/// Behind which row a file begins.
pub(super) const ANCHOR: &str = "\
CREATE TABLE anchor (
  n INTEGER NOT NULL,
  hash TEXT NOT NULL
) STRICT;
CREATE TRIGGER anchor_is_not_changed BEFORE UPDATE ON anchor
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: where it begins is not changed'); END;
CREATE TRIGGER anchor_is_not_removed BEFORE DELETE ON anchor
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: where it begins is not removed'); END;
CREATE TRIGGER anchor_is_one BEFORE INSERT ON anchor WHEN (SELECT count(*) FROM anchor) > 0
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: it begins once'); END;
";

/// The guards of [`SCHEMA`], which come after rows that are not the first.
pub(super) fn guards() -> &'static str {
    SCHEMA.split_at(SCHEMA.find("CREATE TRIGGER").unwrap_or(SCHEMA.len())).1
}

/// Its table alone.
pub(super) fn table() -> &'static str {
    SCHEMA.strip_suffix(guards()).unwrap_or(SCHEMA)
}

/// Opens a file that only its owner may read, or makes it.
pub(super) fn private(path: &Path) -> Result<File, Error> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(Error::io(path))
}

/// What SQLite said of a file.
pub(super) fn failed(path: &Path) -> impl Fn(rusqlite::Error) -> Error {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            Error::Damaged { path: path.to_owned(), reason: "it is no SQLite file".into() }
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            Error::Damaged { path: path.to_owned(), reason: format!("SQLite cannot read it: {error}") }
        }
        _ => Error::Audit { path: path.to_owned(), reason: error.to_string() },
    }
}

/// Opens a file for reading, whether or not a server writes it.
pub(super) fn read(path: &Path) -> Result<Connection, Error> {
    drop(File::open(path).map_err(Error::io(path))?);
    let failed = failed(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    let connection = match open() {
        // A finished file in a folder that cannot be written: SQLite must be told that nobody else can, either.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && !beside(path, "-wal").exists() => {
            let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let uri = format!("file:{escaped}?immutable=1");
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
        }
        opened => opened,
    };
    let connection = connection.map_err(&failed)?;
    known(&connection, path)?;
    Ok(connection)
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether a file says that it is an audit that this program understands.
pub(super) fn known(connection: &Connection, path: &Path) -> Result<(), Error> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed(path));
    let damaged = |reason: String| Err(Error::Damaged { path: path.to_owned(), reason });
    if pragma("application_id")? != APPLICATION {
        return damaged("it is an SQLite file, but no audit of melo".to_owned());
    }
    match pragma("user_version")? {
        VERSION | ANCHORED | ARCHIVED => Ok(()),
        other => {
            damaged(format!("it is an audit of version {other}, this program knows versions {VERSION} to {ARCHIVED}"))
        }
    }
}

/// Version of a file's tables.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn is_anchored(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(matches!(version(connection)?, ANCHORED | ARCHIVED))
}

/// Behind which row a file begins: none, or the last one of its archive. One that does not say so any more has no such row.
pub(super) fn anchor(connection: &Connection) -> rusqlite::Result<Head> {
    if !is_anchored(connection)? {
        return Ok(Head::empty());
    }
    let select = "SELECT n, hash FROM anchor";
    let found = connection.query_row(select, [], |row| Ok(Head { rows: row.get(0)?, hash: row.get(1)? })).optional()?;
    Ok(found.unwrap_or(Head { rows: 0, hash: String::new() }))
}

/// A table, trigger, index or view, and its SQL.
type Part = (String, String, Option<String>);

fn parts(connection: &Connection) -> rusqlite::Result<Vec<Part>> {
    let mut select = connection.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY name")?;
    let parts = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    parts.collect()
}

/// What is not as [`SCHEMA`], and in an anchored file [`ANCHOR`], makes it, in words: a guard that is gone or says something else, or a part that came in.
pub(super) fn unguarded(connection: &Connection) -> rusqlite::Result<Option<String>> {
    static EXPECTED: [OnceLock<Vec<Part>>; 2] = [OnceLock::new(), OnceLock::new()];
    let is_anchored = is_anchored(connection)?;
    let known = &EXPECTED[usize::from(is_anchored)];
    let expected = match known.get() {
        Some(expected) => expected,
        None => {
            let fresh = Connection::open_in_memory()?;
            fresh.execute_batch(SCHEMA)?;
            if is_anchored {
                fresh.execute_batch(ANCHOR)?;
            }
            let expected = parts(&fresh)?;
            known.get_or_init(|| expected)
        }
    };
    let found = parts(connection)?;
    let differing = |some: &[Part], others: &[Part]| -> Vec<String> {
        let new = some.iter().filter(|part| !others.contains(part));
        new.map(|(kind, name, _)| format!("{kind} {name}")).collect()
    };
    let (gone, came) = (differing(expected, &found), differing(&found, expected));
    let (changed, gone): (Vec<_>, Vec<_>) = gone.into_iter().partition(|part| came.contains(part));
    let came: Vec<_> = came.into_iter().filter(|part| !changed.contains(part)).collect();
    let said =
        [("gone", gone), ("changed", changed), ("put in", came)].into_iter().filter(|(_, parts)| !parts.is_empty());
    let said: Vec<String> = said.map(|(what, parts)| format!("{what}: {}", parts.join(", "))).collect();
    Ok((!said.is_empty()).then(|| said.join("; ")))
}

/// What tells a file from another that stands in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    #[cfg(unix)]
    inode: (u64, u64),
}

/// Which file a path leads to now, which must have that name alone.
#[cfg_attr(not(unix), allow(unused_variables))]
pub(super) fn identity(path: &Path) -> Result<Identity, String> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err("is gone".to_owned()),
        found => found.map_err(|error| format!("cannot be looked at: {error}"))?,
    };
    if !metadata.is_file() {
        return Err("is no plain file any more".to_owned());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        match metadata.nlink() {
            1 => Ok(Identity { inode: (metadata.dev(), metadata.ino()) }),
            names => Err(format!("has {names} names, of which one is expected")),
        }
    }
    #[cfg(not(unix))]
    Ok(Identity {})
}

/// A row's hashed columns; none if one holds what no record can hold.
pub(super) fn fields<'a>(row: &'a Row) -> rusqlite::Result<Option<[Field<'a>; COLUMNS.len()]>> {
    let mut fields = [Field::Null; COLUMNS.len()];
    for (index, field) in fields.iter_mut().enumerate() {
        *field = match row.get_ref(index)? {
            ValueRef::Null => Field::Null,
            ValueRef::Integer(value) => Field::Integer(value),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Field::Text(text),
                Err(_) => return Ok(None),
            },
            ValueRef::Real(_) | ValueRef::Blob(_) => return Ok(None),
        };
    }
    Ok(Some(fields))
}

/// The last rows of a file, or of one task in it, the oldest first.
///
/// # Errors
/// [`Error::Io`], [`Error::Damaged`], [`Error::Audit`].
pub fn entries(path: &Path, last: u32, task: Option<&str>) -> Result<Vec<Entry>, Error> {
    let connection = read(path)?;
    let columns = COLUMNS.join(", ");
    let sql = format!("SELECT {columns}, hash FROM records WHERE ?1 IS NULL OR task = ?1 ORDER BY n DESC LIMIT ?2");
    let find = || -> rusqlite::Result<Vec<Entry>> {
        let mut select = connection.prepare(&sql)?;
        let mut entries: Vec<Entry> = select.query_map((task, last), entry)?.collect::<Result<_, _>>()?;
        entries.reverse();
        Ok(entries)
    };
    find().map_err(failed(path))
}

fn entry(row: &Row) -> rusqlite::Result<Entry> {
    let output: String = row.get(12)?;
    Ok(Entry {
        n: row.get(0)?,
        time_ms: row.get(1)?,
        record: Stored {
            action: row.get(2)?,
            request_id: row.get(3)?,
            who: row.get(4)?,
            via: row.get(5)?,
            input_digest: row.get(6)?,
            sop_instance_uid: row.get(7)?,
            task: row.get(8)?,
            plugin_digest: row.get(9)?,
            backbone_digest: row.get(10)?,
            precision: row.get(11)?,
            output: serde_json::from_str(&output).unwrap_or(serde_json::Value::String(output)),
        },
        prev_hash: row.get(13)?,
        hash: row.get(14)?,
    })
}
