//! Walking the chain: is every row the one that was written, and does each follow the one before?

use super::archive::said_of;
use super::chain::{COLUMNS, Field, Head, NOTHING, hash};
use super::file::{ARCHIVED, anchor as start, failed, fields, read, unguarded, version};
use super::record::Action;
use super::replicas::replicas_of;
use crate::error::Error;
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How far from its place a moved row is looked for.
const MOVED: i64 = 10_000;

/// What is wrong with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A row is not what was written.
    Changed,
    /// Rows are missing before others.
    Removed,
    /// Rows stand between two that followed each other.
    Inserted,
    /// Rows stand in another order.
    Reordered,
    /// Rows are missing at the end.
    Cut,
    /// The row that was noted elsewhere is another one now: everything up to it was written anew.
    Rewritten,
    /// The row that was noted elsewhere is in an archive, which is not here.
    Archived,
    /// The chain is whole, but what refuses changes is gone or something else.
    Unguarded,
}

/// The first place where a chain is broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Number of the row.
    pub row: i64,
    /// What is wrong.
    pub kind: Kind,
    /// The same as a sentence.
    pub reason: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "row {}: {}", self.row, self.reason)
    }
}

/// What a walk found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The last row of the part that is whole.
    #[serde(flatten)]
    pub head: Head,
    /// Behind which row it begins, which is the last one of its archive; none of a chain that has its first row.
    pub behind: Option<Head>,
    /// The first place where it is broken.
    pub broken: Option<Broken>,
    /// Under which names of replicas a server wrote it, the newest last; none of a file that says no name.
    pub replicas: Vec<String>,
}

/// A head that was noted elsewhere: `HASH`, or `HASH@ROWS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    hash: String,
    rows: Option<i64>,
}

/// Why a text is no [`Anchor`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAnchor {
    /// In front there is no SHA-256.
    #[error("expected 64 hexadecimal digits, and behind `@` the number of rows")]
    Hash,
    /// Behind `@` there is no number of rows.
    #[error("`{found}` is no number of rows")]
    Rows {
        /// What is there.
        found: String,
    },
}

impl Anchor {
    pub(super) fn of(head: &Head) -> Self {
        Anchor { hash: head.hash.clone(), rows: Some(head.rows) }
    }

    /// Number of the row, where it was noted.
    pub(super) fn rows(&self) -> Option<i64> {
        self.rows
    }
}

impl FromStr for Anchor {
    type Err = InvalidAnchor;

    fn from_str(text: &str) -> Result<Self, InvalidAnchor> {
        let (hash, rows) = match text.split_once('@') {
            Some((hash, rows)) => (hash, Some(rows)),
            None => (text, None),
        };
        let hash = hash.to_ascii_lowercase();
        if hash.len() != NOTHING.len() || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidAnchor::Hash);
        }
        let number = |rows: &str| rows.parse().ok().filter(|&rows: &i64| rows >= 0);
        let wrong = |rows: &str| InvalidAnchor::Rows { found: rows.to_owned() };
        let rows = rows.map(|rows| number(rows).ok_or_else(|| wrong(rows))).transpose()?;
        Ok(Anchor { hash, rows })
    }
}

/// Walks a whole file, while a server writes it or not; `anchor` is what was noted elsewhere, by hand or in a checkpoint.
///
/// # Errors
/// [`Error::Io`], [`Error::Damaged`] where SQLite cannot read it, [`Error::Audit`]. That the chain is broken is no
/// error, but what the report says.
pub fn verify(path: &Path, anchor: Option<&Anchor>) -> Result<Report, Error> {
    let mut reports = verify_together(path, &[], anchor)?;
    Ok(reports.remove(0).1)
}

