//! What `check` finds, for programs and on paper.

use std::sync::atomic::{AtomicUsize, Ordering};

use melo_data::{CheckReport, Manifest, Problem, Split, Warning, check};
use tempfile::TempDir;

use crate::{folder, write_image};

/// Images `1.png` to `9.png` (40 × 36, all different) and a manifest of these lines.
fn report(csv: &str, spoil: impl Fn(&TempDir)) -> CheckReport {
    let folder = folder();
    for seed in 1..10 {
        write_image(&folder.path().join(format!("{seed}.png")), 40, 36, seed);
    }
    spoil(&folder);
    let path = folder.path().join("m.csv");
    std::fs::write(&path, csv).unwrap();
    let manifest = Manifest::read(&path).unwrap();
    let (calls, last) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let report = check(&manifest, &|done, of| {
        assert_eq!(of, manifest.rows.len());
        calls.fetch_add(1, Ordering::Relaxed);
        last.fetch_max(done, Ordering::Relaxed);
    });
    assert_eq!((calls.into_inner(), last.into_inner()), (manifest.rows.len(), manifest.rows.len()));
    report
}

const GOOD: &str = "path,split,label,patient_id\n1.png,train,a,1\n2.png,train,b,1\n3.png,train,a,2\n4.png,train,b,2\n\
    5.png,val,a,3\n6.png,val,b,3\n7.png,test,a,4\n8.png,test,b,4\n";

#[test]
fn nothing_wrong() {
    let report = report(GOOD, |_| ());
    assert_eq!(report.problems, []);
    assert!(matches!(&report.warnings[..], [Warning::SingleExample { classes }] if classes.len() == 4));
    assert_eq!((report.images, report.patients), (8, Some(4)));
    let counts: Vec<_> =
        report.splits.iter().map(|count| (count.images, count.patients, &count.images_of[..])).collect();
    assert_eq!(counts, [(4, 2, &[2, 2][..]), (2, 1, &[1, 1]), (2, 1, &[1, 1])]);
    assert_eq!(report.sizes.len(), 1);
    assert_eq!((report.sizes[0].width, report.sizes[0].height, report.sizes[0].images), (40, 36, 8));
}

#[test]
fn unreadable_files_are_all_named() {
    let report = report(GOOD, |folder| {
        std::fs::remove_file(folder.path().join("2.png")).unwrap();
        std::fs::write(folder.path().join("5.png"), "").unwrap();
        let bytes = std::fs::read(folder.path().join("8.png")).unwrap();
        std::fs::write(folder.path().join("8.png"), &bytes[..bytes.len() / 2]).unwrap();
    });
    let found = report.problems.iter().map(|problem| match problem {
        Problem::Unreadable { name, line, reason } => (name.as_str(), *line, reason.as_str()),
        other => panic!("{other:?}"),
    });
    let found: Vec<_> = found.collect();
    assert_eq!(
        found.iter().map(|(name, line, _)| (*name, *line)).collect::<Vec<_>>(),
        [("2.png", 3), ("5.png", 6), ("8.png", 9)]
    );
    assert!(
        found[0].2.starts_with("cannot be read")
            && found[1].2.contains("empty")
            && found[2].2.starts_with("damaged PNG")
    );
    assert_eq!(report.sizes[0].images, 5);
}

#[test]
fn empty_splits_stop_training_except_test() {
    let found = report("path,split,label\n1.png,train,a\n2.png,train,b\n", |_| ());
    assert_eq!(found.problems, [Problem::EmptySplit { split: Split::Val }]);
    assert!(found.warnings.contains(&Warning::NoTest));
    let found = report("path,split,label\n1.png,test,a\n2.png,test,b\n", |_| ());
    assert_eq!(found.problems, [Split::Train, Split::Val].map(|split| Problem::EmptySplit { split }));
    let found = report("path,label\n1.png,a\n2.png,b\n", |_| ());
    assert_eq!(found.problems, []);
    assert!(found.warnings.contains(&Warning::Unassigned));
}

#[test]
fn one_class_in_train_or_val_stops_training() {
    let report = report("path,split,label\n1.png,train,a\n2.png,train,a\n3.png,val,b\n4.png,val,b\n", |_| ());
    let one = |split, class: &str| Problem::OneClass { split, classes: vec![class.into()] };
    assert_eq!(report.problems, [one(Split::Train, "a"), one(Split::Val, "b")]);
}

