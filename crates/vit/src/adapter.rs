//! What a plug-in adds to the blocks: low-rank updates `y = W x + b + (alpha / r) · B (A x)` on chosen projections of chosen
//! blocks, and bottlenecks after their MLPs.

use crate::bottleneck::{BottleneckConfig, Bottlenecks};
use crate::config::VitConfig;
use crate::error::Error;
use crate::weights::{Block, Weights};
use melo_kernels::LowRankUpdate;
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

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
            Target::Fc1 => (d, config.fc1_out()),
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

/// Settings of the low-rank updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank `r` where `rank_pattern` names no other; 0 adapts nothing: a linear probe.
    pub rank: usize,
    /// Numerator of the scale, any positive real number.
    pub alpha: f32,
    /// Adapted projections, ascending.
    pub targets: Vec<Target>,
    /// Adapted blocks, ascending.
    pub blocks: Vec<usize>,
    /// Scale by `alpha / √r` instead of `alpha / r` (rank-stabilised LoRA, arXiv 2312.03732; PEFT's `use_rslora`).
    #[serde(default)]
    pub rslora: bool,
    /// Ranks of single blocks, each with its own scale (PEFT's `rank_pattern`).
    #[serde(default)]
    pub rank_pattern: BTreeMap<usize, usize>,
}

impl LoraConfig {
    /// Adapts nothing: a linear probe.
    pub fn none() -> Self {
        LoraConfig {
            rank: 0,
            alpha: 1.0,
            targets: Vec::new(),
            blocks: Vec::new(),
            rslora: false,
            rank_pattern: BTreeMap::new(),
        }
    }

    /// Rank of a block's matrices.
    pub fn rank_of(&self, block: usize) -> usize {
        self.rank_pattern.get(&block).copied().unwrap_or(self.rank)
    }

    /// A block's `alpha / r`, or `alpha / √r` with rank-stabilised LoRA; never rounded.
    pub fn scale_of(&self, block: usize) -> f32 {
        let rank = self.rank_of(block) as f32;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Checks the settings against a backbone.
    ///
    /// # Errors
    /// [`Error::Lora`] that names the setting.
    pub fn check(&self, config: &VitConfig) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Lora(what));
        if self.rank == 0 {
            return match self.rank_pattern.is_empty() {
                true => Ok(()),
                false => wrong(format!("rank_pattern {:?} without a rank", self.rank_pattern)),
            };
        }
        if self.rank > config.width {
            return wrong(format!("rank {} exceeds the backbone's width {}", self.rank, config.width));
        }
        if let Some((block, rank)) = self.rank_pattern.iter().find(|(_, rank)| !(1..=config.width).contains(rank)) {
            return wrong(format!("rank_pattern: rank {rank} of block {block} is not in 1 to {}", config.width));
        }
        if let Some(block) = self.rank_pattern.keys().find(|block| !self.blocks.contains(block)) {
            return wrong(format!("rank_pattern: block {block} is not among the adapted blocks {:?}", self.blocks));
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

/// The updates of a block, by target; `None` where nothing is adapted.
pub type BlockUpdates = [Option<LowRank>; 6];

/// Everything that a plug-in adds to the blocks, or the gradients of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Settings of the low-rank updates.
    pub config: LoraConfig,
    /// For every block of the backbone, its updates. Adapters that hold one and the same of their first blocks have those blocks computed
    /// once, see [`Adapter::shared_with`].
    pub blocks: Vec<Arc<BlockUpdates>>,
    /// Bottlenecks after the MLPs.
    pub bottlenecks: Bottlenecks,
}

impl Adapter {
    /// All zeros, without bottlenecks; `config` must have passed [`LoraConfig::check`].
    pub fn zeros(config: &LoraConfig, vit: &VitConfig) -> Self {
        let adapted = |block: usize, target: Target| {
            let (input, out) = target.features(vit);
            let rank = config.rank_of(block);
            (config.rank > 0 && config.blocks.contains(&block) && config.targets.contains(&target))
                .then(|| LowRank { a: vec![0.0; rank * input], b: vec![0.0; out * rank] })
        };
        let blocks = (0..vit.depth).map(|block| Arc::new(Target::ALL.map(|target| adapted(block, target)))).collect();
        let bottlenecks = Bottlenecks::zeros(&BottleneckConfig::none(), vit);
        Adapter { config: config.clone(), blocks, bottlenecks }
    }

