//! The backward pass of one group, written out: what is frozen gets no gradient, and nothing below the first adapted
//! block is visited. GELU, both norms and the attention probabilities are computed again rather than kept.

use super::buffers::{BackwardBuffers, BlockTape, Buffers, GroupShape, of_rows, resize};
use super::forward::ALL;
use super::packed::Packed;
use crate::adapter::{Adapter, Target};
use crate::config::Pool;
use crate::dropout::{DropoutScratch, GroupDropout};
use crate::gradients::Gradients;
use crate::head::Head;
use crate::weights::{Linear, Norm, Weights};
use melo_kernels::{Kernels, LowRankGradient, Mat, MatMut};
use rayon::prelude::*;
use std::sync::Arc;

/// What is trained, and where its gradients go.
pub(crate) struct Training<'a> {
    pub(crate) adapter: &'a Adapter,
    pub(crate) gradients: &'a mut Gradients,
}

/// The low-rank matrices with their gradients, scratch for `A x`, and dropout.
struct LowRankTraining<'a> {
    adapter: &'a Adapter,
    gradient: &'a mut Adapter,
    z: &'a mut Vec<f32>,
    dropout: (Option<GroupDropout>, &'a mut DropoutScratch),
}

impl LowRankTraining<'_> {
    /// Gradients of a layer's low-rank matrices, and its share of that of its input where `d_x [m, in]` is given; `x [m, in]`,
    /// `d_y [m, out]`. Targets come with their first output column.
    fn backward(
        &mut self,
        kernels: &Kernels,
        (block, targets): (usize, &[(Target, usize)]),
        x: &[f32],
        (d_y, out): (&[f32], usize),
        mut d_x: Option<&mut [f32]>,
    ) {
        let LowRankTraining { adapter, gradient, z, dropout: (dropout, scratch) } = self;
        for &(target, column) in targets {
            let pair = &mut Arc::make_mut(&mut gradient.blocks[block])[target as usize];
            if let (Some(update), Some(pair)) = (adapter.update(block, target), pair) {
                let gradient = LowRankGradient { d_a: &mut pair.a, d_b: &mut pair.b };
                let d_y = (&d_y[column..], out);
                let Some(dropout) = dropout else {
                    kernels.lowrank_backward(update, x, d_y, gradient, d_x.as_deref_mut(), z);
                    continue;
                };
                dropout.apply((block, target), x, update.a.len() / update.rank, scratch);
                let DropoutScratch { x: dropped, d_x: d_dropped, .. } = &mut **scratch;
                d_dropped.clear();
                d_dropped.resize(x.len(), 0.0);
                kernels.lowrank_backward(update, dropped, d_y, gradient, d_x.is_some().then_some(d_dropped), z);
                if let Some(d_x) = d_x.as_deref_mut() {
                    scratch.spread(d_x);
                }
            }
        }
    }
}

impl Packed {
    /// Keeps what the gradients of every step read of the blocks from this one on; below it nothing has one.
    pub(crate) fn prepare_backward(&self, first: usize, to_the_input: bool) {
        self.weights.blocks[first..].par_iter().enumerate().for_each(|(above, block)| {
            let qkv = (to_the_input || above > 0).then_some(&block.qkv);
            qkv.into_iter()
                .chain([&block.proj, &block.fc1, &block.fc2])
                .for_each(|layer| self.kernels.prepare_backward(&layer.weight));
        });
    }

