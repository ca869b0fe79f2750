//! Laws of cross-validation.

use std::collections::BTreeSet;

use melo_data::{Error, Labels, Manifest, Split};
use melo_vit::TaskKind;

use crate::manifest::assert_refused;
use crate::split::{assert_no_patient_crosses, manifest, multi_label, row, single_label, splits};

fn tested(manifest: &Manifest) -> Vec<String> {
    manifest.split(Split::Test).iter().map(|row| row.name.clone()).collect()
}

#[test]
fn every_image_is_tested_once_and_no_patient_crosses() {
    for whole in [single_label(), multi_label()] {
        for (k, seed) in [(2, 0), (5, 1), (10, 2)] {
            let rounds: Vec<Manifest> = (0..k).map(|fold| whole.with_fold(k, fold, seed).unwrap()).collect();
            let mut names: Vec<String> = rounds.iter().flat_map(tested).collect();
            names.sort_unstable();
            let mut expected: Vec<String> = whole.rows.iter().map(|row| row.name.clone()).collect();
            expected.sort_unstable();
            assert_eq!(names, expected, "{k} folds");
            for round in &rounds {
                assert_no_patient_crosses(round);
                assert_eq!(round.rows.len(), whole.rows.len());
                assert!(round.rows.iter().all(|row| row.split.is_some()));
            }
            let folds = whole.folds(k, seed).unwrap();
            for (fold, round) in rounds.iter().enumerate() {
                assert!(
                    folds.iter().zip(&round.rows).all(|(&of, row)| (of == fold) == (row.split == Some(Split::Test)))
                );
            }
        }
    }
}

#[test]
fn every_class_is_spread_over_folds_and_val() {
    for whole in [single_label(), multi_label()] {
        for fold in 0..5 {
            let round = whole.with_fold(5, fold, 3).unwrap();
            for class in 0..3 {
                let total = whole.rows.iter().filter(|row| row.labels.has(class)).count() as f64;
                let parts = [(Split::Train, 0.8 * 0.85), (Split::Val, 0.8 * 0.15), (Split::Test, 0.2)];
                for (split, fraction) in parts {
                    let found = round.split(split).iter().filter(|row| row.labels.has(class)).count() as f64;
                    // Patients have up to six images: a greedy assignment stays within one patient of its aim, twice.
                    assert!((found - fraction * total).abs() <= 12.0, "class {class}, {split}: {found} of {total}");
                    assert!(found > 0.0, "class {class}, {split}");
                }
            }
        }
    }
}

#[test]
fn folds_depend_on_seed_and_rows_but_not_on_their_order_or_splits() {
    let forward = single_label();
    let mut backward = single_label();
    backward.rows.reverse();
    backward.rows.iter_mut().for_each(|row| row.split = Some(Split::Train));
    for fold in 0..3 {
        let round = forward.with_fold(3, fold, 7).unwrap();
        assert_eq!(splits(&round), splits(&backward.with_fold(3, fold, 7).unwrap()));
        assert_eq!(round.split_digest(), backward.with_fold(3, fold, 7).unwrap().split_digest());
        assert_ne!(splits(&round), splits(&forward.with_fold(3, fold, 8).unwrap()));
    }
    // Pinned: another value here means that published folds change.
    assert_eq!(
        forward.with_fold(3, 0, 7).unwrap().split_digest(),
        "666558977afcd0b0272919ccb4c3dad4768c67e2496a61472fc6d9b35067d27f"
    );
    // Val is another part of the rest in every fold, not the same patients moved about.
    let val = |fold| -> BTreeSet<String> {
        let round = forward.with_fold(3, fold, 7).unwrap();
        round.split(Split::Val).iter().map(|row| row.name.clone()).collect()
    };
    assert_ne!(val(0), val(1));
}

#[test]
fn a_lone_patient_of_a_class_is_tested_once_too() {
    let mut whole = single_label();
    whole.classes.push("rare".into());
    whole.rows.push(row("rare.png".into(), Some(9999), Labels::Single(3), None));
    let rounds: Vec<Manifest> = (0..4).map(|fold| whole.with_fold(4, fold, 0).unwrap()).collect();
    assert_eq!(rounds.iter().filter(|round| round.rows[600].split == Some(Split::Test)).count(), 1);
    // Outside its own fold it is for training.
    assert_eq!(rounds.iter().filter(|round| round.rows[600].split == Some(Split::Train)).count(), 3);
}

#[test]
fn refuses_folds_that_patients_cannot_fill() {
    let few = |patients: usize| {
        let rows =
            (0..12).map(|index| row(format!("{index}"), Some(index % patients), Labels::Single(index % 2), None));
        manifest(2, TaskKind::SingleLabel, rows.collect())
    };
    for k in [0, 1, 5] {
        assert_refused!(few(4).folds(k, 0), Error::Folds { patients: 4, .. }, "2 to 4 folds", &k.to_string());
    }
    assert_refused!(few(4).with_fold(4, 4, 0), Error::Fold { folds: 4, found: 4 }, "below 4", "4");
    assert_refused!(few(2).with_fold(2, 0, 0), Error::EmptyFold { folds: 2, .. }, "fold 0 of 2", "val");
    assert!(few(3).with_fold(3, 0, 0).is_ok());
}

#[test]
fn validation_folds_leave_test_alone_and_validate_every_other_row_once() {
    for mut whole in [single_label(), multi_label()] {
        whole.assign_splits(1, [0.6, 0.2, 0.2]).unwrap();
        let seed = 4;
        let rounds: Vec<Manifest> = (0..5).map(|fold| whole.with_validation_fold(5, fold, seed).unwrap()).collect();
        let names = |manifest: &Manifest, split| -> BTreeSet<String> {
            manifest.split(split).iter().map(|row| row.name.clone()).collect()
        };
        let mut validated = BTreeSet::new();
        for round in &rounds {
            assert_no_patient_crosses(round);
            assert_eq!(names(round, Split::Test), names(&whole, Split::Test));
            let of_fold = names(round, Split::Val);
            assert!(!of_fold.is_empty() && validated.is_disjoint(&of_fold));
            validated.extend(of_fold);
        }
        let seen: BTreeSet<String> = &names(&whole, Split::Train) | &names(&whole, Split::Val);
        assert_eq!(validated, seen);
        let mut backward = whole.clone();
        backward.rows.reverse();
        assert_eq!(
            backward.with_validation_fold(5, 2, seed).unwrap().split_digest(),
            rounds[2].split_digest(),
            "whatever the order of rows"
        );
        assert!(matches!(whole.with_validation_fold(5, 5, seed), Err(Error::Fold { folds: 5, found: 5 })));
        assert!(matches!(whole.with_validation_fold(1, 0, seed), Err(Error::Folds { found: 1, .. })));
    }
}
