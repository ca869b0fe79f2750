//! Settings of a run, with the defaults of the paper's code where it has them.

use crate::converged::{PATH, PATIENCE};
use crate::error::Error;
use crate::method::Method;
use melo_data::Augment;
use melo_vit::{
    BagConfig, BottleneckConfig, DecoderConfig, Ensemble, LoraConfig, Precision, Target, TaskKind, VitConfig,
    VolumeConfig,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Defaults of a run, for the library and the command line alike.
pub mod defaults {
    /// Rank of the paper's experiments.
    pub const RANK: usize = 4;
    /// Width of a bottleneck: `2 · 8 · d + 8 + d` values a block, beside `4 · 4 · d` of rank 4 on query and value, so that
    /// the two methods are compared at the same size.
    pub const BOTTLENECK: usize = 8;
    /// Last blocks that the members of an ensemble adapt, each its own way: what is before them is computed once for all
    /// (`docs/decisions/0034-folds.md`).
    pub const FOLDS_LAST_K: usize = 2;
    /// Rank of what a member of an ensemble adds in them to the plug-in that all share.
    pub const LATE_RANK: usize = 11;
    /// Passes of a member: it begins where the plug-in that all share ends.
    pub const LATE_EPOCHS: usize = 5;
    /// Its highest learning rate: so few blocks have farther to go.
    pub const LATE_LEARNING_RATE: f64 = 4e-3;
    /// Learning rate of `B` over that of `A`, the same: LoRA+ off.
    pub const LORA_PLUS: f64 = 1.0;
    /// Dropout of the low-rank updates, off.
    pub const LORA_DROPOUT: f64 = 0.0;
    /// Passes over the training split.
    pub const EPOCHS: usize = 20;
    /// Images a step.
    pub const BATCH_SIZE: usize = 16;
    /// Highest learning rate of low-rank matrices and heads.
    pub const LEARNING_RATE: f64 = 1e-3;
    /// Highest learning rate when the backbone's weights are trained: a tenth, since they already know something.
    pub const FULL_LEARNING_RATE: f64 = 1e-4;
    /// Layer-wise decay of the learning rate when the backbone's weights are trained: what lies deep serves other tasks too (decision 0042).
    pub const FULL_LAYER_DECAY: f64 = 0.75;
    /// Floor of the cosine, as the paper's code.
    pub const MIN_LEARNING_RATE: f64 = 1e-6;
    /// Epochs of warm-up.
    pub const WARMUP_EPOCHS: f64 = 1.0;
    /// Weight decay.
    pub const WEIGHT_DECAY: f64 = 0.05;
    /// Gradient norm.
    pub const CLIP_NORM: f64 = 1.0;
    /// Label smoothing, as the paper's code.
    pub const LABEL_SMOOTHING: f64 = 0.1;
    /// Epochs without a better one on the validation split.
    pub const PATIENCE: usize = 10;
}

/// How members of an ensemble are trained on top of one plug-in that they share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Late {
    /// Last blocks that a member adapts.
    pub last_k: usize,
    /// Rank of what it adds there to the shared plug-in's, on the same projections.
    pub rank: usize,
    /// Passes over its training images.
    pub epochs: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
}

impl Default for Late {
    fn default() -> Self {
        Late {
            last_k: defaults::FOLDS_LAST_K,
            rank: defaults::LATE_RANK,
            epochs: defaults::LATE_EPOCHS,
            learning_rate: defaults::LATE_LEARNING_RATE,
        }
    }
}

/// Weights of classes in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// Every image counts the same.
    None,
    /// Single label: `n / (c · n_class)`; multi-label: negatives over positives of each finding.
    Balanced,
}

impl fmt::Display for ClassWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClassWeights::None => "none",
            ClassWeights::Balanced => "balanced",
        })
    }
}

/// How trained values are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// In steps over epochs.
    #[default]
    AdamW,
    /// A head alone on features that are computed once: L-BFGS to convergence on standardised features, for each of some strengths of
    /// penalty, of which the validation loss chooses one. Settings of steps, augmentation and label smoothing do not apply.
    Lbfgs,
}

