//! A CSV as header and records, with the lines on which they stand.

use std::path::{Path, PathBuf};

use csv::StringRecord;

use crate::Error;

/// A CSV: UTF-8, comma-separated, fields trimmed, blank records passed over.
pub(crate) struct CsvFile {
    path: PathBuf,
    /// The first record; empty if there is none.
    pub(crate) header: StringRecord,
    /// Line, from 1, and fields.
    records: Vec<(usize, StringRecord)>,
}

impl CsvFile {
    /// The file at `path`, separated by commas and with a header.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::NotUtf8`].
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
        Self::parse(path, &bytes, b',', true)
    }

    /// The text `bytes` of a file with another separator, or without a header: columns are then `1`, `2`, …
    ///
    /// # Errors
    /// [`Error::NotUtf8`].
    pub(crate) fn parse(path: &Path, bytes: &[u8], separator: u8, has_header: bool) -> Result<Self, Error> {
        let text = std::str::from_utf8(bytes).map_err(|error| Error::NotUtf8 {
            path: path.into(),
            line: line_ends(&bytes[..error.valid_up_to()]) + 1,
        })?;
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .delimiter(separator)
            .from_reader(text.as_bytes());
        let mut lines = Lines { text: bytes, seen: 0, line: 1 };
        // A record of a text that is UTF-8 and may have any number of fields cannot fail.
        let records = reader.records().filter_map(Result::ok).filter(|record| !record.iter().all(str::is_empty));
        let mut records = records.peekable();
        let header = match has_header {
            true => records.next().unwrap_or_default(),
            false => (1..=records.peek().map_or(0, StringRecord::len)).map(|column| column.to_string()).collect(),
        };
        let records = records.map(|record| (lines.of(&record), record)).collect();
        Ok(Self { path: path.into(), header, records })
    }

    /// The records after the header, with their lines.
    ///
    /// Each may be an [`Error::FieldCount`].
    pub(crate) fn records(&self) -> impl Iterator<Item = Result<(usize, &StringRecord), Error>> {
        self.records.iter().map(|(line, record)| {
            let (line, expected, found) = (*line, self.header.len(), record.len());
            if found == expected {
                Ok((line, record))
            } else {
                Err(Error::FieldCount { path: self.path.clone(), line, expected, found })
            }
        })
    }
}

/// Counts lines as an editor does, blank ones too.
///
/// The `csv` crate says where a record begins, but takes blank lines before it for its beginning.
struct Lines<'a> {
    text: &'a [u8],
    seen: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line on which `record` begins; records come in order.
    fn of(&mut self, record: &StringRecord) -> usize {
        let begin = record.position().map_or(self.seen, |position| position.byte() as usize);
        let blank = self.text[begin..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.line += line_ends(&self.text[self.seen..begin + blank]);
        self.seen = begin + blank;
        self.line
    }
}

/// Number of `\n`, `\r\n` and lone `\r`.
fn line_ends(text: &[u8]) -> usize {
    let lone = |(&byte, next): (&u8, Option<&u8>)| byte == b'\n' || (byte == b'\r' && next != Some(&b'\n'));
    let next = text.iter().skip(1).map(Some).chain([None]);
    text.iter().zip(next).filter(|&pair| lone(pair)).count()
}
