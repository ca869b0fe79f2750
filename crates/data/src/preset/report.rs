//! What applying a preset found, for people and for programs.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::Policy;
use crate::Split;

/// What a folder holds of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PresetReport {
    /// The preset.
    pub preset: String,
    /// The set's name.
    pub title: String,
    /// The folder.
    pub folder: PathBuf,
    /// Tables and archives that were read.
    pub tables: Vec<TableUse>,
    /// What was done with uncertain labels; `None` where the set has none.
    pub policy: Option<Policy>,
    /// Images of the manifest, and of the publication.
    pub images: Count,
    /// Patients of the manifest, and of the publication.
    pub patients: Count,
    /// Images of each split that the set has.
    pub splits: Vec<SplitFound>,
    /// Images of each class or finding.
    pub classes: Vec<ClassFound>,
    /// What stops training.
    pub problems: Vec<Remark>,
    /// What does not, but should be known.
    pub warnings: Vec<Remark>,
}

/// A table that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableUse {
    /// Its file in the set's folder.
    pub file: String,
    /// Its records.
    pub rows: usize,
}

/// A number, and what it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// What was counted.
    pub found: usize,
    /// What the publication says, if it does.
    pub expected: Option<usize>,
}

/// Images of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SplitFound {
    /// The split.
    pub split: Split,
    /// Its images.
    pub images: Count,
}

/// Images of a class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassFound {
    /// The class or finding.
    pub class: String,
    /// Images that show it.
    pub images: usize,
}

/// Something that was found, how often, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// What.
    pub kind: RemarkKind,
    /// Of which table, field or value; empty where there is no other.
    pub subject: String,
    /// How often.
    pub count: usize,
    /// The first few.
    pub examples: Vec<String>,
}

/// What may be remarked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RemarkKind {
    /// A label that the preset does not know. Stops training.
    UnknownLabel,
    /// A word for a split that the preset does not know. Stops training.
    UnknownSplit,
    /// Rows of one image that say different things. Stops training.
    RowsDisagree,
    /// A row that is not written as the preset expects. Stops training.
    BrokenRow,
    /// No image, or all with the same labels. Stops training.
    OneClass,
    /// A row whose image is not there.
    RowWithoutImage,
    /// An image without its row: it is left out.
    ImageWithoutRow,
    /// A second file of one image: it is left out.
    Copy,
    /// An image that the preset leaves out.
    LeftOut,
    /// An image with an uncertain label, on which the policy decided.
    Uncertain,
    /// A patient with images in two splits.
    PatientAcrossSplits,
}

impl RemarkKind {
    /// True if training could not, or should not, begin.
    pub fn is_problem(self) -> bool {
        use RemarkKind::{BrokenRow, OneClass, RowsDisagree, UnknownLabel, UnknownSplit};
        matches!(self, UnknownLabel | UnknownSplit | RowsDisagree | BrokenRow | OneClass)
    }
}

impl Remark {
    /// How many examples are kept.
    pub const EXAMPLES: usize = 5;
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Remark { kind, subject, count, examples } = self;
        match kind {
            RemarkKind::UnknownLabel => write!(f, "unknown label: {subject}, {}", images(*count))?,
            RemarkKind::UnknownSplit => write!(f, "unknown split: {subject}, {}", images(*count))?,
            RemarkKind::RowsDisagree => write!(f, "rows of one image disagree in \"{subject}\": {}", images(*count))?,
            RemarkKind::BrokenRow => write!(f, "not understood: {}", plural(*count, "row"))?,
            RemarkKind::OneClass => return f.write_str("expected at least two classes: all images are labelled alike"),
            RemarkKind::RowWithoutImage => {
                write!(f, "{} of {subject} without an image: not unpacked yet?", plural(*count, "row"))?;
            }
            RemarkKind::ImageWithoutRow => write!(f, "left out, no row in {subject}: {}", images(*count))?,
            RemarkKind::Copy => write!(f, "left out, copies: {}", images(*count))?,
            RemarkKind::LeftOut => write!(f, "left out, {subject}: {}", images(*count))?,
            RemarkKind::Uncertain => write!(f, "uncertain labels, taken by policy {subject}: {}", images(*count))?,
            RemarkKind::PatientAcrossSplits => {
                write!(f, "in more than one split: {}", plural(*count, "patient"))?;
            }
        }
        let more = if *count > examples.len() { ", ..." } else { "" };
        write!(f, ", such as {}{more}", examples.join(", "))
    }
}

/// `1 image`, `12 images`.
fn images(count: usize) -> String {
    plural(count, "image")
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.expected {
            None => write!(f, "{}", self.found),
            Some(expected) if expected == self.found => write!(f, "{} (as published)", self.found),
            Some(expected) => write!(f, "{} (published: {expected})", self.found),
        }
    }
}

impl PresetReport {
    /// `1 problem`, `3 problems`.
    pub(crate) fn problem_count(&self) -> String {
        plural(self.problems.len(), "problem")
    }
}

impl fmt::Display for PresetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.folder.display(), self.title)?;
        for TableUse { file, rows } in &self.tables {
            writeln!(f, "read      {file}, {}", plural(*rows, "row"))?;
        }
        writeln!(f, "images    {}", self.images)?;
        match self.patients {
            Count { found: 0, expected: None } => writeln!(f, "patients  not said: every image is its own")?,
            patients => writeln!(f, "patients  {patients}")?,
        }
        for SplitFound { split, images } in &self.splits {
            writeln!(f, "{split:8}  {images}")?;
        }
        if self.splits.iter().all(|split| split.images.found == 0) {
            writeln!(f, "splits    none: assigned by patient when training begins")?;
        }
        for ClassFound { class, images } in &self.classes {
            writeln!(f, "class     {class}: {images}")?;
        }
        for problem in &self.problems {
            writeln!(f, "problem   {problem}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning   {warning}")?;
        }
        Ok(())
    }
}
