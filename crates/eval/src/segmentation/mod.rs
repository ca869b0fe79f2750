//! How well label maps overlap: Dice and IoU of areas, HD95 and normalised surface Dice of borders, each equal to MONAI's on
//! the same maps.
//!
//! `compare_segmentations` measures one image, [`segmentation_metrics`] a test set with intervals by patient.

mod compare;
mod crop;
mod distance;
mod summary;
mod surface;

pub use compare::{LabelMap, SegmentationSettings, SegmentedClass, compare_segmentations};
pub use summary::{SegmentationClass, SegmentationFigures, SegmentationMetrics, segmentation_metrics};
