//! What a block gives, as features; and a head alone on features that were computed before.

use super::buffers::{BlockTape, Buffers, GroupSegment, GroupShape};
use super::packed::Packed;
use super::walk::{LANES, Workspace};
use crate::engine::ImageLoss;
use crate::features::{FeatureKind, Features};
use crate::head::Head;
use std::ops::Range;

impl Packed {
    /// As [`crate::Engine::features`], of the loaded images of a group: blocks after the one that is asked for are not computed.
    pub(crate) fn features_of_group(
        &self,
        shape: GroupShape<'_>,
        segments: &[GroupSegment<'_>],
        features: Features,
        buffers: &mut Buffers,
    ) -> Vec<f32> {
        let blocks = 0..features.block + 1;
        let of_class = matches!(features.kind, FeatureKind::Class | FeatureKind::Pooled);
        let tokens = match of_class {
            true => self.blocks(shape, segments, blocks, None, buffers),
            false => {
                self.blocks_of_all_tokens(shape, segments, blocks, buffers);
                shape.tokens
            }
        };
        let (d, prefix) = (self.config.width, self.config.prefix_tokens());
        let taken = match features.kind {
            FeatureKind::Pooled => {
                self.pool(GroupShape { tokens, ..shape }, buffers);
                return buffers.features.clone();
            }
            FeatureKind::Class => 0..1,
            FeatureKind::Mean | FeatureKind::Grid => prefix..tokens,
        };
        let rows = buffers.x.chunks_exact(tokens * d).flat_map(|x| &x[taken.start * d..taken.end * d]).copied();
        let mut rows: Vec<f32> = rows.collect();
        if let Some(norm) = self.weights.norm.as_ref().filter(|_| features.norm) {
            let raw = std::mem::take(&mut rows);
            self.layernorm(norm, &raw, &mut rows);
        }
        if features.kind != FeatureKind::Mean {
            return rows;
        }
        rows.chunks_exact(taken.len() * d).flat_map(|tokens| mean_of(tokens, d)).collect()
    }

    /// Keeps class token and mean patch token of each image as they are now, behind those that were kept before.
    pub(crate) fn keep_intermediates(&self, shape: GroupShape<'_>, buffers: &mut Buffers) {
        let (d, prefix) = (self.config.width, self.config.prefix_tokens());
        let class = d * self.config.class_tokens().min(1);
        let of_image = |x: &[f32]| [x[..class].to_vec(), mean_of(&x[prefix * d..], d)].concat();
        let kept = buffers.x.chunks_exact(shape.tokens * d).flat_map(of_image).collect();
        buffers.intermediates.push(kept);
    }

    /// What was kept of an image of the group, block by block.
    pub(crate) fn intermediates_of(&self, image: usize, buffers: &Buffers) -> Vec<f32> {
        let width = self.config.intermediate_width();
        buffers.intermediates.iter().flat_map(|kept| &kept[image * width..(image + 1) * width]).copied().collect()
    }

    /// As [`Packed::blocks`], of every token also where heads read the class token alone.
    fn blocks_of_all_tokens(
        &self,
        shape: GroupShape<'_>,
        segments: &[GroupSegment<'_>],
        blocks: Range<usize>,
        buffers: &mut Buffers,
    ) {
        if shape.parts > 1 && shape.images == 1 {
            buffers.tape.resize_with(buffers.tape.len().max(1), BlockTape::default);
            self.blocks_in_parts(shape, segments, blocks, false, buffers);
        } else {
            self.whole_blocks(shape, segments, blocks, None, buffers);
        }
    }

    /// As [`crate::Engine::classify`], image by image as [`Packed::forward`] does.
    pub(crate) fn classify(&self, features: &[f32], head: &Head) -> Vec<f32> {
        let (width, classes) = (self.config.feature_width(), head.rows());
        let mut logits = vec![0.0; features.len() / width * classes];
        for (features, logits) in features.chunks_exact(width).zip(logits.chunks_exact_mut(classes)) {
            self.kernels.classify(features, &head.weight, &head.bias, logits);
        }
        logits
    }

    /// As [`crate::Engine::head_step`], in the groups and lanes of [`Packed::step`]: the sums are the same to the last bit.
    pub(crate) fn head_step(
        &self,
        features: &[f32],
        loss: &ImageLoss<'_>,
        head: &Head,
        gradient: &mut Head,
        workspace: &Workspace,
    ) -> (f64, Vec<f32>) {
        let (width, classes) = (self.config.feature_width(), head.rows());
        let images = features.len() / width;
        let groups = images.div_ceil(workspace.group);
        let lanes = groups.min(LANES);
        let kernels = self.kernels.in_f32();
        let (mut losses, logits) = (Vec::new(), self.classify(features, head));
        for lane in 0..lanes {
            let (mut sum, mut lane_loss) = (Head::zeros(classes, width), 0.0);
            for group in groups * lane / lanes..groups * (lane + 1) / lanes {
                let range = group * workspace.group..images.min((group + 1) * workspace.group);
                let mut d_logits = vec![0.0; range.len() * classes];
                for (image, d_logits) in range.clone().zip(d_logits.chunks_exact_mut(classes)) {
                    lane_loss += loss(image, &logits[image * classes..(image + 1) * classes], d_logits);
                }
                let features = &features[range.start * width..range.end * width];
                kernels.linear_backward_weight(features, &d_logits, &mut sum.weight, &mut sum.bias, classes);
            }
            for (gradient, sum) in gradient.tensors_mut().into_iter().zip(sum.tensors()) {
                gradient.iter_mut().zip(sum).for_each(|(gradient, sum)| *gradient += sum);
            }
            losses.push(lane_loss);
        }
        (losses.iter().sum(), logits)
    }
}

/// The mean of tokens `[t, d]`.
fn mean_of(tokens: &[f32], d: usize) -> Vec<f32> {
    let (mut mean, share) = (vec![0.0; d], 1.0 / (tokens.len() / d) as f32);
    for token in tokens.chunks_exact(d) {
        mean.iter_mut().zip(token).for_each(|(mean, x)| *mean += share * x);
    }
    mean
}
