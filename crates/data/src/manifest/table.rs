//! A manifest written as a CSV.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use csv::StringRecord;

use super::{Labels, Manifest, Row, index_classes};
use crate::csv_file::CsvFile;
use crate::{Error, Split};

/// Which column is what.
struct Columns {
    image: usize,
    split: Option<usize>,
    patient_id: Option<usize>,
    label: LabelColumns,
}

enum LabelColumns {
    /// The column `label`.
    Single(usize),
    /// One column a finding, with its name.
    Multi(Vec<(usize, String)>),
}

pub(super) fn read(path: &Path) -> Result<Manifest, Error> {
    let file = CsvFile::read(path)?;
    let columns = Columns::of(path, &file.header)?;
    let mut rows = Vec::new();
    let mut names = Vec::new();
    let mut first_lines: HashMap<PathBuf, usize> = HashMap::new();
    for record in file.records() {
        let (line, record) = record?;
        let mut row = columns.row(path, record, line)?;
        if let Some(first) = first_lines.insert(row.path.clone(), line) {
            return Err(Error::DuplicatePath { path: path.into(), line, first, name: row.name });
        }
        match &columns.label {
            LabelColumns::Single(label) => names.push(class_name(path, &record[*label], line)?),
            LabelColumns::Multi(columns) => row.labels = findings(path, record, line, columns)?,
        }
        rows.push(row);
    }
    let (classes, multi_label) = match columns.label {
        LabelColumns::Multi(columns) => (columns.into_iter().map(|(_, name)| name).collect(), true),
        LabelColumns::Single(_) => {
            let (classes, labels) = index_classes(names);
            rows.iter_mut().zip(labels).for_each(|(row, labels)| row.labels = labels);
            (classes, false)
        }
    };
    Ok(Manifest { path: path.into(), classes, multi_label, rows })
}

/// `name` in lower case if it is a column with a meaning of its own.
fn reserved(name: &str) -> Option<&'static str> {
    ["path", "split", "label", "patient_id"].into_iter().find(|reserved| reserved.eq_ignore_ascii_case(name))
}

impl Columns {
    fn of(path: &Path, header: &StringRecord) -> Result<Self, Error> {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut findings = Vec::new();
        for (index, name) in header.iter().enumerate() {
            if name.is_empty() {
                return Err(Error::UnnamedColumn { path: path.into(), column: index + 1 });
            }
            if reserved(name).is_none() {
                findings.push((index, name.to_owned()));
            }
            let name = reserved(name).unwrap_or(name);
            if seen.insert(name, index).is_some() {
                return Err(Error::DuplicateColumn { path: path.into(), column: name.to_owned() });
            }
        }
        let written = || header.iter().collect::<Vec<_>>().join(",");
        let Some(&image) = seen.get("path") else {
            return Err(Error::NoPathColumn { path: path.into(), header: written() });
        };
        let label = match (seen.get("label"), findings.first()) {
            (Some(&label), None) => LabelColumns::Single(label),
            (None, Some(_)) => LabelColumns::Multi(findings),
            (None, None) => return Err(Error::NoLabelColumn { path: path.into(), header: written() }),
            (Some(_), Some((_, column))) => {
                return Err(Error::ColumnBesideLabel { path: path.into(), column: column.clone() });
            }
        };
        let (split, patient_id) = (seen.get("split").copied(), seen.get("patient_id").copied());
        Ok(Self { image, split, patient_id, label })
    }

    /// Everything but the labels of one record.
    fn row(&self, path: &Path, record: &StringRecord, line: usize) -> Result<Row, Error> {
        let name = record[self.image].to_owned();
        if name.is_empty() {
            return Err(Error::EmptyPath { path: path.into(), line });
        }
        let split = self.split.map(|column| {
            let word = &record[column];
            Split::from_word(word).ok_or_else(|| Error::UnknownSplit {
                path: path.into(),
                line,
                found: word.to_owned(),
            })
        });
        Ok(Row {
            path: path.parent().unwrap_or(Path::new("")).join(&name),
            name,
            split: split.transpose()?,
            labels: Labels::Single(0),
            patient_id: self.patient_id.map(|column| record[column].to_owned()).filter(|id| !id.is_empty()),
            line,
            packed: None,
        })
    }
}

fn class_name(path: &Path, label: &str, line: usize) -> Result<String, Error> {
    if label.is_empty() { Err(Error::EmptyLabel { path: path.into(), line }) } else { Ok(label.to_owned()) }
}

fn findings(path: &Path, record: &StringRecord, line: usize, columns: &[(usize, String)]) -> Result<Labels, Error> {
    let values = columns.iter().map(|(column, name)| match &record[*column] {
        "0" => Ok(0),
        "1" => Ok(1),
        found => Err(Error::NotBinary { path: path.into(), line, column: name.clone(), found: found.to_owned() }),
    });
    Ok(Labels::Multi(values.collect::<Result<_, _>>()?))
}
