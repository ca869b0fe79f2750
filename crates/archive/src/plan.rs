//! What is computed, fixed before anything is.

use crate::error::Error;
use crate::inputs::Listed;
use crate::patient::PatientKey;
use crate::run::Settings;
use melo_predict::Predictor;
use melo_vit::{BoundPlugin, ComputedOn, EngineInfo, Precision, TaskKind, hex};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Images of a chunk where nothing else is asked for: what a kill costs at most, and Ctrl-C waits for; a million images are a thousand parts.
pub const CHUNK: usize = 1024;
/// What this crate writes.
pub(crate) const FORMAT: &str = "melo-archive-1";
/// Letters of a value that a message shows.
const SHOWN: usize = 120;

/// Everything that the bytes of an archive depend on but for what is in the images: `DIR/plan.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// `melo-archive-1`.
    pub format: String,
    /// `melo` with its version.
    pub software: String,
    /// Images.
    pub inputs: u64,
    /// SHA-256 of `DIR/inputs`: their names, each followed by a NUL.
    pub inputs_digest: String,
    /// Folders and files that could not be looked at, with the reason.
    pub unlisted: Vec<String>,
    /// Images of a part; of the last the rest.
    pub chunk: usize,
    /// The plug-ins, in the order of their rows.
    pub plugins: Vec<PlannedPlugin>,
    /// SHA-256 of the backbone's configuration and weights.
    pub backbone_digest: String,
    /// Numbers in the backbone's matrix products.
    pub precision: Precision,
    /// Kind of engine.
    pub engine: String,
    /// What it runs on, such as `AVX-512`: another rounds otherwise.
    pub device: String,
    /// Tells keys of patients apart; none where patients are left out.
    pub patient_key: Option<String>,
}

/// A plug-in of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedPlugin {
    /// Its task.
    pub task: String,
    /// What it answers.
    pub kind: TaskKind,
    /// Classes, findings or numbers, in the order of its answers.
    pub classes: Vec<String>,
    /// SHA-256 of its file.
    pub plugin_digest: String,
    /// Where the temperature and thresholds were fitted that its answers are read by.
    pub calibration: ComputedOn,
}

impl Plan {
    pub(crate) fn new(
        predictor: &Predictor,
        Settings { plugins, patient_key, .. }: &Settings,
        listed: &Listed,
        chunk: usize,
    ) -> Self {
        let EngineInfo { engine, device, precision, .. } = predictor.engine().info();
        let planned = |plugin: &Arc<BoundPlugin>| PlannedPlugin {
            task: plugin.card.task.clone(),
            kind: plugin.card.kind,
            classes: plugin.card.classes.clone(),
            plugin_digest: plugin.digest.clone(),
            calibration: plugin.calibration().made.clone(),
        };
        Plan {
            format: FORMAT.to_owned(),
            software: format!("melo {}", env!("CARGO_PKG_VERSION")),
            inputs: listed.inputs,
            inputs_digest: listed.digest.clone(),
            unlisted: listed.unlisted.clone(),
            chunk,
            plugins: plugins.iter().map(planned).collect(),
            backbone_digest: predictor.engine().backbone().digest().to_owned(),
            precision,
            engine: engine.to_owned(),
            device,
            patient_key: patient_key.as_ref().map(PatientKey::fingerprint),
        }
    }

    /// The plan in a folder.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let plan: Plan = serde_json::from_slice(&bytes).map_err(|error| Error::damaged(path, error))?;
        match plan.chunk == 0 || plan.json() != bytes {
            true => Err(Error::damaged(path, "not as it was written")),
            false => Ok(plan),
        }
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("plain data");
        json.push(b'\n');
        json
    }

    /// SHA-256 of the file.
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(self.json()))
    }

    /// Number of parts.
    pub fn chunks(&self) -> u64 {
        self.inputs.div_ceil(self.chunk as u64)
    }

    /// Images of the part `number`.
    pub(crate) fn inputs_of(&self, number: u64) -> usize {
        inputs_of(self.inputs, self.chunk, number)
    }

    /// Images of these parts.
    pub(crate) fn images(&self, numbers: &BTreeSet<u64>) -> u64 {
        numbers.iter().map(|&number| self.inputs_of(number) as u64).sum()
    }

    /// Refuses to go on with `self` in a folder that was begun as `was`.
    pub(crate) fn refuse_other(&self, was: &Plan, folder: &Path) -> Result<(), Error> {
        let differs = |what: String, was: &Value, now: &Value| {
            Err(Error::Differs { folder: folder.to_owned(), what, was: shown(was), now: shown(now) })
        };
        let (old, new) = (value(was), value(self));
        for (name, now) in fields(&new) {
            let before = &old[name];
            if before == now {
                continue;
            }
            let plugins = was.plugins.iter().zip(&self.plugins);
            let other = plugins.filter(|(was, now)| was != now).map(|(was, now)| (&now.task, value(was), value(now)));
            if let Some((task, was, now)) = other.into_iter().next().filter(|_| was.plugins.len() == self.plugins.len())
                && let Some((field, found)) = fields(&now).find(|(field, found)| was[field.as_str()] != **found)
            {
                return differs(format!("`{field}` of plug-in `{task}`"), &was[field.as_str()], found);
            }
            let tasks = |plan: &Plan| plan.plugins.iter().map(|plugin| Value::from(plugin.task.as_str())).collect();
            return match name.as_str() {
                "plugins" => differs("`plugins`".to_owned(), &tasks(was), &tasks(self)),
                _ => differs(format!("`{name}`"), before, now),
            };
        }
        Ok(())
    }
}

/// Images of the chunk `number` of `inputs` in chunks of `chunk`.
pub(crate) fn inputs_of(inputs: u64, chunk: usize, number: u64) -> usize {
    let first = number * chunk as u64;
    // At most `chunk`.
    inputs.saturating_sub(first).min(chunk as u64) as usize
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).expect("plain data")
}

fn fields(of: &Value) -> impl Iterator<Item = (&String, &Value)> {
    of.as_object().into_iter().flatten()
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
