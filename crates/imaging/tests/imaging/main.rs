//! Images from files: what they become, by golden files and by formulas, and what is refused.

#[path = "../common/mod.rs"]
mod common;
mod dicom;
mod dicom_hostile;
mod folders;
mod golden;
mod heatmap;
mod hostile;
mod masks;
mod parts;
mod read_fit;
mod shared_dicom;
mod volumes;
mod whole_volumes;
