//! Grades and numbers: what a manifest must be told, and what it then refuses.

use std::collections::BTreeMap;
use std::path::PathBuf;

use melo_data::{DEFAULT_FRACTIONS, Error, Labels, Manifest, PackOptions, ReadOptions, Split, check, pack};
use melo_vit::{Preprocess, TaskKind};
use tempfile::TempDir;

use crate::manifest::assert_refused;
use crate::{folder, write_image};

fn options(kind: TaskKind, label_columns: &[&str], grades: &[&str]) -> ReadOptions {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    ReadOptions {
        kind: Some(kind),
        label_columns: owned(label_columns),
        grades: owned(grades),
        ..ReadOptions::default()
    }
}

fn read(csv: &str, options: &ReadOptions) -> Result<Manifest, Error> {
    let folder = folder();
    Manifest::read_with(&written(&folder, csv), options)
}

fn written(folder: &TempDir, csv: &str) -> PathBuf {
    let path = folder.path().join("labels.csv");
    std::fs::write(&path, csv).unwrap();
    path
}

fn labels(manifest: &Manifest) -> Vec<Labels> {
    manifest.rows.iter().map(|row| row.labels.clone()).collect()
}

#[test]
fn numbers_are_read_from_the_columns_that_are_named() {
    let csv = "path,age,bmi,sex\na.png,63.5,27,f\nb.png,-2e1,31.25,m\n";
    let manifest = read(csv, &options(TaskKind::Regression, &["bmi", "age"], &[])).unwrap();
    assert_eq!((manifest.kind, manifest.classes.join(",")), (TaskKind::Regression, "bmi,age".to_owned()));
    assert_eq!(labels(&manifest), [vec![27.0, 63.5], vec![31.25, -20.0]].map(Labels::Values));
    let comma = read("path;label\na.png;63,5\nb.png;7\n", &options(TaskKind::Regression, &[], &[])).unwrap();
    assert_eq!(labels(&comma), [vec![63.5], vec![7.0]].map(Labels::Values));
}

#[test]
fn what_is_no_number_is_named_with_its_line() {
    let numbers = options(TaskKind::Regression, &["age"], &[]);
    for found in ["", "old", "nan", "inf", "63,5 years"] {
        let csv = format!("path,age\na.png,60\nb.png,\"{found}\"\n");
        assert_refused!(read(&csv, &numbers), Error::NoNumber { .. }, "line 3", "\"age\"", found);
    }
    assert_refused!(
        read("path,age\na.png,60\nb.png,61\n", &options(TaskKind::Regression, &["years"], &[])),
        Error::NoColumn { .. },
        "\"years\"",
        "\"age\""
    );
    assert_refused!(
        read("path,age\na.png,60\nb.png,61\n", &options(TaskKind::Regression, &[], &[])),
        Error::NoLabelColumn { .. },
        "age"
    );
    assert_refused!(read("path,age\na.png,60\nb.png,60\n", &numbers), Error::OneClass { .. }, "age 60");
    assert_refused!(
        read("path,age\na.png,60\nb.png,61\na.png,62\n", &numbers),
        Error::DuplicatePath { .. },
        "labelled age 60, here age 62"
    );
}

#[test]
fn grades_are_in_the_order_of_their_numbers_or_as_they_are_named() {
    let csv = "path,label\na,10\nb,2\nc,0\n";
    let by_number = read(csv, &options(TaskKind::Ordinal, &[], &[])).unwrap();
    assert_eq!((by_number.kind, by_number.classes.join(",")), (TaskKind::Ordinal, "0,2,10".to_owned()));
    assert_eq!(labels(&by_number), [2, 1, 0].map(Labels::Single));
    let named = options(TaskKind::Ordinal, &[], &["none", "mild", "moderate", "severe"]);
    let words = read("path,label\na,severe\nb,none\nc,mild\n", &named).unwrap();
    assert_eq!(labels(&words), [3, 0, 1].map(Labels::Single), "a grade that no image has is one all the same");
    let by_grades_alone = ReadOptions { kind: None, ..named.clone() };
    assert_eq!(read("path,label\na,severe\nb,none\n", &by_grades_alone).unwrap().kind, TaskKind::Ordinal);
}

