//! Masks of a manifest: which column they are, where they lie, what is said of them, and what training reads.

use std::sync::Arc;

use melo_data::{
    Augment, Cache, Dataset, EpochAugment, Error, Labels, Manifest, Note, PackError, PackOptions, Problem, ReadOptions,
    Split, Warning, check, open_splits, pack,
};
use melo_imaging::{IGNORE, Mask, MaskReading, Pixels, write_mask_png, write_png};
use melo_vit::{CropMode, ImageSource, Preprocess, TaskKind};
use tempfile::TempDir;

use crate::{folder, plain, write_image};

const SIZE: usize = 32;

fn spec() -> Preprocess {
    plain(SIZE, CropMode::Center)
}

/// A mask of blobs that depend on `seed`.
fn mask(width: usize, height: usize, seed: usize) -> Mask {
    let label = |at: usize| u8::from((at % width / 8 + at / width / 8 * 3 + seed).is_multiple_of(3 + seed));
    Mask { width, height, labels: (0..width * height).map(label).collect() }
}

/// Images `1.png` to `4.png` of 40 x 36 with masks of their names in `masks/`, and a table.
fn made(csv: &str) -> TempDir {
    let folder = folder();
    std::fs::create_dir(folder.path().join("masks")).unwrap();
    for seed in 1..5 {
        write_image(&folder.path().join(format!("{seed}.png")), 40, 36, seed);
        let path = folder.path().join(format!("masks/{seed}.png"));
        write_mask_png(&path, &mask(40, 36, seed as usize)).unwrap();
    }
    std::fs::write(folder.path().join("m.csv"), csv).unwrap();
    folder
}

fn read(folder: &TempDir) -> Manifest {
    Manifest::read(&folder.path().join("m.csv")).unwrap()
}

/// The manifest whose masks are read as of so many classes.
fn with_masks(mut manifest: Manifest, classes: usize) -> Manifest {
    manifest.reading.masks = Some(MaskReading::of_classes(classes));
    manifest
}

const GOOD: &str = "path,mask,split\n1.png,masks/1.png,train\n2.png,masks/2.png,train\n3.png,masks/3.png,val\n4.png,masks/4.png,test\n";

#[test]
fn a_table_of_masks_needs_no_label() {
    let folder = made(GOOD);
    let manifest = read(&folder);
    assert!(manifest.classes.is_empty() && manifest.has_masks());
    assert!(manifest.rows.iter().all(|row| row.labels == Labels::Multi(Vec::new())));
    let mask = manifest.rows[2].mask.as_ref().unwrap();
    assert_eq!((mask.name.as_str(), &mask.path), ("masks/3.png", &folder.path().join("masks/3.png")));
    let report = check(&manifest, &|_, _| ());
    assert_eq!(report.problems, []);
    assert!(!report.warnings.iter().any(|warning| matches!(warning, Warning::MasksAcrossSplits { .. })));
}

#[test]
fn labels_and_masks_stand_side_by_side() {
    let folder = made("image,Mask_Path,label\n1.png,masks/1.png,a\n2.png,,b\n");
    let manifest = read(&folder);
    assert_eq!(manifest.classes, ["a", "b"]);
    assert!(manifest.rows[0].mask.is_some() && manifest.rows[1].mask.is_none());
    let notes = &manifest.reading.notes;
    assert!(
        notes
            .iter()
            .any(|note| matches!(note, Note::Column { role, column } if role == "mask" && column == "Mask_Path"))
    );
}

#[test]
fn a_column_called_mask_that_names_no_files_stays_what_it_was() {
    let folder = made("path,mask,edema\n1.png,0,1\n2.png,1,0\n");
    let manifest = read(&folder);
    assert_eq!(manifest.classes, ["mask", "edema"]);
    assert!(!manifest.has_masks());
    let folder = made("path,mask,label\n1.png,surgical,a\n2.png,none,b\n");
    let manifest = read(&folder);
    assert!(!manifest.has_masks());
    assert!(manifest.reading.notes.contains(&Note::Metadata { columns: vec!["mask".into()] }));
    // Unless it is asked for.
    let asked = ReadOptions { mask_column: Some("mask".into()), ..ReadOptions::default() };
    assert!(Manifest::read_with(&folder.path().join("m.csv"), &asked).unwrap().has_masks());
    let wrong = ReadOptions { mask_column: Some("outline".into()), ..ReadOptions::default() };
    let error = Manifest::read_with(&folder.path().join("m.csv"), &wrong).unwrap_err();
    assert!(matches!(error, Error::NoColumn { .. }), "{error}");
}

