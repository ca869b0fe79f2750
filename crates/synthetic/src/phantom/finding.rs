//! How plain a finding is, and where it lies.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::exact::{cos_turns, sin_turns};

/// How plain a finding is, from 0 (all but absent) to 1: mostly plain, one in five below two thirds.
pub(super) fn visibility(rng: &mut ChaCha8Rng) -> f32 {
    rng.random_range(0.0f32..1.0).sqrt().sqrt()
}

/// A point about the origin at a random angle, its distance a draw from `radius`.
pub(super) fn scatter(rng: &mut ChaCha8Rng, radius: std::ops::Range<f32>) -> (f32, f32) {
    let turn = rng.random_range(0.0f32..1.0);
    let r = rng.random_range(radius);
    (r * cos_turns(turn), r * sin_turns(turn))
}
