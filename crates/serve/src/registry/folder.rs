//! A watched folder: `*.safetensors` in it are served, under the names that their cards give.
//!
//! The folder is looked at again and again, because notifications do not cross network file systems. A file counts when
//! two looks in a row found it alike, so that a copy in progress is not read.

use super::signed::signature_beside;
use super::{Registry, Task, Version};
use crate::error::Error;
use melo_sign::{Signature, beside};
use melo_vit::{TaskCard, hex};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Largest plug-in file that is read.
pub(crate) const MAX_PLUGIN_BYTES: u64 = 1 << 30;

/// How the source of a version from a folder begins; the file's name follows.
const SOURCE: &str = "file:";

fn source_of(name: &str) -> String {
    format!("{SOURCE}{name}")
}

/// What a file and its signature looked like.
type Look = (SystemTime, u64, Option<(SystemTime, u64)>);

struct Seen {
    look: Look,
    /// What it was accepted as; none where it was refused or not read yet.
    version: Option<Arc<Version>>,
    read: bool,
}

/// A folder and what was seen in it.
pub struct Folder {
    path: PathBuf,
    /// Not looked at yet.
    first: bool,
    seen: BTreeMap<String, Seen>,
}

impl Folder {
    /// Nothing is read before the first [`Folder::look`].
    pub fn new(path: &Path) -> Self {
        Folder { path: path.to_owned(), first: true, seen: BTreeMap::new() }
    }

    /// Looks at the folder: accepts new and changed files that have settled (at the first look, all of them), removes
    /// tasks whose file is gone.
    ///
    /// # Errors
    /// [`Error::Io`] where the folder cannot be read; nothing is removed then. Files that are refused are problems of
    /// the registry, not errors.
    pub fn look(&mut self, registry: &Registry) -> Result<(), Error> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(&self.path).map_err(Error::io(&self.path))? {
            let entry = entry.map_err(Error::io(&self.path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Hidden files are writes in progress.
            if name.starts_with('.') || !name.ends_with(".safetensors") {
                continue;
            }
            let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
            if let (true, Ok(modified)) = (metadata.is_file(), metadata.modified()) {
                let signature = std::fs::metadata(beside(&entry.path())).ok();
                let signature = signature.and_then(|found| Some((found.modified().ok()?, found.len())));
                found.insert(name, (modified, metadata.len(), signature));
            }
        }
        let gone: Vec<String> = self.seen.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in gone {
            registry.problem(&name, None);
            if let Some(version) = self.seen.remove(&name).and_then(|seen| seen.version) {
                self.unload(registry, &version);
            }
        }
        if self.first {
            let lost = |task: &Task| {
                let file = task.current.source.strip_prefix(SOURCE);
                !task.pinned && file.is_some_and(|file| !found.contains_key(file))
            };
            for task in registry.tasks().into_iter().filter(lost) {
                let _ = registry.remove(&task.name);
            }
        }
        for (name, look) in found {
            let seen = self.seen.entry(name.clone()).or_insert(Seen {
                look: (SystemTime::UNIX_EPOCH, 0, None),
                version: None,
                read: false,
            });
            let settled = seen.look == look;
            seen.read &= settled;
            seen.look = look;
            if !seen.read && (settled || self.first) {
                self.read(registry, &name, look.1);
            }
        }
        self.first = false;
        Ok(())
    }

    fn read(&mut self, registry: &Registry, name: &str, len: u64) {
        let result = if len > MAX_PLUGIN_BYTES {
            Err(format!("{len} bytes are more than a plug-in has"))
        } else {
            let path = self.path.join(name);
            let bytes = std::fs::read(&path).map_err(|error| error.to_string());
            bytes.and_then(|bytes| self.accept(registry, name, &bytes, signature_beside(&path)?.as_ref()))
        };
        let Some(seen) = self.seen.get_mut(name) else { return };
        seen.read = true;
        match result {
            Ok(version) => {
                registry.problem(name, None);
                let before = seen.version.replace(Arc::clone(&version));
                if let Some(before) = before.filter(|before| before.card.task != version.card.task) {
                    self.unload(registry, &before);
                }
            }
            // What this file gave before goes on being served.
            Err(reason) => registry.problem(name, Some(reason)),
        }
    }

    fn accept(
        &self,
        registry: &Registry,
        name: &str,
        bytes: &[u8],
        signature: Option<&Signature>,
    ) -> Result<Arc<Version>, String> {
        // What an earlier run knew keeps the place it had: someone may have put another version before it.
        let known = self.first.then(|| registry.known(&hex(&Sha256::digest(bytes)))).flatten();
        if let Some(version) = known.filter(|known| known.signer.is_some() || signature.is_none()) {
            registry.restore(&version, bytes).map_err(|refusal| refusal.to_string())?;
            return Ok(version);
        }
        let given_twice = |card: &TaskCard| {
            let other = self.seen.iter().find(|(other, seen)| {
                other.as_str() != name && seen.version.as_ref().is_some_and(|version| version.card.task == card.task)
            });
            other.map(|(other, _)| format!("its task `{}` is already given by {other}", card.task))
        };
        registry.accept(bytes, signature, &source_of(name), given_twice).map_err(|refusal| refusal.to_string())
    }

    /// A task whose file is gone is gone too, unless it was pinned or replaced by the admin meanwhile.
    fn unload(&self, registry: &Registry, version: &Version) {
        let given = self.seen.values().filter_map(|seen| seen.version.as_ref());
        let still_given = given.into_iter().any(|other| other.card.task == version.card.task);
        let task = registry.tasks().into_iter().find(|task| task.name == version.card.task);
        let ours = task.is_some_and(|task| !task.pinned && task.current.source == version.source);
        if ours && !still_given {
            let _ = registry.remove(&version.card.task);
        }
    }
}
