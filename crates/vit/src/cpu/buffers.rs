//! What one group of images needs while it is computed: its shape, its segments, and buffers that are used again.

use super::dense::PatchTape;
use super::positions::Positions;
use crate::adapter::Adapter;
use crate::bottleneck::BottleneckScratch;
use crate::dropout::{DropoutScratch, GroupDropout};
use crate::head::Head;
use melo_kernels::LeftRows;
use std::ops::Range;

/// Rows of a chunk at most.
const CHUNK: usize = 100;

/// The images of a group that share a plug-in.
#[derive(Clone, Copy)]
pub(crate) struct GroupSegment<'a> {
    /// First image, within the group.
    pub(crate) start: usize,
    /// One past the last image, within the group.
    pub(crate) end: usize,
    pub(crate) adapter: Option<&'a Adapter>,
    pub(crate) head: &'a Head,
}

/// What the backward pass needs of one block, every field `[m, …]`.
#[derive(Debug, Default)]
pub(crate) struct BlockTape {
    /// Residual stream at the block's input, `[m, d]`; kept in training only.
    pub(crate) x: Vec<f32>,
    /// Fused projection, `[m, 3d]`.
    pub(crate) qkv: Vec<f32>,
    /// Attention output before `proj`, `[m, d]`.
    pub(crate) o: Vec<f32>,
    /// Residual stream between attention and MLP, `[m, d]`; kept in training only.
    pub(crate) x_mid: Vec<f32>,
    /// Queries and keys before their norms, `[m, 2d]`; where they have norms, in training only.
    pub(crate) qk: Vec<f32>,
    /// `fc1`'s output before GELU, `[m, hidden]`.
    pub(crate) h: Vec<f32>,
    /// The attention branch before its layer scale, `[m, d]`; computed by itself only where there is one.
    pub(crate) a: Vec<f32>,
    /// The MLP branch before its layer scale, `[m, d]`; computed by itself only where there is one or a bottleneck reads it.
    pub(crate) f: Vec<f32>,
}

/// What attention pooling computed of a group's patches, `p` an image; its backward pass reads all of it.
#[derive(Debug, Default)]
pub(crate) struct PoolTape {
    /// Normalised patches, `[images · p, d]`, and their keys and values, `[images · p, 2d]`.
    pub(crate) patches: Vec<f32>,
    pub(crate) kv: Vec<f32>,
    /// The same in one place, `[images · p, 3d]`: the one query in an image's first row.
    pub(crate) qkv: Vec<f32>,
    /// What attention gave, and its projection, `[images, d]`.
    pub(crate) o: Vec<f32>,
    pub(crate) y: Vec<f32>,
    /// The MLP's input, `[images, d]`, and its hidden layer before and after GELU, `[images, hidden]`.
    pub(crate) normed: Vec<f32>,
    pub(crate) h: Vec<f32>,
    pub(crate) g: Vec<f32>,
    /// Gradient of `o`, `[images, d]`; of the backward pass.
    pub(crate) d_o: Vec<f32>,
}

/// Buffers of one worker, grown once and used again for every group.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// Images of the group, `[images, 3, s, s]`, or their embedded patches, `[images, patches, d]`.
    pub(crate) images: Vec<f32>,
    /// Unfolded patches, `[images · patches, 3·p·p]`.
    pub(crate) patches: Vec<f32>,
    /// Residual stream, `[m, d]`.
    pub(crate) x: Vec<f32>,
    /// Token rows before `norm_pre`, kept for training all weights, `[m, d]`.
    pub(crate) embedded: Vec<f32>,
    /// A normalised copy of the residual stream, `[m, d]`.
    pub(crate) normed: Vec<f32>,
    /// What the next layer reads.
    pub(crate) left: LeftRows,
    /// What the MLP's second layer reads, `[m, hidden]`, and a row of it before its norm.
    pub(crate) g: Vec<f32>,
    pub(crate) activated: Vec<f32>,
    /// Attention scores of one head.
    pub(crate) scores: Vec<f32>,
    /// `A x` of a low-rank update, `[m, r]`.
    pub(crate) z: Vec<f32>,
    pub(crate) bottleneck: BottleneckScratch,
    pub(crate) dropout: DropoutScratch,
    /// Pooled rows before and after the last norm, and features `[images, feature width]`.
    pub(crate) pooled: Vec<f32>,
    pub(crate) features: Vec<f32>,
    /// What attention pooling computed.
    pub(crate) attn_pool: PoolTape,
    /// What the head of each segment reads of patches.
    pub(crate) patch_tapes: Vec<PatchTape>,
    /// Class token and mean patch token of each image after each of the blocks that are asked for, `[images, intermediate width]` a block.
    pub(crate) intermediates: Vec<Vec<f32>>,
    /// One tape a taped block, or a single one used by every block in turn.
    pub(crate) tape: Vec<BlockTape>,
    pub(crate) backward: BackwardBuffers,
    /// Of the threads that share an image.
    pub(crate) parts: Vec<Buffers>,
}

