//! The backward pass of one group, written out: what is frozen gets no gradient, and nothing below the first adapted
//! block is visited. GELU, both norms and the attention probabilities are computed again rather than kept.

use super::buffers::{BackwardBuffers, BlockTape, Buffers, GroupShape, resize};
use super::packed::Packed;
use crate::adapter::{Adapter, Target};
use crate::config::Pool;
use crate::dropout::{DropoutScratch, GroupDropout};
use crate::gradients::Gradients;
use crate::head::Head;
use crate::weights::{Block, Linear, Norm, Weights};
use melo_kernels::{LowRankGradient, Mat, MatMut, PackedWeight};

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

/// One linear layer with its low-rank updates in the backward pass.
struct AdaptedLinear<'a> {
    block: usize,
    /// Targets, with the first output column of each.
    targets: &'a [(Target, usize)],
    layer: &'a Linear<PackedWeight>,
}

impl Packed {
    /// Adds the gradients of one group, whose forward pass lies in `buffers`, for `d_logits [images, c]`.
    pub(crate) fn backward(
        &self,
        shape: GroupShape<'_>,
        (adapter, head): (&Adapter, &Head),
        d_logits: &[f32],
        buffers: &mut Buffers,
        gradients: &mut Gradients,
    ) {
        self.head_backward(shape, head, d_logits, buffers, &mut gradients.head);
        let all_weights = gradients.weights.is_some();
        let Some(first) = tape_start(adapter, all_weights) else {
            return;
        };
        self.pool_backward(shape, buffers, gradients.weights.as_mut());
        for block in (first..self.config.depth).rev() {
            let tape = std::mem::take(&mut buffers.tape[block - first]);
            let needs_input = all_weights || block > first;
            self.block_backward(block, shape, &tape, needs_input, buffers, Training { adapter, gradients });
            buffers.tape[block - first] = tape;
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
        let (n, c, width) = (shape.images, head.classes(), self.config.feature_width());
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
        let Buffers { x, pooled, backward, .. } = buffers;
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
        let share = 1.0 / (shape.tokens - prefix) as f32;
        for (d_x, d_pooled) in images.zip(d_pooled.chunks_exact(self.config.feature_width())) {
            let (d_token, d_mean) = d_pooled.split_at(d_pooled.len() - d);
            d_x[..d_token.len()].copy_from_slice(d_token);
            for d_token in d_x[prefix * d..].chunks_exact_mut(d) {
                d_token.iter_mut().zip(d_mean).for_each(|(d, mean)| *d = share * mean);
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

    /// Residual stream's gradient from a block's output to its input; leaves in `d_o` that of the attention's output.
    pub(crate) fn block_backward(
        &self,
        index: usize,
        shape: GroupShape<'_>,
        tape: &BlockTape,
        needs_input: bool,
        buffers: &mut Buffers,
        training: Training<'_>,
    ) {
        let k = self.kernels;
        let block = &self.weights.blocks[index];
        let (d, hidden, m, t) = (self.config.width, self.config.mlp_hidden, shape.rows(), shape.tokens);
        let Buffers { normed, g, scores, z, bottleneck: scratch, dropout, backward, .. } = buffers;
        let BackwardBuffers { d_x, d_normed, d_qkv, d_o, d_h, d_g, .. } = backward;
        let Gradients { adapter: gradient, weights: d_weights, .. } = training.gradients;
        let bottleneck = training.adapter.bottlenecks.blocks[index].as_ref();
        let mut d_block = d_weights.as_mut().map(|weights| &mut weights.blocks[index]);
        scale_backward((&tape.f, d_x), &block.ls2, d_block.as_deref_mut().map(|b| &mut b.ls2), d_normed);
        let mut branch = !block.ls2.is_empty();
        if let Some((bottleneck, gradient)) = bottleneck.zip(gradient.bottlenecks.blocks[index].as_mut()) {
            if !branch {
                d_normed.clone_from(d_x);
            }
            bottleneck.backward(k, (&tape.f, d_x), gradient, d_normed, scratch);
            branch = true;
        }
        let d_f = if branch { &*d_normed } else { &*d_x };
        let dropout = (shape.dropout, dropout);
        let mut lowrank = LowRankTraining { adapter: training.adapter, gradient, z, dropout };

        resize(g, m * hidden);
        self.activate(&tape.h, g);
        resize(d_h, m * self.config.fc1_out());
        let d_activated = if self.config.swiglu { &mut *d_g } else { &mut *d_h };
        resize(d_activated, m * hidden);
        let fc2 = AdaptedLinear { block: index, targets: &[(Target::Fc2, 0)], layer: &block.fc2 };
        self.linear_backward(&fc2, &mut lowrank, g, d_f, Some(d_activated));
        self.linear_weights_backward(g, d_f, d_block.as_deref_mut().map(|b| &mut b.fc2), d);
        match self.config.swiglu {
            true => k.swiglu_backward(&tape.h, hidden, d_g, d_h),
            false => k.gelu_backward(self.config.activation.into(), &tape.h, d_h),
        }

        self.layernorm(&block.norm2, &tape.x_mid, normed);
        resize(d_normed, m * d);
        let fc1 = AdaptedLinear { block: index, targets: &[(Target::Fc1, 0)], layer: &block.fc1 };
        self.linear_backward(&fc1, &mut lowrank, normed, d_h, Some(d_normed));
        self.linear_weights_backward(normed, d_h, d_block.as_deref_mut().map(|b| &mut b.fc1), self.config.fc1_out());
        self.norm_weights_backward(&tape.x_mid, d_normed, d_block.as_deref_mut().map(|b| &mut b.norm2));
        k.layernorm_backward(&tape.x_mid, &block.norm2.gamma, self.config.eps, d_normed, d_x);

        resize(d_o, m * d);
        scale_backward((&tape.a, d_x), &block.ls1, d_block.as_deref_mut().map(|b| &mut b.ls1), d_normed);
        let d_a = if block.ls1.is_empty() { &*d_x } else { &*d_normed };
        let proj = AdaptedLinear { block: index, targets: &[(Target::O, 0)], layer: &block.proj };
        self.linear_backward(&proj, &mut lowrank, &tape.o, d_a, Some(d_o));
        self.linear_weights_backward(&tape.o, d_a, d_block.as_deref_mut().map(|b| &mut b.proj), d);
        resize(d_qkv, m * 3 * d);
        let images = tape.qkv.chunks_exact(t * 3 * d).zip(d_o.chunks_exact(t * d));
        for ((qkv, d_o), d_qkv) in images.zip(d_qkv.chunks_exact_mut(t * 3 * d)) {
            k.attention_backward(self.attention_shape(t), qkv, d_o, d_qkv, scores);
        }

        self.layernorm(&block.norm1, &tape.x, normed);
        let targets = [(Target::Q, 0), (Target::K, d), (Target::V, 2 * d)];
        let qkv = AdaptedLinear { block: index, targets: &targets, layer: &block.qkv };
        self.linear_backward(&qkv, &mut lowrank, normed, d_qkv, needs_input.then_some(&mut *d_normed));
        self.linear_weights_backward(normed, d_qkv, d_block.as_deref_mut().map(|b: &mut Block| &mut b.qkv), 3 * d);
        if needs_input {
            self.norm_weights_backward(&tape.x, d_normed, d_block.map(|b| &mut b.norm1));
            k.layernorm_backward(&tape.x, &block.norm1.gamma, self.config.eps, d_normed, d_x);
        }
    }

    /// Gradients of a layer's low-rank matrices, and of its input where `d_x [m, in]` is given.
    fn linear_backward(
        &self,
        linear: &AdaptedLinear<'_>,
        lowrank: &mut LowRankTraining<'_>,
        x: &[f32],
        d_y: &[f32],
        mut d_x: Option<&mut [f32]>,
    ) {
        let out = linear.layer.weight.out_features();
        if let Some(d_x) = d_x.as_deref_mut() {
            self.kernels.linear_backward(d_y, &linear.layer.weight, d_x);
        }
        let LowRankTraining { adapter, gradient, z, dropout: (dropout, scratch) } = lowrank;
        for &(target, column) in linear.targets {
            let pair = &mut gradient.blocks[linear.block][target as usize];
            if let (Some(update), Some(pair)) = (adapter.update(linear.block, target), pair) {
                let gradient = LowRankGradient { d_a: &mut pair.a, d_b: &mut pair.b };
                let d_y = (&d_y[column..], out);
                let Some(dropout) = dropout else {
                    self.kernels.lowrank_backward(update, x, d_y, gradient, d_x.as_deref_mut(), z);
                    continue;
                };
                dropout.apply((linear.block, target), x, linear.layer.weight.in_features(), scratch);
                let DropoutScratch { x: dropped, d_x: d_dropped, .. } = &mut **scratch;
                d_dropped.clear();
                d_dropped.resize(x.len(), 0.0);
                self.kernels.lowrank_backward(update, dropped, d_y, gradient, d_x.is_some().then_some(d_dropped), z);
                if let Some(d_x) = d_x.as_deref_mut() {
                    scratch.spread(d_x);
                }
            }
        }
    }

    fn linear_weights_backward(&self, x: &[f32], d_y: &[f32], gradient: Option<&mut Linear>, out: usize) {
        if let Some(Linear { weight, bias }) = gradient {
            self.kernels.linear_backward_weight(x, d_y, weight, bias, out);
        }
    }

    fn norm_weights_backward(&self, x: &[f32], d_y: &[f32], gradient: Option<&mut Norm>) {
        if let Some(Norm { gamma, beta }) = gradient {
            self.kernels.layernorm_backward_affine(x, self.config.eps, d_y, gamma, beta);
        }
    }

    fn embed_backward(&self, shape: GroupShape<'_>, buffers: &mut Buffers, gradient: &mut Weights) {
        let d = self.config.width;
        let (class, prefix) = (self.config.class_tokens(), self.config.prefix_tokens());
        let Buffers { embedded, patches, backward, .. } = buffers;
        let BackwardBuffers { d_x, d_normed, .. } = backward;
        if let Some(norm) = &self.weights.norm_pre {
            std::mem::swap(d_x, d_normed);
            resize(d_x, shape.rows() * d);
            d_x.fill(0.0);
            self.kernels.layernorm_backward(embedded, &norm.gamma, self.config.eps, d_normed, d_x);
            self.norm_weights_backward(embedded, d_normed, gradient.norm_pre.as_mut());
        }
        let add = |sum: &mut [f32], part: &[f32]| sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        let (class_positions, positions) = gradient.pos_embed.split_at_mut(self.config.position_prefix() * d);
        d_normed.clear();
        for d_x in d_x.chunks_exact(shape.tokens * d) {
            add(class_positions, d_x);
            add(positions, &d_x[prefix * d..]);
            add(&mut gradient.cls_token, &d_x[..d]);
            add(&mut gradient.dist_token, &d_x[d..class * d]);
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

/// The first block whose forward pass must be kept; none where only a head is trained.
pub(crate) fn tape_start(adapter: &Adapter, all_weights: bool) -> Option<usize> {
    if all_weights { Some(0) } else { adapter.first_block() }
}
