//! What the columns of a table say that images show.

use std::collections::BTreeSet;
use std::path::Path;

use csv::StringRecord;
use melo_vit::TaskKind;

use super::{Labels, index_classes};
use crate::csv_file::CsvFile;
use crate::roles::{Roles, asked_for, is_about, label_like};
use crate::{Error, Note, ReadOptions, Warning};

/// Between the findings of one field, as NIH's tables have it.
const BAR: char = '|';

/// Words for a finding that is there, and for one that is not.
const WORDS: [(&str, u8); 12] = [
    ("true", 1),
    ("false", 0),
    ("yes", 1),
    ("no", 0),
    ("y", 1),
    ("n", 0),
    ("positive", 1),
    ("negative", 0),
    ("present", 1),
    ("absent", 0),
    ("pos", 1),
    ("neg", 0),
];
/// What a column of findings may hold that is neither 0 nor 1: reason to refuse it, not to take it for metadata.
const UNCLEAR: [&str; 9] = ["-1", "2", "x", "?", "nan", "na", "n/a", "uncertain", "unknown"];

/// Labels of each row, and what they are called.
pub(super) struct Labelled {
    pub(super) classes: Vec<String>,
    pub(super) kind: TaskKind,
    pub(super) labels: Vec<Labels>,
    /// Columns of neither labels nor a role.
    pub(super) metadata: Vec<usize>,
}

type Rows = [(usize, StringRecord)];

/// The columns that hold labels.
enum Source {
    Class(usize),
    /// Findings between bars.
    List(usize),
    /// 0 or 1 a finding.
    Findings(Vec<usize>),
    Numbers(Vec<usize>),
    /// None: images have masks.
    Masks,
}

pub(super) fn read(
    path: &Path,
    file: &CsvFile,
    roles: &Roles,
    rows: &Rows,
    options: &ReadOptions,
    notes: &mut Vec<Note>,
    warnings: &mut Vec<Warning>,
) -> Result<Labelled, Error> {
    let others = roles.others(file);
    let asked = || options.label_columns.iter().map(|name| asked_for(path, file, name)).collect::<Result<Vec<_>, _>>();
    let source = match (roles.label, options.label_columns.as_slice()) {
        _ if options.kind == Some(TaskKind::Segmentation) => match roles.mask {
            Some(_) => Source::Masks,
            None => return Err(Error::NoMaskColumn { path: path.into(), header: file.names().join(",") }),
        },
        (Some(label), _) if options.kind == Some(TaskKind::Regression) => Source::Numbers(vec![label]),
        (None, []) if options.kind == Some(TaskKind::Regression) => {
            return Err(Error::NoLabelColumn { path: path.into(), header: file.names().join(",") });
        }
        (None, _) if options.kind == Some(TaskKind::Regression) => Source::Numbers(asked()?),
        (Some(label), _) => {
            let listing = rows.iter().filter(|(_, row)| row[label].contains(BAR)).count();
            if listing > 0 {
                warnings.push(Warning::SeveralInOne { column: file.header[label].to_owned(), images: listing });
            }
            Source::Class(label)
        }
        (None, []) => match guessed(path, file, roles, &others, rows, notes) {
            Err(Error::NoLabelColumn { .. }) if roles.mask.is_some() => Source::Masks,
            found => found?,
        },
        (None, [one]) => listed_or_class(asked_for(path, file, one)?, rows),
        (None, _) => Source::Findings(asked()?),
    };
    let taken: Vec<usize> = match &source {
        Source::Class(column) | Source::List(column) => vec![*column],
        Source::Findings(columns) | Source::Numbers(columns) => columns.clone(),
        Source::Masks => Vec::new(),
    };
    let metadata: Vec<usize> = others.into_iter().filter(|column| !taken.contains(column)).collect();
    let (classes, kind, labels) = match source {
        Source::Class(column) => {
            let name = |(line, row): &(usize, StringRecord)| match &row[column] {
                "" => Err(Error::EmptyLabel { path: path.into(), line: *line }),
                name => Ok(name.to_owned()),
            };
            let (classes, labels) = index_classes(rows.iter().map(name).collect::<Result<_, _>>()?);
            (classes, TaskKind::SingleLabel, labels)
        }
        Source::Numbers(columns) => numbers(path, file, &columns, rows)?,
        Source::List(column) => lists(path, &file.header[column], column, rows, notes)?,
        Source::Findings(columns) => {
            findings(path, &file.header, &columns, rows, !options.label_columns.is_empty(), notes)?
        }
        Source::Masks => {
            let has_mask = |row: &StringRecord| roles.mask.is_some_and(|mask| !row[mask].is_empty());
            if let Some((line, _)) = rows.iter().find(|(_, row)| !has_mask(row)) {
                return Err(Error::EmptyMask { path: path.into(), line: *line });
            }
            (options.mask_classes.clone(), TaskKind::Segmentation, vec![Labels::Multi(Vec::new()); rows.len()])
        }
    };
    Ok(Labelled { classes, kind, labels, metadata })
}

