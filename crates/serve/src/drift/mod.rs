//! Whether what comes is what the plug-ins were tested on: counts and means alone, of which nobody can tell a patient. What it says and
//! does not say is in `docs/drift.md`.

mod chart;
mod monitor;
mod report;
#[cfg(test)]
mod tests;

use crate::registry::Version;
use chart::Chart;
use melo_vit::{Decision, write_atomically};
pub(crate) use monitor::Look;
use monitor::Monitor;
pub use report::{Alarm, DriftReport, Drifted, drift_of};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Age of the file behind which answers came.
const SAVED: Duration = Duration::from_secs(60);
/// Plug-ins that are remembered.
const REMEMBERED: usize = 1024;

/// A figure of a plug-in's answers, against its reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DriftRow {
    /// Name of the task.
    pub task: String,
    /// SHA-256 of the plug-in.
    pub version: String,
    /// What is looked at: `confidence`, `called CLASS`, `value NAME`, `log2_scope`, `log2_side`, `brightness`.
    pub figure: String,
    /// What it was; none while it is learned.
    pub reference: Option<f64>,
    /// Images or bags that the reference is of.
    pub reference_images: u64,
    /// What it is now.
    pub now: f64,
    /// Images or bags since the reference.
    pub images: u64,
    /// How far it is, over how far it may be: outside from 1 on, or −1 and below; none while too little is known.
    pub distance: Option<f64>,
    /// Whether it is outside.
    pub outside: bool,
}

impl DriftRow {
    fn of(version: &str, task: &str, figure: &str, chart: &Chart) -> Self {
        DriftRow {
            task: task.to_owned(),
            version: version.to_owned(),
            figure: figure.to_owned(),
            reference: chart.reference.map(|reference| reference.mean),
            reference_images: chart.reference.map_or(0, |reference| reference.images as u64),
            now: chart.now,
            images: chart.images,
            distance: chart.distance().map(|distance| distance / chart::LIMIT),
            outside: chart.outside,
        }
    }
}

/// `STATE/drift.json`.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    format: u32,
    /// By the digest of the plug-in.
    monitors: BTreeMap<String, Monitor>,
}

/// The charts of all plug-ins that answer, over restarts.
pub(crate) struct Drift {
    file: PathBuf,
    monitors: Mutex<BTreeMap<String, Monitor>>,
    saved: Mutex<Instant>,
}

impl Drift {
    /// Goes on with the file; one that cannot be read is begun anew, and the log says so.
    pub(crate) fn open(state: &Path) -> Self {
        let file = state.join("drift.json");
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Saved>(&bytes).map_err(|error| error.to_string());
        let saved = match std::fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Saved::default()),
            found => found.map_err(|error| error.to_string()).and_then(read),
        };
        let saved = saved.unwrap_or_else(|reason| {
            tracing::warn!(reason, "the charts of drift cannot be read and begin anew");
            Saved::default()
        });
        Drift { file, monitors: Mutex::new(saved.monitors), saved: Mutex::new(Instant::now()) }
    }

    fn monitors(&self) -> MutexGuard<'_, BTreeMap<String, Monitor>> {
        self.monitors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer of a version on an image, or on a bag, which has no look.
    pub(crate) fn add(&self, version: &Version, decision: &Decision, look: Option<Look>) {
        let Version { card, digest, .. } = version;
        let mut monitors = self.monitors();
        if monitors.len() >= REMEMBERED && !monitors.contains_key(digest) {
            monitors.pop_first();
        }
        let monitor = monitors.entry(digest.clone()).or_insert_with(|| Monitor::new(card));
        for name in monitor.add(card, decision, look) {
            let row = DriftRow::of(digest, &card.task, &name, &monitor.charts[&name]);
            let DriftRow { task, version, figure, reference, now, images, .. } = row;
            match row.outside {
                true => tracing::warn!(task, version, figure, reference, now, images, "drift: outside its limits"),
                false => {
                    tracing::info!(task, version, figure, reference, now, images, "drift: inside its limits again")
                }
            }
        }
    }

    /// All charts of the versions that `keep` knows; the others are forgotten.
    pub(crate) fn rows(&self, keep: impl Fn(&str) -> bool) -> Vec<DriftRow> {
        let mut monitors = self.monitors();
        monitors.retain(|version, _| keep(version));
        let mut rows = Vec::new();
        for (version, monitor) in monitors.iter() {
            let row = |(name, chart): (&String, &Chart)| DriftRow::of(version, &monitor.task, name, chart);
            rows.extend(monitor.charts.iter().map(row));
        }
        rows
    }

    /// Whether it is time to save; says so once.
    pub(crate) fn is_due(&self) -> bool {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let due = saved.elapsed() >= SAVED;
        if due {
            *saved = Instant::now();
        }
        due
    }

    /// Writes the file; what goes wrong is logged, and answers go on.
    pub(crate) fn save(&self) {
        let saved = Saved { format: 1, monitors: self.monitors().clone() };
        let json = serde_json::to_vec(&saved).map_err(|error| error.to_string());
        let written = json.and_then(|json| write_atomically(&self.file, &json).map_err(|error| error.to_string()));
        if let Err(reason) = written {
            tracing::warn!(reason, "the charts of drift cannot be saved");
        }
    }
}
