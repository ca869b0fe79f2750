//! The forward pass of one group: images to the residual stream, through the blocks with plug-ins beside them, to what heads give.

use crate::driver::Address;
use crate::gpu::{Gpu, Memory};
use crate::network::{Network, Positions};
use crate::operations::{Attention, Grouped, Mask, Mean, NormRows, Rows, Turns};
use crate::plan::{Pair, Plan};
use melo_vit::{Activation, Dropout, Error, Pool, Target};
use std::ops::Range;

/// A group on its way.
pub(crate) struct Pass<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) net: &'a Network,
    pub(crate) positions: &'a Positions,
    pub(crate) memory: &'a mut Memory,
    pub(crate) plan: &'a Plan,
    /// Matrices of all plug-ins, and the plan's table.
    pub(crate) store: Address,
    pub(crate) table: Address,
    /// Dropout, and the group's first image within the batch.
    pub(crate) dropout: Option<(Dropout, usize)>,
    /// The first block that leaves what its backward pass needs.
    pub(crate) tape_from: Option<usize>,
    /// Blocks of which class and mean patch token come behind the outputs.
    pub(crate) intermediates: &'a [usize],
}

impl Pass<'_> {
    /// Tokens of an image.
    pub(crate) fn tokens(&self) -> usize {
        self.net.config.volume_tokens(self.positions.size, self.positions.layers.unwrap_or(1))
    }

    /// Rows of the residual stream in a block.
    pub(crate) fn rows(&self, block: usize) -> usize {
        self.plan.entries[block] * self.tokens()
    }

    /// Whether a block leaves what its backward pass needs, and the number of the buffers for it.
    pub(crate) fn taped(&self, block: usize) -> (bool, usize) {
        match self.tape_from {
            Some(first) if block >= first => (true, block + 1),
            _ => (false, 0),
        }
    }

    pub(crate) fn attention(&self, block: usize) -> Attention {
        let config = &self.net.config;
        Attention {
            images: self.plan.entries[block],
            tokens: self.tokens(),
            heads: config.heads,
            width: config.head_width(),
            relative: self.positions.relative(block),
        }
    }

    pub(crate) fn plain(&self, rows: usize) -> NormRows {
        NormRows { rows, inner: 1, width: self.net.config.width }
    }

    /// Images `[n, 3, s, s]`, or their patches as they come embedded, to the residual stream.
    pub(crate) fn embed(&mut self, images: &[f32]) -> Result<(), Error> {
        let config = &self.net.config;
        let (d, t, f, patch) = (config.width, self.tokens(), config.prefix_tokens(), config.patch);
        let (n, side) = (images.len() / self.positions.loaded(config), 3 * patch * patch);
        let rows = n * (t - f);
        let mut embedded = self.memory.hold("images", images)?;
        if self.positions.layers.is_none() {
            let unfolded = self.memory.floats("unfolded", 0, rows * side)?;
            self.gpu.unfold(embedded, unfolded, [n, self.positions.size, patch])?;
            embedded = self.memory.floats("normed", 0, rows * d)?;
            self.gpu.linear(&self.net.patch_embed, Rows::new(unfolded, side), Rows::new(embedded, d), rows, false)?;
        }
        let x = self.memory.floats("x", 0, n * t * d)?;
        let positions = self.positions.patches.as_ref().map(|positions| positions.at());
        let parts = (self.positions.prefix.at(), embedded, positions);
        let Some(norm) = &self.net.norm_pre else { return self.gpu.assemble(parts, x, [n, t, f, d]) };
        let assembled = self.memory.floats("assembled", 0, n * t * d)?;
        self.gpu.assemble(parts, assembled, [n, t, f, d])?;
        self.gpu.layernorm(norm, Rows::new(assembled, d), Rows::new(x, d), self.plain(n * t))
    }

    /// The residual stream, in front of a block or behind the last.
    pub(crate) fn stream(&mut self, block: usize) -> Result<Address, Error> {
        let floats = self.rows(block) * self.net.config.width;
        self.memory.floats("x", 0, floats)
    }

    /// The residual stream through these blocks.
    pub(crate) fn blocks(&mut self, blocks: Range<usize>) -> Result<(), Error> {
        for block in blocks {
            if let Some(order) = &self.plan.moves[block] {
                let width = self.tokens() * self.net.config.width;
                let (rows, order) = (order.len(), self.memory.hold("order", order)?);
                let gathered = self.memory.floats("gathered", 0, rows * width)?;
                let before = self.memory.floats("x", 0, 0)?;
                self.gpu.gather(before, order, gathered, [rows, width])?;
                let x = self.stream(block)?;
                self.gpu.copy(gathered, x, rows * width)?;
            }
            self.attend(block)?;
            self.mlp(block)?;
            self.read_patches(block)?;
            self.keep_intermediates(block)?;
        }
        Ok(())
    }

    /// The first half of a block.
    fn attend(&mut self, index: usize) -> Result<(), Error> {
        let (net, gpu) = (self.net, self.gpu);
        let (block, d, m) = (&net.blocks[index], net.config.width, self.rows(index));
        let (keep, slot) = self.taped(index);
        let x = self.stream(index)?;
        if keep {
            let kept = self.memory.floats("kept x", slot, m * d)?;
            gpu.copy(x, kept, m * d)?;
        }
        let normed = Rows::new(self.memory.floats("normed", 0, m * d)?, d);
        gpu.layernorm(&block.norm1, Rows::new(x, d), normed, self.plain(m))?;
        let qkv = Rows::new(self.memory.floats("qkv", slot, m * 3 * d)?, 3 * d);
        gpu.linear(&block.qkv, normed, qkv, m, false)?;
        for (part, target) in [Target::Q, Target::K, Target::V].into_iter().enumerate() {
            self.adapt((index, target), normed, qkv.at_column(part * d))?;
        }
        if let Some(norms) = &block.qk_norm {
            if keep {
                let raw = self.memory.floats("raw qkv", slot, m * 3 * d)?;
                gpu.copy(qkv.at, raw, m * 3 * d)?;
            }
            for (part, norm) in norms.iter().enumerate() {
                let heads = qkv.at_column(part * d);
                gpu.layernorm(norm, heads, heads, self.heads(m))?;
            }
        }
        let attention = self.attention(index);
        if let Some(turns) = self.turns() {
            gpu.rotate(qkv.at, attention, turns, false)?;
        }
        let o = Rows::new(self.memory.floats("o", slot, m * d)?, d);
        let lse = self.memory.floats("lse", slot, m * net.config.heads)?;
        gpu.attention(qkv.at, o.at, lse, attention)?;
        let read = match &block.attn_norm {
            Some(norm) => {
                gpu.layernorm(norm, o, normed, self.plain(m))?;
                normed
            }
            None => o,
        };
        let Some(gamma) = &block.ls1 else {
            gpu.linear(&block.proj, read, Rows::new(x, d), m, true)?;
            return self.adapt((index, Target::O), read, Rows::new(x, d));
        };
        let a = Rows::new(self.memory.floats("branch", 0, m * d)?, d);
        gpu.linear(&block.proj, read, a, m, false)?;
        self.adapt((index, Target::O), read, a)?;
        gpu.scaled(a.at, Some(gamma.at()), x, [m, d], true)
    }

    /// The second half of a block.
    fn mlp(&mut self, index: usize) -> Result<(), Error> {
        let (net, gpu) = (self.net, self.gpu);
        let (block, d, m) = (&net.blocks[index], net.config.width, self.rows(index));
        let (keep, slot) = self.taped(index);
        let x = Rows::new(self.stream(index)?, d);
        if keep {
            let kept = self.memory.floats("kept middle", slot, m * d)?;
            gpu.copy(x.at, kept, m * d)?;
        }
        let normed = Rows::new(self.memory.floats("normed", 0, m * d)?, d);
        gpu.layernorm(&block.norm2, x, normed, self.plain(m))?;
        let fc1_out = net.config.fc1_out();
        let h = Rows::new(self.memory.floats("h", slot, m * fc1_out)?, fc1_out);
        gpu.linear(&block.fc1, normed, h, m, false)?;
        self.adapt((index, Target::Fc1), normed, h)?;
        let (_, g) = self.fc2_input(index, h.at)?;
        let bottleneck = self.plan.bottleneck(index);
        if block.ls2.is_none() && bottleneck.is_none() {
            gpu.linear(&block.fc2, g, x, m, true)?;
            return self.adapt((index, Target::Fc2), g, x);
        }
        let f = Rows::new(self.memory.floats("f", slot, m * d)?, d);
        gpu.linear(&block.fc2, g, f, m, false)?;
        self.adapt((index, Target::Fc2), g, f)?;
        gpu.scaled(f.at, block.ls2.as_ref().map(|gamma| gamma.at()), x.at, [m, d], true)?;
        let Some(pair) = bottleneck else { return Ok(()) };
        let (_, a) = self.bottleneck_hidden(index, pair, f)?;
        gpu.grouped(a, x, self.product(index, pair, 1), true)
    }

    /// What the MLP's second layer reads of `h`: activated, and that normalised where there is a norm; both are returned.
    pub(crate) fn fc2_input(&mut self, index: usize, h: Address) -> Result<(Rows, Rows), Error> {
        let config = &self.net.config;
        let (hidden, m) = (config.mlp_hidden, self.rows(index));
        let activated = Rows::new(self.memory.floats("activated", 0, m * hidden)?, hidden);
        self.gpu.activate((config.activation, config.swiglu), h, activated.at, [m, hidden])?;
        let Some(norm) = &self.net.blocks[index].mlp_norm else { return Ok((activated, activated)) };
        let normed = Rows::new(self.memory.floats("normed hidden", 0, m * hidden)?, hidden);
        self.gpu.layernorm(norm, activated, normed, NormRows { rows: m, inner: 1, width: hidden })?;
        Ok((activated, normed))
    }

    /// A bottleneck's `z = Down f + c` and its GELU.
    pub(crate) fn bottleneck_hidden(&mut self, index: usize, pair: Pair, f: Rows) -> Result<(Rows, Rows), Error> {
        let (m, width) = (self.rows(index), pair.inner);
        let z = Rows::new(self.memory.floats("z", 0, m * width)?, width);
        let a = Rows::new(self.memory.floats("bottleneck", 0, m * width)?, width);
        self.gpu.grouped(f, z, self.product(index, pair, 0), false)?;
        self.gpu.activate((Activation::Erf, false), z.at, a.at, [m, width])?;
        Ok((z, a))
    }

    /// One of the four products of a pair, see [`Pair::words`].
    pub(crate) fn product(&self, block: usize, pair: Pair, which: usize) -> Grouped {
        Grouped {
            store: self.store,
            table: self.table.skip(pair.words()[which]),
            images: self.plan.entries[block],
            rows: self.tokens(),
            most: [pair.inner, pair.outs, pair.inner, pair.ins][which],
            backward: which >= 2,
        }
    }

    /// Adds the low-rank updates of all entries to a projection's `y`, of what it read.
    fn adapt(&mut self, (block, target): (usize, Target), x: Rows, y: Rows) -> Result<(), Error> {
        let Some(pair) = self.plan.low_rank(block, target) else { return Ok(()) };
        let (_, z) = self.shrink((block, target), pair, x)?;
        self.gpu.grouped(z, y, self.product(block, pair, 1), true)
    }

    /// `z = A (m ∘ x)`, and `m ∘ x`.
    pub(crate) fn shrink(&mut self, place: (usize, Target), pair: Pair, x: Rows) -> Result<(Rows, Rows), Error> {
        let m = self.rows(place.0);
        let x = match self.mask(place, pair) {
            Some(mask) => {
                let dropped = Rows::new(self.memory.floats("dropped", 0, m * pair.ins)?, pair.ins);
                self.gpu.dropout(x, dropped, mask, false)?;
                dropped
            }
            None => x,
        };
        let z = Rows::new(self.memory.floats("z", 0, m * pair.inner)?, pair.inner);
        self.gpu.grouped(x, z, self.product(place.0, pair, 0), false)?;
        Ok((x, z))
    }

    /// Dropout of a projection's input.
    pub(crate) fn mask(&self, (block, target): (usize, Target), pair: Pair) -> Option<Mask> {
        let (Dropout { probability, seed, step }, first_image) = self.dropout?;
        let (images, tokens) = (self.plan.entries[block], self.tokens());
        let place = block << 8 | target as usize;
        Some(Mask { images, tokens, width: pair.ins, first_image, seed, step, place, probability })
    }

    /// Heads side by side in rows of `qkv`.
    pub(crate) fn heads(&self, rows: usize) -> NormRows {
        let config = &self.net.config;
        NormRows { rows: rows * config.heads, inner: config.heads, width: config.head_width() }
    }

    pub(crate) fn turns(&self) -> Option<Turns> {
        let (table, prefix) = (self.positions.turns.as_ref()?.at(), self.net.config.prefix_tokens());
        let patches = (self.positions.size / self.net.config.patch).pow(2);
        Some(Turns { table, patches, prefix, neighbours: self.net.turns_neighbours() })
    }

    /// The means of tokens that pooling takes of images, none with attention pooling: each with its first column in a feature.
    pub(crate) fn means(&self, pool: Pool, images: usize) -> Vec<(Mean, usize)> {
        let config = &self.net.config;
        let width = config.width;
        let mean = |first, many| Mean { images, tokens: self.tokens(), width, first, many };
        let patches = mean(config.prefix_tokens(), self.patches());
        match pool {
            Pool::Token => (0..config.class_tokens()).map(|token| (mean(token, 1), token * width)).collect(),
            Pool::Avg => vec![(patches, 0)],
            Pool::Map => Vec::new(),
            Pool::TokenAvg => vec![(mean(0, 1), 0), (patches, width)],
        }
    }

    /// The residual stream behind the last block to what heads read, `[entries, feature width]`.
    pub(crate) fn pool(&mut self) -> Result<Address, Error> {
        let (net, gpu) = (self.net, self.gpu);
        let (depth, d, width) = (net.config.depth, net.config.width, net.config.feature_width());
        let (entries, m) = (self.plan.entries[depth], self.rows(depth));
        let x = self.stream(depth)?;
        let x = self.final_norm(x, m)?;
        let features = self.memory.floats("features", 0, entries * width)?;
        for (mean, column) in self.means(net.config.pool, entries) {
            gpu.mean_tokens(x, Rows::new(features.skip(column), width), mean)?;
        }
        if let Some(pool) = &net.attn_pool {
            self.attention_pool(pool, x, features)?;
        }
        let Some(norm) = &net.fc_norm else { return Ok(features) };
        let normed = self.memory.floats("normed features", 0, entries * width)?;
        gpu.layernorm(norm, Rows::new(features, d), Rows::new(normed, d), self.plain(entries * width / d))?;
        Ok(normed)
    }

    /// Tokens through the final norm, where there is one.
    pub(crate) fn final_norm(&mut self, x: Address, m: usize) -> Result<Address, Error> {
        let Some(norm) = &self.net.norm else { return Ok(x) };
        let d = self.net.config.width;
        let normed = self.memory.floats("normed", 0, m * d)?;
        self.gpu.layernorm(norm, Rows::new(x, d), Rows::new(normed, d), self.plain(m))?;
        Ok(normed)
    }

    /// Keeps what is asked for of a block, whose output is in the stream.
    fn keep_intermediates(&mut self, block: usize) -> Result<(), Error> {
        let Some(place) = self.intermediates.iter().position(|&asked| asked == block) else { return Ok(()) };
        let config = &self.net.config;
        let pool = if config.class_tokens() > 0 { Pool::TokenAvg } else { Pool::Avg };
        let (x, (kept, _)) = (self.stream(block)?, self.kept(place)?);
        for (mean, column) in self.means(pool, self.plan.entries[block]) {
            self.gpu.mean_tokens(x, Rows::new(kept.skip(column), config.intermediate_width()), mean)?;
        }
        Ok(())
    }

    /// What is kept of a block by its place among those that are asked for, `[entries, intermediate width]`, and how many numbers.
    fn kept(&mut self, place: usize) -> Result<(Address, usize), Error> {
        let floats = self.plan.entries[self.intermediates[place]] * self.net.config.intermediate_width();
        Ok((self.memory.floats("intermediates", place, floats)?, floats))
    }

    /// Adds to every answer the intermediates of its entry behind each block that is asked for.
    fn add_intermediates(&mut self, outputs: &mut [Vec<f32>]) -> Result<(), Error> {
        let width = self.net.config.intermediate_width();
        for (place, &block) in self.intermediates.iter().enumerate() {
            let (kept, floats) = self.kept(place)?;
            let kept = self.gpu.floats(kept, floats)?;
            let entries = outputs.iter_mut().zip(&self.plan.behind[block]);
            entries.for_each(|(output, &entry)| output.extend(&kept[entry as usize * width..][..width]));
        }
        Ok(())
    }

    /// Behind the last block: what heads give, of every answer, and its intermediates.
    pub(crate) fn outputs(&mut self) -> Result<Vec<Vec<f32>>, Error> {
        let mut outputs = vec![Vec::new(); self.plan.answers.len()];
        if self.plan.dense.iter().map(|head| head.answers.len()).sum::<usize>() < outputs.len() {
            let features = self.pool()?;
            outputs = self.logits(features)?;
        }
        self.dense_outputs(&mut outputs)?;
        self.add_intermediates(&mut outputs)?;
        Ok(outputs)
    }

    /// What heads give of features: the logits of every answer, none of one that is read from patches.
    pub(crate) fn logits(&mut self, features: Address) -> Result<Vec<Vec<f32>>, Error> {
        let plan = self.plan;
        let (answers, width) = (plan.answers.len(), self.net.config.feature_width());
        let most = plan.classes.iter().copied().max().unwrap_or(0);
        let order = self.memory.hold("order", &plan.answers)?;
        let read = self.memory.floats("read", 0, answers * width)?;
        self.gpu.gather(features, order, read, [answers, width])?;
        let logits = self.memory.floats("logits", 0, answers * most)?;
        self.gpu.grouped(Rows::new(read, width), Rows::new(logits, most), self.heads_product(most, false), false)?;
        let logits = self.gpu.floats(logits, answers * most)?;
        let rows = plan.classes.iter().enumerate();
        Ok(rows.map(|(answer, classes)| logits[answer * most..answer * most + classes].to_vec()).collect())
    }

    /// The products of all heads.
    pub(crate) fn heads_product(&self, most: usize, backward: bool) -> Grouped {
        let (store, table) = (self.store, self.table.skip(self.plan.head[usize::from(backward)]));
        Grouped { store, table, images: self.plan.answers.len(), rows: 1, most, backward }
    }
}
