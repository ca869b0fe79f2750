//! Which images there are, and what they show.

mod bags;
mod folder;
mod kind;
mod labels;
mod read;
mod table;

pub use bags::images_of_bag;

use std::collections::HashMap;
use std::path::PathBuf;

use melo_vit::{Preprocess, TaskKind};
use sha2::{Digest, Sha256};

use crate::{Error, Packed, Reading, Split};

/// What one image shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    /// Exactly one class: its index into [`Manifest::classes`].
    Single(usize),
    /// Any number of findings: 0 or 1 for each of [`Manifest::classes`].
    Multi(Vec<u8>),
    /// A finite number for each of [`Manifest::classes`].
    Values(Vec<f32>),
}

impl Labels {
    /// True if the image shows class `class`.
    pub fn has(&self, class: usize) -> bool {
        match self {
            Labels::Single(label) => *label == class,
            Labels::Multi(findings) => findings.get(class) == Some(&1),
            Labels::Values(_) => false,
        }
    }

    /// The number at this place, where it is one of numbers.
    pub fn number(&self, number: usize) -> Option<f32> {
        match self {
            Labels::Values(values) => values.get(number).copied(),
            _ => None,
        }
    }

    /// True if it fits `classes` classes of a manifest of this kind.
    pub(crate) fn fits(&self, classes: usize, kind: TaskKind) -> bool {
        match self {
            Labels::Single(label) => kind.is_one_class() && *label < classes,
            Labels::Multi(findings) => {
                let several = matches!(kind, TaskKind::MultiLabel | TaskKind::Segmentation);
                several && findings.len() == classes && findings.iter().all(|&f| f < 2)
            }
            Labels::Values(values) => {
                kind == TaskKind::Regression && values.len() == classes && values.iter().all(|v| v.is_finite())
            }
        }
    }
}

/// One image of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The file, resolved against the manifest.
    pub path: PathBuf,
    /// The file as the manifest writes it; in a directory, relative to it, with `/`.
    pub name: String,
    /// Where it belongs, if that is decided.
    pub split: Option<Split>,
    /// What it shows.
    pub labels: Labels,
    /// Its mask, if the manifest has a column of masks and a name there.
    pub mask: Option<MaskFile>,
    /// The bag that it is an image of, if images of the manifest are in bags.
    pub bag: Option<InBag>,
    /// Whose it is; `None` makes the image its own patient.
    pub patient_id: Option<String>,
    /// Line in the CSV, from 1; 0 in a directory.
    pub line: usize,
    /// How much it counts in the loss of a training, positive; 1 in every file.
    pub weight: f32,
    /// Its pixels, if the manifest is a pack: the file at `path` is then not opened, and need not be there.
    pub packed: Option<Packed>,
}

impl Row {
    /// True for the first image of a bag, and for every image that is in none: such rows stand for one example each.
    pub fn is_example(&self) -> bool {
        self.bag.as_ref().is_none_or(|bag| bag.place == 0)
    }
}

/// Which image of which bag a row is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InBag {
    /// The bag.
    pub name: String,
    /// Place of the image among the bag's, 0 the first.
    pub place: usize,
}

/// The mask of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskFile {
    /// The file, resolved as the image is.
    pub path: PathBuf,
    /// The file as the manifest writes it.
    pub name: String,
}

/// A list of labelled images.
///
/// A table (CSV in any usual separator and encoding, or a workbook) with a header; columns in any order, paths relative to it:
///
/// | columns | meaning |
/// |---|---|
/// | `path`, `label` | one class an image; classes are the sorted distinct labels |
/// | `path`, then one column a finding | multi-label, 0 or 1; classes in order of the columns |
/// | `path`, `label` or columns that are named | grades or numbers, where [`ReadOptions::kind`](crate::ReadOptions::kind) says so |
/// | `split` (optional) | `train`, `val`, `valid`, `validation` or `test`, in any case |
/// | `bag` (optional) | rows of one bag are one example, its images in the order of the rows: the slices of a volume, the films of a study |
/// | `mask` (optional) | a file of class indices, one a pixel of the image; a table that has it needs no label |
/// | `patient_id` (optional) | rows of one patient never go to two splits; may be empty |
///
/// Other columns are metadata, for [`columns`](crate::columns()). `docs/manifests.md` says what else is read, and as what.
///
/// Or a directory, `DIR/class/*` or `DIR/{train,val,test}/class/*`, whose files are told by name or content; what is no image is
/// noted, classes are sorted. A directory that holds `labels.csv` is read by that.
///
/// Or the folder of a pack ([`pack`](crate::pack())): rows and digests are those of the manifest that was packed.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The CSV or directory.
    pub path: PathBuf,
    /// Names of the classes, of the grades from the lowest, of the findings or of the numbers; none where masks are all that images are
    /// labelled with and [`Manifest::with_mask_classes`] has not seen them.
    pub classes: Vec<String>,
    /// What is known of each image: one class, a grade, any number of findings, numbers, or a mask.
    pub kind: TaskKind,
    /// The images, in order of the file; sorted in a directory.
    pub rows: Vec<Row>,
    /// How it was read, and what of it should be known.
    pub reading: Reading,
}

