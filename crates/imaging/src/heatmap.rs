//! A grid of relevance laid over the image that it explains.

use melo_vit::{Interpolation, Preprocess};

use crate::crop::center;
use crate::preprocess::fitted_size;
use crate::{Pixels, resize};

/// matplotlib's `viridis` (Smith & van der Walt 2015, CC0) at 0, 1/16, …, 1: even in lightness and in every form of
/// colour vision, and of hues that neither grey images nor red tissue have.
const COLOURS: [[u8; 3]; 17] = [
    [68, 1, 84],
    [72, 24, 106],
    [71, 45, 123],
    [66, 64, 134],
    [59, 82, 139],
    [51, 99, 141],
    [44, 114, 142],
    [38, 130, 142],
    [33, 145, 140],
    [31, 159, 136],
    [39, 173, 129],
    [61, 188, 116],
    [92, 200, 99],
    [129, 211, 77],
    [170, 220, 50],
    [213, 226, 26],
    [253, 231, 37],
];

/// What is left of the light where the network saw nothing.
const UNSEEN: f32 = 0.5;

/// `values [grid, grid]` over the network's input, laid over the decoded image that it was made from by `spec`.
///
/// Values are divided by the largest of them, so that the hottest patch is 1 whatever it is worth: two overlays compare
/// places, not strengths. Between the patches' centres they are interpolated bilinearly, with eased fractions
/// `f² (3 - 2 f)`: plain ones draw a cross through every peak. A pixel of value `v` is mixed with its colour in proportion `opacity · v`, which leaves cold regions as they were; what the crop cut off, and the
/// network never saw, is darkened by half. What is not a positive finite number counts as 0.
///
/// # Panics
/// If `pixels` has no pixel, `grid` is zero, `values` is not `[grid, grid]`, `opacity` is not in 0 to 1, or `spec` has a
/// side of zero.
pub fn overlay(pixels: &Pixels, spec: &Preprocess, grid: usize, values: &[f32], opacity: f32) -> Pixels {
    overlay_within(pixels, spec, grid, values, opacity, usize::MAX)
}

/// As [`overlay`], on an image that was first scaled down, where needed, so that its longer side is `longest` pixels.
///
/// # Panics
/// As [`overlay`], and if `longest` is zero.
pub fn overlay_within(
    pixels: &Pixels,
    spec: &Preprocess,
    grid: usize,
    values: &[f32],
    opacity: f32,
    longest: usize,
) -> Pixels {
    pixels.check();
    assert!(grid > 0 && values.len() == grid * grid, "{} values, expected [{grid}, {grid}]", values.len());
    assert!((0.0..=1.0).contains(&opacity), "opacity {opacity} is not in 0 to 1");
    assert!(longest > 0, "an image of no pixel");
    let (width, height) = fitted_size(pixels.width, pixels.height, spec);
    let mut shown = within(pixels, longest);
    let columns: Vec<Place> = places(shown.width, width, spec, grid);
    let rows: Vec<Place> = places(shown.height, height, spec, grid);
    let heat = scaled(values);
    for (row, line) in rows.iter().zip(shown.rgb.chunks_exact_mut(shown.width * 3)) {
        for (column, pixel) in columns.iter().zip(line.as_chunks_mut().0) {
            *pixel = match (row, column) {
                (Some(row), Some(column)) => {
                    let across = |row: usize| mix(heat[row * grid + column.0], heat[row * grid + column.1], column.2);
                    let value = mix(across(row.0), across(row.1), row.2);
                    blend(*pixel, colour(value), opacity * value)
                }
                _ => blend(*pixel, [0; 3], 1.0 - UNSEEN),
            };
        }
    }
    shown
}

/// The image, its longer side at most `longest`.
pub fn within(pixels: &Pixels, longest: usize) -> Pixels {
    let longer = pixels.width.max(pixels.height);
    if longer <= longest {
        return pixels.clone();
    }
    let side = |length: usize| ((length as f64 * longest as f64 / longer as f64).round() as usize).max(1);
    resize(pixels, side(pixels.width), side(pixels.height), Interpolation::Bilinear)
}

/// Where a row or column of pixels lies in the grid: between two of its cells, and the second one's share; none
/// outside the network's input.
type Place = Option<(usize, usize, f32)>;

/// The places of `shown` rows or columns, of which preprocessing makes `fitted` and takes the centre `size`.
fn places(shown: usize, fitted: usize, spec: &Preprocess, grid: usize) -> Vec<Place> {
    let place = |input: f64| {
        let cell = input / spec.size as f64 * grid as f64 - 0.5;
        let inside = cell.clamp(0.0, (grid - 1) as f64);
        let first = inside.floor() as usize;
        let fraction = inside - first as f64;
        let eased = (fraction * fraction * (3.0 - 2.0 * fraction)) as f32;
        (first, (first + 1).min(grid - 1), eased)
    };
    inputs(shown, fitted, spec).map(|input| input.map(place)).collect()
}

/// Where the centres of `shown` rows or columns lie in the network's input, in its pixels from its edge, where preprocessing
/// makes `fitted` of them and takes the centre `spec.size`; none outside.
pub(crate) fn inputs(shown: usize, fitted: usize, spec: &Preprocess) -> impl Iterator<Item = Option<f64>> {
    let size = spec.size as f64;
    let (cut, padding) = center(fitted, spec.size, spec.crop_offset);
    (0..shown).map(move |index| {
        let input = (index as f64 + 0.5) / shown as f64 * fitted as f64 - cut as f64 + padding as f64;
        (0.0..size).contains(&input).then_some(input)
    })
}

/// Divided by the largest; 0 where that means nothing.
fn scaled(values: &[f32]) -> Vec<f32> {
    let positive = |value: &f32| if value.is_finite() { value.max(0.0) } else { 0.0 };
    let largest = values.iter().map(positive).fold(0.0, f32::max);
    values.iter().map(|value| if largest > 0.0 { positive(value) / largest } else { 0.0 }).collect()
}

fn mix(a: f32, b: f32, share: f32) -> f32 {
    a + (b - a) * share
}

/// The colour of a value from 0 to 1.
fn colour(value: f32) -> [u8; 3] {
    let last = COLOURS.len() - 1;
    let at = value.clamp(0.0, 1.0) * last as f32;
    let first = (at as usize).min(last - 1);
    blend(COLOURS[first], COLOURS[first + 1], at - first as f32)
}

fn blend(under: [u8; 3], over: [u8; 3], share: f32) -> [u8; 3] {
    std::array::from_fn(|i| mix(f32::from(under[i]), f32::from(over[i]), share).round() as u8)
}
