//! A mask through the geometry of its image, and scores back onto it: nearest neighbour, of pixels' centres.

use std::borrow::Cow;

use melo_vit::Preprocess;

use super::{IGNORE, Mask};
use crate::crop::Padding;
use crate::heatmap::inputs;
use crate::preprocess::fitted_size;

/// A mask resized as [`fit`](crate::fit) resizes its image: the label of each pixel is that of the old one that its centre
/// lies in, which is Pillow's `NEAREST`.
///
/// # Panics
/// If `mask` has no pixel, `labels` is not `[height, width]`, or `spec.resize_side()` is zero.
pub fn fit_mask(mask: &Mask, spec: &Preprocess) -> Mask {
    mask.check();
    let (width, height) = fitted_size(mask.width, mask.height, spec);
    let nearest =
        |old: usize, new: usize| -> Vec<usize> { (0..new).map(|at| (2 * at + 1) * old / (2 * new)).collect() };
    let (columns, rows) = (nearest(mask.width, width), nearest(mask.height, height));
    let row = |&row: &usize| &mask.labels[row * mask.width..][..mask.width];
    let labels = rows.iter().map(row).flat_map(|line| columns.iter().map(|&column| line[column])).collect();
    Mask { width, height, labels }
}

/// A fitted mask, padded with [`IGNORE`] to the crop's size where it is smaller, and where the centre crop begins in it:
/// [`Padded`](crate::Padded) of a mask.
pub struct PaddedMask<'a> {
    /// At least `size` × `size`.
    pub mask: Cow<'a, Mask>,
    /// First column of the centre crop.
    pub left: usize,
    /// First row of the centre crop.
    pub top: usize,
}

impl<'a> PaddedMask<'a> {
    /// Of what [`fit_mask`] gave for `spec`.
    ///
    /// # Panics
    /// If `fitted` has no pixel or its labels are of another size.
    pub fn new(fitted: &'a Mask, spec: &Preprocess) -> Self {
        fitted.check();
        let Padding { width, height, left, top, before, above } = Padding::of(fitted.width, fitted.height, spec);
        if (width, height) == (fitted.width, fitted.height) {
            return Self { mask: Cow::Borrowed(fitted), left, top };
        }
        let mut labels = vec![IGNORE; width * height];
        for (row, from) in fitted.labels.chunks_exact(fitted.width).enumerate() {
            let to = (above + row) * width + before;
            labels[to..to + from.len()].copy_from_slice(from);
        }
        Self { mask: Cow::Owned(Mask { width, height, labels }), left, top }
    }

    /// The centre crop, `[size, size]`.
    pub fn crop(&self, size: usize) -> Vec<u8> {
        let lines = self.mask.labels.chunks_exact(self.mask.width).skip(self.top).take(size);
        lines.flat_map(|line| &line[self.left..self.left + size]).copied().collect()
    }
}

/// The label of every pixel of the network's input, `[size, size]`, [`IGNORE`] where it is padding:
/// [`prepare`](crate::prepare) of a mask.
///
/// # Panics
/// As [`fit_mask`].
pub fn prepare_mask(mask: &Mask, spec: &Preprocess) -> Vec<u8> {
    PaddedMask::new(&fit_mask(mask, spec), spec).crop(spec.size)
}

/// What [`restore`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Of the size of the image; class 0 where the network saw nothing.
    pub mask: Mask,
    /// Pixels that the crop cut off, of which nothing is known.
    pub unseen: usize,
}

/// Scores of the network's input, `[classes, grid, grid]`, as class indices of the image of `width` × `height` that it was
/// made from by `spec`.
///
/// Scores (logits or probabilities) are interpolated bilinearly between the centres of the grid's cells, as PyTorch's
/// `interpolate(…, align_corners=False)` does, at the centre of each pixel of the image; the largest gives the class, of equal ones the
/// first. A score that is no number is never the largest.
///
/// # Panics
/// If a length is zero, there are more than 255 classes, or `scores` is not `[classes, grid, grid]`.
pub fn restore(
    scores: &[f32],
    classes: usize,
    grid: usize,
    width: usize,
    height: usize,
    spec: &Preprocess,
) -> Restored {
    assert!((1..=usize::from(IGNORE)).contains(&classes), "{classes} classes");
    assert!(width > 0 && height > 0 && grid > 0, "{width} x {height} of a grid of {grid}");
    assert_eq!(scores.len(), classes * grid * grid, "length of [{classes}, {grid}, {grid}]");
    let (fitted_width, fitted_height) = fitted_size(width, height, spec);
    let columns = cells(width, fitted_width, spec, grid);
    let rows = cells(height, fitted_height, spec, grid);
    let mut labels = vec![0; width * height];
    let mut unseen = 0;
    let mut line = vec![0.0; classes * grid];
    for (row, labels) in rows.iter().zip(labels.chunks_exact_mut(width)) {
        let &Some((above, below, share)) = row else {
            unseen += width;
            continue;
        };
        for (plane, line) in scores.chunks_exact(grid * grid).zip(line.chunks_exact_mut(grid)) {
            for (column, value) in line.iter_mut().enumerate() {
                *value = mix(plane[above * grid + column], plane[below * grid + column], share);
            }
        }
        for (column, label) in columns.iter().zip(labels) {
            let &Some((left, right, share)) = column else {
                unseen += 1;
                continue;
            };
            let mut best = f32::NEG_INFINITY;
            for (class, line) in line.chunks_exact(grid).enumerate() {
                let score = mix(line[left], line[right], share);
                if score > best {
                    (best, *label) = (score, class as u8);
                }
            }
        }
    }
    Restored { mask: Mask { width, height, labels }, unseen }
}

fn mix(a: f32, b: f32, share: f32) -> f32 {
    if share == 0.0 { a } else { a + (b - a) * share }
}

/// By row or column of the image: the two cells of the grid that its centre lies between, and the second one's share; none
/// outside the network's input.
fn cells(length: usize, fitted: usize, spec: &Preprocess, grid: usize) -> Vec<Option<(usize, usize, f32)>> {
    let cell = |input: f64| {
        let cell = (input / spec.size as f64 * grid as f64 - 0.5).clamp(0.0, (grid - 1) as f64);
        let first = cell.floor() as usize;
        (first, (first + 1).min(grid - 1), (cell - first as f64) as f32)
    };
    inputs(length, fitted, spec).map(|input| input.map(cell)).collect()
}
