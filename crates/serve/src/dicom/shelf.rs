//! Series whose images wait for each other: tasks of bags answer for all of them together.
//!
//! ```text
//! series/SENDER-UID/NAME.dcm    a series that is coming in
//! series/SENDER-UID~/NAME.dcm   one that is in work; what comes meanwhile is another
//! answered/SENDER-UID           images of one that was answered, with SHA-256 of their data sets
//! ```
//!
//! A series is complete when none of its images came for a quiet time, and none of the associations and requests that brought some is open,
//! or that took too long.

use super::files;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Ends the name of a series in work.
const IN_WORK: char = '~';
/// Begins the name of a series that is done.
const DONE: &str = ".done-";
/// Series whose answered images are remembered; the oldest are forgotten.
const REMEMBERED: usize = 10_000;

/// SHA-256 of data sets by SOP Instance UID.
pub(super) type Images = BTreeMap<String, String>;

/// When a series is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Without another of its images.
    pub(super) quiet: Duration,
    /// From its first image on, open associations are not waited for any longer.
    pub(super) longest: Duration,
}

pub(super) struct Shelf {
    series: PathBuf,
    answered: PathBuf,
    patience: Patience,
    gathering: BTreeMap<String, Gathering>,
    working: HashSet<String>,
    /// Objects in `incoming` by name, with their series, as far as these are known.
    coming: HashMap<String, String>,
    /// How many of a series.
    coming_of: HashMap<String, usize>,
    /// Associations and requests that brought images of a series and are open.
    open: HashMap<String, usize>,
}

struct Gathering {
    first: Instant,
    last: Instant,
}

/// The series of a sender, as it stands in an object's name.
pub(super) fn key(sender: &str, series: &str) -> String {
    format!("{sender}-{series}")
}

/// The sender of a key.
pub(super) fn sender_of(key: &str) -> &str {
    key.rsplit_once('-').map_or("", |(sender, _)| sender)
}

impl Shelf {
    /// Opens or makes the folders under `folder`: what was in work waits again.
    pub(super) fn open(folder: &Path, patience: Patience) -> io::Result<Self> {
        let (series, answered) = (folder.join("series"), folder.join("answered"));
        for path in [&series, &answered] {
            files::create_folder(path)?;
        }
        files::sweep(&answered)?;
        let mut shelf = Shelf {
            series,
            answered,
            patience,
            gathering: BTreeMap::new(),
            working: HashSet::new(),
            coming: HashMap::new(),
            coming_of: HashMap::new(),
            open: HashMap::new(),
        };
        for name in names(&shelf.series)? {
            let path = shelf.series.join(&name);
            if name.starts_with(DONE) {
                std::fs::remove_dir_all(&path)?;
                continue;
            }
            let key = name.trim_end_matches(IN_WORK).to_owned();
            if name.ends_with(IN_WORK) {
                shelf.back(&key)?;
            }
            shelf.came(key);
        }
        Ok(shelf)
    }

    /// Names of the waiting images and their sizes.
    pub(super) fn objects(&self) -> io::Result<Vec<(String, u64)>> {
        let mut all = Vec::new();
        for key in self.gathering.keys() {
            let folder = self.series.join(key);
            for name in files::objects(&folder)? {
                let size = std::fs::metadata(folder.join(&name)).map_or(0, |found| found.len());
                all.push((name, size));
            }
        }
        Ok(all)
    }

    /// Takes an image in.
    pub(super) fn put(&mut self, from: &Path, name: &str, key: &str) -> io::Result<()> {
        let folder = self.series.join(key);
        if !folder.exists() {
            files::create_folder(&folder)?;
            files::sync_folder(&self.series)?;
        }
        files::rename(from, &folder.join(name))?;
        self.came(key.to_owned());
        Ok(())
    }

    fn came(&mut self, key: String) {
        let now = Instant::now();
        self.gathering.entry(key).and_modify(|known| known.last = now).or_insert(Gathering { first: now, last: now });
    }

