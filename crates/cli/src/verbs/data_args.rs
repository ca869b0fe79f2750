//! What every verb that reads a manifest is told of it, and what it says of what was read.

use crate::{Failure, advice, note};
use melo::data::{Manifest, ReadOptions, Warning};
use melo::vit::rendering::Plane;
use melo::vit::{TaskCard, TaskKind};
use std::path::{Path, PathBuf};

/// Names of columns, and how doubts are taken.
#[derive(Clone, Default, clap::Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct DataArgs {
    /// Folder of the images, where the manifest names them without it or without their extension
    #[arg(long = "images", value_name = "DIR")]
    images: Option<PathBuf>,
    /// Column of the images [default: path, or one called image, filename, image_id, …]
    #[arg(long, value_name = "NAME")]
    path_column: Option<String>,
    /// Column of the classes [default: label, or one called diagnosis, dx, class, …], or columns of 0 and 1: A,B,C
    #[arg(long = "label-column", value_name = "NAME,…", value_delimiter = ',')]
    label_columns: Vec<String>,
    /// Column of the patients: none is put into two splits [default: patient_id]
    #[arg(long, value_name = "NAME")]
    patient_column: Option<String>,
    /// Column of the splits [default: split]
    #[arg(long, value_name = "NAME")]
    split_column: Option<String>,
    /// Column of the bags: rows of one name are one example with one answer [default: bag]
    #[arg(long, value_name = "NAME")]
    bag_column: Option<String>,
    /// Volumes, folders of a series and files of several frames are bags: volumes of their slices along axial (the last axis of most
    /// NIfTI files), coronal or sagittal
    #[arg(long, value_name = "PLANE")]
    bag_axis: Option<Plane>,
    /// What the labels are, where the data do not say it: `ordinal` for grades, `regression` for numbers (an age, a score),
    /// `segmentation` for masks beside labels
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<KindArg>,
    /// The grades from the lowest: none,mild,severe [default: by their numbers]
    #[arg(long, value_name = "GRADE,…", value_delimiter = ',')]
    grades: Vec<String>,
    /// Column of the masks: files of class indices, one a pixel (PNG, TIFF, NIfTI, DICOM SEG, .npy) [default: mask, or one called
    /// mask_path, segmentation, …]
    #[arg(long, value_name = "NAME")]
    mask_column: Option<String>,
    /// Names of the classes of masks, the background first: background,polyp [default: background and numbers]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    mask_classes: Vec<String>,
    /// The values in masks that are the classes, in their order: 0,128,255 [default: 0, 1, …; or 0 and 255]
    #[arg(long, value_name = "VALUE,…", value_delimiter = ',')]
    mask_values: Vec<i64>,
    #[command(flatten)]
    strict: StrictArgs,
}

/// Kinds of labels that data do not tell apart by themselves.
#[derive(Clone, Copy, clap::ValueEnum)]
enum KindArg {
    /// One of ordered classes
    Ordinal,
    /// Numbers
    Regression,
    /// Masks
    Segmentation,
}

/// How doubts are taken.
#[derive(Clone, Copy, Default, clap::Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct StrictArgs {
    /// Refuse data with warnings: improbable classes, patients that may be one, …
    #[arg(long)]
    strict: bool,
}

impl DataArgs {
    /// How columns are found.
    pub(crate) fn options(&self) -> ReadOptions {
        ReadOptions {
            path_column: self.path_column.clone(),
            label_columns: self.label_columns.clone(),
            patient_column: self.patient_column.clone(),
            split_column: self.split_column.clone(),
            kind: self.kind.map(|kind| match kind {
                KindArg::Ordinal => TaskKind::Ordinal,
                KindArg::Regression => TaskKind::Regression,
                KindArg::Segmentation => TaskKind::Segmentation,
            }),
            grades: self.grades.clone(),
            mask_column: self.mask_column.clone(),
            mask_classes: self.mask_classes.clone(),
            mask_values: self.mask_values.clone(),
            bag_column: self.bag_column.clone(),
            bag_plane: self.bag_axis,
            images: self.images.clone(),
        }
    }

    /// The manifest at `path`, without a word.
    pub(crate) fn read(&self, path: &Path) -> Result<Manifest, Failure> {
        Ok(Manifest::read_with(path, &self.options())?)
    }

    /// The manifest at `path`; what was decided and what is improbable is said, and refused with --strict.
    pub(crate) fn manifest(&self, path: &Path) -> Result<Manifest, Failure> {
        let manifest = self.read(path)?;
        self.strict.tell(&manifest)?;
        Ok(manifest)
    }

    /// As [`DataArgs::manifest`], read as what a plug-in answers.
    pub(crate) fn manifest_for(&self, card: &TaskCard, path: &Path) -> Result<Manifest, Failure> {
        let manifest = melo::train::read_for(card, path, &self.options())?;
        self.strict.tell(&manifest)?;
        Ok(manifest)
    }

    /// Refuses `warnings`, which were said, with --strict.
    pub(crate) fn refuse(&self, path: &Path, warnings: &[Warning]) -> Result<(), Failure> {
        self.strict.refuse(path, warnings)
    }
}

impl StrictArgs {
    /// Says what was decided and what is improbable; refuses with --strict.
    pub(crate) fn tell(self, manifest: &Manifest) -> Result<(), Failure> {
        let path = manifest.path.display();
        for said in &manifest.reading.notes {
            note(format_args!("note: {path}: {said}"));
        }
        for warning in &manifest.reading.warnings {
            let hint = advice::of_warning(warning).map_or_else(String::new, |hint| format!("; {hint}"));
            note(format_args!("warning: {path}: {warning}{hint}"));
        }
        self.refuse(&manifest.path, &manifest.reading.warnings)
    }

    fn refuse(self, path: &Path, warnings: &[Warning]) -> Result<(), Failure> {
        match warnings.len() {
            found if self.strict && found > 0 => {
                let warnings = if found == 1 { "1 warning".to_owned() } else { format!("{found} warnings") };
                Err(Failure::Message(format!("{}: {warnings}, refused by --strict", path.display())))
            }
            _ => Ok(()),
        }
    }
}
