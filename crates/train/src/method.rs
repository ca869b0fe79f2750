//! Training methods: the one place that knows what each of them trains, and from which learning rate.

use crate::config::{TrainConfig, defaults};
use crate::error::Error;
use melo_vit::LoraConfig;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is trained; the head always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Low-rank matrices and a head; a rank of 0 leaves the head alone.
    Lora,
    /// The head alone: a linear probe.
    Linear,
    /// Every parameter of the backbone, and a head.
    Full,
}

impl Method {
    /// True when the backbone's own weights change: the run starts from [`crate::Start::Trained`] and returns a backbone.
    pub fn trains_backbone(self) -> bool {
        self == Method::Full
    }

    /// True when low-rank matrices are trained.
    pub fn trains_low_rank(self) -> bool {
        self == Method::Lora
    }

    /// Highest learning rate where none is asked for.
    pub fn learning_rate(self) -> f64 {
        if self.trains_backbone() { defaults::FULL_LEARNING_RATE } else { defaults::LEARNING_RATE }
    }

    /// Refuses settings of parts that this method does not train.
    pub(crate) fn check(self, config: &TrainConfig) -> Result<(), Error> {
        let wrong = |setting, reason| Err(Error::Setting { setting, reason });
        if config.lora.rank > 0 && !self.trains_low_rank() {
            return wrong("lora", format!("rank is {}, but method {self} has no low-rank matrices", config.lora.rank));
        }
        if config.layer_decay != 1.0 && !self.trains_backbone() {
            let reason = format!("is {}, but method {self} does not train the backbone's layers", config.layer_decay);
            return wrong("layer_decay", reason);
        }
        Ok(())
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Lora => "lora",
            Method::Linear => "linear",
            Method::Full => "full",
        })
    }
}

impl TrainConfig {
    /// The defaults of a method on a backbone of `depth` blocks.
    pub fn for_method(method: Method, depth: usize) -> Self {
        let defaults = TrainConfig::new(depth);
        let lora = if method.trains_low_rank() { defaults.lora } else { LoraConfig::none() };
        TrainConfig { method, lora, learning_rate: method.learning_rate(), ..defaults }
    }
}
