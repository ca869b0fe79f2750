//! What a study found, as plain data: `results.json` holds it, the report and the tables are made of it.
//!
//! An *arm* is one method on one backbone for one task at one share of the training data; its *cells* (seeds, folds) are
//! averaged. Fractions are in [0, 1]; what is undefined is `None`, with a note where a person would ask why.

use melo_eval::{Collapse, NetBenefit};
use serde::{Deserialize, Serialize};

pub use melo_eval::Estimate;

/// A whole study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// What was asked, and of what.
    pub study: StudyInfo,
    /// Every method, in the study's order.
    pub methods: Vec<MethodInfo>,
    /// Every backbone.
    pub backbones: Vec<BackboneInfo>,
    /// Every task.
    pub tasks: Vec<TaskResults>,
    /// Sums over tasks, one a backbone and method.
    pub totals: Vec<Total>,
}

/// Facts about the study itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyInfo {
    /// Name of the study.
    pub name: String,
    /// Software and version.
    pub software: String,
    /// Processor, cores, instruction set.
    pub machine: String,
    /// Seeds of each arm.
    pub seeds: Vec<u64>,
    /// Folds by patient; 0 where the manifests' own splits were used.
    pub folds: usize,
    /// Level of the intervals, such as 0.95.
    pub level: f64,
    /// Bootstrap replicates.
    pub replicates: usize,
    /// Day of the analysis, in UTC, `2026-11-28`.
    #[serde(default)]
    pub date: String,
    /// Settings that all methods share: epochs, batch, augmentation, in words; name and value.
    #[serde(default)]
    pub settings: Vec<(String, String)>,
    /// Method that the others are compared with.
    pub reference: String,
    /// Non-inferiority margin in macro AUC.
    pub margin: f64,
    /// Cells planned.
    pub cells: usize,
    /// Cells that ended well; fewer than planned in a report of an unfinished study.
    pub cells_done: usize,
    /// Cells that failed, with the reason.
    pub failures: Vec<Failure>,
}

/// A cell without a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Its name.
    pub cell: String,
    /// Why.
    pub reason: String,
}

/// One method of the study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodInfo {
    /// Name in the study file.
    pub name: String,
    /// What it is in a sentence: kind, rank, targets, learning rate.
    pub description: String,
}

/// One backbone of the study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackboneInfo {
    /// Name in the study file.
    pub name: String,
    /// Architecture.
    pub architecture: String,
    /// Digest.
    pub digest: String,
    /// Parameters without a classifier.
    pub parameters: usize,
    /// Bytes of the weights in f32.
    pub bytes: u64,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResults {
    /// Name in the study file.
    pub name: String,
    /// True if an image may show several findings, or none.
    pub multi_label: bool,
    /// Names of the classes or findings.
    pub classes: Vec<String>,
    /// What the data look like before any training.
    pub audit: Audit,
    /// Every backbone × method × share of the data.
    pub arms: Vec<Arm>,
    /// Every other method against the reference, on the same backbone and all training data.
    pub comparisons: Vec<Comparison>,
    /// Images that the first adapted method was surest about, right and wrong.
    pub examples: Vec<Example>,
}

/// The data audit of a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// Images, patients and images of each class, one a split.
    pub splits: Vec<AuditSplit>,
    /// One sentence each: what would spoil the results (duplicates or patients across splits, unreadable images, ...).
    pub warnings: Vec<String>,
    /// Macro AUC on the test split of a logistic regression that sees nothing but size and brightness.
    pub shortcut_auc: Option<f64>,
    /// The features of that baseline, in words.
    pub shortcut_features: String,
}

/// One split in the audit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditSplit {
    /// `train`, `val` or `test`.
    pub split: String,
    /// Images.
    pub images: usize,
    /// Patients; none where the manifest does not tell.
    pub patients: Option<usize>,
    /// Images of each class, `[c]`.
    pub images_of: Vec<usize>,
}

