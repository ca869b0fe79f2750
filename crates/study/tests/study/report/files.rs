//! The names of a report's files, in every text that sends a reader to them.

use melo_study::report::{self, files};
use std::collections::BTreeSet;
use std::path::Path;

use super::sample;

/// The words of `text` that end like a file of a report.
fn file_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/')));
    let words = words.map(|word| word.trim_end_matches('.'));
    words.filter(|word| [".csv", ".json", ".md", ".html"].iter().any(|ending| word.ends_with(ending))).collect()
}

fn written() -> BTreeSet<&'static str> {
    files(&sample::study()).iter().map(|(name, _)| *name).collect()
}

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_report_names_only_files_that_lie_beside_it() {
    let page = report::html(&sample::study());
    let named = file_names(&page);
    assert!(named.contains("arms.csv") && named.contains("comparisons.csv"), "{named:?}");
    assert!(named.is_subset(&written()), "{named:?}");
    let text = report::markdown(&sample::study());
    assert!(file_names(&text).is_subset(&written()), "{:?}", file_names(&text));
}

#[test]
fn the_documents_name_the_files_that_are_written() {
    let study = document("study.md");
    let (_, folder) = study.split_once("## The folder").expect("a part on the folder");
    let (folder, _) = folder.split_once("\n## ").expect("and one after it");
    let of_cells = ["result.json", "failure.json", "array.json"];
    let named: BTreeSet<&str> = file_names(folder).into_iter().filter(|name| !of_cells.contains(name)).collect();
    assert_eq!(named, written());

    let json = document("json.md");
    let (_, verb) = json.split_once("## melo study").expect("a part on the verb");
    let line = verb.lines().find(|line| line.contains("in the folder")).expect("a line on the folder");
    let named: BTreeSet<&str> = file_names(line).into_iter().filter(|name| *name != "study.md").collect();
    assert!(!named.is_empty() && named.is_subset(&written()), "{named:?}");
}

#[test]
fn every_file_has_its_content() {
    for (name, content) in files(&sample::unfinished()) {
        assert!(!content.is_empty(), "{name}");
        assert_eq!(name == "report.html", content.starts_with("<!DOCTYPE html>"), "{name}");
        assert_eq!(name.ends_with(".csv"), content.starts_with("task,"), "{name}");
    }
}
