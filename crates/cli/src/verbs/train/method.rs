//! The flags of `melo train` that say what is trained, and how.

use super::usage;
use crate::Failure;
use clap::ValueEnum;
use melo::train::{Error, Method, MethodSettings, Solver, TrainConfig};
use melo::vit::Target;
use std::collections::BTreeMap;

#[derive(clap::Args)]
#[command(next_help_heading = "Method")]
pub(super) struct MethodArgs {
    /// What is trained besides the head
    #[arg(long, value_enum, default_value_t = MethodArg::Lora)]
    method: MethodArg,
    /// lora, adapter: adapted blocks, from 0 [default: all; adapter with --folds: the last 2]
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
    /// full: each block learns at this share of the rate of the one above it; 1 is off [default: 0.75]
    #[arg(long, value_name = "SHARE")]
    layer_decay: Option<f64>,
    /// lora, linear, adapter: train K plug-ins, each without another K-th of the training and validation patients, into one file
    /// whose answer is their mean; of lora, where no blocks are given, one plug-in is trained first, and in the last 2 blocks K on top of it,
    /// so that all cost little more than one
    #[arg(long, value_name = "K")]
    folds: Option<usize>,
    /// linear: how the head is found [default: lbfgs; of bags and masks: adamw]
    #[arg(long, value_enum)]
    solver: Option<SolverArg>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SolverArg {
    /// In steps over epochs
    Adamw,
    /// To convergence, on features that are computed once; the validation split chooses the penalty
    Lbfgs,
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

impl From<MethodArg> for Method {
    fn from(method: MethodArg) -> Method {
        match method {
            MethodArg::Lora => Method::Lora,
            MethodArg::Linear => Method::Linear,
            MethodArg::Adapter => Method::Adapter,
            MethodArg::Full => Method::Full,
        }
    }
}

impl MethodArgs {
    /// What is trained: low-rank matrices of rank 0 are a linear probe.
    pub(super) fn chosen(&self) -> Method {
        MethodSettings { rank: self.rank, ..MethodSettings::default() }.method(self.method.into())
    }

    /// The method's settings on a backbone of `depth` blocks; all others are the defaults.
    pub(super) fn config(&self, depth: usize) -> Result<TrainConfig, Failure> {
        let rank_pattern: BTreeMap<usize, usize> = self.rank_pattern.iter().copied().collect();
        if rank_pattern.len() < self.rank_pattern.len() {
            return Err(usage("--rank-pattern names a block twice"));
        }
        let targets = self.targets.iter().map(|target| Target::ALL[*target as usize]).collect();
        let settings = MethodSettings {
            rank: self.rank,
            alpha: self.alpha,
            targets: (!self.targets.is_empty()).then_some(targets),
            blocks: (!self.blocks.is_empty()).then(|| self.blocks.clone()),
            last_k: self.last_k,
            rslora: self.rslora.then_some(true),
            rank_pattern: (!rank_pattern.is_empty()).then_some(rank_pattern),
            lora_plus: self.lora_plus,
            lora_dropout: self.lora_dropout,
            bottleneck: self.bottleneck,
            layer_decay: self.layer_decay,
            folds: self.folds,
            solver: self.solver.map(|solver| match solver {
                SolverArg::Adamw => Solver::AdamW,
                SolverArg::Lbfgs => Solver::Lbfgs,
            }),
        };
        settings.resolve(self.method.into(), depth).map_err(|error| match error {
            Error::ForeignSetting { setting, owner, method } => {
                usage(format!("{} is for --method {owner}, not for {method}", flag(setting)))
            }
            Error::Setting { setting, reason } => usage(format!("{}: {reason}", flag(setting))),
            other => other.into(),
        })
    }
}

/// The flag of a setting.
fn flag(setting: &str) -> String {
    format!("--{}", setting.replace('_', "-"))
}
