//! The tables of a set, ready to be asked for the row of an image.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;

use csv::StringRecord;

use super::PresetError;
use super::pattern::{Fields, Pattern};
use super::report::TableUse;
use super::schema::{PartRule, TableRule};
use super::tree::Tree;
use crate::Error;
use crate::csv_file::CsvFile;

/// Most text of one table: MIMIC-CXR's largest has 60 MB.
const MAX_BYTES: u64 = 1 << 30;

/// Between the values of a key; in no table.
const BETWEEN: &str = "\u{1f}";

/// A table, by the key that joins it to the images.
pub(crate) struct Table<'a> {
    pub(crate) rule: &'a TableRule,
    /// The columns that are kept, in order of each row's values.
    columns: Vec<String>,
    rows: HashMap<String, Entry>,
    pub(crate) parts: Vec<TableUse>,
    /// `file, line 7: reason` of rows that could not be understood.
    pub(crate) broken: Vec<String>,
}

/// What the rows of one key say.
struct Entry {
    values: Vec<String>,
    /// A column in which they disagree.
    disagree: Option<usize>,
    part: usize,
    line: usize,
    used: Cell<bool>,
}

/// Which value holds where rows of one key disagree.
#[derive(Clone, Copy)]
pub(crate) struct Wins<'a> {
    pub(crate) field: &'a str,
    pub(crate) values: &'a [String],
}

/// A row as an image sees it.
#[derive(Clone, Copy)]
pub(crate) struct Found<'t> {
    columns: &'t [String],
    entry: &'t Entry,
}

impl<'t> Found<'t> {
    pub(crate) fn get(&self, field: &str) -> Option<&'t str> {
        let index = self.columns.iter().position(|column| column == field)?;
        Some(&self.entry.values[index])
    }

    /// The column in which the rows of this image disagree.
    pub(crate) fn disagreement(&self) -> Option<&'t str> {
        self.entry.disagree.map(|column| self.columns[column].as_str())
    }
}

impl<'a> Table<'a> {
    /// Reads all parts of `rule`; keeps the columns that are `needed`.
    pub(crate) fn read(
        preset: &str,
        rule: &'a TableRule,
        tree: &Tree,
        needed: &[&str],
        wins: Option<Wins<'_>>,
    ) -> Result<Self, Error> {
        let mut table = Self { rule, columns: Vec::new(), rows: HashMap::new(), parts: Vec::new(), broken: Vec::new() };
        for part in &rule.parts {
            match tree.find(&part.file)? {
                Some(file) => table.read_part(&tree.root.join(file), file, part, needed, wins)?,
                None if part.optional => {}
                None => {
                    let (folder, preset) = (tree.root.clone(), preset.to_owned());
                    let (wanted, found) = (alternatives(&part.file), tree.contents());
                    return Err(PresetError::NoTable { folder, preset, wanted, found }.into());
                }
            }
        }
        Ok(table)
    }

    fn read_part(
        &mut self,
        path: &Path,
        file: &str,
        part: &PartRule,
        needed: &[&str],
        wins: Option<Wins<'_>>,
    ) -> Result<(), Error> {
        let separator = u8::try_from(self.rule.separator).unwrap_or(b',');
        let csv = CsvFile::parse(path, &text_of(path)?, separator, self.rule.header)?;
        let columns = PartColumns::new(self.rule, part, &csv.header);
        if self.parts.is_empty() {
            let known = needed.iter().filter(|column| columns.has(column));
            self.columns = known.map(|&column| column.to_owned()).collect();
        }
        let key_columns = self.rule.key.values();
        let no_path = self.rule.parse.keys().find(|column| !csv.header.iter().any(|found| found == column.as_str()));
        let missing = self.columns.iter().chain(key_columns).find(|column| !columns.has(column));
        if let Some(missing) = no_path.or(missing) {
            let found = csv.header.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
            return Err(PresetError::Column { path: path.into(), column: missing.clone(), found }.into());
        }
        let mut rows = 0;
        for record in csv.records() {
            let (line, record) = record?;
            rows += 1;
            match columns.fields(record) {
                Ok(fields) => self.add(&fields, line, wins),
                Err(reason) => self.broken.push(format!("{file}, line {line}: {reason}")),
            }
        }
        self.parts.push(TableUse { file: file.to_owned(), rows });
        Ok(())
    }

    fn add(&mut self, fields: &RowFields<'_>, line: usize, wins: Option<Wins<'_>>) {
        let key = self.rule.key.values().map(|column| fields.get(column)).collect::<Vec<_>>().join(BETWEEN);
        let values: Vec<String> = self.columns.iter().map(|column| fields.get(column).to_owned()).collect();
        let part = self.parts.len();
        match self.rows.get_mut(&key) {
            Some(entry) => entry.merge(&self.columns, values, wins),
            None => {
                let entry = Entry { values, disagree: None, part, line, used: Cell::new(false) };
                self.rows.insert(key, entry);
            }
        }
    }