#[test]
fn labels_made_by_hand_are_held_to_the_classes() {
    let folder = folder();
    let path = folder.path().join("m.csv");
    std::fs::write(&path, "path,label\n1.png,a\n2.png,b\n").unwrap();
    (1..3).for_each(|seed| write_image(&folder.path().join(format!("{seed}.png")), 40, 40, seed));
    let mut manifest = Manifest::read(&path).unwrap();
    manifest.rows[1].labels = melo_data::Labels::Single(2);
    assert_eq!(check(&manifest, &|_, _| ()).problems, [Problem::BrokenLabels { name: "2.png".into(), line: 3 }]);
}

#[test]
fn patients_across_splits() {
    let report = report(&GOOD.replace("8.png,test,b,4", "8.png,test,b,1"), |_| ());
    let Warning::PatientsAcrossSplits { patients } = &report.warnings[0] else { panic!("{:?}", report.warnings) };
    assert_eq!(patients.len(), 1);
    assert_eq!((patients[0].patient_id.as_str(), &patients[0].splits[..]), ("1", &[Split::Train, Split::Test][..]));
}

#[test]
fn equal_files_within_and_across_splits() {
    let report = report(GOOD, |folder| {
        let copy = |from: &str, to: &str| std::fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
        copy("1.png", "3.png");
        copy("2.png", "7.png");
    });
    let lines = |wanted: fn(&Warning) -> Option<&Vec<Vec<melo_data::DuplicateFile>>>| -> Vec<Vec<usize>> {
        let groups = report.warnings.iter().find_map(wanted).unwrap();
        groups.iter().map(|group| group.iter().map(|file| file.line).collect()).collect()
    };
    assert_eq!(
        lines(|w| if let Warning::DuplicatesAcrossSplits { groups } = w { Some(groups) } else { None }),
        [[3, 8]]
    );
    assert_eq!(lines(|w| if let Warning::DuplicatesDisagree { groups } = w { Some(groups) } else { None }), [[3, 8]]);
    assert_eq!(
        lines(|w| if let Warning::DuplicatesWithinSplit { groups } = w { Some(groups) } else { None }),
        [[2, 4]]
    );
}

#[test]
fn absent_rare_and_omnipresent_classes() {
    let csv = "path,split,x,y,patient_id\n1.png,train,1,0,1\n2.png,train,1,1,1\n3.png,train,0,0,2\n4.png,val,1,0,3\n5.png,val,1,0,3\n";
    let report = report(csv, |_| ());
    let text = report.to_string().replace("\n    ", " ");
    assert!(text.contains("no image shows y in val"), "{text}");
    assert!(text.contains("every image shows x in val"), "{text}");
    assert!(text.contains("1 class shown by a single image: \"y\" (1 image: line 3)"), "{text}");
    assert_eq!(report.splits[0].images_of_none, 1);
}

#[test]
fn small_images() {
    let report = report(GOOD, |folder| write_image(&folder.path().join("4.png"), 100, 31, 0));
    assert!(report.warnings.contains(&Warning::SmallImages { names: vec!["4.png".into()] }));
}

#[test]
fn the_text_is_this() {
    let mut report = report(GOOD, |folder| std::fs::remove_file(folder.path().join("2.png")).unwrap());
    report.path = "m.csv".into();
    if let Problem::Unreadable { reason, .. } = &mut report.problems[0] {
        *reason = "cannot be read: it is gone, and this reason is long enough to need a second line".into();
    }
    let expected = "\
m.csv: 8 images, 4 patients, 2 classes

                   train       val      test     total
  a                    2         1         1         4
  b                    2         1         1         4
  (all images)         4         2         2         8
  (patients)           2         1         1         4

width x height (images): 40 x 36 (7)
1 problem:
  - line 3, 2.png: cannot be read: it is gone, and this reason is long enough to
    need a second line
1 warning:
  - a single image shows a in val; b in val; a in test; and 1 more
";
    assert_eq!(report.to_string(), expected);
}

#[test]
fn the_text_is_short_and_narrow() {
    let mut csv = String::from("path,split,label\n1.png,val,b\n");
    for index in 0..50 {
        csv += &format!("gone{index}.png,train,a class with a very long name that goes on and on number {index}\n");
    }
    let text = report(&csv, |_| ()).to_string();
    // The files that are gone, and that val shows one class.
    assert!(text.contains("51 problems:") && text.contains("and 31 more"), "{text}");
    // Only the path of the temporary folder may be longer.
    assert!(text.lines().skip(1).all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.lines().count() < 90, "{text}");
}

#[test]
fn the_report_is_json() {
    let json = serde_json::to_value(report(GOOD, |folder| std::fs::remove_file(folder.path().join("2.png")).unwrap()))
        .unwrap();
    assert_eq!(json["problems"][0]["kind"], "unreadable");
    assert_eq!(json["problems"][0]["line"], 3);
    assert_eq!(json["splits"][0]["split"], "train");
}
