//! Relevance maps, see [`ExplainMethod`]: one row of the product of all attentions, from the last block to the first.

use crate::engine::CudaEngine;
use crate::plan::{Plan, Store};
use melo_vit::{Error, ExplainMethod, Explanation, PluginRef, Pool, VitConfig};

impl CudaEngine {
    pub(crate) fn relevance(
        &self,
        image: &[f32],
        size: usize,
        plugin: PluginRef<'_>,
        class: usize,
        method: ExplainMethod,
    ) -> Result<Explanation, Error> {
        let config = &self.network.config;
        let mut store = Store::default();
        let plugins = [vec![store.number(plugin)]];
        let plan = Plan::new(config, &store, &plugins);
        let (positions, memory) = (self.positions((size, None))?, &mut *self.memory());
        let mut pass = self.pass(memory, &positions, (&store, &plan))?;
        pass.tape_from = Some(0);
        pass.embed(image)?;
        pass.blocks(0..config.depth)?;
        let features = pass.pool()?;
        let logits = pass.logits(features)?.swap_remove(0);

        let by_gradient = method == ExplainMethod::Gradient;
        if by_gradient {
            let mut d_logits = vec![0.0; logits.len()];
            d_logits[class] = 1.0;
            pass.head_backward(&d_logits, None)?;
        }
        let (d, t) = (config.width, config.tokens(size));
        let share = match config.pool {
            Pool::Map => [vec![0.0; config.prefix_tokens()], pass.pool_relevance(method)?].concat(),
            _ => share(config, t),
        };
        // Of the residual branch and of attention: half each, or all of both.
        let weights = if by_gradient { (1.0, 1.0) } else { (0.5, 0.5) };
        let mut read = pass.memory.hold("relevance", &share)?;
        let mut out = pass.memory.floats("relevance", 1, t)?;
        for block in (0..config.depth).rev() {
            if by_gradient {
                pass.block_backward(block, true, None)?;
            }
            let slot = pass.taped(block).1;
            let qkv = pass.memory.floats("qkv", slot, t * 3 * d)?;
            let lse = pass.memory.floats("lse", slot, t * config.heads)?;
            let d_o = by_gradient.then(|| pass.memory.floats("d o", 0, t * d)).transpose()?;
            self.gpu().attention_relevance((qkv, d_o, lse), (read, out), pass.attention(block), weights)?;
            std::mem::swap(&mut read, &mut out);
        }
        let mut prefix = self.gpu().floats(read, t)?;
        // What pooling read was carried by attention too.
        if by_gradient && config.pool != Pool::Map {
            // What attention carried, without the residual branch.
            prefix.iter_mut().zip(&share).for_each(|(relevance, share)| *relevance -= share);
        }
        let values = prefix.split_off(config.prefix_tokens());
        Ok(Explanation { grid: size / config.patch, values, prefix, logits })
    }
}

/// What heads read of every token by means, `[t]`.
fn share(config: &VitConfig, tokens: usize) -> Vec<f32> {
    let (class, prefix) = (config.class_tokens(), config.prefix_tokens());
    let of_class = |token: usize| if token < class { 1.0 / class as f32 } else { 0.0 };
    let of_patches = |token: usize| if token >= prefix { 1.0 / (tokens - prefix) as f32 } else { 0.0 };
    let of_token = |token: usize| match config.pool {
        Pool::Token => of_class(token),
        Pool::Avg => of_patches(token),
        Pool::Map => 0.0,
        Pool::TokenAvg => (of_class(token) + of_patches(token)) / 2.0,
    };
    (0..tokens).map(of_token).collect()
}
