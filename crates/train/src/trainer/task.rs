//! What goes into a run, what is heard of it, and what comes out.

use crate::config::TrainConfig;
use crate::error::Error;
use crate::examples::Examples;
use crate::folder::RunFolder;
use crate::model::Start;
use crate::state::EpochRow;
use crate::team::Team;
use melo_data::Assigned;
use melo_vit::{Checkpoint, ImageSource, Plugin, TaskCard, VolumeEmbedding};
use std::sync::atomic::AtomicBool;

/// One task to be trained.
pub struct Task<'a> {
    /// The backbone it starts from.
    pub start: Start,
    /// Classes, kind and preprocessing; metrics are filled in by the run.
    pub card: TaskCard,
    /// Training split.
    pub train: &'a dyn Examples,
    /// Validation split, which chooses the best epoch.
    pub val: &'a dyn Examples,
    /// What embeds volumes at the start; none where examples are images.
    pub volume: Option<VolumeEmbedding>,
    /// The processes that train it together; the engine of `start` shares its passes out among them.
    pub team: &'a Team,
}

/// News from a run, for whoever shows them.
pub enum Event<'a> {
    /// The manifest had not all splits, and was given them.
    Splits(Assigned),
    /// The plug-in that all members of an ensemble share is about to be trained.
    Base,
    /// A member of an ensemble is about to be trained.
    Fold {
        /// Its fold, from 1.
        fold: usize,
        /// Members in all.
        of: usize,
    },
    /// Images are read for the first time, before the first epoch.
    Reading {
        /// Images read.
        done: usize,
        /// Images to read.
        of: usize,
    },
    /// Features of a head alone are computed, before the first epoch.
    Features {
        /// Images done.
        done: usize,
        /// Images of both splits.
        of: usize,
    },
    /// Why there will be no test figures.
    NoTestFigures(&'a Error),
    /// Before the first epoch.
    Started {
        /// What is trained: metrics are not there yet.
        card: &'a TaskCard,
        /// The settings that are run.
        config: &'a TrainConfig,
        /// Trained values.
        trainable: usize,
        /// Values of the backbone.
        backbone: usize,
        /// Training images of an epoch.
        images: usize,
        /// Epochs already done, when resuming.
        epochs_done: usize,
    },
    /// Before the first step of an epoch, but of volumes, and of a head alone whose features are known.
    Batch {
        /// Epoch, from 1.
        epoch: usize,
        /// What the first step is about to learn from, augmented: `[3, size, size]` each.
        source: &'a dyn ImageSource,
        /// How many there are.
        images: usize,
        /// Their side, pixels.
        size: usize,
    },
    /// After every step.
    Step {
        /// Epoch, from 1.
        epoch: usize,
        /// Training images seen in this epoch.
        images: usize,
        /// Mean loss of this epoch so far.
        loss: f64,
    },
    /// After the last step of an epoch: the validation split is about to be judged.
    Validating {
        /// Epoch, from 1.
        epoch: usize,
    },
    /// The answers to the validation split, of classes, grades and findings.
    Validated {
        /// Epoch, from 1.
        epoch: usize,
        /// Probabilities, `[n, c]`.
        probabilities: &'a [f32],
        /// Which classes or findings are true, `[n, c]`.
        truth: &'a [bool],
    },
    /// After every epoch, when its state is on the disk.
    Epoch(&'a EpochRow),
    /// The finished card, with the figures of the test split where there are any.
    Card(&'a TaskCard),
}

/// What becomes of a state that a run folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It is removed.
    Never,
    /// The run goes on from it.
    Always,
    /// The run goes on from it where it belongs to this run; one of other settings, data or threads is removed.
    IfSame,
}

/// How a run behaves besides its settings: none of these changes the result.
pub struct RunOptions<'a> {
    /// Folder for settings, table and states; without one nothing is kept on the way.
    pub folder: Option<&'a RunFolder>,
    /// What becomes of a state in the folder.
    pub resume: Resume,
    /// Set from outside to stop after the step in flight.
    pub stop: &'a AtomicBool,
    /// Told the news.
    pub observer: &'a mut (dyn FnMut(Event<'_>) + Send),
}

/// A finished run.
#[derive(Debug)]
pub struct Outcome {
    /// The plug-in of the best epoch, its card filled in but for calibration and self-test; with full fine-tuning
    /// it belongs to `checkpoint`.
    pub plugin: Plugin,
    /// The backbone of the best epoch, with full fine-tuning.
    pub checkpoint: Option<Checkpoint>,
    /// Every epoch.
    pub history: Vec<EpochRow>,
    /// The best one.
    pub best: EpochRow,
    /// Trained values.
    pub trainable: usize,
    /// Values of the backbone, without a classifier.
    pub backbone: usize,
}
