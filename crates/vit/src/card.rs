//! The card of a plug-in: everything needed to use it rightly, and to refuse to use it wrongly.

use crate::adapter::LoraConfig;
use crate::bag::BagConfig;
use crate::bottleneck::BottleneckConfig;
use crate::calibration::{Recalibration, check_fit};
use crate::decoder::DecoderConfig;
use crate::ensemble::Ensemble;
use crate::invalid::Invalid;
use crate::preprocess::Preprocess;
use crate::scope::{SCOPE_SCORE, ScopeConfig, ScopeLimits};
use crate::self_test::SelfTest;
use crate::sets::SetRule;
use crate::task_kind::TaskKind;
use crate::test_record::TestRecord;
use crate::volume::VolumeConfig;
use melo_kernels::Precision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Classes of a mask at most: labels are bytes, and 255 is no class.
const MASK_CLASSES: usize = 255;

/// The backbone that a plug-in was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneReference {
    /// [`crate::BackboneInfo::digest`].
    pub digest: String,
    /// Name of the architecture, for people.
    pub name: String,
}

/// Where a plug-in comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Software and version.
    pub software: String,
    /// Seed of the training.
    pub seed: u64,
    /// SHA-256 of the manifest's names, labels and splits.
    pub data_digest: String,
    /// SHA-256 of the masks' bytes; empty of other tasks. Since format 7.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mask_digest: String,
    /// SHA-256 of which images are in which split; empty where it was not taken.
    #[serde(default)]
    pub split_digest: String,
    /// Images in the training split.
    pub train_images: usize,
    /// Of them, images of each class `[c]`; empty where they were not counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub train_images_of: Vec<u64>,
    /// Name of the manifest or folder; empty where it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// Day on which the training ended, in UTC, `2026-11-28`; empty where it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub date: String,
    /// Numbers that the training computed in.
    #[serde(default)]
    pub precision: Precision,
    /// Every other setting of the training.
    pub settings: serde_json::Value,
}

impl Default for Provenance {
    fn default() -> Self {
        Provenance {
            software: String::new(),
            seed: 0,
            data_digest: String::new(),
            mask_digest: String::new(),
            split_digest: String::new(),
            train_images: 0,
            train_images_of: Vec::new(),
            data: String::new(),
            date: String::new(),
            precision: Precision::F32,
            settings: serde_json::Value::Null,
        }
    }
}

/// Most classes of a task: three times ImageNet-21k's.
pub const MAX_CLASSES: usize = 1 << 16;

/// How to use a plug-in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskCard {
    /// Version of the file format: up to [`TaskCard::FORMAT`].
    pub format: u32,
    /// Name of the task.
    pub task: String,
    /// What kind of answer it has.
    pub kind: TaskKind,
    /// Names of the classes, of the grades from the lowest, of the findings or of the numbers, in the order of the head's rows; of masks
    /// with the background first, in the order of their scores.
    pub classes: Vec<String>,
    /// What makes masks of patches; none of other tasks. Since format 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<DecoderConfig>,
    /// From pixels to input.
    pub preprocess: Preprocess,
    /// Settings of the low-rank updates.
    pub lora: LoraConfig,
    /// Settings of the bottlenecks.
    #[serde(default)]
    pub bottleneck: BottleneckConfig,
    /// What pools the images of a bag, where it answers for bags; none where it answers for single images. Since format 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bag: Option<BagConfig>,
    /// How volumes are embedded, where it answers for volumes; none where it answers for images. Since format 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeConfig>,
    /// Shape of the description of its training images; none where it has none. Since format 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeConfig>,
    /// Its members, where it is an ensemble of folds. Since format 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<Ensemble>,
    /// The backbone it belongs to.
    pub backbone: BackboneReference,
    /// Logits are divided by it before softmax or sigmoid, where [`TaskCard::calibration_for`] chooses the card's own.
    pub temperature: f32,
    /// One a class, in [0, 1], chosen as the temperature. A finding of a multi-label task is reported from this probability on. Of a
    /// single-label task the class is called whose probability is highest over its threshold: since format 10, and always one half before.
    pub thresholds: Vec<f32>,
    /// How prediction sets are made; none where they are not. Fitted as the temperature. Since format 9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sets: Option<SetRule>,
    /// From which distances on an image is out of scope; with `scope`, and with it alone. Fitted as the temperature. Since format 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_limits: Option<ScopeLimits>,
    /// Measured figures by name, such as `val_auc_macro`.
    pub metrics: BTreeMap<String, f64>,
    /// Confidence intervals `[low, high]` of figures by name.
    #[serde(default)]
    pub metric_intervals: BTreeMap<String, [f64; 2]>,
    /// What was seen on the test split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<TestRecord>,
    /// Outputs that prove, wherever the plug-in is loaded, that it works.
    #[serde(default)]
    pub self_test: Option<SelfTest>,
    /// Temperatures and thresholds for other engines and precisions, with self-tests of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calibrations: Vec<Recalibration>,
    /// Where it comes from.
    pub provenance: Provenance,
}