impl Manifest {
    /// The same images with labels as indices into `classes`, a plug-in's, in its order.
    ///
    /// # Errors
    /// [`Error::UnknownClass`] for a label outside `classes`; [`Error::MissingFinding`] if a finding, or a number, has no column. A
    /// manifest of one class an image need not show every class. A sole number that is called `label` may be that of any name.
    pub fn with_classes(&self, classes: &[String]) -> Result<Manifest, Error> {
        let sole = self.kind == TaskKind::Regression && classes.len() == 1 && self.classes == ["label"];
        let own = if sole { classes } else { &self.classes };
        let new_index: Vec<Option<usize>> =
            own.iter().map(|class| classes.iter().position(|new| new == class)).collect();
        let unknown = |class: usize, line| Error::UnknownClass {
            path: self.path.clone(),
            line,
            class: self.classes[class].clone(),
            allowed: classes.to_vec(),
        };
        if !self.kind.is_one_class() {
            if let Some(class) = new_index.iter().position(Option::is_none) {
                return Err(unknown(class, 1));
            }
            if let Some(class) = classes.iter().find(|class| !own.contains(class)) {
                let (path, found) = (self.path.clone(), self.classes.clone());
                return Err(Error::MissingFinding { path, class: class.clone(), found });
            }
        }
        let mut rows = self.rows.clone();
        for row in &mut rows {
            row.labels = match &row.labels {
                Labels::Single(label) => Labels::Single(new_index[*label].ok_or_else(|| unknown(*label, row.line))?),
                Labels::Multi(findings) => Labels::Multi(moved(findings, &new_index)),
                Labels::Values(values) => Labels::Values(moved(values, &new_index)),
            };
        }
        let (path, reading) = (self.path.clone(), self.reading.clone());
        Ok(Manifest { path, classes: classes.to_vec(), kind: self.kind, rows, reading })
    }

    /// Refuses a preprocessing that a pack was not made for; anything else takes all.
    ///
    /// # Errors
    /// [`PackError::Preprocess`](crate::PackError::Preprocess).
    pub fn check_preprocess(&self, spec: &Preprocess) -> Result<(), Error> {
        match self.rows.iter().find_map(|row| row.packed.as_ref()) {
            Some(_) if spec.depth.is_some() => Err(Error::VolumesOfPack { path: self.path.clone() }),
            Some(packed) => Ok(packed.pack().check(spec)?),
            None => Ok(()),
        }
    }

    /// True if any image has a mask.
    pub fn has_masks(&self) -> bool {
        self.rows.iter().any(|row| row.mask.is_some())
    }

    /// True if any image has been given a split.
    pub fn has_splits(&self) -> bool {
        self.rows.iter().any(|row| row.split.is_some())
    }

    /// True if images are in bags, each of which is one example.
    pub fn has_bags(&self) -> bool {
        self.rows.iter().any(|row| row.bag.is_some())
    }

    /// Examples of one split: bags, or images where there are no bags.
    pub fn examples(&self, split: Split) -> usize {
        self.rows.iter().filter(|row| row.split == Some(split) && row.is_example()).count()
    }

    /// The images of one split, in order.
    pub fn split(&self, split: Split) -> Vec<&Row> {
        self.rows.iter().filter(|row| row.split == Some(split)).collect()
    }

