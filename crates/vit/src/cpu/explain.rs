//! Relevance, as [`crate::explanation`] defines it.
//!
//! Only the mean of the rows that the head reads is wanted, so one row vector `[t]` goes from the last block to the
//! first and `R` is never made. Nothing here is part of an ordinary forward pass.

use super::backward::Training;
use super::buffers::{Buffers, GroupSegment, GroupShape};
use super::packed::Packed;
use crate::adapter::Adapter;
use crate::config::Pool;
use crate::engine::PluginRef;
use crate::explanation::{ExplainMethod, Explanation};
use crate::gradients::Gradients;
use melo_kernels::{Mat, MatMut};
use std::borrow::Cow;

impl Packed {
    /// As [`crate::Engine::explain`]. Costs about as much as one training step on the image, or as one forward pass for
    /// [`ExplainMethod::Rollout`].
    pub(crate) fn explain(
        &self,
        image: &[f32],
        size: usize,
        plugin: PluginRef<'_>,
        class: usize,
        method: ExplainMethod,
    ) -> Explanation {
        let PluginRef { adapter, head } = plugin;
        assert_eq!(image.len(), 3 * size * size, "length of [3, {size}, {size}]");
        assert!(class < head.rows(), "class {class} of {}", head.rows());
        let positions = self.positions(size);
        let tokens = self.config.tokens(size);
        let shape = GroupShape {
            images: 1,
            size,
            tokens,
            layers: None,
            positions: &positions,
            dropout: None,
            parts: 1,
            intermediates: &[],
        };
        let segment = GroupSegment { start: 0, end: 1, adapter, head };
        let mut buffers = Buffers { images: image.to_vec(), ..Buffers::default() };
        self.embed(shape, &mut buffers);
        self.whole_blocks(shape, &[segment], 0..self.config.depth, Some(0), &mut buffers);
        self.pool(shape, &mut buffers);
        let mut logits = vec![0.0; head.rows()];
        self.logits(segment, &buffers.features, &mut logits);
        let mut values = match method {
            ExplainMethod::Rollout => self.rollout(shape, &buffers),
            ExplainMethod::Gradient => self.gradient_relevance(shape, plugin, class, &mut buffers),
        };
        let prefix = values.drain(..self.config.prefix_tokens()).collect();
        Explanation { grid: size / self.config.patch, values, prefix, logits }
    }

    /// `r Â_L … Â_1` of the forward pass in `buffers`; the rows of `Â` sum to 1 because those of `A` and `I` do.
    fn rollout(&self, shape: GroupShape<'_>, buffers: &Buffers) -> Vec<f32> {
        let t = shape.tokens;
        let mut relevance = self.read_tokens(shape, buffers, ExplainMethod::Rollout);
        let (mut row, mut p, mut joint) = (Vec::new(), vec![0.0; t * t], vec![0.0; t * t]);
        for (block, tape) in buffers.tape.iter().enumerate().rev() {
            joint.fill(0.0);
            for head in 0..self.config.heads {
                self.kernels.attention_probabilities(self.attention_shape(block, shape), &tape.qkv, head, &mut p);
                joint.iter_mut().zip(&p).for_each(|(joint, p)| *joint += p);
            }
            row.clone_from(&relevance);
            self.descend(&row, &joint, (0.5, 0.5), &mut relevance);
        }
        relevance
    }

    /// `r (I + Ā_L) … (I + Ā_1) - r` for the logit of `class` of the forward pass in `buffers`.
    fn gradient_relevance(
        &self,
        shape: GroupShape<'_>,
        PluginRef { adapter, head }: PluginRef<'_>,
        class: usize,
        buffers: &mut Buffers,
    ) -> Vec<f32> {
        let t = shape.tokens;
        let adapter = adapter.map_or_else(|| Cow::Owned(Adapter::none(&self.config)), Cow::Borrowed);
        let mut gradients = Gradients::zeros(&adapter, head, &self.config, false);
        let mut d_logits = vec![0.0; head.rows()];
        d_logits[class] = 1.0;
        self.head_backward(shape, head, &d_logits, buffers, &mut gradients.head);
        self.pool_backward(shape, buffers, None);
        let mut row = self.read_tokens(shape, buffers, ExplainMethod::Gradient);
        let read = row.clone();
        let mut relevance = vec![0.0; t];
        let (mut p, mut d_p, mut joint) = (vec![0.0; t * t], vec![0.0; t * t], vec![0.0; t * t]);
        for block in (0..self.config.depth).rev() {
            let tape = std::mem::take(&mut buffers.tape[block]);
            let training = Training { adapter: &adapter, gradients: &mut gradients };
            self.block_backward(block, (shape, t), &tape, block > 0, buffers, training);
            let d_o = &buffers.backward.d_o;
            joint.fill(0.0);
            for head in 0..self.config.heads {
                let attention = self.attention_shape(block, shape);
                self.kernels.attention_probabilities(attention, &tape.qkv, head, &mut p);
                self.kernels.attention_probabilities_backward(attention, &tape.qkv, d_o, head, &mut d_p);
                for ((joint, p), d_p) in joint.iter_mut().zip(&p).zip(&d_p) {
                    *joint += (d_p * p).max(0.0);
                }
            }
            self.descend(&row, &joint, (1.0, 1.0), &mut relevance);
            row.iter_mut().zip(&read).zip(&relevance).for_each(|((row, read), moved)| *row = read + moved);
        }
        // What pooling read was carried by attention too.
        if self.config.pool == Pool::Map { row } else { relevance }
    }

    /// The row vector `[t]` that takes the mean of the rows that the head reads; with attention pooling, what that read of each.
    fn read_tokens(&self, shape: GroupShape<'_>, buffers: &Buffers, method: ExplainMethod) -> Vec<f32> {
        let tokens = shape.tokens;
        let (class, prefix) = (self.config.class_tokens(), self.config.prefix_tokens());
        let share = |token: usize| match self.config.pool {
            Pool::Token if token < class => 1.0 / class as f32,
            Pool::Avg if token >= prefix => 1.0 / (tokens - prefix) as f32,
            Pool::TokenAvg if token < class => 0.5,
            Pool::TokenAvg if token >= prefix => 0.5 / (tokens - prefix) as f32,
            _ => 0.0,
        };
        if self.config.pool == Pool::Map {
            let of_prefix = std::iter::repeat_n(0.0, prefix);
            return of_prefix.chain(self.pool_relevance(shape, &buffers.attn_pool, method)).collect();
        }
        (0..tokens).map(share).collect()
    }

    /// Takes relevance through one block: `relevance = keep · relevance + share · row M / h`, where `joint [t, t]` is `M`
    /// summed over the heads.
    fn descend(&self, row: &[f32], joint: &[f32], (keep, share): (f32, f32), relevance: &mut [f32]) {
        let t = row.len();
        let (row, joint) = (Mat::new(row, 1, t), Mat::new(joint, t, t));
        self.kernels.matmul(MatMut::new(relevance, 1, t), keep, share / self.config.heads as f32, row, joint);
    }
}
