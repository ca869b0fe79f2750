//! Where packed weights are kept between starts.

use crate::note;
use melo::vit::{PackedCache, Unkept};
use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread::JoinHandle;

/// A folder, or `off`.
const FOLDER: &str = "MELO_PACKED_CACHE";
/// The most that the folder may hold, MiB; 0 is none.
const LIMIT: &str = "MELO_PACKED_CACHE_MIB";
/// Ten of ViT-B in f32.
const LIMIT_MIB: u64 = 4096;

/// What is being written.
static WRITING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// The folder; none where it is switched off, or is no place to keep anything.
pub(crate) fn cache() -> Option<PackedCache> {
    let folder = match std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()) {
        Some(word) if word == "off" => return None,
        Some(folder) => PathBuf::from(folder),
        None => standard()?,
    };
    let mib = match std::env::var(LIMIT).map(|mib| (mib.parse(), mib)) {
        Ok((Ok(0), _)) => return None,
        Ok((Ok(mib), _)) => mib,
        Ok((Err(_), word)) => {
            note(format_args!("note: {LIMIT}={word} is no number of MiB: the limit is {LIMIT_MIB}"));
            LIMIT_MIB
        }
        Err(_) => LIMIT_MIB,
    };
    PackedCache::open(&folder, mib.saturating_mul(1 << 20)).ok()
}

/// `$XDG_CACHE_HOME/melo`, or `~/.cache/melo`.
fn standard() -> Option<PathBuf> {
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|folder| folder.is_absolute());
    Some(folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?.join("melo"))
}

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
