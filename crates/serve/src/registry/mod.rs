//! Which plug-ins there are: tasks, their versions, and which of them are in memory.
//!
//! A plug-in that is accepted is copied to `STATE/plugins/DIGEST.safetensors`, named by its SHA-256 and never changed.
//! What happens to the file it came from has no effect on what is served, every version stays addressable, and no name
//! of a request ever becomes a path. `STATE/registry.json` says which version of which task is current. Weights are
//! read from there when they are asked for and leave memory again, least recently used first, above a cap.

mod folder;
mod index;
mod resident;
mod signed;
mod trial;

pub use folder::Folder;
pub use signed::SignatureConfig;

use crate::audit::{Action, Audit};
use crate::defaults;
use crate::error::{Error, Refusal};
use crate::journal::{Happened, Journal, unrecorded};
use crate::lock;
use crate::metrics::Metrics;
use index::IndexedTask;
use melo_sign::{Signature, Signer, beside};
use melo_vit::{BoundPlugin, ComputedOn, Engine, Plugin, TaskCard, TensorFile, hex, write_atomically};
use resident::Resident;
use serde_json::json;
use sha2::{Digest, Sha256};
use signed::Signers;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trial::Trials;

/// Longest name of a task.
const NAME_BYTES: usize = 64;
/// Longest reason why something is not served, characters.
const REASON_CHARS: usize = 1000;
/// Shortest beginning of a digest that names a version.
const VERSION_DIGITS: usize = 8;

/// What to do about a plug-in that is refused, where the program that serves knows it.
#[derive(Clone, Copy, Debug)]
pub struct Advice(pub fn(&melo_vit::Error) -> Option<String>);

impl PartialEq for Advice {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

/// What the registry may hold.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryConfig {
    /// Folder for accepted plug-ins and their index.
    pub state: PathBuf,
    /// Weights kept in memory, bytes.
    pub resident_bytes: usize,
    /// Versions of a task that are kept beside the current one.
    pub keep_versions: usize,
    /// Longest time of a self-test, four passes of one image: a plug-in that takes longer would hold up all others.
    pub self_test: Duration,
    /// Whose plug-ins are taken.
    pub signatures: SignatureConfig,
    /// Follows what is said of a plug-in that is refused.
    pub advice: Advice,
}

impl RegistryConfig {
    /// The usual bounds, with the state in this folder.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        RegistryConfig {
            state: state.into(),
            resident_bytes: defaults::RESIDENT_BYTES,
            keep_versions: defaults::KEEP_VERSIONS,
            self_test: defaults::TIMEOUT / 2,
            signatures: SignatureConfig::default(),
            advice: Advice(|_| None),
        }
    }
}

/// One version of a task: immutable.
#[derive(Clone, Debug)]
pub struct Version {
    /// SHA-256 of the file, hex: the version's name.
    pub digest: String,
    /// What the file says of itself.
    pub card: TaskCard,
    /// Size of the file.
    pub bytes: usize,
    /// When it was accepted, s since 1970.
    pub accepted: u64,
    /// Where it came from: a file's name, or who put it.
    pub source: String,
    /// Who signed it, of those who are trusted.
    pub signer: Option<Signer>,
}

/// A task as it is served now.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its name, that of the card.
    pub name: String,
    /// The version that answers when none is named.
    pub current: Arc<Version>,
    /// Newer files do not replace the current version.
    pub pinned: bool,
    /// All versions that can be named, the newest last.
    pub versions: Vec<Arc<Version>>,
}

/// The tasks of one server.
pub struct Registry {
    config: RegistryConfig,
    /// Held as long as this state is this process's.
    _lock: File,
    /// Runs self-tests.
    engine: Arc<dyn Engine>,
    metrics: Arc<Metrics>,
    journal: Journal,
    signers: Signers,
    tasks: RwLock<BTreeMap<String, Task>>,
    /// Tasks of a former run that cannot be served now, and stay in the index.
    held: Mutex<BTreeMap<String, IndexedTask>>,
    resident: Mutex<Resident>,
    /// Held while tasks change, so that changes and the index on disk come one after the other.
    changing: Mutex<()>,
    trials: Trials,
    problems: Mutex<BTreeMap<String, String>>,
}

