//! Text that is probably not meant as it stands: a warning that names the rows.

use melo_data::{Manifest, Spelling, Warning, check};

use crate::folder;

/// Reads `csv`; no image is there.
fn read(csv: &str) -> Manifest {
    let folder = folder();
    let path = folder.path().join("labels.csv");
    std::fs::write(&path, csv).unwrap();
    Manifest::read(&path).unwrap()
}

/// A manifest of these labels, an image each.
fn labelled(labels: &[&str]) -> Manifest {
    let lines = labels.iter().enumerate().map(|(index, label)| format!("{index}.png,\"{label}\"\n"));
    read(&format!("path,label\n{}", lines.collect::<String>()))
}

/// A manifest of these patients, an image each, of two classes in turn.
fn of_patients(patients: &[&str]) -> Manifest {
    let lines = patients.iter().enumerate().map(|(index, id)| format!("{index}.png,{},{id}\n", ["a", "b"][index % 2]));
    read(&format!("path,label,patient_id\n{}", lines.collect::<String>()))
}

/// Text and lines of each.
fn seen(found: &[Spelling]) -> Vec<(&str, Vec<usize>)> {
    found.iter().map(|spelling| (spelling.text.as_str(), spelling.rows.iter().map(|row| row.line).collect())).collect()
}

#[test]
fn a_class_that_stands_for_no_value() {
    for missing in ["nan", "NaN", "NA", "N/A", "None", "null", "<NA>", "#N/A", "-", "?"] {
        let manifest = labelled(&["a", missing, "b", "a", "b", missing]);
        let Some(Warning::MissingAsClass { classes }) = manifest.reading.warnings.first() else {
            panic!("{missing}: {:?}", manifest.reading.warnings)
        };
        assert_eq!(seen(classes), [(missing, vec![3, 7])]);
    }
    let text = labelled(&["a", "nan", "b", "a", "b", "nan"]).reading.warnings[0].to_string();
    assert_eq!(text, "what stands for no value is a class: \"nan\" (2 images: lines 3, 7)");
}

#[test]
fn classes_that_look_alike() {
    let pairs = [
        ("Melanoma", "melanoma"),
        ("Sjögren", "Sjo\u{308}gren"),
        ("ＮＶ", "NV"),
        ("eﬀusion", "effusion"),
        ("benign  lesion", "benign lesion"),
        ("grade–1", "grade-1"),
        ("grade_1", "grade 1"),
        ("naevus\u{200b}", "naevus"),
        ("c\u{430}ries", "caries"),
        ("1.0", "1"),
    ];
    for (first, second) in pairs {
        let manifest = labelled(&[first, "other", second, "other", first, second]);
        let [Warning::ClassesAlike { groups }] = &manifest.reading.warnings[..] else {
            panic!("{first}: {:?}", manifest.reading.warnings)
        };
        assert_eq!(groups.len(), 1);
        let mut lines: Vec<_> = seen(&groups[0]);
        lines.sort_by_key(|(_, lines)| lines[0]);
        assert_eq!(lines, [(first, vec![2, 6]), (second, vec![4, 7])]);
    }
    let findings = read("path,Edema,edema\na,0,1\nb,1,0\nc,1,1\n");
    assert!(matches!(&findings.reading.warnings[..], [Warning::ClassesAlike { .. }]));
    assert_eq!(labelled(&["grade 1", "grade 2", "grade 1", "grade 2"]).reading.warnings, []);
}

#[test]
fn spaces_around_a_label_are_cut_and_told() {
    let manifest = read("path,label\n1,a\n2,b\n3, a\n4,b\n5,\"b \"\n");
    assert_eq!(manifest.classes, ["a", "b"]);
    assert_eq!(manifest.reading.warnings, [Warning::SpacesCut { lines: vec![4, 6] }]);
    // A separator of comma and space merges nothing.
    assert_eq!(read("path, label\n1, a\n2, b\n3, a\n4, b\n").reading.warnings, []);
}

#[test]
fn patients_that_may_be_one() {
    for (first, second) in [("007", "7"), ("7.0", "7"), ("1.2E+05", "120000"), ("P-007", "p7"), ("p 7", "P7")] {
        let manifest = of_patients(&[first, "x1", second, "x2"]);
        let found = manifest.reading.warnings.iter().find_map(|warning| match warning {
            Warning::PatientsAlike { groups } => Some(&groups[0]),
            _ => None,
        });
        let mut lines = seen(found.unwrap_or_else(|| panic!("{first}: {:?}", manifest.reading.warnings)));
        lines.sort_by_key(|(_, lines)| lines[0]);
        assert_eq!(lines, [(first, vec![2]), (second, vec![4])]);
    }
    assert_eq!(of_patients(&["1", "10", "100", "p1", "p10", "1.1", "1.10"]).reading.warnings, []);
}

