//! The folder of an archive: which files it has, whose it is.

use crate::error::Error;
use crate::plan::Plan;
use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Names of all images.
pub(crate) const INPUTS: &str = "inputs";
/// What is computed.
pub(crate) const PLAN: &str = "plan.json";
/// What was computed; written when all is.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Where the workers of an archive find their queue and each other.
pub(crate) const QUEUE: &str = "queue.json";
/// The folder of the parts, which holds nothing else, so that tools read it whole.
const PARTS: &str = "parts";
/// What one process at a time holds.
const LOCK: &str = "lock";
/// How the names of files in the making begin.
const TEMPORARY: &str = ".melo-archive-";

/// The folder of an archive.
pub(crate) struct ArchiveFolder {
    path: PathBuf,
    /// The system lets go of it when the process dies; workers hold none.
    _lock: Option<File>,
}

/// The name of a part in the archive's folder: its number, and whose it is by the plan's digest.
pub(crate) fn part_name(number: u64, plan_digest: &str) -> String {
    format!("{PARTS}/part-{number:07}-{}.parquet", plan_digest.get(..12).unwrap_or(plan_digest))
}

/// The names of what is in an archive's folder, and in the folder of its parts.
pub(crate) fn names_in(folder: &Path) -> Result<BTreeSet<String>, Error> {
    let names = |folder: &Path, inside: &str| -> Result<BTreeSet<String>, Error> {
        let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let entries = entries.map_err(Error::io(folder))?;
        let name = |entry: std::fs::DirEntry| format!("{inside}{}", entry.file_name().to_string_lossy());
        Ok(entries.into_iter().map(name).collect())
    };
    let mut found = names(folder, "")?;
    let parts = folder.join(PARTS);
    if parts.is_dir() {
        found.remove(PARTS);
        found.append(&mut names(&parts, &format!("{PARTS}/"))?);
    }
    Ok(found)
}

/// True for the name of one of the first `parts` parts of this plan.
fn is_part(name: &str, plan_digest: &str, parts: u64) -> bool {
    let number = name.strip_prefix(PARTS).and_then(|name| name.strip_prefix("/part-"));
    let number = number.and_then(|rest| rest.split_once('-')?.0.parse().ok());
    number.is_some_and(|number: u64| number < parts && name == part_name(number, plan_digest))
}

/// Those of these names that an archive of this plan, or one without a plan, does not have.
pub(crate) fn foreign(names: &BTreeSet<String>, plan: Option<&Plan>) -> Vec<String> {
    let of_plan = plan.map(|plan| (plan.digest(), plan.chunks()));
    let is_part = |name: &str| of_plan.as_ref().is_some_and(|(digest, parts)| is_part(name, digest, *parts));
    let own = |name: &str| {
        [INPUTS, PLAN, MANIFEST, QUEUE, LOCK].contains(&name) || name.starts_with(TEMPORARY) || is_part(name)
    };
    names.iter().filter(|name| !own(name)).cloned().collect()
}

/// The plan in a folder, where there is one; refuses a folder that has other files than an archive.
pub(crate) fn plan_in(folder: &Path) -> Result<Option<Plan>, Error> {
    if !folder.exists() {
        return Ok(None);
    }
    let names = names_in(folder)?;
    let plan = if names.contains(PLAN) { Some(Plan::read(&folder.join(PLAN))?) } else { None };
    match foreign(&names, plan.as_ref()).first() {
        Some(name) => Err(Error::Foreign { path: folder.join(name) }),
        None => Ok(plan),
    }
}

impl ArchiveFolder {
    /// Makes the folder where it is missing, and takes it for this process.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let parts = path.join(PARTS);
        std::fs::create_dir_all(&parts).map_err(Error::io(&parts))?;
        let lock = path.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&lock).map_err(Error::io(&lock))?;
        match file.try_lock() {
            // Where a file system knows no locks, there is none.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { folder: path.to_owned() }),
        }
        Ok(ArchiveFolder { path: path.to_owned(), _lock: Some(file) })
    }

    /// The folder of an archive that others are at, too.
    #[cfg(feature = "queue")]
    pub(crate) fn join(path: &Path) -> Self {
        ArchiveFolder { path: path.to_owned(), _lock: None }
    }

    /// Removes what a kill left in the making, unless it may be a worker's that is alive.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        let names = names_in(&self.path)?;
        for name in names.iter().filter(|name| name.starts_with(TEMPORARY) && !names.contains(QUEUE)) {
            let left = self.at(name);
            std::fs::remove_file(&left).map_err(Error::io(&left))?;
        }
        Ok(())
    }

    /// The parts of a plan that are not there.
    pub(crate) fn missing(&self, plan: &Plan) -> Result<BTreeSet<u64>, Error> {
        let (names, digest) = (names_in(&self.path)?, plan.digest());
        Ok((0..plan.chunks()).filter(|&number| !names.contains(&part_name(number, &digest))).collect())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file in the making.
    pub(crate) fn temporary(&self) -> Result<NamedTempFile, Error> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY);
        // A temporary file is its owner's alone by default; a result gets what the user's umask leaves.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(&self.path).map_err(Error::io(&self.path))
    }

    /// Gives a file that was written whole its name.
    pub(crate) fn keep(&self, file: NamedTempFile, name: &str) -> Result<(), Error> {
        let path = self.at(name);
        file.as_file().sync_all().map_err(Error::io(&path))?;
        file.persist(&path).map_err(|error| Error::io(&path)(error.error))?;
        Ok(())
    }

    /// Writes a file whole or not at all.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let mut file = self.temporary()?;
        file.write_all(bytes).map_err(Error::io(self.at(name)))?;
        self.keep(file, name)
    }

    /// Puts names on the disk, as files are already.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        #[cfg(unix)]
        for folder in [self.at(PARTS), self.path.clone()] {
            File::open(&folder).and_then(|folder| folder.sync_all()).map_err(Error::io(&folder))?;
        }
        Ok(())
    }
}
