//! Features of a list of images by a frozen backbone, with or without a plug-in, in memory or in a file.
//!
//! ```text
//! Inputs      files, or rows of a manifest
//! Embedder    engine, features, preprocessing -> Embedder::embed: values and digest of each image
//! write       every image, a chunk at a time  -> OUT.partial/{values, rows.csv, journal.json}
//!   finish    a header in front or a table behind -> OUT as .npy, .safetensors or .parquet
//! ```
//!
//! Memory does not grow with the list, but for its names. What was interrupted goes on after the last chunk in the journal and ends with the same bytes:
//! the file is a function of images, weights and settings, and holds neither clock nor machine.

mod about;
mod embedder;
mod error;
mod format;
mod inputs;
mod partial;
mod write;

pub use about::{About, Failed};
pub use embedder::{Embedded, Embedder};
pub use error::Error;
pub use format::{Format, sidecars};
pub use inputs::{Column, Input, Inputs};
pub use write::{Event, Output, Written, write};