impl Registry {
    /// Opens the state folder, or makes it. What is served from now on, and no longer, goes into the audit before it is so.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`], also of the list of trusted keys; [`Error::InUse`]; [`Error::Settings`].
    pub fn open(
        config: RegistryConfig,
        engine: Arc<dyn Engine>,
        metrics: Arc<Metrics>,
        audit: Option<Arc<Audit>>,
    ) -> Result<Self, Error> {
        let signers = Signers::open(&config.signatures)?;
        let folder = config.state.join("plugins");
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let lock = hold(&config.state)?;
        for folder in [&folder, &config.state] {
            sweep(folder).map_err(Error::io(folder))?;
        }
        let registry = Registry {
            _lock: lock,
            resident: Mutex::new(Resident::new(config.resident_bytes)),
            config,
            journal: Journal::new(audit, &*engine),
            signers,
            engine,
            metrics,
            tasks: RwLock::default(),
            held: Mutex::default(),
            changing: Mutex::new(()),
            trials: Trials::default(),
            problems: Mutex::default(),
        };
        registry.read_index()?;
        Ok(registry)
    }

    /// Folder for what outlives the process.
    pub(crate) fn state(&self) -> &Path {
        &self.config.state
    }

    fn stored(&self, digest: &str) -> PathBuf {
        self.config.state.join("plugins").join(format!("{digest}.safetensors"))
    }

    /// What the engine's answers depend on.
    fn here(&self) -> ComputedOn {
        ComputedOn::from(&self.engine.info())
    }

    /// Lets the tasks of a run on another engine, or in another precision, prove that their answers are the same here. Those that
    /// were calibrated here prove it when they are asked for.
    fn prove_all(&self) {
        let here = self.here();
        let mut all_good = true;
        for task in self.tasks() {
            let version = &task.current;
            if version.card.calibration_for(&here).made != here
                && let Err(refusal) = self.plugin(version)
            {
                all_good = false;
                self.problem(&task.name, Some(refusal.to_string()));
            }
        }
        if all_good {
            // Where this cannot be noted, it is done again at the next start.
            let _ = self.change(|_| Ok(()));
        }
    }

