//! What the server says of an image; part of the contract in `docs/serve.md`.

use crate::registry::Version;
use melo_imaging::Mask;
use melo_vit::{BoundPlugin, ComputedOn, Decision, Engine, Given, InScope, NamedSet, Precision, SetMembers, TaskKind};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::sync::Arc;

/// A task's answer for one image.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// Name of the task.
    pub task: String,
    /// SHA-256 of the plug-in file that answered.
    pub version: String,
    /// What kind of answer it is.
    pub kind: TaskKind,
    /// Calibrated, in the order of the head; none of numbers.
    #[serde(skip_serializing_if = "ByName::is_empty")]
    pub probabilities: ByName,
    /// Numbers in their units, in the order of the head; of a mask the share of each class in what the network saw; none of classes.
    #[serde(skip_serializing_if = "ByName::is_empty")]
    pub values: ByName,
    /// Standard deviation of what the members of an ensemble say, in the order of the head; none of single plug-ins.
    #[serde(skip_serializing_if = "ByName::is_empty")]
    pub spread: ByName,
    /// A finding is reported from these on; one a class, multi-label only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<f32>>,
    /// The most probable class, or the median grade; none of findings and numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted: Option<String>,
    /// Findings at or above their thresholds, multi-label only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<String>>,
    /// What may be true, with the coverage that the plug-in promises; none where it promises none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<NamedSet>,
    /// Whether the image is one for the task; nothing where the plug-in cannot tell.
    #[serde(flatten)]
    pub scope: Option<InScope>,
    /// SHA-256 of the backbone.
    pub backbone: String,
    /// Numbers that it was computed in.
    pub precision: Precision,
    /// Where the temperature and the thresholds were fitted that it was read by.
    pub calibration: ComputedOn,
    /// The frame that was looked at, 1 the first, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<usize>,
    /// Where it looked, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heatmap: Option<Heatmap>,
    /// The mask, of a task that gives one, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<MaskImage>,
    /// Of a bag: how much each of its images counted, `[n]`, of sum 1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attention: Vec<f32>,
    /// Of a bag: the images that counted most, the most first; 0 is the first image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leading: Vec<usize>,
    /// Of a bag: where it looked in the leading images, each as a bag of its own, if that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub heatmaps: Vec<LeadingHeatmap>,
    /// The plug-in's version, for who needs its card.
    #[serde(skip)]
    pub of: Arc<Version>,
    /// Before calibration, `[c]`; of a mask scores `[m, m, c]`.
    #[serde(skip)]
    pub logits: Vec<f32>,
    /// What they come to.
    #[serde(skip)]
    pub decision: Decision,
}

/// Probabilities or numbers `[c]` by the names of what they are of: an object in the order of the head.
#[derive(Clone, Debug, PartialEq)]
pub struct ByName {
    /// Names of classes or numbers.
    pub classes: Vec<String>,
    /// Their probabilities, or the numbers; nothing where the task has no such.
    pub values: Vec<f32>,
}

impl ByName {
    fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl Serialize for ByName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.classes.len()))?;
        for (class, value) in self.classes.iter().zip(&self.values) {
            map.serialize_entry(class, value)?;
        }
        map.end()
    }
}

/// The relevance of an image's parts to one class.
#[derive(Clone, Debug, Serialize)]
pub struct Heatmap {
    /// The class that is explained.
    pub class: String,
    /// Side of the grid of patches.
    pub grid: usize,
    /// `[grid, grid]`, at least 0; only proportions have a meaning.
    pub values: Vec<f32>,
    /// The image with full colours laid over it: a PNG of the preview's size, in base64.
    #[serde(serialize_with = "base64_text")]
    pub png: Vec<u8>,
}

/// The heat map of an image of a bag.
#[derive(Clone, Debug, Serialize)]
pub struct LeadingHeatmap {
    /// Which image of the bag, 0 the first.
    pub image: usize,
    /// Where the task looked in it.
    #[serde(flatten)]
    pub heatmap: Heatmap,
}

/// A class for every pixel of an image.
#[derive(Clone, Debug, Serialize)]
pub struct MaskImage {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Class indices with a palette: a PNG of the image's size, in base64.
    #[serde(serialize_with = "base64_text")]
    pub png: Vec<u8>,
    /// The classes in their colours over the image: a PNG of the preview's size, in base64.
    #[serde(serialize_with = "base64_text")]
    pub overlay: Vec<u8>,
    /// What both show.
    #[serde(skip)]
    pub mask: Mask,
}

