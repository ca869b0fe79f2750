//! Answers to all images of an archive, as Parquet files that survive a kill.
//!
//! ```text
//! Input       folders, prefixes of object stores, lists, images -> listed once, in a fixed order: DIR/inputs, DIR/plan.json
//! run         chunk after chunk, decoded ahead -> DIR/parts/part-0000012-PLAN.parquet, whole or not there
//!   finish    every part read once             -> DIR/manifest.json
//! check       DIR                              -> what is missing, damaged, or of something else
//! ```
//!
//! The parts are the journal: a chunk is done when its part is there. Answers are those of [`melo_predict::Predictor`], and the files a
//! function of images, weights, settings and processor: they hold neither clock nor machine.

mod ahead;
mod caught;
mod check;
mod error;
mod estimate;
mod folder;
mod image;
mod inputs;
mod names;
#[cfg(not(feature = "object-store"))]
mod no_s3;
mod part;
mod patient;
mod place;
mod plan;
mod row;
mod run;
#[cfg(feature = "object-store")]
mod s3;
mod sources;
mod store;

pub use check::{Checked, Damaged, Manifest, PartRecord, check};
pub use error::Error;
pub use estimate::{Need, SAMPLE, Sample};
pub use inputs::{Input, Listed};
pub use patient::PatientKey;
pub use place::{ObjectName, Place};
pub use plan::{CHUNK, Plan, PlannedPlugin};
pub use run::{Event, Finished, Settings, run};
