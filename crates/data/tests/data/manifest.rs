//! Every layout of a CSV that is accepted, and every defect by name.

use std::path::Path;

use melo_data::{Error, Labels, Manifest, Split};
use melo_vit::TaskKind;

use crate::folder;

/// Reads `csv` from a file `labels.csv`.
fn read(csv: impl AsRef<[u8]>) -> Result<Manifest, Error> {
    let folder = folder();
    let path = folder.path().join("labels.csv");
    std::fs::write(&path, csv).unwrap();
    Manifest::read(&path)
}

fn labels(manifest: &Manifest) -> Vec<Labels> {
    manifest.rows.iter().map(|row| row.labels.clone()).collect()
}

/// Asserts the variant and that the message says what to look for.
macro_rules! assert_refused {
    ($result:expr, $variant:pat, $($word:expr),+) => {
        match $result {
            Err(error @ $variant) => {
                let message = error.to_string();
                $(assert!(message.contains($word), "{message:?} does not say {:?}", $word);)+
            }
            other => panic!("expected {}, found {other:?}", stringify!($variant)),
        }
    };
}
pub(crate) use assert_refused;

#[test]
fn single_label() {
    let manifest = read("path,split,label,patient_id\nb.png,train,nevus,p1\na.png,TEST,melanoma,\n").unwrap();
    assert_eq!(manifest.classes, ["melanoma", "nevus"]);
    assert_eq!(manifest.kind, TaskKind::SingleLabel);
    assert_eq!(labels(&manifest), [Labels::Single(1), Labels::Single(0)]);
    let row = &manifest.rows[0];
    assert_eq!(row.path, manifest.path.parent().unwrap().join("b.png"));
    assert_eq!((row.name.as_str(), row.line), ("b.png", 2));
    assert_eq!((row.split, row.patient_id.as_deref()), (Some(Split::Train), Some("p1")));
    assert_eq!((manifest.rows[1].split, manifest.rows[1].patient_id.as_deref()), (Some(Split::Test), None));
}

#[test]
fn multi_label_keeps_the_order_of_columns() {
    let manifest =
        read("path,split,edema,atelectasis,patient_id\na,val,0,1,1\nb,Validation,0,0,1\nc,valid,1,1,2\n").unwrap();
    assert_eq!(manifest.classes, ["edema", "atelectasis"]);
    assert_eq!(manifest.kind, TaskKind::MultiLabel);
    assert_eq!(labels(&manifest), [vec![0, 1], vec![0, 0], vec![1, 1]].map(Labels::Multi));
    assert_eq!(manifest.split(Split::Val).len(), 3);
}

#[test]
fn one_finding_is_a_task() {
    let manifest = read("path,pneumonia\na,0\nb,1\n").unwrap();
    assert_eq!(manifest.classes, ["pneumonia"]);
    assert!(manifest.kind == TaskKind::MultiLabel && !manifest.has_splits());
}

#[test]
fn columns_come_in_any_order_and_case() {
    let manifest = read("Label,PATH\nx,a.png\ny,b.png\n").unwrap();
    assert_eq!(manifest.rows[1].name, "b.png");
    assert_eq!(manifest.classes, ["x", "y"]);
}

