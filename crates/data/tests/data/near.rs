//! Near-duplicates, found by `check` in files.

use std::path::Path;

use melo_data::{CheckReport, Manifest, NearPair, Warning, appearance, check, examine};
use melo_imaging::{Pixels, resize};
use melo_vit::Interpolation;

use crate::{folder, noise, write_image};

/// Soft spots, others for each `seed`.
fn scene(seed: u32) -> Pixels {
    resize(&noise(12, 10, seed), 120, 100, Interpolation::Bicubic)
}

fn mirrored(pixels: &Pixels) -> Pixels {
    let rows = pixels.rgb.chunks_exact(pixels.width * 3);
    let rgb = rows.flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect();
    Pixels { rgb, ..*pixels }
}

fn brighter(pixels: &Pixels) -> Pixels {
    Pixels { rgb: pixels.rgb.iter().map(|&sample| sample.saturating_add(12)).collect(), ..*pixels }
}

fn write(path: &Path, pixels: &Pixels) {
    melo_imaging::write_png(path, pixels).unwrap();
}

const CSV: &str = "path,split,label,patient_id\n1.png,train,a,1\n2.png,train,b,2\n3.png,train,a,3\n4.png,train,b,3\n\
    5.png,val,a,4\n6.png,val,b,5\n7.png,test,a,6\n8.png,test,b,7\n";

/// `1.png` to `8.png` are different scenes, but for what `change` writes.
fn report(change: impl Fn(&Path)) -> CheckReport {
    let folder = folder();
    (1..9).for_each(|seed| write(&folder.path().join(format!("{seed}.png")), &scene(seed)));
    change(folder.path());
    std::fs::write(folder.path().join("m.csv"), CSV).unwrap();
    check(&Manifest::read(&folder.path().join("m.csv")).unwrap(), &|_, _| ())
}

fn across(report: &CheckReport) -> (usize, Vec<NearPair>) {
    let found = report.warnings.iter().find_map(|warning| match warning {
        Warning::NearDuplicatesAcrossSplits { total, pairs } => Some((*total, pairs.clone())),
        _ => None,
    });
    found.unwrap_or_default()
}

fn within(report: &CheckReport) -> (usize, Vec<NearPair>) {
    let found = report.warnings.iter().find_map(|warning| match warning {
        Warning::NearDuplicatesWithinSplit { total, pairs } => Some((*total, pairs.clone())),
        _ => None,
    });
    found.unwrap_or_default()
}

fn lines(pair: &NearPair) -> [usize; 2] {
    pair.images.each_ref().map(|file| file.line)
}

#[test]
fn different_scenes_are_not_near() {
    let report = report(|_| ());
    assert_eq!((across(&report).0, within(&report).0), (0, 0));
}

