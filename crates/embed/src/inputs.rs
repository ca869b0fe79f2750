//! Which images, and what is written beside their features.

use crate::error::Error;
use melo_data::{Labels, Manifest, Row, Split};
use melo_imaging::ListedImage;
use melo_vit::TaskKind;
use std::path::{Path, PathBuf};

/// What is known of every image of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its head in tables.
    pub name: String,
    /// Whole numbers; else text.
    pub integer: bool,
}

/// One image of a list.
#[derive(Clone, Debug)]
pub struct Input {
    /// What is read; may name one image of several, `scan.dcm#frame=2`.
    pub path: PathBuf,
    /// What the image is called in tables.
    pub name: String,
    /// Its values in [`Inputs::columns`].
    pub fields: Vec<String>,
    /// Its row, where it lies in a pack.
    pub(crate) packed: Option<Row>,
}

impl Input {
    /// A file by its own name.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Input { name: path.display().to_string(), path, fields: Vec::new(), packed: None }
    }
}

/// Images in order, with what is known of them.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// What is known of each.
    pub columns: Vec<Column>,
    /// The images; the row of one is its place here, from 0.
    pub images: Vec<Input>,
}

impl Inputs {
    /// Files, of which nothing but the name is known.
    pub fn files<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        Inputs { columns: Vec::new(), images: paths.into_iter().map(Input::file).collect() }
    }

    /// A text file with an image a line, relative to its folder; empty lines are passed over.
    ///
    /// # Errors
    /// [`Error::Io`], also for what is no UTF-8; [`Error::NoInput`].
    pub fn list(path: &Path) -> Result<Self, Error> {
        let listed = melo_imaging::read_list(path).map_err(Error::io(path))?;
        let input = |ListedImage { path, name }| Input { path, name, fields: Vec::new(), packed: None };
        let images: Vec<Input> = listed.into_iter().map(input).collect();
        match images.is_empty() {
            true => Err(Error::NoInput { path: path.to_owned() }),
            false => Ok(Inputs { columns: Vec::new(), images }),
        }
    }

    /// The images of a manifest, or of one of its splits, in its order: with `line`, `patient_id`, `split`, and `label` or a column
    /// `label_FINDING` for each finding, as `melo eval --predictions` writes them.
    ///
    /// # Errors
    /// [`melo_data::Error::EmptySplit`].
    pub fn manifest(manifest: &Manifest, split: Option<Split>) -> Result<Self, Error> {
        let column = |name: &str, integer| Column { name: name.to_owned(), integer };
        let mut columns = vec![column("line", true), column("patient_id", false), column("split", false)];
        let of_each = |integer| manifest.classes.iter().map(move |class| column(&format!("label_{class}"), integer));
        match manifest.kind {
            TaskKind::SingleLabel | TaskKind::Ordinal => columns.push(column("label", false)),
            TaskKind::MultiLabel => columns.extend(of_each(true)),
            TaskKind::Segmentation => {}
            TaskKind::Regression => columns.extend(of_each(false)),
        }
        let input = |row: &Row| {
            let patient = row.patient_id.clone().unwrap_or_default();
            let mut fields = vec![row.line.to_string(), patient, row.split.map_or("", Split::word).to_owned()];
            match &row.labels {
                Labels::Single(class) => fields.push(manifest.classes[*class].clone()),
                Labels::Multi(findings) => fields.extend(findings.iter().map(ToString::to_string)),
                Labels::Values(values) => fields.extend(values.iter().map(ToString::to_string)),
            }
            let packed = row.packed.is_some().then(|| row.clone());
            Input { path: row.path.clone(), name: row.name.clone(), fields, packed }
        };
        let rows = manifest.rows.iter().filter(|row| split.is_none_or(|split| row.split == Some(split)));
        let images: Vec<Input> = rows.map(input).collect();
        match split {
            Some(split) if images.is_empty() => {
                Err(melo_data::Error::EmptySplit { path: manifest.path.clone(), split }.into())
            }
            _ => Ok(Inputs { columns, images }),
        }
    }
}
