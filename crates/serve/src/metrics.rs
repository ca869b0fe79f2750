//! What the server counts, in the text format of Prometheus.

use crate::drift::DriftRow;
use crate::registry::short;
use prometheus::{
    Counter, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bounds of times, s: from one small image to a full queue of large ones.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0];
/// Bounds of batch sizes, rows.
const ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// The time over which live throughput is taken.
const LIVE: Duration = Duration::from_secs(60);

/// Counters, gauges and histograms of one server.
pub struct Metrics {
    registry: Registry,
    started: Instant,
    requests: IntCounterVec,
    latency: HistogramVec,
    answers: IntCounterVec,
    out_of_scope: IntCounterVec,
    wait: Histogram,
    compute: Histogram,
    batch: Histogram,
    abandoned: IntCounter,
    dicom_deleted: IntCounterVec,
    syslog: IntCounterVec,
    refused: IntCounterVec,
    in_flight: IntGauge,
    queue: IntGauge,
    queue_capacity: IntGauge,
    queue_share: Gauge,
    ready: IntGauge,
    engine_busy: Counter,
    busy: Mutex<Busy>,
    drift_distance: GaugeVec,
    drift_outside: IntGaugeVec,
    resident_bytes: IntGauge,
    tasks: IntGauge,
    /// Answers of the last minute, by task.
    recent: Mutex<HashMap<String, VecDeque<Instant>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let all = "every name and bucket is given here and is valid";
        let register = |collector: Box<dyn prometheus::core::Collector>| registry.register(collector).expect(all);
        let seconds = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let metrics = Metrics {
            requests: IntCounterVec::new(
                Opts::new("melo_requests_total", "Requests by route and status"),
                &["route", "status"],
            )
            .expect(all),
            latency: HistogramVec::new(
                seconds("melo_task_latency_seconds", "From a request's arrival to its answer, by task"),
                &["task"],
            )
            .expect(all),
            answers: IntCounterVec::new(Opts::new("melo_answers_total", "Images answered, by task"), &["task"])
                .expect(all),
            out_of_scope: IntCounterVec::new(
                Opts::new("melo_out_of_scope_total", "Images answered that are not for the task, by task"),
                &["task"],
            )
            .expect(all),
            wait: Histogram::with_opts(seconds("melo_queue_wait_seconds", "From the queue to the batch")).expect(all),
            compute: Histogram::with_opts(seconds("melo_batch_seconds", "Computing a batch")).expect(all),
            batch: Histogram::with_opts(
                HistogramOpts::new("melo_batch_rows", "Images times tasks in a batch").buckets(ROWS.to_vec()),
            )
            .expect(all),
            abandoned: IntCounter::new("melo_abandoned_total", "Requests whose caller went away before their batch")
                .expect(all),
            dicom_deleted: IntCounterVec::new(
                Opts::new(
                    "melo_dicom_deleted_total",
                    "Refused objects and notes of answered series deleted from the spool",
                ),
                &["what"],
            )
            .expect(all),
            syslog: IntCounterVec::new(
                Opts::new("melo_audit_syslog_total", "Records of the audit for syslog, sent and dropped"),
                &["result"],
            )
            .expect(all),
            refused: IntCounterVec::new(
                Opts::new("melo_refused_total", "Requests for answers that were refused, whoever asked, by code"),
                &["code"],
            )
            .expect(all),
            in_flight: IntGauge::new("melo_in_flight_requests", "Requests for answers begun and not answered")
                .expect(all),
            queue: IntGauge::new("melo_queue_rows", "Images times tasks admitted and not answered").expect(all),
            queue_capacity: IntGauge::new("melo_queue_capacity_rows", "Images times tasks that may be admitted")
                .expect(all),
            queue_share: Gauge::new("melo_queue_share", "Rows of the queue over its capacity").expect(all),
            ready: IntGauge::new("melo_ready", "1 where GET /v2/health/ready answers 200").expect(all),
            engine_busy: Counter::new("melo_engine_busy_seconds_total", "Time in which the engine computed")
                .expect(all),
            busy: Mutex::default(),
            drift_distance: GaugeVec::new(
                Opts::new(
                    "melo_drift_distance",
                    "A figure's distance from its reference over its limit: outside from 1 on",
                ),
                &["task", "version", "figure"],
            )
            .expect(all),
            drift_outside: IntGaugeVec::new(
                Opts::new("melo_drift_outside", "1 where a figure is outside its limits"),
                &["task", "version", "figure"],
            )
            .expect(all),
            resident_bytes: IntGauge::new("melo_resident_plugin_bytes", "Weights of plug-ins in memory").expect(all),
            tasks: IntGauge::new("melo_tasks", "Tasks that are served").expect(all),
            registry: registry.clone(),
            started: Instant::now(),
            recent: Mutex::default(),
        };
        register(Box::new(metrics.requests.clone()));
        register(Box::new(metrics.latency.clone()));
        register(Box::new(metrics.answers.clone()));
        register(Box::new(metrics.out_of_scope.clone()));
        register(Box::new(metrics.wait.clone()));
        register(Box::new(metrics.compute.clone()));
        register(Box::new(metrics.batch.clone()));
        register(Box::new(metrics.abandoned.clone()));
        register(Box::new(metrics.dicom_deleted.clone()));
        register(Box::new(metrics.syslog.clone()));
        register(Box::new(metrics.refused.clone()));
        register(Box::new(metrics.in_flight.clone()));
        register(Box::new(metrics.queue.clone()));
        register(Box::new(metrics.queue_capacity.clone()));
        register(Box::new(metrics.queue_share.clone()));
        register(Box::new(metrics.ready.clone()));
        register(Box::new(metrics.engine_busy.clone()));
        register(Box::new(metrics.drift_distance.clone()));
        register(Box::new(metrics.drift_outside.clone()));
        register(Box::new(metrics.resident_bytes.clone()));
        register(Box::new(metrics.tasks.clone()));
        metrics
    }
}