#[test]
fn an_order_that_nobody_said_is_asked_for() {
    let words = "path,label\na,severe\nb,none\n";
    assert_refused!(read(words, &options(TaskKind::Ordinal, &[], &[])), Error::GradesWithoutOrder { .. }, "severe");
    assert_refused!(
        read(words, &options(TaskKind::Ordinal, &[], &["none", "mild"])),
        Error::UnknownClass { .. },
        "severe"
    );
    let findings = "path,edema,nodule\na,1,1\nb,0,1\n";
    assert_refused!(
        read(findings, &options(TaskKind::Ordinal, &[], &[])),
        Error::OtherKind { .. },
        "one grade an image",
        "any number of findings"
    );
    let both = options(TaskKind::Regression, &[], &["none", "mild"]);
    assert_refused!(read("path,label\na,1\nb,2\n", &both), Error::GradesOfAnotherKind { .. }, "grades");
}

#[test]
fn the_digest_tells_kinds_orders_and_numbers_apart() {
    let csv = "path,label\na,1\nb,2\nc,3\n";
    let digest = |csv: &str, options: &ReadOptions| read(csv, options).unwrap().digest();
    let digests = [
        digest(csv, &ReadOptions::default()),
        digest(csv, &options(TaskKind::Ordinal, &[], &[])),
        digest(csv, &options(TaskKind::Ordinal, &[], &["3", "2", "1"])),
        digest(csv, &options(TaskKind::Regression, &[], &[])),
        digest("path,label\na,1\nb,2\nc,3.5\n", &options(TaskKind::Regression, &[], &[])),
    ];
    let distinct: std::collections::BTreeSet<&String> = digests.iter().collect();
    assert_eq!(distinct.len(), digests.len());
    let turned = digest("path,label\nc,3\nb,2.0\na,1\n", &options(TaskKind::Regression, &[], &[]));
    assert_eq!(turned, digests[3], "the order of rows and the way a number is written say nothing");
}

#[test]
fn splits_are_balanced_by_bins_of_the_number() {
    let rows: String = (0..300).map(|index| format!("{index}.png,{}\n", index * 7919 % 300)).collect();
    let mut manifest = read(&format!("path,label\n{rows}"), &options(TaskKind::Regression, &[], &[])).unwrap();
    manifest.assign_splits(1, DEFAULT_FRACTIONS).unwrap();
    let mut fifths: BTreeMap<(Split, usize), usize> = BTreeMap::new();
    for row in &manifest.rows {
        let fifth = row.labels.number(0).unwrap() as usize / 60;
        *fifths.entry((row.split.unwrap(), fifth)).or_default() += 1;
    }
    assert_eq!(fifths.len(), 15);
    assert!((0..5).all(|fifth| fifths[&(Split::Test, fifth)].abs_diff(9) <= 1), "{fifths:?}");
}

#[test]
fn grades_and_numbers_survive_a_pack() {
    for (kind, named) in [(TaskKind::Ordinal, "label"), (TaskKind::Regression, "age")] {
        let folder = folder();
        let rows: String = (0..6usize)
            .map(|index| {
                write_image(&folder.path().join(format!("{index}.png")), 20, 20, index as u32);
                format!("{index}.png,{},{}\n", ["train", "val"][index % 2], index / 2)
            })
            .collect();
        let path = written(&folder, &format!("path,split,{named}\n{rows}"));
        let columns: &[&str] = if kind == TaskKind::Regression { &["age"] } else { &[] };
        let manifest = Manifest::read_with(&path, &options(kind, columns, &[])).unwrap();
        let packed = folder.path().join("packed");
        let pack_options = PackOptions { depth: 8, overwrite: false, leave_out_unreadable: false };
        pack(&manifest, &Preprocess::base(16), &packed, pack_options, &|_, _| ()).unwrap();
        let again = Manifest::read(&packed).unwrap();
        assert_eq!((again.kind, &again.classes, labels(&again)), (kind, &manifest.classes, labels(&manifest)));
        assert_eq!(again.digest(), manifest.digest());
    }
}

#[test]
fn check_tells_the_range_of_a_number() {
    let folder = folder();
    (0..4).for_each(|index| write_image(&folder.path().join(format!("{index}.png")), 40, 40, index));
    let csv = "path,split,age\n0.png,train,30\n1.png,train,70.5\n2.png,train,41\n3.png,val,50\n";
    let manifest = Manifest::read_with(&written(&folder, csv), &options(TaskKind::Regression, &["age"], &[])).unwrap();
    let report = check(&manifest, &|_, _| ());
    let text = report.to_string();
    assert!(text.contains("1 number") && text.contains("age train: 30 to 70.5, median 41"), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["kind"], &json["splits"][0]["spreads"][0]["most"]), (&"regression".into(), &70.5.into()));
}