    /// SHA-256, in hexadecimal, of what the manifest says: names, labels, splits and patients, but no pixel.
    ///
    /// Neither the order of rows nor that of classes changes it, but for grades. Hashed are, each as a little-endian `u64` length and
    /// its bytes: `melo-manifest-1`; `single`, `ordinal` and the grades from the lowest, `multi` and the sorted findings, `regression`
    /// and the sorted names of the numbers, or `segmentation`; then for each image, sorted by name: its name, split, patient (both empty if none), the
    /// number of classes that it shows in decimal, and these, sorted; of numbers instead each, in that order, as its 4 bytes; of
    /// masks no more than the patient.
    /// Where any image has a mask, `melo-masks-1` comes behind all that, and then, in the same order, each image's name and the name
    /// of its mask (empty if none); their pixels are in [`mask_digest`](Self::mask_digest). Where images are in bags, `melo-bags-1` comes
    /// behind all that, and then, in the same order, each image's name, the name of its bag and its place there in decimal.
    /// Where any weight is not 1, `melo-weights-1` comes behind all that, and then, in the same order, each as its 4 bytes.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut field = |text: &str| hash_field(&mut hash, text.as_bytes());
        field("melo-manifest-1");
        let mut classes: Vec<(&str, usize)> = self.classes.iter().map(String::as_str).zip(0..).collect();
        classes.sort_unstable();
        match self.kind {
            TaskKind::SingleLabel => field("single"),
            TaskKind::Ordinal => ["ordinal"].into_iter().chain(self.classes.iter().map(String::as_str)).for_each(field),
            TaskKind::MultiLabel => {
                ["multi"].into_iter().chain(classes.iter().map(|(class, _)| *class)).for_each(field)
            }
            TaskKind::Segmentation => field("segmentation"),
            TaskKind::Regression => {
                ["regression"].into_iter().chain(classes.iter().map(|(class, _)| *class)).for_each(field);
            }
        }
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        for row in &rows {
            let mut field = |text: &str| hash_field(&mut hash, text.as_bytes());
            field(&row.name);
            field(row.split.map_or("", Split::word));
            field(row.patient_id.as_deref().unwrap_or_default());
            if let Labels::Values(values) = &row.labels {
                classes.iter().for_each(|(_, index)| hash_field(&mut hash, &values[*index].to_le_bytes()));
                continue;
            }
            if self.kind == TaskKind::Segmentation {
                continue;
            }
            let shown: Vec<&str> =
                classes.iter().filter(|(_, index)| row.labels.has(*index)).map(|(class, _)| *class).collect();
            field(&shown.len().to_string());
            shown.iter().for_each(|class| field(class));
        }
        if self.has_masks() {
            let mut field = |text: &str| hash_field(&mut hash, text.as_bytes());
            field("melo-masks-1");
            for row in &rows {
                field(&row.name);
                field(row.mask.as_ref().map_or("", |mask| &mask.name));
            }
        }
        bags::digest(&rows, &mut |text| hash_field(&mut hash, text.as_bytes()));
        if rows.iter().any(|row| row.weight != 1.0) {
            hash_field(&mut hash, b"melo-weights-1");
            rows.iter().for_each(|row| hash_field(&mut hash, &row.weight.to_le_bytes()));
        }
        melo_vit::hex(&hash.finalize())
    }

    /// SHA-256, in hexadecimal, of the bytes of all masks; `None` where there is no mask.
    ///
    /// Hashed are, for each image, sorted by name: its name and its mask's bytes, each behind its length as a little-endian `u64`; none
    /// for an image without a mask.
    ///
    /// # Errors
    /// [`Error::Read`] for the first mask that cannot be read.
    pub fn mask_digest(&self) -> Result<Option<String>, Error> {
        if !self.has_masks() {
            return Ok(None);
        }
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hash = Sha256::new();
        for row in rows {
            let bytes = match &row.mask {
                Some(mask) => std::fs::read(melo_imaging::file_of(&mask.path))
                    .map_err(|source| Error::Read { path: mask.path.clone(), source })?,
                None => Vec::new(),
            };
            hash_field(&mut hash, row.name.as_bytes());
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        Ok(Some(melo_vit::hex(&hash.finalize())))
    }

    /// SHA-256, in hexadecimal, of which image is in which split, whatever the labels, patients and order of rows.
    ///
    /// Hashed are, each as a little-endian `u64` length and its bytes: `melo-splits-1`; then for each image, sorted by
    /// name and then by split as bytes: its name and its split (`train`, `val`, `test`, or empty if it has none).
    pub fn split_digest(&self) -> String {
        let mut pairs: Vec<(&str, &str)> =
            self.rows.iter().map(|row| (row.name.as_str(), row.split.map_or("", Split::word))).collect();
        pairs.sort_unstable();
        let mut hash = Sha256::new();
        for text in ["melo-splits-1"].into_iter().chain(pairs.into_iter().flat_map(<[&str; 2]>::from)) {
            hash_field(&mut hash, text.as_bytes());
        }
        melo_vit::hex(&hash.finalize())
    }

    /// `"melanoma"`, or `"edema", "effusion"`, or `without a finding`.
    pub(crate) fn describe(&self, labels: &Labels) -> String {
        if let Labels::Values(values) = labels {
            let named = self.classes.iter().zip(values).map(|(class, value)| format!("{class} {value}"));
            return named.collect::<Vec<_>>().join(", ");
        }
        let shown: Vec<String> = self
            .classes
            .iter()
            .zip(0..)
            .filter(|&(_, index)| labels.has(index))
            .map(|(class, _)| format!("\"{class}\""))
            .collect();
        if shown.is_empty() { "without a finding".to_owned() } else { shown.join(", ") }
    }
}

/// A length as a little-endian `u64`, and the bytes.
fn hash_field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// What stands at each place, at its new one.
fn moved<T: Copy + Default>(values: &[T], new_index: &[Option<usize>]) -> Vec<T> {
    let mut moved = vec![T::default(); values.len()];
    values.iter().zip(new_index.iter().flatten()).for_each(|(&value, &index)| moved[index] = value);
    moved
}

/// Makes `Single` labels of class names: the sorted distinct names, and each row's index among them.
pub(crate) fn index_classes(labels: Vec<String>) -> (Vec<String>, Vec<Labels>) {
    let mut classes = labels.clone();
    classes.sort_unstable();
    classes.dedup();
    let index: HashMap<&str, usize> = classes.iter().map(String::as_str).zip(0..).collect();
    let labels = labels.iter().map(|label| Labels::Single(index[label.as_str()])).collect();
    (classes, labels)
}
