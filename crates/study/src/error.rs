//! What can go wrong in a study, each cause by name.

use crate::claim::Seen;
use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A study file that cannot be carried out.
    #[error("{}: {reason}", path.display())]
    Study {
        /// The study file.
        path: PathBuf,
        /// The key, what was found and expected.
        reason: String,
    },
    /// No cell of the study has this name.
    #[error("{}: no cell of the study has the name {name}", path.display())]
    UnknownCell {
        /// The study file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// Another process works in the folder.
    #[error("{}: another study works in this folder: {holder}", path.display())]
    Busy {
        /// The claim's file.
        path: PathBuf,
        /// Who.
        holder: Box<Seen>,
    },
    /// Another process computes the cell.
    #[error("{}: another process computes this cell: {holder}", path.display())]
    Claimed {
        /// The claim's file.
        path: PathBuf,
        /// Who.
        holder: Box<Seen>,
    },
    /// Another process took the cell over while this one computed it.
    #[error("{}: another process took this cell over", path.display())]
    TakenOver {
        /// The claim's file.
        path: PathBuf,
    },
    /// A finished cell belongs to another study file, other data or other weights.
    #[error("{}: was made with another {field} ({saved}, now {current})", path.display())]
    Foreign {
        /// The cell's result.
        path: PathBuf,
        /// What differs.
        field: String,
        /// In the file.
        saved: String,
        /// Now.
        current: String,
    },
    /// A cell's result cannot be read.
    #[error("{}: not a cell's result: {reason}", path.display())]
    Result {
        /// The file.
        path: PathBuf,
        /// What the parser met.
        reason: String,
    },
    /// Asked to stop; finished cells and epochs are saved.
    #[error("stopped; finished cells and epochs are saved in {}", folder.display())]
    Interrupted {
        /// The study's folder.
        folder: PathBuf,
    },
    /// A command of Slurm cannot be started.
    #[error("{command}: {source}: Slurm is not installed here")]
    NoSlurm {
        /// The command.
        command: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Slurm refused.
    #[error("{command} refused: {said}")]
    Slurm {
        /// The command.
        command: &'static str,
        /// What it said.
        said: String,
    },
    /// A script's template that cannot be used.
    #[error("{}: {reason}", path.display())]
    Template {
        /// The template.
        path: PathBuf,
        /// What was found and expected.
        reason: String,
    },
    /// The record of what was submitted cannot be read.
    #[error("{}: not a record of submitted cells: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What the parser met.
        reason: String,
    },
    /// Asked to stop watching; what was submitted goes on.
    #[error("no longer watching {}{}", folder.display(), left(jobs))]
    LeftToSlurm {
        /// The study's folder.
        folder: PathBuf,
        /// Jobs that go on.
        jobs: Vec<String>,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Its reason.
        source: std::io::Error,
    },
    /// From the weights or the engine.
    #[error(transparent)]
    Vit(#[from] melo_vit::Error),
    /// From the data.
    #[error(transparent)]
    Manifest(#[from] melo_data::Error),
    /// From the training.
    #[error(transparent)]
    Train(#[from] melo_train::Error),
    /// From a heat map.
    #[error(transparent)]
    Predict(#[from] melo_predict::Error),
    /// From an image.
    #[error(transparent)]
    Image(#[from] melo_imaging::Error),
    /// From the statistics.
    #[error(transparent)]
    Eval(#[from] melo_eval::Error),
}

fn left(jobs: &[String]) -> String {
    match jobs {
        [] => String::new(),
        [job] => format!("; job {job} goes on"),
        jobs => format!("; jobs {} go on", jobs.join(" ")),
    }
}
