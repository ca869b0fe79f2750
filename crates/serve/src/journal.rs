//! What a server records besides its answers: what it serves, whom it let in and turned away, when it began and ended.

use crate::audit::{Action, Audit, Record};
use crate::error::{Error, Refusal};
use crate::request::Caller;
use melo_vit::Engine;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A caller who was seen within this time is not recorded as let in again.
const SEEN: Duration = Duration::from_secs(3600);
/// Those turned away from one address are recorded once in this time, with their number.
const TURNED_AWAY: Duration = Duration::from_secs(60);
/// Names and addresses that are remembered; of more, those turned away are recorded together.
const REMEMBERED: usize = 1024;

/// What records of a server that are no answers have in common.
#[derive(Clone)]
pub(crate) struct Journal {
    audit: Option<Arc<Audit>>,
    backbone_digest: String,
    precision: String,
}

/// What happened, beside who and where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Happened {
    /// [`Record::task`].
    pub(crate) task: String,
    /// [`Record::plugin_digest`].
    pub(crate) plugin_digest: Option<String>,
    /// [`Record::output`].
    pub(crate) output: serde_json::Value,
}

impl Journal {
    pub(crate) fn new(audit: Option<Arc<Audit>>, engine: &dyn Engine) -> Self {
        let (backbone_digest, precision) = (engine.backbone().digest().to_owned(), engine.info().precision.to_string());
        Journal { audit, backbone_digest, precision }
    }

    /// Records nothing.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Journal { audit: None, backbone_digest: String::new(), precision: String::new() }
    }

    #[cfg(test)]
    pub(crate) fn of(audit: Arc<Audit>) -> Self {
        Journal { audit: Some(audit), ..Journal::none() }
    }

    /// A record of what a caller, or the server itself, did.
    pub(crate) fn record(&self, action: Action, caller: Caller, happened: Happened) -> Record {
        let Happened { task, plugin_digest, output } = happened;
        Record {
            action,
            request_id: caller.request_id,
            who: caller.who,
            via: caller.via.to_owned(),
            input_digest: None,
            sop_instance_uid: None,
            task,
            plugin_digest,
            backbone_digest: self.backbone_digest.clone(),
            precision: self.precision.clone(),
            output,
        }
    }

    /// Records what the server does of itself, before it does it.
    ///
    /// # Errors
    /// [`Error::Audit`].
    ///
    /// # Panics
    /// Within an asynchronous task.
    pub(crate) fn before(&self, events: Vec<(Action, Happened)>) -> Result<(), Error> {
        let records = events.into_iter().map(|(action, happened)| self.record(action, Caller::server(), happened));
        self.audit.as_ref().map_or(Ok(()), |audit| audit.append(&records.collect::<Vec<_>>()))
    }

    /// Records what has happened, waiting for nothing.
    pub(crate) fn note(&self, action: Action, caller: Caller, happened: Happened) {
        if let Some(audit) = &self.audit {
            audit.note(vec![self.record(action, caller, happened)]);
        }
    }
}

/// Why nothing is done that cannot be recorded. Where the file is concerns nobody outside.
pub(crate) fn unrecorded(error: &Error) -> Refusal {
    tracing::error!(%error, "the audit could not be written");
    Refusal::Unavailable("the audit could not be written, and nothing is done without it".to_owned())
}

/// Who came: recorded in bounded number, whatever anyone tries.
pub(crate) struct Visitors {
    journal: Journal,
    seen: Mutex<BTreeMap<String, Instant>>,
    turned_away: Mutex<BTreeMap<Option<IpAddr>, TurnedAway>>,
}

#[derive(Clone, Copy)]
struct TurnedAway {
    recorded: Instant,
    /// Since then.
    more: u64,
}

impl Visitors {
    pub(crate) fn new(journal: Journal) -> Self {
        Visitors { journal, seen: Mutex::default(), turned_away: Mutex::default() }
    }

    /// A caller who showed a key, a token or a title that is known.
    pub(crate) fn let_in(&self, caller: Caller) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.get(&caller.who).is_some_and(|at| at.elapsed() < SEEN) {
            return;
        }
        if seen.len() >= REMEMBERED {
            seen.retain(|_, at| at.elapsed() < SEEN);
        }
        if seen.len() >= REMEMBERED {
            seen.pop_first();
        }
        seen.insert(caller.who.clone(), Instant::now());
        drop(seen);
        let output = json!({ "address": caller.address });
        self.journal.note(Action::Login, caller, Happened { output, ..Happened::default() });
    }

    /// A caller who was turned away, and why, without what was shown.
    pub(crate) fn turn_away(&self, caller: Caller, reason: &str) {
        let address = caller.address;
        let mut all = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.retain(|_, known| known.more > 0 || known.recorded.elapsed() < TURNED_AWAY);
        }
        let known = all.len() < REMEMBERED || all.contains_key(&address);
        let place = if known { address } else { None };
        let more = match all.get_mut(&place) {
            Some(known) if known.recorded.elapsed() < TURNED_AWAY => {
                known.more += 1;
                return;
            }
            Some(known) => known.more,
            None => 0,
        };
        all.insert(place, TurnedAway { recorded: Instant::now(), more: 0 });
        drop(all);
        let output = json!({ "address": address, "reason": reason, "before": more });
        self.journal.note(Action::Refuse, caller, Happened { output, ..Happened::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::entries;

    fn visitors() -> (tempfile::TempDir, std::path::PathBuf, Visitors) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.sqlite");
        let visitors = Visitors::new(Journal::of(Arc::new(Audit::open(&path, None).unwrap())));
        (folder, path, visitors)
    }

    fn caller(who: &str, address: IpAddr) -> Caller {
        Caller { who: who.to_owned(), via: "http", request_id: "r".to_owned(), address: Some(address) }
    }

    #[test]
    fn a_caller_is_recorded_once_and_a_flood_of_refusals_is_counted() {
        let (_folder, path, visitors) = visitors();
        let address: IpAddr = [10, 0, 0, 1].into();
        for _ in 0..3 {
            visitors.let_in(caller("ris", address));
        }
        for _ in 0..500 {
            visitors.turn_away(caller("unknown", address), "the key is not known");
        }
        visitors.turned_away.lock().unwrap().get_mut(&Some(address)).unwrap().recorded -= TURNED_AWAY;
        visitors.turn_away(caller("unknown", address), "the key is not known");
        for host in 0..3000_u32 {
            visitors.turn_away(caller("unknown", IpAddr::from((0x0b00_0000 + host).to_be_bytes())), "no");
        }
        drop(visitors);
        let found = entries(&path, 5000, None).unwrap();
        let actions: Vec<&str> = found.iter().map(|entry| entry.record.action.as_str()).collect();
        assert_eq!(actions[..3], ["login", "refuse", "refuse"]);
        assert_eq!(found[2].record.output["before"], 499);
        assert_eq!(found[2].record.output["address"], "10.0.0.1");
        assert!((REMEMBERED..REMEMBERED + 10).contains(&actions.len()), "{}", actions.len());
    }
}
