//! Objects that were accepted and not answered yet, on the disk.
//!
//! ```text
//! incoming/TIME-COUNT-VIA-WHO.dcm   accepted: written, synchronised and named before the sender is told
//! tries/NAME                        a byte for every time that a process took it into work and did not come back
//! series/                           images that wait for the others of their series, see `shelf`
//! refused/NAME, NAME.json           cannot be answered, and why
//! ```
//!
//! An object leaves `incoming` when its results are in the outbox, or when it is refused. What is moved back there by
//! hand is tried again.

use super::files;
use super::queue::{self, Queue};
use super::shelf::{self, Images, Patience, Shelf};
use crate::disk;
use crate::error::Error;
use crate::metrics::{Metrics, Outcome};
use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the folder itself is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How soon it is looked again whether a series is complete.
const SOON: Duration = Duration::from_millis(50);
/// An object that was in work when the process ended so often is refused: it may be what ends it.
const TRIES: u64 = 5;
/// Bytes of an object after which room is looked for again.
const STRIDE: u64 = 1 << 20;
/// Longest name of a sender that is kept.
const WHO_BYTES: usize = 48;

/// Bounds of the spool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) object_bytes: u64,
    pub(super) waiting: usize,
    pub(super) waiting_bytes: u64,
    pub(super) refused: usize,
    pub(super) refused_bytes: u64,
    /// Bytes that are left free on the disk.
    pub(super) reserve: u64,
    /// Objects of one sender in work at a time.
    pub(super) of_sender: usize,
    /// When a series is complete.
    pub(super) patience: Patience,
}

/// What is worked on.
pub(super) enum Taken {
    /// An object, by its name.
    Object(String),
    /// A series that is complete, by its key.
    Series(String),
}

/// Who sent an object, how, and when.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Origin {
    /// Calling application entity, or name of the key.
    pub(crate) who: String,
    /// `dicom` or `stow`.
    pub(crate) via: &'static str,
    /// Since 1970, UTC.
    pub(crate) received: Duration,
}

/// What an accepted object says of itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) class: String,
    pub(crate) instance: String,
    pub(crate) study: String,
    /// Empty where it says none.
    pub(crate) series: String,
    pub(crate) syntax: String,
}

/// Why an object was not accepted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Rejected {
    /// No room: the sender may try again later.
    #[error("{0}")]
    Full(String),
    /// Not what it was announced as.
    #[error("{0}")]
    Mismatch(String),
    /// No object that can be read.
    #[error("{0}")]
    Unreadable(String),
}

impl Rejected {
    /// For the metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Rejected::Full(_) => "full",
            Rejected::Mismatch(_) => "mismatch",
            Rejected::Unreadable(_) => "unreadable",
        }
    }
}

/// The folders, and what of them is known.
pub(crate) struct Spool {
    incoming: PathBuf,
    refused: PathBuf,
    tries: PathBuf,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    counter: AtomicU64,
    /// Bytes of objects on their way in.
    receiving: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
    /// One object at a time is read back, so that memory does not grow with the number of peers.
    examining: Mutex<()>,
}

struct State {
    queue: Queue,
    shelf: Shelf,
    stopped: bool,
}

/// An association or a request that brings objects, until it is dropped.
pub(crate) struct Sending<'a> {
    spool: &'a Spool,
    keys: HashSet<String>,
}

impl Sending<'_> {
    /// An object was accepted of it.
    pub(crate) fn brought(&mut self, who: &str, seen: &Seen) {
        let key = shelf::key(&escaped(who), &seen.series);
        if !self.keys.contains(&key) {
            self.spool.state().shelf.opened(&key);
            self.keys.insert(key);
        }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let mut state = self.spool.state();
        self.keys.iter().for_each(|key| state.shelf.closed(key));
    }
}

