//! Attention pooling (Zhai et al. 2022, arXiv 2106.04560, section 3.2): one learnt query reads the patch tokens, and an MLP what it read.
//!
//! ```text
//! y = proj(softmax(q(latent) k(x)ᵀ / √(d/h)) v(x)),   feature = y + fc2(gelu(fc1(norm(y))))
//! ```

use crate::config::VitConfig;
use crate::weights::{Linear, Norm};

/// The parameters of attention pooling, timm's `attn_pool`; heads are those of the blocks.
#[derive(Clone, Debug)]
pub struct AttentionPool<W = Vec<f32>> {
    /// What asks, before its projection, `[d]`.
    pub latent: Vec<f32>,
    /// Query projection, `[d, d]`.
    pub q: Linear<W>,
    /// Fused key and value projection, `[2d, d]`.
    pub kv: Linear<W>,
    /// Output projection, `[d, d]`.
    pub proj: Linear<W>,
    /// LayerNorm before the MLP, which goes beside a residual branch.
    pub norm: Norm,
    /// First MLP layer, `[hidden, d]`.
    pub fc1: Linear<W>,
    /// Second MLP layer, `[d, hidden]`.
    pub fc2: Linear<W>,
}

/// Name and `(out, in)` features of every matrix, in the order of computation.
fn layers(config: &VitConfig) -> [(&'static str, (usize, usize)); 5] {
    let (d, hidden) = (config.width, config.mlp_hidden);
    [("q", (d, d)), ("kv", (2 * d, d)), ("proj", (d, d)), ("mlp.fc1", (hidden, d)), ("mlp.fc2", (d, hidden))]
}

impl<W> AttentionPool<W> {
    /// The same with its matrices, of `(out, in)` features, in another form.
    pub(crate) fn map<V>(self, config: &VitConfig, mut form: impl FnMut(W, (usize, usize)) -> V) -> AttentionPool<V> {
        let mut features = layers(config).into_iter().map(|(_, features)| features);
        let mut linear = |Linear { weight, bias }: Linear<W>| {
            let features = features.next().expect("five matrices");
            Linear { weight: form(weight, features), bias }
        };
        let AttentionPool { latent, q, kv, proj, norm, fc1, fc2 } = self;
        let (q, kv, proj) = (linear(q), linear(kv), linear(proj));
        AttentionPool { latent, q, kv, proj, norm, fc1: linear(fc1), fc2: linear(fc2) }
    }
}

impl AttentionPool {
    pub(crate) fn zeros(config: &VitConfig) -> Self {
        let [q, kv, proj, fc1, fc2] = layers(config).map(|(_, (out, input))| Linear::zeros(out, input, true));
        AttentionPool { latent: vec![0.0; config.width], q, kv, proj, norm: Norm::zeros(config.width), fc1, fc2 }
    }

    /// Name and shape of every tensor, in the order of [`AttentionPool::tensors`].
    pub(crate) fn tensor_shapes(config: &VitConfig) -> Vec<(String, Vec<usize>)> {
        let d = config.width;
        let mut shapes = vec![("attn_pool.latent".to_owned(), vec![1, 1, d])];
        let mut add = |name: String, shape: Vec<usize>| shapes.push((name, shape));
        for (name, (out, input)) in layers(config) {
            if name == "mlp.fc1" {
                add("attn_pool.norm.weight".to_owned(), vec![d]);
                add("attn_pool.norm.bias".to_owned(), vec![d]);
            }
            add(format!("attn_pool.{name}.weight"), vec![out, input]);
            add(format!("attn_pool.{name}.bias"), vec![out]);
        }
        shapes
    }

    pub(crate) fn tensors(&self) -> Vec<&Vec<f32>> {
        let AttentionPool { latent, q, kv, proj, norm, fc1, fc2 } = self;
        let mut all = vec![latent];
        all.extend([q, kv, proj].into_iter().flat_map(|Linear { weight, bias }| [weight, bias]));
        all.extend([&norm.gamma, &norm.beta]);
        all.extend([fc1, fc2].into_iter().flat_map(|Linear { weight, bias }| [weight, bias]));
        all
    }

    pub(crate) fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        let AttentionPool { latent, q, kv, proj, norm, fc1, fc2 } = self;
        let mut all = vec![latent];
        all.extend([q, kv, proj].into_iter().flat_map(|Linear { weight, bias }| [weight, bias]));
        all.extend([&mut norm.gamma, &mut norm.beta]);
        all.extend([fc1, fc2].into_iter().flat_map(|Linear { weight, bias }| [weight, bias]));
        all
    }

    pub(crate) fn by_ref(&self) -> AttentionPool<&[f32]> {
        AttentionPool {
            latent: self.latent.clone(),
            q: self.q.by_ref(),
            kv: self.kv.by_ref(),
            proj: self.proj.by_ref(),
            norm: self.norm.clone(),
            fc1: self.fc1.by_ref(),
            fc2: self.fc2.by_ref(),
        }
    }
}