#[test]
fn patients_that_are_nobody_or_rounded() {
    for nobody in ["nan", "unknown", "None", "anonymous"] {
        let manifest = of_patients(&[nobody, "x1", nobody, "x2"]);
        let Some(Warning::NobodyAsPatient { patients }) = manifest.reading.warnings.first() else {
            panic!("{nobody}: {:?}", manifest.reading.warnings)
        };
        assert_eq!(seen(patients), [(nobody, vec![2, 4])]);
    }
    let manifest = of_patients(&["1.23457E+11", "x1", "1.23457E+11", "x2"]);
    assert!(matches!(&manifest.reading.warnings[..], [Warning::PatientsRounded { .. }]));
}

#[test]
fn metadata_among_findings() {
    for column in ["sex_male", "Gender", "age", "fold", "viewPosition", "Frontal/Lateral", "is_train", "index"] {
        let manifest = read(&format!("path,Edema,{column}\na,1,0\nb,0,1\nc,1,1\nd,0,1\n"));
        let Some(Warning::MetadataAsFinding { columns }) = manifest.reading.warnings.first() else {
            panic!("{column}: {:?}", manifest.reading.warnings)
        };
        assert_eq!(seen(columns), [(column, vec![3, 4, 5])]);
    }
    let findings =
        "path,Edema,Right ventricle,age-related macular degeneration,Emphysema\na,1,0,1,1\nb,0,1,0,0\nc,1,1,1,1\n";
    let warnings = read(findings).reading.warnings;
    assert!(!warnings.iter().any(|warning| matches!(warning, Warning::MetadataAsFinding { .. })), "{warnings:?}");
}

#[test]
fn labels_that_are_dates_or_measured() {
    let dates = labelled(&["2024-03-01", "2024-03-02", "2024-03-01", "2024-03-02"]);
    assert!(matches!(&dates.reading.warnings[..], [Warning::DatesAsClasses { classes }] if classes.len() == 2));
    let long = labelled(&["1234567", "0.73", "1234567", "0.73"]);
    assert!(matches!(&long.reading.warnings[..], [Warning::NumbersAsClasses { classes }] if classes.len() == 2));
    assert_eq!(labelled(&["0", "1", "4", "0", "1", "4"]).reading.warnings, []);
}

#[test]
fn classes_of_one_image_and_text_of_another_encoding() {
    let manifest = labelled(&["a", "b", "a", "b", "alone"]);
    let [Warning::SingleImage { classes }] = &manifest.reading.warnings[..] else { panic!("{manifest:?}") };
    assert_eq!(seen(classes), [("alone", vec![6])]);
    let manifest = labelled(&["SjÃ¶gren", "b", "SjÃ¶gren", "b"]);
    assert!(matches!(&manifest.reading.warnings[..], [Warning::Garbled { .. }]));
}

#[test]
fn bars_inside_classes() {
    let manifest = labelled(&["A|B", "A", "A|B", "A"]);
    assert_eq!(manifest.reading.warnings, [Warning::SeveralInOne { column: "label".into(), images: 2 }]);
}

#[test]
fn columns_that_look_like_patients_or_splits() {
    for column in ["PatientID", "Patient Id", "patient", "subject_id", "case_id", "MRN", "mrn"] {
        let manifest = read(&format!("path,label,{column}\na,x,1\nb,y,2\nc,x,3\nd,y,4\n"));
        let suggested = vec![column.to_owned()];
        assert_eq!(manifest.reading.warnings, [Warning::NoPatientColumn { suggested }]);
        assert!(manifest.rows[0].patient_id.is_none());
    }
    let manifest = read("path,label,subset\na,x,train\nb,y,train\nc,x,test\nd,y,test\n");
    assert_eq!(manifest.reading.warnings, [Warning::NoSplitColumn { suggested: vec!["subset".into()] }]);
}

#[test]
fn a_check_gives_the_same_warnings_and_the_notes() {
    let manifest = read("path,label,age\na,nan,63\nb,x,50\nc,nan,40\nd,x,30\n");
    let report = check(&manifest, &|_, _| ());
    assert!(matches!(report.warnings[0], Warning::MissingAsClass { .. }));
    assert_eq!(report.notes, manifest.reading.notes);
    let text = report.to_string();
    assert!(
        text.contains("note: kept as metadata, for subgroups: age") && text.contains("\"nan\" (2 images"),
        "{text}"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["warnings"][0]["kind"], "missing_as_class");
    assert_eq!(json["warnings"][0]["classes"][0]["rows"][1]["line"], 4);
}
