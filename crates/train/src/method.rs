//! Training methods: the one place that knows what each of them trains, and from which learning rate.

use crate::config::{TrainConfig, defaults};
use crate::error::Error;
use melo_vit::{BottleneckConfig, LoraConfig};
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
    /// Bottlenecks after the blocks' MLPs, and a head.
    Adapter,
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

    /// True when bottlenecks are trained.
    pub fn trains_bottlenecks(self) -> bool {
        self == Method::Adapter
    }

    /// Highest learning rate where none is asked for.
    pub fn learning_rate(self) -> f64 {
        if self.trains_backbone() { defaults::FULL_LEARNING_RATE } else { defaults::LEARNING_RATE }
    }

    /// Refuses settings of parts that this method does not train.
    pub(crate) fn check(self, config: &TrainConfig) -> Result<(), Error> {
        let (low_rank, bottlenecks) = (self.trains_low_rank(), self.trains_bottlenecks());
        let settings = [
            ("lora", low_rank || config.lora.rank == 0),
            ("lora_plus", low_rank || config.lora_plus == 1.0),
            ("lora_dropout", low_rank || config.lora_dropout == 0.0),
            ("bottleneck", bottlenecks == (config.bottleneck.width > 0)),
            ("layer_decay", self.trains_backbone() || config.layer_decay == 1.0),
        ];
        match settings.into_iter().find(|(_, fits)| !fits) {
            Some((setting, _)) => Err(Error::Setting { setting, reason: format!("does not fit method {self}") }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Lora => "lora",
            Method::Linear => "linear",
            Method::Adapter => "adapter",
            Method::Full => "full",
        })
    }
}

impl TrainConfig {
    /// The defaults of a method on a backbone of `depth` blocks.
    pub fn for_method(method: Method, depth: usize) -> Self {
        let usual = TrainConfig::new(depth);
        let lora = if method.trains_low_rank() { usual.lora } else { LoraConfig::none() };
        let bottleneck = match method.trains_bottlenecks() {
            true => BottleneckConfig { width: defaults::BOTTLENECK, blocks: (0..depth).collect() },
            false => BottleneckConfig::none(),
        };
        TrainConfig { method, lora, bottleneck, learning_rate: method.learning_rate(), ..usual }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHODS: [Method; 4] = [Method::Lora, Method::Linear, Method::Adapter, Method::Full];

    fn refused(config: &TrainConfig) -> &'static str {
        match config.check() {
            Err(Error::Setting { setting, .. }) => setting,
            other => panic!("{config:?} gives {other:?}"),
        }
    }

    #[test]
    fn the_defaults_of_every_method_pass_and_train_what_it_says() {
        for method in METHODS {
            let config = TrainConfig::for_method(method, 3);
            config.check().unwrap();
            assert_eq!(config.method, method);
            assert_eq!(config.lora.rank > 0, method == Method::Lora);
            assert_eq!(config.bottleneck.width > 0, method == Method::Adapter);
            let rate = if method == Method::Full { 1e-4 } else { 1e-3 };
            assert_eq!(config.learning_rate, rate, "{method}");
        }
    }

    #[test]
    fn settings_of_another_method_are_named() {
        for method in METHODS {
            let config = || TrainConfig::for_method(method, 3);
            let (lora, adapter) =
                (TrainConfig::for_method(Method::Lora, 3), TrainConfig::for_method(Method::Adapter, 3));
            if method != Method::Lora {
                assert_eq!(refused(&TrainConfig { lora: lora.lora, ..config() }), "lora", "{method}");
                assert_eq!(refused(&TrainConfig { lora_plus: 16.0, ..config() }), "lora_plus", "{method}");
                assert_eq!(refused(&TrainConfig { lora_dropout: 0.1, ..config() }), "lora_dropout", "{method}");
            }
            if method != Method::Adapter {
                assert_eq!(refused(&TrainConfig { bottleneck: adapter.bottleneck, ..config() }), "bottleneck");
            }
            if method != Method::Full {
                assert_eq!(refused(&TrainConfig { layer_decay: 0.75, ..config() }), "layer_decay", "{method}");
            }
        }
        let none = BottleneckConfig::none();
        let adapter = TrainConfig::for_method(Method::Adapter, 3);
        assert_eq!(refused(&TrainConfig { bottleneck: none, ..adapter }), "bottleneck");
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let (lora, full) = (TrainConfig::for_method(Method::Lora, 3), TrainConfig::for_method(Method::Full, 3));
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(refused(&TrainConfig { lora_plus: value, ..lora.clone() }), "lora_plus");
            assert_eq!(refused(&TrainConfig { layer_decay: value, ..full.clone() }), "layer_decay");
        }
        for value in [1.0, -0.1, f64::NAN] {
            assert_eq!(refused(&TrainConfig { lora_dropout: value, ..lora.clone() }), "lora_dropout");
        }
        assert_eq!(refused(&TrainConfig { layer_decay: 1.1, ..full }), "layer_decay");
    }
}