impl Spool {
    /// Opens or makes the folders under `folder`; what waits there is taken up again.
    pub(super) fn open(folder: &Path, bounds: Bounds, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let shelf = Shelf::open(folder, bounds.patience).map_err(Error::io(folder))?;
        let mut queue = Queue::default();
        let shelved = shelf.objects().map_err(Error::io(folder))?;
        shelved.into_iter().for_each(|(name, size)| queue.shelve(name, size));
        let spool = Spool {
            incoming: folder.join("incoming"),
            refused: folder.join("refused"),
            tries: folder.join("tries"),
            bounds,
            metrics,
            counter: AtomicU64::new(0),
            receiving: AtomicU64::new(0),
            state: Mutex::new(State { queue, shelf, stopped: false }),
            changed: Condvar::new(),
            examining: Mutex::new(()),
        };
        for path in [&spool.incoming, &spool.refused, &spool.tries] {
            files::create_folder(path).and_then(|()| files::sweep(path)).map_err(Error::io(path))?;
        }
        files::sync_folder(folder).map_err(Error::io(folder))?;
        spool.look().map_err(Error::io(&spool.incoming))?;
        Ok(spool)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes names up that others have put into the folder.
    fn look(&self) -> io::Result<()> {
        for name in files::objects(&self.incoming)? {
            // One that went meanwhile is none.
            let Ok(found) = std::fs::metadata(self.path(&name)) else { continue };
            let mut state = self.state();
            if !state.queue.knows(&name) {
                state.queue.wait(name, found.len());
            }
        }
        Ok(())
    }

    /// Whether there is room for one object more, whoever sends it.
    ///
    /// # Errors
    /// [`Rejected::Full`].
    pub(crate) fn room(&self) -> Result<(), Rejected> {
        let (count, bytes) = {
            let state = self.state();
            (state.queue.len(), state.queue.bytes())
        };
        if count >= self.bounds.waiting {
            return Err(Rejected::Full(format!("{} objects are waiting", self.bounds.waiting)));
        }
        if bytes + self.receiving.load(Ordering::Relaxed) >= self.bounds.waiting_bytes {
            return Err(Rejected::Full(format!("{} MiB of objects are waiting", self.bounds.waiting_bytes >> 20)));
        }
        self.disk()
    }

    /// Whether the disk has more than is reserved.
    ///
    /// # Errors
    /// [`Rejected::Full`].
    pub(super) fn disk(&self) -> Result<(), Rejected> {
        match disk::free(&self.incoming) {
            Ok(free) if free < self.bounds.reserve => {
                let (free, reserve) = (free >> 20, self.bounds.reserve >> 20);
                Err(Rejected::Full(format!("the disk of the spool has {free} MiB left, and {reserve} are reserved")))
            }
            // A folder that is gone is seen when something is written.
            _ => Ok(()),
        }
    }

    /// Begins to receive an object.
    pub(crate) fn begin(&self, who: &str, via: &'static str) -> Result<Receipt<'_>, Rejected> {
        self.room()?;
        let (count, bytes) = self.state().queue.of(&escaped(who));
        if count >= self.bounds.waiting.div_ceil(2) || bytes >= self.bounds.waiting_bytes.div_ceil(2) {
            return Err(Rejected::Full(format!("{count} objects of this sender are waiting, {} MiB", bytes >> 20)));
        }
        let file = tempfile::Builder::new().prefix(files::UNFINISHED).tempfile_in(&self.incoming).map_err(full)?;
        let left = self.bounds.object_bytes;
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(Receipt { spool: self, file: Some(file), left, written: 0, who: who.to_owned(), via })
    }

    /// Counts an object that came: `accepted`, or the name of why not.
    pub(crate) fn received(&self, via: &str, result: &str) {
        self.metrics.dicom.received(via, result);
    }

    /// An association or a request begins to send.
    pub(crate) fn sending(&self) -> Sending<'_> {
        Sending { spool: self, keys: HashSet::new() }
    }

    /// The next object or series that nobody works on, senders in turn; none when the server stops.
    pub(super) fn take(&self) -> Option<Taken> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(key) = state.series(self.bounds.of_sender) {
                return Some(Taken::Series(key));
            }
            if let Some(name) = state.queue.take(self.bounds.of_sender) {
                return Some(Taken::Object(name));
            }
            let look = state.shelf.next().map_or(LOOK, |next| next.clamp(SOON, LOOK));
            let (back, wait) = self.changed.wait_timeout(state, look).unwrap_or_else(PoisonError::into_inner);
            state = back;
            if wait.timed_out() {
                drop(state);
                if let Err(error) = self.look() {
                    tracing::warn!(%error, "the DICOM spool cannot be read");
                }
                state = self.state();
            }
        }
    }

    /// Waits, or returns false at once when the server stops.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let running = |state: &mut State| !state.stopped;
        let waited = self.changed.wait_timeout_while(self.state(), time, running);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }

    /// Lets [`Spool::take`] and [`Spool::pause`] return.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }

    /// Where a waiting object lies.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.incoming.join(name)
    }

    /// Notes that work begins; an error once it has begun too often without an end.
    pub(super) fn start(&self, name: &str) -> Result<(), String> {
        let path = self.tries.join(name);
        if std::fs::metadata(&path).is_ok_and(|found| found.len() >= TRIES) {
            return Err(format!("the server ended {TRIES} times while it worked on this object"));
        }
        let note = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        if let Err(error) = note.and_then(|mut file| file.write_all(b".")) {
            tracing::warn!(%error, "a try could not be noted");
        }
        Ok(())
    }

    /// Forgets an object whose results are in the outbox.
    pub(super) fn finish(&self, name: &str) -> io::Result<()> {
        files::remove(&self.path(name))?;
        files::sync_folder(&self.incoming)?;
        self.metrics.dicom.done(Outcome::Answered, 1);
        self.leave(name);
        Ok(())
    }

    /// Lets an object wait for the others of its series.
    pub(super) fn shelve(&self, name: &str, series: &str) -> io::Result<()> {
        let path = self.path(name);
        let size = std::fs::metadata(&path)?.len();
        let mut state = self.state();
        state.shelf.put(&path, name, &shelf::key(queue::sender(name), series))?;
        state.queue.shelve(name.to_owned(), size);
        state.shelf.gone(name);
        drop(state);
        let _ = files::remove(&self.tries.join(name));
        self.changed.notify_all();
        Ok(())
    }

    /// Where the images of a series in work lie.
    pub(super) fn series_path(&self, key: &str) -> PathBuf {
        self.state().shelf.in_work(key)
    }

    /// What of a series was answered before.
    pub(super) fn series_answered(&self, key: &str) -> Option<Images> {
        self.state().shelf.answered(key)
    }

    /// Forgets a series whose results are in the outbox, and notes which images these are of.
    pub(super) fn finish_series(&self, key: &str, images: Option<&Images>) -> io::Result<()> {
        let mut state = self.state();
        if let Some(images) = images {
            state.shelf.note(key, images)?;
        }
        let names = files::objects(&state.shelf.in_work(key))?;
        state.shelf.finish(key)?;
        names.iter().for_each(|name| state.queue.end(name));
        drop(state);
        self.metrics.dicom.done(Outcome::Answered, names.len());
        self.leave(key);
        Ok(())
    }

    /// Puts the images of a series aside, each with the reason beside it.
    pub(super) fn refuse_series(&self, key: &str, reason: &serde_json::Value) -> io::Result<()> {
        let folder = self.series_path(key);
        let text = serde_json::to_vec_pretty(reason).map_err(io::Error::other)?;
        for name in files::objects(&folder)? {
            files::write(&self.refused.join(format!("{name}.json")), &text)?;
            files::rename(&folder.join(&name), &self.refused.join(&name))?;
            self.metrics.dicom.done(Outcome::Refused, 1);
            self.state().queue.end(&name);
        }
        self.finish_series(key, None)?;
        self.thin_out()
    }

    /// Puts a series back: it is taken up again after a quiet time, or by the next process.
    pub(super) fn put_series_back(&self, key: &str) {
        let mut state = self.state();
        if let Err(error) = state.shelf.put_back(key) {
            tracing::warn!(%error, "a series waits for the next start");
        }
        drop(state);
        self.leave(key);
    }

    /// Puts an object back: it is taken up again at once, or by the next process.
    pub(super) fn put_back(&self, name: &str) {
        let _ = files::remove(&self.tries.join(name));
        self.state().queue.put_back(name);
        self.changed.notify_one();
    }

    /// Nobody works on it any more, and it is not there.
    pub(super) fn leave(&self, name: &str) {
        let _ = files::remove(&self.tries.join(name));
        let mut state = self.state();
        state.queue.end(name);
        state.shelf.gone(name);
        drop(state);
        // Its sender may have another that waited for this one.
        self.changed.notify_one();
    }

    /// Puts an object aside, with the reason beside it; the oldest of too many go.
    pub(super) fn refuse(&self, name: &str, reason: &serde_json::Value) -> io::Result<()> {
        let note = self.refused.join(format!("{name}.json"));
        let text = serde_json::to_vec_pretty(reason).map_err(io::Error::other)?;
        files::write(&note, &text)?;
        files::rename(&self.path(name), &self.refused.join(name))?;
        self.metrics.dicom.done(Outcome::Refused, 1);
        self.leave(name);
        self.thin_out()
    }

    /// The newest refused objects are kept, as far as their number and size go.
    fn thin_out(&self) -> io::Result<()> {
        let (mut count, mut bytes, mut deleted) = (0, 0, 0);
        for name in files::objects(&self.refused)?.into_iter().rev() {
            let path = self.refused.join(&name);
            count += 1;
            bytes += std::fs::metadata(&path).map_or(0, |found| found.len());
            if count > self.bounds.refused || bytes > self.bounds.refused_bytes {
                files::remove(&path)?;
                files::remove(&self.refused.join(format!("{name}.json")))?;
                deleted += 1;
            }
        }
        if deleted > 0 {
            tracing::info!(count = deleted, "the oldest refused objects are deleted: more are not kept");
            self.metrics.dicom.deleted("refused", deleted);
        }
        Ok(())
    }

    fn name(&self, who: &str, via: &str) -> String {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let count = self.counter.fetch_add(1, Ordering::Relaxed) % 10_000;
        format!("{time:020}-{count:04}-{via}-{}.dcm", escaped(who))
    }
}

