//! What lies in the spool, for the metrics: folders are looked at now and then, whoever put something there.

use super::files;
use super::spool::{self, Spool};
use crate::metrics::Metrics;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time between two looks, and how many times as long as a look it is at least.
const PAUSE: (Duration, u32) = (Duration::from_secs(5), 50);

/// The folder of the spool.
pub(super) struct Census {
    folder: PathBuf,
    destinations: Vec<String>,
    metrics: Arc<Metrics>,
}

/// Files, bytes, and since when.
#[derive(Default)]
struct Held {
    objects: usize,
    bytes: u64,
    since: Option<Duration>,
}

impl Census {
    pub(super) fn new(folder: &Path, destinations: Vec<String>, metrics: Arc<Metrics>) -> Self {
        metrics.dicom.begin(destinations.iter().map(String::as_str));
        Census { folder: folder.to_owned(), destinations, metrics }
    }

    /// Looks until the spool stops.
    pub(super) fn run(&self, spool: &Spool) {
        loop {
            let begun = Instant::now();
            if let Err(error) = self.look() {
                tracing::warn!(%error, "what the DICOM spool holds cannot be counted");
            }
            if !spool.pause(PAUSE.0.max(begun.elapsed() * PAUSE.1)) {
                return;
            }
        }
    }

    fn look(&self) -> io::Result<()> {
        for place in ["incoming", "refused"] {
            self.tell(place, "", &held([self.folder.join(place)])?);
        }
        let series = std::fs::read_dir(self.folder.join("series"))?;
        let series = series.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
        self.tell("series", "", &held(series)?);
        for destination in &self.destinations {
            for place in ["outgoing", "undelivered"] {
                self.tell(place, destination, &held([self.folder.join(place).join(destination)])?);
            }
        }
        Ok(())
    }

    fn tell(&self, place: &str, destination: &str, held: &Held) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let oldest = held.since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.metrics.dicom.holds(place, destination, held.objects, held.bytes, oldest);
    }
}

/// What folders hold; files and folders that go meanwhile are none.
fn held(folders: impl IntoIterator<Item = PathBuf>) -> io::Result<Held> {
    let mut held = Held::default();
    for folder in folders {
        let names = match files::objects(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            names => names?,
        };
        for path in names.iter().map(|name| folder.join(name)) {
            let Ok(found) = std::fs::metadata(&path) else { continue };
            let since = spool::origin(&path).received;
            held.objects += 1;
            held.bytes += found.len();
            held.since = Some(held.since.map_or(since, |oldest| oldest.min(since)));
        }
    }
    Ok(held)
}
