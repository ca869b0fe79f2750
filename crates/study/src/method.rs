//! A method of a study: what is trained, and with which settings.

use crate::plan::TaskPlan;
use melo_train::{ClassWeights, Method, TrainConfig, defaults};
use melo_vit::{LoraConfig, Target, VitConfig};
use serde::Deserialize;
use std::fmt;

/// Settings that all methods share, the `[train]` table; what is not given is as in `melo train`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainSection {
    epochs: Option<usize>,
    batch_size: Option<usize>,
    min_learning_rate: Option<f64>,
    warmup_epochs: Option<f64>,
    weight_decay: Option<f64>,
    clip_norm: Option<f64>,
    label_smoothing: Option<f64>,
    class_weights: Option<ClassWeights>,
    patience: Option<usize>,
    image_size: Option<usize>,
}

/// One `[[method]]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MethodSection {
    pub(crate) name: String,
    kind: Method,
    /// Tasks it is tried on; all where it is not given.
    tasks: Option<Vec<String>>,
    learning_rate: Option<f64>,
    epochs: Option<usize>,
    weight_decay: Option<f64>,
    rank: Option<usize>,
    alpha: Option<f32>,
    targets: Option<Vec<Target>>,
    last_k: Option<usize>,
    layer_decay: Option<f64>,
}

/// A method with the study's shared settings.
#[derive(Clone, Debug)]
pub struct MethodSettings {
    /// Name in the study.
    pub name: String,
    /// What is trained.
    pub kind: Method,
    /// Tasks it is tried on; all where it is none.
    pub tasks: Option<Vec<String>>,
    section: MethodSection,
    train: TrainSection,
}

impl MethodSection {
    /// A method by the name of its kind, with its defaults.
    pub(crate) fn built_in(name: &str) -> Result<Self, String> {
        let kind = serde_json::from_value(serde_json::Value::from(name))
            .map_err(|_| format!("study.methods: \"{name}\" is neither a kind of method nor a [[method]] table"))?;
        Ok(MethodSection {
            name: name.to_owned(),
            kind,
            tasks: None,
            learning_rate: None,
            epochs: None,
            weight_decay: None,
            rank: None,
            alpha: None,
            targets: None,
            last_k: None,
            layer_decay: None,
        })
    }

    pub(crate) fn settings(&self, train: &TrainSection) -> Result<MethodSettings, String> {
        let misplaced = [("rank", self.rank.is_some()), ("alpha", self.alpha.is_some())];
        let misplaced = misplaced.into_iter().chain([("targets", self.targets.is_some()), ("last_k", self.last_k.is_some())]);
        if let Some((key, _)) = misplaced.into_iter().find(|&(_, given)| given && self.kind != Method::Lora) {
            return Err(format!("method \"{}\": {key} is for kind = \"lora\"", self.name));
        }
        Ok(MethodSettings {
            name: self.name.clone(),
            kind: self.kind,
            tasks: self.tasks.clone(),
            section: self.clone(),
            train: train.clone(),
        })
    }
}

impl MethodSettings {
    /// Settings of a run on this backbone and task.
    pub(crate) fn config(&self, vit: &VitConfig, task: &TaskPlan, seed: u64) -> TrainConfig {
        let MethodSettings { section, train, .. } = self;
        let defaults = TrainConfig::for_method(self.kind, vit.depth);
        let mut config = TrainConfig {
            epochs: section.epochs.or(train.epochs).unwrap_or(defaults.epochs),
            batch_size: train.batch_size.unwrap_or(defaults.batch_size),
            learning_rate: section.learning_rate.unwrap_or(defaults.learning_rate),
            min_learning_rate: train.min_learning_rate.unwrap_or(defaults.min_learning_rate),
            warmup_epochs: train.warmup_epochs.unwrap_or(defaults.warmup_epochs),
            weight_decay: section.weight_decay.or(train.weight_decay).unwrap_or(defaults.weight_decay),
            clip_norm: train.clip_norm.unwrap_or(defaults.clip_norm),
            label_smoothing: train.label_smoothing.unwrap_or(defaults.label_smoothing),
            layer_decay: section.layer_decay.unwrap_or(defaults.layer_decay),
            class_weights: train.class_weights.unwrap_or(defaults.class_weights),
            patience: train.patience.unwrap_or(defaults.patience),
            seed,
            ..defaults
        };
        if self.kind == Method::Lora {
            let first = section.last_k.map_or(0, |k| vit.depth.saturating_sub(k));
            let rank = section.rank.unwrap_or(defaults::RANK);
            config.lora = LoraConfig {
                rank,
                alpha: section.alpha.unwrap_or(rank as f32),
                targets: sorted(section.targets.clone().unwrap_or_else(|| vec![Target::Q, Target::V])),
                blocks: (first..vit.depth).collect(),
            };
        }
        config.augment.horizontal_flip = task.horizontal_flip;
        config.augment.vertical_flip = task.vertical_flip;
        config
    }

    /// Side of the network input, where the study sets one.
    pub(crate) fn image_size(&self) -> Option<usize> {
        self.train.image_size
    }
}

fn sorted(mut targets: Vec<Target>) -> Vec<Target> {
    targets.sort();
    targets.dedup();
    targets
}

impl fmt::Display for MethodSettings {
    /// `lora: rank 4, alpha 4, on q v, last 6 blocks, learning rate 0.001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MethodSection { rank, alpha, targets, last_k, learning_rate, layer_decay, .. } = &self.section;
        write!(f, "{}", self.kind)?;
        if self.kind == Method::Lora {
            let rank = rank.unwrap_or(defaults::RANK);
            let targets = targets.clone().unwrap_or_else(|| vec![Target::Q, Target::V]);
            let targets: Vec<String> = sorted(targets).iter().map(ToString::to_string).collect();
            write!(f, ": rank {rank}, alpha {}, on {}", alpha.unwrap_or(rank as f32), targets.join(" "))?;
            if let Some(k) = last_k {
                write!(f, ", last {k} blocks")?;
            }
        }
        if let Some(decay) = layer_decay {
            write!(f, ", layer decay {decay}")?;
        }
        write!(f, ", learning rate {}", learning_rate.unwrap_or(self.kind.learning_rate()))
    }
}
