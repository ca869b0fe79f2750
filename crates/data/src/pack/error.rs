//! Why a pack was refused.

use std::path::PathBuf;

/// Why a pack was refused, or could not be made. `docs/pack-format.md` says what is expected.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// Shards, but no index: packing has not come to its end.
    #[error("{}: a pack that is not finished: run `melo data pack` again, which goes on where it stopped", path.display())]
    Unfinished {
        /// The pack.
        path: PathBuf,
    },
    /// The index is not one.
    #[error("{}: not the index of a pack: {reason}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// A shard is not one, or not the one that belongs there.
    #[error("{}: not the shard of this pack: {reason}", path.display())]
    Shard {
        /// The shard.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// The manifest has changed since it was packed.
    #[error("{}: stale: {} has changed since it was packed ({reason})", path.display(), manifest.display())]
    Stale {
        /// The pack.
        path: PathBuf,
        /// The manifest.
        manifest: PathBuf,
        /// Digests, or why it cannot be read.
        reason: String,
    },
    /// The images were packed for another preprocessing.
    #[error("{}: packed for {packed}, but {asked} is asked for", path.display())]
    Preprocess {
        /// The pack.
        path: PathBuf,
        /// How its images were prepared.
        packed: String,
        /// How they should be.
        asked: String,
    },
    /// The manifest has masks, which packs do not hold.
    #[error("{}: its images have masks, which a pack does not hold", manifest.display())]
    Masks {
        /// The manifest.
        manifest: PathBuf,
    },
    /// The images of the manifest are in bags, which packs do not know.
    #[error("{}: its images are in bags, which a pack does not hold", manifest.display())]
    Bags {
        /// The manifest.
        manifest: PathBuf,
    },
    /// Unfinished shards of another manifest or preprocessing.
    #[error("{}: holds shards of another manifest or preprocessing", path.display())]
    OtherShards {
        /// The pack.
        path: PathBuf,
    },
    /// The folder holds something else.
    #[error("{}: expected a new or empty folder, or a pack; found \"{found}\"", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// A file or folder in it.
        found: String,
    },
    /// A pack was to be packed.
    #[error("{}: is a pack already; pack the manifest that it was made from", path.display())]
    SourceIsPack {
        /// The pack.
        path: PathBuf,
    },
    /// The settings cannot be carried out.
    #[error("{reason}")]
    Settings {
        /// Why.
        reason: String,
    },
    /// The disk refused.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
}

impl PackError {
    /// For `map_err` on what the operating system says about `path`.
    pub(super) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> PackError {
        let path = path.to_owned();
        move |error| PackError::Io { path, reason: error.to_string() }
    }
}
