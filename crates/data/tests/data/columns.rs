//! Columns for subgroups, and every defect by name.

use melo_data::{Columns, Error, columns};

use crate::folder;
use crate::manifest::assert_refused;

fn read(csv: impl AsRef<[u8]>, names: &[&str]) -> Result<Columns, Error> {
    let folder = folder();
    let path = folder.path().join("meta.csv");
    std::fs::write(&path, csv).unwrap();
    columns(&path, &names.iter().map(|name| name.to_string()).collect::<Vec<_>>())
}

fn values(columns: &Columns, image: &str) -> Vec<Option<String>> {
    columns.of(image).unwrap().to_vec()
}

const META: &str =
    "Path,sex,age,note,\nimages/a.png,F, 39.9,\"x, y\",\nimages/b.png,M,40,,\n\nc.png,,60,z,\nd.png,F,,z,1\n";

#[test]
fn texts_and_bins_by_image() {
    let found = read(META, &["age:40,60", "sex", "note"]).unwrap();
    assert_eq!(found.names, ["age", "sex", "note"]);
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(values(&found, "images/a.png"), [some("<40"), some("F"), some("x, y")]);
    assert_eq!(values(&found, "images/b.png"), [some("40-60"), some("M"), None]);
    assert_eq!(values(&found, "c.png"), [some(">=60"), None, some("z")]);
    assert_eq!(values(&found, "d.png"), [None, some("F"), some("z")]);
    assert_eq!(found.of("e.png"), None);
}

#[test]
fn images_are_grouped_by_column_and_value() {
    let found = read(META, &["sex", "age:40,60"]).unwrap();
    let groups = found.groups(["d.png", "images/b.png", "e.png", "c.png", "images/a.png"]).unwrap();
    let seen: Vec<_> = groups.iter().map(|g| (g.column.as_str(), g.value.as_str(), g.rows.as_slice())).collect();
    let expected: [(&str, &str, &[usize]); 5] = [
        ("sex", "F", &[0, 4]),
        ("sex", "M", &[1]),
        ("age", "40-60", &[1]),
        ("age", "<40", &[4]),
        ("age", ">=60", &[3]),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn one_bound_makes_two_bins_and_decimals_stay_as_written() {
    let found = read("path,x\na,-1\nb,0.50\nc,1e9\n", &["x: 0.50"]).unwrap();
    let text = |image| values(&found, image).remove(0).unwrap();
    assert_eq!((text("a"), text("b"), text("c")), ("<0.50".into(), ">=0.50".into(), ">=0.50".into()));
}

#[test]
fn a_column_twice_in_the_list_and_none_at_all() {
    let found = read("path,x\na,5\n", &["x", "x:3"]).unwrap();
    assert_eq!(values(&found, "a"), [Some("5".to_owned()), Some(">=3".to_owned())]);
    assert!(read("path,x\na,5\n", &[]).unwrap().of("a").unwrap().is_empty());
}

#[test]
fn refuses_a_missing_column() {
    assert_refused!(read(META, &["weight"]), Error::NoColumn { .. }, "meta.csv", "\"weight\"", "\"sex\", \"age\"");
    assert_refused!(read(META, &["Sex"]), Error::NoColumn { .. }, "\"Sex\"");
    assert_refused!(read("who,sex\na,F\n", &["sex"]), Error::NoPathColumn { .. }, "who,sex");
    assert_refused!(read("", &["sex"]), Error::NoPathColumn { .. }, "path");
}

#[test]
fn refuses_a_column_that_stands_there_twice() {
    assert_refused!(read("path,sex,sex\na,F,M\n", &["sex"]), Error::DuplicateColumn { .. }, "\"sex\"");
    assert_refused!(read("path,PATH,sex\na,b,M\n", &["sex"]), Error::DuplicateColumn { .. }, "\"PATH\"");
    // Another column may.
    assert!(read("path,x,x,sex\na,1,2,M\n", &["sex"]).is_ok());
}

#[test]
fn refuses_a_repeated_or_empty_path() {
    assert_refused!(read("path,x\na,1\n\na,2\n", &["x"]), Error::DuplicatePath { line: 4, first: 2, .. }, "\"a\"");
    assert_refused!(read("path,x\n,1\n", &["x"]), Error::EmptyPath { line: 2, .. }, "line 2");
}

#[test]
fn refuses_ragged_lines_binary_data_and_missing_files() {
    assert_refused!(read("path,x\na,1,2\n", &["x"]), Error::FieldCount { line: 2, expected: 2, found: 3, .. }, "3");
    assert_refused!(read(b"path,x\na,\0\n", &["x"]), Error::NotText { .. }, "binary data");
    let missing = columns(&folder().path().join("gone.csv"), &["x".into()]);
    assert_refused!(missing, Error::Read { .. }, "gone.csv");
}

#[test]
fn refuses_bins_that_divide_nothing() {
    for bins in ["age:", "age:x", "age:60,40", "age:40,40", "age:40,,60", "age:nan", "age:inf", ":40", ""] {
        assert_refused!(read("path,age\na,1\n", &[bins]), Error::Bins { .. }, bins, "age:40,60");
    }
}

#[test]
fn refuses_text_among_numbers() {
    for text in ["old", "NaN", "inf", "-", "4O"] {
        let csv = format!("path,age\na,1\nb,{text}\n");
        assert_refused!(read(csv, &["age:40"]), Error::NotNumber { line: 3, .. }, "\"age\"", text);
    }
}