    /// All tasks, by name.
    pub fn tasks(&self) -> Vec<Task> {
        self.tasks.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether any task is served now.
    pub(crate) fn serves_any(&self) -> bool {
        let problems = self.problems();
        self.tasks.read().unwrap_or_else(PoisonError::into_inner).keys().any(|task| !problems.contains_key(task))
    }

    /// Files and versions that are not served, and why.
    pub fn problems(&self) -> BTreeMap<String, String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why a task that is known is not served.
    pub fn problem_of(&self, task: &str) -> Option<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).get(task).cloned()
    }

    pub(crate) fn problem(&self, of: &str, reason: Option<String>) {
        let reason = reason.map(bounded);
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => {
                if problems.get(of) != Some(&reason) {
                    tracing::warn!(from = of, reason, "plug-in refused");
                }
                problems.insert(of.to_owned(), reason);
            }
            None => drop(problems.remove(of)),
        }
    }

    /// True where the version's weights are in memory.
    pub fn is_resident(&self, version: &Version) -> bool {
        self.resident().contains(&version.digest)
    }

    fn resident(&self) -> MutexGuard<'_, Resident> {
        self.resident.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version that `name`, or `name@digest`, stands for; a digest may be shortened to 8 digits.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn find(&self, name: &str) -> Result<Arc<Version>, Refusal> {
        let (task, digits) = name.split_once('@').map_or((name, None), |(task, digits)| (task, Some(digits)));
        let tasks = self.tasks.read().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = tasks.get(task) else {
            return Err(Refusal::NotFound(format!("no task `{}`; GET /v1/tasks lists them", shown(task))));
        };
        let Some(digits) = digits else { return Ok(Arc::clone(&found.current)) };
        let named = |version: &&Arc<Version>| digits.len() >= VERSION_DIGITS && version.digest.starts_with(digits);
        found.versions.iter().rev().find(named).cloned().ok_or_else(|| {
            let known: Vec<&str> = found.versions.iter().map(|version| short(&version.digest)).collect();
            Refusal::NotFound(format!("task `{task}` has no version `{}`, but {}", shown(digits), known.join(", ")))
        })
    }

    /// A version's plug-in, from memory or from disk; blocks while it is read and tests itself.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] for a stored file that is damaged or no longer gives its golden outputs.
    pub fn plugin(&self, version: &Version) -> Result<Arc<BoundPlugin>, Refusal> {
        let failed = |reason: String| {
            let named = reason.starts_with("task `");
            Refusal::Unavailable(if named { reason } else { format!("task `{}`: {reason}", version.card.task) })
        };
        self.signers.check(&version.digest, version.signer.as_ref()).map_err(failed)?;
        if let Some(plugin) = self.resident().get(&version.digest) {
            return Ok(plugin);
        }
        let path = self.stored(&version.digest);
        let stored = std::fs::read(&path).map(|bytes| hex(&Sha256::digest(&bytes))).map_err(|error| error.to_string());
        let loaded = stored.and_then(|digest| match digest == version.digest {
            true => self.load(&path),
            false => Err(format!("its stored file has changed: it is now {}", short(&digest))),
        });
        let task = &version.card.task;
        let is_current = self.find(task).is_ok_and(|current| current.digest == version.digest);
        match loaded {
            Ok(plugin) => {
                if is_current {
                    self.problem(task, None);
                }
                let plugin = self.resident().insert(Arc::new(plugin));
                self.report();
                Ok(plugin)
            }
            Err(reason) => {
                let refusal = failed(reason);
                if is_current {
                    self.problem(task, Some(refusal.to_string()));
                }
                Err(refusal)
            }
        }
    }

    /// An error with what to do about it.
    fn said(&self, error: &melo_vit::Error) -> String {
        match (self.config.advice.0)(error) {
            Some(advice) => format!("{error}; {advice}"),
            None => error.to_string(),
        }
    }

    /// Reads a plug-in and lets it prove that it is active and at home on this backbone, in time and without ending the process.
    ///
    /// # Errors
    /// Why it cannot be served, in words.
    fn load(&self, path: &Path) -> Result<BoundPlugin, String> {
        let said = |error| bounded(self.said(&error));
        // Where it is stored is ours and tells the user nothing.
        let file = TensorFile::open_as(path, Path::new("")).map_err(said)?;
        let plugin = Plugin::from_file(&file, self.engine.backbone()).map_err(said)?;
        let (task, size) = (plugin.card.task.clone(), plugin.card.preprocess.size);
        let trial = self.trials.begin(path).map_err(|reason| format!("task `{task}`: {reason}"))?;
        let started = Instant::now();
        let proven = plugin.prove(&*self.engine).map_err(said);
        let took = started.elapsed();
        drop(trial);
        if took > self.config.self_test {
            let (took, most) = (took.as_secs_f64(), self.config.self_test.as_secs_f64());
            return Err(format!(
                "task `{task}`: its self-test of 4 passes of {size} px took {took:.1} s here, at most {most:.1} s are waited for"
            ));
        }
        proven
    }

    /// Accepts a plug-in's bytes as the newest version of its task, and serves it unless the task is pinned to another.
    /// `objection` may refuse it by its card. Bytes that are a version already only become current.
    ///
    /// # Errors
    /// [`Refusal::Unusable`] for a file that is refused, before it is parsed where the signature is the reason;
    /// [`Refusal::Unavailable`] where it cannot be stored or recorded. What was served before goes on.
    pub fn accept(
        &self,
        bytes: &[u8],
        signature: Option<&Signature>,
        source: &str,
        objection: impl FnOnce(&TaskCard) -> Option<String>,
    ) -> Result<Arc<Version>, Refusal> {
        let digest = hex(&Sha256::digest(bytes));
        let signer = self.signers.admit(bytes, &digest, signature).map_err(Refusal::Unusable)?;
        if let Some(signature) = signature.filter(|_| signer.is_some()) {
            let path = beside(&self.stored(&digest));
            let write = write_atomically(&path, signature.to_string().as_bytes());
            write.map_err(|error| Refusal::Unavailable(error.to_string()))?;
        }
        let version = match self.known(&digest) {
            Some(version) => {
                self.restore(&version, bytes)?;
                match version.signer == signer {
                    true => version,
                    false => Arc::new(Version { signer, ..Version::clone(&version) }),
                }
            }
            None => self.store(digest, bytes, source, signer)?,
        };
        let objection = check_name(&version.card.task).err().or_else(|| objection(&version.card));
        if let Some(reason) = objection {
            self.discard(&version.digest);
            return Err(Refusal::Unusable(reason));
        }
        self.change(|tasks| {
            let name = version.card.task.clone();
            let newest = Arc::clone(&version);
            let task = tasks.entry(name.clone()).or_insert_with(|| Task {
                name,
                current: Arc::clone(&newest),
                pinned: false,
                versions: Vec::new(),
            });
            task.versions.retain(|known| known.digest != newest.digest);
            task.versions.push(Arc::clone(&newest));
            if !task.pinned {
                task.current = newest;
            }
            Ok(())
        })?;
        if self.find(&version.card.task)?.digest == version.digest {
            self.problem(&version.card.task, None);
        }
        tracing::info!(task = version.card.task, version = version.digest, source, "plug-in accepted");
        Ok(version)
    }

    /// The version of that digest, whatever its task.
    pub(crate) fn known(&self, digest: &str) -> Option<Arc<Version>> {
        let tasks = self.tasks.read().unwrap_or_else(PoisonError::into_inner);
        tasks.values().flat_map(|task| &task.versions).find(|version| version.digest == digest).cloned()
    }

    /// Writes a version's bytes again where what is stored is not what it was.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub(super) fn restore(&self, version: &Version, bytes: &[u8]) -> Result<(), Refusal> {
        let path = self.stored(&version.digest);
        if std::fs::read(&path).is_ok_and(|stored| stored == bytes) {
            return Ok(());
        }
        write_atomically(&path, bytes).map_err(|error| Refusal::Unavailable(error.to_string()))?;
        tracing::warn!(
            task = version.card.task,
            version = version.digest,
            "a stored plug-in was damaged and is whole again"
        );
        self.problem(&version.card.task, None);
        Ok(())
    }

    /// Writes a plug-in to the store, reads it from there and lets it test itself.
    fn store(
        &self,
        digest: String,
        bytes: &[u8],
        source: &str,
        signer: Option<Signer>,
    ) -> Result<Arc<Version>, Refusal> {
        let path = self.stored(&digest);
        write_atomically(&path, bytes).map_err(|error| Refusal::Unavailable(error.to_string()))?;
        let plugin = self.load(&path).map_err(|error| {
            self.discard(&digest);
            Refusal::Unusable(error)
        })?;
        let accepted = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let (card, source) = (plugin.card.clone(), source.to_owned());
        self.resident().insert(Arc::new(plugin));
        Ok(Arc::new(Version { digest, card, bytes: bytes.len(), accepted, source, signer }))
    }

    /// Forgets stored bytes that no task names.
    fn discard(&self, digest: &str) {
        if self.known(digest).is_none() {
            self.resident().remove(digest);
            let path = self.stored(digest);
            let _ = std::fs::remove_file(beside(&path));
            let _ = std::fs::remove_file(path);
        }
    }

    /// Makes a version current and keeps it so, or lets newer files replace it again.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Unavailable`].
    pub fn pin(&self, name: &str, pinned: bool) -> Result<(), Refusal> {
        let version = self.find(name)?;
        // What keeps another version from being served says nothing of this one, which proves itself when it is asked for.
        self.problem(&version.card.task, None);
        self.change(|tasks| {
            if let Some(task) = tasks.get_mut(&version.card.task) {
                task.current = version;
                task.pinned = pinned;
            }
            Ok(())
        })
    }

    /// Stops serving a task; its stored versions go too. Batches that hold its plug-in finish.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Unavailable`].
    pub fn remove(&self, name: &str) -> Result<(), Refusal> {
        self.change(|tasks| match tasks.remove(name) {
            Some(_) => Ok(()),
            None => Err(Refusal::NotFound(format!("no task `{}`", shown(name)))),
        })?;
        self.problem(name, None);
        self.metrics.forget(name);
        tracing::info!(task = name, "task removed");
        Ok(())
    }

    /// Changes the tasks: on disk first, then for requests, then files that nothing names any more go.
    fn change(&self, edit: impl FnOnce(&mut BTreeMap<String, Task>) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.tasks.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut after = before.clone();
        edit(&mut after)?;
        after.values_mut().for_each(|task| self.forget_oldest(task));
        self.journal.before(changes(&before, &after)).map_err(|error| unrecorded(&error))?;
        self.write_index(&after)?;
        let named = |tasks: &BTreeMap<String, Task>, digest: &str| {
            tasks.values().flat_map(|task| &task.versions).any(|version| version.digest == digest)
        };
        let gone: Vec<String> = before
            .values()
            .flat_map(|task| &task.versions)
            .filter(|version| !named(&after, &version.digest))
            .map(|version| version.digest.clone())
            .collect();
        *self.tasks.write().unwrap_or_else(PoisonError::into_inner) = after;
        gone.iter().for_each(|digest| self.discard(digest));
        self.report();
        Ok(())
    }

    fn forget_oldest(&self, task: &mut Task) {
        let mut excess = task.versions.len().saturating_sub(self.config.keep_versions + 1);
        let current = &task.current.digest;
        task.versions.retain(|version| {
            let goes = excess > 0 && version.digest != *current;
            excess -= usize::from(goes);
            !goes
        });
    }

    fn report(&self) {
        let tasks = self.tasks.read().unwrap_or_else(PoisonError::into_inner).len();
        self.metrics.registry_holds(tasks, self.resident().bytes());
    }
}

