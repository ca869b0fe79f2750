//! What can go wrong while training, each cause by name.

use crate::method::Method;
use crate::team::TeamError;
use melo_vit::TaskKind;
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
    /// A setting of another method, which would do nothing.
    #[error("{setting} is for {owner}, not for {method}")]
    ForeignSetting {
        /// Name of the setting, as in [`crate::MethodSettings`].
        setting: &'static str,
        /// The methods that have it.
        owner: &'static str,
        /// The method that is meant.
        method: Method,
    },
    /// Labels that no classifier can learn from.
    #[error("{split} split: {reason}")]
    Data {
        /// The split.
        split: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Images and splits that the folds of an ensemble were not made of: which fold saw what is not known.
    #[error("{}: not the images and splits that the folds of {task} were made of", path.display())]
    OtherFolds {
        /// The manifest.
        path: PathBuf,
        /// The plug-in's task.
        task: String,
    },
    /// The run folder holds a run already.
    #[error("{}: holds a run at epoch {epoch} of {epochs}", folder.display())]
    RunExists {
        /// The run folder.
        folder: PathBuf,
        /// Epochs done.
        epoch: usize,
        /// Epochs planned.
        epochs: usize,
    },
    /// Another training writes the run folder.
    #[error("{}: another training is at work in it", folder.display())]
    RunInUse {
        /// The run folder.
        folder: PathBuf,
    },
    /// The run folder is somebody else's.
    #[error("{}: not a run folder: {} is not from a training", folder.display(), file.display())]
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
    #[error("the loss became {loss} in epoch {epoch} at a learning rate of {learning_rate}: training diverged")]
    Diverged {
        /// The value.
        loss: f64,
        /// Epoch, from 1.
        epoch: usize,
        /// Base learning rate.
        learning_rate: f64,
    },
    /// Asked to stop; everything up to the last finished epoch is in the run folder, if there is one.
    #[error("stopped in epoch {epoch}{}", kept(folder))]
    Interrupted {
        /// Epoch in flight, from 1.
        epoch: usize,
        /// The run folder.
        folder: Option<PathBuf>,
    },
    /// A manifest of another kind of task than a plug-in's.
    #[error("{}: has {}, but the plug-in needs {}", path.display(), columns(*found), columns(*needed))]
    OtherKind {
        /// The manifest.
        path: PathBuf,
        /// Its kind.
        found: TaskKind,
        /// The plug-in's.
        needed: TaskKind,
    },
    /// A pooling was asked for, or a plug-in answers for bags, and images are in none.
    #[error("{}: its images are in no bags: expected a column of bags, or volumes", path.display())]
    NoBags {
        /// The manifest.
        path: PathBuf,
    },
    /// Masks are to be learnt of images that are in bags.
    #[error("{}: its images are in bags, and masks are of single images", path.display())]
    MasksOfBags {
        /// The manifest.
        path: PathBuf,
    },
    /// Volumes are to be learnt where files are in bags, or have masks.
    #[error("{}: its rows are in bags or have masks, and volumes are answered whole, each for itself", path.display())]
    VolumesInBags {
        /// The manifest.
        path: PathBuf,
    },
    /// Images are in bags, and the plug-in answers for single ones.
    #[error("{}: its images are in bags, but task `{task}` answers for single images", path.display())]
    InBags {
        /// The manifest.
        path: PathBuf,
        /// The task.
        task: String,
    },
    /// A manifest without all splits that is not the one a plug-in was trained on.
    #[error(
        "{}: has not all splits, and is not the data that {task} was trained on, so which images are new to it cannot be \
         told; add a `split` column (train, val, test)",
        path.display()
    )]
    UnknownSplits {
        /// The manifest.
        path: PathBuf,
        /// The task.
        task: String,
    },
    /// The operating system refused to write.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Its reason.
        source: std::io::Error,
    },
    /// From the ranks that train together.
    #[error(transparent)]
    Team(#[from] TeamError),
    /// From the engine, or from a file of weights.
    #[error(transparent)]
    Vit(#[from] melo_vit::Error),
    /// From the data: manifest, images, augmentation.
    #[error(transparent)]
    Images(#[from] melo_data::Error),
    /// A card that contradicts itself.
    #[error("the card: {reason}")]
    Card {
        /// What is wrong; names the field.
        reason: String,
    },
    /// From the statistics.
    #[error(transparent)]
    Eval(#[from] melo_eval::Error),
}

/// Why answers that come from a file are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAnswers {
    /// There are none, or not as many of one thing as of another.
    #[error("names, patients and labels differ in number")]
    Lengths,
    /// Another number of logits, or some that are NaN or infinite.
    #[error("expected {images} rows of {classes} finite logits")]
    Logits {
        /// Rows expected.
        images: usize,
        /// Logits expected in each.
        classes: usize,
    },
    /// A label that stands for no class.
    #[error("label {label}, expected less than {limit}")]
    Label {
        /// The label.
        label: usize,
        /// Classes, or 2 for findings.
        limit: usize,
    },
}

fn kept(folder: &Option<PathBuf>) -> String {
    folder.as_ref().map_or_else(String::new, |folder| format!("; finished epochs are saved in {}", folder.display()))
}

fn columns(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::SingleLabel => "one `label` column",
        TaskKind::MultiLabel => "a 0/1 column for every finding",
        TaskKind::Ordinal => "one `label` column of grades",
        TaskKind::Segmentation => "masks",
        TaskKind::Regression => "a column for every number",
    }
}