impl State {
    fn series(&mut self, most: usize) -> Option<String> {
        let State { queue, shelf, .. } = self;
        // After a start the series of what lies in `incoming` is not known: all of that comes first.
        let has_unknown = |shelf: &Shelf, sender: &str| queue.names_of(sender).any(|name| !shelf.knows(name));
        let taken = shelf.take(|shelf, sender| queue.is_busy(sender, most) || has_unknown(shelf, sender));
        let key = taken.inspect_err(|error| tracing::warn!(%error, "a series cannot be taken up")).ok()??;
        queue.begin(&key, shelf::sender_of(&key));
        Some(key)
    }
}

/// A sender as part of a name.
fn escaped(who: &str) -> String {
    let mut plain = String::new();
    for byte in who.bytes().take(WHO_BYTES) {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' => plain.push(byte.into()),
            _ => plain.push_str(&format!("%{byte:02x}")),
        }
    }
    plain
}

/// What an object's name says; a file that was put there by hand came from nobody, when it was last written.
pub(super) fn origin(path: &Path) -> Origin {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named = || {
        let mut parts = name.strip_suffix(".dcm")?.splitn(4, '-');
        let nanos: u64 = parts.next()?.parse().ok()?;
        let (_, via, who) = (parts.next()?, parts.next()?, parts.next()?);
        let via = ["dicom", "stow"].into_iter().find(|known| *known == via)?;
        Some(Origin { who: plain(who)?, via, received: Duration::from_nanos(nanos) })
    };
    named().unwrap_or_else(|| {
        let written = std::fs::metadata(path).and_then(|found| found.modified()).ok();
        let received = written.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Origin { who: "unknown".to_owned(), via: "dicom", received }
    })
}

