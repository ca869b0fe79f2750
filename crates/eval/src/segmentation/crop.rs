//! One class of two maps within the box that holds it in both.

use super::distance::Lattice;

/// The box of a class, by its first and last places along each axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    first: [usize; 3],
    last: [usize; 3],
}

impl Bounds {
    pub(super) const EMPTY: Self = Self { first: [usize::MAX; 3], last: [0; 3] };

    /// Grows to hold a pixel.
    pub(super) fn hold(&mut self, at: [usize; 3]) {
        for ((first, last), at) in self.first.iter_mut().zip(&mut self.last).zip(at) {
            *first = at.min(*first);
            *last = at.max(*last);
        }
    }
}

/// Masks of a class in the reference and in the prediction, in a common box.
pub(super) struct Crop {
    pub lattice: Lattice,
    /// Of two axes: a pixel has four neighbours, not six.
    pub plane: bool,
    pub reference: Vec<bool>,
    pub prediction: Vec<bool>,
}

impl Crop {
    /// `is_class` says whether the pixel at an index of the whole maps is of the class, in the reference and in the prediction.
    pub(super) fn new(whole: Lattice, plane: bool, bounds: Bounds, is_class: impl Fn(usize) -> (bool, bool)) -> Self {
        let Bounds { first, last } = bounds;
        let shape: [usize; 3] = std::array::from_fn(|axis| last[axis] - first[axis] + 1);
        let pixels = shape.iter().product();
        let (mut reference, mut prediction) = (Vec::with_capacity(pixels), Vec::with_capacity(pixels));
        for z in first[0]..=last[0] {
            for y in first[1]..=last[1] {
                let row = (z * whole.shape[1] + y) * whole.shape[2];
                for x in first[2]..=last[2] {
                    let (in_reference, in_prediction) = is_class(row + x);
                    reference.push(in_reference);
                    prediction.push(in_prediction);
                }
            }
        }
        Self { lattice: Lattice { shape, spacing: whole.spacing }, plane, reference, prediction }
    }
}
