//! A method of a study: what is trained, and with which settings.

use melo_data::Augment;
use melo_train::{ClassWeights, Error as TrainError, Method, MethodSettings, Solver, TrainConfig};
use melo_vit::{Target, VitConfig};
use serde::Deserialize;
use std::collections::BTreeMap;
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
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MethodSection {
    pub(crate) name: String,
    kind: Option<Method>,
    /// Tasks it is tried on; all where it is not given.
    tasks: Option<Vec<String>>,
    learning_rate: Option<f64>,
    epochs: Option<usize>,
    weight_decay: Option<f64>,
    rank: Option<usize>,
    alpha: Option<f32>,
    targets: Option<Vec<Target>>,
    last_k: Option<usize>,
    rslora: Option<bool>,
    /// Block to rank; a TOML key is text.
    rank_pattern: Option<BTreeMap<String, usize>>,
    lora_plus: Option<f64>,
    dropout: Option<f64>,
    bottleneck: Option<usize>,
    layer_decay: Option<f64>,
    folds: Option<usize>,
    solver: Option<Solver>,
}

/// A method with the study's shared settings.
#[derive(Clone, Debug)]
pub struct StudyMethod {
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
        Ok(MethodSection { name: name.to_owned(), kind: Some(kind), ..MethodSection::default() })
    }

    pub(crate) fn settings(&self, train: &TrainSection) -> Result<StudyMethod, String> {
        let wrong = |reason: String| Err(format!("method \"{}\": {reason}", self.name));
        let Some(kind) = self.kind else {
            return wrong("kind is missing: lora, linear, adapter or full".to_owned());
        };
        let no_block = |block: &&String| block.parse::<usize>().is_err();
        if let Some(block) = self.rank_pattern.iter().flat_map(BTreeMap::keys).find(no_block) {
            return wrong(format!("rank_pattern: \"{block}\" is not the number of a block"));
        }
        self.of_method().check(kind).map_err(|error| self.refusal(kind, &error))?;
        Ok(StudyMethod {
            name: self.name.clone(),
            kind,
            tasks: self.tasks.clone(),
            section: self.clone(),
            train: train.clone(),
        })
    }
}

impl MethodSection {
    /// Ranks of single blocks, by number.
    fn ranks(&self) -> Option<BTreeMap<usize, usize>> {
        let pattern = self.rank_pattern.as_ref()?.iter();
        Some(pattern.filter_map(|(block, &rank)| Some((block.parse().ok()?, rank))).collect())
    }

    /// What the table says of its method.
    fn of_method(&self) -> MethodSettings {
        MethodSettings {
            rank: self.rank,
            alpha: self.alpha,
            targets: self.targets.clone(),
            blocks: None,
            last_k: self.last_k,
            rslora: self.rslora,
            rank_pattern: self.ranks(),
            lora_plus: self.lora_plus,
            lora_dropout: self.dropout,
            bottleneck: self.bottleneck,
            layer_decay: self.layer_decay,
            folds: self.folds,
            solver: self.solver,
        }
    }

    /// A refusal in the words of the table's keys.
    fn refusal(&self, kind: Method, error: &TrainError) -> String {
        let reason = match error {
            TrainError::ForeignSetting { setting, .. } => {
                let key = if *setting == "lora_dropout" { "dropout" } else { setting };
                format!("{key} does nothing for kind = \"{kind}\"")
            }
            error => error.to_string(),
        };
        format!("method \"{}\": {reason}", self.name)
    }
}

impl StudyMethod {
    /// Settings of a run on this backbone, with the task's augmentation.
    ///
    /// # Errors
    /// A sentence that names the method and the key that the backbone cannot carry.
    pub(crate) fn config(&self, vit: &VitConfig, augment: Augment, seed: u64) -> Result<TrainConfig, String> {
        let StudyMethod { section, train, kind, .. } = self;
        let refused = |error: TrainError| section.refusal(*kind, &error);
        let defaults = section.of_method().resolve(*kind, vit.depth).map_err(refused)?;
        Ok(TrainConfig {
            epochs: section.epochs.or(train.epochs).unwrap_or(defaults.epochs),
            batch_size: train.batch_size.unwrap_or(defaults.batch_size),
            learning_rate: section.learning_rate.unwrap_or(defaults.learning_rate),
            min_learning_rate: train.min_learning_rate.unwrap_or(defaults.min_learning_rate),
            warmup_epochs: train.warmup_epochs.unwrap_or(defaults.warmup_epochs),
            weight_decay: section.weight_decay.or(train.weight_decay).unwrap_or(defaults.weight_decay),
            clip_norm: train.clip_norm.unwrap_or(defaults.clip_norm),
            label_smoothing: train.label_smoothing.unwrap_or(defaults.label_smoothing),
            class_weights: train.class_weights.unwrap_or(defaults.class_weights),
            patience: train.patience.unwrap_or(defaults.patience),
            augment,
            seed,
            ..defaults
        })
    }

    /// Side of the network input, where the study sets one.
    pub(crate) fn image_size(&self) -> Option<usize> {
        self.train.image_size
    }
}