impl Solver {
    fn is_steps(&self) -> bool {
        *self == Solver::AdamW
    }
}

/// The epoch whose weights a run ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// The best on the validation split.
    #[default]
    Best,
    /// The last, whatever the validation split says.
    Last,
}

impl Kept {
    fn is_best(&self) -> bool {
        *self == Kept::Best
    }
}

impl fmt::Display for Solver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Solver::AdamW => "adamw",
            Solver::Lbfgs => "lbfgs",
        })
    }
}

/// What makes masks of patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskHead {
    /// Cells of a quarter of a patch from four blocks, and two convolutions over them and the image.
    #[default]
    Upsampling,
    /// A score a class and patch from the last block, as DINOv2's linear evaluation.
    Linear,
}

impl MaskHead {
    /// Its form on a network.
    pub fn decoder(self, vit: &VitConfig, classes: usize) -> DecoderConfig {
        match self {
            MaskHead::Upsampling => DecoderConfig::upsampling(vit),
            MaskHead::Linear => DecoderConfig::linear(vit, classes),
        }
    }
}

impl fmt::Display for MaskHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MaskHead::Upsampling => "upsampling",
            MaskHead::Linear => "linear",
        })
    }
}

/// Settings of a run. Everything that influences the result is here, and resuming with anything changed is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// What is trained.
    pub method: Method,
    /// Settings of the low-rank updates.
    pub lora: LoraConfig,
    /// Learning rate of `B` over that of `A` (LoRA+, arXiv 2402.12354, section 4), positive; 1 is off.
    pub lora_plus: f64,
    /// Probability in [0, 1) that an input of a low-rank update is dropped in training (PEFT's `lora_dropout`); 0 is off.
    pub lora_dropout: f64,
    /// Settings of the bottlenecks.
    pub bottleneck: BottleneckConfig,
    /// How trained values are found; of a head alone there is a choice.
    #[serde(default, skip_serializing_if = "Solver::is_steps")]
    pub solver: Solver,
    /// Passes over the training split.
    pub epochs: usize,
    /// Images a step, or bags.
    pub batch_size: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Learning rate at the end of the cosine.
    pub min_learning_rate: f64,
    /// Layer-wise decay of the learning rate when all weights are trained, in (0, 1]: block `i` of `depth` learns at
    /// `layer_decay^(depth - i)` of the rate, what precedes the blocks at `layer_decay^(depth + 1)`; 1 is off.
    pub layer_decay: f64,
    /// Epochs of linear warm-up.
    pub warmup_epochs: f64,
    /// Decoupled weight decay of matrices; biases and norms have none.
    pub weight_decay: f64,
    /// Largest L2 norm of the whole gradient; 0 is unlimited.
    pub clip_norm: f64,
    /// Label smoothing of the cross-entropy; unused for multi-label tasks.
    pub label_smoothing: f64,
    /// Weights of classes in the loss.
    pub class_weights: ClassWeights,
    /// What makes masks of patches; unused for other tasks.
    #[serde(default)]
    pub mask_head: MaskHead,
    /// Epochs without a better one on the validation split before the run ends; 0 never ends early.
    pub patience: usize,
    /// The epoch whose weights are kept.
    #[serde(default, skip_serializing_if = "Kept::is_best")]
    pub kept: Kept,
    /// Numbers in the backbone's matrix products; what is trained stays f32.
    pub precision: Precision,
    /// Augmentation of training images.
    pub augment: Augment,
    /// Seed of initial values, order and augmentation.
    pub seed: u64,
    /// Members of an ensemble, each validated on its fold of the training and validation split; none of a single plug-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folds: Option<usize>,
    /// How members are trained on top of one plug-in, of these settings, that they share; none where each is trained by these settings itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Late>,
    /// What pools the images of a bag; none where images are no bags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bag: Option<BagConfig>,
    /// How volumes are embedded; none where examples are images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeConfig>,
}

