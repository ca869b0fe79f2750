//! Bags through an engine: features in parts, pooled bag by bag.

use crate::adapter::Adapter;
use crate::bag::head::{BagHead, Pooled};
use crate::engine::Engine;
use crate::error::Error;
use crate::head::Head;
use crate::image::{ImagePart, ImageSource};

/// Images whose features are asked for together: enough for all threads.
const IMAGES: usize = 256;

/// What a plug-in says of bags.
#[derive(Clone, Debug, PartialEq)]
pub struct BagLogits {
    /// Before the temperature, `[bags, c]`.
    pub logits: Vec<f32>,
    /// How much each image of each bag counted, see [`Pooled::attention`].
    pub attention: Vec<Vec<f32>>,
}

impl dyn Engine + '_ {
    /// Logits of bags under an adapter, a pooling and a head: bag `i` is the next `lengths[i]` images of the source. At most the features of
    /// one bag and of 256 images are held.
    ///
    /// # Errors
    /// As [`Engine::forward`].
    ///
    /// # Panics
    /// If a bag has no image, or a part of the plug-in is of another network.
    pub fn bag_logits(
        &self,
        source: &dyn ImageSource,
        lengths: &[usize],
        size: usize,
        adapter: Option<&Adapter>,
        (bag, head): (&BagHead, &Head),
    ) -> Result<BagLogits, Error> {
        let width = self.backbone().config().feature_width();
        let (images, mut first, mut held) = (lengths.iter().sum::<usize>(), 0, Vec::new());
        let (mut pooled, mut attention) = (Vec::with_capacity(lengths.len() * width), Vec::new());
        for &length in lengths {
            while held.len() < length * width {
                let part = IMAGES.min(images - first);
                held.extend(self.embed(&ImagePart { source, first }, part, size, adapter)?);
                first += part;
            }
            let rest = held.split_off(length * width);
            let Pooled { features, attention: of_bag } = bag.pool(&held);
            pooled.extend(features);
            attention.push(of_bag);
            held = rest;
        }
        Ok(BagLogits { logits: self.classify(&pooled, head), attention })
    }
}
