//! LayerNorm over every head's query and key, in place, forward and backward.

use super::buffers::{GroupShape, resize};
use super::packed::Packed;
use crate::weights::Norm;
use std::ops::Range;

impl Packed {
    /// Normalises queries and keys, as far as they are among `parts`, of rows `qkv [m, 3d]`; what they were stays in `raw [m, 2d]`
    /// where it is asked for. Nothing where the block has no such norms.
    pub(crate) fn norm_qk(&self, index: usize, parts: Range<usize>, qkv: &mut [f32], mut raw: Option<&mut Vec<f32>>) {
        let Some(norms) = &self.weights.blocks[index].qk_norm else { return };
        let d = self.config.width;
        if let Some(raw) = &mut raw {
            raw.clear();
            resize(raw, qkv.len() / 3 * 2);
        }
        let mut scratch = vec![0.0; d];
        for (row, qkv) in qkv.chunks_exact_mut(3 * d).enumerate() {
            for part in parts.start..parts.end.min(2) {
                let values = &mut qkv[part * d..(part + 1) * d];
                let before = match &mut raw {
                    Some(raw) => &mut raw[(2 * row + part) * d..(2 * row + part + 1) * d],
                    None => &mut scratch[..],
                };
                before.copy_from_slice(values);
                let Norm { gamma, beta } = &norms[part];
                self.kernels.layernorm(before, gamma, beta, self.config.eps, values);
            }
        }
    }

    /// Keeps the queries of an image's first `asking` tokens, of rows `qkv [images · asking, 3d]`, in `raw [m, 2d]` of all tokens.
    pub(crate) fn keep_queries(&self, shape: GroupShape<'_>, asking: usize, qkv: &[f32], raw: &mut [f32]) {
        let d = self.config.width;
        if !self.config.qk_norm {
            return;
        }
        for (image, raw) in qkv.chunks_exact(asking * 3 * d).zip(raw.chunks_exact_mut(shape.tokens * 2 * d)) {
            for (qkv, raw) in image.chunks_exact(3 * d).zip(raw.chunks_exact_mut(2 * d)) {
                raw[..d].copy_from_slice(&qkv[..d]);
            }
        }
    }

    /// The gradient `d_qkv [m, 3d]` of normalised queries and keys to that of `raw [m, 2d]`, in place.
    pub(crate) fn norm_qk_backward(
        &self,
        index: usize,
        raw: &[f32],
        d_qkv: &mut [f32],
        mut gradient: Option<&mut [Norm; 2]>,
    ) {
        let Some(norms) = &self.weights.blocks[index].qk_norm else { return };
        let d = self.config.width;
        let mut d_normed = vec![0.0; d];
        for (raw, d_qkv) in raw.chunks_exact(2 * d).zip(d_qkv.chunks_exact_mut(3 * d)) {
            for (part, raw) in raw.chunks_exact(d).enumerate() {
                let d_values = &mut d_qkv[part * d..(part + 1) * d];
                d_normed.copy_from_slice(d_values);
                d_values.fill(0.0);
                self.kernels.layernorm_backward(raw, &norms[part].gamma, self.config.eps, &d_normed, d_values);
                self.norm_weights_backward(raw, &d_normed, gradient.as_deref_mut().map(|norms| &mut norms[part]));
            }
        }
    }
}
