//! What a measurement prints: one JSON object, or a few lines for people.

use super::repeat::Spread;
use crate::{Failure, machine, say, say_json};
use melo::vit::{Engine, EngineInfo, Precision};
use serde::Serialize;
use serde_json::{Map, Value};

/// The unit of a figure.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Unit {
    ImagesPerSecond,
    Seconds,
}

/// One line of `--json`; the contract is `docs/json.md`.
#[derive(Serialize)]
pub(crate) struct Line {
    bench: &'static str,
    arch: String,
    batch: Option<usize>,
    precision: Option<Precision>,
    isa: String,
    threads: usize,
    /// `images_per_s` or `seconds`, the figure.
    #[serde(flatten)]
    figure: Map<String, Value>,
    #[serde(flatten)]
    spread: Spread,
    peak_rss_bytes: Option<u64>,
    fraction_of_peak: Option<f64>,
    /// What only this measurement has.
    #[serde(flatten)]
    more: Map<String, Value>,
    machine: String,
    commit: &'static str,
}

impl Line {
    /// The line of a measurement that is over: the most memory that this process held is taken now.
    pub(crate) fn new(bench: &'static str, arch: &str, unit: Unit, spread: Spread) -> Self {
        let key = if unit == Unit::Seconds { "seconds" } else { "images_per_s" };
        Line {
            bench,
            arch: arch.to_owned(),
            batch: None,
            precision: None,
            isa: machine::device(None).info().device,
            threads: machine::threads(),
            figure: Map::from_iter([(key.to_owned(), spread.median.into())]),
            spread,
            peak_rss_bytes: machine::peak_rss_bytes(),
            fraction_of_peak: None,
            more: Map::new(),
            machine: machine::description(),
            commit: env!("MELO_COMMIT"),
        }
    }

    pub(crate) fn batch(self, images: usize) -> Self {
        Line { batch: Some(images), ..self }
    }

    pub(crate) fn precision(self, precision: Precision) -> Self {
        Line { precision: Some(precision), ..self }
    }

    /// Another figure than the median, with the spread around it.
    pub(crate) fn figure(mut self, value: f64) -> Self {
        self.figure.values_mut().for_each(|figure| *figure = value.into());
        self
    }

    /// The most memory that the process held which was measured.
    pub(crate) fn peak_rss_bytes(self, bytes: Option<u64>) -> Self {
        Line { peak_rss_bytes: bytes, ..self }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Serialize) -> Result<Self, Failure> {
        self.more.insert(name.to_owned(), serde_json::to_value(value)?);
        Ok(self)
    }

    /// Measures the device's peaks, after everything else since they need memory of their own, and holds the figure
    /// against them; an image is `flops` operations.
    pub(crate) fn against_peak(self, engine: &dyn Engine, flops: u64) -> Result<Self, Failure> {
        let EngineInfo { precision, .. } = engine.info();
        let Some(peak) = machine::device(Some(precision)).peak() else { return Ok(self) };
        let reached = flops as f64 * self.spread.median;
        let line = Line { fraction_of_peak: Some(reached / peak.flops_per_s), ..self };
        let line = line.with("flops_per_image", flops)?.with("peak_flops_per_s", peak.flops_per_s)?;
        line.with("copy_bytes_per_s", peak.copy_bytes_per_s)
    }

    /// Prints it, as one JSON object or with `details` in between.
    pub(crate) fn print(&self, json: bool, details: &str) -> Result<(), Failure> {
        if json {
            return say_json(self);
        }
        say(self.text(details));
        Ok(())
    }

    fn text(&self, details: &str) -> String {
        let Line { bench, arch, threads, isa, machine, commit, .. } = self;
        let Spread { min, max, .. } = self.spread;
        let batch = self.batch.map_or(String::new(), |batch| format!(", batch {batch}"));
        let precision = self.precision.as_ref().map_or(String::new(), |precision| format!(", {precision}"));
        let figure = self.figure.iter().next().map_or(String::new(), |(key, value)| {
            let value = value.as_f64().unwrap_or(f64::NAN);
            if key == "seconds" {
                format!("{} ({} to {})", time(value), time(min), time(max))
            } else {
                format!("{value:.2} images/s ({min:.2} to {max:.2})")
            }
        });
        let mut text = format!("{bench} {arch}{batch}{precision}: {figure}\n");
        let number = |name: &str| self.more.get(name).and_then(Value::as_f64);
        if let (Some(fraction), Some(peak), Some(copies)) =
            (self.fraction_of_peak, number("peak_flops_per_s"), number("copy_bytes_per_s"))
        {
            text += &format!(
                "  {:.1} % of this machine's {:.0} GFLOP/s; it copies {:.1} GB/s\n",
                100.0 * fraction,
                peak / 1e9,
                copies / 1e9
            );
        }
        text += details;
        if let Some(bytes) = self.peak_rss_bytes {
            text += &format!("  at most {:.0} MB of memory\n", bytes as f64 / 1e6);
        }
        text + &format!("  {machine}; {threads} threads, {isa}; commit {commit}")
    }
}

/// Seconds in a unit that fits.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => format!("{:.1} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.3} s"),
    }
}
