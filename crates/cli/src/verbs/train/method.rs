//! The flags of `melo train` that say what is trained, and how.

use super::usage;
use crate::Failure;
use clap::ValueEnum;
use melo::train::{Method, TrainConfig, defaults};
use melo::vit::{BottleneckConfig, LoraConfig, Target};
use std::collections::BTreeMap;

#[derive(clap::Args)]
#[command(next_help_heading = "Method")]
pub(super) struct MethodArgs {
    /// What is trained besides the head
    #[arg(long, value_enum, default_value_t = MethodArg::Lora)]
    method: MethodArg,
    /// lora, adapter: adapted blocks, from 0 [default: all]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    blocks: Vec<usize>,
    /// lora, adapter: adapt the last K blocks
    #[arg(long, value_name = "K", conflicts_with = "blocks")]
    last_k: Option<usize>,
    /// lora: rank of the matrices; 0 is --method linear [default: 4]
    #[arg(long)]
    rank: Option<usize>,
    /// lora: ranks of single blocks, such as 8:16,9:16
    #[arg(long, value_delimiter = ',', value_name = "BLOCK:RANK", value_parser = block_and_rank)]
    rank_pattern: Vec<(usize, usize)>,
    /// lora: the update is scaled by alpha / rank [default: the rank]
    #[arg(long)]
    alpha: Option<f32>,
    /// lora: scale by alpha / √rank (rsLoRA)
    #[arg(long)]
    rslora: bool,
    /// lora: adapted projections [default: q,v]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    targets: Vec<TargetArg>,
    /// lora: learning rate of B over that of A (LoRA+); 1 is off [default: 1]
    #[arg(long, value_name = "RATIO")]
    lora_plus: Option<f64>,
    /// lora: share of the updates' inputs that training drops; 0 is off [default: 0]
    #[arg(long, value_name = "SHARE")]
    lora_dropout: Option<f64>,
    /// adapter: width of the bottlenecks [default: 8]
    #[arg(long, value_name = "WIDTH")]
    bottleneck: Option<usize>,
    /// full: each block learns at this share of the rate of the one above it; 1 is off [default: 1]
    #[arg(long, value_name = "SHARE")]
    layer_decay: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodArg {
    /// Low-rank matrices beside the frozen backbone
    Lora,
    /// Nothing else: a linear probe
    Linear,
    /// Bottlenecks after the MLPs of the frozen backbone
    Adapter,
    /// Every weight of the backbone, which is then written too
    Full,
}

#[derive(Clone, Copy, ValueEnum)]
enum TargetArg {
    Q,
    K,
    V,
    O,
    Fc1,
    Fc2,
}

fn block_and_rank(text: &str) -> Result<(usize, usize), String> {
    let pair = text.split_once(':').and_then(|(block, rank)| Some((block.parse().ok()?, rank.parse().ok()?)));
    pair.ok_or_else(|| "expected BLOCK:RANK, such as 8:16".to_owned())
}

impl MethodArgs {
    /// Low-rank matrices of rank 0 are a linear probe.
    pub(super) fn chosen(&self) -> Method {
        match self.method {
            MethodArg::Lora if self.rank == Some(0) => Method::Linear,
            MethodArg::Lora => Method::Lora,
            MethodArg::Linear => Method::Linear,
            MethodArg::Adapter => Method::Adapter,
            MethodArg::Full => Method::Full,
        }
    }

    /// The method's settings on a backbone of `depth` blocks; all others are the defaults.
    pub(super) fn config(&self, depth: usize) -> Result<TrainConfig, Failure> {
        let method = self.chosen();
        self.refuse_foreign_flags(method)?;
        let mut config = TrainConfig::for_method(method, depth);
        let blocks = self.adapted_blocks(depth)?;
        if method.trains_low_rank() {
            config.lora = self.lora(blocks)?;
            config.lora_plus = self.lora_plus.unwrap_or(config.lora_plus);
            config.lora_dropout = self.lora_dropout.unwrap_or(config.lora_dropout);
        } else if method.trains_bottlenecks() {
            config.bottleneck = BottleneckConfig { width: self.bottleneck.unwrap_or(defaults::BOTTLENECK), blocks };
        }
        config.layer_decay = self.layer_decay.unwrap_or(config.layer_decay);
        Ok(config)
    }

    /// Refuses flags of another method, which would silently do nothing; `--rank 0` asks for no matrices everywhere.
    fn refuse_foreign_flags(&self, method: Method) -> Result<(), Failure> {
        let (lora, adapter) = (self.method == MethodArg::Lora, method.trains_bottlenecks());
        let low_rank = method.trains_low_rank();
        let flags = [
            ("--rank", "lora", lora || self.rank.is_none_or(|rank| rank == 0)),
            ("--alpha", "lora", lora || self.alpha.is_none()),
            ("--targets", "lora", lora || self.targets.is_empty()),
            ("--blocks", "lora or adapter", lora || adapter || self.blocks.is_empty()),
            ("--last-k", "lora or adapter", low_rank || adapter || self.last_k.is_none()),
            ("--rank-pattern", "lora", low_rank || self.rank_pattern.is_empty()),
            ("--rslora", "lora", low_rank || !self.rslora),
            ("--lora-plus", "lora", low_rank || self.lora_plus.is_none()),
            ("--lora-dropout", "lora", low_rank || self.lora_dropout.is_none()),
            ("--bottleneck", "adapter", adapter || self.bottleneck.is_none()),
            ("--layer-decay", "full", method.trains_backbone() || self.layer_decay.is_none()),
        ];
        match flags.into_iter().find(|(_, _, fits)| !fits) {
            Some((flag, owner, _)) => Err(usage(format!("{flag} is for --method {owner}, not for {method}"))),
            None => Ok(()),
        }
    }

    fn adapted_blocks(&self, depth: usize) -> Result<Vec<usize>, Failure> {
        let mut blocks = match (self.last_k, self.blocks.as_slice()) {
            (Some(k), _) if (1..=depth).contains(&k) => (depth - k..depth).collect(),
            (Some(k), _) => return Err(usage(format!("--last-k {k}: the backbone has {depth} blocks"))),
            (None, []) => (0..depth).collect(),
            (None, blocks) => blocks.to_vec(),
        };
        blocks.sort_unstable();
        blocks.dedup();
        Ok(blocks)
    }

    fn lora(&self, blocks: Vec<usize>) -> Result<LoraConfig, Failure> {
        let rank = self.rank.unwrap_or(defaults::RANK);
        let mut targets = match self.targets.as_slice() {
            [] => vec![Target::Q, Target::V],
            targets => targets.iter().map(|target| Target::ALL[*target as usize]).collect(),
        };
        targets.sort();
        targets.dedup();
        let rank_pattern: BTreeMap<usize, usize> = self.rank_pattern.iter().copied().collect();
        if rank_pattern.len() < self.rank_pattern.len() {
            return Err(usage("--rank-pattern names a block twice"));
        }
        let alpha = self.alpha.unwrap_or(rank as f32);
        Ok(LoraConfig { rank, alpha, targets, blocks, rslora: self.rslora, rank_pattern })
    }
}
