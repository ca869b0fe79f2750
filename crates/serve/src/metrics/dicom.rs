//! What of the DICOM network is counted.

use super::make::Make;
use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGaugeVec};
use std::time::Duration;

/// What becomes of objects, and of results.
pub(crate) struct DicomMetrics {
    received: IntCounterVec,
    objects: IntCounterVec,
    retries: IntCounter,
    results: IntCounterVec,
    attempts_failed: IntCounterVec,
    held: IntGaugeVec,
    held_bytes: IntGaugeVec,
    oldest: GaugeVec,
    deleted: IntCounterVec,
}

/// What became of something.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    Answered,
    Refused,
    Delivered,
    Undelivered,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Refused => "refused",
            Outcome::Delivered => "delivered",
            Outcome::Undelivered => "undelivered",
        }
    }
}

impl DicomMetrics {
    pub(super) fn new(make: &Make) -> Self {
        let held = ["place", "destination"];
        DicomMetrics {
            received: make.counters(
                "melo_dicom_received_total",
                "Objects that came by C-STORE and STOW-RS, accepted or why not",
                &["via", "result"],
            ),
            objects: make.counters("melo_dicom_objects_total", "Accepted objects that are done with", &["outcome"]),
            retries: make.counter("melo_dicom_retries_total", "Times that work on an object or a series was put off"),
            results: make.counters(
                "melo_dicom_results_total",
                "Results that are done with, by receiver",
                &["destination", "outcome"],
            ),
            attempts_failed: make.counters(
                "melo_dicom_send_failures_total",
                "Times that results could not be sent, by receiver",
                &["destination"],
            ),
            held: make.gauges("melo_dicom_spool_objects", "Files in the spool", &held),
            held_bytes: make.gauges("melo_dicom_spool_bytes", "Their size", &held),
            oldest: make.reals(
                "melo_dicom_spool_oldest_seconds",
                "Time since the oldest of them, or the object that it is the result of, arrived; 0 where there is none",
                &held,
            ),
            deleted: make.counters(
                "melo_dicom_deleted_total",
                "Refused objects and notes of answered series deleted from the spool",
                &["what"],
            ),
        }
    }

    /// Begins at 0.
    pub(crate) fn begin<'a>(&self, destinations: impl Iterator<Item = &'a str>) {
        for via in ["dicom", "stow"] {
            for result in ["accepted", "full", "mismatch", "unreadable"] {
                self.received.with_label_values(&[via, result]);
            }
        }
        for outcome in [Outcome::Answered, Outcome::Refused] {
            self.objects.with_label_values(&[outcome.name()]);
        }
        for what in ["answered", "refused"] {
            self.deleted.with_label_values(&[what]);
        }
        for destination in destinations {
            self.attempts_failed.with_label_values(&[destination]);
            for outcome in [Outcome::Delivered, Outcome::Undelivered] {
                self.results.with_label_values(&[destination, outcome.name()]);
            }
        }
    }

    pub(crate) fn received(&self, via: &str, result: &str) {
        self.received.with_label_values(&[via, result]).inc();
    }

    pub(crate) fn done(&self, outcome: Outcome, objects: usize) {
        self.objects.with_label_values(&[outcome.name()]).inc_by(objects as u64);
    }

    pub(crate) fn put_off(&self) {
        self.retries.inc();
    }

    pub(crate) fn sent(&self, destination: &str, outcome: Outcome) {
        self.results.with_label_values(&[destination, outcome.name()]).inc();
    }

    pub(crate) fn not_sent(&self, destination: &str) {
        self.attempts_failed.with_label_values(&[destination]).inc();
    }

    /// What a folder of the spool holds; `destination` is empty where it is not one's own.
    pub(crate) fn holds(&self, place: &str, destination: &str, objects: usize, bytes: u64, oldest: Duration) {
        let labels = [place, destination];
        self.held.with_label_values(&labels).set(objects as i64);
        self.held_bytes.with_label_values(&labels).set(bytes as i64);
        self.oldest.with_label_values(&labels).set(oldest.as_secs_f64());
    }

    pub(crate) fn deleted(&self, what: &str, count: u64) {
        self.deleted.with_label_values(&[what]).inc_by(count);
    }
}
