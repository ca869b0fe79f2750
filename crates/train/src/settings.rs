//! What may be said of a method, and the one place that makes settings of it.

use crate::config::{Late, Solver, TrainConfig, defaults};
use crate::error::Error;
use crate::method::Method;
use melo_vit::{BottleneckConfig, LoraConfig, Target};
use std::collections::BTreeMap;

/// What may be said of a method, wherever it is said: flags, a study's tables, a program. Whatever is not given is the
/// method's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MethodSettings {
    /// Rank of the low-rank matrices; 0 asks for none: a linear probe.
    pub rank: Option<usize>,
    /// Numerator of the scale; the rank where it is not given.
    pub alpha: Option<f32>,
    /// Adapted projections, in any order.
    pub targets: Option<Vec<Target>>,
    /// Adapted blocks, in any order; all where neither this nor `last_k` is given, of bottlenecks of an ensemble of folds the last two.
    pub blocks: Option<Vec<usize>>,
    /// The last blocks alone, so many.
    pub last_k: Option<usize>,
    /// See [`LoraConfig::rslora`].
    pub rslora: Option<bool>,
    /// See [`LoraConfig::rank_pattern`].
    pub rank_pattern: Option<BTreeMap<usize, usize>>,
    /// See [`TrainConfig::lora_plus`].
    pub lora_plus: Option<f64>,
    /// See [`TrainConfig::lora_dropout`].
    pub lora_dropout: Option<f64>,
    /// Width of the bottlenecks.
    pub bottleneck: Option<usize>,
    /// See [`TrainConfig::layer_decay`].
    pub layer_decay: Option<f64>,
    /// See [`TrainConfig::folds`].
    pub folds: Option<usize>,
    /// How a head alone is found; L-BFGS where it is not given.
    pub solver: Option<Solver>,
}

impl MethodSettings {
    /// The method that is meant: low-rank matrices of rank 0 are a linear probe.
    pub fn method(&self, asked: Method) -> Method {
        if asked == Method::Lora && self.rank == Some(0) { Method::Linear } else { asked }
    }

    /// Refuses what would silently do nothing; a rank of 0 asks for no matrices with every method.
    ///
    /// # Errors
    /// [`Error::ForeignSetting`].
    pub fn check(&self, asked: Method) -> Result<(), Error> {
        let method = self.method(asked);
        let (asks_lora, low_rank) = (asked == Method::Lora, method.trains_low_rank());
        let (bottlenecks, all) = (method.trains_bottlenecks(), method.trains_backbone());
        let settings = [
            ("rank", "lora", asks_lora || self.rank.is_none_or(|rank| rank == 0)),
            ("alpha", "lora", asks_lora || self.alpha.is_none()),
            ("targets", "lora", asks_lora || self.targets.is_none()),
            ("blocks", "lora or adapter", asks_lora || bottlenecks || self.blocks.is_none()),
            ("last_k", "lora or adapter", low_rank || bottlenecks || self.last_k.is_none()),
            ("rank_pattern", "lora", low_rank || self.rank_pattern.is_none()),
            ("rslora", "lora", low_rank || self.rslora.is_none()),
            ("lora_plus", "lora", low_rank || self.lora_plus.is_none()),
            ("lora_dropout", "lora", low_rank || self.lora_dropout.is_none()),
            ("bottleneck", "adapter", bottlenecks || self.bottleneck.is_none()),
            ("layer_decay", "full", all || self.layer_decay.is_none()),
            ("folds", "lora, linear or adapter", !all || self.folds.is_none()),
            ("solver", "linear", method == Method::Linear || self.solver.is_none()),
        ];
        match settings.into_iter().find(|(_, _, fits)| !fits) {
            Some((setting, owner, _)) => Err(Error::ForeignSetting { setting, owner, method }),
            None => Ok(()),
        }
    }

    /// Settings of a run on a backbone of `depth` blocks; what is no matter of the method is the default.
    ///
    /// # Errors
    /// [`Error::ForeignSetting`]; [`Error::Setting`] for `last_k` beyond the backbone.
    pub fn resolve(&self, asked: Method, depth: usize) -> Result<TrainConfig, Error> {
        self.check(asked)?;
        let method = self.method(asked);
        let mut config = TrainConfig::for_method(method, depth);
        let blocks = self.adapted_blocks(depth, method)?;
        if method.trains_low_rank() {
            config.late = self.says_folds_alone().then(Late::default);
            let rank = self.rank.unwrap_or(config.lora.rank);
            config.lora = LoraConfig {
                rank,
                alpha: self.alpha.unwrap_or(rank as f32),
                targets: self.targets.clone().map_or(config.lora.targets, sorted),
                blocks,
                rslora: self.rslora.unwrap_or(false),
                rank_pattern: self.rank_pattern.clone().unwrap_or_default(),
            };
            config.lora_plus = self.lora_plus.unwrap_or(config.lora_plus);
            config.lora_dropout = self.lora_dropout.unwrap_or(config.lora_dropout);
        } else if method.trains_bottlenecks() {
            config.bottleneck = BottleneckConfig { width: self.bottleneck.unwrap_or(config.bottleneck.width), blocks };
        }
        config.layer_decay = self.layer_decay.unwrap_or(config.layer_decay);
        config.folds = self.folds;
        config.solver = self.solver.unwrap_or(config.solver);
        Ok(config)
    }

    /// True of an ensemble of folds whose blocks are not given: its members differ in the last blocks alone.
    fn says_folds_alone(&self) -> bool {
        self.folds.is_some() && self.blocks.is_none() && self.last_k.is_none()
    }