/// Walks a file and its archives, each of which must begin where another ended: a report of each in the order of their rows, up to the
/// first that is broken. Where the first archive is missing, so does the first report say.
///
/// # Errors
/// As [`verify`], and [`Error::Damaged`] where two do not follow each other.
pub fn verify_together(
    path: &Path,
    archives: &[PathBuf],
    anchor: Option<&Anchor>,
) -> Result<Vec<(PathBuf, Report)>, Error> {
    let mut files = Vec::new();
    for path in archives.iter().map(PathBuf::as_path).chain([path]) {
        let connection = read(path)?;
        let start = start(&connection).map_err(failed(path))?;
        files.push((path, connection, start));
    }
    // The file itself is the last one, also where an archive claims to begin behind it.
    let last = files.len() - 1;
    files[..last].sort_by_key(|(.., start)| start.rows);
    let mut seen = Seen { anchor, found: anchor.is_none_or(|anchor| anchor.hash == NOTHING), from: files[0].2.rows };
    let mut reports: Vec<(PathBuf, Report)> = Vec::new();
    for (place, (path, connection, start)) in files.iter().enumerate() {
        if let Some((before, Report { head, .. })) = reports.last()
            && head != start
        {
            let reason = format!("it begins behind row {start}, and {} ends with row {head}", before.display());
            return Err(Error::Damaged { path: path.to_path_buf(), reason });
        }
        let report = walk(connection, start, &mut seen, place == last).map_err(failed(path))?;
        let is_broken = report.broken.is_some();
        reports.push((path.to_path_buf(), report));
        if is_broken {
            break;
        }
    }
    Ok(reports)
}

/// Walks one file behind the row where it begins; in the last one the noted row must have been found.
fn walk(connection: &Connection, start: &Head, seen: &mut Seen, is_last: bool) -> rusqlite::Result<Report> {
    // One moment of the file for all questions.
    let moment = connection.unchecked_transaction()?;
    let behind = Some(start.clone()).filter(|start| *start != Head::empty());
    let (head, broken) = match seen.row(start.rows, &start.hash) {
        None => Walk::new(&moment, start.clone(), i64::MIN).run(seen)?,
        broken => (start.clone(), broken),
    };
    let missing = |seen: &Seen| if is_last { seen.missing(&head) } else { None };
    let broken = match broken.or_else(|| missing(seen)) {
        None => end(&moment, &head)?,
        broken => broken,
    };
    let broken = match (broken, &behind) {
        (None, Some(start)) => unannounced(&moment, start)?,
        (broken, _) => broken,
    };
    let replicas = replicas_of(&moment)?;
    Ok(Report { head, behind, broken, replicas })
}

/// Whether a file begins behind a row of which no record says that it was archived. In an archive that record may be of a later file.
fn unannounced(connection: &Connection, start: &Head) -> rusqlite::Result<Option<Broken>> {
    if version(connection)? == ARCHIVED {
        return Ok(None);
    }
    let sql = "SELECT count(*) FROM records WHERE action = ?1 AND output = ?2";
    let said = (Action::Archive.name(), said_of(start).to_string());
    let found: i64 = connection.query_row(sql, said, |row| row.get(0))?;
    Ok((found == 0).then(|| {
        let reason = "removed: rows up to it are not there, and no record says that they were archived".to_owned();
        Broken { row: start.rows, kind: Kind::Removed, reason }
    }))
}

/// Whether a chain that is open holds the row that was noted.
pub(super) fn holds(connection: &Connection, path: &Path, noted: &Head) -> Result<Option<Broken>, Error> {
    let find = || -> rusqlite::Result<Option<Broken>> {
        let (anchor, start) = (Anchor::of(noted), start(connection)?);
        let last: i64 = connection.query_row("SELECT coalesce(max(n), 0) FROM records", [], |row| row.get(0))?;
        if last < noted.rows {
            return Ok(Some(cut(&Head { rows: last, hash: String::new() }, noted.rows, "the checkpoint has")));
        }
        if noted.rows <= start.rows {
            let mut seen = Seen { anchor: Some(&anchor), found: noted.rows == 0, from: start.rows };
            return Ok(seen.row(start.rows, &start.hash).or_else(|| seen.missing(&start)));
        }
        let sql = "SELECT hash FROM records WHERE n = ?1";
        let hash: Option<String> = connection.query_row(sql, [noted.rows], |row| row.get(0)).optional()?;
        Ok(Seen { anchor: Some(&anchor), found: false, from: start.rows }
            .row(noted.rows, hash.as_deref().unwrap_or_default()))
    };
    find().map_err(failed(path))
}

