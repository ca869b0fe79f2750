//! What was decided while a manifest was read, where more than one reading was possible.

use std::fmt;

use melo_imaging::LeftOut;
use serde::Serialize;

/// How many lines, or names, a sentence lists.
const LISTED: usize = 5;

/// A decision; displays as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Note {
    /// The folder holds a table, which is read instead of its folders.
    FolderHolds {
        /// The table, in the folder.
        file: String,
    },
    /// The folder holds a table that is no manifest; its folders are read.
    PassedOver {
        /// The table, in the folder.
        file: String,
        /// Why.
        reason: String,
    },
    /// Files of a folder that are no images.
    LeftOut {
        /// Their names in the folder.
        files: Vec<String>,
        /// Number of all files.
        of: usize,
    },
    /// The text is not UTF-8.
    Encoding {
        /// What it was taken for.
        encoding: String,
        /// Line of the first letter that tells; 0 where all do.
        line: usize,
        /// That letter's word, as it was read.
        text: String,
    },
    /// The workbook has more sheets than the one that was read.
    Sheet {
        /// That sheet.
        read: String,
        /// Number of sheets.
        of: usize,
    },
    /// A column whose name is not the usual one was taken for what its name says.
    Column {
        /// `path` or `label`.
        role: String,
        /// The column.
        column: String,
    },
    /// Columns that are neither labels nor what a manifest needs: kept for subgroups.
    Metadata {
        /// The columns.
        columns: Vec<String>,
    },
    /// A column without a name, that numbers the lines, was passed over.
    LineNumbers,
    /// Lines that repeat the header were passed over.
    HeaderAgain {
        /// The lines.
        lines: Vec<usize>,
    },
    /// Each image shows exactly one of the columns of 0 and 1.
    ExactlyOne {
        /// The columns.
        columns: Vec<String>,
        /// Columns that no image shows.
        never: Vec<String>,
        /// True if they were read as classes, false if as findings.
        as_classes: bool,
    },
    /// Words in columns of findings, such as `True` and `False`, were read as 1 and 0.
    Words {
        /// The columns.
        columns: Vec<String>,
    },
    /// A column that lists findings, separated by `|`.
    Lists {
        /// The column.
        column: String,
        /// What it lists.
        findings: Vec<String>,
    },
    /// Images that are not where they are written, but whose end of the path is.
    Elsewhere {
        /// Number of images.
        images: usize,
        /// The first one's line.
        line: usize,
        /// The first one, as it is written.
        written: String,
        /// And where it was found.
        found: String,
    },
    /// Several lines of one image that say the same, or add findings to it.
    Merged {
        /// Number of lines beyond each image's first.
        rows: usize,
        /// The first few of them.
        lines: Vec<usize>,
        /// True if some of them add findings.
        adds: bool,
    },
    /// No image has a patient, and no split is written: splits are drawn by image.
    SplitsByImage,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::FolderHolds { file } => write!(f, "read {file}, which the folder holds, not the folders in it"),
            Note::PassedOver { file, reason } => write!(f, "{file} is no manifest, and passed over: {reason}"),
            Note::LeftOut { files, of } => LeftOut { names: files.clone(), of: *of }.fmt(f),
            Note::Encoding { encoding, line: 0, .. } => write!(f, "read as {encoding}"),
            Note::Encoding { encoding, line, text } => {
                write!(f, "not UTF-8, read as {encoding}: \"{text}\" on line {line}")
            }
            Note::Sheet { read, of } => write!(f, "sheet \"{read}\" was read, the first of {of}"),
            Note::Column { role, column } => write!(f, "column \"{column}\" was read as \"{role}\""),
            Note::Metadata { columns } => write!(f, "kept as metadata, for subgroups: {}", listed(columns)),
            Note::LineNumbers => f.write_str("the column without a name numbers the lines, and was passed over"),
            Note::HeaderAgain { lines } => {
                write!(f, "the header stands again on {}, passed over", on_lines(lines, lines.len()))
            }
            Note::ExactlyOne { columns, never, as_classes } => {
                let read = if *as_classes { "classes, one an image" } else { "findings (multi-label)" };
                write!(f, "each image shows exactly one of {} columns of 0 and 1, read as {read}", columns.len())?;
                if *as_classes && !never.is_empty() {
                    write!(f, "; no image shows {}", listed(never))?;
                }
                Ok(())
            }
            Note::Words { columns } => write!(f, "words read as 1 and 0 in {}", listed(columns)),
            Note::Lists { column, findings } => {
                write!(f, "column \"{column}\" lists findings between |: {} of them, multi-label", findings.len())
            }
            Note::Elsewhere { images, line, written, found } => {
                let those = if *images == 1 { "1 image is".to_owned() } else { format!("{images} images are") };
                write!(
                    f,
                    "{those} not where written but found by the end of the path: line {line}, {written} is {found}"
                )
            }
            Note::Merged { rows, lines, adds } => {
                let what = match (*adds, *rows) {
                    (true, 1) => "adds findings to",
                    (true, _) => "add findings to",
                    (false, 1) => "repeats",
                    (false, _) => "repeat",
                };
                write!(f, "{} {what} earlier ones: merged", on_lines(lines, *rows))
            }
            Note::SplitsByImage => f.write_str("no column \"patient_id\": splits are drawn by image"),
        }
    }
}

/// `line 3`, or `lines 3, 5, 8 and 2 more`.
fn on_lines(lines: &[usize], of: usize) -> String {
    let shown: Vec<String> = lines.iter().take(LISTED).map(ToString::to_string).collect();
    let more = if of > shown.len() { format!(" and {} more", of - shown.len()) } else { String::new() };
    format!("{} {}{more}", if of == 1 { "line" } else { "lines" }, shown.join(", "))
}

/// The first few names, and how many more there are.
fn listed(names: &[String]) -> String {
    let more = if names.len() > LISTED { format!(" and {} more", names.len() - LISTED) } else { String::new() };
    format!("{}{more}", names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", "))
}