impl TaskCard {
    /// The latest version of the format: this one and all before it are read.
    pub const FORMAT: u32 = 12;
    /// The version that is written where nothing in a card calls for a later one.
    const FORMAT_WRITTEN: u32 = 4;

    /// A card before any training: no adapter, no calibration, no metrics.
    pub fn new(
        task: String,
        kind: TaskKind,
        classes: Vec<String>,
        preprocess: Preprocess,
        backbone: BackboneReference,
    ) -> Self {
        let card = TaskCard {
            format: TaskCard::FORMAT_WRITTEN,
            task,
            kind,
            thresholds: vec![0.5; classes.len()],
            classes,
            decoder: None,
            preprocess,
            lora: LoraConfig::none(),
            bottleneck: BottleneckConfig::none(),
            bag: None,
            volume: None,
            scope: None,
            ensemble: None,
            backbone,
            temperature: 1.0,
            sets: None,
            scope_limits: None,
            metrics: BTreeMap::new(),
            metric_intervals: BTreeMap::new(),
            test: None,
            self_test: None,
            calibrations: Vec::new(),
            provenance: Provenance::default(),
        };
        TaskCard { format: card.format_written(), ..card }
    }

    /// The version of the format that the card is written in: as old as what it holds allows, so that older software reads it.
    pub fn format_written(&self) -> u32 {
        match (self.kind, self.calibrations.is_empty()) {
            _ if self.scope.is_some() && self.ensemble.is_some() => 12,
            _ if self.has_base() => 11,
            _ if self.scope.is_some() || self.ensemble.is_some() || self.calls_unevenly() => 10,
            _ if self.has_sets() => 9,
            _ if self.volume.is_some() => 8,
            _ if self.self_tests().any(|test| !test.meaning.is_empty()) => 8,
            (TaskKind::Segmentation, _) => 7,
            _ if self.bag.is_some() => 7,
            (TaskKind::Ordinal | TaskKind::Regression, _) => 6,
            (_, false) => 5,
            (_, true) => TaskCard::FORMAT_WRITTEN,
        }
    }

    /// First blocks whose updates the members of an ensemble share; 0 of a single plug-in.
    pub fn shared_blocks(&self) -> usize {
        self.ensemble.as_ref().and_then(|ensemble| ensemble.shared).unwrap_or(0)
    }

    /// Whether the members of an ensemble were trained on top of one plug-in, which has seen the training split.
    pub fn has_base(&self) -> bool {
        self.ensemble.as_ref().is_some_and(|ensemble| ensemble.shared.is_some())
    }

    /// Whether another class than the most probable one may be called.
    pub fn calls_unevenly(&self) -> bool {
        let uneven = |thresholds: &[f32]| thresholds.iter().any(|threshold| *threshold != thresholds[0]);
        let all = std::iter::once(&self.thresholds).chain(self.calibrations.iter().map(|known| &known.thresholds));
        self.kind == TaskKind::SingleLabel && all.into_iter().any(|thresholds| uneven(thresholds))
    }

