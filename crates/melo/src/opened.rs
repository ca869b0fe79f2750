//! A backbone ready to compute, mapped from where packed weights are kept between starts.

use melo_interop::{ReadSettings, locate, read_checkpoint_with};
use melo_share::cache_folder;
use melo_vit::{Device, Engine, Error, PackedCache, Unkept};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder, or `off`.
const FOLDER: &str = "MELO_PACKED_CACHE";
/// The most that the folder may hold, MiB; 0 is none.
const LIMIT: &str = "MELO_PACKED_CACHE_MIB";
/// Ten of ViT-B in f32.
const LIMIT_MIB: u64 = 4096;

/// What [`open_engine`] gives.
#[derive(Debug)]
pub struct Opened {
    /// The backbone, ready to compute.
    pub engine: Arc<dyn Engine>,
    /// A sentence for every choice that the files or the environment left open.
    pub notes: Vec<String>,
    /// What to [keep](Unkept::keep) for the next start, beside other work.
    pub unkept: Option<Unkept>,
}

/// The backbone of any checkpoint, see [`melo_interop::read_checkpoint`], on a device: mapped where it was kept, else read and packed.
///
/// Packed weights are kept in `$MELO_PACKED_CACHE` (`off` for nowhere), else in `$XDG_CACHE_HOME/melo` or `~/.cache/melo`, up to
/// `$MELO_PACKED_CACHE_MIB` (4,096 MiB; 0 keeps none).
///
/// # Errors
/// As [`melo_interop::read_checkpoint`] and [`Device::load`]; no state of the folder is one.
pub fn open_engine(device: &dyn Device, source: &Path, settings: &ReadSettings) -> Result<Opened, Error> {
    let mut notes = Vec::new();
    let cache = cache(&mut notes);
    let mut read = || {
        let read = read_checkpoint_with(source, settings)?;
        // What was said once is to be said every time.
        let quiet = read.notes.is_empty();
        notes.extend(read.notes.into_iter().map(|note| format!("{}: {note}", source.display())));
        Ok::<_, Error>((read.checkpoint.freeze(), quiet))
    };
    let (engine, unkept) = match &cache {
        None => (device.load(read()?.0)?, None),
        Some(cache) => cache.load(device, (&locate(source)?, &format!("{settings:?}")), read)?,
    };
    Ok(Opened { engine, notes, unkept })
}

/// The folder; none where it is switched off, or is no place to keep anything.
fn cache(notes: &mut Vec<String>) -> Option<PackedCache> {
    let folder = match std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()) {
        Some(word) if word == "off" => return None,
        Some(folder) => PathBuf::from(folder),
        None => cache_folder()?,
    };
    let mib = match std::env::var(LIMIT).map(|mib| (mib.parse(), mib)) {
        Ok((Ok(0), _)) => return None,
        Ok((Ok(mib), _)) => mib,
        Ok((Err(_), word)) => {
            notes.push(format!("{LIMIT}={word} is no number of MiB: the limit is {LIMIT_MIB}"));
            LIMIT_MIB
        }
        Err(_) => LIMIT_MIB,
    };
    PackedCache::open(&folder, mib.saturating_mul(1 << 20)).ok()
}
