//! What a preset file may say. Each key is described in `docs/presets.md`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::pattern::Pattern;
use crate::Split;

/// One public set, as its site gives it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Schema {
    pub(crate) title: String,
    pub(crate) url: String,
    pub(crate) citation: String,
    pub(crate) licence: String,
    #[serde(default)]
    pub(crate) note: String,
    /// Fields in braces.
    pub(crate) patient: Option<String>,
    #[serde(default)]
    pub(crate) expect: Expect,
    pub(crate) images: Option<ImageRule>,
    pub(crate) arrays: Option<ArrayRule>,
    #[serde(default, rename = "table")]
    pub(crate) tables: Vec<TableRule>,
    pub(crate) labels: LabelRule,
    pub(crate) split: Option<SplitRule>,
}

/// Counts that the publication gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Images with labels.
    pub images: Option<usize>,
    /// Patients, or what stands for them.
    pub patients: Option<usize>,
    /// Images of the set's own training split.
    pub train: Option<usize>,
    /// Images of its validation split.
    pub val: Option<usize>,
    /// Images of its test split.
    pub test: Option<usize>,
}

/// Images as files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageRule {
    pub(crate) files: Vec<Pattern>,
    #[serde(default)]
    pub(crate) exclude: Vec<Pattern>,
}

/// Images as entries of a NumPy archive with `{split}_images` and `{split}_labels`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArrayRule {
    /// The first that is there is taken.
    pub(crate) files: Vec<Pattern>,
    /// Names of the columns of the labels.
    pub(crate) columns: Vec<String>,
}

/// A table whose rows are joined to the images by `key`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableRule {
    pub(crate) parts: Vec<PartRule>,
    #[serde(default = "comma")]
    pub(crate) separator: char,
    /// False where the first line is a record: columns are then `1`, `2`, …
    #[serde(default = "yes")]
    pub(crate) header: bool,
    /// Columns that are paths, whose parts become columns.
    #[serde(default)]
    pub(crate) parse: BTreeMap<String, Pattern>,
    /// Field of the image, and the column that equals it.
    pub(crate) key: BTreeMap<String, String>,
    /// Images need no row here.
    #[serde(default)]
    pub(crate) optional: bool,
}

fn comma() -> char {
    ','
}

fn yes() -> bool {
    true
}

/// One file of a table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartRule {
    /// The first that is there is taken.
    pub(crate) file: Vec<Pattern>,
    /// Fields that all its rows have.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, String>,
    /// The set may come without it.
    #[serde(default)]
    pub(crate) optional: bool,
}

/// How fields become labels.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum LabelRule {
    /// One class: what a field says.
    Class {
        field: String,
        /// Value and class; empty where the values are the classes.
        #[serde(default)]
        classes: BTreeMap<String, String>,
        /// Values whose images are left out.
        #[serde(default)]
        exclude: Vec<String>,
        /// Where rows of one image disagree: the first of these that one of them has.
        #[serde(default)]
        wins: Vec<String>,
        uncertain: Option<UncertainClass>,
    },
    /// Findings, listed in one field.
    List {
        field: String,
        separator: String,
        findings: Vec<String>,
        /// Words for no finding.
        #[serde(default)]
        none: Vec<String>,
    },
    /// Findings, a column each.
    Columns {
        findings: Vec<String>,
        present: Vec<String>,
        absent: Vec<String>,
        #[serde(default)]
        uncertain: Vec<String>,
    },
    /// One class: the column that is 1.
    OneHot {
        /// Column and class.
        classes: BTreeMap<String, String>,
    },
}

/// Values of a class field that say neither.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UncertainClass {
    pub(crate) values: Vec<String>,
    /// Class under policy `zeros`.
    pub(crate) zeros: String,
    /// Class under policy `ones`.
    pub(crate) ones: String,
}

/// Where a split is said.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SplitRule {
    pub(crate) field: String,
    /// Value and split.
    pub(crate) words: BTreeMap<String, Split>,
    /// Values whose images are left out.
    #[serde(default)]
    pub(crate) leave_out: Vec<String>,
}

impl Schema {
    /// What is wrong with it though each key is known.
    pub(crate) fn check(&self) -> Result<(), String> {
        match (&self.images, &self.arrays) {
            (Some(_), Some(_)) => return Err("expected either images or arrays, found both".to_owned()),
            (None, None) => return Err("expected images or arrays".to_owned()),
            _ => {}
        }
        if self.arrays.is_some() && !self.tables.is_empty() {
            return Err("expected no table beside arrays".to_owned());
        }
        match self.tables.iter().find(|table| table.parts.is_empty() || table.key.is_empty()) {
            Some(_) => Err("table: expected parts and a key".to_owned()),
            None => Ok(()),
        }
    }

    /// The fields that labels, split, patient or a key need.
    pub(crate) fn needed(&self) -> Vec<&str> {
        let mut needed: Vec<&str> = match &self.labels {
            LabelRule::Class { field, .. } | LabelRule::List { field, .. } => vec![field],
            LabelRule::Columns { findings, .. } => findings.iter().map(String::as_str).collect(),
            LabelRule::OneHot { classes } => classes.keys().map(String::as_str).collect(),
        };
        needed.extend(self.split.iter().map(|split| split.field.as_str()));
        needed.extend(self.patient.iter().flat_map(|template| template_fields(template)));
        needed.extend(self.tables.iter().flat_map(|table| table.key.keys()).map(String::as_str));
        needed.sort_unstable();
        needed.dedup();
        needed
    }
}

/// `subject` and `study` of `{subject}/{study}`.
fn template_fields(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(field, _)| field)
}

/// The template with its fields filled in; `None` if one of them is missing or empty.
pub(crate) fn fill(template: &str, field: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (start, rest) = template.split_once('{').unwrap_or((template, ""));
    let mut filled = start.to_owned();
    for part in rest.split('{').filter(|part| !part.is_empty()) {
        let (name, text) = part.split_once('}')?;
        filled.push_str(&field(name).filter(|value| !value.is_empty())?);
        filled.push_str(text);
    }
    Some(filled)
}