#[test]
fn digests_cover_masks_and_stay_where_there_are_none() {
    // Of the manifest before there were masks.
    let folder = made("path,split,label\n1.png,train,a\n2.png,val,b\n");
    assert_eq!(read(&folder).digest(), "5b131cb200be42ac950d67b1ed31bcf1c8fe3495d3b3db85d9b47dfb1c5c02f5");
    assert_eq!(read(&folder).mask_digest().unwrap(), None);
    let folder = made(GOOD);
    let (digest, pixels) = (read(&folder).digest(), read(&folder).mask_digest().unwrap());
    std::fs::copy(folder.path().join("masks/2.png"), folder.path().join("masks/1.png")).unwrap();
    assert_eq!(read(&folder).digest(), digest);
    assert_ne!(read(&folder).mask_digest().unwrap(), pixels);
    let other = made(&GOOD.replace("1.png,masks/1.png", "1.png,masks/4.png"));
    assert_ne!(read(&other).digest(), digest);
}

#[test]
fn a_line_without_its_mask_is_named() {
    let folder = made("path,mask\n1.png,masks/1.png\n2.png,\n");
    let error = Manifest::read(&folder.path().join("m.csv")).unwrap_err();
    assert!(matches!(error, Error::EmptyMask { line: 3, .. }), "{error}");
}