    /// Adds the gradients of one group, whose forward pass lies in `buffers` and of which the last block gave so many tokens of an
    /// image, for `d_logits [images, outputs]`.
    pub(crate) fn backward(
        &self,
        (shape, tokens): (GroupShape<'_>, usize),
        (adapter, head): (&Adapter, &Head),
        d_logits: &[f32],
        buffers: &mut Buffers,
        gradients: &mut Gradients,
    ) {
        let dense = head.blocks().is_some();
        match dense {
            true => self.read_backward(head, d_logits, buffers, &mut gradients.head),
            false => self.head_backward(shape, head, d_logits, buffers, &mut gradients.head),
        }
        let to_the_input = gradients.weights.is_some() || shape.layers.is_some();
        let Some(first) = tape_start(adapter, to_the_input) else {
            return;
        };
        match dense {
            true => {
                let d_x = &mut buffers.backward.d_x;
                resize(d_x, shape.rows() * self.config.width);
                d_x.fill(0.0);
            }
            false => self.pool_backward(GroupShape { tokens, ..shape }, buffers, gradients.weights.as_mut()),
        }
        for block in (first..self.config.depth).rev() {
            self.add_read_gradient(block, shape, head, buffers, gradients.weights.as_mut());
            let tape = std::mem::take(&mut buffers.tape[block - first]);
            let needs_input = to_the_input || block > first;
            let tokens = if block == self.config.depth - 1 { tokens } else { shape.tokens };
            self.block_backward(block, (shape, tokens), &tape, needs_input, buffers, Training { adapter, gradients });
            buffers.tape[block - first] = tape;
        }
        if to_the_input {
            self.norm_pre_backward(shape, buffers, gradients.weights.as_mut());
        }
        if let Some(weights) = &mut gradients.weights {
            self.embed_backward(shape, buffers, weights);
        }
    }

    /// Logits' gradient to the features'.
    pub(crate) fn head_backward(
        &self,
        shape: GroupShape<'_>,
        head: &Head,
        d_logits: &[f32],
        buffers: &mut Buffers,
        gradient: &mut Head,
    ) {
        let (n, c, width) = (shape.images, head.rows(), self.config.feature_width());
        let d_features = &mut buffers.backward.d_features;
        resize(d_features, n * width);
        let k = self.kernels.in_f32();
        k.linear_backward_weight(&buffers.features, d_logits, &mut gradient.weight, &mut gradient.bias, c);
        let weight = Mat::new(&head.weight, c, width);
        k.matmul(MatMut::new(d_features, n, width), 0.0, 1.0, Mat::new(d_logits, n, c), weight);
    }

    /// Features' gradient to the residual stream's, `d_x [m, d]`.
    pub(crate) fn pool_backward(
        &self,
        shape: GroupShape<'_>,
        buffers: &mut Buffers,
        mut weights: Option<&mut Weights>,
    ) {
        let d = self.config.width;
        let (class, prefix) = (self.config.class_tokens(), self.config.prefix_tokens());
        let Buffers { x, pooled, backward, attn_pool: tape, scores, .. } = buffers;
        let BackwardBuffers { d_x, d_normed, d_features, d_pooled, .. } = backward;
        match self.pooled_norm() {
            Some(norm) => {
                resize(d_pooled, d_features.len());
                d_pooled.fill(0.0);
                self.kernels.layernorm_backward(pooled, &norm.gamma, self.config.eps, d_features, d_pooled);
                let gradient = weights.as_deref_mut().and_then(|w| w.norm.as_mut().or(w.fc_norm.as_mut()));
                self.norm_weights_backward(pooled, d_features, gradient);
            }
            None => d_pooled.clone_from(d_features),
        }
        resize(d_x, shape.rows() * d);
        d_x.fill(0.0);
        let images = d_x.chunks_exact_mut(shape.tokens * d);
        if self.config.pool == Pool::Token {
            for (d_x, d_pooled) in images.zip(d_pooled.chunks_exact(class * d)) {
                d_x[..class * d].copy_from_slice(d_pooled);
            }
            return;
        }
        if let Some(pool) = &self.weights.attn_pool {
            let gradient = weights.as_deref_mut().and_then(|w| w.attn_pool.as_mut());
            self.attention_pool_backward(pool, shape, d_pooled, (tape, scores), gradient);
            let patches = shape.tokens - prefix;
            for (d_x, d_patches) in images.zip(tape.patches.chunks_exact(patches * d)) {
                d_x[prefix * d..].copy_from_slice(d_patches);
            }
        } else {
            let share = 1.0 / (shape.tokens - prefix) as f32;
            for (d_x, d_pooled) in images.zip(d_pooled.chunks_exact(self.config.feature_width())) {
                let (d_token, d_mean) = d_pooled.split_at(d_pooled.len() - d);
                d_x[..d_token.len()].copy_from_slice(d_token);
                for d_token in d_x[prefix * d..].chunks_exact_mut(d) {
                    d_token.iter_mut().zip(d_mean).for_each(|(d, mean)| *d = share * mean);
                }
            }
        }
        if let Some(norm) = &self.weights.norm {
            std::mem::swap(d_x, d_normed);
            resize(d_x, shape.rows() * d);
            d_x.fill(0.0);
            self.kernels.layernorm_backward(x, &norm.gamma, self.config.eps, d_normed, d_x);
            self.norm_weights_backward(x, d_normed, weights.and_then(|w| w.norm.as_mut()));
        }
    }

    /// Residual stream's gradient from a block's output, of so many first tokens of an image, to its input of all; leaves in `d_o`
    /// that of the attention's output.
    pub(crate) fn block_backward(
        &self,
        index: usize,
        (shape, tokens): (GroupShape<'_>, usize),
        tape: &BlockTape,
        needs_input: bool,
        buffers: &mut Buffers,
        mut training: Training<'_>,
    ) {
        let (d, t) = (self.config.width, shape.tokens);
        self.after_attention_backward(index, GroupShape { tokens, ..shape }, tape, buffers, &mut training);
        let Buffers { scores, backward, .. } = &mut *buffers;
        let BackwardBuffers { d_x, d_qkv, d_o, .. } = backward;
        resize(d_qkv, shape.rows() * 3 * d);
        let images = tape.qkv.chunks_exact(t * 3 * d).zip(d_o.chunks_exact(tokens * d));
        for ((qkv, d_o), d_qkv) in images.zip(d_qkv.chunks_exact_mut(t * 3 * d)) {
            let attention = self.attention_shape(index, shape);
            self.kernels.attention_backward_of(attention, qkv, 0..tokens, d_o, d_qkv, scores);
            if let Some(weights) = &mut training.gradients.weights {
                let d_table = &mut weights.blocks[index].relative;
                self.kernels.attention_bias_backward(attention, qkv, 0..tokens, d_o, d_table, scores);
            }
        }
        self.rotate(shape, 0, ALL, d_qkv, true);
        let gradient = training.gradients.weights.as_mut().and_then(|w| w.blocks[index].qk_norm.as_mut());
        self.norm_qk_backward(index, &tape.qk, d_qkv, gradient);
        if tokens < t {
            resize(d_x, shape.rows() * d);
            for image in (0..shape.images).rev() {
                d_x.copy_within(image * tokens * d..(image + 1) * tokens * d, image * t * d);
                d_x[(image * t + tokens) * d..(image + 1) * t * d].fill(0.0);
            }
        }
        self.project_backward(index, shape, tape, needs_input, buffers, &mut training);
    }

    /// The second half of a block, from its output's gradient in `d_x` to that of the residual stream before its MLP, and of what
    /// attention gave, `d_o`.
    fn after_attention_backward(
        &self,
        index: usize,
        shape: GroupShape<'_>,
        tape: &BlockTape,
        buffers: &mut Buffers,
        training: &mut Training<'_>,
    ) {
        let k = self.kernels;
        let block = &self.weights.blocks[index];
        let (d, hidden, fc1_out) = (self.config.width, self.config.mlp_hidden, self.config.fc1_out());
        let Buffers { normed, g, activated, left, z, bottleneck: scratch, dropout, backward, .. } = buffers;
        let BackwardBuffers { d_x, d_normed, d_o, d_h, d_g, .. } = backward;
        let Training { adapter, gradients } = training;
        let Gradients { adapter: gradient, weights: d_weights, .. } = &mut **gradients;
        let mut d_block = d_weights.as_mut().map(|weights| &mut weights.blocks[index]);
        let trained = |target: Target| d_block.is_some() || adapter.update(index, target).is_some();
        let [fc1_trained, fc2_trained, o_trained] = [Target::Fc1, Target::Fc2, Target::O].map(trained);
        resize(d_o, shape.rows() * d);
        for rows in shape.backward_chunks(d_block.is_some()) {
            let d_x = &mut d_x[rows.start * d..rows.end * d];
            let [a, f, x_mid, o] = [&tape.a, &tape.f, &tape.x_mid, &tape.o].map(|x| of_rows(x, &rows, d));
            let h = of_rows(&tape.h, &rows, fc1_out);
            let mut lowrank = LowRankTraining { adapter, gradient, z, dropout: (shape.dropout, dropout) };
            scale_backward((f, d_x), &block.ls2, d_block.as_deref_mut().map(|b| &mut b.ls2), d_normed);
            let mut branch = !block.ls2.is_empty();
            let bottleneck = adapter.bottlenecks.blocks[index].as_ref();
            if let Some((bottleneck, gradient)) = bottleneck.zip(lowrank.gradient.bottlenecks.blocks[index].as_mut()) {
                if !branch {
                    d_normed.clear();
                    d_normed.extend_from_slice(d_x);
                }
                bottleneck.backward(k, (f, d_x), gradient, d_normed, scratch);
                branch = true;
            }
            let d_f = if branch { &*d_normed } else { &*d_x };

            let fc2_is_read = fc2_trained || block.mlp_norm.is_some();
            resize(g, if fc2_is_read { rows.len() * hidden } else { 0 });
            if fc2_is_read {
                self.fc2_input(block, h, g, activated);
            }
            resize(d_h, rows.len() * fc1_out);
            let d_activated = if self.config.swiglu { &mut *d_g } else { &mut *d_h };
            resize(d_activated, rows.len() * hidden);
            k.linear_backward(d_f, &block.fc2.weight, d_activated);
            lowrank.backward(k, (index, &[(Target::Fc2, 0)]), g, (d_f, d), Some(d_activated));
            self.linear_weights_backward(g, d_f, d_block.as_deref_mut().map(|b| &mut b.fc2), d);

            if let Some(norm) = &block.mlp_norm {
                let gradient = d_block.as_deref_mut().and_then(|b| b.mlp_norm.as_mut());
                self.norm_backward(norm, activated, d_activated, d_normed, gradient);
            }

            left.begin_backward(k, &block.fc1.weight, rows.len());
            for (i, (h, d_h)) in h.chunks_exact(fc1_out).zip(d_h.chunks_exact_mut(fc1_out)).enumerate() {
                match self.config.swiglu {
                    true => k.swiglu_backward(h, hidden, &d_g[i * hidden..(i + 1) * hidden], d_h),
                    false => k.gelu_backward(self.config.activation.into(), h, d_h),
                }
                left.push(k, d_h);
            }
            resize(d_normed, rows.len() * d);
            k.linear_backward_of(left.of(d_h), &block.fc1.weight, d_normed);
            if fc1_trained {
                self.layernorm(&block.norm2, x_mid, normed);
                lowrank.backward(k, (index, &[(Target::Fc1, 0)]), normed, (d_h, fc1_out), Some(d_normed));
                self.linear_weights_backward(normed, d_h, d_block.as_deref_mut().map(|b| &mut b.fc1), fc1_out);
            }
            self.norm_weights_backward(x_mid, d_normed, d_block.as_deref_mut().map(|b| &mut b.norm2));
            k.layernorm_backward(x_mid, &block.norm2.gamma, self.config.eps, d_normed, d_x);

            let d_o = &mut d_o[rows.start * d..rows.end * d];
            scale_backward((a, d_x), &block.ls1, d_block.as_deref_mut().map(|b| &mut b.ls1), d_normed);
            let d_a = if block.ls1.is_empty() { &*d_x } else { &*d_normed };
            k.linear_backward(d_a, &block.proj.weight, d_o);
            let read = match block.attn_norm.as_ref().filter(|_| o_trained) {
                Some(norm) => {
                    self.layernorm(norm, o, normed);
                    &*normed
                }
                None => o,
            };
            lowrank.backward(k, (index, &[(Target::O, 0)]), read, (d_a, d), Some(d_o));
            self.linear_weights_backward(read, d_a, d_block.as_deref_mut().map(|b| &mut b.proj), d);
            if let Some(norm) = &block.attn_norm {
                let gradient = d_block.as_deref_mut().and_then(|b| b.attn_norm.as_mut());
                self.norm_backward(norm, o, d_o, d_normed, gradient);
            }
        }
    }

    /// The first half of a block: the gradients of its projections, and through them and its norm onto that of the residual stream.
    fn project_backward(
        &self,
        index: usize,
        shape: GroupShape<'_>,
        tape: &BlockTape,
        needs_input: bool,
        buffers: &mut Buffers,
        training: &mut Training<'_>,
    ) {
        let k = self.kernels;
        let block = &self.weights.blocks[index];
        let d = self.config.width;
        let Buffers { normed, z, dropout, backward, .. } = buffers;
        let BackwardBuffers { d_x, d_normed, d_qkv, .. } = backward;
        let Training { adapter, gradients } = training;
        let Gradients { adapter: gradient, weights: d_weights, .. } = &mut **gradients;
        let mut d_block = d_weights.as_mut().map(|weights| &mut weights.blocks[index]);
        let targets = [(Target::Q, 0), (Target::K, d), (Target::V, 2 * d)];
        let trained = d_block.is_some() || targets.iter().any(|&(target, _)| adapter.update(index, target).is_some());
        for rows in shape.backward_chunks(d_block.is_some()) {
            let (x, d_qkv) = (of_rows(&tape.x, &rows, d), of_rows(d_qkv, &rows, 3 * d));
            if needs_input {
                resize(d_normed, rows.len() * d);
                k.linear_backward(d_qkv, &block.qkv.weight, d_normed);
            }
            if trained {
                self.layernorm(&block.norm1, x, normed);
                let mut lowrank = LowRankTraining { adapter, gradient, z, dropout: (shape.dropout, dropout) };
                lowrank.backward(k, (index, &targets), normed, (d_qkv, 3 * d), needs_input.then_some(&mut *d_normed));
                self.linear_weights_backward(normed, d_qkv, d_block.as_deref_mut().map(|b| &mut b.qkv), 3 * d);
            }
            if needs_input {
                self.norm_weights_backward(x, d_normed, d_block.as_deref_mut().map(|b| &mut b.norm1));
                let d_x = &mut d_x[rows.start * d..rows.end * d];
                k.layernorm_backward(x, &block.norm1.gamma, self.config.eps, d_normed, d_x);
            }
        }
    }

    pub(crate) fn linear_weights_backward(&self, x: &[f32], d_y: &[f32], gradient: Option<&mut Linear>, out: usize) {
        if let Some(Linear { weight, bias }) = gradient {
            self.kernels.linear_backward_weight(x, d_y, weight, bias, out);
        }
    }

    /// The gradient of a norm's output, `d [m, …]`, becomes that of its input `x`; `d_y` is scratch.
    fn norm_backward(&self, norm: &Norm, x: &[f32], d: &mut [f32], d_y: &mut Vec<f32>, gradient: Option<&mut Norm>) {
        d_y.clear();
        d_y.extend_from_slice(d);
        d.fill(0.0);
        self.kernels.layernorm_backward(x, &norm.gamma, self.config.eps, d_y, d);
        self.norm_weights_backward(x, d_y, gradient);
    }

    pub(crate) fn norm_weights_backward(&self, x: &[f32], d_y: &[f32], gradient: Option<&mut Norm>) {
        if let Some(Norm { gamma, beta }) = gradient {
            self.kernels.layernorm_backward_affine(x, self.config.eps, d_y, gamma, beta);
        }
    }

    /// From the first block's input to the tokens and their positions.
    fn norm_pre_backward(&self, shape: GroupShape<'_>, buffers: &mut Buffers, gradient: Option<&mut Weights>) {
        let Some(norm) = &self.weights.norm_pre else { return };
        let Buffers { embedded, backward: BackwardBuffers { d_x, d_normed, .. }, .. } = buffers;
        std::mem::swap(d_x, d_normed);
        resize(d_x, shape.rows() * self.config.width);
        d_x.fill(0.0);
        self.kernels.layernorm_backward(embedded, &norm.gamma, self.config.eps, d_normed, d_x);
        self.norm_weights_backward(embedded, d_normed, gradient.and_then(|weights| weights.norm_pre.as_mut()));
    }

    fn embed_backward(&self, shape: GroupShape<'_>, buffers: &mut Buffers, gradient: &mut Weights) {
        let d = self.config.width;
        let (class, prefix) = (self.config.class_tokens(), self.config.prefix_tokens());
        let Buffers { patches, backward, .. } = buffers;
        let BackwardBuffers { d_x, d_normed, .. } = backward;
        let add = |sum: &mut [f32], part: &[f32]| sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        let (class_positions, positions) = gradient.pos_embed.split_at_mut(self.config.position_prefix() * d);
        d_normed.clear();
        for d_x in d_x.chunks_exact(shape.tokens * d) {
            add(class_positions, d_x);
            add(positions, &d_x[prefix * d..]);
            let own = gradient.cls_token.len();
            add(&mut gradient.cls_token, &d_x[..own]);
            add(&mut gradient.dist_token, &d_x[own..class * d]);
            add(&mut gradient.reg_token, &d_x[class * d..prefix * d]);
            d_normed.extend_from_slice(&d_x[prefix * d..]);
        }
        self.linear_weights_backward(patches, d_normed, Some(&mut gradient.patch_embed), d);
    }
}

/// A branch's gradient before its layer scale, `d_f = gamma · d_x`, and adds to the gradient of `gamma`; nothing without
/// one. `f, d_x, d_f [m, d]`, `gamma [d]` or empty.
fn scale_backward((f, d_x): (&[f32], &[f32]), gamma: &[f32], gradient: Option<&mut Vec<f32>>, d_f: &mut Vec<f32>) {
    if gamma.is_empty() {
        return;
    }
    let d = gamma.len();
    d_f.clear();
    d_f.extend(d_x.chunks_exact(d).flat_map(|d_x| d_x.iter().zip(gamma).map(|(d_x, gamma)| gamma * d_x)));
    if let Some(gradient) = gradient {
        for (f, d_x) in f.chunks_exact(d).zip(d_x.chunks_exact(d)) {
            gradient.iter_mut().zip(f).zip(d_x).for_each(|((sum, f), d_x)| *sum += f * d_x);
        }
    }
}

/// The first block whose forward pass must be kept: that of the first adapted one, or of all where the gradient goes to the input; none
/// where only a head is trained.
pub(crate) fn tape_start(adapter: &Adapter, to_the_input: bool) -> Option<usize> {
    if to_the_input { Some(0) } else { adapter.first_block() }
}
