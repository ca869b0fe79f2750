//! Self-tests of plug-ins, one at a time, and which of them the process did not outlive.
//!
//! ```text
//! DIGEST.tries   beside the stored plug-in: a byte for every self-test that was begun and did not end
//! ```
//!
//! A test that ends, well or not, leaves no file. One that ended the process [`TRIES`] times, such as by its memory, is not run
//! again by the next: the others are served. A single end may have been the power's, and a good plug-in is not refused for it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Self-tests without an end after which a plug-in is not tested any more.
const TRIES: u64 = 2;

/// The turn of one self-test; it holds one plug-in's activations, so that memory does not grow with the number of callers.
#[derive(Default)]
pub(super) struct Trials(Mutex<()>);

/// A self-test that has begun.
pub(super) struct Trial<'a> {
    note: PathBuf,
    _turn: MutexGuard<'a, ()>,
}

/// Where the tries of a stored plug-in are counted.
fn note_of(stored: &Path) -> PathBuf {
    stored.with_extension("tries")
}

impl Trials {
    /// Waits for the turn and notes that the test of a stored plug-in begins.
    ///
    /// # Errors
    /// Why it is not begun.
    pub(super) fn begin(&self, stored: &Path) -> Result<Trial<'_>, String> {
        let turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = ended_by(stored) {
            return Err(reason);
        }
        let note = note_of(stored);
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&note);
        file.and_then(|mut file| file.write_all(b".")).map_err(|error| format!("its test cannot be noted: {error}"))?;
        Ok(Trial { note, _turn: turn })
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.note);
    }
}

/// Why a stored plug-in is not tested: the process ended in its tests before.
pub(super) fn ended_by(stored: &Path) -> Option<String> {
    let note = note_of(stored);
    let tries = std::fs::metadata(&note).map_or(0, |found| found.len());
    let name = note.file_name().unwrap_or_default().display();
    (tries >= TRIES).then(|| {
        format!("the server ended {tries} times in its self-test, and does not run it again while plugins/{name} is in its state")
    })
}