/// Which versions are served after a change that were not before, and which tasks no longer are.
fn changes(before: &BTreeMap<String, Task>, after: &BTreeMap<String, Task>) -> Vec<(Action, Happened)> {
    let current = |tasks: &BTreeMap<String, Task>, name: &str| tasks.get(name).map(|task| task.current.digest.clone());
    let come = after.values().filter(|task| current(before, &task.name).as_ref() != Some(&task.current.digest));
    let come = come.map(|task| {
        let Version { source, signer, digest, .. } = &*task.current;
        let signed_by = signer.as_ref().map(|signer| json!({ "key": signer.key.to_string(), "name": signer.name }));
        let output = json!({ "source": source, "signed_by": signed_by });
        (Action::Serve, Happened { task: task.name.clone(), plugin_digest: Some(digest.clone()), output })
    });
    let gone = before.values().filter(|task| !after.contains_key(&task.name));
    let gone = gone.map(|task| {
        let (task, plugin_digest) = (task.name.clone(), Some(task.current.digest.clone()));
        (Action::Withdraw, Happened { task, plugin_digest, ..Happened::default() })
    });
    come.chain(gone).collect()
}

/// Takes a state folder for this process alone.
fn hold(state: &Path) -> Result<File, Error> {
    let path = state.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::io(&path))?;
    lock::hold(file, &path, state)
}

/// Removes files that a killed process left unfinished.
fn sweep(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let unfinished = entry.file_name().to_str().is_some_and(|name| name.starts_with(".melo-"));
        if unfinished && entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Names go into URLs, labels and lists.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fine = (1..=NAME_BYTES).contains(&name.len())
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name != "all";
    if fine {
        return Ok(());
    }
    Err(format!(
        "task `{}`: a served task is named by 1 to {NAME_BYTES} letters, digits, `.`, `_` and `-`, and not `all`",
        shown(name)
    ))
}

/// A reason as it is kept and told: a file can make its own as long as it likes.
fn bounded(mut reason: String) -> String {
    if let Some((end, _)) = reason.char_indices().nth(REASON_CHARS) {
        reason.truncate(end);
        reason.push('…');
    }
    reason
}

/// A name from outside as part of a message.
fn shown(name: &str) -> String {
    name.chars().take(NAME_BYTES).flat_map(char::escape_debug).collect()
}

/// The beginning of a digest, for people.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