impl Method {
    /// Highest learning rate where none is asked for.
    pub fn learning_rate(self) -> f64 {
        if self.trains_backbone() { defaults::FULL_LEARNING_RATE } else { defaults::LEARNING_RATE }
    }
}

impl TrainConfig {
    /// The defaults: rank 4 on query and value of all `depth` blocks.
    pub fn new(depth: usize) -> Self {
        TrainConfig {
            method: Method::Lora,
            lora: LoraConfig {
                rank: defaults::RANK,
                alpha: defaults::RANK as f32,
                targets: vec![Target::Q, Target::V],
                blocks: (0..depth).collect(),
                ..LoraConfig::none()
            },
            lora_plus: defaults::LORA_PLUS,
            lora_dropout: defaults::LORA_DROPOUT,
            bottleneck: BottleneckConfig::none(),
            solver: Solver::AdamW,
            epochs: defaults::EPOCHS,
            batch_size: defaults::BATCH_SIZE,
            learning_rate: defaults::LEARNING_RATE,
            min_learning_rate: defaults::MIN_LEARNING_RATE,
            layer_decay: 1.0,
            warmup_epochs: defaults::WARMUP_EPOCHS,
            weight_decay: defaults::WEIGHT_DECAY,
            clip_norm: defaults::CLIP_NORM,
            label_smoothing: defaults::LABEL_SMOOTHING,
            class_weights: ClassWeights::None,
            mask_head: MaskHead::Upsampling,
            patience: defaults::PATIENCE,
            kept: Kept::Best,
            precision: Precision::F32,
            augment: Augment::default(),
            seed: 0,
            folds: None,
            late: None,
            bag: None,
            volume: None,
        }
    }

    /// The settings as a task of this kind is trained by.
    pub fn of_task(self, kind: TaskKind) -> Self {
        let steps = self.bag.is_some() || kind == TaskKind::Segmentation;
        match self.solver {
            // What pools bags, and what makes masks, is no convex problem.
            Solver::Lbfgs if steps => TrainConfig { solver: Solver::AdamW, ..self },
            Solver::Lbfgs => self.of_path(),
            Solver::AdamW => self,
        }
    }

    /// The settings as a head alone is solved by: what does not apply is off, and an epoch is a point of the path of penalties.
    fn of_path(self) -> Self {
        TrainConfig {
            epochs: PATH.len(),
            patience: PATIENCE,
            label_smoothing: 0.0,
            warmup_epochs: 0.0,
            weight_decay: 0.0,
            clip_norm: 0.0,
            augment: Augment::none(),
            ..self
        }
    }

    /// Refuses settings of parts that the method does not train.
    fn check_method(&self) -> Result<(), Error> {
        let method = self.method;
        let (low_rank, bottlenecks) = (method.trains_low_rank(), method.trains_bottlenecks());
        let settings = [
            ("lora", low_rank || self.lora.rank == 0),
            ("lora_plus", low_rank || self.lora_plus == 1.0),
            ("lora_dropout", low_rank || self.lora_dropout == 0.0),
            ("bottleneck", bottlenecks == (self.bottleneck.width > 0)),
            ("layer_decay", method.trains_backbone() || self.layer_decay == 1.0),
            ("solver", method == Method::Linear || self.solver == Solver::AdamW),
        ];
        match settings.into_iter().find(|(_, fits)| !fits) {
            Some((setting, _)) => Err(Error::Setting { setting, reason: format!("does not fit method {method}") }),
            None => Ok(()),
        }
    }

    /// The settings of the plug-in that members of an ensemble share.
    pub(crate) fn of_base(&self) -> Self {
        TrainConfig { folds: None, late: None, ..self.clone() }
    }

