//! One image on several threads: its tokens are cut into parts, and only attention asks what the others hold.
//!
//! ```text
//! of every block, on every part: norm, qkv, low-rank updates -- all wait -- attention, projection, MLP -- all wait
//! ```
//!
//! A row of each of these depends on its own row, and in attention on all keys and values: the result is that of one
//! thread to the last bit.

use super::buffers::{BlockTape, Buffers, GroupSegment, GroupShape, resize};
use super::forward::{ALL, KEYS_AND_VALUES};
use super::packed::Packed;
use rayon::prelude::*;
use std::ops::Range;

impl Packed {
    /// As [`Packed::blocks`] for a single image without a tape, on `shape.parts` threads; where it is asked for, also the keys and
    /// values of the block after these.
    pub(crate) fn blocks_in_parts(
        &self,
        shape: GroupShape<'_>,
        segments: &[GroupSegment<'_>],
        blocks: Range<usize>,
        and_keys_and_values: bool,
        buffers: &mut Buffers,
    ) {
        let (t, d) = (shape.tokens, self.config.width);
        let rows = t.div_ceil(shape.parts);
        let mut parts = std::mem::take(&mut buffers.parts);
        let count = t.div_ceil(rows);
        if parts.len() < count {
            parts.resize_with(count, Buffers::default);
        }
        let parts_in_use = &mut parts[..count];
        for (part, x) in parts_in_use.iter_mut().zip(buffers.x.chunks(rows * d)) {
            part.x.clear();
            part.x.extend_from_slice(x);
            part.tape.resize_with(1, BlockTape::default);
        }
        // A part is an image of so many tokens.
        let of_part = |part: &Buffers| GroupShape { tokens: part.x.len() / d, ..shape };
        let qkv = &mut buffers.tape[0].qkv;
        resize(qkv, t * 3 * d);
        let project = |block: usize, columns: Range<usize>, parts: &mut [Buffers], qkv: &mut [f32]| {
            let projections = qkv.par_chunks_mut(rows * 3 * d);
            parts.par_iter_mut().zip(projections).enumerate().for_each(|(number, (part, qkv))| {
                let shape = of_part(part);
                self.project(block, shape, segments, columns.clone(), part, qkv);
                self.norm_qk(block, columns.clone(), qkv, None);
                self.rotate(shape, number * rows, columns.clone(), qkv, false);
            });
        };
        for block in blocks.clone() {
            project(block, ALL, parts_in_use, qkv);
            parts_in_use.par_iter_mut().enumerate().for_each(|(number, part)| {
                let (attention, shape) = (self.attention_shape(block, shape), of_part(part));
                let mut tape = std::mem::take(&mut part.tape[0]);
                resize(&mut tape.o, shape.tokens * d);
                let queries = number * rows..number * rows + shape.tokens;
                self.kernels.attention_of(attention, qkv, queries, &mut tape.o, &mut part.scores);
                self.after_attention(block, shape, segments, false, part, &mut tape);
                part.tape[0] = tape;
            });
        }
        if and_keys_and_values {
            project(blocks.end, KEYS_AND_VALUES, parts_in_use, qkv);
        }
        for (part, x) in parts_in_use.iter().zip(buffers.x.chunks_mut(rows * d)) {
            x.copy_from_slice(&part.x);
        }
        buffers.parts = parts;
    }
}
