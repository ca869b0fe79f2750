//! Heads that read patch tokens: of which blocks, what they make of them, and the way back.

use super::buffers::{Buffers, GroupSegment, GroupShape, resize};
use super::packed::Packed;
use crate::head::Head;
use crate::weights::{Norm, Weights};
use melo_kernels::{Mat, MatMut};
use std::collections::BTreeSet;

/// What a segment's head reads, `p` patches an image; nothing of one that reads pooled features.
#[derive(Debug, Default)]
pub(crate) struct PatchTape {
    /// Patch tokens as each of its blocks gave them, `[images · p, d]` each.
    raw: Vec<Vec<f32>>,
    /// The same normalised and side by side, `[images · p, blocks · d]`.
    read: Vec<f32>,
    /// Gradient of `read`; of the backward pass.
    d_read: Vec<f32>,
}

impl Packed {
    /// The residual stream from a block on, through the rest of them, to what heads read: pooled features, and patch tokens on the way.
    /// Returns how many tokens of an image the last block gave.
    pub(crate) fn read(
        &self,
        shape: GroupShape<'_>,
        segments: &[GroupSegment<'_>],
        from: usize,
        tape_from: Option<usize>,
        buffers: &mut Buffers,
    ) -> usize {
        let depth = self.config.depth;
        let read = segments.iter().flat_map(|segment| segment.head.blocks().unwrap_or_default());
        let kept = shape.intermediates.iter().copied().filter(|&block| block >= from);
        let mut stops: BTreeSet<usize> = read.copied().chain(kept).map(|block| block + 1).collect();
        stops.insert(depth);
        buffers.intermediates.clear();
        buffers.patch_tapes.resize_with(segments.len().max(buffers.patch_tapes.len()), PatchTape::default);
        let (mut at, mut tokens) = (from, shape.tokens);
        for stop in stops {
            tokens = self.blocks(shape, segments, at..stop, tape_from, buffers);
            at = stop;
            if shape.intermediates.contains(&(stop - 1)) {
                self.keep_intermediates(shape, buffers);
            }
            for (number, segment) in segments.iter().enumerate() {
                if let Some(place) = place(segment.head, stop - 1) {
                    self.keep_patches(shape, *segment, (number, place), buffers);
                }
            }
        }
        if segments.iter().any(|segment| segment.head.blocks().is_none()) {
            self.pool(GroupShape { tokens, ..shape }, buffers);
        }
        tokens
    }

    /// The norm that patch tokens are read through.
    fn patch_norm(&self) -> Option<&Norm> {
        self.weights.norm.as_ref().or(self.weights.fc_norm.as_ref())
    }

    /// Keeps the patch tokens of a segment as they are now, as the block at this place among those that its head reads gave them.
    fn keep_patches(
        &self,
        shape: GroupShape<'_>,
        GroupSegment { start, end, head, .. }: GroupSegment<'_>,
        (number, place): (usize, usize),
        buffers: &mut Buffers,
    ) {
        assert!(shape.layers.is_none(), "heads on patch tokens are of images");
        let (d, t, prefix) = (self.config.width, shape.tokens, self.config.prefix_tokens());
        let Buffers { x, normed, patch_tapes, .. } = buffers;
        let PatchTape { raw, read, .. } = &mut patch_tapes[number];
        raw.resize_with(raw.len().max(place + 1), Vec::new);
        let raw = &mut raw[place];
        raw.clear();
        for x in x[start * t * d..end * t * d].chunks_exact(t * d) {
            raw.extend_from_slice(&x[prefix * d..]);
        }
        let rows: &[f32] = match self.patch_norm() {
            Some(norm) => {
                self.layernorm(norm, raw, normed);
                normed
            }
            None => raw,
        };
        let width = head.width();
        resize(read, rows.len() / d * width);
        for (read, row) in read.chunks_exact_mut(width).zip(rows.chunks_exact(d)) {
            read[place * d..(place + 1) * d].copy_from_slice(row);
        }
    }

    /// What a segment's head gives, image by image: logits `[c]`, or of patches `[p, rows]`.
    pub(crate) fn outputs(
        &self,
        shape: GroupShape<'_>,
        number: usize,
        segment: GroupSegment<'_>,
        buffers: &Buffers,
    ) -> Vec<f32> {
        let GroupSegment { start, end, head, .. } = segment;
        let mut outputs = vec![0.0; (end - start) * head.outputs(&self.config, shape.size)];
        if head.blocks().is_none() {
            self.logits(segment, &buffers.features, &mut outputs);
            return outputs;
        }
        let (patches, rows, width) = (shape.tokens - self.config.prefix_tokens(), head.rows(), head.width());
        let weight = Mat::new(&head.weight, rows, width);
        let images = buffers.patch_tapes[number].read.chunks_exact(patches * width);
        for (read, outputs) in images.zip(outputs.chunks_exact_mut(patches * rows)) {
            let (read, y) = (Mat::new(read, patches, width), MatMut::new(outputs, patches, rows));
            self.kernels.in_f32().matmul(y, 0.0, 1.0, read, weight.t());
            for y in outputs.chunks_exact_mut(rows) {
                y.iter_mut().zip(&head.bias).for_each(|(y, bias)| *y += bias);
            }
        }
        outputs
    }

    /// The gradient of the outputs of a group's one head to that of what it reads of patches; adds to the head's own.
    pub(crate) fn read_backward(&self, head: &Head, d_outputs: &[f32], buffers: &mut Buffers, gradient: &mut Head) {
        let (rows, width) = (head.rows(), head.width());
        let PatchTape { read, d_read, .. } = &mut buffers.patch_tapes[0];
        resize(d_read, read.len());
        let (k, m) = (self.kernels.in_f32(), d_outputs.len() / rows);
        k.linear_backward_weight(read, d_outputs, &mut gradient.weight, &mut gradient.bias, rows);
        let weight = Mat::new(&head.weight, rows, width);
        k.matmul(MatMut::new(d_read, m, width), 0.0, 1.0, Mat::new(d_outputs, m, rows), weight);
    }

    /// Adds to the gradient of a block's output what the head's reading of it contributes.
    pub(crate) fn add_read_gradient(
        &self,
        block: usize,
        shape: GroupShape<'_>,
        head: &Head,
        buffers: &mut Buffers,
        weights: Option<&mut Weights>,
    ) {
        let Some(place) = place(head, block) else { return };
        let (d, t, prefix, width) = (self.config.width, shape.tokens, self.config.prefix_tokens(), head.width());
        let Buffers { normed, patch_tapes, backward, .. } = buffers;
        let PatchTape { raw, d_read, .. } = &patch_tapes[0];
        let raw = &raw[place];
        let d_normed = &mut backward.d_normed;
        d_normed.clear();
        d_normed.extend(d_read.chunks_exact(width).flat_map(|row| &row[place * d..(place + 1) * d]).copied());
        let d_patches: &[f32] = match self.patch_norm() {
            Some(norm) => {
                resize(normed, raw.len());
                normed.fill(0.0);
                self.kernels.layernorm_backward(raw, &norm.gamma, self.config.eps, d_normed, normed);
                let gradient = weights.and_then(|w| w.norm.as_mut().or(w.fc_norm.as_mut()));
                self.norm_weights_backward(raw, d_normed, gradient);
                normed
            }
            None => d_normed,
        };
        let images = backward.d_x.chunks_exact_mut(t * d).zip(d_patches.chunks_exact((t - prefix) * d));
        for (d_x, d_patches) in images {
            d_x[prefix * d..].iter_mut().zip(d_patches).for_each(|(d_x, d)| *d_x += d);
        }
    }
}

/// The place of a block among those whose patch tokens a head reads.
fn place(head: &Head, block: usize) -> Option<usize> {
    head.blocks()?.iter().position(|&read| read == block)
}
