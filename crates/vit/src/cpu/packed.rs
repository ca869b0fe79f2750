//! The weights of a ViT as the CPU's kernels want them, and the one place that packs them.

use crate::config::VitConfig;
use crate::weights::{Block, Linear, Weights};
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
    /// else goes on training.
    pub(crate) fn new<'a, W>(config: &VitConfig, weights: Weights<W>, precision: Precision) -> Self
    where
        W: Into<Cow<'a, [f32]>> + Send,
    {
        let kernels = Kernels::detect(precision);
        let (d, hidden) = (config.width, config.mlp_hidden);
        let pack = |linear: Linear<W>, out: usize, input: usize| Linear {
            weight: kernels.pack(linear.weight.into(), out, input),
            bias: linear.bias,
        };
        let pack_layer = |linear: Linear<W>, out: usize, input: usize| {
            if precision == Precision::Int8 {
                let weight = linear.weight.into();
                let packed = kernels.pack_int8(&weight, out, input);
                return Linear {
                    weight: packed.unwrap_or_else(|| kernels.pack(weight, out, input)),
                    bias: linear.bias,
                };
            }
            pack(linear, out, input)
        };
        let pack_block = |block: Block<W>| Block {
            norm1: block.norm1,
            qkv: pack_layer(block.qkv, 3 * d, d),
            proj: pack_layer(block.proj, d, d),
            ls1: block.ls1,
            norm2: block.norm2,
            fc1: pack_layer(block.fc1, config.fc1_out(), d),
            fc2: pack_layer(block.fc2, d, hidden),
            ls2: block.ls2,
        };
        let weights = Weights {
            cls_token: weights.cls_token,
            dist_token: weights.dist_token,
            reg_token: weights.reg_token,
            pos_embed: weights.pos_embed,
            patch_embed: pack(weights.patch_embed, d, 3 * config.patch * config.patch),
            norm_pre: weights.norm_pre,
            norm: weights.norm,
            fc_norm: weights.fc_norm,
            blocks: weights.blocks.into_par_iter().map(pack_block).collect(),
        };
        Packed { config: config.clone(), weights, kernels }
    }
}