#[test]
fn masks_that_are_missing_or_wrong_are_all_told() {
    let folder = made(GOOD);
    std::fs::remove_file(folder.path().join("masks/1.png")).unwrap();
    write_mask_png(&folder.path().join("masks/2.png"), &mask(36, 40, 2)).unwrap();
    let coloured = Pixels { width: 40, height: 36, rgb: (0..40 * 36 * 3).map(|at| at as u8).collect() };
    write_png(&folder.path().join("masks/4.png"), &coloured).unwrap();
    let report = check(&read(&folder), &|_, _| ());
    let found: Vec<(&str, usize, &str)> = report
        .problems
        .iter()
        .filter_map(|problem| match problem {
            Problem::Mask { mask, line, reason, .. } => Some((mask.as_str(), *line, reason.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(
        found.iter().map(|(mask, line, _)| (*mask, *line)).collect::<Vec<_>>(),
        [("masks/1.png", 2), ("masks/2.png", 3), ("masks/4.png", 5)]
    );
    assert_eq!(found[1].2, "the mask is 36 x 40, its image 40 x 36");
    assert!(found[2].2.contains("colours"), "{}", found[2].2);

    let cache = Arc::new(Cache::new(1 << 24));
    let manifest = with_masks(read(&folder), 2);
    let opened = open_splits(&manifest, &Split::ALL, &spec(), &cache, &|_, _| ());
    let Err(Error::Unreadable { broken, images: 4, .. }) = opened else { panic!("{opened:?}") };
    assert_eq!(broken.iter().map(|broken| broken.line).collect::<Vec<_>>(), [2, 3, 5]);
    assert!(broken[0].error.to_string().contains("masks"), "{}", broken[0].error);
}

#[test]
fn a_value_that_is_no_class_is_told_with_its_file() {
    let folder = made(GOOD);
    let opened = |classes| {
        let cache = Arc::new(Cache::new(0));
        open_splits(&with_masks(read(&folder), classes), &[Split::Train], &spec(), &cache, &|_, _| ())
    };
    assert!(opened(2).is_ok());
    let Err(Error::Unreadable { broken, .. }) = opened(1) else { panic!("refused") };
    assert_eq!(broken.len(), 2);
    let said = broken[0].error.to_string();
    assert!(said.contains("1.png") && said.contains("value 1 at column"), "{said}");
}

#[test]
fn masks_that_leak_across_splits_are_told() {
    let folder = made(GOOD);
    std::fs::copy(folder.path().join("masks/1.png"), folder.path().join("masks/4.png")).unwrap();
    let report = check(&read(&folder), &|_, _| ());
    let across = report.warnings.iter().find_map(|warning| match warning {
        Warning::MasksAcrossSplits { groups } => Some(groups.clone()),
        _ => None,
    });
    let lines: Vec<usize> = across.unwrap()[0].iter().map(|file| file.line).collect();
    assert_eq!(lines, [2, 5]);
    // One file for two images is told when the table is read.
    let folder = made(&GOOD.replace("4.png,masks/4.png", "4.png,masks/1.png"));
    let warnings = read(&folder).reading.warnings;
    let [Warning::MaskOfSeveral { masks }] = &warnings[..] else { panic!("{warnings:?}") };
    assert_eq!((masks[0].text.as_str(), masks[0].images), ("masks/1.png", 2));
    // Masks of background alone are alike, and leak nothing.
    let folder = made(GOOD);
    for seed in [1, 4] {
        let empty = Mask { width: 40, height: 36, labels: vec![0; 40 * 36] };
        write_mask_png(&folder.path().join(format!("masks/{seed}.png")), &empty).unwrap();
    }
    let report = check(&read(&folder), &|_, _| ());
    assert!(!report.warnings.iter().any(|warning| matches!(warning, Warning::MasksAcrossSplits { .. })));
}

#[test]
fn a_pack_holds_no_masks() {
    let folder = made(GOOD);
    let how = PackOptions { depth: 8, overwrite: false, leave_out_unreadable: false };
    let error = pack(&read(&folder), &spec(), &folder.path().join("pack"), how, &|_, _| ());
    let Err(Error::Pack(error)) = error else { panic!("refused") };
    assert!(matches!(*error, PackError::Masks { .. }), "{error}");
}

#[test]
fn training_reads_labels_of_the_pixels_that_it_sees() {
    let folder = made(GOOD);
    // Images that are painted from their masks.
    for seed in 1..5 {
        let mask = mask(40, 36, seed);
        let rgb = mask.labels.iter().flat_map(|&label| [label * 255, 255 - label * 255, 0]).collect();
        write_png(&folder.path().join(format!("{seed}.png")), &Pixels { width: 40, height: 36, rgb }).unwrap();
    }
    for limit in [0, 1 << 24] {
        let rows = read(&folder).rows;
        let data = Dataset::new(rows, spec(), Arc::new(Cache::new(limit))).with_masks(&MaskReading::of_classes(2));
        assert!(data.preload(&|_, _| ()).is_empty());
        let augment =
            Augment { vertical_flip: true, rotate_degrees: 90.0, brightness: 0.0, contrast: 0.0, ..Augment::default() };
        let order = [3, 1, 0, 2];
        for augment in [None, Some(EpochAugment { augment: &augment, seed: 1, epoch: 2 })] {
            let view = data.epoch(&order, augment);
            let (mut ignored, mut seen) = (0, [0; 2]);
            for index in 0..4 {
                let (mut input, mut labels) = (vec![0.0; 3 * SIZE * SIZE], vec![0; SIZE * SIZE]);
                view.load(index, &mut input).unwrap();
                view.load_mask(index, &mut labels).unwrap();
                for (at, &label) in labels.iter().enumerate() {
                    let (red, green) = (input[at], input[SIZE * SIZE + at]);
                    match label {
                        IGNORE => ignored += 1,
                        label if red.max(green) == 1.0 => {
                            seen[usize::from(label)] += 1;
                            assert_eq!(label == 1, red > green, "pixel {at}");
                        }
                        _ => {}
                    }
                }
            }
            assert!(seen[0] > 300 && seen[1] > 300, "{seen:?}");
            assert_eq!(ignored > 0, augment.is_some());
        }
    }
}

#[test]
fn an_image_without_a_mask_is_told_where_masks_are_needed() {
    let folder = made("path,mask,label\n1.png,masks/1.png,a\n2.png,,b\n");
    let rows = read(&folder).rows;
    let data = Dataset::new(rows, spec(), Arc::new(Cache::new(0))).with_masks(&MaskReading::default());
    let broken = data.preload(&|_, _| ());
    assert_eq!(broken.len(), 1);
    assert!(matches!(&broken[0].error, Error::NoMask { name } if name == "2.png"), "{}", broken[0].error);
}

/// [`GOOD`] with masks of these values, one a file, in a pixel each.
fn of_values(values: [u8; 4], options: &ReadOptions) -> Result<Manifest, Error> {
    let folder = made(GOOD);
    for (number, value) in values.into_iter().enumerate() {
        let mut labels = vec![0; 40 * 36];
        labels[7] = value;
        let mask = Mask { width: 40, height: 36, labels };
        write_mask_png(&folder.path().join(format!("masks/{}.png", number + 1)), &mask).unwrap();
    }
    Manifest::read_with(&folder.path().join("m.csv"), options)?.with_mask_classes()
}

#[test]
fn classes_of_masks_are_their_values() {
    let none = ReadOptions::default();
    let manifest = of_values([1, 2, 0, 255], &none).unwrap();
    assert_eq!(
        (manifest.kind, manifest.classes.as_slice()),
        (TaskKind::Segmentation, ["background", "1", "2"].map(str::to_owned).as_slice())
    );
    let shown: Vec<&Labels> = manifest.rows.iter().map(|row| &row.labels).collect();
    let findings = |findings: [u8; 3]| Labels::Multi(findings.to_vec());
    assert_eq!(shown, [&findings([1, 1, 0]), &findings([1, 0, 1]), &findings([1, 0, 0]), &findings([1, 0, 0])]);
    assert_eq!(manifest.reading.masks, Some(MaskReading::of_classes(3)));
    let white = of_values([255, 255, 0, 0], &none).unwrap();
    assert_eq!(white.classes, ["background", "foreground"]);
    assert_eq!(white.rows[0].labels, Labels::Multi(vec![1, 1]));
    assert_eq!(white.reading.masks.unwrap().values, [(255, 1)].into());
}

#[test]
fn classes_of_masks_are_named_and_valued_as_asked() {
    let named = |names: &[&str], values: &[i64]| ReadOptions {
        mask_classes: names.iter().map(|name| (*name).to_owned()).collect(),
        mask_values: values.to_vec(),
        ..ReadOptions::default()
    };
    // A class that no mask shows is one all the same.
    assert_eq!(of_values([1, 1, 0, 0], &named(&["rest", "polyp", "tool"], &[])).unwrap().classes.len(), 3);
    let valued = of_values([128, 255, 0, 0], &named(&[], &[0, 128, 255])).unwrap();
    assert_eq!(valued.rows[1].labels, Labels::Multi(vec![1, 0, 1]));
    assert_eq!(valued.reading.masks.unwrap().values, [(0, 0), (128, 1), (255, 2)].into());
    for (values, options, said) in [
        (
            [1, 2, 0, 0],
            named(&["rest", "polyp"], &[]),
            "hold the values 0, 1, 2: expected the 2 classes \"rest\", \"polyp\"",
        ),
        ([128, 0, 0, 0], named(&[], &[]), "expected every number from 0 on"),
        ([0, 0, 0, 0], named(&[], &[]), "expected the background and at least one more class"),
        ([3, 0, 0, 0], named(&[], &[0, 1]), "value 3 at column 7"),
    ] {
        let error = of_values(values, &options).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn masks_beside_labels_are_taken_where_they_are_asked_for() {
    let folder = made("path,mask,label\n1.png,masks/1.png,a\n2.png,masks/2.png,b\n");
    let asked = ReadOptions { kind: Some(TaskKind::Segmentation), ..ReadOptions::default() };
    let path = folder.path().join("m.csv");
    let manifest = Manifest::read_with(&path, &asked).unwrap().with_mask_classes().unwrap();
    assert_eq!(manifest.classes, ["background", "foreground"]);
    std::fs::write(&path, "path,label\n1.png,a\n2.png,b\n").unwrap();
    let error = Manifest::read_with(&path, &asked).unwrap_err();
    assert!(matches!(error, Error::NoMaskColumn { .. }), "{error}");
}

/// Read as the classes that these names are.
fn named(folder: &TempDir, names: &[&str]) -> Manifest {
    let mask_classes = names.iter().map(|&name| name.to_owned()).collect();
    Manifest::read_with(&folder.path().join("m.csv"), &ReadOptions { mask_classes, ..ReadOptions::default() }).unwrap()
}

#[test]
fn a_check_counts_the_classes_that_masks_show_by_their_names() {
    let folder = made(GOOD);
    let report = check(&named(&folder, &["background", "disc"]), &|_, _| ());
    assert_eq!(report.problems, []);
    assert_eq!(report.classes, ["background", "disc"]);
    let counts: Vec<_> = report.splits.iter().map(|split| split.images_of.clone()).collect();
    assert_eq!(counts, [[2, 2], [1, 1], [1, 1]]);
    assert_eq!(check(&read(&folder), &|_, _| ()).classes, ["background", "foreground"]);
}

#[test]
fn a_check_says_once_that_masks_show_more_classes_than_have_names() {
    let folder = made(GOOD);
    let three = Mask { width: 40, height: 36, labels: (0..40 * 36).map(|at| (at % 3) as u8).collect() };
    write_mask_png(&folder.path().join("masks/2.png"), &three).unwrap();
    let report = check(&named(&folder, &["background", "disc"]), &|_, _| ());
    let [Problem::MaskClasses { reason }] = &report.problems[..] else { panic!("{:?}", report.problems) };
    assert!(reason.contains("m.csv") && reason.contains("background"), "{reason}");
}

#[test]
fn a_check_says_that_no_mask_of_a_split_shows_anything() {
    let folder = made(GOOD);
    let empty = Mask { width: 40, height: 36, labels: vec![0; 40 * 36] };
    write_mask_png(&folder.path().join("masks/3.png"), &empty).unwrap();
    let report = check(&named(&folder, &["background", "disc"]), &|_, _| ());
    let only = Problem::OneClass { split: Split::Val, classes: vec!["background".into()] };
    assert_eq!(report.problems, [only]);
}
