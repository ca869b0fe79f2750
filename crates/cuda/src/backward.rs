//! The backward pass of one group: gradients go through the frozen weights, and stay where something is trained.

use crate::driver::Address;
use crate::forward::Pass;
use crate::operations::{NormRows, Rows};
use crate::plan::Store;
use melo_vit::{Activation, Error, Target};

/// Sums of the gradients of what is trained, in the places of the store.
#[derive(Clone, Copy)]
pub(crate) struct Sums<'a> {
    pub(crate) store: &'a Store<'a>,
    pub(crate) at: Address,
}

impl Pass<'_> {
    /// From the gradient of what a step's head gives to that of the stream behind the last block, in `d x`, without what is read of patches,
    /// see [`Pass::add_read_gradient`]; adds to the head's.
    pub(crate) fn outputs_backward(&mut self, d_outputs: &[f32], sums: Sums<'_>) -> Result<(), Error> {
        match self.plan.dense.first() {
            Some(head) => self.read_backward(head, d_outputs, sums),
            None => self.head_backward(d_outputs, Some(sums)),
        }
    }

    /// Adds to the gradients of a head, of what it gave and what it read.
    pub(crate) fn head_gradient(
        &mut self,
        (d_given, given): (Rows, usize),
        read: (Rows, usize),
        rows: usize,
        Sums { store, at }: Sums<'_>,
    ) -> Result<(), Error> {
        let [weight, bias] = store.trained_head();
        self.gradient(Some((d_given, given)), read, (rows, 1.0), at.skip(weight))?;
        self.gradient(None, (d_given, given), (rows, 1.0), at.skip(bias))
    }

    /// From the gradient of the logits `[n, c]` to that of the stream behind the last block, in `d x`; adds to the head's.
    pub(crate) fn head_backward(&mut self, d_logits: &[f32], sums: Option<Sums<'_>>) -> Result<(), Error> {
        let (n, width) = (self.plan.answers.len(), self.net.config.feature_width());
        let classes = d_logits.len() / n;
        let d_logits = Rows::new(self.memory.hold("d logits", d_logits)?, classes);
        if let Some(sums) = sums {
            let read = Rows::new(self.memory.floats("read", 0, n * width)?, width);
            self.head_gradient((d_logits, classes), (read, width), n, sums)?;
        }
        let d_features = Rows::new(self.memory.floats("d features", 0, n * width)?, width);
        self.gpu.grouped(d_logits, d_features, self.heads_product(width, true), false)?;
        self.pool_backward(d_features)
    }

    fn gradient(
        &mut self,
        p: Option<(Rows, usize)>,
        q: (Rows, usize),
        (rows, scale): (usize, f32),
        sum: Address,
    ) -> Result<(), Error> {
        let (gpu, memory) = (self.gpu, &mut *self.memory);
        gpu.gradient(p, q, (rows, scale), sum, |floats| memory.floats("parts", 0, floats))
    }

    fn pool_backward(&mut self, d_features: Rows) -> Result<(), Error> {
        let (net, gpu) = (self.net, self.gpu);
        let (depth, d, width) = (net.config.depth, net.config.width, net.config.feature_width());
        let (entries, m) = (self.plan.entries[depth], self.rows(depth));
        if let Some(norm) = &net.fc_norm {
            let pooled = Rows::new(self.memory.floats("features", 0, entries * width)?, d);
            let d_features = Rows::new(d_features.at, d);
            gpu.layernorm_backward(norm, (pooled, d_features), d_features, self.plain(entries * width / d), false)?;
        }
        let d_x = self.memory.floats("d x", 0, m * d)?;
        gpu.clear(d_x, m * d)?;
        for (mean, column) in self.means(net.config.pool, entries) {
            gpu.mean_tokens_backward(d_features.at_column(column), d_x, mean)?;
        }
        if let Some(pool) = &net.attn_pool {
            self.attention_pool_backward(pool, d_features, d_x)?;
        }
        let Some(norm) = &net.norm else { return Ok(()) };
        let (x, d_x) = (Rows::new(self.stream(depth)?, d), Rows::new(d_x, d));
        gpu.layernorm_backward(norm, (x, d_x), d_x, self.plain(m), false)
    }

    /// From the gradient of a block's output in `d x` to that of its input; leaves that of what attention gave in `d o`. Without
    /// `needs_input` it ends where nothing below is trained.
    pub(crate) fn block_backward(
        &mut self,
        index: usize,
        needs_input: bool,
        sums: Option<Sums<'_>>,
    ) -> Result<(), Error> {
        self.mlp_backward(index, sums)?;
        self.attend_backward(index, needs_input, sums)
    }

    /// From the gradient of the first block's input, in `d x`, to that of the embedded patches of each image, `[p, d]`.
    pub(crate) fn embed_backward(&mut self) -> Result<Vec<Vec<f32>>, Error> {
        let (d, t, m) = (self.net.config.width, self.tokens(), self.rows(0));
        let d_x = Rows::new(self.memory.floats("d x", 0, m * d)?, d);
        if let Some(norm) = &self.net.norm_pre {
            let assembled = Rows::new(self.memory.floats("assembled", 0, m * d)?, d);
            self.gpu.layernorm_backward(norm, (assembled, d_x), d_x, self.plain(m), false)?;
        }
        let (d_x, prefix) = (self.gpu.floats(d_x.at, m * d)?, self.net.config.prefix_tokens());
        Ok(d_x.chunks_exact(t * d).map(|d_x| d_x[prefix * d..].to_vec()).collect())
    }

    fn mlp_backward(&mut self, index: usize, sums: Option<Sums<'_>>) -> Result<(), Error> {
        let (net, gpu) = (self.net, self.gpu);
        let (block, config, m) = (&net.blocks[index], &net.config, self.rows(index));
        let (d, hidden, fc1_out, slot) = (config.width, config.mlp_hidden, config.fc1_out(), self.taped(index).1);
        let d_x = Rows::new(self.memory.floats("d x", 0, m * d)?, d);
        let bottleneck = self.plan.bottleneck(index);
        let mut d_f = d_x;
        if block.ls2.is_some() || bottleneck.is_some() {
            d_f = Rows::new(self.memory.floats("d branch", 0, m * d)?, d);
            gpu.scaled(d_x.at, block.ls2.as_ref().map(|gamma| gamma.at()), d_f.at, [m, d], false)?;
        }
        if bottleneck.is_some() {
            self.bottleneck_backward(index, d_x, d_f, sums)?;
        }
        let h = Rows::new(self.memory.floats("h", slot, m * fc1_out)?, fc1_out);
        let (activated, g) = self.fc2_input(index, h.at)?;
        let d_g = Rows::new(self.memory.floats("d hidden", 0, m * hidden)?, hidden);
        gpu.linear_backward(&block.fc2, d_f, d_g, m)?;
        self.adapt_backward((index, Target::Fc2), g, d_f, Some(d_g), sums)?;
        if let Some(norm) = &block.mlp_norm {
            gpu.layernorm_backward(norm, (activated, d_g), d_g, NormRows { rows: m, inner: 1, width: hidden }, false)?;
        }
        let d_h = Rows::new(self.memory.floats("d h", 0, m * fc1_out)?, fc1_out);
        gpu.activate_backward((config.activation, config.swiglu), (h.at, d_g.at), d_h.at, [m, hidden])?;
        let d_normed = Rows::new(self.memory.floats("d normed", 0, m * d)?, d);
        gpu.linear_backward(&block.fc1, d_h, d_normed, m)?;
        let middle = Rows::new(self.memory.floats("kept middle", slot, m * d)?, d);
        if self.plan.low_rank(index, Target::Fc1).is_some() {
            let normed = Rows::new(self.memory.floats("normed", 0, m * d)?, d);
            gpu.layernorm(&block.norm2, middle, normed, self.plain(m))?;
            self.adapt_backward((index, Target::Fc1), normed, d_h, Some(d_normed), sums)?;
        }
        gpu.layernorm_backward(&block.norm2, (middle, d_normed), d_x, self.plain(m), true)
    }

    /// Adds to the gradients of a bottleneck, and its share to `d_f`.
    fn bottleneck_backward(&mut self, index: usize, d_y: Rows, d_f: Rows, sums: Option<Sums<'_>>) -> Result<(), Error> {
        let Some(pair) = self.plan.bottleneck(index) else { return Ok(()) };
        let (d, m, width) = (self.net.config.width, self.rows(index), pair.inner);
        let f = Rows::new(self.memory.floats("f", self.taped(index).1, m * d)?, d);
        let (z, a) = self.bottleneck_hidden(index, pair, f)?;
        let places = sums.and_then(|sums| Some((sums.at, sums.store.trained_bottleneck(index)?)));
        if let Some((at, [_, _, up, up_bias])) = places {
            self.gradient(Some((d_y, d)), (a, width), (m, 1.0), at.skip(up))?;
            self.gradient(None, (d_y, d), (m, 1.0), at.skip(up_bias))?;
        }
        self.gpu.grouped(d_y, a, self.product(index, pair, 2), false)?;
        self.gpu.activate_backward((Activation::Erf, false), (z.at, a.at), a.at, [m, width])?;
        if let Some((at, [down, down_bias, ..])) = places {
            self.gradient(Some((a, width)), (f, d), (m, 1.0), at.skip(down))?;
            self.gradient(None, (a, width), (m, 1.0), at.skip(down_bias))?;
        }
        self.gpu.grouped(a, d_f, self.product(index, pair, 3), true)
    }

    fn attend_backward(&mut self, index: usize, needs_input: bool, sums: Option<Sums<'_>>) -> Result<(), Error> {
        let (net, gpu) = (self.net, self.gpu);
        let (block, d, m) = (&net.blocks[index], net.config.width, self.rows(index));
        let slot = self.taped(index).1;
        let d_x = Rows::new(self.memory.floats("d x", 0, m * d)?, d);
        let mut d_a = d_x;
        if let Some(gamma) = &block.ls1 {
            d_a = Rows::new(self.memory.floats("d branch", 0, m * d)?, d);
            gpu.scaled(d_x.at, Some(gamma.at()), d_a.at, [m, d], false)?;
        }
        let [o, d_o, normed] = [("o", slot), ("d o", 0), ("normed", 0)]
            .map(|(name, slot)| self.memory.floats(name, slot, m * d).map(|at| Rows::new(at, d)));
        let (o, d_o, normed) = (o?, d_o?, normed?);
        gpu.linear_backward(&block.proj, d_a, d_o, m)?;
        let mut read = o;
        if let Some(norm) = &block.attn_norm {
            gpu.layernorm(norm, o, normed, self.plain(m))?;
            read = normed;
        }
        self.adapt_backward((index, Target::O), read, d_a, Some(d_o), sums)?;
        if let Some(norm) = &block.attn_norm {
            gpu.layernorm_backward(norm, (o, d_o), d_o, self.plain(m), false)?;
        }

        let attention = self.attention(index);
        let qkv = self.memory.floats("qkv", slot, m * 3 * d)?;
        let lse = self.memory.floats("lse", slot, m * net.config.heads)?;
        let d_qkv = Rows::new(self.memory.floats("d qkv", 0, m * 3 * d)?, 3 * d);
        let delta = self.memory.floats("delta", 0, m * net.config.heads)?;
        gpu.attention_backward((qkv, o.at, lse), d_o.at, (d_qkv.at, delta), attention)?;
        if let Some(turns) = self.turns() {
            gpu.rotate(d_qkv.at, attention, turns, true)?;
        }
        if let Some(norms) = &block.qk_norm {
            let raw = Rows::new(self.memory.floats("raw qkv", slot, m * 3 * d)?, 3 * d);
            for (part, norm) in norms.iter().enumerate() {
                let (raw, d_part) = (raw.at_column(part * d), d_qkv.at_column(part * d));
                gpu.layernorm_backward(norm, (raw, d_part), d_part, self.heads(m), false)?;
            }
        }

        let x = Rows::new(self.memory.floats("kept x", slot, m * d)?, d);
        let d_normed = Rows::new(self.memory.floats("d normed", 0, m * d)?, d);
        if needs_input {
            gpu.linear_backward(&block.qkv, d_qkv, d_normed, m)?;
        }
        gpu.layernorm(&block.norm1, x, normed, self.plain(m))?;
        for (part, target) in [Target::Q, Target::K, Target::V].into_iter().enumerate() {
            let d_part = d_qkv.at_column(part * d);
            self.adapt_backward((index, target), normed, d_part, needs_input.then_some(d_normed), sums)?;
        }
        if needs_input {
            gpu.layernorm_backward(&block.norm1, (x, d_normed), d_x, self.plain(m), true)?;
        }
        Ok(())
    }

    /// Adds to the gradients of a low-rank update, and its share to `d_x`.
    fn adapt_backward(
        &mut self,
        place: (usize, Target),
        x: Rows,
        d_y: Rows,
        d_x: Option<Rows>,
        sums: Option<Sums<'_>>,
    ) -> Result<(), Error> {
        let Some(pair) = self.plan.low_rank(place.0, place.1) else { return Ok(()) };
        let (m, rank) = (self.rows(place.0), pair.inner);
        let d_z = Rows::new(self.memory.floats("d z", 0, m * rank)?, rank);
        self.gpu.grouped(d_y, d_z, self.product(place.0, pair, 2), false)?;
        if let Some((at, [a, b], scale)) = sums.and_then(|sums| sums.low_rank(place)) {
            let (read, z) = self.shrink(place, pair, x)?;
            self.gradient(Some((d_z, rank)), (read, pair.ins), (m, 1.0), at.skip(a))?;
            self.gradient(Some((d_y, pair.outs)), (z, rank), (m, scale), at.skip(b))?;
        }
        let Some(d_x) = d_x else { return Ok(()) };
        let Some(mask) = self.mask(place, pair) else {
            return self.gpu.grouped(d_z, d_x, self.product(place.0, pair, 3), true);
        };
        let d_dropped = Rows::new(self.memory.floats("dropped", 0, m * pair.ins)?, pair.ins);
        self.gpu.grouped(d_z, d_dropped, self.product(place.0, pair, 3), false)?;
        self.gpu.dropout(d_dropped, d_x, mask, true)
    }
}

impl Sums<'_> {
    /// The sums, the places of `A` and `B` in them, and the scale.
    fn low_rank(&self, (block, target): (usize, Target)) -> Option<(Address, [usize; 2], f32)> {
        let (places, scale) = self.store.trained(block, target)?;
        Some((self.at, places, scale))
    }
}