    /// The settings of a member on top of it, whose last epoch is kept: the shared plug-in knows most of a fold, which can choose none.
    pub fn of_member(&self, late: &Late) -> Self {
        let first = self.lora.blocks.len().saturating_sub(late.last_k);
        let lora = LoraConfig {
            rank: late.rank,
            alpha: late.rank as f32,
            targets: self.lora.targets.clone(),
            blocks: self.lora.blocks[first..].to_vec(),
            ..LoraConfig::none()
        };
        let Late { epochs, learning_rate, .. } = *late;
        TrainConfig { lora, epochs, learning_rate, kept: Kept::Last, late: None, ..self.clone() }
    }

    /// Refuses ensembles of what is not a plug-in beside a frozen backbone that answers for single images.
    fn check_folds(&self) -> Result<(), Error> {
        if let Some(late) = &self.late {
            let wrong = |reason: String| Err(Error::Setting { setting: "late", reason });
            if self.folds.is_none() || !self.method.trains_low_rank() {
                return wrong("is for low-rank members of an ensemble of folds".to_owned());
            }
            if late.last_k == 0 || late.rank == 0 {
                return wrong(format!("adapts {} blocks with rank {}", late.last_k, late.rank));
            }
            self.of_member(late).check()?;
        }
        let Some(folds) = self.folds else { return Ok(()) };
        let wrong = |reason: String| Err(Error::Setting { setting: "folds", reason: format!("is {folds}, {reason}") });
        match (Ensemble::MEMBERS.contains(&folds), self.method.trains_backbone()) {
            (false, _) => {
                let (least, most) = (Ensemble::MEMBERS.start(), Ensemble::MEMBERS.end());
                wrong(format!("expected {least} to {most}"))
            }
            (_, true) => wrong(format!("but method {} trains the backbone that folds share", self.method)),
            _ if self.bag.is_some() || self.volume.is_some() => {
                wrong("but ensembles of folds answer for single images, not for bags or volumes".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`Error::Setting`], or that of [`Augment::validate`], which names the setting.
    pub fn check(&self) -> Result<(), Error> {
        self.augment.validate()?;
        let wrong = |setting, reason: String| Err(Error::Setting { setting, reason });
        if self.precision == Precision::Int8 && self.method.trains_backbone() {
            let reason = format!("is int8, which is for frozen layers, and method {} trains them", self.method);
            return wrong("precision", reason);
        }
        if let Some(bag) = &self.bag {
            bag.check().or_else(|error| wrong("bag", error.reason))?;
            if self.method.trains_backbone() {
                return wrong("method", format!("is {}, but bags are answered beside a frozen backbone", self.method));
            }
        }
        if self.volume.is_some() && !(self.method.trains_low_rank() || self.method.trains_bottlenecks()) {
            let reason = format!(
                "is {}, but the embedding of volumes is trained with low-rank updates or bottlenecks",
                self.method
            );
            return wrong("method", reason);
        }
        self.check_folds()?;
        if self.epochs == 0 {
            return wrong("epochs", "is 0, expected at least 1".into());
        }
        if self.batch_size == 0 {
            return wrong("batch_size", "is 0, expected at least 1".into());
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return wrong("learning_rate", format!("is {}, expected a positive number", self.learning_rate));
        }
        if !(self.layer_decay > 0.0 && self.layer_decay <= 1.0) {
            return wrong("layer_decay", format!("is {}, expected (0, 1]", self.layer_decay));
        }
        if !(self.lora_plus.is_finite() && self.lora_plus > 0.0) {
            return wrong("lora_plus", format!("is {}, expected a positive number", self.lora_plus));
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return wrong("lora_dropout", format!("is {}, expected [0, 1)", self.lora_dropout));
        }
        self.check_method()?;
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return wrong("label_smoothing", format!("is {}, expected [0, 1)", self.label_smoothing));
        }
        let not_negative = [
            ("min_learning_rate", self.min_learning_rate),
            ("warmup_epochs", self.warmup_epochs),
            ("weight_decay", self.weight_decay),
            ("clip_norm", self.clip_norm),
        ];
        match not_negative.into_iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
            Some((setting, value)) => wrong(setting, format!("is {value}, expected 0 or more")),
            None => Ok(()),
        }
    }
}
