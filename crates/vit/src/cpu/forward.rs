//! The forward pass of one group of images: `m = images · t` rows through the frozen blocks, plug-ins beside them.

use super::buffers::{BlockTape, Buffers, GroupSegment, GroupShape, of_rows, resize};
use super::packed::Packed;
use crate::adapter::Target;
use crate::bottleneck::Bottleneck;
use crate::config::Pool;
use crate::dropout::DropoutScratch;
use crate::weights::{Block, Norm};
use melo_kernels::{Left, LeftRows, PackedWeight};
use std::ops::Range;

/// Parts of a fused projection.
pub(crate) const ALL: Range<usize> = 0..3;
const TARGETS: [Target; 3] = [Target::Q, Target::K, Target::V];
const QUERIES: Range<usize> = 0..1;
pub(crate) const KEYS_AND_VALUES: Range<usize> = 1..3;

impl Packed {
    pub(crate) fn layernorm(&self, norm: &Norm, x: &[f32], y: &mut Vec<f32>) {
        resize(y, x.len());
        self.normalise(norm, x, y);
    }

    fn normalise(&self, norm: &Norm, x: &[f32], y: &mut [f32]) {
        self.kernels.layernorm(x, &norm.gamma, &norm.beta, self.config.eps, y);
    }

    /// What a layer reads, computed row by row. The rows themselves stay in `values` where they are asked for or not rounded.
    fn left_rows<'a>(
        &self,
        left: &'a mut LeftRows,
        weight: &PackedWeight,
        rows: usize,
        (values, keep): (&'a mut Vec<f32>, bool),
        mut compute: impl FnMut(usize, &mut [f32]),
    ) -> Left<'a> {
        let width = weight.in_features();
        left.begin(self.kernels, weight, rows);
        let keep = keep || !left.rounds();
        resize(values, if keep { rows } else { 1 } * width);
        for i in 0..rows {
            let row = if keep { i } else { 0 };
            let row = &mut values[row * width..(row + 1) * width];
            compute(i, row);
            left.push(self.kernels, row);
        }
        left.of(values)
    }

    /// Images to the residual stream `[m, d]`: patches projected, prefix tokens set in front, positions added. Patches that come
    /// embedded are not projected.
    pub(crate) fn embed(&self, shape: GroupShape<'_>, buffers: &mut Buffers) {
        let (d, patch) = (self.config.width, self.config.patch);
        let (class, prefix) = (self.config.class_tokens(), self.config.prefix_tokens());
        let patches = shape.tokens - prefix;
        if shape.layers.is_none() {
            unfold(&buffers.images, shape.size, patch, &mut buffers.patches);
            resize(&mut buffers.normed, shape.images * patches * d);
            let embed = &self.weights.patch_embed;
            self.kernels.linear(&buffers.patches, &embed.weight, &embed.bias, &mut buffers.normed);
        }
        resize(&mut buffers.x, shape.rows() * d);
        let (class_positions, positions) = shape.positions.embed.split_at(self.config.position_prefix() * d);
        let Buffers { images, x, normed, .. } = &mut *buffers;
        let projected = if shape.layers.is_some() { images } else { normed };
        for (x, projected) in x.chunks_exact_mut(shape.tokens * d).zip(projected.chunks_exact(patches * d)) {
            let (cls_token, dist_token) = (&self.weights.cls_token, &self.weights.dist_token);
            x[..cls_token.len()].copy_from_slice(cls_token);
            x[cls_token.len()..class * d].copy_from_slice(dist_token);
            x[class * d..prefix * d].copy_from_slice(&self.weights.reg_token);
            x[prefix * d..].copy_from_slice(projected);
            x.iter_mut().zip(class_positions).for_each(|(x, p)| *x += p);
            for layer in x[prefix * d..].chunks_mut(positions.len().max(1)) {
                layer.iter_mut().zip(positions).for_each(|(x, p)| *x += p);
            }
        }
        if let Some(norm) = &self.weights.norm_pre {
            std::mem::swap(&mut buffers.x, &mut buffers.embedded);
            let Buffers { x, embedded, .. } = buffers;
            self.layernorm(norm, embedded, x);
        }
    }

    /// The residual stream through these blocks; those from `tape_from` on leave what their backward pass needs. Returns how many
    /// tokens of an image it still holds: all, or after the last block, where heads read class tokens alone, those.
    pub(crate) fn blocks(
        &self,
        shape: GroupShape<'_>,
        segments: &[GroupSegment<'_>],
        blocks: Range<usize>,
        tape_from: Option<usize>,
        buffers: &mut Buffers,
    ) -> usize {
        let last = self.config.depth - 1;
        let class_alone = blocks.contains(&last) && self.reads_class_tokens_alone(shape, segments);
        let whole = blocks.start..if class_alone { last } else { blocks.end };
        let in_parts = shape.parts > 1 && shape.images == 1 && tape_from.is_none();
        if in_parts {
            buffers.tape.resize_with(buffers.tape.len().max(1), BlockTape::default);
            self.blocks_in_parts(shape, segments, whole, class_alone, buffers);
        } else {
            self.whole_blocks(shape, segments, whole, tape_from, buffers);
        }
        if !class_alone {
            return shape.tokens;
        }
        let slot = tape_from.map_or(0, |first| last - first);
        let mut tape = std::mem::take(&mut buffers.tape[slot]);
        if !in_parts {
            resize(&mut tape.qkv, shape.rows() * 3 * self.config.width);
            self.project(last, shape, segments, KEYS_AND_VALUES, buffers, &mut tape.qkv);
            self.norm_qk(last, KEYS_AND_VALUES, &mut tape.qkv, tape_from.map(|_| &mut tape.qk));
            self.rotate(shape, 0, KEYS_AND_VALUES, &mut tape.qkv, false);
        }
        let tokens = self.class_tokens_of_last_block(shape, segments, tape_from.is_some(), buffers, &mut tape);
        buffers.tape[slot] = tape;
        tokens
    }

    /// The residual stream of all tokens through these blocks.
    pub(crate) fn whole_blocks(
        &self,
        shape: GroupShape<'_>,
        segments: &[GroupSegment<'_>],
        blocks: Range<usize>,
        tape_from: Option<usize>,
        buffers: &mut Buffers,
    ) {
        let taped = tape_from.map_or(1, |first| self.config.depth - first);
        if buffers.tape.len() < taped {
            buffers.tape.resize_with(taped, BlockTape::default);
        }
        for block in blocks {
            let slot = tape_from.map_or(0, |first| block.saturating_sub(first));
            let mut tape = std::mem::take(&mut buffers.tape[slot]);
            let keep = tape_from.is_some_and(|first| block >= first);
            self.block(block, shape, segments, keep, buffers, &mut tape);
            buffers.tape[slot] = tape;
        }
    }

    /// True where nothing reads what the last block makes of other tokens than the class token and its like. Dropout draws masks of
    /// whole images.
    fn reads_class_tokens_alone(&self, shape: GroupShape<'_>, segments: &[GroupSegment<'_>]) -> bool {
        self.config.pool == Pool::Token
            && self.config.width.is_multiple_of(PackedWeight::PANEL)
            && shape.dropout.is_none()
            && !shape.intermediates.contains(&(self.config.depth - 1))
            && segments.iter().all(|segment| segment.head.blocks().is_none())
    }

    /// The last block for class tokens alone, whose queries go to the keys and values of all tokens, in its tape.
    fn class_tokens_of_last_block(
        &self,
        shape: GroupShape<'_>,
        segments: &[GroupSegment<'_>],
        keep: bool,
        buffers: &mut Buffers,
        tape: &mut BlockTape,
    ) -> usize {
        let (t, d, class) = (shape.tokens, self.config.width, self.config.class_tokens());
        let last = self.config.depth - 1;
        let of_class = GroupShape { tokens: class, ..shape };
        if keep {
            tape.x.clone_from(&buffers.x);
        }
        for image in 0..shape.images {
            buffers.x.copy_within(image * t * d..(image * t + class) * d, image * class * d);
        }
        buffers.x.truncate(of_class.rows() * d);
        resize(&mut tape.h, of_class.rows() * 3 * d);
        self.project(last, of_class, segments, QUERIES, buffers, &mut tape.h);
        if keep {
            self.keep_queries(shape, class, &tape.h, &mut tape.qk);
        }
        self.norm_qk(last, QUERIES, &mut tape.h, None);
        resize(&mut tape.o, of_class.rows() * d);
        let images = tape.qkv.chunks_exact_mut(t * 3 * d).zip(tape.h.chunks_exact(class * 3 * d));
        for ((qkv, queries), o) in images.zip(tape.o.chunks_exact_mut(class * d)) {
            for (qkv, query) in qkv.chunks_exact_mut(3 * d).zip(queries.chunks_exact(3 * d)) {
                qkv[..d].copy_from_slice(&query[..d]);
            }
            self.kernels.attention_of(self.attention_shape(last, shape), qkv, 0..class, o, &mut buffers.scores);
        }
        self.after_attention(last, of_class, segments, keep, buffers, tape);
        class
    }

    pub(crate) fn block(
        &self,
        index: usize,
        shape: GroupShape<'_>,
        segments: &[GroupSegment<'_>],
        keep: bool,
        buffers: &mut Buffers,
        tape: &mut BlockTape,
    ) {
        let (t, d) = (shape.tokens, self.config.width);
        let mut qkv = std::mem::take(&mut tape.qkv);
        resize(&mut qkv, shape.rows() * 3 * d);
        if keep {
            tape.x.clone_from(&buffers.x);
        }
        self.project(index, shape, segments, ALL, buffers, &mut qkv);
        self.norm_qk(index, ALL, &mut qkv, keep.then_some(&mut tape.qk));
        self.rotate(shape, 0, ALL, &mut qkv, false);
        resize(&mut tape.o, shape.rows() * d);
        for (qkv, o) in qkv.chunks_exact(t * 3 * d).zip(tape.o.chunks_exact_mut(t * d)) {
            self.kernels.attention(self.attention_shape(index, shape), qkv, o, &mut buffers.scores);
        }
        tape.qkv = qkv;
        self.after_attention(index, shape, segments, keep, buffers, tape);
    }

    /// The first half of a block: the residual stream to `qkv [m, 3d]`, row by row, or to some of its three parts.
    pub(crate) fn project(
        &self,
        index: usize,
        shape: GroupShape<'_>,
        segments: &[GroupSegment<'_>],
        parts: Range<usize>,
        buffers: &mut Buffers,
        qkv: &mut [f32],
    ) {
        let block = &self.weights.blocks[index];
        let d = self.config.width;
        let Buffers { x, normed, left, z, dropout, .. } = buffers;
        let adapted = TARGETS[parts.clone()].iter().any(|target| is_adapted(segments, index, *target));
        for rows in shape.chunks() {
            let (x, qkv) = (of_rows(x, &rows, d), &mut qkv[rows.start * 3 * d..rows.end * 3 * d]);
            let norm = |i: usize, y: &mut [f32]| self.normalise(&block.norm1, &x[i * d..(i + 1) * d], y);
            let rows_read = self.left_rows(left, &block.qkv.weight, rows.len(), (normed, adapted), norm);
            let columns = parts.start * d..parts.end * d;
            self.kernels.linear_of(rows_read, &block.qkv.weight, columns, &block.qkv.bias, qkv);
            let mut adapt = Adapt { vit: self, index, shape, segments, rows, z, dropout };
            for part in parts.clone() {
                adapt.add(TARGETS[part], normed, qkv, part * d);
            }
        }
    }

    /// The second half: what attention gave, in `tape.o`, and the MLP onto the residual stream, row by row.
    pub(crate) fn after_attention(
        &self,
        index: usize,
        shape: GroupShape<'_>,
        segments: &[GroupSegment<'_>],
        keep: bool,
        buffers: &mut Buffers,
        tape: &mut BlockTape,
    ) {
        let k = self.kernels;
        let block = &self.weights.blocks[index];
        let (t, d) = (shape.tokens, self.config.width);
        let Buffers { x, normed, g, activated, left, z, bottleneck: scratch, dropout, .. } = buffers;
        let BlockTape { o, x_mid, h, a, f, .. } = tape;
        let [fc1_adapted, fc2_adapted] = [Target::Fc1, Target::Fc2].map(|target| is_adapted(segments, index, target));
        let fc1_out = self.config.fc1_out();
        if keep {
            resize(x_mid, shape.rows() * d);
        }
        for rows in shape.chunks() {
            let (x, o) = (&mut x[rows.start * d..rows.end * d], of_rows(o, &rows, d));
            let kept = Kept { all: keep.then_some(shape.rows()), rows: &rows };
            let mut adapt = Adapt { vit: self, index, shape, segments, rows: rows.clone(), z, dropout };
            let o = match &block.attn_norm {
                Some(norm) => {
                    self.layernorm(norm, o, normed);
                    &*normed
                }
                None => o,
            };
            if block.ls1.is_empty() {
                k.linear_add(o, &block.proj.weight, &block.proj.bias, x);
                adapt.add(Target::O, o, x, 0);
            } else {
                let a = kept.values(a, d);
                k.linear(o, &block.proj.weight, &block.proj.bias, a);
                adapt.add(Target::O, o, a, 0);
                add_scaled(x, a, &block.ls1);
            }

            if keep {
                x_mid[rows.start * d..rows.end * d].copy_from_slice(x);
            }
            let norm = |i: usize, y: &mut [f32]| self.normalise(&block.norm2, &x[i * d..(i + 1) * d], y);
            let rows_read = self.left_rows(left, &block.fc1.weight, rows.len(), (normed, fc1_adapted), norm);
            let h = kept.values(h, fc1_out);
            k.linear_of(rows_read, &block.fc1.weight, 0..fc1_out, &block.fc1.bias, h);
            adapt.add(Target::Fc1, normed, h, 0);
            let activate = |i: usize, y: &mut [f32]| {
                self.fc2_input(block, &h[i * fc1_out..(i + 1) * fc1_out], y, activated);
            };
            let rows_read = self.left_rows(left, &block.fc2.weight, rows.len(), (g, fc2_adapted), activate);
            if block.ls2.is_empty() && bottlenecks(segments, index, t).next().is_none() {
                k.linear_add_of(rows_read, &block.fc2.weight, &block.fc2.bias, x);
                adapt.add(Target::Fc2, g, x, 0);
                continue;
            }
            let f = kept.values(f, d);
            k.linear_of(rows_read, &block.fc2.weight, 0..d, &block.fc2.bias, f);
            adapt.add(Target::Fc2, g, f, 0);
            add_scaled(x, f, &block.ls2);
            for (of_segment, bottleneck) in bottlenecks(segments, index, t) {
                if let Some(part) = within(&of_segment, &rows) {
                    let values = part.start * d..part.end * d;
                    bottleneck.forward(k, &f[values.clone()], &mut x[values], scratch);
                }
            }
        }
    }

    /// What the MLP's second layer reads of what the first one gives: `h [m, fc1_out]` to `g [m, hidden]`, activated and, where there
    /// is a norm, normalised; then `activated` holds what it was before.
    pub(crate) fn fc2_input<W>(&self, block: &Block<W>, h: &[f32], g: &mut [f32], activated: &mut Vec<f32>) {
        let Some(norm) = &block.mlp_norm else { return self.activate(h, g) };
        resize(activated, g.len());
        self.activate(h, activated);
        self.normalise(norm, activated, g);
    }

    /// The MLP's activation: `h [m, fc1_out]` to `g [m, hidden]`.
    pub(crate) fn activate(&self, h: &[f32], g: &mut [f32]) {
        match self.config.swiglu {
            true => self.kernels.swiglu(h, self.config.mlp_hidden, g),
            false => self.kernels.gelu(self.config.activation.into(), h, g),
        }
    }

    /// The residual stream to features `[images, feature width]`: last norm and pooling.
    ///
    /// `norm` acts on each token, so with token pooling only the pooled rows are normalised.
    pub(crate) fn pool(&self, shape: GroupShape<'_>, buffers: &mut Buffers) {
        let d = self.config.width;
        let (class, prefix) = (self.config.class_tokens(), self.config.prefix_tokens());
        let Buffers { x, pooled, features, normed, attn_pool: tape, scores, .. } = buffers;
        if self.config.pool == Pool::Token {
            pooled.clear();
            pooled.extend(x.chunks_exact(shape.tokens * d).flat_map(|x| &x[..class * d]));
        } else {
            let tokens: &[f32] = match &self.weights.norm {
                Some(norm) => {
                    self.layernorm(norm, x, normed);
                    normed
                }
                None => x,
            };
            if let Some(pool) = &self.weights.attn_pool {
                self.attention_pool(pool, shape, tokens, (tape, scores), features);
                return;
            }
            let width = self.config.feature_width();
            resize(pooled, shape.images * width);
            pooled.fill(0.0);
            let share = 1.0 / (shape.tokens - prefix) as f32;
            for (pooled, tokens) in pooled.chunks_exact_mut(width).zip(tokens.chunks_exact(shape.tokens * d)) {
                let (token, mean) = pooled.split_at_mut(width - d);
                token.copy_from_slice(&tokens[..token.len()]);
                for token in tokens[prefix * d..].chunks_exact(d) {
                    mean.iter_mut().zip(token).for_each(|(mean, x)| *mean += share * x);
                }
            }
        }
        match self.pooled_norm() {
            Some(norm) => self.layernorm(norm, pooled, features),
            None => features.clone_from(pooled),
        }
    }

    /// The norm that acts on the pooled rows.
    pub(crate) fn pooled_norm(&self) -> Option<&Norm> {
        match self.config.pool {
            Pool::Token => self.weights.norm.as_ref().or(self.weights.fc_norm.as_ref()),
            Pool::Avg | Pool::TokenAvg | Pool::Map => self.weights.fc_norm.as_ref(),
        }
    }

    /// Logits of a segment's images, `[images, c]`.
    pub(crate) fn logits(&self, segment: GroupSegment<'_>, features: &[f32], logits: &mut [f32]) {
        let width = self.config.feature_width();
        let features = &features[segment.start * width..segment.end * width];
        self.kernels.classify(features, &segment.head.weight, &segment.head.bias, logits);
    }
}

/// Rows of what the backward pass needs: those of the whole group where it is kept, else of a chunk.
struct Kept<'a> {
    /// Rows of the group; none where nothing is kept.
    all: Option<usize>,
    rows: &'a Range<usize>,
}

impl Kept<'_> {
    /// The chunk's values in a buffer of rows of so many.
    fn values<'b>(&self, buffer: &'b mut Vec<f32>, width: usize) -> &'b mut [f32] {
        resize(buffer, self.all.unwrap_or(self.rows.len()) * width);
        let start = if self.all.is_some() { self.rows.start } else { 0 };
        &mut buffer[start * width..(start + self.rows.len()) * width]
    }
}