/// One method on one backbone for one task at one share of the training data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Name of the backbone.
    pub backbone: String,
    /// Name of the method.
    pub method: String,
    /// Share of the training split that was used, in (0, 1].
    pub data_fraction: f64,
    /// Test macro AUC, mean over cells.
    pub auc: Option<Estimate>,
    /// Test accuracy, mean over cells.
    pub acc: Option<Estimate>,
    /// Balanced accuracy on the test split, mean over cells: see [`melo_eval::Metrics::balanced_acc`].
    #[serde(default)]
    pub balanced_acc: Option<Estimate>,
    /// Macro F1 on the test split, mean over cells.
    #[serde(default)]
    pub f1_macro: Option<f64>,
    /// What its cells have collapsed to, all together.
    #[serde(default)]
    pub collapse: Option<Collapse>,
    /// Test macro AUC of each cell, by seed and then fold.
    pub auc_per_cell: Vec<f64>,
    /// Validation macro AUC, mean over cells: what choices may be made by.
    pub val_auc: f64,
    /// Each class on the test split.
    pub per_class: Vec<ClassResults>,
    /// Subgroups of the test split.
    pub subgroups: Vec<Subgroup>,
    /// Before and after temperature scaling; the temperature is the mean over cells.
    pub calibration: Calibration,
    /// Images by `[true class][predicted class]`, summed over cells; none for multi-label tasks.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// Mean over cells by epoch.
    pub learning: Vec<LearningPoint>,
    /// What it cost.
    pub cost: Cost,
}

/// One class of an arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassResults {
    /// Its name.
    pub class: String,
    /// Test images that show it.
    pub positives: u64,
    /// One-vs-rest AUC, mean over cells; none where it is undefined.
    pub auc: Option<Estimate>,
    /// Why a figure is undefined or shaky.
    pub note: Option<String>,
    /// ROC curve of all cells' scores together: (1 - specificity, sensitivity), ascending.
    pub roc: Vec<(f64, f64)>,
    /// Precision-recall curve of the same: (recall, precision), recall ascending.
    pub precision_recall: Vec<(f64, f64)>,
    /// Decision curve of the same.
    #[serde(default)]
    pub decision_curve: Vec<NetBenefit>,
    /// Operating points chosen on the validation split and measured on the test split.
    pub operating_points: Vec<OperatingPoint>,
}

/// A threshold and what it gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// How it was chosen: `Youden`, `sensitivity 0.90`, `specificity 0.90`.
    pub rule: String,
    /// Probability from which the class is reported, mean over cells.
    pub threshold: f64,
    /// Sensitivity at it.
    pub sensitivity: Option<Estimate>,
    /// Specificity at it.
    pub specificity: Option<Estimate>,
}

/// One value of one subgroup column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subgroup {
    /// The column.
    pub column: String,
    /// Its value.
    pub value: String,
    /// Test images.
    pub images: usize,
    /// Macro AUC, mean over cells; none where it is undefined.
    pub auc: Option<Estimate>,
    /// What the AUC is above that of the column's largest group; none of that group itself, and where either is undefined.
    #[serde(default)]
    pub difference: Option<Estimate>,
    /// Why it is undefined or shaky.
    pub note: Option<String>,
}

/// Calibration before and after temperature scaling fitted on the validation split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Temperature.
    pub temperature: f64,
    /// Expected calibration error before.
    pub ece_before: f64,
    /// Expected calibration error after.
    pub ece_after: f64,
    /// Brier score before.
    pub brier_before: f64,
    /// Brier score after.
    pub brier_after: f64,
    /// Reliability diagram before.
    pub bins_before: Vec<ReliabilityBin>,
    /// Reliability diagram after.
    pub bins_after: Vec<ReliabilityBin>,
}

/// One bin of a reliability diagram.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Predictions in it.
    pub count: u64,
    /// Mean predicted probability.
    pub confidence: f64,
    /// Share that was right.
    pub accuracy: f64,
}

