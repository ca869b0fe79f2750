//! What of a manifest is probably not meant as it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use melo_vit::TaskKind;

use crate::alike::{fold_class, fold_id, is_date, is_garbled, is_long_number, is_missing, is_nobody, is_rounded};
use crate::report::PatientAcross;
use crate::roles::is_about;
use crate::{Manifest, Place, Row, Spelling, Split, Warning};

/// How many rows of each text are named.
const NAMED: usize = 5;

/// What is improbable about the classes and patients of `manifest`.
pub(crate) fn improbable(manifest: &Manifest) -> Vec<Warning> {
    let numbers = manifest.kind == TaskKind::Regression;
    let named = if numbers { &[][..] } else { &manifest.classes };
    let classes: Vec<Spelling> = named
        .iter()
        .zip(0..)
        .map(|(class, index)| spelling(class, manifest.rows.iter().filter(|row| row.labels.has(index))))
        .collect();
    let mut rows_of: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &manifest.rows {
        if let Some(patient) = &row.patient_id {
            rows_of.entry(patient).or_default().push(row);
        }
    }
    let patients: Vec<Spelling> = rows_of.into_iter().map(|(id, rows)| spelling(id, rows.into_iter())).collect();

    let mut images_of: BTreeMap<&Path, Vec<&Row>> = BTreeMap::new();
    for row in &manifest.rows {
        if let Some(mask) = &row.mask {
            images_of.entry(&mask.path).or_default().push(row);
        }
    }
    let shared = images_of.into_values().filter(|rows| rows.len() > 1);
    let name = |rows: &[&Row]| rows[0].mask.as_ref().map(|mask| mask.name.clone()).unwrap_or_default();
    let shared = shared.map(|rows| spelling(&name(&rows), rows.into_iter())).collect();

    let those = |all: &[Spelling], which: &dyn Fn(&str) -> bool| -> Vec<Spelling> {
        all.iter().filter(|spelling| which(&spelling.text)).cloned().collect()
    };
    let single = manifest.kind.is_one_class();
    let across = patients_across_splits(manifest);
    let some =
        |found: Vec<Spelling>, warning: fn(Vec<Spelling>) -> Warning| (!found.is_empty()).then(|| warning(found));
    let alone = classes.iter().filter(|class| class.images == 1).cloned().collect();
    let groups = |all: &[Spelling], fold: fn(&str) -> String, warning: fn(Vec<Vec<Spelling>>) -> Warning| {
        let groups = alike(all, fold);
        (!groups.is_empty()).then(|| warning(groups))
    };
    let about = |name: &str| !single && is_about(name);
    [
        some(those(&classes, &is_missing), |classes| Warning::MissingAsClass { classes }),
        groups(&classes, fold_class, |groups| Warning::ClassesAlike { groups }),
        some(those(&classes, &about), |columns| Warning::MetadataAsFinding { columns }),
        some(those(&classes, &|name| single && is_date(name)), |classes| Warning::DatesAsClasses { classes }),
        some(those(&classes, &|name| single && is_long_number(name)), |classes| Warning::NumbersAsClasses { classes }),
        some(shared, |masks| Warning::MaskOfSeveral { masks }),
        some(alone, |classes| Warning::SingleImage { classes }),
        groups(&patients, fold_id, |groups| Warning::PatientsAlike { groups }),
        some(nobody(&patients), |patients| Warning::NobodyAsPatient { patients }),
        some(those(&patients, &is_rounded), |patients| Warning::PatientsRounded { patients }),
        some(those(&[classes, patients].concat(), &is_garbled), |texts| Warning::Garbled { texts }),
        (!across.is_empty()).then_some(Warning::PatientsAcrossSplits { patients: across }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Ids of several images that name no patient; one image alone loses nothing.
fn nobody(patients: &[Spelling]) -> Vec<Spelling> {
    patients.iter().filter(|patient| patient.images > 1 && is_nobody(&patient.text)).cloned().collect()
}

fn spelling<'a>(text: &str, rows: impl Iterator<Item = &'a Row>) -> Spelling {
    let mut found = Spelling { text: text.to_owned(), images: 0, rows: Vec::new() };
    for row in rows {
        found.images += 1;
        if found.rows.len() < NAMED {
            found.rows.push(Place { name: row.name.clone(), line: row.line });
        }
    }
    found
}

/// Texts that are one when they are folded, in order of their first.
fn alike(all: &[Spelling], fold: fn(&str) -> String) -> Vec<Vec<Spelling>> {
    let mut groups: BTreeMap<String, Vec<Spelling>> = BTreeMap::new();
    for spelling in all {
        groups.entry(fold(&spelling.text)).or_default().push(spelling.clone());
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}

/// Patients whose images are in more than one split.
fn patients_across_splits(manifest: &Manifest) -> Vec<PatientAcross> {
    let mut splits_of: BTreeMap<&str, BTreeSet<Split>> = BTreeMap::new();
    for row in &manifest.rows {
        if let (Some(patient), Some(split)) = (&row.patient_id, row.split) {
            splits_of.entry(patient).or_default().insert(split);
        }
    }
    let across = splits_of.into_iter().filter(|(_, splits)| splits.len() > 1);
    across
        .map(|(patient, splits)| PatientAcross { patient_id: patient.to_owned(), splits: splits.into_iter().collect() })
        .collect()
}
