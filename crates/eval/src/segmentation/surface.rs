//! Distances between the borders of two masks.

use super::crop::Crop;
use super::distance::{Lattice, distances};
use crate::bootstrap::quantile;

/// Distances of each border pixel to the other mask's border, in the unit of the spacing.
pub(super) struct SurfaceDistances {
    /// From the prediction's border to the reference's.
    prediction: Vec<f64>,
    /// From the reference's border to the prediction's.
    reference: Vec<f64>,
}

impl SurfaceDistances {
    pub(super) fn new(crop: &Crop) -> Self {
        let reference = border(&crop.reference, crop.lattice, crop.plane);
        let prediction = border(&crop.prediction, crop.lattice, crop.plane);
        Self {
            prediction: distances(&prediction, &reference, crop.lattice),
            reference: distances(&reference, &prediction, crop.lattice),
        }
    }

    /// The larger of both directions' 95th percentiles (linear between ranks, as numpy's default). `None` where a mask is empty.
    pub(super) fn hd95(&self) -> Option<f64> {
        if self.prediction.is_empty() || self.reference.is_empty() {
            return None;
        }
        let percentile = |distances: &[f64]| {
            let mut sorted = distances.to_vec();
            sorted.sort_unstable_by(f64::total_cmp);
            quantile(&sorted, 0.95)
        };
        Some(percentile(&self.prediction).max(percentile(&self.reference)))
    }

    /// Share of both borders within `tolerance` of the other, 0 where one mask is empty. `None` where both are.
    pub(super) fn surface_dice(&self, tolerance: f64) -> Option<f64> {
        let all = || self.prediction.iter().chain(&self.reference);
        // In f32, as MONAI: three pixels of 0.1 mm are within 0.3 mm.
        let near = all().filter(|distance| **distance as f32 <= tolerance as f32).count();
        let count = all().count();
        (count > 0).then(|| near as f64 / count as f64)
    }
}

/// Pixels of the mask with a neighbour (of four in a plane, six in a volume) that is not in it; what is outside the box is not.
fn border(mask: &[bool], lattice: Lattice, plane: bool) -> Vec<bool> {
    let [outer, middle, width] = lattice.shape;
    let slab = middle * width;
    // Pixels before and after along each axis, without looking beyond the box.
    let inner = |i: usize| {
        let (z, y, x) = (i / slab, i / width % middle, i % width);
        let along =
            |at: usize, length: usize, stride: usize| at > 0 && at + 1 < length && mask[i - stride] && mask[i + stride];
        along(x, width, 1) && along(z, outer, slab) && (plane || along(y, middle, width))
    };
    mask.iter().enumerate().map(|(i, inside)| *inside && !inner(i)).collect()
}
