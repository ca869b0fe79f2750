//! The flags of `melo train` that say how the images of a bag become one answer.

use super::usage;
use crate::Failure;
use clap::ValueEnum;
use melo::vit::{BagConfig, BagPooling};

#[derive(clap::Args)]
#[command(next_help_heading = "Bags")]
pub(super) struct BagArgs {
    /// How the images of a bag become one answer [default: attention, where images are in bags]
    #[arg(long, value_enum)]
    pooling: Option<PoolingArg>,
    /// attention: its width [default: 64]
    #[arg(long, value_name = "WIDTH")]
    bag_hidden: Option<usize>,
    /// attention: the order of a bag's images means nothing (tiles of a slide, films of a study)
    #[arg(long)]
    unordered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PoolingArg {
    /// Gated attention, which learns how much each image counts
    Attention,
    /// The mean of their features
    Mean,
    /// The largest value of each feature
    Max,
}

impl BagArgs {
    /// What was asked for, if anything was.
    pub(super) fn config(&self) -> Result<Option<BagConfig>, Failure> {
        let pooling = match self.pooling {
            None | Some(PoolingArg::Attention) => BagPooling::GatedAttention,
            Some(PoolingArg::Mean) => BagPooling::Mean,
            Some(PoolingArg::Max) => BagPooling::Max,
        };
        let usual = BagConfig::of(pooling);
        if pooling != BagPooling::GatedAttention && (self.bag_hidden.is_some() || self.unordered) {
            let flag = if self.unordered { "--unordered" } else { "--bag-hidden" };
            return Err(usage(format!("{flag} is for --pooling attention, not for {pooling}")));
        }
        let asked = self.pooling.is_some() || self.bag_hidden.is_some() || self.unordered;
        let positions = if self.unordered { 0 } else { usual.positions };
        Ok(asked.then(|| BagConfig { hidden: self.bag_hidden.unwrap_or(usual.hidden), positions, ..usual }))
    }
}