/// The columns of labels by their names and values, where none is called `label` and none was asked for.
fn guessed(
    path: &Path,
    file: &CsvFile,
    roles: &Roles,
    others: &[usize],
    rows: &Rows,
    notes: &mut Vec<Note>,
) -> Result<Source, Error> {
    let name = |column: usize| &file.header[column];
    let values = |column: usize| rows.iter().map(move |(_, row)| &row[column]);
    let is_finding = |column: usize| !rows.is_empty() && values(column).all(|value| flag(value).is_some());
    let is_text = |column: usize| !values(column).any(|value| flag(value).is_some() || is_unclear(value));
    let like = label_like(&file.header, others);
    let (findings, rest): (Vec<usize>, Vec<usize>) = others.iter().copied().partition(|&column| is_finding(column));
    // Half-written findings are refused with their line when they are read.
    let doubtful = |&column: &usize| Some(column) != like && !is_about(name(column)) && !is_text(column);
    let mut columns: Vec<usize> = findings.iter().copied().chain(rest.into_iter().filter(doubtful)).collect();
    let others = columns.iter().copied().filter(|&column| Some(column) != like && !is_about(name(column)));
    let others: Vec<String> = others.map(|column| name(column).to_owned()).collect();
    // A table with a column `path` is one of ours, where 0 and 1 are findings whatever their column is called.
    let foreign = !name(roles.image).eq_ignore_ascii_case("path");
    if let Some(label) = like
        && (!findings.contains(&label) || (foreign && others.is_empty()))
    {
        let label_name = name(label).to_owned();
        if !others.is_empty() {
            return Err(Error::TwoReadings { path: path.into(), label: label_name, findings: others });
        }
        notes.push(Note::Column { role: "label".to_owned(), column: label_name });
        return Ok(listed_or_class(label, rows));
    }
    columns.sort_unstable();
    if columns.is_empty() {
        return Err(Error::NoLabelColumn { path: path.into(), header: file.names().join(",") });
    }
    let mut seen = BTreeSet::new();
    if let Some(&twice) = columns.iter().find(|&&column| !seen.insert(name(column))) {
        return Err(Error::DuplicateColumn { path: path.into(), column: name(twice).to_owned() });
    }
    Ok(Source::Findings(columns))
}

fn listed_or_class(column: usize, rows: &Rows) -> Source {
    if rows.iter().any(|(_, row)| row[column].contains(BAR)) { Source::List(column) } else { Source::Class(column) }
}

/// `A|B`, or a word for none.
fn lists(
    path: &Path,
    name: &str,
    column: usize,
    rows: &Rows,
    notes: &mut Vec<Note>,
) -> Result<(Vec<String>, TaskKind, Vec<Labels>), Error> {
    let mut shown: Vec<BTreeSet<&str>> = Vec::with_capacity(rows.len());
    for (line, row) in rows {
        if row[column].is_empty() {
            return Err(Error::EmptyLabel { path: path.into(), line: *line });
        }
        let none = |finding: &&str| !["no finding", "no findings", "none"].contains(&finding.to_lowercase().as_str());
        shown.push(row[column].split(BAR).map(str::trim).filter(|finding| !finding.is_empty()).filter(none).collect());
    }
    let findings: Vec<&str> = shown.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let labels = shown.iter().map(|shown| findings.iter().map(|finding| u8::from(shown.contains(finding))).collect());
    let labels = labels.map(Labels::Multi).collect();
    let classes: Vec<String> = findings.iter().map(|finding| (*finding).to_owned()).collect();
    notes.push(Note::Lists { column: name.to_owned(), findings: classes.clone() });
    Ok((classes, TaskKind::MultiLabel, labels))
}

