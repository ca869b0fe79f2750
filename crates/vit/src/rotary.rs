//! Rotary positions: by which angles a patch's queries and keys are turned.

use crate::invalid::Invalid;
use melo_kernels::{Pairs, Rotation};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// Where patches stand along a side of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotaryGrid {
    /// Their middles between -1 and 1, whatever the grid, and angles are whole turns: DINOv3.
    Centered,
    /// Their numbers from 0 on, and angles are radians: EVA-02. In a grid of another side than this one, numbers stretched to it.
    Numbered(usize),
}

/// Which values of a head are turned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotaryPairs {
    /// One of the first half with one of the second: DINOv3.
    Halves,
    /// Neighbours: EVA-02.
    Neighbours,
}

/// Rotary positions of patches in two dimensions, the same in every block and head; tokens in front of them are not turned.
///
/// The first half of a head's pairs is turned by the row, the second by the column: pair `i` of `n` of a half by its coordinate over
/// `temperature^(i / n)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotary {
    /// What the slowest turns come near to, in units of the coordinates.
    pub temperature: f32,
    /// Coordinates.
    pub grid: RotaryGrid,
    /// Pairs.
    pub pairs: RotaryPairs,
}

impl Rotary {
    /// DINOv3's.
    pub const DINOV3: Rotary = Rotary { temperature: 100.0, grid: RotaryGrid::Centered, pairs: RotaryPairs::Halves };

    /// Angles in radians of the patches of a grid of so many a side, row by row, `[side², head_width / 2]`.
    pub fn angles(&self, side: usize, head_width: usize) -> Vec<f64> {
        let count = head_width / 4;
        let coordinate = |place: usize| match self.grid {
            RotaryGrid::Centered => TAU * (2.0 * (place as f64 + 0.5) / side as f64 - 1.0),
            RotaryGrid::Numbered(trained) => place as f64 * trained as f64 / side as f64,
        };
        let slowness = |i: usize| f64::from(self.temperature).powf(i as f64 / count as f64);
        let along = |place: usize| (0..count).map(move |i| coordinate(place) / slowness(i));
        (0..side * side).flat_map(|patch| along(patch / side).chain(along(patch % side))).collect()
    }

    /// The same as kernels take it.
    pub(crate) fn rotation(&self, side: usize, head_width: usize) -> Rotation {
        let pairs = match self.pairs {
            RotaryPairs::Halves => Pairs::Halves,
            RotaryPairs::Neighbours => Pairs::Neighbours,
        };
        Rotation::new(&self.angles(side, head_width), head_width / 2, pairs)
    }

    /// Checks that heads of this width can be turned.
    pub(crate) fn check(&self, head_width: usize) -> Result<(), Invalid> {
        let wrong = |reason: String| Err(Invalid::new("rotary", reason));
        if !head_width.is_multiple_of(4) {
            return wrong(format!("heads of width {head_width}: rotary positions in two dimensions take four values"));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return wrong(format!("rotary temperature {} is not positive", self.temperature));
        }
        match self.grid {
            RotaryGrid::Numbered(0) => wrong("rotary positions numbered for a grid of no patch".into()),
            _ => Ok(()),
        }
    }
}