/// The same of the last rows alone.
pub(super) fn tail(connection: &Connection, path: &Path, rows: i64) -> Result<Report, Error> {
    let find = || -> rusqlite::Result<Report> {
        let last: i64 = connection.query_row("SELECT coalesce(max(n), 0) FROM records", [], |row| row.get(0))?;
        let first = start(connection)?;
        let before = (last - rows).max(first.rows);
        let sql = "SELECT hash FROM records WHERE n = ?1";
        let start = match before {
            before if before == first.rows => first.clone(),
            before => match connection.query_row(sql, [before], |row| row.get(0)) {
                Ok(hash) => Head { rows: before, hash },
                Err(rusqlite::Error::QueryReturnedNoRows) => Head { rows: before, hash: String::new() },
                Err(error) => return Err(error),
            },
        };
        let mut seen = Seen { anchor: None, found: true, from: first.rows };
        let (head, broken) = Walk::new(connection, start, before).run(&mut seen)?;
        let broken = match broken {
            None => end(connection, &head)?,
            broken => broken,
        };
        Ok(Report { head, behind: Some(first).filter(|first| *first != Head::empty()), broken, replicas: Vec::new() })
    };
    find().map_err(failed(path))
}

/// What only the end of a file shows: SQLite's own count of the rows that ever were, and the triggers.
fn end(connection: &Connection, head: &Head) -> rusqlite::Result<Option<Broken>> {
    let ever = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'records'";
    let ever: i64 = connection.query_row(ever, [], |row| row.get(0))?;
    if ever > head.rows {
        return Ok(Some(cut(head, ever, "SQLite counted")));
    }
    let reason = unguarded(connection)?.map(|what| format!("the file's guards are not what they were: {what}"));
    Ok(reason.map(|reason| Broken { row: head.rows, kind: Kind::Unguarded, reason }))
}

fn cut(head: &Head, ever: i64, who: &str) -> Broken {
    let reason = format!("it is the last one, but {who} {ever} rows: the end was cut off");
    Broken { row: head.rows, kind: Kind::Cut, reason }
}

/// Looks out for the row that was noted elsewhere.
struct Seen<'a> {
    anchor: Option<&'a Anchor>,
    found: bool,
    /// The row behind which everything begins.
    from: i64,
}

impl Seen<'_> {
    fn row(&mut self, n: i64, hash: &str) -> Option<Broken> {
        let anchor = self.anchor?;
        let here = anchor.hash == hash;
        self.found |= here && anchor.rows.is_none_or(|rows| rows == n);
        (anchor.rows == Some(n) && !here).then(|| Broken {
            row: n,
            kind: Kind::Rewritten,
            reason: format!("its hash is {hash}, but {} was noted: rows up to it were written anew", anchor.hash),
        })
    }

    fn missing(&self, head: &Head) -> Option<Broken> {
        let anchor = self.anchor.filter(|_| !self.found)?;
        Some(match anchor.rows {
            Some(rows) if rows < self.from => Broken {
                row: rows,
                kind: Kind::Archived,
                reason: format!("it was noted, and is in an archive: this begins behind row {}", self.from),
            },
            Some(rows) if rows > head.rows => cut(head, rows, "the noted head has"),
            Some(rows) => Broken {
                row: rows,
                kind: Kind::Rewritten,
                reason: format!("{} was noted for it, which is the hash of no chain", anchor.hash),
            },
            None => Broken {
                row: head.rows,
                kind: Kind::Cut,
                reason: match self.from {
                    0 => format!(
                        "no row has the noted hash {}: the end was cut off, or all was written anew",
                        anchor.hash
                    ),
                    from => format!(
                        "no row has the noted hash {}: it is in an archive (this begins behind row {from}), the end was cut off, or \
                         all was written anew",
                        anchor.hash
                    ),
                },
            },
        })
    }
}

struct Walk<'a> {
    connection: &'a Connection,
    /// The last row that is right.
    head: Head,
    /// Rows up to this number are not looked at.
    after: i64,
}

/// The columns of a row that tell where it belongs.
struct Place {
    n: i64,
    prev_hash: String,
    hash: String,
}

impl<'a> Walk<'a> {
    fn new(connection: &'a Connection, head: Head, after: i64) -> Self {
        Walk { connection, head, after }
    }

    fn run(mut self, seen: &mut Seen) -> rusqlite::Result<(Head, Option<Broken>)> {
        let sql = format!("SELECT {}, hash FROM records WHERE n > ?1 ORDER BY n", COLUMNS.join(", "));
        let mut select = self.connection.prepare(&sql)?;
        let mut rows = select.query([self.after])?;
        while let Some(row) = rows.next()? {
            if let Some(broken) = self.row(row)? {
                return Ok((self.head, Some(broken)));
            }
            if let Some(broken) = seen.row(self.head.rows, &self.head.hash) {
                return Ok((self.head, Some(broken)));
            }
        }
        Ok((self.head, None))
    }