    /// What thresholds meant when the card was written: nothing for a single-label task before format 10.
    pub(crate) fn with_thresholds_of_its_time(mut self) -> Self {
        if self.format < 10 && self.kind == TaskKind::SingleLabel {
            let all = std::iter::once(&mut self.thresholds);
            let all = all.chain(self.calibrations.iter_mut().map(|known| &mut known.thresholds));
            all.for_each(|thresholds| thresholds.fill(0.5));
        }
        self
    }

    /// Members of an ensemble of folds; 1 of a single plug-in.
    pub fn members(&self) -> usize {
        self.ensemble.as_ref().map_or(1, |ensemble| ensemble.members.len())
    }

    fn has_sets(&self) -> bool {
        self.sets.is_some() || self.calibrations.iter().any(|known| known.sets.is_some())
    }

    fn self_tests(&self) -> impl Iterator<Item = &SelfTest> {
        self.self_test.iter().chain(self.calibrations.iter().map(|known| &known.self_test))
    }

    /// Checks what the card says against itself.
    ///
    /// # Errors
    /// [`Invalid`] for the first field that is wrong.
    pub fn check(&self) -> Result<(), Invalid> {
        let wrong = |field, reason: String| Err(Invalid::new(field, reason));
        let classes = self.classes.len();
        let mut names = self.classes.clone();
        names.sort();
        names.dedup();
        if !(1..=TaskCard::FORMAT).contains(&self.format) {
            return wrong("format", unknown_format(self.format));
        }
        if let Some(field) = self.field_of_a_later_format() {
            return wrong(field, format!("format {} has no field `{field}`", self.format));
        }
        let masks = self.kind == TaskKind::Segmentation;
        if classes < 2 && (self.kind.is_one_class() || masks) || classes == 0 || names.len() != classes {
            return wrong("classes", format!("classes {:?} are too few or repeat", self.classes));
        }
        if classes > MAX_CLASSES {
            return wrong("classes", format!("{classes} classes, at most {MAX_CLASSES} are answered"));
        }
        if masks && classes > MASK_CLASSES {
            return wrong("classes", format!("{classes} classes, expected at most {MASK_CLASSES} of a mask"));
        }
        if self.decoder.is_some() != masks {
            return wrong("decoder", "a decoder belongs to tasks of masks, and to all of them".to_owned());
        }
        if masks && self.bag.is_some() {
            return wrong("bag", "bag: masks are of single images".to_owned());
        }
        if let Some(bag) = &self.bag {
            bag.check()?;
        }
        match &self.volume {
            Some(_) if masks || self.bag.is_some() => {
                return wrong("volume", "volume: masks and bags are of images".to_owned());
            }
            Some(volume) => volume.check(&self.preprocess)?,
            None if self.preprocess.depth.is_some() => {
                return wrong("depth", "preprocess: a depth belongs to tasks of volumes".to_owned());
            }
            None => {}
        }
        if let Some(ensemble) = &self.ensemble {
            if masks || self.bag.is_some() || self.volume.is_some() {
                return wrong("ensemble", "ensemble: members answer for single images, without masks".to_owned());
            }
            ensemble.check()?;
        }
        check_fit(self.temperature, &self.thresholds, classes)?;
        self.sets.iter().try_for_each(|sets| sets.check(self.kind, classes))?;
        self.check_scope()?;
        let scaled = |temperature: f32| !self.kind.has_probabilities() && temperature != 1.0;
        if scaled(self.temperature) || self.calibrations.iter().any(|known| scaled(known.temperature)) {
            return wrong("temperature", "temperature: numbers and masks have none, expected 1".to_owned());
        }
        if let Some((name, value)) = self.metrics.iter().find(|(_, value)| !value.is_finite()) {
            return wrong("metrics", format!("metric `{name}` is {value}, which JSON cannot hold"));
        }
        let ordered = |[low, high]: [f64; 2]| low.is_finite() && high.is_finite() && low <= high;
        if let Some((name, interval)) = self.metric_intervals.iter().find(|(_, interval)| !ordered(**interval)) {
            let reason = format!("metric_intervals: `{name}` is {interval:?}, expected [low, high]");
            return wrong("metric_intervals", reason);
        }
        let images_of = &self.provenance.train_images_of;
        if !images_of.is_empty() && images_of.len() != classes {
            let reason = format!("provenance: train_images_of of {} classes, expected {classes}", images_of.len());
            return wrong("train_images_of", reason);
        }
        if let Some(test) = &self.test {
            test.check(self.kind, classes)?;
        }
        if let Some(self_test) = &self.self_test {
            self_test.check(self.kind, classes * self.members())?;
        }
        self.check_calibrations()?;
        self.preprocess.check()
    }

