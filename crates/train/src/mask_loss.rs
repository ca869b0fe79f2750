//! The loss of masks: what the head gives of patches, through its decoder to scores of every pixel, and back.

use crate::error::Error;
use crate::examples::Examples;
use crate::team::{Reader, Team, Writer};
use melo_data::EpochAugment;
use melo_vit::{
    Decoder, DecoderTape, Engine, Head, ImageError, ImagePart, ImageSource, PluginRef, classes_of,
    cross_entropy_and_dice, enlarge, enlarge_backward,
};
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Images whose outputs are held at a time.
const CHUNK: usize = 32;

/// The images of a batch, with their masks, under one decoder.
pub(crate) struct MaskLoss<'a> {
    decoder: &'a Decoder,
    examples: &'a dyn Examples,
    source: &'a dyn ImageSource,
    order: &'a [usize],
    augment: Option<EpochAugment<'a>>,
    /// What each image adds to the decoder's gradient, in the order of the batch: the order of threads changes nothing.
    gradients: Vec<Mutex<Option<Decoder>>>,
    failed: Mutex<Option<(usize, ImageError)>>,
}

/// What is seen of a class in one image: pixels of the mask, of the answer, and of both.
pub(crate) type Overlap = [u64; 3];

impl<'a> MaskLoss<'a> {
    /// Of the images at `order`, as `source` gives them.
    pub(crate) fn new(
        decoder: &'a Decoder,
        examples: &'a dyn Examples,
        source: &'a dyn ImageSource,
        order: &'a [usize],
        augment: Option<EpochAugment<'a>>,
    ) -> Self {
        let gradients = order.iter().map(|_| Mutex::new(None)).collect();
        MaskLoss { decoder, examples, source, order, augment, gradients, failed: Mutex::new(None) }
    }

    /// Loss of one image times `scale`, with its gradient on what the head gave, `tokens [p, rows]`; not a number where its mask or its
    /// pixels cannot be read, see [`MaskLoss::finish`].
    pub(crate) fn step(&self, image: usize, tokens: &[f32], scale: f64, d_tokens: &mut [f32]) -> f64 {
        let mut step = || -> Result<f64, ImageError> {
            let size = self.examples.size();
            let (pixels, labels) = self.load(image)?;
            let mut tape = DecoderTape::default();
            let scores = self.decoder.forward(tokens, &pixels, size, &mut tape);
            let (c, side, to) = (self.decoder.classes(), self.decoder.side(size), self.examples.mask_side());
            let enlarged = enlarge(&scores, c, side, to);
            let mut d = vec![0.0; enlarged.len()];
            let loss = cross_entropy_and_dice(&enlarged, &labels, scale, &mut d);
            let mut gradient = self.decoder.zeros_like();
            let d_scores = enlarge_backward(&d, c, side, to);
            d_tokens.copy_from_slice(&self.decoder.backward(&tape, size, &d_scores, &mut gradient));
            *self.gradients[image].lock().unwrap_or_else(PoisonError::into_inner) = Some(gradient);
            Ok(loss)
        };
        step().unwrap_or_else(|error| {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((image, error));
            f64::NAN
        })
    }

    /// Loss of one image, and what is seen of each class.
    ///
    /// # Errors
    /// [`Error::Vit`] with the image whose mask or pixels cannot be read.
    pub(crate) fn judge(&self, image: usize, tokens: &[f32]) -> Result<(f64, Vec<Overlap>), Error> {
        let size = self.examples.size();
        let (pixels, labels) =
            self.load(image).map_err(|source| melo_vit::Error::Image { index: self.order[image], source })?;
        let scores = self.decoder.scores(tokens, &pixels, size);
        let c = self.decoder.classes();
        let scores = enlarge(&scores, c, self.decoder.side(size), self.examples.mask_side());
        let loss = cross_entropy_and_dice(&scores, &labels, 1.0, &mut vec![0.0; scores.len()]);
        let mut overlaps = vec![[0; 3]; c];
        for (found, &label) in classes_of(&scores, c).zip(&labels).filter(|(_, label)| usize::from(**label) < c) {
            let label = usize::from(label);
            overlaps[label][0] += 1;
            overlaps[found][1] += 1;
            overlaps[label][2] += u64::from(found == label);
        }
        Ok((loss, overlaps))
    }

