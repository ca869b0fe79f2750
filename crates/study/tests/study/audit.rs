//! The audit of a data set on disk.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use melo_data::Manifest;
use melo_imaging::Pixels;
use melo_study::{Audit, SHORTCUT_AUC, audit};

/// Noise around `level`, different for each `seed`.
fn write(path: &Path, level: u8, seed: u32) {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let sample = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        level + (state >> 26) as u8
    };
    let pixels = Pixels { width: 40, height: 36, rgb: (0..40 * 36 * 3).map(sample).collect() };
    melo_imaging::write_png(path, &pixels).unwrap();
}

/// 36 images of two classes and as many patients; the level of each from class and index.
fn audited(level: fn(usize, usize) -> u8, csv_tail: &str) -> Audit {
    let folder = tempfile::tempdir().unwrap();
    let mut csv = "path,split,label,patient_id\n".to_owned();
    for index in 0..36 {
        let class = index % 2;
        write(&folder.path().join(format!("{index}.png")), level(class, index), index as u32);
        let split = ["train", "train", "val", "val", "test", "test"][index % 6];
        csv += &format!("{index}.png,{split},{},p{index}\n", ["a", "b"][class]);
    }
    let path = folder.path().join("m.csv");
    std::fs::write(&path, csv + csv_tail).unwrap();
    let calls = AtomicUsize::new(0);
    let manifest = Manifest::read(&path).unwrap();
    let found = audit(&manifest, &|_, _| {
        calls.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(calls.into_inner(), manifest.rows.len());
    found
}

#[test]
fn brightness_that_gives_the_class_away_is_said_plainly() {
    let found = audited(|class, _| if class == 0 { 20 } else { 150 }, "");
    assert_eq!(found.shortcut_auc, Some(1.0));
    assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
    assert!(found.warnings[0].contains("brightness") && found.warnings[0].contains("test AUC of 1.00"));
    assert!(found.shortcut_features.contains("mean brightness") && !found.shortcut_features.contains("width"));
    let counts: Vec<_> =
        found.splits.iter().map(|s| (s.split.as_str(), s.images, s.patients, &s.images_of[..])).collect();
    assert_eq!(
        counts,
        [("train", 12, Some(12), &[6, 6][..]), ("val", 12, Some(12), &[6, 6]), ("test", 12, Some(12), &[6, 6])]
    );
}

#[test]
fn a_set_without_defects_has_no_warning() {
    // Levels in pairs: the same for both classes, so that only noise differs.
    let found = audited(|_, index| (index / 2 * 5) as u8, "");
    assert!(found.shortcut_auc.unwrap() < SHORTCUT_AUC, "{:?}", found.shortcut_auc);
    assert_eq!(found.warnings, Vec::<String>::new());
}

#[test]
fn problems_and_warnings_of_the_check_are_sentences_with_names() {
    let found = audited(|_, index| (index / 2 * 5) as u8, "gone.png,train,a,p0\n1.jpg,test,b,p0\n");
    let text = found.warnings.join("\n");
    assert!(text.contains("line 38, gone.png: cannot be read"), "{text}");
    assert!(text.contains("1 patient in more than one split") && text.contains("p0 (train, test)"), "{text}");
    assert_eq!(found.splits[0].images, 13);
}
