//! From accepted objects to results in the outbox.
//!
//! ```text
//! oldest object -> routes -> Service::predict -> results -> outbox, on the disk -> the object goes
//!                         -> of tasks of bags: it waits for its series, and the series is answered as an object is
//! ```
//!
//! A process that ends anywhere in between leaves the object, and the next one repeats it with the same identifiers.

use super::config::ResultKind;
use super::known::Known;
use super::outbox::Outbox;
use super::results::{self, Source};
use super::route::Routes;
use super::series::{self, Complete};
use super::shelf::Images;
use super::spool::{self, Origin, Spool, Taken};
use crate::answer::Answers;
use crate::error::Refusal;
use crate::request::{Caller, Image, Request, Slices};
use crate::service::Service;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// First and longest pause before an object is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Tries after errors that may be the object's own fault.
const TRIES: u32 = 3;

/// What all workers share.
pub(super) struct Worker {
    pub(super) spool: Arc<Spool>,
    pub(super) routes: Routes,
    pub(super) known: Known,
    pub(super) outbox: Arc<Outbox>,
    pub(super) service: Arc<Service>,
    pub(super) runtime: tokio::runtime::Handle,
}

/// Why an object has no results yet.
pub(super) enum Trouble {
    /// It never will.
    Refused(String),
    /// Perhaps later, for any number of times.
    Later(String),
    /// Perhaps later, but it may be the object.
    Doubtful(String),
    /// The server stops.
    Stopping,
}

impl Worker {
    /// Works until the spool stops.
    pub(super) fn run(&self) {
        while let Some(taken) = self.spool.take() {
            self.work(&taken);
        }
    }