    /// Adds what the images gave, on any rank, to the decoder's gradient.
    ///
    /// # Errors
    /// [`Error::Vit`] with the first image whose mask or pixels could not be read.
    pub(crate) fn finish(self, gradient: &mut Head, team: &Team) -> Result<(), Error> {
        if let Some((image, source)) = self.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(melo_vit::Error::Image { index: self.order[image], source }.into());
        }
        let parts: Vec<Decoder> =
            self.gradients.into_iter().filter_map(|part| part.into_inner().ok().flatten()).collect();
        let parts = of_all_ranks(parts, self.decoder, team)?;
        let sums = gradient.decoder.iter_mut().flat_map(Decoder::tensors_mut);
        for (tensor, sum) in sums.enumerate() {
            for part in &parts {
                sum.iter_mut().zip(part.tensors()[tensor]).for_each(|(sum, part)| *sum += part);
            }
        }
        Ok(())
    }

    /// The pixels that the decoder reads, none of a linear one, and the mask.
    fn load(&self, image: usize) -> Result<(Vec<f32>, Vec<u8>), ImageError> {
        let (size, side) = (self.examples.size(), self.examples.mask_side());
        let mut pixels = vec![0.0; if self.decoder.reads_pixels() { 3 * size * size } else { 0 }];
        let mut labels = vec![0; side * side];
        if self.decoder.reads_pixels() {
            self.source.load(image, &mut pixels)?;
        }
        self.examples.mask(self.order, self.augment, image, &mut labels)?;
        Ok((pixels, labels))
    }
}

/// What all ranks have of consecutive images, in their order.
fn of_all_ranks(mine: Vec<Decoder>, like: &Decoder, team: &Team) -> Result<Vec<Decoder>, Error> {
    if team.size() == 1 {
        return Ok(mine);
    }
    let mut bytes = Writer::default();
    mine.iter().flat_map(Decoder::tensors).for_each(|tensor| bytes.values(tensor));
    let all = team.gather::<Error>("gradients of masks", Ok(bytes.bytes()))?;
    let mut parts = Vec::new();
    for bytes in &all {
        let mut bytes = Reader::new(bytes);
        while !bytes.is_empty() {
            let mut part = like.zeros_like();
            part.tensors_mut().into_iter().for_each(|tensor| *tensor = bytes.values());
            parts.push(part);
        }
    }
    Ok(parts)
}

/// What `each` makes of the outputs of every image of a source, under a head that reads patches, in their order: on all threads, and a chunk
/// of images at a time, since such outputs are large.
///
/// # Errors
/// [`Error::Vit`] as [`Engine::forward`]; the first of `each`.
pub(crate) fn of_outputs<T: Send>(
    engine: &dyn Engine,
    plugin: PluginRef<'_>,
    (source, images, size): (&dyn ImageSource, usize, usize),
    each: impl Fn(usize, &[f32]) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let outputs = plugin.head.outputs(engine.backbone().config(), size);
    let mut made = Vec::with_capacity(images);
    for first in (0..images).step_by(CHUNK) {
        let found = engine.logits(&ImagePart { source, first }, CHUNK.min(images - first), size, plugin)?;
        let of_chunk = found.par_chunks_exact(outputs).enumerate();
        made.extend(of_chunk.map(|(image, of)| each(first + image, of)).collect::<Result<Vec<T>, Error>>()?);
    }
    Ok(made)
}

/// The mean Dice coefficient of the classes after the first: for each the mean over the images whose mask has it, as MONAI's `DiceMetric`.
/// None where no mask has any.
pub(crate) fn mean_dice(images: &[Vec<Overlap>]) -> Option<f64> {
    let classes = images.first().map_or(0, Vec::len);
    let mean = |values: Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let of_class = |class: usize| {
        let present = images.iter().map(|image| image[class]).filter(|[mask, ..]| *mask > 0);
        mean(present.map(|[mask, found, both]| 2.0 * both as f64 / (mask + found) as f64).collect())
    };
    mean((1..classes).filter_map(of_class).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_is_the_mean_of_images_that_have_a_class_then_of_classes() {
        let images = vec![
            vec![[5, 5, 5], [2, 4, 2], [0, 3, 0]],
            vec![[5, 5, 5], [2, 0, 0], [4, 4, 4]],
            vec![[5, 5, 5], [0, 9, 0], [0, 0, 0]],
        ];
        assert_eq!(mean_dice(&images), Some(((2.0 / 3.0 + 0.0) / 2.0 + 1.0) / 2.0));
        assert_eq!(mean_dice(&[vec![[5, 5, 5], [0, 9, 0]]]), None);
    }
}
