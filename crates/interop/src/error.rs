//! What can be wrong with files of others, each defect by name.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A defect that a file of others shares with our own: a tensor that is missing, surplus, wrongly shaped, not finite.
    #[error(transparent)]
    File(#[from] melo_vit::Error),
    /// A JSON file that cannot be understood.
    #[error("{}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser met, or which entry is wrong.
        reason: String,
    },
    /// A file or folder of no format that is read.
    #[error("{}: no adapter that is understood: {found}; expected a PEFT folder with adapter_config.json, or a file with tensors `w_a_000`, `w_b_000`, …", path.display())]
    UnknownFormat {
        /// The file or folder.
        path: PathBuf,
        /// What it holds instead.
        found: String,
    },
    /// A setting of PEFT that a plug-in cannot carry.
    #[error("{}: `{setting}` is {found}: {reason}", path.display())]
    Setting {
        /// `adapter_config.json`.
        path: PathBuf,
        /// The setting.
        setting: String,
        /// Its value there.
        found: String,
        /// Why it cannot be carried, and what to do.
        reason: String,
    },
    /// A module that is adapted, but that no target of a plug-in stands for.
    #[error("{}: tensor `{name}`: {reason}", path.display())]
    Module {
        /// The file of tensors.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Why the module cannot be adapted.
        reason: String,
    },
    /// The settings ask for a module that the file has no tensors for.
    #[error("{}: no tensors for module `{module}`, which {setting} asks for", path.display())]
    MissingModule {
        /// The file of tensors.
        path: PathBuf,
        /// The module.
        module: String,
        /// The setting that names it.
        setting: String,
    },
    /// Files that hold no classifier, where none was given beside them.
    #[error("{}: no classifier in it, and a plug-in needs one", path.display())]
    NoHead {
        /// The file or folder.
        path: PathBuf,
    },
    /// A classifier beside files that have one.
    #[error("{}: holds a classifier of its own, and {} is another", path.display(), given.display())]
    TwoHeads {
        /// The file or folder.
        path: PathBuf,
        /// The other classifier.
        given: PathBuf,
    },
    /// Class names that do not fit the classifier.
    #[error("{}: the classifier has {expected} classes, but {found} are named", path.display())]
    Classes {
        /// The file or folder.
        path: PathBuf,
        /// Rows of the classifier.
        expected: usize,
        /// Names given.
        found: usize,
    },
    /// Something that has to be said, since the files do not say it.
    #[error("{}: {what}", path.display())]
    Unsaid {
        /// The file or folder.
        path: PathBuf,
        /// The field of [`crate::ImportSettings`] that says it.
        setting: &'static str,
        /// What is not known.
        what: String,
    },
    /// Something that was said and that the files or a card say otherwise.
    #[error("{}: {what}", path.display())]
    Contradicted {
        /// The file or folder.
        path: PathBuf,
        /// What contradicts what.
        what: String,
    },
    /// A card that does not belong to the files beside it or to the backbone.
    #[error("{}: {reason}", path.display())]
    Card {
        /// The card.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A plug-in or backbone that the format to be written cannot hold.
    #[error("{format} cannot hold {what}")]
    Unwritable {
        /// The format.
        format: &'static str,
        /// What it cannot hold.
        what: String,
    },
    /// The bias of a classifier, which the authors' own files have no place for.
    #[error("a file of the paper's authors cannot hold the bias of the classifier; UniCAD's variant can")]
    AuthorsBias,
    /// A network that Hugging Face's ViT is not.
    #[error("Hugging Face's ViT cannot hold {what}; timm's layout can")]
    NotHuggingFace {
        /// What it does not have.
        what: String,
    },
    /// Something stands where a folder is to be written.
    #[error("{}: {reason}", path.display())]
    Occupied {
        /// The place.
        path: PathBuf,
        /// What stands there.
        reason: String,
    },
}
