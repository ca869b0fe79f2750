//! Errors of the libraries as exceptions: a class by the door that was knocked at, the sentence, and its facts as attributes.

use melo::{data, embed, eval, imaging, interop, predict, train, vit};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::error::Error;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which class of `melo_vit` an error is raised as where it does not say so itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Door {
    Backbone,
    Plugin,
    Image,
    Data,
    Training,
    Setting,
}

impl Door {
    fn class(self) -> &'static str {
        match self {
            Door::Backbone => "BackboneError",
            Door::Plugin => "PluginError",
            Door::Image => "ImageError",
            Door::Data => "DataError",
            Door::Training => "TrainingError",
            Door::Setting => "SettingError",
        }
    }
}

/// What is raised.
#[derive(Debug)]
pub(crate) struct Failure {
    class: &'static str,
    kind: String,
    message: String,
    facts: Vec<(&'static str, Fact)>,
}

/// A fact of an error.
#[derive(Debug)]
enum Fact {
    Text(String),
    Number(usize),
    Texts(Vec<String>),
}

impl Failure {
    /// A refusal that is the module's own.
    pub(crate) fn new(door: Door, kind: &str, message: impl Into<String>) -> Self {
        Failure { class: door.class(), kind: kind.to_owned(), message: message.into(), facts: Vec::new() }
    }

    /// A setting that cannot be.
    pub(crate) fn setting(setting: &str, reason: impl std::fmt::Display) -> Self {
        let facts = vec![("setting", Fact::Text(setting.to_owned()))];
        Failure { facts, ..Failure::new(Door::Setting, "Setting", format!("{setting}: {reason}")) }
    }

    /// Refuses as many of one thing as not of another.
    pub(crate) fn unless_as_many((n, of): (usize, &str), (others, what): (usize, &str)) -> Result<(), Self> {
        match n == others {
            true => Ok(()),
            false => Err(Failure::new(Door::Data, "Lengths", format!("{n} {of}, but {others} {what}"))),
        }
    }