    /// The row of an image whose fields are `field`; `None` if there is none.
    pub(crate) fn row<'t, 'f>(&'t self, field: impl Fn(&str) -> Option<&'f str>) -> Option<Found<'t>> {
        let key: Vec<&str> = self.rule.key.keys().map(|name| field(name)).collect::<Option<_>>()?;
        let entry = self.rows.get(&key.join(BETWEEN))?;
        entry.used.set(true);
        Some(Found { columns: &self.columns, entry })
    }

    pub(crate) fn has(&self, field: &str) -> bool {
        self.columns.iter().any(|column| column == field)
    }

    /// Rows that no image asked for, as `file, line 7 (key)`, in order.
    pub(crate) fn unused(&self) -> Vec<String> {
        let mut unused: Vec<(&String, &Entry)> = self.rows.iter().filter(|(_, entry)| !entry.used.get()).collect();
        unused.sort_unstable_by_key(|(_, entry)| (entry.part, entry.line));
        let place = |(key, entry): (&String, &Entry)| {
            format!("{}, line {} ({})", self.parts[entry.part].file, entry.line, key.replace(BETWEEN, " "))
        };
        unused.into_iter().map(place).collect()
    }

    /// The files, for messages.
    pub(crate) fn name(&self) -> String {
        self.parts.iter().map(|part| part.file.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Some row's key, for messages.
    pub(crate) fn some_key(&self) -> String {
        self.rows.keys().min().map_or_else(String::new, |key| key.replace(BETWEEN, " "))
    }
}

impl Entry {
    fn merge(&mut self, columns: &[String], values: Vec<String>, wins: Option<Wins<'_>>) {
        for (index, value) in values.into_iter().enumerate() {
            if self.values[index] == value {
                continue;
            }
            let rank = |value: &String| {
                let wins = wins.filter(|wins| wins.field == columns[index])?;
                wins.values.iter().position(|winner| winner == value)
            };
            match (rank(&self.values[index]), rank(&value)) {
                (Some(old), Some(new)) if new < old => self.values[index] = value,
                (Some(_), Some(_)) => {}
                _ => self.disagree = Some(index),
            }
        }
    }
}

/// Where the fields of one file's rows come from.
struct PartColumns<'a> {
    by_name: HashMap<&'a str, usize>,
    parse: Vec<(&'a str, usize, &'a Pattern)>,
    set: &'a BTreeMap<String, String>,
    parsed_names: Vec<&'a str>,
}

impl<'a> PartColumns<'a> {
    fn new(rule: &'a TableRule, part: &'a PartRule, header: &'a StringRecord) -> Self {
        let by_name: HashMap<&str, usize> = header.iter().zip(0..).collect();
        let column = |(name, pattern): (&'a String, &'a Pattern)| {
            by_name.get(name.as_str()).map(|&index| (name.as_str(), index, pattern))
        };
        Self {
            parse: rule.parse.iter().filter_map(column).collect(),
            parsed_names: rule
                .parse
                .iter()
                .filter(|(name, _)| by_name.contains_key(name.as_str()))
                .flat_map(|(_, pattern)| pattern.fields())
                .collect(),
            set: &part.set,
            by_name,
        }
    }

    fn has(&self, field: &str) -> bool {
        self.set.contains_key(field) || self.parsed_names.contains(&field) || self.by_name.contains_key(field)
    }

    fn fields(&'a self, record: &'a StringRecord) -> Result<RowFields<'a>, String> {
        let mut parsed = Fields::new();
        for (name, index, pattern) in &self.parse {
            let value = &record[*index];
            match pattern.read(value) {
                Some(fields) => parsed.extend(fields),
                None => return Err(format!("column \"{name}\": expected {pattern}, found \"{value}\"")),
            }
        }
        Ok(RowFields { columns: self, record, parsed })
    }
}

struct RowFields<'a> {
    columns: &'a PartColumns<'a>,
    record: &'a StringRecord,
    parsed: Fields,
}

impl RowFields<'_> {
    fn get(&self, field: &str) -> &str {
        let set = self.columns.set.get(field).or_else(|| self.parsed.get(field)).map(String::as_str);
        set.or_else(|| self.columns.by_name.get(field).map(|&index| &self.record[index])).unwrap_or_default()
    }
}

/// The bytes of a table, unpacked if its name ends in `.gz`.
fn text_of(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")) {
        return Ok(bytes);
    }
    let mut text = Vec::new();
    let unpacked = flate2::read::MultiGzDecoder::new(&bytes[..]).take(MAX_BYTES + 1).read_to_end(&mut text);
    unpacked.map_err(|source| PresetError::Gzip { path: path.into(), source })?;
    if text.len() as u64 > MAX_BYTES {
        return Err(PresetError::TooLarge { path: path.into(), limit: MAX_BYTES }.into());
    }
    Ok(text)
}

/// `a.csv or b.csv`.
pub(crate) fn alternatives(patterns: &[Pattern]) -> String {
    patterns.iter().map(Pattern::to_string).collect::<Vec<_>>().join(" or ")
}