impl Metrics {
    /// How long the server has been up.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn request(&self, route: &str, status: u16) {
        self.requests.with_label_values(&[route, &status.to_string()]).inc();
    }

    pub(crate) fn refused(&self, code: &str) {
        self.refused.with_label_values(&[code]).inc();
    }

    /// A request is in flight until this goes away.
    pub(crate) fn in_flight(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// The engine computes until this goes away.
    pub(crate) fn computing(&self) -> Computing<'_> {
        self.busy().change(|at_work| at_work + 1);
        Computing(self)
    }

    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ready(&self, is_ready: bool) {
        self.ready.set(i64::from(is_ready));
    }

    /// The charts that there are now, and no others.
    pub(crate) fn drift(&self, rows: &[DriftRow]) {
        self.drift_distance.reset();
        self.drift_outside.reset();
        for row in rows {
            let labels = [row.task.as_str(), short(&row.version), row.figure.as_str()];
            self.drift_distance.with_label_values(&labels).set(row.distance.unwrap_or_default());
            self.drift_outside.with_label_values(&labels).set(i64::from(row.outside));
        }
    }

    pub(crate) fn queue_holds_at_most(&self, rows: usize) {
        self.queue_capacity.set(rows as i64);
    }

    pub(crate) fn abandoned(&self, jobs: u64) {
        self.abandoned.inc_by(jobs);
    }

    pub(crate) fn dicom_deleted(&self, what: &str, count: u64) {
        self.dicom_deleted.with_label_values(&[what]).inc_by(count);
    }

    pub(crate) fn syslog(&self, result: &str, count: u64) {
        self.syslog.with_label_values(&[result]).inc_by(count);
    }

    pub(crate) fn waited(&self, time: Duration) {
        self.wait.observe(time.as_secs_f64());
    }

    pub(crate) fn computed(&self, rows: usize, time: Duration) {
        self.batch.observe(rows as f64);
        self.compute.observe(time.as_secs_f64());
    }

    pub(crate) fn answered(&self, task: &str, images: usize, time: Duration) {
        self.answers.with_label_values(&[task]).inc_by(images as u64);
        self.latency.with_label_values(&[task]).observe(time.as_secs_f64());
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let times = recent.entry(task.to_owned()).or_default();
        let now = Instant::now();
        times.extend(std::iter::repeat_n(now, images));
        forget_old(times, now);
    }

    pub(crate) fn out_of_scope(&self, task: &str, images: usize) {
        self.out_of_scope.with_label_values(&[task]).inc_by(images as u64);
    }

    /// Images a minute that a task answered lately.
    pub fn images_per_minute(&self, task: &str) -> usize {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = recent.get_mut(task) else { return 0 };
        forget_old(times, Instant::now());
        times.len()
    }

    /// Everything about a task that is gone.
    pub(crate) fn forget(&self, task: &str) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).remove(task);
        let _ = self.latency.remove_label_values(&[task]);
        let _ = self.answers.remove_label_values(&[task]);
        let _ = self.out_of_scope.remove_label_values(&[task]);
    }

    pub(crate) fn registry_holds(&self, tasks: usize, resident_bytes: usize) {
        self.tasks.set(tasks as i64);
        self.resident_bytes.set(resident_bytes as i64);
    }

    /// The text that Prometheus reads; `queue_rows` is the load of the moment.
    pub fn text(&self, queue_rows: usize) -> String {
        self.queue.set(queue_rows as i64);
        self.queue_share.set(queue_rows as f64 / self.queue_capacity.get().max(1) as f64);
        self.engine_busy.inc_by((self.busy().time() - self.engine_busy.get()).max(0.0));
        let mut text = Vec::new();
        let encoded = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        encoded.ok().and_then(|()| String::from_utf8(text).ok()).unwrap_or_default()
    }
}

