//! Manifests of public sets, made from what their sites give.
//!
//! A preset is a small TOML file (`presets/*.toml`) that says where tables and images are and how labels, patients and
//! splits are written; `docs/presets.md` describes its keys. One interpreter reads them all.

mod apply;
mod arrays;
mod built_in;
mod error;
mod labels;
mod pattern;
mod policy;
mod report;
mod schema;
mod tables;
mod tree;
mod write;

use std::path::Path;

pub use apply::Applied;
pub use error::PresetError;
pub use policy::Policy;
pub use report::{ClassFound, Count, PresetReport, Remark, RemarkKind, SplitFound, TableUse};
pub use schema::Expect;

use crate::Error;
use built_in::BUILT_IN;
use schema::Schema;

/// How a public set is unpacked and labelled.
#[derive(Clone, Debug)]
pub struct Preset {
    name: String,
    schema: Schema,
}

impl Preset {
    /// All presets that are built in, by name.
    ///
    /// # Panics
    /// Never: a test reads them all.
    pub fn all() -> Vec<Preset> {
        let read = |(name, text): &(&str, &str)| Self::parse(name, text).unwrap_or_else(|error| panic!("{error}"));
        BUILT_IN.iter().map(read).collect()
    }

    /// The built-in preset `name`, or one's own if it ends in `.toml` and names a file.
    ///
    /// # Errors
    /// [`PresetError::Unknown`], [`PresetError::Schema`]; [`Error::Read`].
    pub fn named(name: &str) -> Result<Preset, Error> {
        if name.ends_with(".toml") {
            return Self::read(Path::new(name));
        }
        match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((name, text)) => Self::parse(name, text),
            None => {
                let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                let known = format!("{}, or a file of your own that ends in .toml", names.join(", "));
                Err(PresetError::Unknown { name: name.to_owned(), known }.into())
            }
        }
    }

    /// A preset file.
    ///
    /// # Errors
    /// [`Error::Read`]; [`PresetError::Schema`] for an unknown key or a wrong value.
    pub fn read(path: &Path) -> Result<Preset, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    fn parse(name: &str, text: &str) -> Result<Preset, Error> {
        let refuse = |reason: String| PresetError::Schema { name: name.to_owned(), reason };
        let schema: Schema = toml::from_str(text).map_err(|error| refuse(error.to_string().trim_end().to_owned()))?;
        schema.check().map_err(refuse)?;
        Ok(Preset { name: name.to_owned(), schema })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The set's name.
    pub fn title(&self) -> &str {
        &self.schema.title
    }

    /// Where the set comes from.
    pub fn url(&self) -> &str {
        &self.schema.url
    }

    /// What to cite.
    pub fn citation(&self) -> &str {
        &self.schema.citation
    }

    /// Under which terms the set is given.
    pub fn licence(&self) -> &str {
        &self.schema.licence
    }

    /// What a user should know; may be empty.
    pub fn note(&self) -> &str {
        &self.schema.note
    }

    /// Counts of the publication.
    pub fn expect(&self) -> Expect {
        self.schema.expect
    }

    /// True if images may show several findings.
    pub fn is_multi_label(&self) -> bool {
        use schema::LabelRule::{Columns, List};
        matches!(self.schema.labels, List { .. } | Columns { .. })
    }

    /// Finds images and labels below `folder`, where the set was unpacked. No image is opened.
    ///
    /// # Errors
    /// A table or all images missing, unreadable, or not as the preset says. Anything about single images is in the
    /// report instead.
    pub fn apply(&self, folder: &Path, policy: Option<Policy>) -> Result<Applied, Error> {
        apply::apply(&self.name, &self.schema, folder, policy)
    }
}
