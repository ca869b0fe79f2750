//! What an image size makes of positions, once a pass: embeddings, rotations, and biases of relative positions.

use super::buffers::GroupShape;
use super::packed::Packed;
use crate::{positions, relative};
use melo_kernels::{AttentionBias, AttentionShape, Rotation};
use std::ops::Range;

/// Positions of images of one size.
#[derive(Debug)]
pub(crate) struct Positions {
    /// Position embedding, `[prefix + patches, d]`, `[patches, d]` or empty.
    pub(crate) embed: Vec<f32>,
    /// How queries and keys of patches are turned.
    rotation: Option<Rotation>,
    relative: Option<Relative>,
}

/// Biases of relative positions.
#[derive(Debug)]
struct Relative {
    /// `[t, t]`.
    index: Vec<u32>,
    /// A block's, `[distances, h]`.
    tables: Vec<Vec<f32>>,
}

impl Packed {
    /// Positions of images of side `size`.
    pub(crate) fn positions(&self, size: usize) -> Positions {
        let config = &self.config;
        let side = size / config.patch;
        let table = |table: &Vec<f32>| relative::resample(table, config, size);
        Positions {
            embed: positions::resample(&self.weights.pos_embed, config, size),
            rotation: config.rotary.map(|rotary| rotary.rotation(side, config.head_width())),
            relative: config.relative_positions.then(|| Relative {
                index: relative::relative_index(side),
                tables: self.weights.blocks.iter().map(|block| table(&block.relative)).collect(),
            }),
        }
    }

    /// The attention of a block on all tokens of an image.
    pub(crate) fn attention_shape<'a>(&self, index: usize, shape: GroupShape<'a>) -> AttentionShape<'a> {
        let bias = shape.positions.relative.as_ref();
        let bias = bias.map(|Relative { index: of, tables }| AttentionBias { table: &tables[index], index: of });
        AttentionShape { tokens: shape.tokens, heads: self.config.heads, width: self.config.width, bias }
    }

    /// Turns the queries and keys among these parts of `qkv [m, 3d]`; of each image the first row is that of token `first`. With `back`
    /// the other way round: the gradient.
    pub(crate) fn rotate(&self, shape: GroupShape<'_>, first: usize, parts: Range<usize>, qkv: &mut [f32], back: bool) {
        let Some(rotation) = &shape.positions.rotation else { return };
        let (d, prefix) = (self.config.width, self.config.prefix_tokens());
        for (row, qkv) in qkv.chunks_exact_mut(3 * d).enumerate() {
            if let Some(patch) = (first + row % shape.tokens).checked_sub(prefix) {
                let turned = parts.start * d..parts.end.min(2) * d;
                // Every layer of a volume is turned as an image.
                rotation.turn(patch % (shape.size / self.config.patch).pow(2), &mut qkv[turned], back);
            }
        }
    }
}