/// One epoch of the learning curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearningPoint {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Training loss.
    pub train_loss: f64,
    /// Validation loss.
    pub val_loss: f64,
    /// Validation macro AUC.
    pub val_auc: f64,
    /// Cells that reached this epoch.
    pub cells: usize,
}

/// What an arm cost; means over cells, the peak is the largest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Trained values.
    pub trainable_parameters: usize,
    /// The same in percent of the backbone's.
    pub trainable_percent: f64,
    /// Bytes that the task needs besides the shared backbone: a plug-in, or a whole model with full fine-tuning.
    pub stored_bytes: u64,
    /// The most memory that a cell's process held, bytes; 0 where the system does not tell.
    pub peak_rss_bytes: u64,
    /// Seconds an epoch, validation included.
    pub seconds_per_epoch: f64,
    /// Epochs run.
    pub epochs: f64,
    /// Best epoch.
    pub best_epoch: f64,
    /// Seconds of a whole cell.
    pub seconds: f64,
    /// Training images a second, mean over epochs and cells.
    #[serde(default)]
    pub images_per_s: f64,
}

/// A method against the reference on one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the backbone.
    pub backbone: String,
    /// Name of the method.
    pub method: String,
    /// Name of the reference.
    pub reference: String,
    /// Test macro AUC of the method less the reference's, mean over cells, interval by the patient bootstrap.
    pub difference: Estimate,
    /// Two-sided p of no difference, by the same bootstrap.
    pub p: f64,
    /// The same after Holm's correction over tasks.
    pub p_holm: f64,
    /// Paired DeLong test where the task has two classes or one finding, mean-of-seeds scores: p of no difference.
    pub p_delong: Option<f64>,
    /// One-sided p of inferiority by more than the margin.
    pub p_inferior: f64,
    /// The same after Holm's correction over tasks.
    pub p_inferior_holm: f64,
    /// One-sided p of a loss that is not larger than the margin, after Holm's correction over tasks: where it is small, the method is
    /// worse.
    #[serde(default = "unknown_p")]
    pub p_worse_holm: f64,
    /// What follows at the study's level, after Holm's correction.
    pub verdict: Verdict,
}

/// In results of a software that did not compute it.
fn unknown_p() -> f64 {
    1.0
}

/// What a comparison shows, from its p values after Holm's correction over tasks, each one-sided at half of 1 - level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Better than the reference.
    Superior,
    /// Not worse than the reference by the margin.
    NonInferior,
    /// The data do not decide.
    Inconclusive,
    /// Worse than the reference by more than the margin.
    Inferior,
}

/// Sums over tasks for one backbone and method, at all training data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Total {
    /// Name of the backbone.
    pub backbone: String,
    /// Name of the method.
    pub method: String,
    /// Tasks with a result.
    pub tasks: usize,
    /// Mean over tasks of the test macro AUC, interval by bootstrap within tasks.
    pub auc: Option<Estimate>,
    /// Mean over tasks of the difference of the test macro AUC to the reference, paired by patient; none for the reference itself.
    #[serde(default)]
    pub auc_difference: Option<Estimate>,
    /// Mean over tasks of the test accuracy.
    pub acc: Option<Estimate>,
    /// Bytes to serve all tasks: the backbone once and every plug-in, or every whole model.
    pub storage_bytes: u64,
    /// Tasks on which it is non-inferior or superior to the reference; none for the reference itself.
    pub non_inferior_tasks: Option<usize>,
}

/// An image with its explanation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Method whose answer it is.
    pub method: String,
    /// Name of the image in the manifest.
    pub image: String,
    /// What it shows.
    pub truth: String,
    /// What was said.
    pub predicted: String,
    /// How surely, a calibrated probability.
    pub probability: f64,
    /// True if right.
    pub correct: bool,
    /// PNG of the image with the heat map over it, base64.
    pub overlay_png: String,
}
