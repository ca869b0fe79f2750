//! Smooth random functions of the plane: value noise and its fractal sum.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::exact::floor;

/// Side of the lattice, a power of two so that coordinates wrap with a mask.
const SIDE: usize = 32;

/// Value noise: random values at integer points, blended smoothly between them; repeats every 32 units.
pub(crate) struct Lattice {
    values: Vec<f32>,
}

impl Lattice {
    /// Draws the lattice's values, uniform in -1..1.
    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut bytes = [0; SIDE * SIDE];
        rng.fill_bytes(&mut bytes);
        let values = bytes.iter().map(|&b| f32::from(b) / 127.5 - 1.0).collect();
        Self { values }
    }

    /// The noise at `(x, y)` in lattice units, in -1..1.
    pub(crate) fn at(&self, x: f32, y: f32) -> f32 {
        let (x0, y0) = (floor(x), floor(y));
        let (fx, fy) = (x - x0 as f32, y - y0 as f32);
        let (wx, wy) = (fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy));
        let mask = SIDE as i32 - 1;
        let (left, right) = (x0 & mask, (x0 + 1) & mask);
        let (upper, lower) = ((y0 & mask) * SIDE as i32, ((y0 + 1) & mask) * SIDE as i32);
        let value = |row: i32, column: i32| self.values[(row + column) as usize];
        let top = value(upper, left) + (value(upper, right) - value(upper, left)) * wx;
        let bottom = value(lower, left) + (value(lower, right) - value(lower, left)) * wx;
        top + (bottom - top) * wy
    }

    /// Fractal Brownian motion: `octaves` layers, each twice as fine and `gain` times as strong, scaled back to
    /// -1..1. Each layer is turned (by the 3-4-5 angle) so that the lattice does not show.
    pub(crate) fn fbm(&self, x: f32, y: f32, octaves: usize, gain: f32) -> f32 {
        let (mut x, mut y) = (x, y);
        let (mut sum, mut total, mut weight) = (0.0, 0.0, 1.0);
        for _ in 0..octaves {
            sum += weight * self.at(x, y);
            total += weight;
            weight *= gain;
            (x, y) = (1.6 * x - 1.2 * y + 5.3, 1.2 * x + 1.6 * y + 9.1);
        }
        sum / total
    }
}
