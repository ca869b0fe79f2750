//! Answers to all images of an archive, as Parquet files that survive a kill.
//!
//! ```text
//! Input       folders, prefixes of object stores, lists, images -> listed once, in a fixed order: DIR/inputs, DIR/plan.json
//! run         chunk after chunk, decoded ahead -> DIR/parts/part-0000012-PLAN.parquet, whole or not there
//!   finish    every part read once             -> DIR/manifest.json
//! check       DIR                              -> what is missing, damaged, or of something else
//!
//! enqueue     as run, but for computing        -> a message a chunk in NATS JetStream: feature `queue`
//! work        messages, on any machine         -> the same parts
//! collect     the same parts                   -> the same manifest
//! ```
//!
//! The parts are the journal: a chunk is done when its part is there. Answers are those of [`melo_predict::Predictor`], and the files a
//! function of images, weights, settings and processor: they hold neither clock nor machine.

mod ahead;
#[cfg(feature = "queue")]
mod broker;
mod caught;
mod check;
#[cfg(feature = "queue")]
mod collect;
mod compute;
mod draft;
#[cfg(feature = "queue")]
mod enqueue;
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
#[cfg(feature = "queue")]
mod queue;
mod row;
mod run;
#[cfg(feature = "object-store")]
mod s3;
#[cfg(feature = "queue")]
mod shared;
mod sources;
#[cfg(feature = "queue")]
mod status;
mod store;
#[cfg(feature = "queue")]
mod worker;

#[cfg(feature = "queue")]
pub use broker::Broker;
pub use check::{Checked, Damaged, Manifest, PartRecord, check};
#[cfg(feature = "queue")]
pub use collect::collect;
#[cfg(feature = "queue")]
pub use enqueue::{Enqueued, enqueue};
pub use error::Error;
pub use estimate::{Need, SAMPLE, Sample};
pub use inputs::{Input, Listed};
pub use patient::PatientKey;
pub use place::{ObjectName, Place};
pub use plan::{CHUNK, Plan, PlannedPlugin};
#[cfg(feature = "queue")]
pub use queue::{Listener, News};
pub use run::{Event, Finished, Settings, run};
#[cfg(feature = "queue")]
pub use shared::{Failure, Hints, Joined, Sharing, WorkerReport, WorkerState};
#[cfg(feature = "queue")]
pub use status::{Status, Watch, WorkerStatus};
#[cfg(feature = "queue")]
pub use worker::{Worked, work};
