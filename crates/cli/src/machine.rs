//! Facts about this machine and process, and what computes on it.

use crate::{note, packed};
use melo::interop::{ReadSettings, read_checkpoint_with};
use melo::vit::{Checkpoint, Device, DeviceSpec, Engine, Precision};
use melo::{DeviceName, Opened, open_engine};
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Threads that were asked for, 0 for one a core.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// What computes.
static DEVICE: OnceLock<DeviceName> = OnceLock::new();

/// How this program is started.
static PROGRAM: OnceLock<Vec<OsString>> = OnceLock::new();

/// To be called first.
pub(crate) fn started_by(program: Vec<OsString>) {
    let _ = PROGRAM.set(program);
}

/// This program once more, without arguments.
pub(crate) fn command() -> Command {
    let mut program = PROGRAM.get().into_iter().flatten();
    let mut command = Command::new(program.next().map_or("melo".as_ref(), OsString::as_os_str));
    command.args(program);
    command
}

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

/// To be called before anything is computed: what is asked for is there, or this says why not.
pub(crate) fn use_device(name: DeviceName) -> Result<(), melo::vit::Error> {
    let opened = name.open(&spec(None))?;
    let name = match opened.info().engine {
        // `auto` is one thing from here on.
        "cpu" => DeviceName::Processor,
        _ if name == DeviceName::Auto => DeviceName::Cuda(0),
        _ => name,
    };
    let _ = DEVICE.set(name);
    Ok(())
}

/// What was asked for.
pub(crate) fn device_name() -> DeviceName {
    DEVICE.get().copied().unwrap_or_default()
}

fn spec(precision: Option<Precision>) -> DeviceSpec {
    DeviceSpec { precision, threads: THREADS.load(Ordering::Relaxed) }
}

/// What computes in this precision, or in the fastest one.
pub(crate) fn device(precision: Option<Precision>) -> Arc<dyn Device> {
    device_name().open(&spec(precision)).expect("it was opened when the program began")
}

/// Any checkpoint; what was decided while it was read is said.
pub(crate) fn read_checkpoint(path: &Path, settings: &ReadSettings) -> Result<Checkpoint, melo::vit::Error> {
    let read = read_checkpoint_with(path, settings)?;
    read.notes.iter().for_each(|said| note(format_args!("note: {}: {said}", path.display())));
    Ok(read.checkpoint)
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
    let Opened { engine, notes, unkept } = open_engine(&*device(precision), path, settings)?;
    notes.iter().for_each(|said| note(format_args!("note: {said}")));
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
