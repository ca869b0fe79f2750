//! Progress of an archive: rate, what is left, what was refused.

use super::{PIPED_EVERY, bar, duration, grouped};
use crate::note;
use indicatif::ProgressBar;
use melo::archive::{Event, Listed};
use melo::imaging::Tally;
use std::time::Instant;

/// Refused images that are named; the rest is counted, and in the files.
const NAMED: u64 = 20;

/// Shows `melo archive run`, `plan` and `work`.
pub(crate) struct ArchiveProgress {
    bar: ProgressBar,
    /// False where others compute the same archive.
    alone: bool,
    started: Instant,
    said: Instant,
    done_before: u64,
    done: u64,
    of: u64,
    refused: u64,
    tally: Tally,
}

impl ArchiveProgress {
    pub(crate) fn new(alone: bool) -> Self {
        let (bar, now) = (bar(0, "archive"), Instant::now());
        let tally = Tally::default();
        ArchiveProgress { bar, alone, started: now, said: now, done_before: 0, done: 0, of: 0, refused: 0, tally }
    }

    pub(crate) fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Listing { found } => self.stand(format!("{} images found", grouped(found as usize))),
            Event::Unlisted(named) => self.line(format!("melo: {named}")),
            Event::Planned { listed, done } => self.begin(listed, done),
            Event::Read { path, seen } => self.tally.add(path, seen),
            Event::Refused(reason) => {
                self.refused += 1;
                match self.refused.cmp(&(NAMED + 1)) {
                    std::cmp::Ordering::Less => self.line(format!("melo: {reason}")),
                    std::cmp::Ordering::Equal => {
                        self.line("melo: and more, which are in the column `error`".to_owned())
                    }
                    std::cmp::Ordering::Greater => {}
                }
            }
            Event::Computed(images) => {
                self.done += images as u64;
                self.bar.set_position(self.done);
                let rate = (self.done - self.done_before) as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
                let left = match self.alone {
                    true => format!("  {} left", duration((self.of - self.done) as f64 / rate)),
                    false => String::new(),
                };
                let refused = match self.refused {
                    0 => String::new(),
                    refused => format!("  {refused} refused"),
                };
                self.stand(format!("{rate:.1} images/s{left}{refused}"));
            }
        }
    }

    fn begin(&mut self, listed: &Listed, done: u64) {
        (self.of, self.done_before, self.done) = (listed.inputs, done, done);
        self.started = Instant::now();
        self.bar.set_length(listed.inputs);
        self.bar.set_position(done);
        let images = grouped(listed.inputs as usize);
        match done {
            0 => self.line(format!("{images} images")),
            _ if !self.alone => self.line(format!("{} of {images} images done", grouped(done as usize))),
            _ => self.line(format!("going on after {} of {images} images", grouped(done as usize))),
        }
        if listed.left_out > 0 {
            self.line(format!("note: left out as no images: {} files", grouped(listed.left_out as usize)));
        }
        if listed.repeated > 0 {
            self.line(format!("note: {} names came twice and are taken once", grouped(listed.repeated as usize)));
        }
    }

    /// Where it stands, on the bar or now and then in a line.
    fn stand(&mut self, message: String) {
        if self.bar.is_hidden() && self.said.elapsed() >= PIPED_EVERY {
            self.said = Instant::now();
            note(format_args!("archive {} of {}  {message}", self.done, self.of));
        }
        self.bar.set_message(message);
    }

    /// Says lines from other threads.
    #[cfg(feature = "queue")]
    pub(crate) fn listener(&self) -> melo::archive::Listener {
        use melo::archive::News;
        let bar = self.bar.clone();
        std::sync::Arc::new(move |news| {
            let said = match news {
                News::Lost => "the NATS server is lost; trying until it is back".to_owned(),
                News::Back => "the NATS server is back".to_owned(),
                News::Said(text) => format!("the NATS server: {text}"),
            };
            bar.suspend(|| note(format_args!("melo: {said}")));
        })
    }

    fn line(&self, text: String) {
        self.bar.suspend(|| note(text));
    }

    /// Ends the bar; what was seen of the images.
    pub(crate) fn finish(self) -> Tally {
        self.bar.finish_and_clear();
        self.tally
    }
}
