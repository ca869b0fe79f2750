//! Attention pooling of one group, see [`crate::attention_pool`]: forward, backward, and how much each patch was read.

use super::buffers::{GroupShape, PoolTape, resize};
use super::packed::Packed;
use crate::attention_pool::AttentionPool;
use crate::explanation::ExplainMethod;
use melo_kernels::{AttentionShape, PackedWeight};

impl Packed {
    /// Normalised tokens `[m, d]` to features `[images, d]`; `scores` is scratch.
    pub(crate) fn attention_pool(
        &self,
        pool: &AttentionPool<PackedWeight>,
        shape: GroupShape<'_>,
        tokens: &[f32],
        (tape, scores): (&mut PoolTape, &mut Vec<f32>),
        features: &mut Vec<f32>,
    ) {
        let (k, d, prefix) = (self.kernels, self.config.width, self.config.prefix_tokens());
        let PoolTape { patches, kv, qkv, o, y, normed, h, g, .. } = tape;
        patches.clear();
        patches.extend(tokens.chunks_exact(shape.tokens * d).flat_map(|tokens| &tokens[prefix * d..]));
        resize(kv, 2 * patches.len());
        k.linear(patches, &pool.kv.weight, &pool.kv.bias, kv);
        let mut query = vec![0.0; d];
        k.linear(&pool.latent, &pool.q.weight, &pool.q.bias, &mut query);

        qkv.clear();
        resize(qkv, 3 * patches.len());
        for (qkv, kv) in qkv.chunks_exact_mut(3 * d).zip(kv.chunks_exact(2 * d)) {
            qkv[d..].copy_from_slice(kv);
        }
        let attention = self.pool_shape(shape);
        resize(o, shape.images * d);
        for (qkv, o) in qkv.chunks_exact_mut(attention.tokens * 3 * d).zip(o.chunks_exact_mut(d)) {
            qkv[..d].copy_from_slice(&query);
            k.attention_of(attention, qkv, 0..1, o, scores);
        }

        resize(y, o.len());
        k.linear(o, &pool.proj.weight, &pool.proj.bias, y);
        self.layernorm(&pool.norm, y, normed);
        resize(h, shape.images * self.config.mlp_hidden);
        k.linear(normed, &pool.fc1.weight, &pool.fc1.bias, h);
        resize(g, h.len());
        k.gelu(self.config.activation.into(), h, g);
        resize(features, y.len());
        k.linear(g, &pool.fc2.weight, &pool.fc2.bias, features);
        features.iter_mut().zip(&*y).for_each(|(feature, y)| *feature += y);
    }

    /// Features' gradient `[images, d]` to that of the normalised patches, which takes their place in the tape, `[images · p, d]`.
    pub(crate) fn attention_pool_backward(
        &self,
        pool: &AttentionPool<PackedWeight>,
        shape: GroupShape<'_>,
        d_features: &[f32],
        (tape, scores): (&mut PoolTape, &mut Vec<f32>),
        mut gradient: Option<&mut AttentionPool>,
    ) {
        let (k, d) = (self.kernels, self.config.width);
        let PoolTape { patches, kv, qkv, o, y, normed, h, g, d_o } = tape;
        let mut weights = |x: &[f32], d_y: &[f32], of: fn(&mut AttentionPool) -> &mut crate::weights::Linear, out| {
            self.linear_weights_backward(x, d_y, gradient.as_deref_mut().map(of), out);
        };
        let mut d_y = d_features.to_vec();
        weights(g, d_features, |pool| &mut pool.fc2, d);
        let mut d_h = vec![0.0; h.len()];
        k.linear_backward(d_features, &pool.fc2.weight, &mut d_h);
        k.gelu_backward(self.config.activation.into(), h, &mut d_h);
        weights(normed, &d_h, |pool| &mut pool.fc1, self.config.mlp_hidden);
        let mut d_normed = vec![0.0; y.len()];
        k.linear_backward(&d_h, &pool.fc1.weight, &mut d_normed);
        k.layernorm_backward(y, &pool.norm.gamma, self.config.eps, &d_normed, &mut d_y);
        weights(o, &d_y, |pool| &mut pool.proj, d);
        resize(d_o, o.len());
        k.linear_backward(&d_y, &pool.proj.weight, d_o);

        let attention = self.pool_shape(shape);
        let of_image = attention.tokens * 3 * d;
        let mut d_query = vec![0.0; d];
        let mut d_qkv = vec![0.0; of_image];
        let images = qkv.chunks_exact(of_image).zip(d_o.chunks_exact(d));
        for ((qkv, d_o), d_kv) in images.zip(kv.chunks_exact_mut(attention.tokens * 2 * d)) {
            k.attention_backward_of(attention, qkv, 0..1, d_o, &mut d_qkv, scores);
            d_query.iter_mut().zip(&d_qkv).for_each(|(sum, d_q)| *sum += d_q);
            for (d_kv, d_qkv) in d_kv.chunks_exact_mut(2 * d).zip(d_qkv.chunks_exact(3 * d)) {
                d_kv.copy_from_slice(&d_qkv[d..]);
            }
        }
        weights(patches, kv, |pool| &mut pool.kv, 2 * d);
        weights(&pool.latent, &d_query, |pool| &mut pool.q, d);
        k.linear_backward(kv, &pool.kv.weight, patches);
        if let Some(gradient) = gradient {
            self.norm_weights_backward(y, &d_normed, Some(&mut gradient.norm));
            let mut d_latent = vec![0.0; d];
            k.linear_backward(&d_query, &pool.q.weight, &mut d_latent);
            gradient.latent.iter_mut().zip(d_latent).for_each(|(sum, d)| *sum += d);
        }
    }

    /// How much the feature of a single image read each patch, `[p]`: the mean of the heads' probabilities, or of those times the
    /// logit's gradient by them, positive parts only.
    pub(crate) fn pool_relevance(&self, shape: GroupShape<'_>, tape: &PoolTape, method: ExplainMethod) -> Vec<f32> {
        let attention = self.pool_shape(shape);
        let (p, d) = (attention.tokens, self.config.width);
        // Only the first row asks.
        let mut d_o = tape.d_o.clone();
        d_o.resize(p * d, 0.0);
        let (mut joint, mut probabilities, mut slopes) = (vec![0.0; p], vec![0.0; p * p], vec![1.0; p * p]);
        for head in 0..self.config.heads {
            self.kernels.attention_probabilities(attention, &tape.qkv, head, &mut probabilities);
            if method == ExplainMethod::Gradient {
                self.kernels.attention_probabilities_backward(attention, &tape.qkv, &d_o, head, &mut slopes);
            }
            for ((joint, probability), slope) in joint.iter_mut().zip(&probabilities).zip(&slopes) {
                *joint += (slope * probability).max(0.0) / self.config.heads as f32;
            }
        }
        joint
    }

    /// One query and all patches, which have neither rotations nor biases there.
    fn pool_shape(&self, shape: GroupShape<'_>) -> AttentionShape<'static> {
        let tokens = shape.tokens - self.config.prefix_tokens();
        AttentionShape { tokens, heads: self.config.heads, width: self.config.width, bias: None }
    }
}