    /// Goes on to a row, or says what is wrong with it.
    fn row(&mut self, row: &Row) -> rusqlite::Result<Option<Broken>> {
        let n = row.get_ref(0)?.as_i64().unwrap_or_default();
        let place = match (fields(row)?, row.get_ref(COLUMNS.len())?.as_str()) {
            (Some(fields), Ok(stored)) => {
                let prev_hash = match fields[COLUMNS.len() - 1] {
                    Field::Text(text) => text.to_owned(),
                    _ => String::new(),
                };
                let place = Place { n, prev_hash, hash: stored.to_owned() };
                if hash(&fields) != stored {
                    return self.not_itself(&place, fields).map(Some);
                }
                place
            }
            _ => return Ok(Some(changed(n, "a column holds what no record can hold"))),
        };
        let expected = self.head.rows + 1;
        if n != expected {
            return Ok(Some(match n > expected {
                true => removed(expected, n),
                false => Broken {
                    row: n,
                    kind: Kind::Inserted,
                    reason: "inserted: it stands before the first row".to_owned(),
                },
            }));
        }
        if place.prev_hash != self.head.hash {
            let reason = format!("it does not follow row {}: one of the two was written anew", n - 1);
            return Ok(Some(changed(n, &reason)));
        }
        self.head = Head { rows: n, hash: place.hash };
        Ok(None)
    }

    /// Why a row's hash is not that of its columns: it may have been written for another place.
    fn not_itself(&self, place: &Place, mut fields: [Field; COLUMNS.len()]) -> rusqlite::Result<Broken> {
        let (n, expected) = (place.n, self.head.rows + 1);
        let mut written_as = |other: i64| {
            fields[0] = Field::Integer(other);
            hash(&fields) == place.hash
        };
        let moved = (1..=MOVED).flat_map(|by| [n - by, n + by]).find(|&other| other > 0 && written_as(other));
        match moved {
            Some(other) if other <= self.head.rows && self.has(other, &place.hash)? => {
                let reason = format!("inserted: it is a copy of row {other}");
                return Ok(Broken { row: n, kind: Kind::Inserted, reason });
            }
            // The rows between are the ones that came in.
            Some(other) if other <= self.head.rows => {
                let reason =
                    format!("inserted: row {n} was written as row {other}, {} came in before it", rows(n - other));
                return Ok(Broken { row: other, kind: Kind::Inserted, reason });
            }
            Some(other) => {
                if self.follows_later(n)? {
                    let reason = format!("reordered: it was written as row {other}");
                    return Ok(Broken { row: n, kind: Kind::Reordered, reason });
                }
                if other > expected {
                    return Ok(removed(expected, other));
                }
            }
            None => {}
        }
        if n > expected {
            return Ok(removed(expected, n));
        }
        // A row that was squeezed in: the next one follows the one before it.
        if self.follows_later(n)? {
            let reason =
                "inserted: its hash is not that of its columns, and a later row follows the one before it".to_owned();
            return Ok(Broken { row: n, kind: Kind::Inserted, reason });
        }
        Ok(changed(n, "its hash is not that of its columns"))
    }

    fn has(&self, n: i64, hash: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT count(*) FROM records WHERE n = ?1 AND hash = ?2";
        let found: i64 = self.connection.query_row(sql, (n, hash), |row| row.get(0))?;
        Ok(found > 0)
    }

    /// Whether a row behind this one was written to follow the last right one.
    fn follows_later(&self, n: i64) -> rusqlite::Result<bool> {
        let sql = "SELECT count(*) FROM (SELECT 1 FROM records WHERE n > ?1 AND prev_hash = ?2 LIMIT 1)";
        let found: i64 = self.connection.query_row(sql, (n, &self.head.hash), |row| row.get(0))?;
        Ok(found > 0)
    }
}

fn changed(row: i64, reason: &str) -> Broken {
    Broken { row, kind: Kind::Changed, reason: format!("changed: {reason}") }
}

fn removed(first: i64, next: i64) -> Broken {
    let reason = match next - first {
        1 => "removed: it is not there".to_owned(),
        _ => format!("removed: rows {first} to {} are not there", next - 1),
    };
    Broken { row: first, kind: Kind::Removed, reason }
}

fn rows(count: i64) -> String {
    if count == 1 { "one row".to_owned() } else { format!("{count} rows") }
}
