//! How a manifest is read where it does not say so itself.

use std::path::PathBuf;

use melo_imaging::MaskReading;
use melo_vit::TaskKind;
use melo_vit::rendering::Plane;
use serde::{Deserialize, Serialize};

/// What [`Manifest::read_with`](crate::Manifest::read_with) is told. The default tells nothing: columns go by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadOptions {
    /// Column of the images, instead of `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_column: Option<String>,
    /// The column of the classes, instead of `label`; or several columns of 0 and 1, which are classes where each image shows
    /// exactly one of them, and else findings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub label_columns: Vec<String>,
    /// Column of the patients, instead of `patient_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patient_column: Option<String>,
    /// Column of the splits, instead of `split`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_column: Option<String>,
    /// What the labels are, where it is not for the table to say: ordered classes, numbers, or masks beside labels. Classes or
    /// findings are refused where the table has the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<TaskKind>,
    /// The grades from the lowest, where they are no numbers that are in order by themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grades: Vec<String>,
    /// Column of the masks, instead of one with a usual name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_column: Option<String>,
    /// Names of the classes of masks, the background first, instead of numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mask_classes: Vec<String>,
    /// The values in masks that are the classes, in their order, instead of their numbers: 0, 128, 255.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mask_values: Vec<i64>,
    /// Column of the bags: rows of one name are one example. None is looked for but one that is called `bag`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bag_column: Option<String>,
    /// The plane in which volumes are cut into the images of a bag; without it a volume is one image, its middle slice. Frames, pages,
    /// images of an array and the files of a folder are then bags, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bag_plane: Option<Plane>,
    /// Folder in which the images are looked for, before that of the manifest.
    #[serde(skip)]
    pub images: Option<PathBuf>,
}

impl ReadOptions {
    /// True if it tells nothing that a pack must remember.
    pub(crate) fn is_silent(&self) -> bool {
        Self { images: None, ..self.clone() } == Self::default()
    }
}

/// How a manifest was read, and what of it should be known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// What it was told.
    pub options: ReadOptions,
    /// What was decided where more than one reading was possible.
    pub notes: Vec<crate::Note>,
    /// What is improbable as it stands.
    pub warnings: Vec<crate::Warning>,
    /// How masks are read, where [`Manifest::with_mask_classes`](crate::Manifest::with_mask_classes) has seen them.
    pub masks: Option<MaskReading>,
}
