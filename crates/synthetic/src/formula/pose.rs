//! Where an instance lies in its image.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::exact::{cos_turns, sin_turns};

/// Where and how large an instance lies: a similarity, perhaps with a reflection.
pub(super) struct Pose {
    cos: f32,
    sin: f32,
    mirror: f32,
    shift: [f32; 2],
}

impl Pose {
    /// A random rotation and reflection, scaled by a draw from `scale` and moved by up to `shift` either way.
    pub(super) fn draw(rng: &mut ChaCha8Rng, scale: std::ops::Range<f32>, shift: f32) -> Self {
        let turn = rng.random_range(0.0f32..1.0);
        let scale = rng.random_range(scale);
        let mirror = if rng.random_range(0..2) == 0 { 1.0 } else { -1.0 };
        let shift = [0; 2].map(|_| rng.random_range(-1.0f32..1.0) * shift);
        Self { cos: cos_turns(turn) * scale, sin: sin_turns(turn) * scale, mirror, shift }
    }

    /// How many times as large it is.
    pub(super) fn scale(&self) -> f32 {
        (self.cos * self.cos + self.sin * self.sin).sqrt()
    }

    /// Moves a point.
    pub(super) fn apply(&self, x: f32, y: f32) -> (f32, f32) {
        let x = x * self.mirror;
        (self.cos * x - self.sin * y + self.shift[0], self.sin * x + self.cos * y + self.shift[1])
    }
}
