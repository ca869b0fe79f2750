//! What the program says, and why it ends early.

use crate::advice;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why a verb ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something went wrong; the sentence says what, where, and what to do.
    Message(String),
    /// The command line asks for what cannot be; the sentence says why.
    Usage(String),
    /// Everything that went wrong was already said.
    Reported,
    /// Stopped by the user.
    Interrupted(String),
}

impl Failure {
    /// What is said of it, if it was not said already.
    pub(crate) fn message(&self) -> Option<&str> {
        match self {
            Failure::Message(message) | Failure::Usage(message) | Failure::Interrupted(message) => Some(message),
            Failure::Reported => None,
        }
    }

    /// The same, of a file that the library was not told of.
    pub(crate) fn of(self, path: &Path) -> Self {
        match self {
            Failure::Message(message) => Failure::Message(format!("{}: {message}", path.display())),
            other => other,
        }
    }
}

impl Failure {
    /// The same, of another place.
    pub(crate) fn on(self, place: &str) -> Self {
        let placed = |message: String| format!("{place}: {message}");
        match self {
            Failure::Message(message) => Failure::Message(placed(message)),
            Failure::Usage(message) => Failure::Usage(placed(message)),
            Failure::Interrupted(message) => Failure::Interrupted(placed(message)),
            Failure::Reported => Failure::Reported,
        }
    }
}

/// True in a process that others speak for.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Says nothing more, or speaks again.
pub(crate) fn silence(silent: bool) {
    SILENT.store(silent, Ordering::Relaxed);
}

/// True where nothing is said.
pub(crate) fn is_silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        advice::failure(&error)
    }
}

/// Prints to standard output. A reader that went away (`| head`) ends the program quietly; results that cannot be
/// written for another reason, such as a full disk, are a failure.
pub(crate) fn say(text: impl std::fmt::Display) {
    if is_silent() {
        return;
    }
    if let Err(error) = writeln!(std::io::stdout().lock(), "{text}") {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        note(format_args!("melo: standard output: {error}"));
        std::process::exit(1);
    }
}

/// Prints to standard error. That nobody can read it is no reason to lose a training run, so a failure is passed over.
pub(crate) fn note(text: impl std::fmt::Display) {
    if is_silent() {
        return;
    }
    // In one write: what launchers and other ranks say does not come in between.
    let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Prints one JSON value on one line.
pub(crate) fn say_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    say(serde_json::to_string(value)?);
    Ok(())
}

/// A path as JSON text, which cannot hold names that are not UTF-8: they are shown with a replacement character.
pub(crate) fn json_path<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}