    /// An object of the series was accepted.
    pub(super) fn coming(&mut self, name: &str, key: String) {
        *self.coming_of.entry(key.clone()).or_default() += 1;
        self.coming.insert(name.to_owned(), key);
    }

    /// It is no longer in `incoming`.
    pub(super) fn gone(&mut self, name: &str) {
        let Some(key) = self.coming.remove(name) else { return };
        if let Some(count) = self.coming_of.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.coming_of.remove(&key);
            }
        }
    }

    /// Whether it is known of which series an object in `incoming` is, or of which one in work.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.coming.contains_key(name) || self.working.contains(name)
    }

    /// An association or a request brought an image of the series.
    pub(super) fn opened(&mut self, key: &str) {
        *self.open.entry(key.to_owned()).or_default() += 1;
    }

    /// One of them ended.
    pub(super) fn closed(&mut self, key: &str) {
        if let Some(count) = self.open.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(key);
            }
        }
    }

    /// Time until a series may be complete; none where there is none.
    pub(super) fn next(&self) -> Option<Duration> {
        self.gathering.values().map(|series| self.patience.quiet.saturating_sub(series.last.elapsed())).min()
    }

    /// A complete series, which is in work from now on, of a sender that is not busy.
    pub(super) fn take(&mut self, is_busy: impl Fn(&Self, &str) -> bool) -> io::Result<Option<String>> {
        let is_complete = |(key, series): &(&String, &Gathering)| {
            let waited_for = self.open.contains_key(*key) && series.first.elapsed() < self.patience.longest;
            let quiet = series.last.elapsed() >= self.patience.quiet && !self.coming_of.contains_key(*key);
            quiet && !waited_for && !self.working.contains(*key) && !is_busy(self, sender_of(key))
        };
        let Some((key, _)) = self.gathering.iter().find(is_complete) else { return Ok(None) };
        let key = key.clone();
        files::rename(&self.series.join(&key), &self.in_work(&key))?;
        self.gathering.remove(&key);
        self.working.insert(key.clone());
        Ok(Some(key))
    }

    /// Where the images of a series in work lie.
    pub(super) fn in_work(&self, key: &str) -> PathBuf {
        self.series.join(format!("{key}{IN_WORK}"))
    }

    /// A series in work waits again, with what came meanwhile.
    pub(super) fn put_back(&mut self, key: &str) -> io::Result<()> {
        self.working.remove(key);
        self.back(key)?;
        self.came(key.to_owned());
        Ok(())
    }

    fn back(&self, key: &str) -> io::Result<()> {
        let (from, to) = (self.in_work(key), self.series.join(key));
        files::create_folder(&to)?;
        for name in files::objects(&from)? {
            files::rename(&from.join(&name), &to.join(&name))?;
        }
        std::fs::remove_dir_all(&from)?;
        files::sync_folder(&self.series)
    }

    /// A series in work is done, with all that is left of it, at once.
    pub(super) fn finish(&mut self, key: &str) -> io::Result<()> {
        let done = self.series.join(format!("{DONE}{key}"));
        files::rename(&self.in_work(key), &done)?;
        self.working.remove(key);
        std::fs::remove_dir_all(&done)
    }

    /// What of the series was answered before.
    pub(super) fn answered(&self, key: &str) -> Option<Images> {
        let text = std::fs::read(self.answered.join(key)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Notes what is answered now.
    pub(super) fn note(&self, key: &str, images: &Images) -> io::Result<()> {
        files::write(&self.answered.join(key), &serde_json::to_vec(images).map_err(io::Error::other)?)?;
        let names = names(&self.answered)?;
        if names.len() > REMEMBERED {
            let written = |name: &String| {
                let found = std::fs::metadata(self.answered.join(name)).and_then(|found| found.modified());
                found.unwrap_or(SystemTime::UNIX_EPOCH)
            };
            if let Some(oldest) = names.iter().min_by_key(|name| written(name)) {
                files::remove(&self.answered.join(oldest))?;
            }
        }
        Ok(())
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