/// Bytes as base64.
pub(crate) fn base64_text<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    use base64::Engine;
    serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// All answers for one image.
#[derive(Clone, Debug, Serialize)]
pub struct ImageAnswers {
    /// The name it came with.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: String,
    /// How many frames or pages it holds, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<usize>,
    /// What was seen of the image that its reader may have to hear, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// In the order of the tasks.
    pub answers: Vec<Answer>,
    /// The image as a PNG in base64, if that was asked for; of DICOM as the first task's window renders it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "base64_option")]
    pub preview: Option<Vec<u8>>,
}

/// All answers for a bag.
#[derive(Clone, Debug, Serialize)]
pub struct BagAnswers {
    /// The name of its file, or of its first.
    pub name: String,
    /// SHA-256 of the hexadecimal SHA-256 of its files, in their order, each with a line feed behind it.
    pub digest: String,
    /// Names of its images, in their order.
    pub images: Vec<String>,
    /// In the order of the tasks.
    pub answers: Vec<Answer>,
    /// Series Instance UID, of a series that came by the DICOM network.
    #[serde(skip)]
    pub series_instance_uid: Option<String>,
}

/// What a request gets.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Answers {
    /// Of tasks that answer for single images, an entry an image.
    pub images: Vec<ImageAnswers>,
    /// Of tasks that answer for bags, an entry a bag.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bags: Vec<BagAnswers>,
}

fn base64_option<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    base64_text(bytes.as_deref().unwrap_or_default(), serializer)
}

impl Answer {
    /// What the task answers: its probabilities, or its numbers.
    pub fn outputs(&self) -> &ByName {
        if self.kind.has_probabilities() { &self.probabilities } else { &self.values }
    }

    /// The set as numbers: of classes `[c]`, 1 for those in it; of findings `[c, 2]`, 1 where absence and presence are; of numbers `[c, 2]`, low and
    /// high, the least and the largest f32 where there is no end. Nothing without a set.
    pub(crate) fn set_in_numbers(&self) -> Vec<f32> {
        let holds = |held: bool| f32::from(u8::from(held));
        match self.decision.set.as_ref().map(|set| &set.members) {
            None => Vec::new(),
            Some(SetMembers::Classes(set)) => {
                (0..self.probabilities.classes.len()).map(|class| holds(set.contains(&class))).collect()
            }
            Some(SetMembers::Findings(sets)) => {
                sets.iter().flat_map(|set| [false, true].map(|present| holds(set.holds(present)))).collect()
            }
            Some(SetMembers::Intervals(sets)) => {
                sets.iter().flat_map(|interval| interval.unwrap_or([f32::MIN, f32::MAX])).collect()
            }
        }
    }

    /// From what the plug-in gave of one image.
    pub(crate) fn new(version: &Arc<Version>, plugin: &BoundPlugin, engine: &dyn Engine, given: Given) -> Self {
        let card = &version.card;
        let (calibration, decision) = (plugin.calibration(), plugin.answer(&given));
        let findings = card.kind == TaskKind::MultiLabel;
        let by_name = |values: &[f32]| ByName { classes: card.classes.clone(), values: values.to_vec() };
        let name = |class: usize| card.classes[class].clone();
        Answer {
            task: card.task.clone(),
            version: version.digest.clone(),
            kind: card.kind,
            probabilities: by_name(&decision.probabilities),
            values: by_name(&decision.values),
            spread: by_name(&decision.spread),
            thresholds: findings.then(|| calibration.thresholds.clone()),
            predicted: card.kind.is_one_class().then(|| name(decision.best())),
            findings: findings.then(|| decision.findings.iter().copied().map(name).collect()),
            set: decision.set.as_ref().map(|set| set.named(&card.classes)),
            scope: decision.scope,
            backbone: engine.backbone().digest().to_owned(),
            precision: engine.info().precision,
            calibration: calibration.made.clone(),
            frame: None,
            heatmap: None,
            mask: None,
            attention: Vec::new(),
            leading: Vec::new(),
            heatmaps: Vec::new(),
            of: Arc::clone(version),
            logits: plugin.mean_logits(given.logits),
            decision,
        }
    }
}
