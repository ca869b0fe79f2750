//! Drift as an audit tells it afterwards: of answers alone, since it holds nothing else of images.

use super::DriftRow;
use super::monitor::Monitor;
use crate::audit::answers;
use crate::error::Error;
use melo_vit::{ComputedOn, Decision, InScope, PluginInfo, Precision, SCOPE_SCORE, TaskCard};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// When a figure went outside.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Alarm {
    /// Number of the audit's row.
    pub n: i64,
    /// When it was written, ms since 1970 in UTC.
    pub time_ms: i64,
}

/// A figure of a plug-in's answers, and when it went outside.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drifted {
    /// Where it is at the end.
    #[serde(flatten)]
    pub row: DriftRow,
    /// Each time that it went outside.
    pub alarms: Vec<Alarm>,
}

/// What an audit tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DriftReport {
    /// By plug-in and figure.
    pub figures: Vec<Drifted>,
    /// Plug-ins that answered and whose files are not there, by their digests.
    pub unknown: Vec<String>,
}

/// Walks the answers of an audit through the charts; `plugins` is the folder of `DIGEST.safetensors`, as a server keeps it.
///
/// # Errors
/// [`Error::Io`], [`Error::Damaged`], [`Error::Audit`] of the audit.
pub fn drift_of(audit: &Path, plugins: &Path) -> Result<DriftReport, Error> {
    let mut known: BTreeMap<String, Option<Followed>> = BTreeMap::new();
    answers(audit, |answer| {
        let digest = answer.plugin_digest;
        let found = known.entry(digest.to_owned()).or_insert_with(|| Followed::of(plugins, digest));
        if let Some(found) = found {
            found.add(answer.precision, answer.output, Alarm { n: answer.n, time_ms: answer.time_ms });
        }
    })?;
    let unknown = known.iter().filter(|(_, found)| found.is_none()).map(|(digest, _)| digest.clone()).collect();
    let figures = known.iter().filter_map(|(digest, found)| Some(found.as_ref()?.figures(digest))).flatten().collect();
    Ok(DriftReport { figures, unknown })
}

/// A plug-in and its charts.
struct Followed {
    card: TaskCard,
    monitor: Monitor,
    alarms: BTreeMap<String, Vec<Alarm>>,
}

impl Followed {
    fn of(plugins: &Path, digest: &str) -> Option<Self> {
        // Of an audit that somebody wrote: a digest is no path.
        let plain = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let card = plain.then(|| PluginInfo::read(&plugins.join(format!("{digest}.safetensors"))).ok()).flatten()?.card;
        Some(Followed { monitor: Monitor::new(&card), card, alarms: BTreeMap::new() })
    }

    fn add(&mut self, precision: &str, output: &Value, alarm: Alarm) {
        let number = |class: &String| output[class].as_f64().map(|value| value as f32);
        let Some(outputs) = self.card.classes.iter().map(number).collect::<Option<Vec<f32>>>() else { return };
        let Ok(precision) = precision.parse::<Precision>() else { return };
        // The engine is not recorded: what was fitted in this precision.
        let there = ComputedOn { engine: String::new(), precision };
        let thresholds = self.card.calibration_for(&there).thresholds;
        let scope = output[SCOPE_SCORE].as_f64().map(|score| InScope::of(score as f32));
        let mut decision = Decision::new(self.card.kind, outputs, &thresholds);
        decision.scope = scope;
        for name in self.monitor.add(&self.card, &decision, None) {
            if self.monitor.charts[&name].outside {
                self.alarms.entry(name).or_default().push(alarm);
            }
        }
    }

    fn figures(&self, digest: &str) -> Vec<Drifted> {
        let seen = self.monitor.charts.iter().filter(|(_, chart)| chart.images > 0 || chart.reference.is_some());
        let figure = |(name, chart): (&String, &_)| Drifted {
            row: DriftRow::of(digest, &self.monitor.task, name, chart),
            alarms: self.alarms.get(name).cloned().unwrap_or_default(),
        };
        seen.map(figure).collect()
    }
}
