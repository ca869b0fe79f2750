//! Low-rank adapters: `y = W x + b + (alpha / r) · B (A x)` on chosen projections of chosen blocks.

use crate::config::VitConfig;
use crate::error::Error;
use melo_kernels::LowRankUpdate;
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A projection that an adapter can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Query part of `attn.qkv`.
    Q,
    /// Key part of `attn.qkv`.
    K,
    /// Value part of `attn.qkv`.
    V,
    /// Output projection `attn.proj`.
    O,
    /// First MLP layer `mlp.fc1`.
    Fc1,
    /// Second MLP layer `mlp.fc2`.
    Fc2,
}

impl Target {
    /// Every target, in file order.
    pub const ALL: [Target; 6] = [Target::Q, Target::K, Target::V, Target::O, Target::Fc1, Target::Fc2];

    /// `(in, out)` features.
    pub fn features(self, config: &VitConfig) -> (usize, usize) {
        let (d, hidden) = (config.width, config.mlp_hidden);
        match self {
            Target::Q | Target::K | Target::V | Target::O => (d, d),
            Target::Fc1 => (d, hidden),
            Target::Fc2 => (hidden, d),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Q => "q",
            Target::K => "k",
            Target::V => "v",
            Target::O => "o",
            Target::Fc1 => "fc1",
            Target::Fc2 => "fc2",
        })
    }
}

/// Settings of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank `r`; 0 adapts nothing: a linear probe.
    pub rank: usize,
    /// Numerator of the scale `alpha / r`, any positive real number.
    pub alpha: f32,
    /// Adapted projections, ascending.
    pub targets: Vec<Target>,
    /// Adapted blocks, ascending.
    pub blocks: Vec<usize>,
}

impl LoraConfig {
    /// Adapts nothing: a linear probe.
    pub fn none() -> Self {
        LoraConfig { rank: 0, alpha: 1.0, targets: Vec::new(), blocks: Vec::new() }
    }

    /// `alpha / r`, never rounded.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// Checks the settings against a backbone.
    ///
    /// # Errors
    /// [`Error::Lora`] that names the setting.
    pub fn check(&self, config: &VitConfig) -> Result<(), Error> {
        if self.rank == 0 {
            return Ok(());
        }
        let wrong = |what: String| Err(Error::Lora(what));
        if self.rank > config.width {
            return wrong(format!("rank {} exceeds the backbone's width {}", self.rank, config.width));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return wrong(format!("alpha is {}, expected a positive number", self.alpha));
        }
        if self.targets.is_empty() || self.blocks.is_empty() {
            return wrong("no target or no block to adapt; use rank 0 for a linear probe".into());
        }
        if !self.targets.is_sorted_by(|a, b| a < b) || !self.blocks.is_sorted_by(|a, b| a < b) {
            return wrong(format!("targets {:?} or blocks {:?} repeat or are out of order", self.targets, self.blocks));
        }
        match self.blocks.iter().find(|&&block| block >= config.depth) {
            Some(block) => wrong(format!("block {block} does not exist: the backbone has {} blocks", config.depth)),
            None => Ok(()),
        }
    }
}

/// The two matrices of one adapted projection.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// `A [r, in]`.
    pub a: Vec<f32>,
    /// `B [out, r]`.
    pub b: Vec<f32>,
}

/// The low-rank matrices of a plug-in, or the gradients of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Settings.
    pub config: LoraConfig,
    /// For every block of the backbone, its matrices by target; `None` where nothing is adapted.
    pub blocks: Vec<[Option<LowRank>; 6]>,
}

impl Adapter {
    /// All zeros; `config` must have passed [`LoraConfig::check`].
    pub fn zeros(config: &LoraConfig, vit: &VitConfig) -> Self {
        let adapted = |block: usize, target: Target| {
            let (input, out) = target.features(vit);
            (config.rank > 0 && config.blocks.contains(&block) && config.targets.contains(&target))
                .then(|| LowRank { a: vec![0.0; config.rank * input], b: vec![0.0; out * config.rank] })
        };
        let blocks = (0..vit.depth).map(|block| Target::ALL.map(|target| adapted(block, target))).collect();
        Adapter { config: config.clone(), blocks }
    }

    /// `A` uniform in ±1/√in (Kaiming-uniform with a = √5, as PEFT and the paper's code), `B` zero.
    pub fn init(config: &LoraConfig, vit: &VitConfig, seed: u64) -> Self {
        let mut adapter = Adapter::zeros(config, vit);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for block in &mut adapter.blocks {
            for (target, pair) in Target::ALL.iter().zip(block).filter_map(|(t, p)| Some((t, p.as_mut()?))) {
                let bound = 1.0 / (target.features(vit).0 as f32).sqrt();
                pair.a.iter_mut().for_each(|a| *a = rng.random_range(-bound..bound));
            }
        }
        adapter
    }

    /// The update of one projection, none where it is not adapted.
    pub fn update(&self, block: usize, target: Target) -> Option<LowRankUpdate<'_>> {
        let pair = self.blocks[block][target as usize].as_ref()?;
        Some(LowRankUpdate { a: &pair.a, b: &pair.b, rank: self.config.rank, scale: self.config.scale() })
    }

    /// The first adapted block; none for a linear probe.
    pub fn first_block(&self) -> Option<usize> {
        self.blocks.iter().position(|block| block.iter().any(Option::is_some))
    }

    /// Name and shape of every matrix, in the order of [`Adapter::tensors`].
    pub fn tensor_shapes(&self, vit: &VitConfig) -> Vec<(String, Vec<usize>)> {
        let rank = self.config.rank;
        let mut shapes = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            for target in Target::ALL.into_iter().filter(|&target| block[target as usize].is_some()) {
                let (input, out) = target.features(vit);
                shapes.push((format!("blocks.{index}.{target}.lora_a"), vec![rank, input]));
                shapes.push((format!("blocks.{index}.{target}.lora_b"), vec![out, rank]));
            }
        }
        shapes
    }

    /// Every matrix: by block, by target, `A` then `B`.
    pub fn tensors(&self) -> Vec<&Vec<f32>> {
        self.blocks.iter().flatten().flatten().flat_map(|pair| [&pair.a, &pair.b]).collect()
    }

    /// As [`Adapter::tensors`], to write to.
    pub fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        self.blocks.iter_mut().flatten().flatten().flat_map(|pair| [&mut pair.a, &mut pair.b]).collect()
    }
}