/// What of some rows lies in others, counted from the first of those.
fn within(rows: &Range<usize>, others: &Range<usize>) -> Option<Range<usize>> {
    let (start, end) = (rows.start.max(others.start), rows.end.min(others.end));
    (start < end).then(|| start - others.start..end - others.start)
}

/// The low-rank updates of one block, added to what its projections give on some rows.
struct Adapt<'a> {
    vit: &'a Packed,
    index: usize,
    shape: GroupShape<'a>,
    segments: &'a [GroupSegment<'a>],
    rows: Range<usize>,
    z: &'a mut Vec<f32>,
    dropout: &'a mut DropoutScratch,
}

impl Adapt<'_> {
    /// Adds those of a projection to the columns of `y` from `column` on; `x [rows, in]`.
    fn add(&mut self, target: Target, x: &[f32], y: &mut [f32], column: usize) {
        let (input, _) = target.features(&self.vit.config);
        let stride = y.len() / self.rows.len();
        for (of_segment, update) in updates(self.segments, self.index, target, self.shape.tokens) {
            let Some(rows) = within(&of_segment, &self.rows) else { continue };
            let mut inputs = of_rows(x, &rows, input);
            if let Some(drop) = self.shape.dropout {
                drop.apply((self.index, target), inputs, input, self.dropout);
                inputs = &self.dropout.x;
            }
            let y = &mut y[rows.start * stride + column..rows.end * stride];
            self.vit.kernels.lowrank(update, inputs, y, stride, self.z);
        }
    }
}