    fn check_scope(&self) -> Result<(), Invalid> {
        let wrong = |reason: String| Err(Invalid::new("scope", format!("scope: {reason}")));
        self.scope.iter().try_for_each(ScopeConfig::check)?;
        self.scope_limits.iter().try_for_each(ScopeLimits::check)?;
        if self.scope.is_some() && (self.bag.is_some() || self.volume.is_some()) {
            return wrong("of single images alone".to_owned());
        }
        if self.scope.is_some() && self.classes.iter().any(|class| class == SCOPE_SCORE) {
            return wrong(format!("a class is called `{SCOPE_SCORE}`"));
        }
        let looked_at = self.scope.iter().flat_map(|scope| &scope.blocks);
        if let (Some(_), Some(block)) =
            (&self.ensemble, looked_at.max().filter(|block| **block >= self.shared_blocks()))
        {
            return wrong(format!("block {block}, where the members of the ensemble differ"));
        }
        match self.scope_limits.is_some() == self.scope.is_some() {
            true => Ok(()),
            false => wrong("a description and its limits belong together".to_owned()),
        }
    }

    /// Reads a card, and says so by its number where it is of a later format, whose fields are not known here.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Written {
            format: u32,
        }
        match serde_json::from_str(json) {
            Ok(Written { format }) if format > TaskCard::FORMAT => Err(unknown_format(format)),
            _ => serde_json::from_str(json).map_err(|error| error.to_string()),
        }
    }

    /// A field that came with a later format than the card's and says more than its absence would.
    fn field_of_a_later_format(&self) -> Option<&'static str> {
        let provenance = Provenance::default();
        let fields = [
            (2, "lora.rslora", self.lora.rslora),
            (2, "lora.rank_pattern", !self.lora.rank_pattern.is_empty()),
            (2, "bottleneck", self.bottleneck != BottleneckConfig::none()),
            (2, "metric_intervals", !self.metric_intervals.is_empty()),
            (2, "provenance.split_digest", self.provenance.split_digest != provenance.split_digest),
            (2, "provenance.precision", self.provenance.precision != provenance.precision),
            (3, "self_test", self.self_test.is_some()),
            (4, "test", self.test.is_some()),
            (4, "provenance.train_images_of", !self.provenance.train_images_of.is_empty()),
            (4, "provenance.data", !self.provenance.data.is_empty()),
            (4, "provenance.date", !self.provenance.date.is_empty()),
            (5, "calibrations", !self.calibrations.is_empty()),
            (6, "kind: ordinal", self.kind == TaskKind::Ordinal),
            (6, "kind: regression", self.kind == TaskKind::Regression),
            (7, "kind: segmentation", self.kind == TaskKind::Segmentation),
            (7, "decoder", self.decoder.is_some()),
            (7, "provenance.mask_digest", !self.provenance.mask_digest.is_empty()),
            (7, "bag", self.bag.is_some()),
            (8, "volume", self.volume.is_some()),
            (8, "self_test.meaning", self.self_tests().any(|test| !test.meaning.is_empty())),
            (9, "sets", self.has_sets()),
            (10, "scope", self.scope.is_some()),
            (10, "ensemble", self.ensemble.is_some()),
            (11, "ensemble.shared", self.has_base()),
            (12, "scope of an ensemble", self.scope.is_some() && self.ensemble.is_some()),
        ];
        fields.into_iter().find(|(since, _, present)| *present && self.format < *since).map(|(_, field, _)| field)
    }
}

fn unknown_format(format: u32) -> String {
    format!("format {format} is not known, expected 1 to {}", TaskCard::FORMAT)
}
