//! The service's audit: nothing is answered, and nothing is changed, that is not recorded.

use super::Service;
use crate::answer::{Answer, Answers};
use crate::audit::{Action, Record};
use crate::disk;
use crate::drift::Look;
use crate::error::Refusal;
use crate::journal::{Happened, unrecorded};
use crate::request::{Caller, Image};
use crate::shortest;
use melo_vit::SCOPE_SCORE;
use melo_vit::rendering::Frame;
use serde_json::Value;
use std::io::Write;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Less room on the disk of the audit is told before it is used up, bytes.
const AUDIT_RESERVE: u64 = 64 << 20;

/// How long a server is not ready after a record that could not be written, before it is looked whether its folder can be again.
const UNRECORDED: Duration = Duration::from_secs(10);

impl Service {
    /// Records what an admin asks for, before it is done.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`]: then it must not be done.
    pub(crate) async fn note(
        self: &Arc<Self>,
        action: Action,
        happened: Happened,
        caller: Caller,
    ) -> Result<(), Refusal> {
        let record = self.journal.record(action, caller, happened);
        self.append(vec![record]).await
    }

    /// Why nothing can be recorded now. After a failure it is tried whether the folder can be written again.
    pub(crate) fn audit_trouble(&self) -> Option<String> {
        let audit = self.audit.as_ref()?;
        if audit.is_unsigned() {
            return Some("the checkpoint of the audit could not be written".to_owned());
        }
        let folder = melo_vit::folder_of(audit.path()).to_owned();
        if let Ok(free) = disk::free(&folder)
            && free < AUDIT_RESERVE
        {
            return Some(format!("the disk of the audit has {} MiB left", free >> 20));
        }
        let mut failed = self.unrecorded();
        let trouble = "the audit could not be written".to_owned();
        if failed.as_ref()?.elapsed() < UNRECORDED {
            return Some(trouble);
        }
        let tried = tempfile::tempfile_in(&folder).and_then(|mut file| file.write_all(&[0; 4096]));
        *failed = tried.is_err().then(Instant::now);
        failed.map(|_| trouble)
    }

    fn unrecorded(&self) -> MutexGuard<'_, Option<Instant>> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the charts of drift, and the count of images out of scope, what was answered; of images with their looks, where they were sent as such.
    pub(super) fn follow(&self, answers: &Answers, looks: &[Vec<Look>]) {
        for (index, image) in answers.images.iter().enumerate() {
            for (place, answer) in image.answers.iter().enumerate() {
                let look = looks.get(index).and_then(|looks| looks.get(place)).copied();
                self.drift.add(&answer.of, &answer.decision, look);
                if let Some(scope) = answer.scope {
                    self.metrics.out_of_scope(&answer.task, usize::from(!scope.in_scope));
                }
            }
        }
        for answer in answers.bags.iter().flat_map(|bag| &bag.answers) {
            self.drift.add(&answer.of, &answer.decision, None);
        }
        if self.drift.is_due() {
            let drift = Arc::clone(&self.drift);
            tokio::task::spawn_blocking(move || drift.save());
        }
    }

    /// Nothing is answered that is not in the audit.
    pub(super) async fn append(self: &Arc<Self>, records: Vec<Record>) -> Result<(), Refusal> {
        let Some(audit) = &self.audit else { return Ok(()) };
        let written = audit.appended(records).await;
        *self.unrecorded() = written.is_err().then(Instant::now);
        written.map_err(|error| unrecorded(&error))
    }
}

/// What an answer said: its outputs by name, and the score of its scope where it has one.
fn output(answer: &Answer) -> Value {
    let mut output = shortest::value(answer.outputs());
    if let (Value::Object(fields), Some(scope)) = (&mut output, answer.scope) {
        fields.insert(SCOPE_SCORE.to_owned(), shortest::value(&scope.score));
    }
    output
}

/// The rows of a request's answers.
pub(super) fn records(caller: &Caller, images: &[Image], frame: Option<Frame>, answers: &Answers) -> Vec<Record> {
    let record = |input_digest: String, sop_instance_uid: Option<String>, answer: &Answer| Record {
        action: Action::Answer,
        request_id: caller.request_id.clone(),
        who: caller.who.clone(),
        via: caller.via.to_owned(),
        input_digest: Some(input_digest),
        sop_instance_uid,
        task: answer.task.clone(),
        plugin_digest: Some(answer.version.clone()),
        backbone_digest: answer.backbone.clone(),
        precision: answer.precision.to_string(),
        output: output(answer),
    };
    let mut records = Vec::new();
    for (index, image) in answers.images.iter().enumerate() {
        let seen = frame.map_or(image.digest.clone(), |frame| format!("{}#frame={frame}", image.digest));
        let uid = images.get(index).and_then(|image| image.sop_instance_uid.clone());
        records.extend(image.answers.iter().map(|answer| record(seen.clone(), uid.clone(), answer)));
    }
    for bag in &answers.bags {
        let seen = format!("{}#bag={}", bag.digest, bag.images.len());
        records.extend(bag.answers.iter().map(|answer| record(seen.clone(), bag.series_instance_uid.clone(), answer)));
    }
    records
}
