//! What a cell leaves behind, and what determines it.

use melo_train::{Answers, EpochRow, TrainConfig};
use melo_vit::Preprocess;
use serde::{Deserialize, Serialize};

/// What a finished cell leaves behind, `result.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellResult {
    /// What determined it.
    pub identity: Identity,
    /// Names of the classes or findings.
    pub classes: Vec<String>,
    /// Fitted on the validation split.
    pub temperature: f32,
    /// Trained values.
    pub trainable_parameters: usize,
    /// Values of the backbone, without a classifier.
    pub backbone_parameters: usize,
    /// Bytes that the task needs besides the shared backbone.
    pub stored_bytes: u64,
    /// The most memory that the process held, bytes.
    pub peak_rss_bytes: Option<u64>,
    /// Wall time of the whole cell, the last process's alone where it was interrupted.
    pub seconds: f64,
    /// Every epoch.
    pub history: Vec<EpochRow>,
    /// Answers of the best epoch on the validation split.
    pub val: Answers,
    /// Answers of the best epoch on the test split.
    pub test: Answers,
}

/// Everything that determines a cell's answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Name of the cell.
    pub cell: String,
    /// Digest of names, labels, patients and splits.
    pub data_digest: String,
    /// Digest of the backbone at the start.
    pub backbone_digest: String,
    /// From pixels to input.
    pub preprocess: Preprocess,
    /// Settings of the training.
    pub config: TrainConfig,
}

/// Why a cell could not be computed, `failure.json`; gone when it is tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellFailure {
    /// In a sentence.
    pub reason: String,
    /// The host that tried.
    pub host: String,
    /// Task of an array of Slurm, `JOB_TASK`.
    pub job: Option<String>,
}
