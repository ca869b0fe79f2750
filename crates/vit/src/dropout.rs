//! Dropout on the input of low-rank updates, in training: `B A (m ∘ x)` with `m` 0 or `1 / (1 - p)` (inverted dropout, as
//! PEFT's `lora_dropout`).
//!
//! A mask is a function of seed, step, image, block and target, so the backward pass draws it again instead of keeping
//! it, and it knows nothing of threads, groups or where a run was resumed.

use crate::adapter::Target;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Dropout of one training step.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Probability `p` of a zero, in [0, 1).
    pub probability: f64,
    /// Seed of the run.
    pub seed: u64,
    /// Step of the run.
    pub step: u64,
}

/// Dropout of one group of images.
#[derive(Clone, Copy)]
pub(crate) struct GroupDropout {
    pub(crate) dropout: Dropout,
    /// The group's first image, within the batch.
    pub(crate) first_image: usize,
    /// Tokens of an image.
    pub(crate) tokens: usize,
}

/// Buffers of one adapted projection under dropout, `[m, in]` each.
#[derive(Debug, Default)]
pub(crate) struct DropoutScratch {
    /// The mask `m`.
    pub(crate) mask: Vec<f32>,
    /// `m ∘ x`.
    pub(crate) x: Vec<f32>,
    /// Gradient of `m ∘ x`.
    pub(crate) d_x: Vec<f32>,
}

impl Dropout {
    /// The mask of one image, `[t, in]`: the ChaCha key holds seed, step, image, block and target side by side, so no two
    /// of them share a stream.
    fn mask(&self, image: usize, (block, target): (usize, Target), mask: &mut [f32]) {
        let mut key = [0; 32];
        let place = ((block as u64) << 8) | target as u64;
        for (bytes, word) in key.chunks_exact_mut(8).zip([self.seed, self.step, image as u64, place]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut rng = ChaCha8Rng::from_seed(key);
        let dropped = (self.probability * 4_294_967_296.0) as u32;
        let kept = (1.0 / (1.0 - self.probability)) as f32;
        mask.iter_mut().for_each(|m| *m = if rng.next_u32() < dropped { 0.0 } else { kept });
    }
}

impl GroupDropout {
    /// Draws the masks of all images of `x [m, in]` and applies them: fills `mask` and `x` of the scratch.
    pub(crate) fn apply(&self, place: (usize, Target), x: &[f32], input: usize, scratch: &mut DropoutScratch) {
        scratch.mask.resize(x.len(), 0.0);
        for (image, mask) in (self.first_image..).zip(scratch.mask.chunks_exact_mut(self.tokens * input)) {
            self.dropout.mask(image, place, mask);
        }
        scratch.x.clear();
        scratch.x.extend(x.iter().zip(&scratch.mask).map(|(x, m)| x * m));
    }
}

impl DropoutScratch {
    /// Adds the gradient of `m ∘ x` to that of `x`.
    pub(crate) fn spread(&self, d_x: &mut [f32]) {
        d_x.iter_mut().zip(&self.d_x).zip(&self.mask).for_each(|((sum, d), m)| *sum += d * m);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROPOUT: Dropout = Dropout { probability: 0.25, seed: 7, step: 3 };

    fn mask(dropout: Dropout, image: usize, place: (usize, Target)) -> Vec<f32> {
        let mut mask = vec![0.5; 20_000];
        dropout.mask(image, place, &mut mask);
        mask
    }

    #[test]
    fn a_mask_keeps_the_mean() {
        let mask = mask(DROPOUT, 0, (0, Target::Q));
        assert!(mask.iter().all(|&m| m == 0.0 || m == 1.0 / 0.75));
        let kept = mask.iter().filter(|&&m| m > 0.0).count() as f64 / 20_000.0;
        // Five standard deviations of a binomial share.
        assert!((kept - 0.75).abs() < 5.0 * (0.75 * 0.25 / 20_000.0f64).sqrt(), "{kept}");
    }

    #[test]
    fn everything_that_may_differ_makes_another_mask() {
        let place = (1, Target::V);
        let one = mask(DROPOUT, 2, place);
        assert_eq!(one, mask(DROPOUT, 2, place));
        let others = [
            mask(Dropout { seed: 8, ..DROPOUT }, 2, place),
            mask(Dropout { step: 4, ..DROPOUT }, 2, place),
            mask(DROPOUT, 3, place),
            mask(DROPOUT, 2, (2, Target::V)),
            mask(DROPOUT, 2, (1, Target::O)),
        ];
        for other in others {
            // Independent masks agree in 0.75² + 0.25² of the places.
            let alike = one.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!((12_000..13_000).contains(&alike), "{alike}");
        }
    }
}