    fn work(&self, taken: &Taken) {
        let (Taken::Object(name) | Taken::Series(name)) = taken;
        if let Err(reason) = self.spool.start(name) {
            return self.refuse(taken, &reason);
        }
        let (mut pause, mut doubts) = (PAUSE.0, 0);
        loop {
            let answered = match taken {
                Taken::Object(name) => self.answer(name),
                Taken::Series(key) => self.answer_series(key),
            };
            match answered {
                Ok(()) => return,
                Err(Trouble::Refused(reason)) => return self.refuse(taken, &reason),
                Err(Trouble::Stopping) => return self.put_back(taken),
                Err(Trouble::Doubtful(reason)) if doubts + 1 == TRIES => return self.refuse(taken, &reason),
                Err(Trouble::Doubtful(reason)) => {
                    tracing::warn!(object = name, reason, "an object is tried again");
                    doubts += 1;
                }
                Err(Trouble::Later(reason)) => tracing::debug!(object = name, reason, "an object waits"),
            }
            self.service.metrics.dicom.put_off();
            if !self.spool.pause(pause) {
                return self.put_back(taken);
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn put_back(&self, taken: &Taken) {
        match taken {
            Taken::Object(name) => self.spool.put_back(name),
            Taken::Series(key) => self.spool.put_series_back(key),
        }
    }

    fn answer(&self, name: &str) -> Result<(), Trouble> {
        let path = self.spool.path(name);
        let origin = spool::origin(&path);
        let bytes: Arc<[u8]> = match std::fs::read(&path) {
            Ok(bytes) => bytes.into(),
            // Taken away by hand.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.spool.leave(name);
                return Ok(());
            }
            Err(error) => return Err(Trouble::Later(error.to_string())),
        };
        // Results need room, too.
        self.spool.disk().map_err(|full| Trouble::Later(full.to_string()))?;
        let source = Source::read(&bytes).map_err(Trouble::Refused)?;
        self.known.check(&source.instance, source.digest).map_err(Trouble::Refused)?;
        let mut tasks = self.routes.tasks(&bytes).map_err(Trouble::Refused)?;
        let [single, of_bags] = self.service.kinds_of(&tasks).map_err(trouble)?;
        // An object of several frames is a bag of its own.
        let is_of_series = !of_bags.is_empty() && source.frames == 1;
        if is_of_series {
            tasks = single;
        }
        if !tasks.is_empty() {
            let image = Image {
                name: source.instance.clone(),
                bytes: Arc::clone(&bytes),
                sop_instance_uid: Some(source.instance.clone()),
            };
            let masks = self.outbox.wants(ResultKind::Capture) || self.outbox.wants(ResultKind::Segmentation);
            let request = Request { images: vec![image], masks, ..self.request(tasks, &origin, name) };
            let answers = self.runtime.block_on(self.service.predict(request)).map_err(trouble)?;
            let count = self.put(name, (&source, &bytes), &answers, &origin)?;
            tracing::info!(sop_instance = source.instance, tasks = count, "object answered");
        }
        if is_of_series {
            return self.spool.shelve(name, &source.series).map_err(|error| Trouble::Later(error.to_string()));
        }
        self.known.answered(&source.instance, source.digest);
        self.finish(name)
    }

    /// A request of an object or a series, without its images.
    fn request(&self, tasks: Vec<String>, origin: &Origin, name: &str) -> Request {
        Request {
            images: Vec::new(),
            slices: None,
            tasks,
            heatmap: self.outbox.wants(ResultKind::Capture),
            masks: false,
            preview: false,
            frame: None,
            caller: Caller {
                who: origin.who.clone(),
                via: origin.via,
                request_id: name.trim_end_matches(".dcm").to_owned(),
                address: None,
            },
        }
    }

    /// Puts the results of all answers into the outbox, and counts the answers.
    fn put(&self, name: &str, of: (&Source, &[u8]), answers: &Answers, origin: &Origin) -> Result<usize, Trouble> {
        let of_images = answers.images.iter().flat_map(|image| &image.answers);
        let mut count = 0;
        for answer in of_images.chain(answers.bags.iter().flat_map(|bag| &bag.answers)) {
            for result in results::of(of, answer, origin.received).map_err(Trouble::Doubtful)? {
                self.outbox.put(name, &result).map_err(|error| Trouble::Later(error.to_string()))?;
            }
            count += 1;
        }
        Ok(count)
    }

    fn answer_series(&self, key: &str) -> Result<(), Trouble> {
        self.spool.disk().map_err(|full| Trouble::Later(full.to_string()))?;
        let folder = self.spool.series_path(key);
        let series = Complete::read(&folder, &self.routes)?;
        for image in &series.images {
            self.known.check(&image.source.instance, image.source.digest).map_err(Trouble::Refused)?;
        }
        let images = series.digests();
        if let Some(before) = self.spool.series_answered(key)
            && series::is_known(&before, &images).map_err(Trouble::Refused)?
        {
            tracing::info!(series = series.uid, images = images.len(), "images of a series that was answered");
            return self.finish_series(key, None);
        }
        let mut count = 0;
        for (tasks, images) in series.bags() {
            let [_, tasks] = self.service.kinds_of(&tasks).map_err(trouble)?;
            let Some(source) = Source::of_series(images.iter().map(|image| image.source.clone()).collect()) else {
                continue;
            };
            if tasks.is_empty() {
                continue;
            }
            let files = images.iter().map(|image| image.file.clone()).collect();
            let slices = Slices { series_instance_uid: series.uid.clone(), files };
            let request = Request { slices: Some(slices), ..self.request(tasks, &series.origin, &series.first) };
            let answers = self.runtime.block_on(self.service.predict(request)).map_err(trouble)?;
            count += self.put(&series.first, (&source, &[]), &answers, &series.origin)?;
        }
        if count == 0 {
            return Err(Trouble::Refused("its tasks no longer answer for bags".to_owned()));
        }
        series.images.iter().for_each(|image| self.known.answered(&image.source.instance, image.source.digest));
        self.finish_series(key, Some(&images))?;
        tracing::info!(series = series.uid, images = images.len(), tasks = count, "series answered");
        Ok(())
    }

    fn finish_series(&self, key: &str, images: Option<&Images>) -> Result<(), Trouble> {
        self.spool.finish_series(key, images).map_err(|error| Trouble::Later(error.to_string()))
    }

    fn finish(&self, name: &str) -> Result<(), Trouble> {
        self.spool.finish(name).map_err(|error| Trouble::Later(error.to_string()))
    }

    /// Puts an object or a series aside; where even that fails it stays, for the next process.
    fn refuse(&self, taken: &Taken, reason: &str) {
        let (name, origin) = match taken {
            Taken::Object(name) => (name, spool::origin(&self.spool.path(name))),
            Taken::Series(key) => (key, series::origin(&self.spool.series_path(key))),
        };
        // The reason may quote the object, and so a patient: it stands in the note beside it alone.
        tracing::warn!(object = name, "object refused: the note beside it says why");
        let note = json!({
            "reason": reason,
            "from": origin.who,
            "via": origin.via,
            "received": origin.received.as_secs(),
        });
        let mut pause = PAUSE.0;
        loop {
            let refused = match taken {
                Taken::Object(name) => self.spool.refuse(name, &note),
                Taken::Series(key) => self.spool.refuse_series(key, &note),
            };
            let Err(error) = refused else { return };
            tracing::warn!(object = name, %error, "a refused object could not be put aside");
            if !self.spool.pause(pause) {
                return self.put_back(taken);
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

fn trouble(refusal: Refusal) -> Trouble {
    let reason = refusal.to_string();
    match refusal {
        Refusal::Busy(_) | Refusal::Full(_) | Refusal::Unavailable(_) => Trouble::Later(reason),
        Refusal::Stopping => Trouble::Stopping,
        Refusal::Timeout(_) | Refusal::Internal(_) => Trouble::Doubtful(reason),
        _ => Trouble::Refused(reason),
    }
}
