//! From accepted objects to results in the outbox.
//!
//! ```text
//! oldest object -> routes -> Service::predict -> results -> outbox, on the disk -> the object goes
//! ```
//!
//! A process that ends anywhere in between leaves the object, and the next one repeats it with the same identifiers.

use super::config::ResultKind;
use super::known::Known;
use super::outbox::Outbox;
use super::results::{self, Source};
use super::route::Routes;
use super::spool::{self, Origin, Spool};
use crate::error::Refusal;
use crate::service::{Caller, Image, Request, Service};
use serde_json::json;
use std::path::Path;
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
enum Trouble {
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
        while let Some(name) = self.spool.take() {
            self.work(&name);
        }
    }

    fn work(&self, name: &str) {
        let path = self.spool.path(name);
        let origin = spool::origin(&path);
        if let Err(reason) = self.spool.start(name) {
            return self.refuse(name, &origin, &reason);
        }
        let (mut pause, mut doubts) = (PAUSE.0, 0);
        loop {
            match self.answer(name, &path, &origin) {
                Ok(()) => return,
                Err(Trouble::Refused(reason)) => return self.refuse(name, &origin, &reason),
                Err(Trouble::Stopping) => return self.spool.put_back(name),
                Err(Trouble::Doubtful(reason)) if doubts + 1 == TRIES => return self.refuse(name, &origin, &reason),
                Err(Trouble::Doubtful(reason)) => {
                    tracing::warn!(object = name, reason, "an object is tried again");
                    doubts += 1;
                }
                Err(Trouble::Later(reason)) => tracing::debug!(object = name, reason, "an object waits"),
            }
            if !self.spool.pause(pause) {
                return self.spool.put_back(name);
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn answer(&self, name: &str, path: &Path, origin: &Origin) -> Result<(), Trouble> {
        let bytes: Arc<[u8]> = match std::fs::read(path) {
            Ok(bytes) => bytes.into(),
            // Taken away by hand.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return self.finish(name),
            Err(error) => return Err(Trouble::Later(error.to_string())),
        };
        // Results need room, too.
        self.spool.disk().map_err(|full| Trouble::Later(full.to_string()))?;
        let source = Source::read(&bytes).map_err(Trouble::Refused)?;
        self.known.check(&source.instance, source.digest).map_err(Trouble::Refused)?;
        let tasks = self.routes.tasks(&bytes).map_err(Trouble::Refused)?;
        let image = Image {
            name: source.instance.clone(),
            bytes: Arc::clone(&bytes),
            sop_instance_uid: Some(source.instance.clone()),
        };
        let request = Request {
            images: vec![image],
            slices: None,
            tasks,
            heatmap: self.outbox.wants(ResultKind::Capture),
            masks: self.outbox.wants(ResultKind::Capture) || self.outbox.wants(ResultKind::Segmentation),
            preview: false,
            frame: None,
            caller: Caller {
                who: origin.who.clone(),
                via: origin.via,
                request_id: name.trim_end_matches(".dcm").to_owned(),
            },
        };
        let answers = self.runtime.block_on(self.service.predict(request)).map_err(trouble)?;
        for answer in answers.images.iter().flat_map(|image| &image.answers) {
            let made = results::of((&source, &bytes), answer, origin.received).map_err(Trouble::Doubtful)?;
            for result in made {
                self.outbox.put(name, &result).map_err(|error| Trouble::Later(error.to_string()))?;
            }
        }
        self.known.answered(&source.instance, source.digest);
        self.finish(name)?;
        let tasks = answers.images.iter().map(|image| image.answers.len()).sum::<usize>();
        tracing::info!(sop_instance = source.instance, tasks, "object answered");
        Ok(())
    }

    fn finish(&self, name: &str) -> Result<(), Trouble> {
        self.spool.finish(name).map_err(|error| Trouble::Later(error.to_string()))
    }

    /// Puts an object aside; where even that fails it stays, for the next process.
    fn refuse(&self, name: &str, origin: &Origin, reason: &str) {
        // The reason may quote the object, and so a patient: it stands in the note beside it alone.
        tracing::warn!(object = name, "object refused: the note beside it says why");
        let note = json!({
            "reason": reason,
            "from": origin.who,
            "via": origin.via,
            "received": origin.received.as_secs(),
        });
        let mut pause = PAUSE.0;
        while let Err(error) = self.spool.refuse(name, &note) {
            tracing::warn!(object = name, %error, "a refused object could not be put aside");
            if !self.spool.pause(pause) {
                return self.spool.put_back(name);
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

fn trouble(refusal: Refusal) -> Trouble {
    let reason = refusal.to_string();
    match refusal {
        Refusal::Busy(_) | Refusal::Unavailable(_) => Trouble::Later(reason),
        Refusal::Stopping => Trouble::Stopping,
        Refusal::Timeout(_) | Refusal::Internal(_) => Trouble::Doubtful(reason),
        _ => Trouble::Refused(reason),
    }
}
