//! A preset meets a folder: images are found, joined with their rows, and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use melo_vit::TaskKind;

use super::arrays;
use super::labels::{Judge, Judged};
use super::pattern::{Fields, Image, Pattern};
use super::report::{ClassFound, Count, PresetReport, Remark, RemarkKind, SplitFound, TableUse};
use super::schema::{LabelRule, Schema, fill};
use super::tables::{Found, Table, Wins, alternatives};
use super::tree::Tree;
use super::{Policy, PresetError};
use crate::manifest::index_classes;
use crate::{Error, Labels, Manifest, Reading, Row, Split};

/// A manifest made by a [`Preset`](super::Preset), and what was found on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Images with labels; names relative to the folder. May be of a single class, or empty: see the report.
    pub manifest: Manifest,
    /// Counts, problems and warnings.
    pub report: PresetReport,
}

/// Applies the preset `name` to `folder`.
pub(super) fn apply(name: &str, schema: &Schema, folder: &Path, policy: Option<Policy>) -> Result<Applied, Error> {
    let judge = Judge::new(name, &schema.labels, policy)?;
    let tree = Tree::of(folder)?;
    let needed = schema.needed();
    let wins = match &schema.labels {
        LabelRule::Class { field, wins, .. } => Some(Wins { field, values: wins }),
        _ => None,
    };
    let read = |rule| Table::read(name, rule, &tree, &needed, wins);
    let tables: Vec<Table> = schema.tables.iter().map(read).collect::<Result<_, _>>()?;
    let mut remarks = Remarks::default();
    let (images, array) = find_images(name, schema, &tree, &mut remarks)?;
    check_fields(name, schema, &tables, &images, &needed)?;

    let mut joined = Joined::default();
    for image in images {
        joined.add(schema, &judge, &tables, image, &mut remarks);
    }
    joined.refuse_unjoined(folder, &tables)?;
    for table in &tables {
        remarks.all(RemarkKind::RowWithoutImage, &table.name(), table.unused());
        remarks.all(RemarkKind::BrokenRow, "", table.broken.clone());
    }
    let mut files: Vec<TableUse> = tables.into_iter().flat_map(|table| table.parts).collect();
    files.extend(array);
    let manifest = joined.manifest(folder, &judge);
    let report = report((name, schema), &manifest, files, &judge, remarks);
    Ok(Applied { manifest, report })
}

/// The images in order, without copies; and the archive that they are in, if they are in one.
fn find_images(
    preset: &str,
    schema: &Schema,
    tree: &Tree,
    remarks: &mut Remarks,
) -> Result<(Vec<Image>, Option<TableUse>), Error> {
    let no_images = |patterns: &[Pattern]| PresetError::NoImages {
        folder: tree.root.clone(),
        preset: preset.to_owned(),
        wanted: alternatives(patterns),
        found: tree.contents(),
    };
    if let Some(rule) = &schema.arrays {
        let file = tree.find(&rule.files)?.ok_or_else(|| no_images(&rule.files))?;
        let images = arrays::images(&tree.root.join(file), file, &rule.columns)?;
        let archive = TableUse { file: file.to_owned(), rows: images.len() };
        return Ok((images, Some(archive)));
    }
    let Some(rule) = &schema.images else { unreachable!("a checked schema has images or arrays") };
    let mut images = Vec::new();
    let mut first_of: BTreeMap<Fields, String> = BTreeMap::new();
    for file in &tree.files {
        let excluded = || rule.exclude.iter().any(|pattern| pattern.read(file).is_some());
        let Some(fields) = rule.files.iter().find_map(|pattern| pattern.read(file)).filter(|_| !excluded()) else {
            continue;
        };
        match first_of.get(&fields) {
            Some(first) => remarks.one(RemarkKind::Copy, "", || format!("{file} (of {first})")),
            None => {
                first_of.insert(fields.clone(), file.clone());
                images.push(Image { name: file.clone(), fields });
            }
        }
    }
    if images.is_empty() { Err(no_images(&rule.files).into()) } else { Ok((images, None)) }
}

