//! Labelled images: manifests, patient-wise splits, checks, augmentation and cached loading; synthetic images.
//!
//! ```text
//! Manifest::read     CSV or folders        -> rows with labels, perhaps splits
//! assign_splits      rows without split    -> train, val, test; no patient in two of them
//! check              every file, decoded   -> CheckReport: problems and warnings
//! Dataset            rows of one split     -> [3, size, size] inputs, cached, augmented
//! ```
//!
//! Whatever is random here is a function of a seed given by the caller, never of a thread or a clock, so that
//! training resumes bit for bit.

mod augment;
mod cache;
mod check;
mod dataset;
mod error;
mod manifest;
mod random;
mod report;
mod split;
pub mod synthetic;

pub use augment::Augment;
pub use cache::Cache;
pub use check::check;
pub use dataset::{Dataset, EpochAugment, EpochView, Unreadable};
pub use error::Error;
pub use manifest::{Labels, Manifest, Row};
pub use random::shuffled;
pub use report::{CheckReport, ClassInSplit, DuplicateFile, PatientAcross, Problem, SizeCount, SplitCount, Warning};
pub use split::{Assigned, DEFAULT_FRACTIONS, Split};