/// Undoes the `%` of [`Spool::name`].
fn plain(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            _ => bytes.push(first),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// An object on its way in. Dropped without [`Receipt::accept`], it leaves nothing.
pub(crate) struct Receipt<'a> {
    spool: &'a Spool,
    /// Until it is accepted.
    file: Option<BufWriter<tempfile::NamedTempFile>>,
    left: u64,
    written: u64,
    who: String,
    via: &'static str,
}

impl Drop for Receipt<'_> {
    fn drop(&mut self) {
        self.spool.receiving.fetch_sub(self.written, Ordering::Relaxed);
    }
}

impl Receipt<'_> {
    /// Adds bytes of the part-10 file.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Rejected> {
        let length = bytes.len() as u64;
        self.left = self.left.checked_sub(length).ok_or_else(|| {
            Rejected::Full(format!("an object is at most {} MiB", self.spool.bounds.object_bytes >> 20))
        })?;
        // Objects grow while others do.
        if self.written / STRIDE != (self.written + length) / STRIDE {
            self.spool.room()?;
        }
        self.written += length;
        self.spool.receiving.fetch_add(length, Ordering::Relaxed);
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes).map_err(full))
    }

    /// Looks whether it is what was announced, and makes it outlive the process and the power. Only then may the sender
    /// be told.
    pub(crate) fn accept(mut self, announced: impl FnOnce(&Seen) -> Result<(), Rejected>) -> Result<Seen, Rejected> {
        let Some(mut file) = self.file.take() else { return Err(Rejected::Full("nothing was received".to_owned())) };
        file.flush().map_err(full)?;
        let file = file.into_inner().map_err(|error| full(error.into_error()))?;
        let seen = {
            let _turn = self.spool.examining.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = std::fs::read(file.path()).map_err(full)?;
            examine(&bytes).map_err(Rejected::Unreadable)?
        };
        announced(&seen)?;
        file.as_file().sync_all().map_err(full)?;
        let name = self.spool.name(&self.who, self.via);
        let path = self.spool.path(&name);
        file.persist_noclobber(&path).map_err(|error| full(error.error))?;
        if let Err(error) = files::sync_folder(&self.spool.incoming) {
            let _ = files::remove(&path);
            return Err(full(error));
        }
        let mut state = self.spool.state();
        state.shelf.coming(&name, shelf::key(queue::sender(&name), &seen.series));
        state.queue.wait(name, self.written);
        drop(state);
        self.spool.changed.notify_one();
        Ok(seen)
    }
}

fn full(error: io::Error) -> Rejected {
    // The path is ours and tells the sender nothing.
    Rejected::Full(format!("the object cannot be stored: {}", error.kind()))
}

/// The identifiers that everything else needs.
pub(super) fn examine(bytes: &[u8]) -> Result<Seen, String> {
    const WANTED: [&str; 5] =
        ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "TransferSyntaxUID", "SeriesInstanceUID"];
    let mut found =
        melo_imaging::dicom::header(bytes, Path::new("object"), &WANTED).map_err(|error| error.to_string())?;
    let series = found.pop().flatten().unwrap_or_default();
    let mut values = found.into_iter().map(Option::unwrap_or_default).zip(WANTED);
    let mut next = || {
        let (value, name) = values.next().unwrap_or_default();
        match melo_imaging::dicom::uid::is_valid(&value) {
            true => Ok(value),
            false if value.is_empty() => Err(format!("{name} is missing")),
            false => Err(format!("{name} is no unique identifier")),
        }
    };
    Ok(Seen { class: next()?, instance: next()?, study: next()?, syntax: next()?, series })
}