#[test]
fn what_spreadsheets_do_is_tolerated() {
    let plain = read("path,split,label\n\"a, 1.png\",train,x\nb.png,val,\"say \"\"y\"\"\"\n").unwrap();
    let odd = "\u{feff}\r\npath, split ,label\r\n\r\n\"a, 1.png\",train,x\r\n,,\r\n   \r\nb.png,val,\"say \"\"y\"\"\"";
    let odd = read(odd).unwrap();
    assert_eq!(odd.classes, ["say \"y\"", "x"]);
    assert_eq!(odd.digest(), plain.digest());
    assert_eq!(odd.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [4, 7]);
    assert_eq!(plain.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn lines_are_counted_past_quoted_line_ends() {
    let manifest = read("path,label\na,\"two\nlines\"\n\n\nb,one\n").unwrap();
    assert_eq!(manifest.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 6]);
}

#[test]
fn absolute_paths_stay() {
    let manifest = read("path,label\n/x/a.png,1\nb.png,2\n").unwrap();
    assert_eq!(manifest.rows[0].path, Path::new("/x/a.png"));
}

#[test]
fn refuses_a_missing_file() {
    assert_refused!(Manifest::read(Path::new("no/such.csv")), Error::Read { .. }, "no/such.csv");
}

#[test]
fn refuses_an_empty_file() {
    assert_refused!(read(""), Error::NoPathColumn { .. }, "labels.csv", "path,split,label,patient_id", "found \"\"");
}

#[test]
fn refuses_what_is_no_text() {
    assert_refused!(read(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), Error::NotText { .. }, "labels.csv", "binary data");
    assert_refused!(read(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), Error::NotText { .. }, ".xls", ".xlsx");
    assert_refused!(read(b"PK\x03\x04 no workbook"), Error::Workbook { .. }, "labels.csv");
}

#[test]
fn refuses_a_table_without_header() {
    assert_refused!(read("a.png,train,x\n"), Error::NoPathColumn { .. }, "found \"a.png,train,x\"");
}

#[test]
fn refuses_a_table_without_labels() {
    assert_refused!(read("path,split\na,train\n"), Error::NoLabelColumn { .. }, "FINDING", "found \"path,split\"");
}

#[test]
fn refuses_a_column_twice() {
    assert_refused!(read("path,edema,edema\na,0,1\n"), Error::DuplicateColumn { .. }, "\"edema\" twice");
    assert_refused!(read("path,Path,label\na,b,x\n"), Error::DuplicateColumn { .. }, "\"Path\" twice");
}

#[test]
fn refuses_a_column_without_name() {
    assert_refused!(read("path,,label\na,0,1\n"), Error::UnnamedColumn { .. }, "column 2");
}

#[test]
fn refuses_a_header_alone() {
    assert_refused!(read("path,label\n"), Error::NoRows { .. }, "at least one image");
}

#[test]
fn refuses_a_line_too_short_or_too_long() {
    assert_refused!(read("path,split,label\na,train\n"), Error::FieldCount { .. }, "line 2", "expected 3", "found 2");
    assert_refused!(read("path,label\na,x\nb,x,y\n"), Error::FieldCount { .. }, "line 3", "expected 2", "found 3");
}

#[test]
fn refuses_an_empty_path() {
    assert_refused!(read("path,label\na,x\n ,y\n"), Error::EmptyPath { .. }, "line 3");
}

#[test]
fn refuses_a_path_twice() {
    let twice = read("path,label\na.png,x\nb.png,y\n\na.png,y\n");
    assert_refused!(twice, Error::DuplicatePath { .. }, "line 5", "\"a.png\"", "line 2", "labelled \"x\", here \"y\"");
    assert_refused!(read("path,label\nd/a.png,x\nd/./a.png,y\n"), Error::DuplicatePath { .. }, "line 3", "line 2");
}

#[test]
fn refuses_an_unknown_split() {
    assert_refused!(
        read("path,split,label\na,holdout,x\n"),
        Error::UnknownSplit { .. },
        "line 2",
        "\"holdout\"",
        "val"
    );
    assert_refused!(read("path,split,label\na,,x\n"), Error::UnknownSplit { .. }, "line 2", "found \"\"");
}

#[test]
fn refuses_an_empty_label() {
    assert_refused!(read("path,label\na,x\nb,\n"), Error::EmptyLabel { .. }, "line 3");
}

#[test]
fn refuses_a_finding_that_is_neither_0_nor_1() {
    for value in ["2", "-1", "", "yess", "0.5", "NaN"] {
        let refused = read(format!("path,edema,effusion\na,0,1\nb,1,{value}\n"));
        assert_refused!(refused, Error::NotBinary { .. }, "line 3", "\"effusion\"", &format!("found \"{value}\""));
    }
}

#[test]
fn refuses_one_class() {
    assert_refused!(read("path,label\na,x\nb,x\n"), Error::OneClass { .. }, "two classes", "\"x\"");
    assert_refused!(read("path,edema\na,0\nb,0\n"), Error::OneClass { .. }, "without a finding");
}

#[test]
fn with_classes_takes_the_plug_in_s_order() {
    let classes = ["other", "nevus", "melanoma"].map(String::from);
    let manifest = read("path,label\na,melanoma\nb,nevus\n").unwrap();
    let moved = manifest.with_classes(&classes).unwrap();
    assert_eq!(moved.classes, classes);
    assert_eq!(labels(&moved), [Labels::Single(2), Labels::Single(1)]);
    assert_eq!(moved.digest(), manifest.digest());

    let manifest = read("path,edema,effusion\na,0,1\nb,1,1\n").unwrap();
    let moved = manifest.with_classes(&["effusion", "edema"].map(String::from)).unwrap();
    assert_eq!(labels(&moved), [Labels::Multi(vec![1, 0]), Labels::Multi(vec![1, 1])]);
    assert_eq!(moved.digest(), manifest.digest());
}

#[test]
fn with_classes_refuses_a_label_outside_them() {
    let classes = ["nevus", "melanoma"].map(String::from);
    let manifest = read("path,label\na,nevus\nb,melanoma\nc,Melanoma\n").unwrap();
    let refused = manifest.with_classes(&classes);
    assert_refused!(refused, Error::UnknownClass { .. }, "line 4", "\"Melanoma\"", "\"nevus\", \"melanoma\"");
    let manifest = read("path,edema,nevus\na,0,1\nb,1,1\n").unwrap();
    assert_refused!(manifest.with_classes(&classes), Error::UnknownClass { .. }, "line 1", "\"edema\"");
}

#[test]
fn with_classes_refuses_a_finding_without_column() {
    let manifest = read("path,edema\na,0\nb,1\n").unwrap();
    let refused = manifest.with_classes(&["edema", "effusion"].map(String::from));
    assert_refused!(refused, Error::MissingFinding { .. }, "\"effusion\"", "found \"edema\"");
}

#[test]
fn digest_is_known_and_forgets_the_order_of_rows() {
    let csv = "path,split,label,patient_id\na.png,train,x,1\nb.png,test,y,\n";
    let digest = read(csv).unwrap().digest();
    // By Python's hashlib over the fields that `digest` documents.
    assert_eq!(digest, "8de4a7777dab0931bbed81f93a85a3682225ad3e0760827e32871fb5f968c1d2");
    assert_eq!(digest, read("label,path,patient_id,split\ny,b.png,,TEST\nx,a.png,1,train\n").unwrap().digest());
    for change in ["a.png,train,x,2", "a.png,val,x,1", "a.png,train,y,1", "c.png,train,x,1", "a.png,train,x,"] {
        let changed = csv.replace("a.png,train,x,1", change).replace("b.png,test,y", "b.png,test,z");
        let unchanged = csv.replace("b.png,test,y", "b.png,test,z");
        assert_ne!(read(changed).unwrap().digest(), read(unchanged).unwrap().digest(), "{change}");
    }
}

#[test]
fn the_split_digest_is_of_names_and_splits_alone() {
    let text = "path,split,label,patient_id\nb,train,x,1\na,test,y,\n";
    let digest = |csv: &str| read(csv).unwrap().split_digest();
    // hashlib.sha256(b"".join(len(t).to_bytes(8, "little") + t for t in
    //     [b"melo-splits-1", b"a", b"test", b"b", b"train"])).hexdigest()
    assert_eq!(digest(text), "bc66003b7c77635ddc6390cf6bfbb430c01d71fd3604a40219b93b738a4bacdd");
    let same = ["path,split,label\na,test,p\nb,train,q\n", "split,path,f,patient_id\ntest,a,0,7\ntrain,b,1,8\n"];
    same.into_iter().for_each(|same| assert_eq!(digest(same), digest(text)));
    assert_ne!(digest(&text.replace("test", "val")), digest(text));
    assert_ne!(digest(&text.replace("\na,", "\nc,")), digest(text));
    assert_ne!(digest("path,label\nb,x\na,y\n"), digest(text));
}
