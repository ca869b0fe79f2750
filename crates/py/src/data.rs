//! Labelled images: a manifest that is read from a file, a table that Python has, or arrays.

use crate::errors::{Door, Failure, OrRaise};
use crate::images::{Image, taken};
use crate::plugin::scratch;
use melo::data::{Cache, Labels, Manifest, ReadOptions, Reading, Row, Split};
use melo::imaging::Pixels;
use melo::train::{manifest_for, read_for};
use melo::vit::{TaskCard, TaskKind};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Labelled images.
#[pyclass(name = "Data", module = "melo_vit._melo", frozen)]
pub(crate) struct PyData {
    place: Place,
    options: ReadOptions,
    images: HashMap<PathBuf, Pixels>,
}

enum Place {
    /// A table, a folder or a pack.
    File(PathBuf),
    /// A table that was written for a while, and what it is called.
    Table(tempfile::TempDir, String),
    /// Rows.
    Rows(Box<Manifest>),
}

/// File of a table that Python has.
const TABLE: &str = "frame.csv";

fn options(json: &str, images: Option<PathBuf>) -> Result<ReadOptions, Failure> {
    let options: ReadOptions =
        serde_json::from_str(json).map_err(|error| Failure::setting("reading", error.to_string()))?;
    Ok(ReadOptions { images, ..options })
}

#[pymethods]
impl PyData {
    /// A manifest, a folder or a pack.
    #[staticmethod]
    fn read(path: PathBuf, options: &str, images: Option<PathBuf>) -> PyResult<Self> {
        let options = self::options(options, images)?;
        Ok(PyData { place: Place::File(path), options, images: HashMap::new() })
    }

    /// A table as CSV; its images are looked for in `images`.
    #[staticmethod]
    fn table(text: &str, name: String, options: &str, images: PathBuf) -> PyResult<Self> {
        let options = self::options(options, Some(images))?;
        let folder = scratch()?;
        std::fs::write(folder.path().join(TABLE), text)?;
        Ok(PyData { place: Place::Table(folder, name), options, images: HashMap::new() })
    }

    /// Images with a class each, findings `[n][c]` or numbers `[n][c]`.
    #[staticmethod]
    #[pyo3(signature = (images, labels, classes, kind, patients, splits, weights, layout, value_range))]
    #[expect(clippy::too_many_arguments, reason = "called by Python's side of the door alone")]
    fn arrays(
        images: &Bound<'_, PyAny>,
        labels: Vec<Vec<f64>>,
        classes: Vec<String>,
        kind: &str,
        patients: Option<Vec<Option<String>>>,
        splits: Option<Vec<String>>,
        weights: Option<Vec<f32>>,
        layout: Option<&str>,
        value_range: Option<(f64, f64)>,
    ) -> PyResult<Self> {
        let kind: TaskKind = serde_json::from_value(kind.into())
            .map_err(|_| Failure::setting("kind", "expected single_label, ordinal, multi_label or regression"))?;
        let images = taken(images, layout, value_range)?;
        let lengths = [
            ("labels", Some(labels.len())),
            ("groups", patients.as_ref().map(Vec::len)),
            ("splits", splits.as_ref().map(Vec::len)),
            ("weights", weights.as_ref().map(Vec::len)),
        ];
        for (what, found) in lengths {
            Failure::unless_as_many((images.len(), "images"), (found.unwrap_or(images.len()), what))?;
        }
        if let Some(weight) = weights.iter().flatten().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
            return Err(Failure::setting("weights", format!("has {weight}, expected positive numbers")).into());
        }
        // A training sorts images by name: those of arrays stay in their order.
        let digits = images.len().to_string().len();
        let mut rows = Vec::with_capacity(images.len());
        let mut pixels = HashMap::new();
        for (index, (image, values)) in images.into_iter().zip(labels).enumerate() {
            let path = match image {
                Image::File(path) => path,
                Image::Pixels(_, of_image) => {
                    let path = PathBuf::from(format!("image {index:0digits$}"));
                    pixels.insert(path.clone(), of_image);
                    path
                }
                Image::Bytes(name, _) => {
                    let message = format!("{}: training takes files and pixels, not bytes of files", name.display());
                    return Err(Failure::new(Door::Data, "Bytes", message).into());
                }
            };
            let labels = match kind {
                TaskKind::SingleLabel | TaskKind::Ordinal => Labels::Single(values[0] as usize),
                TaskKind::Regression => Labels::Values(values.iter().map(|&value| value as f32).collect()),
                _ => Labels::Multi(values.iter().map(|&value| u8::from(value != 0.0)).collect()),
            };
            let split = splits.as_ref().map(|splits| {
                let word = &splits[index];
                Split::from_word(word)
                    .ok_or_else(|| Failure::setting("splits", format!("has \"{word}\", expected train, val or test")))
            });
            rows.push(Row {
                name: path.display().to_string(),
                path,
                split: split.transpose()?,
                labels,
                mask: None,
                bag: None,
                patient_id: patients.as_ref().and_then(|patients| patients[index].clone()),
                line: 0,
                weight: weights.as_ref().map_or(1.0, |weights| weights[index]),
                packed: None,
            });
        }
        let manifest =
            Manifest { path: PathBuf::from("python/arrays"), classes, kind, rows, reading: Reading::default() };
        Ok(PyData { place: Place::Rows(Box::new(manifest)), options: ReadOptions::default(), images: pixels })
    }
}

impl PyData {
    /// What a task is called where nobody says so; none where the manifest's folder is it.
    pub(crate) fn task(&self) -> Option<&str> {
        match &self.place {
            Place::File(_) => None,
            Place::Table(_, name) => Some(name),
            Place::Rows(_) => Some("arrays"),
        }
    }

    /// The plane in which volumes are cut, where they are bags.
    pub(crate) fn bag_plane(&self) -> Option<melo::vit::rendering::Plane> {
        self.options.bag_plane
    }

    fn read_with(&self, read: impl Fn(&Path) -> Result<Manifest, Failure>) -> Result<Manifest, Failure> {
        match &self.place {
            Place::File(path) => read(path),
            Place::Table(folder, name) => {
                let manifest = read(&folder.path().join(TABLE))?;
                Ok(Manifest { path: Path::new("python").join(name), ..manifest })
            }
            Place::Rows(manifest) => Ok(Manifest::clone(manifest)),
        }
    }

    /// The images with labels.
    pub(crate) fn manifest(&self) -> Result<Manifest, Failure> {
        self.read_with(|path| Manifest::read_with(path, &self.options).or_raise(Door::Data))
    }

    /// The same, as a plug-in answers them, with the splits that its training saw.
    pub(crate) fn manifest_for(&self, card: &TaskCard) -> Result<Manifest, Failure> {
        let manifest = self.read_with(|path| read_for(card, path, &self.options).or_raise(Door::Data))?;
        Ok(manifest_for(card, manifest).or_raise(Door::Data)?.0)
    }

    /// A cache that knows the images that are in no file.
    pub(crate) fn cache(&self) -> Arc<Cache> {
        Arc::new(Cache::new(Cache::DEFAULT_BYTES).with_images(self.images.clone()))
    }
}
