//! Comparisons of methods: tasks × backbones × methods × seeds × folds, honest statistics, a report.
//!
//! ```text
//! Plan::read    study file                 -> cells: one training each
//! Study::run    cells, a process each      -> a result a cell, kept; what is done is not done again
//! run_on_slurm  cells, a task each         -> the same, on a cluster
//! analyse       all results                -> Results: figures, intervals, comparisons
//! report        Results                    -> report.html, report.md, CSV
//! ```

mod analysis;
mod audit;
mod calibration;
mod cell;
mod cell_result;
mod claim;
mod error;
mod examples;
mod method;
mod plan;
pub mod report;
mod results;
mod run;
mod scores;
mod shortcut;
mod slurm;
mod state;
mod store;
mod subgroup;

pub use analysis::analyse;
pub use audit::audit;
pub use cell::{CellOptions, run_cell};
pub use cell_result::{CellFailure, CellResult, Identity};
pub use claim::{Claim, Holder, STALE_AFTER, Seen};
pub use error::Error;
pub use method::StudyMethod;
pub use plan::{BackbonePlan, Cell, Plan, TaskPlan};
pub use results::*;
pub use run::{CellNews, Finished, Study, StudyEvent, StudyOptions};
pub use shortcut::{SHORTCUT_AUC, Shortcut, shortcut};
pub use slurm::{SlurmOptions, SlurmSettings};
pub use state::CellState;
pub use store::{CellFolder, StudyFolder};
