//! What the server counts, in the text format of Prometheus; `docs/metrics.md` lists all of it.

mod busy;
mod dicom;
mod make;
mod process;
#[cfg(test)]
mod tests;

use crate::drift::DriftRow;
use crate::registry::short;
use busy::Busy;
pub(crate) use dicom::{DicomMetrics, Outcome};
use make::Make;
use melo_vit::EngineInfo;
use process::Process;
use prometheus::{
    Counter, Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, TextEncoder,
};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
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
    process: Option<Process>,
    build: IntGaugeVec,
    engine: IntGaugeVec,
    requests: IntCounterVec,
    latency: HistogramVec,
    answers: IntCounterVec,
    out_of_scope: IntCounterVec,
    wait: Histogram,
    compute: Histogram,
    batch: Histogram,
    abandoned: IntCounter,
    audit_rows: IntGauge,
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
    problems: IntGauge,
    /// Of the DICOM network.
    pub(crate) dicom: DicomMetrics,
    /// Answers of the last minute, by task.
    recent: Mutex<HashMap<String, VecDeque<Instant>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let make = Make(Registry::new());
        Metrics {
            process: Process::new(&make),
            build: make.gauges("melo_build_info", "1; which program this is", &["version", "target"]),
            engine: make.gauges("melo_engine_info", "1; what computes", &["engine", "precision", "backbone"]),
            requests: make.counters("melo_requests_total", "Requests by route and status", &["route", "status"]),
            latency: make.times(
                "melo_task_latency_seconds",
                "From a request's arrival to its answer, by task",
                &["task"],
            ),
            answers: make.counters("melo_answers_total", "Images answered, by task", &["task"]),
            out_of_scope: make.counters(
                "melo_out_of_scope_total",
                "Images answered that are not for the task, by task",
                &["task"],
            ),
            wait: make.histogram("melo_queue_wait_seconds", "From the queue to the batch", &SECONDS),
            compute: make.histogram("melo_batch_seconds", "Computing a batch", &SECONDS),
            batch: make.histogram("melo_batch_rows", "Images times tasks in a batch", &ROWS),
            abandoned: make.counter("melo_abandoned_total", "Requests whose caller went away before their batch"),
            audit_rows: make.gauge("melo_audit_rows", "Number of the audit's last row"),
            syslog: make.counters(
                "melo_audit_syslog_total",
                "Records of the audit for syslog, sent and dropped",
                &["result"],
            ),
            refused: make.counters(
                "melo_refused_total",
                "Requests for answers that were refused, whoever asked, by code",
                &["code"],
            ),
            in_flight: make.gauge("melo_in_flight_requests", "Requests for answers begun and not answered"),
            queue: make.gauge("melo_queue_rows", "Images times tasks admitted and not answered"),
            queue_capacity: make.gauge("melo_queue_capacity_rows", "Images times tasks that may be admitted"),
            queue_share: make.real("melo_queue_share", "Rows of the queue over its capacity"),
            ready: make.gauge("melo_ready", "1 where GET /readyz answers 200"),
            engine_busy: make.time("melo_engine_busy_seconds_total", "Time in which the engine computed"),
            busy: Mutex::default(),
            drift_distance: make.reals(
                "melo_drift_distance",
                "A figure's distance from its reference over its limit: outside from 1 on",
                &["task", "version", "figure"],
            ),
            drift_outside: make.gauges(
                "melo_drift_outside",
                "1 where a figure is outside its limits",
                &["task", "version", "figure"],
            ),
            resident_bytes: make.gauge("melo_resident_plugin_bytes", "Weights of plug-ins in memory"),
            tasks: make.gauge("melo_tasks", "Tasks that are known"),
            problems: make.gauge("melo_plugin_problems", "Plug-in files and tasks that are not served"),
            dicom: DicomMetrics::new(&make),
            registry: make.0,
            started: Instant::now(),
            recent: Mutex::default(),
        }
    }
}

impl Metrics {
    /// What stays as it is while the server runs; what is counted by known names begins at 0.
    pub(crate) fn begin(&self, info: &EngineInfo, backbone: &str) {
        let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        self.build.with_label_values(&[env!("CARGO_PKG_VERSION"), &target]).set(1);
        let precision = info.precision.to_string();
        self.engine.with_label_values(&[info.engine, &precision, short(backbone)]).set(1);
        for code in ["busy", "full"] {
            self.refused.with_label_values(&[code]);
        }
    }

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

    pub(crate) fn ready(&self, is_ready: bool) {
        self.ready.set(i64::from(is_ready));
    }

    pub(crate) fn problems(&self, count: usize) {
        self.problems.set(count as i64);
    }

    pub(crate) fn audit_holds(&self, rows: i64) {
        self.audit_rows.set(rows);
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
        grow(&self.engine_busy, self.busy().time());
        if let Some(process) = &self.process {
            process.look();
        }
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

/// Brings a counter up to what was found; never down.
fn grow(counter: &Counter, found: f64) {
    counter.inc_by((found - counter.get()).max(0.0));
}

fn forget_old(times: &mut VecDeque<Instant>, now: Instant) {
    while times.front().is_some_and(|&time| now.duration_since(time) > LIVE) {
        times.pop_front();
    }
}