impl fmt::Display for StudyMethod {
    /// `lora: rank 4, alpha 4, on q v, last 6 blocks, learning rate 0.001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let section = &self.section;
        // What does not depend on the backbone is the same for every depth.
        let settings = MethodSettings { last_k: None, rank_pattern: None, ..section.of_method() };
        let config = settings.resolve(self.kind, 1).unwrap_or_else(|_| TrainConfig::for_method(self.kind, 1));
        write!(f, "{}", self.kind)?;
        if config.method.trains_low_rank() {
            let targets: Vec<String> = config.lora.targets.iter().map(ToString::to_string).collect();
            write!(f, ": rank {}, alpha {}, on {}", config.lora.rank, config.lora.alpha, targets.join(" "))?;
        }
        if config.method.trains_bottlenecks() {
            write!(f, ": width {}", config.bottleneck.width)?;
        }
        if let Some(folds) = section.folds {
            write!(f, ", {folds} folds")?;
        }
        if let Some(k) = section.last_k {
            write!(f, ", last {k} blocks")?;
        }
        for (block, rank) in section.ranks().unwrap_or_default() {
            write!(f, ", {rank} in block {block}")?;
        }
        if section.rslora == Some(true) {
            f.write_str(", rsLoRA")?;
        }
        let ratios = [("LoRA+", section.lora_plus), ("dropout", section.dropout), ("layer decay", section.layer_decay)];
        for (name, value) in ratios.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            write!(f, ", {name} {value}")?;
        }
        match config.solver {
            Solver::AdamW => write!(f, ", learning rate {}", section.learning_rate.unwrap_or(config.learning_rate)),
            Solver::Lbfgs => f.write_str(", L-BFGS to convergence"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{SMALL, plan};

    fn method(table: &str) -> Result<StudyMethod, String> {
        let text = SMALL.replace("\"full\"]", "\"full\", \"x\"]") + "[[method]]\nname = \"x\"\n" + table;
        Ok(plan(&text)?.methods.pop().expect("three methods"))
    }

    #[test]
    fn settings_of_a_table_reach_the_training() {
        let (vit, _) = melo_train::small_vit();
        let augment = || plan(SMALL).unwrap().tasks[0].augment();
        let table = "kind = \"lora\"\nrank = 8\ntargets = [\"v\", \"fc1\", \"q\"]\nlast_k = 2\nrslora = true\n\
                     lora_plus = 4.0\ndropout = 0.1\nlearning_rate = 0.002\nrank_pattern = { 7 = 16 }\n";
        let lora = method(table).unwrap();
        let config = lora.config(&vit, augment(), 5).unwrap();
        assert_eq!(config.lora.targets, [Target::Q, Target::V, Target::Fc1]);
        assert_eq!((config.lora.rank, config.lora.alpha, config.lora.rslora), (8, 8.0, true));
        assert_eq!(config.lora.blocks, [vit.depth - 2, vit.depth - 1]);
        assert_eq!(config.lora.rank_pattern, BTreeMap::from([(7, 16)]));
        assert_eq!((config.lora_plus, config.lora_dropout, config.learning_rate, config.seed), (4.0, 0.1, 0.002, 5));
        config.check().unwrap();
        assert_eq!(
            lora.to_string(),
            "lora: rank 8, alpha 8, on q v fc1, last 2 blocks, 16 in block 7, rsLoRA, LoRA+ 4, dropout 0.1, \
             learning rate 0.002"
        );
        let adapter =
            method("kind = \"adapter\"\nbottleneck = 4\nlast_k = 1\n").unwrap().config(&vit, augment(), 0).unwrap();
        assert_eq!((adapter.bottleneck.width, adapter.bottleneck.blocks), (4, vec![vit.depth - 1]));
        let full = method("kind = \"full\"\nlayer_decay = 0.75\n").unwrap().config(&vit, augment(), 0).unwrap();
        assert_eq!((full.layer_decay, full.lora.rank), (0.75, 0));
    }

    #[test]
    fn settings_that_would_do_nothing_are_refused() {
        let refused = |table: &str, expected: &str| {
            let error = method(table).map(|_| ()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        refused("", "kind is missing");
        refused("kind = \"dora\"\n", "dora");
        refused("kind = \"full\"\nrank = 4\n", "rank does nothing for kind = \"full\"");
        refused("kind = \"linear\"\nlast_k = 4\n", "last_k does nothing");
        refused("kind = \"lora\"\nlayer_decay = 0.5\n", "layer_decay does nothing");
        refused("kind = \"lora\"\nrank_pattern = { first = 4 }\n", "\"first\" is not the number of a block");
    }

    #[test]
    fn more_last_blocks_than_there_are_are_refused_as_in_a_training() {
        let (vit, _) = melo_train::small_vit();
        let augment = || plan(SMALL).unwrap().tasks[0].augment();
        let error = method("kind = \"lora\"\nlast_k = 99\n").unwrap().config(&vit, augment(), 0).unwrap_err();
        assert!(error.contains("method \"x\": last_k") && error.contains("8 blocks"), "{error}");
    }
}
