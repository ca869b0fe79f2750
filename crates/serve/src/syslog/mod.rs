//! The audit's records for a receiver of syslog, such as an audit record repository of IHE's ATNA. The file is the record: a receiver that is
//! slow or away costs messages, never answers.

mod link;
mod message;

use crate::audit::{Head, Record};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::tls::TlsClientFiles;
use link::Way;
use message::Source;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Messages that may wait; more are dropped.
const WAITING: usize = 16_384;
/// First and longest pause before a receiver that is away is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// Time at the end for what still waits.
const LAST: Duration = Duration::from_secs(2);

/// Where the audit's records are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogConfig {
    /// `udp://HOST:PORT`, `tcp://HOST:PORT` or `tls://HOST:PORT`.
    pub address: String,
    /// Who vouches for the receiver, and what is shown to it: of `tls` alone.
    pub tls: Option<TlsClientFiles>,
}

/// Sends records from a thread of its own.
pub struct Syslog {
    source: Source,
    metrics: Arc<Metrics>,
    messages: Option<SyncSender<Vec<u8>>>,
    ending: Arc<Ending>,
    ended: Receiver<()>,
}

/// Until when is sent, once an end has begun.
#[derive(Default)]
struct Ending(Mutex<Option<Instant>>, Condvar);

impl Ending {
    fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + LAST);
        self.1.notify_all();
    }

    fn is_over(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() >= until)
    }

    /// Waits, or returns true at once where the end has begun.
    fn pause(&self, time: Duration) -> bool {
        let going_on = |until: &mut Option<Instant>| until.is_none();
        let until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.1.wait_timeout_while(until, time, going_on);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }
}

impl Syslog {
    /// Sends as the replica of that name. Whether the receiver is there is seen with the first record.
    ///
    /// # Errors
    /// [`Error::Settings`] for the address; [`Error::Io`] and [`Error::Damaged`] of the files for TLS.
    pub fn start(config: &SyslogConfig, replica: &str, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let way = Way::new(config)?;
        ["dropped", "sent"].into_iter().for_each(|result| metrics.syslog(result, 0));
        let (messages, waiting) = sync_channel(WAITING);
        let (end, ended) = channel();
        let ending = Arc::new(Ending::default());
        let sender = Sender {
            way,
            address: config.address.clone(),
            metrics: Arc::clone(&metrics),
            ending: Arc::clone(&ending),
            is_away: None,
        };
        let run = move || {
            sender.run(&waiting);
            drop(end);
        };
        let thread = std::thread::Builder::new().name("melo-syslog".into()).spawn(run);
        thread.map_err(|error| Error::Settings(format!("the thread of syslog: {error}")))?;
        Ok(Syslog { source: Source::here(replica), metrics, messages: Some(messages), ending, ended })
    }

    /// A record that is on the disk, as a row that was written at a time, ms since 1970 in UTC.
    pub(crate) fn send(&self, record: &Record, row: &Head, time_ms: i64) {
        let message = self.source.message(record, row, time_ms);
        if self.messages.as_ref().is_none_or(|messages| messages.try_send(message).is_err()) {
            self.metrics.syslog("dropped", 1);
        }
    }
}

impl Drop for Syslog {
    /// Sends what is there, for two seconds at the most.
    fn drop(&mut self) {
        self.ending.begin();
        drop(self.messages.take());
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(LAST) {
            tracing::warn!("records of the audit that still waited were not sent to syslog");
        }
    }
}

struct Sender {
    way: Way,
    address: String,
    metrics: Arc<Metrics>,
    ending: Arc<Ending>,
    /// What the log was told.
    is_away: Option<bool>,
}

impl Sender {
    fn run(mut self, waiting: &Receiver<Vec<u8>>) {
        let mut link = None;
        while let Ok(message) = waiting.recv() {
            if self.ending.is_over() || !self.deliver(&mut link, &message) {
                self.metrics.syslog("dropped", 1 + waiting.try_iter().count() as u64);
                continue;
            }
            self.metrics.syslog("sent", 1);
        }
    }

    /// Tries until the receiver has a message; false where it is given up.
    fn deliver(&mut self, link: &mut Option<link::Link>, message: &[u8]) -> bool {
        let mut pause = PAUSE.0;
        loop {
            let known = link.take();
            let is_known = known.is_some();
            let open = known.map_or_else(|| self.way.open(), Ok);
            match open.and_then(|mut open| open.send(message).map(|()| open)) {
                Ok(open) => {
                    *link = Some(open);
                    self.tell(None);
                    return true;
                }
                // Receivers close what was silent for long.
                Err(_) if is_known && self.way.is_connected() => continue,
                Err(error) => self.tell(Some(error)),
            }
            // Of a datagram that could not be sent nothing says why.
            if !self.way.is_connected() || self.ending.pause(pause) {
                return false;
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// One line in the log for every change.
    fn tell(&mut self, trouble: Option<std::io::Error>) {
        let before = self.is_away.replace(trouble.is_some());
        match trouble {
            Some(error) if before != Some(true) => {
                tracing::warn!(address = self.address, %error, "the receiver of the audit's syslog is away; the file is the record");
            }
            None if before != Some(false) => {
                tracing::info!(address = self.address, "the receiver of the audit's syslog takes records")
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