/// `x += gamma · f`, row by row; without a `gamma`, `x += f`. `x, f [m, d]`, `gamma [d]` or empty.
fn add_scaled(x: &mut [f32], f: &[f32], gamma: &[f32]) {
    if gamma.is_empty() {
        x.iter_mut().zip(f).for_each(|(x, f)| *x += f);
        return;
    }
    for (x, f) in x.chunks_exact_mut(gamma.len()).zip(f.chunks_exact(gamma.len())) {
        x.iter_mut().zip(f).zip(gamma).for_each(|((x, f), gamma)| *x += gamma * f);
    }
}

/// The low-rank updates that segments apply to one projection, with the rows they apply to.
fn updates<'a>(
    segments: &'a [GroupSegment<'a>],
    block: usize,
    target: Target,
    tokens: usize,
) -> impl Iterator<Item = (Range<usize>, melo_kernels::LowRankUpdate<'a>)> {
    segments.iter().filter_map(move |segment| {
        let update = segment.adapter?.update(block, target)?;
        Some((segment.start * tokens..segment.end * tokens, update))
    })
}

/// True where a segment updates a projection.
fn is_adapted(segments: &[GroupSegment<'_>], block: usize, target: Target) -> bool {
    segments.iter().any(|segment| segment.adapter.is_some_and(|adapter| adapter.update(block, target).is_some()))
}

/// The bottlenecks of one block, with the rows they apply to.
fn bottlenecks<'a>(
    segments: &'a [GroupSegment<'a>],
    block: usize,
    tokens: usize,
) -> impl Iterator<Item = (Range<usize>, &'a Bottleneck)> {
    segments.iter().filter_map(move |segment| {
        let bottleneck = segment.adapter?.bottlenecks.blocks[block].as_ref()?;
        Some((segment.start * tokens..segment.end * tokens, bottleneck))
    })
}

/// Images `[images, 3, s, s]` to patches `[images · (s/p)², 3·p·p]`, in the order of a convolution's weight.
fn unfold(images: &[f32], size: usize, patch: usize, patches: &mut Vec<f32>) {
    let grid = size / patch;
    patches.clear();
    for image in images.chunks_exact(3 * size * size) {
        for row in 0..grid {
            for column in 0..grid {
                for line in (0..3 * patch).map(|i| (i / patch) * size + row * patch + i % patch) {
                    let start = line * size + column * patch;
                    patches.extend_from_slice(&image[start..start + patch]);
                }
            }
        }
    }
}
