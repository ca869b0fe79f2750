//! What waits to be logged.

use crate::pr_curve::PrCurve;
use melo_imaging::Pixels;
use melo_train::TrainConfig;
use melo_vit::TaskCard;
use serde_json::Value;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// A training, as logs name it.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Name of the run.
    pub name: String,
    /// What it is one of: an experiment of MLflow.
    pub experiment: String,
    /// Facts to search by, in front of task, method, seed and digests.
    pub tags: Vec<(String, String)>,
    /// Where it is kept which run of a server this is, so that it can go on.
    pub folder: Option<PathBuf>,
}

/// Facts to search by: task, method, seed, and what was trained on what.
pub(crate) fn tags(card: &TaskCard, config: &TrainConfig) -> Vec<(String, String)> {
    let tags = [
        ("task", card.task.clone()),
        ("kind", word(&card.kind)),
        ("method", config.method.to_string()),
        ("seed", config.seed.to_string()),
        ("backbone", card.backbone.name.clone()),
        ("backbone_digest", card.backbone.digest.clone()),
        ("data_digest", card.provenance.data_digest.clone()),
    ];
    tags.into_iter().map(|(tag, value)| (tag.to_owned(), value)).collect()
}

/// Every setting by its name.
pub(crate) fn settings(card: &TaskCard, config: &TrainConfig) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    flatten(String::new(), &json(config), &mut settings);
    flatten("preprocess".to_owned(), &json(&card.preprocess), &mut settings);
    settings
}

/// As JSON by way of text: an f32 of 0.8 stays 0.8.
fn json(settings: &impl serde::Serialize) -> Value {
    let text = serde_json::to_string(settings).expect("settings are plain data");
    serde_json::from_str(&text).expect("it was just written")
}

fn word(value: &impl serde::Serialize) -> String {
    match json(value) {
        Value::String(word) => word,
        other => other.to_string(),
    }
}

/// Fields of fields are named with a dot.
fn flatten(name: String, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            let dot = if name.is_empty() { "" } else { "." };
            fields.iter().for_each(|(field, value)| flatten(format!("{name}{dot}{field}"), value, into));
        }
        Value::String(word) => into.push((name, word.clone())),
        other => into.push((name, other.to_string())),
    }
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With a plug-in.
    Finished,
    /// With an error.
    Failed,
    /// Stopped from outside; it may go on.
    Killed,
}

/// What waits to be logged.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// The training begins, or goes on after this many steps.
    Begin { steps: u64, goes_on: bool },
    /// Figures after a step.
    Scalars { step: u64, at: SystemTime, values: Vec<(String, f64)> },
    /// A picture of a step.
    Picture { step: u64, at: SystemTime, tag: &'static str, pixels: Pixels },
    /// Precision and recall of each class after a step.
    Curves { step: u64, at: SystemTime, curves: Vec<(String, PrCurve)> },
    /// The finished plug-in's file.
    Plugin { step: u64, at: SystemTime, path: PathBuf },
    /// The end.
    End { at: SystemTime, status: Status },
}

/// Seconds since 1970.
pub(crate) fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
