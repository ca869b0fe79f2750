//! Pillow's `Image.resize`: separable, antialiased, in fixed point.
//!
//! One output sample is `sum_k w[k] · in[first + k]`, along rows and along columns in turn, with the result of
//! each pass rounded to 8 bits. Weights sum to one, are computed in f64 and rounded to [`FRACTION_BITS`] bits.
//! When shrinking, the filter is stretched by the scale, which is what makes it antialias.
//!
//! Which pass comes first shows in the rounding and in the clamping of overshoot: Pillow 13 takes columns first where
//! the height loses more than twice what the width does; earlier ones always take rows first. For an image that keeps
//! its aspect ratio they differ only where it is more than twice as high as wide.

use melo_vit::Interpolation;

use crate::Pixels;

/// Bits after the binary point of a weight: 32, less 8 of the sample and 2 of headroom for weights beyond [0, 1],
/// as in Pillow's `Resample.c`; other values round differently.
const FRACTION_BITS: u32 = 32 - 8 - 2;

/// Resizes to `width` × `height`, bit-equal to Pillow 13's `Image.resize((width, height), interpolation)`.
///
/// # Panics
/// If a side, old or new, is zero, or `pixels.rgb` is not `[height, width, 3]`.
pub fn resize(pixels: &Pixels, width: usize, height: usize, interpolation: Interpolation) -> Pixels {
    pixels.check();
    assert!(width > 0 && height > 0, "resize to {width} x {height}");
    let (old_width, old_height) = (pixels.width, pixels.height);
    let columns_first = height < old_height && old_height - height > 2 * old_width.saturating_sub(width);
    let rows = |pixels: &Pixels| resize_rows(pixels, &Weights::new(old_width, width, interpolation));
    let columns = |pixels: &Pixels| resize_columns(pixels, &Weights::new(old_height, height, interpolation));
    match (width != old_width, height != old_height) {
        (false, false) => pixels.clone(),
        (true, false) => rows(pixels),
        (false, true) => columns(pixels),
        (true, true) if columns_first => rows(&columns(pixels)),
        (true, true) => columns(&rows(pixels)),
    }
}

/// For each output position: where its window of input starts, and its weights.
struct Weights {
    /// `(first, length)` of each output's window.
    windows: Vec<(usize, usize)>,
    /// Fixed-point weights, `[outputs, stride]`, zero after each window's length.
    weights: Vec<i32>,
    stride: usize,
}

impl Weights {
    fn new(inputs: usize, outputs: usize, interpolation: Interpolation) -> Self {
        let (filter, support): (fn(f64) -> f64, f64) = match interpolation {
            Interpolation::Bilinear => (triangle, 1.0),
            Interpolation::Bicubic => (cubic, 2.0),
        };
        let scale = inputs as f64 / outputs as f64;
        let stretch = scale.max(1.0);
        let support = support * stretch;
        let stride = support.ceil() as usize * 2 + 1;
        let mut windows = Vec::with_capacity(outputs);
        let mut weights = vec![0; outputs * stride];
        let mut exact = vec![0.0; stride];
        for (output, fixed) in weights.chunks_exact_mut(stride).enumerate() {
            let center = (output as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(inputs);
            let exact = &mut exact[..end - first];
            for (k, weight) in exact.iter_mut().enumerate() {
                *weight = filter(((k + first) as f64 - center + 0.5) * (1.0 / stretch));
            }
            let sum: f64 = exact.iter().sum();
            for (fixed, weight) in fixed.iter_mut().zip(&*exact) {
                *fixed = (weight / sum * f64::from(1 << FRACTION_BITS)).round() as i32;
            }
            windows.push((first, exact.len()));
        }
        Self { windows, weights, stride }
    }

    /// `(first, weights)` of each output in turn.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let weights = self.weights.chunks_exact(self.stride);
        self.windows.iter().zip(weights).map(|(&(first, len), weights)| (first, &weights[..len]))
    }
}

/// `1 - |x|` within 1.
fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys' cubic convolution kernel (1981), a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Half a grey level: sums start here so that the shift rounds.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

fn to_sample(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

fn resize_rows(pixels: &Pixels, weights: &Weights) -> Pixels {
    let width = weights.windows.len();
    let mut rgb = vec![0; width * pixels.height * 3];
    for (row, out) in pixels.rgb.chunks_exact(pixels.width * 3).zip(rgb.chunks_exact_mut(width * 3)) {
        for ((first, weights), out) in weights.iter().zip(out.chunks_exact_mut(3)) {
            let mut sum = [HALF; 3];
            for (pixel, &weight) in row[first * 3..].chunks_exact(3).zip(weights) {
                for (sum, &sample) in sum.iter_mut().zip(pixel) {
                    *sum += i32::from(sample) * weight;
                }
            }
            out.copy_from_slice(&sum.map(to_sample));
        }
    }
    Pixels { width, height: pixels.height, rgb }
}

fn resize_columns(pixels: &Pixels, weights: &Weights) -> Pixels {
    let height = weights.windows.len();
    let stride = pixels.width * 3;
    let mut rgb = vec![0; stride * height];
    let mut sums = vec![HALF; stride];
    for ((first, weights), out) in weights.iter().zip(rgb.chunks_exact_mut(stride)) {
        sums.fill(HALF);
        for (row, &weight) in pixels.rgb[first * stride..].chunks_exact(stride).zip(weights) {
            for (sum, &sample) in sums.iter_mut().zip(row) {
                *sum += i32::from(sample) * weight;
            }
        }
        for (out, &sum) in out.iter_mut().zip(&sums) {
            *out = to_sample(sum);
        }
    }
    Pixels { width: pixels.width, height, rgb }
}
