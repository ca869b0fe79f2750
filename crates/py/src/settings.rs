//! Settings of a training, as keywords say them.

use crate::errors::{Door, Failure, OrRaise};
use melo::data::Augment;
use melo::train::{ClassWeights, MaskHead, Method, MethodSettings, ScopeSettings, SetSettings, Solver, TrainConfig};
use melo::vit::{BagConfig, BagPooling, CropMode, Preprocess, SetBy, SetMethod, Target};
use melo::{Job, Precision};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What is said; the rest is the method's default.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) task: Option<String>,
    method: Option<Method>,
    rank: Option<usize>,
    alpha: Option<f32>,
    targets: Option<Vec<Target>>,
    blocks: Option<Vec<usize>>,
    last_k: Option<usize>,
    rslora: Option<bool>,
    rank_pattern: Option<BTreeMap<String, usize>>,
    lora_plus: Option<f64>,
    lora_dropout: Option<f64>,
    bottleneck: Option<usize>,
    layer_decay: Option<f64>,
    folds: Option<usize>,
    solver: Option<Solver>,
    epochs: Option<usize>,
    batch_size: Option<usize>,
    learning_rate: Option<f64>,
    min_learning_rate: Option<f64>,
    warmup_epochs: Option<f64>,
    weight_decay: Option<f64>,
    clip_norm: Option<f64>,
    label_smoothing: Option<f64>,
    class_weights: Option<ClassWeights>,
    mask_head: Option<MaskHead>,
    patience: Option<usize>,
    augment: Option<Augment>,
    seed: Option<u64>,
    image_size: Option<usize>,
    crop_mode: Option<CropMode>,
    pooling: Option<BagPooling>,
    unordered: Option<bool>,
    coverage: Option<f64>,
    sets: Option<Sets>,
    sets_by: Option<SetBy>,
    scope_false_alarms: Option<f64>,
    scope: Option<bool>,
    pub(crate) run: Option<PathBuf>,
    pub(crate) resume: bool,
    pub(crate) overwrite: bool,
    pub(crate) f16: bool,
    pub(crate) backbone_out: Option<PathBuf>,
}

/// How prediction sets are made.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sets {
    Lac,
    Aps,
    Raps,
    None,
}

impl Settings {
    /// What is asked of prediction sets.
    pub(crate) fn sets(&self) -> Option<SetSettings> {
        let method = match self.sets {
            Some(Sets::None) => return None,
            Some(Sets::Lac) => Some(SetMethod::Lac),
            Some(Sets::Aps) => Some(SetMethod::Aps),
            Some(Sets::Raps) => Some(SetMethod::Raps),
            None => None,
        };
        let usual = SetSettings::default();
        Some(SetSettings { coverage: self.coverage.unwrap_or(usual.coverage), method, by: self.sets_by })
    }

    /// What is asked of the scope.
    pub(crate) fn scope(&self) -> Option<ScopeSettings> {
        let usual = ScopeSettings::default();
        let false_alarms = self.scope_false_alarms.unwrap_or(usual.false_alarms);
        self.scope.unwrap_or(true).then_some(ScopeSettings { false_alarms })
    }

    /// From JSON.
    pub(crate) fn read(json: &str) -> Result<Self, Failure> {
        let wrong = |error: serde_json::Error| Failure::new(Door::Setting, "Setting", error.to_string());
        let given: Map<String, Value> = serde_json::from_str(json).map_err(wrong)?;
        for (setting, value) in &given {
            let alone = Value::from(Map::from_iter([(setting.clone(), value.clone())]));
            serde_json::from_value::<Settings>(alone).map_err(|error| Failure::setting(setting, error))?;
        }
        serde_json::from_value(given.into()).map_err(wrong)
    }

    /// Settings of a run on a backbone of `depth` blocks.
    pub(crate) fn config(&self, depth: usize, precision: Precision) -> Result<TrainConfig, Failure> {
        let block = |(block, rank): (&String, &usize)| Some((block.parse().ok()?, *rank));
        let rank_pattern = self.rank_pattern.as_ref().map(|pattern| pattern.iter().map(block).collect::<Option<_>>());
        let rank_pattern = match rank_pattern {
            Some(None) => return Err(Failure::setting("rank_pattern", "expected numbers of blocks")),
            Some(pattern) => pattern,
            None => None,
        };
        let method = MethodSettings {
            rank: self.rank,
            alpha: self.alpha,
            targets: self.targets.clone(),
            blocks: self.blocks.clone(),
            last_k: self.last_k,
            rslora: self.rslora,
            rank_pattern,
            lora_plus: self.lora_plus,
            lora_dropout: self.lora_dropout,
            bottleneck: self.bottleneck,
            layer_decay: self.layer_decay,
            folds: self.folds,
            solver: self.solver,
        };
        let usual = method.resolve(self.method.unwrap_or(Method::Lora), depth).or_raise(Door::Setting)?;
        Ok(TrainConfig {
            epochs: self.epochs.unwrap_or(usual.epochs),
            batch_size: self.batch_size.unwrap_or(usual.batch_size),
            learning_rate: self.learning_rate.unwrap_or(usual.learning_rate),
            min_learning_rate: self.min_learning_rate.unwrap_or(usual.min_learning_rate),
            warmup_epochs: self.warmup_epochs.unwrap_or(usual.warmup_epochs),
            weight_decay: self.weight_decay.unwrap_or(usual.weight_decay),
            clip_norm: self.clip_norm.unwrap_or(usual.clip_norm),
            label_smoothing: self.label_smoothing.unwrap_or(usual.label_smoothing),
            class_weights: self.class_weights.unwrap_or(usual.class_weights),
            mask_head: self.mask_head.unwrap_or(usual.mask_head),
            patience: self.patience.unwrap_or(usual.patience),
            augment: self.augment.clone().unwrap_or(usual.augment.clone()),
            seed: self.seed.unwrap_or(usual.seed),
            bag: self.bag()?,
            precision,
            ..usual
        })
    }

    /// How the images of a bag become one answer, where that is said.
    fn bag(&self) -> Result<Option<BagConfig>, Failure> {
        if self.pooling.is_none() && self.unordered.is_none() {
            return Ok(None);
        }
        let pooling = self.pooling.unwrap_or(BagPooling::GatedAttention);
        let usual = BagConfig::of(pooling);
        match (self.unordered, pooling) {
            (Some(true), BagPooling::GatedAttention) => Ok(Some(BagConfig { positions: 0, ..usual })),
            (Some(true), _) => Err(Failure::setting("unordered", format!("is for attention, not for {pooling}"))),
            _ => Ok(Some(usual)),
        }
    }

    /// From pixels to input: the weights' statistics and filter, the task's size and crop.
    pub(crate) fn preprocess(&self, own: &Preprocess) -> Preprocess {
        let usual = Preprocess { depth: None, rendering: Default::default(), ..Job::preprocess(own) };
        Preprocess {
            size: self.image_size.unwrap_or(usual.size),
            crop_mode: self.crop_mode.unwrap_or(usual.crop_mode),
            ..usual
        }
    }
}