/// Refuses a preset that asks for a field which nothing gives.
fn check_fields(
    preset: &str,
    schema: &Schema,
    tables: &[Table],
    images: &[Image],
    needed: &[&str],
) -> Result<(), Error> {
    let by_pattern = |field: &str| match &schema.images {
        Some(rule) => rule.files.iter().any(|pattern| pattern.fields().any(|name| name == field)),
        None => images.iter().any(|image| image.fields.contains_key(field)),
    };
    let known = |field: &str| by_pattern(field) || tables.iter().any(|table| table.has(field));
    match needed.iter().find(|field| !known(field)) {
        Some(field) => {
            let tables = tables.iter().map(Table::name).collect::<Vec<_>>().join(", ");
            Err(PresetError::Field { preset: preset.to_owned(), field: (*field).to_owned(), tables }.into())
        }
        None => Ok(()),
    }
}

/// Images with their labels, so far.
#[derive(Default)]
struct Joined {
    rows: Vec<(String, Option<Split>, Judged, Option<String>)>,
    images: usize,
    /// Images that found their row, of each table; and the fields of one that did not.
    found_in: Vec<usize>,
    missed: Vec<Fields>,
}

impl Joined {
    fn add(&mut self, schema: &Schema, judge: &Judge, tables: &[Table], image: Image, remarks: &mut Remarks) {
        let Image { name, fields } = image;
        self.images += 1;
        self.found_in.resize(tables.len(), 0);
        self.missed.resize(tables.len(), Fields::new());
        let mut rows: Vec<Found> = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let row = table.row(|field| value(&fields, &rows, field));
            match row {
                Some(row) => {
                    self.found_in[index] += 1;
                    if let Some(column) = row.disagreement() {
                        return remarks.one(RemarkKind::RowsDisagree, column, || name);
                    }
                    rows.push(row);
                }
                None if table.rule.optional => {}
                None => {
                    self.missed[index].clone_from(&fields);
                    return remarks.one(RemarkKind::ImageWithoutRow, &table.name(), || name);
                }
            }
        }
        let field = |name: &str| value(&fields, &rows, name).unwrap_or_default();
        let split = match &schema.split {
            None => None,
            Some(rule) => {
                let word = field(&rule.field);
                match rule.words.get(word) {
                    Some(&split) => Some(split),
                    None if rule.leave_out.iter().any(|left_out| left_out == word) => {
                        return remarks.one(RemarkKind::LeftOut, &format!("{} \"{word}\"", rule.field), || name);
                    }
                    None => {
                        return remarks.one(RemarkKind::UnknownSplit, &format!("{} \"{word}\"", rule.field), || name);
                    }
                }
            }
        };
        let (judged, uncertain) = judge.judge(field);
        if uncertain {
            remarks.one(RemarkKind::Uncertain, judge.policy.map_or("", Policy::word), || name.clone());
        }
        match judged {
            Judged::LeftOut(value) => return remarks.one(RemarkKind::LeftOut, &value, || name),
            Judged::Unknown(value) => return remarks.one(RemarkKind::UnknownLabel, &value, || name),
            Judged::Class(_) | Judged::Findings(_) => {}
        }
        let patient = schema.patient.as_ref();
        let patient =
            patient.and_then(|template| fill(template, |name| value(&fields, &rows, name).map(str::to_owned)));
        self.rows.push((name, split, judged, patient));
    }

    /// Tables in which no image found its row were understood wrongly, or belong to other images.
    fn refuse_unjoined(&self, folder: &Path, tables: &[Table]) -> Result<(), PresetError> {
        for (index, table) in tables.iter().enumerate().filter(|(_, table)| !table.rule.optional) {
            let missed = &self.missed[index];
            if self.found_in[index] > 0 || missed.is_empty() {
                continue;
            }
            let key = table.rule.key.keys().filter_map(|field| missed.get(field));
            return Err(PresetError::NothingJoined {
                folder: folder.into(),

                images: self.images,
                table: table.name(),
                image: key.cloned().collect::<Vec<_>>().join(" "),
                row: table.some_key(),
            });
        }
        Ok(())
    }

    fn manifest(self, folder: &Path, judge: &Judge) -> Manifest {
        let mut rows = Vec::with_capacity(self.rows.len());
        let mut names = Vec::new();
        for (name, split, judged, patient_id) in self.rows {
            let labels = match judged {
                Judged::Findings(findings) => Labels::Multi(findings),
                Judged::Class(class) => {
                    names.push(class);
                    Labels::Single(0)
                }
                Judged::LeftOut(_) | Judged::Unknown(_) => unreachable!("such images are not added"),
            };
            rows.push(Row {
                path: folder.join(&name),
                name,
                split,
                labels,
                mask: None,
                bag: None,
                patient_id,
                line: 0,
                weight: 1.0,
                packed: None,
            });
        }
        let classes = match judge.findings() {
            Some(findings) => findings.to_vec(),
            None => {
                let (classes, labels) = index_classes(names);
                rows.iter_mut().zip(labels).for_each(|(row, labels)| row.labels = labels);
                classes
            }
        };
        let kind = if judge.findings().is_some() { TaskKind::MultiLabel } else { TaskKind::SingleLabel };
        Manifest { path: folder.into(), classes, kind, rows, reading: Reading::default() }
    }
}