/// A request in flight.
pub(crate) struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The engine at work.
pub(crate) struct Computing<'a>(&'a Metrics);

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        self.0.busy().change(|at_work| at_work - 1);
    }
}

/// How long anything was computed; what is computed at the same time counts once.
#[derive(Default)]
struct Busy {
    at_work: usize,
    since: Option<Instant>,
    before: Duration,
}

impl Busy {
    fn change(&mut self, change: impl FnOnce(usize) -> usize) {
        self.at_work = change(self.at_work);
        match (self.at_work, self.since) {
            (0, Some(since)) => {
                self.before += since.elapsed();
                self.since = None;
            }
            (1.., None) => self.since = Some(Instant::now()),
            _ => {}
        }
    }

    /// Seconds up to now.
    fn time(&self) -> f64 {
        (self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())).as_secs_f64()
    }
}

fn forget_old(times: &mut VecDeque<Instant>, now: Instant) {
    while times.front().is_some_and(|&time| now.duration_since(time) > LIVE) {
        times.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_computed_at_the_same_time_is_busy_once_and_counts_while_it_runs() {
        let metrics = Metrics::default();
        let (one, other) = (metrics.computing(), metrics.computing());
        std::thread::sleep(Duration::from_millis(20));
        drop(one);
        let running = metrics.busy().time();
        assert!((0.02..2.0).contains(&running), "{running}");
        drop(other);
        let done = metrics.busy().time();
        std::thread::sleep(Duration::from_millis(5));
        assert!(done >= running && metrics.busy().time() == done, "nothing runs any more");
        assert!(metrics.text(0).contains(&format!("melo_engine_busy_seconds_total {done}")));
    }

    #[test]
    fn the_share_of_the_queue_is_of_its_capacity() {
        let metrics = Metrics::default();
        metrics.queue_holds_at_most(8);
        assert!(metrics.text(2).contains("melo_queue_share 0.25"));
    }
}