#[test]
fn an_edited_image_is_found_in_another_split() {
    let report = report(|folder| {
        write(&folder.join("7.png"), &brighter(&scene(1)));
        write(&folder.join("5.png"), &mirrored(&resize(&scene(2), 70, 60, Interpolation::Bilinear)));
    });
    let (total, pairs) = across(&report);
    assert_eq!((total, within(&report).0), (2, 0));
    assert!(pairs[0].distance <= pairs[1].distance && pairs[1].distance <= 34);
    let of = |line| pairs.iter().find(|pair| lines(pair)[0] == line).unwrap();
    assert_eq!((lines(of(2)), of(2).mirrored), ([2, 8], false));
    assert_eq!((lines(of(3)), of(3).mirrored), ([3, 6], true));
    let text = report.to_string().replace("\n    ", " ");
    assert!(text.contains("2 pairs of images in two splits look the same"), "{text}");
    assert!(text.contains("line 2, 1.png (train) ~ line 8, 7.png (test)"), "{text}");
    assert!(text.contains("of 255 bits differ, mirrored"), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    let warning = json["warnings"].as_array().unwrap().iter().find(|w| w["kind"] == "near_duplicates_across_splits");
    let warning = warning.unwrap();
    assert_eq!(warning["total"], 2);
    assert_eq!(warning["pairs"][0]["images"][0]["split"], "train");
    assert!(warning["pairs"][0]["distance"].is_u64() && warning["pairs"][0]["mirrored"].is_boolean());
}

#[test]
fn in_one_split_only_those_of_two_patients_count() {
    let report = report(|folder| {
        write(&folder.join("2.png"), &brighter(&scene(1)));
        write(&folder.join("4.png"), &brighter(&scene(3)));
    });
    let (total, pairs) = within(&report);
    assert_eq!((total, across(&report).0), (1, 0));
    assert_eq!(lines(&pairs[0]), [2, 3]);
    assert!(report.to_string().replace("\n    ", " ").contains("1 pair of images in one split look the same, such as"));
}

#[test]
fn equal_files_are_reported_as_such_alone() {
    let report = report(|folder| {
        std::fs::copy(folder.join("1.png"), folder.join("7.png")).unwrap();
    });
    assert_eq!(across(&report).0, 0);
    assert!(report.warnings.iter().any(|warning| matches!(warning, Warning::DuplicatesAcrossSplits { .. })));
}

#[test]
fn images_of_one_grey_and_broken_files_are_like_nothing() {
    let report = report(|folder| {
        for (name, level) in [("1.png", 0), ("5.png", 1), ("7.png", 200)] {
            write(&folder.join(name), &Pixels { width: 40, height: 40, rgb: vec![level; 4800] });
        }
        std::fs::write(folder.join("2.png"), "no image").unwrap();
        std::fs::write(folder.join("6.png"), "no image either").unwrap();
    });
    assert_eq!((across(&report).0, within(&report).0, report.problems.len()), (0, 0, 2));
}

#[test]
fn a_flood_of_look_alikes_is_counted_but_not_listed() {
    let folder = folder();
    let mut csv = "path,split,label\n".to_owned();
    for index in 0..100usize {
        // Each a little brighter than the last, so that no two files are equal.
        let rgb = scene(1).rgb.iter().map(|&sample| (sample / 2).saturating_add(index as u8)).collect();
        write(&folder.path().join(format!("{index}.png")), &Pixels { rgb, ..scene(1) });
        csv += &format!("{index}.png,{},{}\n", if index % 2 == 0 { "train" } else { "test" }, index % 3 % 2);
    }
    std::fs::write(folder.path().join("m.csv"), csv).unwrap();
    let report = check(&Manifest::read(&folder.path().join("m.csv")).unwrap(), &|_, _| ());
    for (total, pairs, expected) in [(across(&report), 50 * 50), (within(&report), 50 * 49)].map(|(a, b)| (a.0, a.1, b))
    {
        assert_eq!((total, pairs.len()), (expected, expected.min(1000)));
        assert!(pairs.is_sorted_by_key(|pair| pair.distance));
    }
    assert!(report.to_string().replace("\n    ", " ").contains("; and 2497 more"));
}

#[test]
fn appearance_comes_from_the_same_decoding() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    write_image(&path("1.png"), 50, 40, 1);
    write_image(&path("2.png"), 33, 47, 2);
    std::fs::write(path("3.png"), "no image").unwrap();
    std::fs::write(path("m.csv"), "path,label\n1.png,a\n2.png,b\n3.png,b\n").unwrap();
    let (report, found) = examine(&Manifest::read(&path("m.csv")).unwrap(), &|_, _| ());
    assert_eq!(report.problems.len(), 1);
    assert_eq!(found[0], appearance(&path("1.png")).ok());
    assert_eq!(found[1].map(|found| (found.width, found.height)), Some((33, 47)));
    assert_eq!(found[1].map(|found| found.bytes), Some(std::fs::metadata(path("2.png")).unwrap().len()));
    assert_eq!(found[2], None);
    let message = appearance(&path("3.png")).unwrap_err().to_string();
    assert!(message.contains("3.png: not an image"), "{message}");
    assert!(appearance(&path("gone.png")).unwrap_err().to_string().contains("gone.png: cannot be read"));
}