    /// Changes nothing.
    pub fn none(vit: &VitConfig) -> Self {
        Adapter::zeros(&LoraConfig::none(), vit)
    }

    /// All zeros, in the shapes of this one.
    pub fn zeros_like(&self, vit: &VitConfig) -> Self {
        let bottlenecks = Bottlenecks::zeros(&self.bottlenecks.config, vit);
        Adapter { bottlenecks, ..Adapter::zeros(&self.config, vit) }
    }

    /// `A` uniform in ±1/√in (Kaiming-uniform with a = √5, as PEFT and the paper's code), `B` zero;
    /// without bottlenecks.
    pub fn init(config: &LoraConfig, vit: &VitConfig, seed: u64) -> Self {
        let mut adapter = Adapter::zeros(config, vit);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for block in &mut adapter.blocks {
            for (target, pair) in
                Target::ALL.iter().zip(Arc::make_mut(block)).filter_map(|(t, p)| Some((t, p.as_mut()?)))
            {
                let bound = 1.0 / (target.features(vit).0 as f32).sqrt();
                pair.a.iter_mut().for_each(|a| *a = rng.random_range(-bound..bound));
            }
        }
        adapter
    }

    /// The update of one projection, none where it is not adapted.
    pub(crate) fn update(&self, block: usize, target: Target) -> Option<LowRankUpdate<'_>> {
        let pair = self.blocks[block][target as usize].as_ref()?;
        let (rank, scale) = (self.config.rank_of(block), self.config.scale_of(block));
        Some(LowRankUpdate { a: &pair.a, b: &pair.b, rank, scale })
    }

    /// The first block that is adapted in any way; none for a linear probe.
    pub fn first_block(&self) -> Option<usize> {
        let low_rank = self.blocks.iter().position(|block| block.iter().any(Option::is_some));
        low_rank.into_iter().chain(self.bottlenecks.first_block()).min()
    }