    fn of(door: Door, error: &impl Error, facts: Vec<(&'static str, Fact)>) -> Self {
        Failure { class: door.class(), kind: variant(error), message: error.to_string(), facts }
    }

    /// The exception.
    pub(crate) fn raise(self) -> PyErr {
        Python::attach(|py| self.exception(py).map_or_else(|error| error, PyErr::from_value))
    }

    fn exception(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let facts = PyDict::new(py);
        for (name, fact) in self.facts {
            match fact {
                Fact::Text(text) => facts.set_item(name, text)?,
                Fact::Number(number) => facts.set_item(name, number)?,
                Fact::Texts(texts) => facts.set_item(name, texts)?,
            }
        }
        py.import("melo_vit._errors")?.getattr(self.class)?.call1((self.message, self.kind, facts))
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> PyErr {
        failure.raise()
    }
}

/// The name of an enum's variant, with which its derived `Debug` begins.
fn variant(error: &impl Debug) -> String {
    let debug = format!("{error:?}");
    debug.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

fn text(value: impl ToString) -> Fact {
    Fact::Text(value.to_string())
}

/// An error of this library at this door.
pub(crate) trait At {
    /// As it is raised.
    fn at(self, door: Door) -> Failure;
}

impl At for vit::Error {
    fn at(self, door: Door) -> Failure {
        use vit::Error as E;
        let (door, facts) = match &self {
            E::Io { path, .. } | E::Config { path, .. } | E::Card { path, .. } | E::NotSafetensors { path, .. } => {
                (door, vec![("path", text(path.display()))])
            }
            E::MissingTensor { path, name } | E::UnexpectedTensor { path, name, .. } => {
                (door, vec![("path", text(path.display())), ("tensor", text(name))])
            }
            E::WeightsKey { path, found, .. } => {
                (door, vec![("path", text(path.display())), ("found", Fact::Texts(found.clone()))])
            }
            E::UnknownArchitecture { name, .. } => (Door::Backbone, vec![("name", text(name))]),
            E::BackboneMismatch { path, expected_name, expected, found_name, found } => {
                let facts = [("expected_name", expected_name), ("expected", expected)];
                let facts = facts.into_iter().chain([("found_name", found_name), ("found", found)]);
                let path = std::iter::once(("path", text(path.display())));
                (Door::Plugin, path.chain(facts.map(|(name, value)| (name, text(value)))).collect())
            }
            E::Lora(_) | E::Bottleneck(_) | E::ImageSize { .. } | E::ImageWork { .. } | E::Features(_) => {
                (Door::Setting, Vec::new())
            }
            E::Image { .. } => (Door::Image, Vec::new()),
            _ => (door, Vec::new()),
        };
        Failure::of(door, &self, facts)
    }
}

impl At for imaging::Error {
    fn at(self, _: Door) -> Failure {
        let facts = vec![("path", text(self.path().display()))];
        Failure::of(Door::Image, &self, facts)
    }
}

impl At for data::Error {
    fn at(self, _: Door) -> Failure {
        use data::Error as E;
        let facts = match &self {
            E::Read { path, .. } | E::NoRows { path } => vec![("path", text(path.display()))],
            E::EmptySplit { path, split } => vec![("path", text(path.display())), ("split", text(split.word()))],
            E::Unreadable { path, images, broken, .. } => {
                let broken = broken.iter().map(|broken| broken.error.to_string()).collect();
                vec![("path", text(path.display())), ("images", Fact::Number(*images)), ("broken", Fact::Texts(broken))]
            }
            E::UnknownClass { path, line, class, allowed } => vec![
                ("path", text(path.display())),
                ("line", Fact::Number(*line)),
                ("label", text(class)),
                ("allowed", Fact::Texts(allowed.clone())),
            ],
            E::DuplicatePath { path, line, name, .. } => {
                vec![("path", text(path.display())), ("line", Fact::Number(*line)), ("name", text(name))]
            }
            _ => Vec::new(),
        };
        Failure::of(Door::Data, &self, facts)
    }
}

impl At for train::Error {
    fn at(self, door: Door) -> Failure {
        use train::Error as E;
        match self {
            E::Vit(error) => error.at(door),
            E::Images(error) => error.at(door),
            E::Eval(error) => error.at(door),
            E::Setting { setting, .. } | E::ForeignSetting { setting, .. } => {
                Failure::of(Door::Setting, &self, vec![("setting", text(setting))])
            }
            E::Card { .. } => Failure::of(Door::Setting, &self, Vec::new()),
            E::Data { split, .. } => Failure::of(Door::Data, &self, vec![("split", text(split))]),
            E::OtherKind { .. } | E::NoBags { .. } | E::InBags { .. } | E::UnknownSplits { .. } => {
                Failure::of(Door::Data, &self, Vec::new())
            }
            E::RunExists { ref folder, .. } | E::RunInUse { ref folder } | E::NotARun { ref folder, .. } => {
                let facts = vec![("path", text(folder.display()))];
                Failure::of(Door::Training, &self, facts)
            }
            E::Diverged { epoch, .. } => Failure::of(Door::Training, &self, vec![("epoch", Fact::Number(epoch))]),
            other => Failure::of(Door::Training, &other, Vec::new()),
        }
    }
}

impl At for predict::Error {
    fn at(self, door: Door) -> Failure {
        match self {
            predict::Error::Image(error) => error.at(door),
            predict::Error::Engine(error) => error.at(door),
            other => Failure::of(Door::Plugin, &other, Vec::new()),
        }
    }
}

impl At for interop::Error {
    fn at(self, door: Door) -> Failure {
        match self {
            interop::Error::File(error) => error.at(door),
            other => Failure::of(door, &other, Vec::new()),
        }
    }
}

impl At for embed::Error {
    fn at(self, door: Door) -> Failure {
        match self {
            embed::Error::Engine(error) => error.at(door),
            other => Failure::of(door, &other, Vec::new()),
        }
    }
}

impl At for eval::Error {
    fn at(self, door: Door) -> Failure {
        Failure::of(door, &self, Vec::new())
    }
}

/// A result whose error is raised at a door.
pub(crate) trait OrRaise<T> {
    /// The value, or the failure.
    fn or_raise(self, door: Door) -> Result<T, Failure>;
}

impl<T, E: At> OrRaise<T> for Result<T, E> {
    fn or_raise(self, door: Door) -> Result<T, Failure> {
        self.map_err(|error| error.at(door))
    }
}

/// Whether threads that compute were started.
static STARTED: AtomicBool = AtomicBool::new(false);
/// Whether this process is a copy of one that had started them: a fork copies no thread.
static FORKED: AtomicBool = AtomicBool::new(false);

/// To be called in a forked child.
#[pyfunction]
pub(crate) fn forked() {
    FORKED.store(STARTED.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Computes without the interpreter's lock, so that other threads go on; a panic is an exception.
pub(crate) fn work<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Failure> + Send) -> PyResult<T> {
    if FORKED.load(Ordering::Relaxed) {
        let message = "this process was forked from one that computes already, and has none of its threads: start it by \
                       `spawn` or `forkserver`, or fork before anything is loaded";
        return Err(Failure::new(Door::Backbone, "Forked", message).raise());
    }
    STARTED.store(true, Ordering::Relaxed);
    let done = py.detach(|| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)));
    match done {
        Ok(done) => Ok(done?),
        Err(panic) => {
            let message = format!("a defect of melo: {}; please report it", vit::panic_message(&*panic));
            Err(Failure { class: "InternalError", kind: "Panic".to_owned(), message, facts: Vec::new() }.raise())
        }
    }
}

/// True where the user asked to stop; what Python says of it is kept.
pub(crate) fn interrupted(kept: &mut Option<PyErr>) -> bool {
    if kept.is_none() {
        *kept = Python::attach(|py| py.check_signals().err());
    }
    kept.is_some()
}

/// Stopped without a reason of Python's own.
pub(crate) fn stopped() -> PyErr {
    PyKeyboardInterrupt::new_err("stopped")
}
