//! Attention pooling of one group, see [`melo_vit::AttentionPool`]: forward, backward, and how much each patch was read.

use crate::driver::Address;
use crate::forward::Pass;
use crate::network::AttentionPool;
use crate::operations::{Attention, Rows};
use melo_vit::{Error, ExplainMethod};

impl Pass<'_> {
    /// One query and all patches, which have neither rotations nor biases there.
    fn pool_attention(&self) -> Attention {
        let config = &self.net.config;
        let (images, tokens) = (self.plan.entries[config.depth], self.patches());
        Attention { images, tokens, heads: config.heads, width: config.head_width(), relative: None }
    }

    /// Keys and values `[n, p, 2d]`, probabilities `[n, h, p]` and what they read, `[n, d]`.
    fn pool_tape(&mut self) -> Result<[Address; 3], Error> {
        let (Attention { images, tokens, heads, .. }, d) = (self.pool_attention(), self.net.config.width);
        let kv = self.memory.floats("pool kv", 0, images * tokens * 2 * d)?;
        let probabilities = self.memory.floats("pool probabilities", 0, images * heads * tokens)?;
        Ok([kv, probabilities, self.memory.floats("pool o", 0, images * d)?])
    }

    /// Normalised tokens `x [n, t, d]` to `features [n, d]`.
    pub(crate) fn attention_pool(&mut self, pool: &AttentionPool, x: Address, features: Address) -> Result<(), Error> {
        let (gpu, config, of) = (self.gpu, &self.net.config, self.pool_attention());
        let (n, d, hidden) = (of.images, config.width, config.mlp_hidden);
        let entries: Vec<u32> = (0..n as u32).collect();
        let patches = self.patches_of(("pool patches", 0), x, &entries)?;
        let [kv, probabilities, o] = self.pool_tape()?;
        gpu.linear(&pool.kv, patches, Rows::new(kv, 2 * d), n * of.tokens, false)?;
        gpu.attention_pool((pool.query.at(), kv), (probabilities, o), of)?;
        let y = Rows::new(self.memory.floats("pool y", 0, n * d)?, d);
        gpu.linear(&pool.proj, Rows::new(o, d), y, n, false)?;
        let normed = Rows::new(self.memory.floats("pool normed", 0, n * d)?, d);
        gpu.layernorm(&pool.norm, y, normed, self.plain(n))?;
        let h = Rows::new(self.memory.floats("pool h", 0, n * hidden)?, hidden);
        gpu.linear(&pool.fc1, normed, h, n, false)?;
        let g = Rows::new(self.memory.floats("pool g", 0, n * hidden)?, hidden);
        gpu.activate((config.activation, false), h.at, g.at, [n, hidden])?;
        gpu.copy(y.at, features, n * d)?;
        gpu.linear(&pool.fc2, g, Rows::new(features, d), n, true)
    }

    /// Adds to the gradient of normalised tokens, `d_x [n, t, d]`, for that of features `[n, d]`, which is lost; leaves that of what was read
    /// in `pool d o`.
    pub(crate) fn attention_pool_backward(
        &mut self,
        pool: &AttentionPool,
        d_features: Rows,
        d_x: Address,
    ) -> Result<(), Error> {
        let (gpu, config, of) = (self.gpu, &self.net.config, self.pool_attention());
        let (n, d, hidden, rows) = (of.images, config.width, config.mlp_hidden, of.images * of.tokens);
        let d_h = Rows::new(self.memory.floats("pool g", 0, n * hidden)?, hidden);
        gpu.linear_backward(&pool.fc2, d_features, d_h, n)?;
        let h = self.memory.floats("pool h", 0, n * hidden)?;
        gpu.activate_backward((config.activation, false), (h, d_h.at), d_h.at, [n, hidden])?;
        let d_normed = Rows::new(self.memory.floats("pool normed", 0, n * d)?, d);
        gpu.linear_backward(&pool.fc1, d_h, d_normed, n)?;
        let y = Rows::new(self.memory.floats("pool y", 0, n * d)?, d);
        gpu.layernorm_backward(&pool.norm, (y, d_normed), d_features, self.plain(n), true)?;
        let d_o = Rows::new(self.memory.floats("pool d o", 0, n * d)?, d);
        gpu.linear_backward(&pool.proj, d_features, d_o, n)?;
        let [kv, probabilities, o] = self.pool_tape()?;
        let d_kv = self.memory.floats("pool d kv", 0, rows * 2 * d)?;
        gpu.attention_pool_backward((pool.query.at(), kv), (probabilities, o), (d_o.at, d_kv), of)?;
        let d_patches = self.memory.floats("pool patches", 0, rows * d)?;
        gpu.linear_backward(&pool.kv, Rows::new(d_kv, 2 * d), Rows::new(d_patches, d), rows)?;
        self.add_patches(d_patches, d_x, n)
    }

    /// How much the feature of the only image read each patch, `[p]`: the mean of the heads' probabilities, or of those times the logit's
    /// gradient by them, positive parts only.
    pub(crate) fn pool_relevance(&mut self, method: ExplainMethod) -> Result<Vec<f32>, Error> {
        let Attention { tokens, heads, width, .. } = self.pool_attention();
        let (gpu, d, [kv, probabilities, _]) = (self.gpu, self.net.config.width, self.pool_tape()?);
        let probabilities = gpu.floats(probabilities, heads * tokens)?;
        let slopes = match method {
            ExplainMethod::Rollout => vec![1.0; heads * tokens],
            ExplainMethod::Gradient => {
                let d_o = self.memory.floats("pool d o", 0, d)?;
                let (kv, d_o) = (gpu.floats(kv, tokens * 2 * d)?, gpu.floats(d_o, d)?);
                let slope = |head: usize, patch: usize| -> f32 {
                    let values = &kv[patch * 2 * d + d + head * width..][..width];
                    d_o[head * width..].iter().zip(values).map(|(d, v)| d * v).sum()
                };
                (0..heads * tokens).map(|at| slope(at / tokens, at % tokens)).collect()
            }
        };
        let read = |patch: usize| {
            let of_heads = (0..heads).map(|head| head * tokens + patch);
            of_heads.map(|at| (slopes[at] * probabilities[at]).max(0.0)).sum::<f32>() / heads as f32
        };
        Ok((0..tokens).map(read).collect())
    }
}
