//! Facts about this machine and process, and what computes on it.

use crate::{note, packed};
use melo::interop::{ReadCheckpoint, ReadSettings, locate, read_checkpoint_with};
use melo::vit::{Checkpoint, Device, DeviceSpec, Engine, Precision};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads that were asked for, 0 for one a core.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// To be called before anything is computed; 0 is one a core.
pub(crate) fn use_threads(threads: usize) {
    THREADS.store(threads, Ordering::Relaxed);
    melo::vit::set_threads(threads);
}

/// Threads that compute.
pub(crate) fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => cores(),
        threads => threads,
    }
}

/// Cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What computes in this precision, or in the fastest one.
pub(crate) fn device(precision: Option<Precision>) -> Arc<dyn Device> {
    DeviceSpec { precision, threads: THREADS.load(Ordering::Relaxed) }.open()
}

/// Any checkpoint; what was decided while it was read is said.
pub(crate) fn read_checkpoint(path: &Path, settings: &ReadSettings) -> Result<Checkpoint, melo::vit::Error> {
    Ok(said(path, read_checkpoint_with(path, settings)?).checkpoint)
}

fn said(path: &Path, read: ReadCheckpoint) -> ReadCheckpoint {
    for said in &read.notes {
        note(format_args!("note: {}: {said}", path.display()));
    }
    read
}

/// A backbone from any checkpoint, ready to compute.
pub(crate) fn load_engine(path: &Path, precision: Option<Precision>) -> Result<Arc<dyn Engine>, melo::vit::Error> {
    load_engine_with(path, &ReadSettings::default(), precision)
}

/// As [`load_engine`], mapped where it was kept; else it is kept for the next time.
pub(crate) fn load_engine_with(
    path: &Path,
    settings: &ReadSettings,
    precision: Option<Precision>,
) -> Result<Arc<dyn Engine>, melo::vit::Error> {
    let device = device(precision);
    let Some(cache) = packed::cache() else {
        return device.load(read_checkpoint(path, settings)?.freeze());
    };
    let read = || {
        let read = said(path, read_checkpoint_with(path, settings)?);
        // What was said once is to be said every time.
        Ok::<_, melo::vit::Error>((read.checkpoint.freeze(), read.notes.is_empty()))
    };
    let (engine, unkept) = cache.load(&*device, (&locate(path)?, &format!("{settings:?}")), read)?;
    unkept.into_iter().for_each(packed::keep);
    Ok(engine)
}

/// The most memory this process ever held, bytes; none where the system does not tell.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    status_bytes(None, "VmHWM:")
}

/// Memory that a process holds now, this one where none is named; bytes.
pub(crate) fn rss_bytes(pid: Option<u32>) -> Option<u64> {
    status_bytes(pid, "VmRSS:")
}

/// As [`rss_bytes`], the most it ever held.
pub(crate) fn peak_rss_bytes_of(pid: u32) -> Option<u64> {
    status_bytes(Some(pid), "VmHWM:")
}

fn status_bytes(pid: Option<u32>, field: &str) -> Option<u64> {
    let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Processor, cores and instruction set, for reports.
pub(crate) fn description() -> String {
    let processor = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|info| {
        let line = info.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let processor = processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    format!("{processor}, {} cores, {}", cores(), device(None).info().device)
}