/// What the image's name, or else one of its rows, says of `field`.
fn value<'v>(fields: &'v Fields, rows: &[Found<'v>], field: &str) -> Option<&'v str> {
    fields.get(field).map(String::as_str).or_else(|| rows.iter().find_map(|row| row.get(field)))
}

/// Remarks, gathered by kind and subject.
#[derive(Default)]
struct Remarks(BTreeMap<(RemarkKind, String), (usize, Vec<String>)>);

impl Remarks {
    fn one(&mut self, kind: RemarkKind, subject: &str, example: impl FnOnce() -> String) {
        let (count, examples) = self.0.entry((kind, subject.to_owned())).or_default();
        *count += 1;
        if examples.len() < Remark::EXAMPLES {
            examples.push(example());
        }
    }

    fn all(&mut self, kind: RemarkKind, subject: &str, examples: Vec<String>) {
        examples.into_iter().for_each(|example| self.one(kind, subject, || example));
    }
}

fn report(
    (name, schema): (&str, &Schema),
    manifest: &Manifest,
    tables: Vec<TableUse>,
    judge: &Judge,
    mut remarks: Remarks,
) -> PresetReport {
    let Manifest { rows, classes, .. } = manifest;
    let expect = schema.expect;
    let patients: BTreeSet<&str> = rows.iter().filter_map(|row| row.patient_id.as_deref()).collect();
    let count = |split: Split| rows.iter().filter(|row| row.split == Some(split)).count();
    let expected = [(Split::Train, expect.train), (Split::Val, expect.val), (Split::Test, expect.test)];
    let splits =
        expected.map(|(split, expected)| SplitFound { split, images: Count { found: count(split), expected } });
    let classes_found = classes.iter().zip(0..).map(|(class, index)| ClassFound {
        class: class.clone(),
        images: rows.iter().filter(|row| row.labels.has(index)).count(),
    });
    if rows.first().is_none_or(|first| rows.iter().all(|row| row.labels == first.labels)) {
        remarks.one(RemarkKind::OneClass, "", || classes.join(", "));
    }
    let mut splits_of: BTreeMap<&str, BTreeSet<Split>> = BTreeMap::new();
    for row in rows {
        if let (Some(patient), Some(split)) = (&row.patient_id, row.split) {
            splits_of.entry(patient).or_default().insert(split);
        }
    }
    let across = splits_of.into_iter().filter(|(_, splits)| splits.len() > 1);
    remarks.all(RemarkKind::PatientAcrossSplits, "", across.map(|(patient, _)| patient.to_owned()).collect());
    let remark = |((kind, subject), (count, examples))| Remark { kind, subject, count, examples };
    let (problems, warnings) = remarks.0.into_iter().map(remark).partition(|remark: &Remark| remark.kind.is_problem());
    PresetReport {
        preset: name.to_owned(),
        title: schema.title.clone(),
        folder: manifest.path.clone(),
        tables,
        policy: judge.policy,
        images: Count { found: rows.len(), expected: expect.images },
        patients: Count { found: patients.len(), expected: expect.patients },
        splits: splits.into_iter().filter(|split| split.images != Count::default()).collect(),
        classes: classes_found.collect(),
        problems,
        warnings,
    }
}
