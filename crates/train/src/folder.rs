//! The folder of a run: settings, the table of epochs, the last state and the best plug-in.

use crate::config::TrainConfig;
use crate::error::Error;
use crate::state::{EpochRow, State};
use melo_vit::write_atomically;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Settings of the run.
const CONFIG: &str = "config.json";
/// Folder of what the members of an ensemble share.
const BASE: &str = "base";
/// The state after the last finished epoch.
const STATE: &str = "last.safetensors";
/// One line an epoch.
const TABLE: &str = "epochs.csv";

/// What one training at a time holds.
const LOCK: &str = "lock";

/// A folder that holds one run, and belongs to one training at a time.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The system lets go of it when the process dies.
    _lock: Arc<File>,
}

impl RunFolder {
    /// Makes the folder where it is missing, and takes it for this training.
    ///
    /// # Errors
    /// [`Error::RunInUse`], [`Error::Io`].
    pub fn create(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(io)?;
        let lock = File::options().create(true).truncate(false).write(true).open(path.join(LOCK)).map_err(io)?;
        match lock.try_lock() {
            // Where a file system knows no locks, there is none.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(RunFolder { path: path.to_owned(), _lock: Arc::new(lock) }),
            Err(TryLockError::WouldBlock) => Err(Error::RunInUse { folder: path.to_owned() }),
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state after the last finished epoch.
    pub fn state(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// The plug-in (or with full fine-tuning the backbone) of the best epoch so far.
    pub fn best(&self) -> PathBuf {
        self.path.join("best.safetensors")
    }

    /// True when an epoch was finished here.
    pub fn has_state(&self) -> bool {
        self.state().exists()
    }

    /// The folder of a member of an ensemble, fold 1 the first, inside this one.
    ///
    /// # Errors
    /// As [`RunFolder::create`].
    pub(crate) fn fold(&self, fold: usize) -> Result<Self, Error> {
        RunFolder::create(&self.fold_path(fold))
    }

    /// The folder of the plug-in that the members of an ensemble share, inside this one.
    ///
    /// # Errors
    /// As [`RunFolder::create`].
    pub(crate) fn base(&self) -> Result<Self, Error> {
        RunFolder::create(&self.path.join(BASE))
    }

    fn fold_path(&self, fold: usize) -> PathBuf {
        self.path.join(format!("fold-{fold}"))
    }

    /// The last state of a run here, of an ensemble that of what all share or the first member's.
    fn any_state(&self) -> Option<PathBuf> {
        let [base, first] = [self.path.join(BASE), self.fold_path(1)].map(|folder| folder.join(STATE));
        [self.state(), base, first].into_iter().find(|path| path.exists())
    }

    /// True when an epoch was finished here, or of an ensemble that is trained here.
    pub fn holds_run(&self) -> bool {
        self.any_state().is_some()
    }

    /// Refuses a folder with a run in it.
    ///
    /// # Errors
    /// [`Error::RunExists`], or why its state cannot be read.
    pub fn refuse_existing(&self) -> Result<(), Error> {
        let Some(state) = self.any_state() else { return Ok(()) };
        let record = State::read_record(&state)?;
        Err(Error::RunExists { folder: self.path.clone(), epoch: record.history.len(), epochs: record.config.epochs })
    }

    /// Refuses a folder whose files by the names of a run's are not a run's, such as a model's own `config.json`.
    ///
    /// # Errors
    /// [`Error::NotARun`].
    pub fn refuse_foreign(&self) -> Result<(), Error> {
        let ours = |json: Vec<u8>| serde_json::from_slice::<TrainConfig>(&json).is_ok();
        let config = self.path.join(CONFIG);
        let found =
            [self.state(), self.best(), self.path.join(TABLE), config.clone()].into_iter().find(|path| path.exists());
        match found {
            Some(file) if !std::fs::read(config).is_ok_and(ours) => {
                Err(Error::NotARun { folder: self.path.clone(), file })
            }
            _ => Ok(()),
        }
    }

    /// Removes a run's files, and nothing else; the settings last, which mark the folder as a run's.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear(&self) -> Result<(), Error> {
        for path in [self.state(), self.best(), self.path.join(TABLE), self.path.join(CONFIG)] {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(Error::Io { path, source }),
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn write_config(&self, config: &TrainConfig) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(config).expect("settings are plain data");
        Ok(write_atomically(&self.path.join(CONFIG), &json)?)
    }

    pub(crate) fn write_table(&self, history: &[EpochRow]) -> Result<(), Error> {
        let path = self.path.join(TABLE);
        let mut table = csv::Writer::from_writer(Vec::new());
        let written = history.iter().try_for_each(|row| table.serialize(row));
        let bytes = written
            .map_err(std::io::Error::from)
            .and_then(|()| table.into_inner().map_err(|error| std::io::Error::other(error.to_string())));
        Ok(write_atomically(&path, &bytes.map_err(|source| Error::Io { path: path.clone(), source })?)?)
    }
}
