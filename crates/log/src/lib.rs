//! What a training says, told to the tools that people watch trainings with: event files of TensorBoard, runs of MLflow.
//!
//! A log never stops a training and never slows it down: what it is told waits in a bounded queue for a thread of its own, and what it
//! cannot write is said once.

mod error;
mod logs;
mod mlflow;
mod pr_curve;
mod proto;
mod record;
mod tensorboard;
mod tfrecord;
mod worker;

pub use error::Error;
pub use logs::{Destination, Logs, Warn};
pub use mlflow::{Server, ServerAccess};
pub use record::{Run, Status};