/// A column a finding; classes where each image shows exactly one, and they were asked for or are written as fractions.
fn findings(
    path: &Path,
    header: &StringRecord,
    columns: &[usize],
    rows: &Rows,
    asked: bool,
    notes: &mut Vec<Note>,
) -> Result<(Vec<String>, TaskKind, Vec<Labels>), Error> {
    let mut labels = Vec::with_capacity(rows.len());
    for (line, row) in rows {
        let value = |&column: &usize| {
            flag(&row[column]).ok_or_else(|| Error::NotBinary {
                path: path.into(),
                line: *line,
                column: header[column].to_owned(),
                found: row[column].to_owned(),
            })
        };
        labels.push(columns.iter().map(value).collect::<Result<Vec<u8>, _>>()?);
    }
    let name = |&column: &usize| header[column].to_owned();
    let names: Vec<String> = columns.iter().map(name).collect();
    let of_words = |&&column: &&usize| rows.iter().any(|(_, row)| number(&row[column]).is_none());
    let words: Vec<String> = columns.iter().filter(of_words).map(name).collect();
    if !words.is_empty() {
        notes.push(Note::Words { columns: words });
    }
    let exactly_one = labels.iter().all(|shown| shown.iter().filter(|&&flag| flag == 1).count() == 1);
    if columns.len() < 2 || rows.is_empty() || !exactly_one {
        return Ok((names, TaskKind::MultiLabel, labels.into_iter().map(Labels::Multi).collect()));
    }
    let fractions = rows.iter().all(|(_, row)| columns.iter().all(|&column| row[column].contains(['.', ','])));
    let as_classes = asked || fractions;
    let never = |&(index, _): &(usize, &String)| labels.iter().all(|shown| shown[index] == 0);
    let never = names.iter().enumerate().filter(never).map(|(_, name)| name.clone()).collect();
    notes.push(Note::ExactlyOne { columns: names.clone(), never, as_classes });
    if !as_classes {
        return Ok((names, TaskKind::MultiLabel, labels.into_iter().map(Labels::Multi).collect()));
    }
    let shown = |flags: &Vec<u8>| names[flags.iter().position(|&flag| flag == 1).unwrap_or(0)].clone();
    let (classes, labels) = index_classes(labels.iter().map(shown).collect());
    Ok((classes, TaskKind::SingleLabel, labels))
}

/// A column a number.
fn numbers(
    path: &Path,
    file: &CsvFile,
    columns: &[usize],
    rows: &Rows,
) -> Result<(Vec<String>, TaskKind, Vec<Labels>), Error> {
    let mut labels = Vec::with_capacity(rows.len());
    for (line, row) in rows {
        let value = |&column: &usize| {
            let found = &row[column];
            let written = if file.decimal_comma { found.replacen(',', ".", 1) } else { found.to_owned() };
            written.trim().parse().ok().filter(|value: &f32| value.is_finite()).ok_or_else(|| Error::NoNumber {
                path: path.into(),
                line: *line,
                column: file.header[column].to_owned(),
                found: found.to_owned(),
            })
        };
        labels.push(Labels::Values(columns.iter().map(value).collect::<Result<_, _>>()?));
    }
    let names = columns.iter().map(|&column| file.header[column].to_owned()).collect();
    Ok((names, TaskKind::Regression, labels))
}

/// 0 or 1, also written as a fraction (`1.0`, `1,0`) or as a word.
fn flag(value: &str) -> Option<u8> {
    let word = || WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(value)).map(|&(_, flag)| flag);
    number(value).or_else(word)
}

fn number(value: &str) -> Option<u8> {
    let plain = value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b','));
    match value.replace(',', ".").parse::<f64>() {
        Ok(number) if plain && number == 0.0 => Some(0),
        Ok(number) if plain && number == 1.0 => Some(1),
        _ => None,
    }
}

fn is_unclear(value: &str) -> bool {
    UNCLEAR.iter().any(|word| word.eq_ignore_ascii_case(value))
}
