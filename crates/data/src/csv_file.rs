//! A table as header and records, with the lines on which they stand.

use std::path::{Path, PathBuf};

use csv::StringRecord;

use crate::{Error, Note, text, workbook};

/// What may stand between fields; the first is taken where nothing tells.
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// A table: fields trimmed, blank records passed over.
pub(crate) struct CsvFile {
    path: PathBuf,
    /// The first record; empty if there is none.
    pub(crate) header: StringRecord,
    /// Line, from 1, and fields.
    records: Vec<(usize, StringRecord)>,
    /// How it was read, where that is not how most are.
    pub(crate) notes: Vec<Note>,
    /// Fields around which spaces were cut: line and column.
    pub(crate) spaces: Vec<(usize, usize)>,
    /// `63,5` is a number: commas are not what separates fields.
    pub(crate) decimal_comma: bool,
}

impl CsvFile {
    /// The table at `path`: a workbook, or text in any encoding that [`text::decode`] knows, separated by commas, semicolons,
    /// tabs or bars, of which the header tells: `knows` says whether a header has a column that is looked for.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::NotText`], [`Error::Workbook`].
    pub(crate) fn read(path: &Path, knows: &dyn Fn(&StringRecord) -> bool) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let mut file = if workbook::is_workbook(&bytes) {
            let (rows, note) = workbook::read(path, &bytes)?;
            Self::of_records(path, rows, true, note)
        } else {
            let (text, note) = text::decode(path, &bytes)?;
            let (said, table) = said_separator(&text);
            let separator = said.unwrap_or_else(|| guess_separator(table, knows));
            let first_line = if said.is_some() { 2 } else { 1 };
            let mut file = Self::of_records(path, split(table, separator, first_line), true, note);
            file.decimal_comma = separator != b',';
            file
        };
        file.drop_empty_ends();
        Ok(file)
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
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Ok(Self::of_records(path, split(text, separator, 1), has_header, None))
    }

    fn of_records(path: &Path, records: Vec<(usize, StringRecord)>, has_header: bool, note: Option<Note>) -> Self {
        let mut spaces = Vec::new();
        let trimmed = |(line, mut record): (usize, StringRecord)| {
            let cut = record.iter().zip(0..).filter(|(field, _)| field.trim().len() < field.len());
            spaces.extend(cut.map(|(_, column)| (line, column)));
            record.trim();
            (line, record)
        };
        let records = records.into_iter().map(trimmed).filter(|(_, record)| !record.iter().all(str::is_empty));
        let mut records: Vec<(usize, StringRecord)> = records.collect();
        let header = match has_header {
            true if records.is_empty() => StringRecord::new(),
            true => records.remove(0).1,
            false => {
                (1..=records.first().map_or(0, |(_, record)| record.len())).map(|column| column.to_string()).collect()
            }
        };
        let notes = note.into_iter().collect();
        Self { path: path.into(), header, records, notes, spaces, decimal_comma: false }
    }

    /// Drops what a spreadsheet leaves at the ends of lines: columns without a name and a value, fields beyond the header.
    fn drop_empty_ends(&mut self) {
        let width =
            self.header.iter().zip(1..).filter(|(name, _)| !name.is_empty()).last().map_or(0, |(_, width)| width);
        let beyond = |record: &StringRecord| record.iter().skip(width).any(|field| !field.is_empty());
        if self.header.len() > width && !self.records.iter().any(|(_, record)| beyond(record)) {
            self.header.truncate(width);
        }
        let width = self.header.len();
        for (_, record) in &mut self.records {
            if record.iter().skip(width).all(str::is_empty) {
                record.truncate(width);
            }
        }
    }

    /// The records after the header, with their lines.
    ///
    /// Each may be an [`Error::FieldCount`].
    pub(crate) fn records(&self) -> impl Iterator<Item = Result<(usize, &StringRecord), Error>> {
        self.records.iter().map(|(line, record)| {
            if record.len() == self.header.len() { Ok((*line, record)) } else { Err(self.field_count(*line, record)) }
        })
    }

    /// The records, each with as many fields as the header: spreadsheets leave empty ones out at the end of a line. A
    /// header that stands there again is passed over, with a note.
    ///
    /// # Errors
    /// [`Error::FieldCount`] for a line with more fields, or without one of the columns `needed`.
    pub(crate) fn take_rows(&mut self, needed: &[usize]) -> Result<Vec<(usize, StringRecord)>, Error> {
        let mut rows = std::mem::take(&mut self.records);
        let mut again = Vec::new();
        rows.retain(|(line, record)| {
            let is_header = record == &self.header;
            again.extend(is_header.then_some(*line));
            !is_header
        });
        if !again.is_empty() {
            self.notes.push(Note::HeaderAgain { lines: again });
        }
        for (line, record) in &mut rows {
            if record.len() > self.header.len() || needed.iter().any(|&column| column >= record.len()) {
                return Err(self.field_count(*line, record));
            }
            (record.len()..self.header.len()).for_each(|_| record.push_field(""));
        }
        Ok(rows)
    }

    /// True if `holds` is true of every value of a column.
    pub(crate) fn all(&self, column: usize, holds: impl Fn(&str) -> bool) -> bool {
        self.records.iter().all(|(_, record)| holds(record.get(column).unwrap_or_default()))
    }

    /// The names of the columns.
    pub(crate) fn names(&self) -> Vec<String> {
        self.header.iter().map(str::to_owned).collect()
    }

    fn field_count(&self, line: usize, record: &StringRecord) -> Error {
        let (expected, found) = (self.header.len(), record.len());
        Error::FieldCount { path: self.path.clone(), line, expected, found }
    }
}

/// The records of `text`, with their lines; the first line of it is `first_line`.
fn split(text: &str, separator: u8, first_line: usize) -> Vec<(usize, StringRecord)> {
    let mut lines = Lines { text: text.as_bytes(), seen: 0, line: first_line };
    // A record of a text that is UTF-8 and may have any number of fields cannot fail.
    reader(text, separator).into_records().filter_map(Result::ok).map(|record| (lines.of(&record), record)).collect()
}

fn reader(text: &str, separator: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(separator).from_reader(text.as_bytes())
}

/// The separator that a first line `sep=;` names, as Excel reads it, and the text after it.
fn said_separator(text: &str) -> (Option<u8>, &str) {
    let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
    let line = line.trim_end_matches('\r').trim_matches('"');
    let said = line.get(..4).filter(|start| start.eq_ignore_ascii_case("sep=")).map(|_| &line.as_bytes()[4..]);
    match said {
        Some(&[separator]) => (Some(separator), rest),
        _ => (None, text),
    }
}

/// The separator that gives a header with a column that is looked for, else the one that gives most columns.
fn guess_separator(text: &str, knows: &dyn Fn(&StringRecord) -> bool) -> u8 {
    let header = |separator: u8| {
        let mut records = reader(text, separator).into_records().filter_map(Result::ok);
        let mut header = records.find(|record| !record.iter().all(|field| field.trim().is_empty())).unwrap_or_default();
        header.trim();
        (header.len() > 1 && knows(&header), header.len())
    };
    let ranked = SEPARATORS.into_iter().rev().max_by_key(|&separator| header(separator));
    ranked.unwrap_or(SEPARATORS[0])
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
pub(crate) fn line_ends(text: &[u8]) -> usize {
    let lone = |(&byte, next): (&u8, Option<&u8>)| byte == b'\n' || (byte == b'\r' && next != Some(&b'\n'));
    let next = text.iter().skip(1).map(Some).chain([None]);
    text.iter().zip(next).filter(|&pair| lone(pair)).count()
}
