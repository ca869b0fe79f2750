//! Cells as tasks of Slurm's job arrays.
//!
//! ```text
//! OUT/slurm/001/array.json   name of the array and its cells, written before it is submitted; then its job
//!               cells        the same cells, a line a task
//!               script.sh    what was submitted
//!               1.log …      what each task said
//! ```

mod array;
mod commands;
mod script;
mod settings;
mod step;
mod watch;

pub use settings::SlurmSettings;
pub use watch::SlurmOptions;