/// Buffers that only the backward pass needs.
#[derive(Debug, Default)]
pub(crate) struct BackwardBuffers {
    /// Gradient of the residual stream, `[m, d]`.
    pub(crate) d_x: Vec<f32>,
    /// Gradient of a normalised copy of it, or of a branch, of a chunk's rows.
    pub(crate) d_normed: Vec<f32>,
    /// Gradient of `[m, 3d]` or `[m, d]` inside attention.
    pub(crate) d_qkv: Vec<f32>,
    pub(crate) d_o: Vec<f32>,
    /// Gradient of `fc1`'s output, of a chunk's rows, and of what a SwiGLU makes of it.
    pub(crate) d_h: Vec<f32>,
    pub(crate) d_g: Vec<f32>,
    /// Gradient of the features, and of the pooled rows before their norm.
    pub(crate) d_features: Vec<f32>,
    pub(crate) d_pooled: Vec<f32>,
}

/// Fixed facts of a pass: image side, tokens an image, images of the group.
#[derive(Clone, Copy)]
pub(crate) struct GroupShape<'a> {
    pub(crate) images: usize,
    pub(crate) size: usize,
    pub(crate) tokens: usize,
    /// Layers of patches, where these come embedded, see [`crate::ImageSource::layers`].
    pub(crate) layers: Option<usize>,
    /// Positions at this size.
    pub(crate) positions: &'a Positions,
    /// Dropout on the low-rank updates; in training only.
    pub(crate) dropout: Option<GroupDropout>,
    /// Threads that share a single image, its tokens cut into as many parts; never in training.
    pub(crate) parts: usize,
    /// Blocks, ascending, of which the class token and the mean patch token are kept; never in training.
    pub(crate) intermediates: &'a [usize],
}

impl GroupShape<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.images * self.tokens
    }

    /// The group's rows in chunks of about the same length, short enough that what a block computes of one stays in the cache.
    /// Dropout draws masks of whole images.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        self.in_chunks(self.dropout.is_some())
    }

    /// The same for the backward pass; the gradients of whole matrices, where they are wanted, are summed over all rows at once.
    pub(crate) fn backward_chunks(&self, all_weights: bool) -> impl Iterator<Item = Range<usize>> + use<> {
        self.in_chunks(self.dropout.is_some() || all_weights)
    }

    fn in_chunks(&self, one: bool) -> impl Iterator<Item = Range<usize>> + use<> {
        let rows = self.rows();
        let count = if one { 1 } else { rows.div_ceil(CHUNK) };
        (0..count).map(move |chunk| rows * chunk / count..rows * (chunk + 1) / count)
    }
}

/// The values of some rows; none of a buffer that is not in use.
pub(crate) fn of_rows<'a>(x: &'a [f32], rows: &Range<usize>, width: usize) -> &'a [f32] {
    x.get(rows.start * width..rows.end * width).unwrap_or_default()
}

/// Sets the length of a buffer without giving memory back.
pub(crate) fn resize(buffer: &mut Vec<f32>, len: usize) {
    buffer.resize(len, 0.0);
}
