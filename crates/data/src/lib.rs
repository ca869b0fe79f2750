//! Labelled images: manifests, patient-wise splits, checks, augmentation and cached loading.
//!
//! ```text
//! Preset::apply      a public set        -> Manifest, PresetReport; written as CSV
//! Manifest::read     CSV or folders        -> rows with labels, perhaps splits
//! assign_splits      rows without split    -> train, val, test; no patient in two of them
//! with_fold          rows, a fold of k     -> that fold as test; every image is tested once
//! subset_train       rows, a share         -> fewer training patients; val and test as they are
//! columns            a CSV beside it       -> what each image's columns say, for subgroups
//! Dataset::bags      rows in bags          -> which of them are one example
//! check              every file, decoded   -> CheckReport: problems and warnings
//! pack               every file, resized -> a few large files, read as a manifest
//! Dataset            rows of one split     -> [3, size, size] inputs, and [size, size] labels of masks, cached, augmented
//! ```
//!
//! Whatever is random here is a function of a seed given by the caller, never of a thread or a clock, so that
//! training resumes bit for bit.

mod alike;
mod appearance;
mod assign;
mod augment;
mod bags;
mod cache;
mod check;
mod columns;
mod csv_file;
mod dataset;
mod error;
mod fingerprint;
mod folds;
mod improbable;
mod manifest;
mod masks;
mod near;
mod note;
mod options;
mod pack;
mod place;
mod preset;
mod random;
mod relative;
mod report;
mod roles;
mod split;
pub mod spreadsheet;
mod subset;
mod text;
mod unpacked;
mod workbook;

pub use appearance::{Appearance, appearance};
pub use assign::{Assigned, DEFAULT_FRACTIONS};
pub use augment::Augment;
pub use cache::Cache;
pub use check::{check, examine};
pub use columns::{Columns, ImageGroup, columns, columns_with};
pub use dataset::{Dataset, EpochAugment, EpochView, Unreadable, open_splits, unread_splits, unreadable};
pub use error::Error;
pub use manifest::{InBag, Labels, Manifest, MaskFile, Row, images_of_bag};
pub use note::Note;
pub use options::{ReadOptions, Reading};
pub use pack::{LeftUnread, Pack, PackError, PackOptions, PackReport, Packed, pack};
pub use preset::{
    Applied, ClassFound, Count, Expect, Policy, Preset, PresetError, PresetReport, Remark, RemarkKind, SplitFound,
    TableUse,
};
pub use random::shuffled;
pub use relative::way_between;
pub use report::{
    CheckReport, ClassInSplit, DuplicateFile, NearPair, PatientAcross, Place, Problem, SizeCount, Spelling, SplitCount,
    Spread, Warning,
};
pub use split::Split;
