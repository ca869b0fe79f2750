//! The weights of a ViT as the CPU's kernels want them, and the one place that packs them.

use super::integers::Both;
use crate::config::VitConfig;
use crate::engine::LayerError;
use crate::weights::{Layer, Linear, Weights};
use melo_kernels::{Kernels, PackedWeight, Precision};
use rayon::prelude::*;
use std::borrow::Cow;

/// A network ready to compute: every pass is a method of it, a file a pass.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) config: VitConfig,
    pub(crate) weights: Weights<PackedWeight>,
    pub(crate) kernels: &'static Kernels,
}

impl Packed {
    /// From weights whose matrices are `Vec<f32>`, each of which is freed when it is packed, or `&[f32]`, which somebody
    /// else goes on training. In 8-bit integers also how far each layer of a block is from itself.
    pub(crate) fn new<'a, W>(config: &VitConfig, weights: Weights<W>, precision: Precision) -> (Self, Vec<LayerError>)
    where
        W: Into<Cow<'a, [f32]>> + Send,
    {
        let kernels = Kernels::detect(precision);
        let Linear { weight, bias } = weights.patch_embed;
        let weight = kernels.pack(weight.into(), config.width, 3 * config.patch * config.patch);
        let without_blocks = Weights {
            cls_token: weights.cls_token,
            dist_token: weights.dist_token,
            reg_token: weights.reg_token,
            pos_embed: weights.pos_embed,
            patch_embed: Linear { weight, bias },
            norm_pre: weights.norm_pre,
            norm: weights.norm,
            fc_norm: weights.fc_norm,
            attn_pool: weights
                .attn_pool
                .map(|pool| pool.map(config, |weight, (out, input)| kernels.pack(weight.into(), out, input))),
            blocks: Vec::new(),
        };
        let mut packed = Packed { config: config.clone(), weights: without_blocks, kernels };
        let features = |layer: Layer| layer.features(config);
        let blocks = weights.blocks.into_par_iter();
        if precision == Precision::Int8 {
            let both = |layer, weight: W| Both::new(kernels, weight.into(), features(layer));
            let errors = packed.add_measured(blocks.map(|block| block.map(both)).collect());
            return (packed, errors);
        }
        let pack = |layer, weight: W| {
            let (out, input) = features(layer);
            kernels.pack(weight.into(), out, input)
        };
        packed.weights.blocks = blocks.map(|block| block.map(pack)).collect();
        (packed, Vec::new())
    }
}
