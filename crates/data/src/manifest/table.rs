//! A manifest written as a table.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use melo_vit::TaskKind;

use super::labels::{self, Labelled};
use super::{InBag, Labels, Manifest, MaskFile, Row};
use crate::csv_file::CsvFile;
use crate::place::{Finder, same_way};
use crate::roles::{Roles, has_image_column};
use crate::{Error, Note, ReadOptions, Reading, Split, Warning};

/// How many lines a note lists.
const LISTED: usize = 5;

pub(super) fn read(path: &Path, options: &ReadOptions) -> Result<Manifest, Error> {
    let mut file = CsvFile::read(path, &|header| has_image_column(header, options))?;
    let (roles, found) = Roles::of(path, &file, options)?;
    let records = file.take_rows(&roles.needed())?;
    let mut notes = std::mem::take(&mut file.notes);
    notes.extend(found);
    let mut warnings = Vec::new();
    let Labelled { classes, kind, labels, metadata } =
        labels::read(path, &file, &roles, &records, options, &mut notes, &mut warnings)?;
    if !metadata.is_empty() {
        let names = metadata.iter().map(|&column| file.header[column].to_owned()).collect();
        notes.push(Note::Metadata { columns: names });
    }
    warnings.extend(roles.suggestions(&file, &metadata, &records));
    warnings.extend(cut_spaces(&file, &roles, &records));
    if roles.split.is_none() && roles.patient.is_none() {
        notes.push(Note::SplitsByImage);
    }

    let mut rows = Vec::with_capacity(records.len());
    for ((line, record), labels) in records.iter().zip(labels) {
        rows.push(row(path, &roles, record, *line, labels)?);
    }
    let names: Vec<(usize, &str)> = rows.iter().map(|row| (row.line, row.name.as_str())).collect();
    let (places, elsewhere) = Finder::new(path, options.images.as_deref()).places(&names)?;
    rows.iter_mut().zip(places).for_each(|(row, place)| row.path = place);
    notes.extend(elsewhere);
    let masks: Vec<(usize, String)> =
        rows.iter().filter_map(|row| Some((row.line, row.mask.as_ref()?.name.clone()))).collect();
    let masks: Vec<(usize, &str)> = masks.iter().map(|(line, name)| (*line, name.as_str())).collect();
    let (places, elsewhere) = Finder::new(path, options.images.as_deref()).places(&masks)?;
    rows.iter_mut().filter_map(|row| row.mask.as_mut()).zip(places).for_each(|(mask, place)| mask.path = place);
    notes.extend(elsewhere);
    let mut manifest = Manifest {
        path: path.into(),
        classes,
        kind,
        rows: Vec::new(),
        reading: Reading { options: options.clone(), notes, warnings, masks: None },
    };
    manifest.rows = merged(&mut manifest, rows)?;
    Ok(manifest)
}

/// One record; its image is not looked for yet.
fn row(path: &Path, roles: &Roles, record: &StringRecord, line: usize, labels: Labels) -> Result<Row, Error> {
    let name = record[roles.image].to_owned();
    if name.is_empty() {
        return Err(Error::EmptyPath { path: path.into(), line });
    }
    let bag = roles.bag.map(|column| &record[column]);
    if bag.is_some_and(str::is_empty) {
        return Err(Error::EmptyBag { path: path.into(), line });
    }
    let split = roles.split.map(|column| {
        let word = &record[column];
        Split::from_word(word).ok_or_else(|| Error::UnknownSplit { path: path.into(), line, found: word.to_owned() })
    });
    Ok(Row {
        path: PathBuf::new(),
        name,
        split: split.transpose()?,
        labels,
        mask: roles.mask.map(|column| record[column].to_owned()).filter(|name| !name.is_empty()).map(unplaced),
        bag: bag.map(|name| InBag { name: name.to_owned(), place: 0 }),
        patient_id: roles.patient.map(|column| record[column].to_owned()).filter(|id| !id.is_empty()),
        line,
        weight: 1.0,
        packed: None,
    })
}

/// A mask that is not looked for yet.
fn unplaced(name: String) -> MaskFile {
    MaskFile { path: PathBuf::new(), name }
}

/// The rows, one an image: lines that repeat one are dropped, findings of several lines added up.
fn merged(manifest: &mut Manifest, rows: Vec<Row>) -> Result<Vec<Row>, Error> {
    let mut first_of: HashMap<PathBuf, usize> = HashMap::new();
    let mut kept: Vec<Row> = Vec::with_capacity(rows.len());
    let (mut lines, mut adds) = (Vec::new(), false);
    for row in rows {
        let Some(&first) = first_of.get(&row.path) else {
            first_of.insert(row.path.clone(), kept.len());
            kept.push(row);
            continue;
        };
        let first = &mut kept[first];
        let says = if !same_way(&first.name, &row.name) {
            Some(format!("as \"{}\"", first.name))
        } else if first.split != row.split {
            Some("in another split".to_owned())
        } else if first.patient_id != row.patient_id {
            Some("of another patient".to_owned())
        } else if first.bag != row.bag {
            Some("in another bag".to_owned())
        } else if first.mask.as_ref().map(|mask| &mask.path) != row.mask.as_ref().map(|mask| &mask.path) {
            Some("with another mask".to_owned())
        } else if first.labels != row.labels && manifest.kind != TaskKind::MultiLabel {
            Some(format!("labelled {}, here {}", manifest.describe(&first.labels), manifest.describe(&row.labels)))
        } else {
            None
        };
        if let Some(says) = says {
            let (path, line, first, name) = (manifest.path.clone(), row.line, first.line, row.name);
            return Err(Error::DuplicatePath { path, line, first, name, says });
        }
        lines.push(row.line);
        if let (Labels::Multi(all), Labels::Multi(more)) = (&mut first.labels, &row.labels) {
            adds |= all != more;
            all.iter_mut().zip(more).for_each(|(all, more)| *all |= more);
        }
    }
    if !lines.is_empty() {
        let rows = lines.len();
        lines.truncate(LISTED);
        manifest.reading.notes.push(Note::Merged { rows, lines, adds });
    }
    Ok(kept)
}

/// Labels and patients that others are like but for spaces, which were cut.
fn cut_spaces(file: &CsvFile, roles: &Roles, records: &[(usize, StringRecord)]) -> Option<Warning> {
    let columns: Vec<usize> = [roles.label, roles.patient].into_iter().flatten().collect();
    let cut: std::collections::HashSet<&(usize, usize)> =
        file.spaces.iter().filter(|(_, column)| columns.contains(column)).collect();
    let mut lines = Vec::new();
    for &column in &columns {
        let is_cut = |line: usize| cut.contains(&(line, column));
        let plain: std::collections::HashSet<&str> =
            records.iter().filter(|(line, _)| !is_cut(*line)).map(|(_, record)| &record[column]).collect();
        let alike = records.iter().filter(|(line, record)| is_cut(*line) && plain.contains(&record[column]));
        lines.extend(alike.map(|(line, _)| *line));
    }
    lines.sort_unstable();
    lines.dedup();
    (!lines.is_empty()).then_some(Warning::SpacesCut { lines })
}