    /// Name and shape of every tensor, in the order of [`Adapter::tensors`].
    pub fn tensor_shapes(&self, vit: &VitConfig) -> Vec<(String, Vec<usize>)> {
        let mut shapes = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let rank = self.config.rank_of(index);
            for target in Target::ALL.into_iter().filter(|&target| block[target as usize].is_some()) {
                let (input, out) = target.features(vit);
                shapes.push((format!("blocks.{index}.{target}.lora_a"), vec![rank, input]));
                shapes.push((format!("blocks.{index}.{target}.lora_b"), vec![out, rank]));
            }
        }
        shapes.extend(self.bottlenecks.tensor_shapes(vit));
        shapes
    }

    /// Every tensor: by block, by target, `A` then `B`; then those of the bottlenecks.
    pub fn tensors(&self) -> Vec<&Vec<f32>> {
        self.tensors_from(0)
    }

    /// As [`Adapter::tensors`], to write to: blocks that were shared no longer are.
    pub fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        self.tensors_from_mut(0)
    }

    /// As [`Adapter::tensors`], without the updates of the blocks before `block`.
    pub(crate) fn tensors_from(&self, block: usize) -> Vec<&Vec<f32>> {
        let pairs = self.blocks.iter().skip(block).flat_map(|updates| updates.iter().flatten());
        pairs.flat_map(|pair| [&pair.a, &pair.b]).chain(self.bottlenecks.tensors()).collect()
    }

    /// As [`Adapter::tensors_from`], to write to.
    pub(crate) fn tensors_from_mut(&mut self, block: usize) -> Vec<&mut Vec<f32>> {
        let updates = self.blocks.iter_mut().skip(block).flat_map(Arc::make_mut);
        let low_rank = updates.flatten().flat_map(|pair| [&mut pair.a, &mut pair.b]);
        low_rank.chain(self.bottlenecks.tensors_mut()).collect()
    }

    /// How many of the first blocks have one and the same updates in both, at one scale: not equal ones, the same.
    pub fn shared_with(&self, other: &Adapter) -> usize {
        let bare = [self, other].map(|adapter| adapter.bottlenecks.first_block().unwrap_or(usize::MAX));
        let scale = |adapter: &Adapter, block| adapter.config.scale_of(block);
        let same = self.blocks.iter().zip(&other.blocks).enumerate().take_while(|(block, (own, others))| {
            Arc::ptr_eq(own, others) && scale(self, *block) == scale(other, *block)
        });
        same.count().min(bare[0]).min(bare[1])
    }

    /// Takes the updates of the blocks before `block` from another adapter, to share them with it.
    ///
    /// # Panics
    /// If either has fewer blocks.
    pub fn share(&mut self, other: &Adapter, block: usize) {
        self.blocks[..block].clone_from_slice(&other.blocks[..block]);
    }

    /// This one and another, which adapts some of the same projections of the same blocks, as one: `A` of both below one another and `B`
    /// beside one another. Blocks that the other leaves alone are shared with this one.
    ///
    /// # Panics
    /// If the other adapts what this one does not, or there are bottlenecks.
    pub fn beside(&self, other: &Adapter, vit: &VitConfig) -> Adapter {
        let none = self.bottlenecks.first_block().or(other.bottlenecks.first_block()).is_none();
        assert!(none && self.config.targets == other.config.targets, "updates of the same projections");
        let mut config = self.config.clone();
        let ranks = |block: usize| [self.config.rank_of(block), other.config.rank_of(block)];
        for &block in &other.config.blocks {
            assert!(config.blocks.contains(&block), "updates of the same blocks");
            config.rank_pattern.insert(block, ranks(block).iter().sum());
        }
        let mut both = Adapter { config, blocks: self.blocks.clone(), bottlenecks: self.bottlenecks.clone() };
        for &block in &other.config.blocks {
            let scales = [self, other].map(|part| part.config.scale_of(block) / both.config.scale_of(block));
            let [rank, further] = ranks(block);
            let updates = Target::ALL.map(|target| {
                let [own, others] = [self, other].map(|part| part.blocks[block][target as usize].as_ref());
                let (own, others) = own.zip(others)?;
                let (_, out) = target.features(vit);
                let rows = own.b.chunks_exact(rank).zip(others.b.chunks_exact(further)).take(out);
                let scaled = |row: &[f32], scale: f32| row.iter().map(|b| b * scale).collect::<Vec<f32>>();
                let b = rows.flat_map(|(own, others)| [scaled(own, scales[0]), scaled(others, scales[1])].concat());
                Some(LowRank { a: [&own.a[..], &others.a].concat(), b: b.collect() })
            });
            both.blocks[block] = Arc::new(updates);
        }
        both
    }

    /// Adds the updates to weights, `W + scale · B A`, in f64 with one rounding; bottlenecks, which no weight can hold, are left out.
    pub fn merge_into(&self, weights: &mut Weights, vit: &VitConfig) {
        for (index, updates) in self.blocks.iter().enumerate() {
            let (rank, scale) = (self.config.rank_of(index), f64::from(self.config.scale_of(index)));
            for (target, pair) in Target::ALL.into_iter().zip(updates.iter()) {
                let Some(pair) = pair else { continue };
                let (rows, first) = rows_of(&mut weights.blocks[index], target, vit);
                let (input, _) = target.features(vit);
                let mut sum = vec![0.0f64; input];
                for (weights, b) in rows.chunks_exact_mut(input).skip(first).zip(pair.b.chunks_exact(rank)) {
                    sum.fill(0.0);
                    for (&b, a) in b.iter().zip(pair.a.chunks_exact(input)) {
                        sum.iter_mut().zip(a).for_each(|(sum, &a)| *sum += f64::from(b) * f64::from(a));
                    }
                    weights.iter_mut().zip(&sum).for_each(|(w, sum)| *w = (f64::from(*w) + scale * sum) as f32);
                }
            }
        }
    }
}
/// The weight that holds a target, and the first of the target's rows in it.
fn rows_of<'a>(block: &'a mut Block, target: Target, vit: &VitConfig) -> (&'a mut Vec<f32>, usize) {
    match target {
        Target::Q => (&mut block.qkv.weight, 0),
        Target::K => (&mut block.qkv.weight, vit.width),
        Target::V => (&mut block.qkv.weight, 2 * vit.width),
        Target::O => (&mut block.proj.weight, 0),
        Target::Fc1 => (&mut block.fc1.weight, 0),
        Target::Fc2 => (&mut block.fc2.weight, 0),
    }
}
