//! `STATE/registry.json`: which versions of which tasks there are, over restarts.

use super::signed::signature_beside;
use super::{Registry, Task, Version, short, trial};
use crate::error::{Error, Refusal};
use melo_vit::{ComputedOn, hex, write_atomically};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};

/// Version of `registry.json`.
const FORMAT: u32 = 1;

/// `registry.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    format: u32,
    /// The backbone that all versions belong to.
    backbone: String,
    /// The engine and precision that all current versions are known to answer rightly in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proven_on: Option<ComputedOn>,
    tasks: BTreeMap<String, IndexedTask>,
}

/// What of it says how to read the rest.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IndexedTask {
    current: String,
    pinned: bool,
    versions: Vec<IndexedVersion>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexedVersion {
    digest: String,
    accepted: u64,
    source: String,
}

impl Registry {
    fn index_path(&self) -> PathBuf {
        self.config.state.join("registry.json")
    }

    /// Tasks of a former run, as far as they belong to this backbone.
    pub(super) fn read_index(&self) -> Result<(), Error> {
        let path = self.index_path();
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(Error::io(&path))?,
        };
        let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
        let format = serde_json::from_slice::<Format>(&bytes).map_err(|error| damaged(error.to_string()))?.format;
        if format != FORMAT {
            return Err(damaged(format!("it is of format {format}, this program knows {FORMAT}")));
        }
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if index.backbone != self.engine.backbone().digest() {
            let reason = format!(
                "its plug-ins belong to the backbone {}, this one is {}; give another state folder",
                &short(&index.backbone),
                short(self.engine.backbone().digest())
            );
            return Err(damaged(reason));
        }
        let mut tasks = BTreeMap::new();
        for (name, indexed) in index.tasks {
            let mut versions = Vec::new();
            let mut why = "it is gone".to_owned();
            for version in &indexed.versions {
                match self.version(version) {
                    Ok(found) => versions.push(Arc::new(found)),
                    Err(reason) => {
                        tracing::warn!(task = name, version = version.digest, reason, "version is not served");
                        if version.digest == indexed.current {
                            why = reason;
                        }
                    }
                }
            }
            let current = versions.iter().find(|version| version.digest == indexed.current).cloned();
            let Some(current) = current else {
                self.problem(&name, Some(format!("version {}: {why}", short(&indexed.current))));
                self.held().insert(name, indexed);
                continue;
            };
            self.problem(&name, trial::ended_by(&self.stored(&current.digest)));
            tasks.insert(name.clone(), Task { name, current, pinned: indexed.pinned, versions });
        }
        *self.tasks.write().unwrap_or_else(PoisonError::into_inner) = tasks;
        if index.proven_on != Some(self.here()) {
            self.prove_all();
        }
        self.report();
        Ok(())
    }

    pub(super) fn write_index(&self, tasks: &BTreeMap<String, Task>) -> Result<(), Refusal> {
        let version = |version: &Arc<Version>| IndexedVersion {
            digest: version.digest.clone(),
            accepted: version.accepted,
            source: version.source.clone(),
        };
        let task = |task: &Task| IndexedTask {
            current: task.current.digest.clone(),
            pinned: task.pinned,
            versions: task.versions.iter().map(version).collect(),
        };
        let index = Index {
            format: FORMAT,
            backbone: self.engine.backbone().digest().to_owned(),
            proven_on: tasks.keys().all(|name| self.problem_of(name).is_none()).then(|| self.here()),
            tasks: tasks.iter().map(|(name, found)| (name.clone(), task(found))).collect(),
        };
        let held = self.held().clone().into_iter().filter(|(name, _)| !tasks.contains_key(name));
        let index = Index { tasks: held.chain(index.tasks).collect(), ..index };
        let json = serde_json::to_vec_pretty(&index).map_err(|error| Refusal::Internal(error.to_string()))?;
        write_atomically(&self.index_path(), &json).map_err(|error| Refusal::Unavailable(error.to_string()))
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, IndexedTask>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a stored file says of itself, once it is known who stands behind it.
    ///
    /// # Errors
    /// Why it is not served, in words.
    fn version(&self, indexed: &IndexedVersion) -> Result<Version, String> {
        let IndexedVersion { digest, accepted, source } = indexed.clone();
        let path = self.stored(&digest);
        let mut signer = None;
        if self.signers.is_asked() {
            let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
            let signature = signature_beside(&path)?;
            signer = self.signers.admit(&bytes, &hex(&Sha256::digest(&bytes)), signature.as_ref())?;
        }
        let info = melo_vit::PluginInfo::read(&path).map_err(|error| error.to_string())?;
        Ok(Version { digest, card: info.card, bytes: info.bytes, accepted, source, signer })
    }
}
