//! One training step on bags, in memory that does not grow with them.
//!
//! ```text
//! first pass     features h of all images, nothing kept of how they came about       [images, d]
//! bag by bag     z, logits, loss; gradients of the head and of the pooling; d_h      [images, d]
//! second pass    groups of images again, forward and backward from their d_h -> gradients of the adapter, added up
//! ```
//!
//! In the second pass the head is the identity: its logits are the features, so that what a loss would write as `d_logits` is `d_h`, and
//! an engine needs nothing besides [`Engine::step`]. Both passes see the same images. With dropout the first pass is such a step too,
//! from a gradient of zero, with the masks of the second.

use crate::adapter::Adapter;
use crate::bag::head::BagHead;
use crate::dropout::Dropout;
use crate::engine::{Batch, Engine, ImageLoss};
use crate::error::Error;
use crate::gradients::Gradients;
use crate::head::Head;
use crate::image::{ImagePart, ImageSource};

/// Images of a group of the second pass.
const GROUP: usize = 32;
/// Bits of a step's number that tell its groups apart where masks are drawn.
const GROUP_BITS: u32 = 20;

/// One training step's bags.
pub struct BagBatch<'a> {
    /// Where images come from: those of the first bag, then those of the second. Each is asked for twice, and must be the same.
    pub source: &'a dyn ImageSource,
    /// Images of each bag.
    pub lengths: &'a [usize],
    /// Side of the images, pixels.
    pub size: usize,
    /// Loss of a bag, already divided by whatever the mean is over.
    pub loss: &'a ImageLoss<'a>,
    /// Dropout on the low-rank updates.
    pub dropout: Option<Dropout>,
}

/// What bags come to on features alone.
#[derive(Clone, Debug)]
pub struct BagLoss {
    /// The sum over bags.
    pub loss: f64,
    /// `[bags, c]`.
    pub logits: Vec<f32>,
    /// Gradient of the features, `[images, d]`.
    pub d_features: Vec<f32>,
}

impl BagHead {
    /// Forward, loss and backward of bags on the features `[images, d]` of their images: adds to the gradients of pooling and head.
    ///
    /// # Panics
    /// If a bag has no image, or shapes are of other parts.
    pub fn step(
        &self,
        features: &[f32],
        lengths: &[usize],
        loss: &ImageLoss<'_>,
        head: &Head,
        (bag_gradient, head_gradient): (&mut BagHead, &mut Head),
    ) -> BagLoss {
        let (c, images) = (head.rows(), lengths.iter().sum::<usize>());
        let d = head.weight.len() / c;
        assert_eq!(features.len(), images * d, "features of other bags");
        let mut of_bags = BagLoss { loss: 0.0, logits: Vec::new(), d_features: Vec::with_capacity(features.len()) };
        let mut first = 0;
        for (index, &length) in lengths.iter().enumerate() {
            let of_bag = &features[first * d..(first + length) * d];
            first += length;
            let pooled = self.pool(of_bag);
            let logits: Vec<f32> = head
                .weight
                .chunks_exact(d)
                .zip(&head.bias)
                .map(|(row, b)| product(row, &pooled.features) + b)
                .collect();
            let mut d_logits = vec![0.0; c];
            of_bags.loss += loss(index, &logits, &mut d_logits);
            of_bags.logits.extend(logits);
            let mut d_pooled = vec![0.0; d];
            let rows = head.weight.chunks_exact(d).zip(head_gradient.weight.chunks_exact_mut(d));
            for ((row, d_row), &d_logit) in rows.zip(&d_logits) {
                d_row.iter_mut().zip(&pooled.features).for_each(|(sum, z)| *sum += d_logit * z);
                d_pooled.iter_mut().zip(row).for_each(|(sum, w)| *sum += d_logit * w);
            }
            head_gradient.bias.iter_mut().zip(&d_logits).for_each(|(sum, d)| *sum += d);
            of_bags.d_features.extend(self.backward(of_bag, &pooled, &d_pooled, bag_gradient));
        }
        of_bags
    }
}

impl dyn Engine + '_ {
    /// Forward, loss and backward of bags: adds to the gradients of adapter and head and to that of the pooling, returns the summed loss
    /// and the logits `[bags, c]`. Beside the features of all images it holds what [`Engine::step`] holds of 32.
    ///
    /// # Errors
    /// As [`Engine::step`]; gradients may then be anything.
    ///
    /// # Panics
    /// If a bag has no image, a part of the plug-in is of another network, or all weights are trained.
    pub fn bag_step(
        &self,
        batch: &BagBatch<'_>,
        adapter: &Adapter,
        (bag, head): (&BagHead, &Head),
        (bag_gradient, gradients): (&mut BagHead, &mut Gradients),
    ) -> Result<(f64, Vec<f32>), Error> {
        assert!(gradients.weights.is_none(), "bags with all weights trained");
        let (vit, images) = (self.backbone().config(), batch.lengths.iter().sum::<usize>());
        let d = vit.feature_width();
        let identity = identity(d);
        let mut of_groups = Gradients::zeros(adapter, &identity, vit, false);
        let mut groups = |d_features: Option<&[f32]>| -> Result<Vec<f32>, Error> {
            let mut features = Vec::with_capacity(images * d);
            for (number, first) in (0..images).step_by(GROUP).enumerate() {
                let loss = |image: usize, _: &[f32], d_logits: &mut [f32]| {
                    let row = (first + image) * d;
                    match d_features {
                        Some(d_features) => d_logits.copy_from_slice(&d_features[row..row + d]),
                        None => d_logits.fill(0.0),
                    }
                    0.0
                };
                let group = Batch {
                    source: &ImagePart { source: batch.source, first },
                    images: GROUP.min(images - first),
                    size: batch.size,
                    loss: &loss,
                    dropout: batch.dropout.map(|of| Dropout { step: of.step << GROUP_BITS | number as u64, ..of }),
                };
                features.extend(self.step(&group, adapter, &identity, &mut of_groups)?.1);
            }
            Ok(features)
        };
        let features = match batch.dropout {
            Some(_) => groups(None)?,
            None => self.embed(batch.source, images, batch.size, Some(adapter))?,
        };
        let of_bags = bag.step(&features, batch.lengths, batch.loss, head, (bag_gradient, &mut gradients.head));
        if !adapter.tensors().is_empty() {
            groups(Some(&of_bags.d_features))?;
            let sums = gradients.adapter.tensors_mut().into_iter().zip(of_groups.adapter.tensors());
            sums.for_each(|(sum, part)| sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part));
        }
        Ok((of_bags.loss, of_bags.logits))
    }
}

/// The head whose logits are the features.
fn identity(d: usize) -> Head {
    let mut head = Head::zeros(d, d);
    (0..d).for_each(|at| head.weight[at * d + at] = 1.0);
    head
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
