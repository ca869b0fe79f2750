//! Where a plug-in looked: the relevance of every patch of one image, with the plug-in active.
//!
//! Both methods fill a `t × t` matrix `R` whose row `i` says how much each input token matters to output token `i`:
//!
//! ```text
//! rollout     R = Â_L … Â_1,               Â = ½ mean_h A + ½ I              (Abnar & Zuidema 2020, arXiv 2005.00928)
//! gradient    R = (I + Ā_L) … (I + Ā_1),   Ā = mean_h max(∂logit/∂A · A, 0)  (Chefer, Gur & Wolf 2021, arXiv 2103.15679)
//! ```
//!
//! Of the second, `R - I` is given: what attention carried. For the class token's row that changes no patch; in a mean
//! over patches the `I` would put one constant under everything, far above what differs.
//!
//! Only the mean of the rows that the head reads is wanted, so one row vector `[t]` goes from the last block to the
//! first and `R` is never made. Nothing here is part of an ordinary forward pass.

use crate::backbone::Backbone;
use crate::backward::{Gradients, Training};
use crate::buffers::{Buffers, GroupSegment, GroupShape};
use crate::config::Pool;
use crate::error::Error;
use crate::plugin::Plugin;
use crate::positions;
use melo_kernels::{Mat, MatMut};

/// How relevance is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainMethod {
    /// Attention rollout (Abnar & Zuidema, ACL 2020, arXiv 2005.00928): the head's mean of the attention and the
    /// residual branch in equal parts. The same for every class. Relevance of all tokens sums to 1.
    Rollout,
    /// Attention weighted by the gradient of the class's logit with respect to it, positive parts only
    /// (Chefer, Gur & Wolf, ICCV 2021, arXiv 2103.15679, the rule for self-attention).
    Gradient,
}

/// The relevance of one image's tokens to one class.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Patches along a side.
    pub grid: usize,
    /// Relevance of the patches, `[grid, grid]`, at least 0; only its proportions have a meaning.
    pub values: Vec<f32>,
    /// Relevance that stayed with the class token, the distillation token and the registers, as far as there are any.
    pub prefix: Vec<f32>,
    /// Logits of the image, `[c]`.
    pub logits: Vec<f32>,
}

impl Backbone {
    /// The relevance of every patch of `image [3, size, size]`, normalised, to `class` under a plug-in.
    ///
    /// With token pooling it is the row of the class token, or the mean of its row and the distillation token's where
    /// the head reads both; with mean pooling the mean of the patches' rows; half of each where the head reads both. Costs about as much as one training step
    /// on the image, or as one forward pass for [`ExplainMethod::Rollout`].
    ///
    /// # Errors
    /// [`Error::ImageSize`].
    ///
    /// # Panics
    /// If `image` is not `[3, size, size]`, or the plug-in has no such class.
    pub fn explain(
        &self,
        image: &[f32],
        size: usize,
        plugin: &Plugin,
        class: usize,
        method: ExplainMethod,
    ) -> Result<Explanation, Error> {
        self.check_size(size)?;
        let Plugin { adapter, head, .. } = plugin;
        assert_eq!(image.len(), 3 * size * size, "length of [3, {size}, {size}]");
        assert!(class < head.classes(), "class {class} of {}", head.classes());
        let pos_embed = positions::resample(&self.weights.pos_embed, &self.config, size);
        let tokens = self.config.tokens(size);
        let shape = GroupShape { images: 1, size, tokens, pos_embed: &pos_embed, dropout: None, parts: 1 };
        let segment = GroupSegment { start: 0, end: 1, adapter: Some(adapter), head };
        let mut buffers = Buffers { images: image.to_vec(), ..Buffers::default() };
        self.embed(shape, &mut buffers);
        self.blocks(shape, &[segment], 0..self.config.depth, Some(0), &mut buffers);
        self.pool(shape, &mut buffers);
        let mut logits = vec![0.0; head.classes()];
        self.logits(segment, &buffers.features, &mut logits);
        let mut values = match method {
            ExplainMethod::Rollout => self.rollout(shape, &buffers),
            ExplainMethod::Gradient => self.gradient_relevance(shape, plugin, class, &mut buffers),
        };
        let prefix = values.drain(..self.config.prefix_tokens()).collect();
        Ok(Explanation { grid: size / self.config.patch, values, prefix, logits })
    }

    /// `r Â_L … Â_1` of the forward pass in `buffers`; the rows of `Â` sum to 1 because those of `A` and `I` do.
    fn rollout(&self, shape: GroupShape<'_>, buffers: &Buffers) -> Vec<f32> {
        let t = shape.tokens;
        let mut relevance = self.read_tokens(t);
        let (mut row, mut p, mut joint) = (Vec::new(), vec![0.0; t * t], vec![0.0; t * t]);
        for tape in buffers.tape.iter().rev() {
            joint.fill(0.0);
            for head in 0..self.config.heads {
                self.kernels.attention_probabilities(self.attention_shape(t), &tape.qkv, head, &mut p);
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
        plugin: &Plugin,
        class: usize,
        buffers: &mut Buffers,
    ) -> Vec<f32> {
        let t = shape.tokens;
        let Plugin { adapter, head, .. } = plugin;
        let mut gradients = Gradients::zeros(adapter, head, &self.config, false);
        let mut d_logits = vec![0.0; head.classes()];
        d_logits[class] = 1.0;
        self.head_backward(shape, head, &d_logits, buffers, &mut gradients.head);
        self.pool_backward(shape, buffers, None);
        let mut row = self.read_tokens(t);
        let read = row.clone();
        let mut relevance = vec![0.0; t];
        let (mut p, mut d_p, mut joint) = (vec![0.0; t * t], vec![0.0; t * t], vec![0.0; t * t]);
        for block in (0..self.config.depth).rev() {
            let tape = std::mem::take(&mut buffers.tape[block]);
            let training = Training { adapter, gradients: &mut gradients };
            self.block_backward(block, shape, &tape, block > 0, buffers, training);
            let d_o = &buffers.backward.d_o;
            joint.fill(0.0);
            for head in 0..self.config.heads {
                let attention = self.attention_shape(t);
                self.kernels.attention_probabilities(attention, &tape.qkv, head, &mut p);
                self.kernels.attention_probabilities_backward(attention, &tape.qkv, d_o, head, &mut d_p);
                for ((joint, p), d_p) in joint.iter_mut().zip(&p).zip(&d_p) {
                    *joint += (d_p * p).max(0.0);
                }
            }
            self.descend(&row, &joint, (1.0, 1.0), &mut relevance);
            row.iter_mut().zip(&read).zip(&relevance).for_each(|((row, read), moved)| *row = read + moved);
        }
        relevance
    }

    /// The row vector `[t]` that takes the mean of the rows that the head reads.
    fn read_tokens(&self, tokens: usize) -> Vec<f32> {
        let (class, prefix) = (self.config.class_tokens(), self.config.prefix_tokens());
        let share = |token: usize| match self.config.pool {
            Pool::Token if token < class => 1.0 / class as f32,
            Pool::Avg if token >= prefix => 1.0 / (tokens - prefix) as f32,
            Pool::TokenAvg if token < class => 0.5,
            Pool::TokenAvg if token >= prefix => 0.5 / (tokens - prefix) as f32,
            _ => 0.0,
        };
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
