//! Packed weights that are written while this process does something else.

use crate::note;
use melo::vit::Unkept;
use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
use std::sync::Mutex;
use std::thread::JoinHandle;

/// What is being written.
static WRITING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Writes it beside what this process does. A folder that is only read is no news.
pub(crate) fn keep(unkept: Unkept) {
    let write = move || {
        if let Err(error) = unkept.keep()
            && ![PermissionDenied, ReadOnlyFilesystem].contains(&error.kind())
        {
            note(format_args!("note: packed weights are not kept: {error}"));
        }
    };
    if let (Ok(thread), Ok(mut writing)) = (std::thread::Builder::new().spawn(write), WRITING.lock()) {
        writing.push(thread);
    }
}

/// Waits until everything is written.
pub(crate) fn wait() {
    let writing = WRITING.lock().map(|mut writing| std::mem::take(&mut *writing)).unwrap_or_default();
    for thread in writing {
        let _ = thread.join();
    }
}