    fn adapted_blocks(&self, depth: usize, method: Method) -> Result<Vec<usize>, Error> {
        let late = self.says_folds_alone() && method.trains_bottlenecks();
        match (self.last_k, &self.blocks) {
            (Some(k), _) if (1..=depth).contains(&k) => Ok((depth - k..depth).collect()),
            (Some(k), _) => {
                let reason = format!("is {k}, but the backbone has {depth} blocks");
                Err(Error::Setting { setting: "last_k", reason })
            }
            (None, Some(blocks)) => Ok(sorted(blocks.clone())),
            (None, None) if late => Ok((depth.saturating_sub(defaults::FOLDS_LAST_K)..depth).collect()),
            (None, None) => Ok((0..depth).collect()),
        }
    }
}

/// Ascending, each once.
fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort_unstable();
    values.dedup();
    values
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
        let solver = if method == Method::Linear { Solver::Lbfgs } else { Solver::AdamW };
        let layer_decay = if method.trains_backbone() { defaults::FULL_LAYER_DECAY } else { usual.layer_decay };
        TrainConfig { method, lora, bottleneck, solver, layer_decay, learning_rate: method.learning_rate(), ..usual }
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
        let late = |last_k, rank| Some(Late { last_k, rank, ..Late::default() });
        for (folds, late) in [(None, late(2, 4)), (Some(3), late(0, 4)), (Some(3), late(2, 0))] {
            assert_eq!(refused(&TrainConfig { folds, late, ..lora.clone() }), "late");
        }
    }

    #[test]
    fn one_resolver_for_flags_and_tables() {
        let settings = MethodSettings {
            rank: Some(8),
            targets: Some(vec![Target::V, Target::Fc1, Target::V, Target::Q]),
            last_k: Some(2),
            rank_pattern: Some(BTreeMap::from([(4, 16)])),
            ..MethodSettings::default()
        };
        let config = settings.resolve(Method::Lora, 5).unwrap();
        assert_eq!((config.lora.rank, config.lora.alpha), (8, 8.0));
        assert_eq!(config.lora.targets, [Target::Q, Target::V, Target::Fc1]);
        assert_eq!(config.lora.blocks, [3, 4]);
        config.check().unwrap();
        let blocks = MethodSettings { blocks: Some(vec![3, 0, 3]), ..MethodSettings::default() };
        assert_eq!(blocks.resolve(Method::Adapter, 5).unwrap().bottleneck.blocks, [0, 3]);
        for method in METHODS {
            let config = MethodSettings::default().resolve(method, 5).unwrap();
            assert_eq!(config, TrainConfig::for_method(method, 5));
        }
    }

    #[test]
    fn folds_of_which_no_blocks_are_given_begin_with_one_plug_in() {
        let folds = MethodSettings { folds: Some(5), rank: Some(2), ..MethodSettings::default() };
        let config = folds.resolve(Method::Lora, 5).unwrap();
        config.check().unwrap();
        let late = config.late.clone().expect("members are trained on top of one");
        assert_eq!((config.lora.rank, config.lora.blocks.len()), (2, 5));
        let (base, member) = (config.of_base(), config.of_member(&late));
        assert_eq!((base.folds, base.late, base.lora), (None, None, config.lora));
        assert_eq!((member.lora.rank, member.lora.blocks, member.epochs), (late.rank, vec![3, 4], late.epochs));
        let last = MethodSettings { last_k: Some(2), ..folds };
        assert_eq!(last.resolve(Method::Lora, 5).unwrap().late, None);
        let folds = MethodSettings { folds: Some(5), ..MethodSettings::default() };
        for method in [Method::Adapter, Method::Linear] {
            assert_eq!(folds.resolve(method, 5).unwrap().late, None, "{method}");
        }
        assert_eq!(folds.resolve(Method::Adapter, 5).unwrap().bottleneck.blocks, [3, 4]);
    }

    #[test]
    fn a_rank_of_zero_is_a_linear_probe() {
        let none = MethodSettings { rank: Some(0), alpha: Some(1.0), ..MethodSettings::default() };
        assert_eq!(none.resolve(Method::Lora, 5).unwrap().method, Method::Linear);
        let none = MethodSettings { rank: Some(0), ..MethodSettings::default() };
        for method in METHODS {
            none.check(method).unwrap();
        }
    }

    #[test]
    fn more_last_blocks_than_there_are_are_refused() {
        for k in [0, 6] {
            let settings = MethodSettings { last_k: Some(k), ..MethodSettings::default() };
            for method in [Method::Lora, Method::Adapter] {
                match settings.resolve(method, 5) {
                    Err(Error::Setting { setting: "last_k", .. }) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn what_would_do_nothing_is_refused() {
        let foreign = |settings: &MethodSettings, method: Method| match settings.resolve(method, 5) {
            Err(Error::ForeignSetting { setting, .. }) => setting,
            other => panic!("{settings:?} with {method} gives {other:?}"),
        };
        let none = MethodSettings::default;
        assert_eq!(foreign(&MethodSettings { rank: Some(4), ..none() }, Method::Linear), "rank");
        assert_eq!(foreign(&MethodSettings { targets: Some(vec![Target::Q]), ..none() }, Method::Adapter), "targets");
        assert_eq!(foreign(&MethodSettings { blocks: Some(vec![1]), ..none() }, Method::Full), "blocks");
        assert_eq!(foreign(&MethodSettings { last_k: Some(1), ..none() }, Method::Linear), "last_k");
        assert_eq!(foreign(&MethodSettings { bottleneck: Some(8), ..none() }, Method::Lora), "bottleneck");
        assert_eq!(foreign(&MethodSettings { layer_decay: Some(0.5), ..none() }, Method::Lora), "layer_decay");
        let probe = MethodSettings { rank: Some(0), lora_dropout: Some(0.1), ..none() };
        assert_eq!(foreign(&probe, Method::Lora), "lora_dropout");
    }
}
