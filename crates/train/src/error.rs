//! What can go wrong while training, each cause by name.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting outside its range.
    #[error("{setting}: {reason}")]
    Setting {
        /// Name of the setting, as in [`crate::TrainConfig`].
        setting: &'static str,
        /// What was found and expected.
        reason: String,
    },
    /// Labels that no classifier can learn from.
    #[error("{split} split: {reason}")]
    Data {
        /// The split.
        split: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The run folder holds a run already.
    #[error(
        "{}: holds a run at epoch {epoch} of {epochs}; --resume continues it, --overwrite starts anew",
        folder.display()
    )]
    RunExists {
        /// The run folder.
        folder: PathBuf,
        /// Epochs done.
        epoch: usize,
        /// Epochs planned.
        epochs: usize,
    },
    /// The run folder is somebody else's.
    #[error(
        "{}: not a run folder: {} is not from a training; name another folder with --run",
        folder.display(), file.display()
    )]
    NotARun {
        /// The folder.
        folder: PathBuf,
        /// A file in it that a run would replace.
        file: PathBuf,
    },
    /// The saved state belongs to other settings, data or weights.
    #[error("{}: cannot resume: {field} was {saved} and is now {current}", path.display())]
    ResumeMismatch {
        /// The state file.
        path: PathBuf,
        /// What differs.
        field: String,
        /// In the state.
        saved: String,
        /// Now.
        current: String,
    },
    /// The saved state cannot be read.
    #[error("{}: not a training state: {reason}", path.display())]
    State {
        /// The state file.
        path: PathBuf,
        /// What the parser met.
        reason: String,
    },
    /// The loss is no longer a number.
    #[error("the loss became {loss} in epoch {epoch}: training diverged; try a lower --lr (now {learning_rate})")]
    Diverged {
        /// The value.
        loss: f64,
        /// Epoch, from 1.
        epoch: usize,
        /// Base learning rate.
        learning_rate: f64,
    },
    /// Asked to stop; everything up to the last finished epoch is saved.
    #[error("stopped in epoch {epoch}; finished epochs are saved in {} and --resume continues", folder.display())]
    Interrupted {
        /// Epoch in flight, from 1.
        epoch: usize,
        /// The run folder.
        folder: PathBuf,
    },
    /// The operating system refused to write.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Its reason.
        source: std::io::Error,
    },
    /// From the engine, or from a file of weights.
    #[error(transparent)]
    Vit(#[from] melo_vit::Error),
    /// From the settings of the augmentation.
    #[error(transparent)]
    Augment(#[from] melo_data::Error),
    /// From the statistics.
    #[error(transparent)]
    Eval(#[from] melo_eval::Error),
}
