//! Pillow's `Image.resize`: separable, antialiased, in fixed point.
//!
//! One output sample is `sum_k w[k] · in[first + k]`, along rows and along columns in turn, with the result of
//! each pass rounded to 8 bits. Weights sum to one, are computed in f64 and rounded to [`WEIGHT_BITS`] bits.
//! When shrinking, the filter is stretched by the scale, which is what makes it antialias.
//!
//! Which pass comes first shows in the rounding and in the clamping of overshoot: Pillow 13 takes columns first where
//! the height loses more than twice what the width does; earlier ones always take rows first. For an image that keeps
//! its aspect ratio they differ only where it is more than twice as high as wide.

use std::borrow::Cow;

use melo_kernels::{Taps, WEIGHT_BITS, resample_columns, resample_rows};
use melo_vit::Interpolation;

use crate::Pixels;

/// Resizes to `width` × `height`, bit-equal to Pillow 13's `Image.resize((width, height), interpolation)`.
///
/// # Panics
/// If a side, old or new, is zero, or `pixels.rgb` is not `[height, width, 3]`.
pub fn resize(pixels: &Pixels, width: usize, height: usize, interpolation: Interpolation) -> Pixels {
    pixels.check();
    let old = Samples { width: pixels.width, height: pixels.height, samples: pixels.rgb.as_slice().into() };
    let Samples { samples, .. } = resize_samples::<3>(old, width, height, interpolation);
    Pixels { width, height, rgb: samples.into_owned() }
}

/// Samples of `CHANNELS` channels, `[height, width, CHANNELS]`.
pub(crate) struct Samples<'a> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) samples: Cow<'a, [u8]>,
}

/// A grey volume `[depth, height, width]` brought to a cube's lengths: every layer as [`resize`] does, then along the depth alike.
pub(crate) fn resize_volume(
    old: (&[u8], [usize; 3]),
    [depth, height, width]: [usize; 3],
    interpolation: Interpolation,
) -> Vec<u8> {
    let (levels, [layers, rows, columns]) = old;
    let layer = |samples: &[u8]| {
        let old = Samples { width: columns, height: rows, samples: samples.into() };
        resize_samples::<1>(old, width, height, interpolation).samples.into_owned()
    };
    let fitted: Vec<u8> = levels.chunks_exact(rows * columns).flat_map(layer).collect();
    let old = Samples { width: height * width, height: layers, samples: fitted.into() };
    resize_samples::<1>(old, height * width, depth, interpolation).samples.into_owned()
}

/// [`resize`], of any number of channels: each is resized for itself.
pub(crate) fn resize_samples<const CHANNELS: usize>(
    old: Samples<'_>,
    width: usize,
    height: usize,
    interpolation: Interpolation,
) -> Samples<'_> {
    assert!(width > 0 && height > 0, "resize to {width} x {height}");
    let (old_width, old_height) = (old.width, old.height);
    let columns_first = height < old_height && old_height - height > 2 * old_width.saturating_sub(width);
    let rows = |old: Samples| {
        let mut samples = vec![0; width * old.height * CHANNELS];
        resample_rows(&old.samples, CHANNELS, &taps(old_width, width, interpolation), &mut samples);
        Samples { width, height: old.height, samples: samples.into() }
    };
    let columns = |old: Samples| {
        let mut samples = vec![0; old.width * height * CHANNELS];
        resample_columns(&old.samples, &taps(old_height, height, interpolation), &mut samples);
        Samples { width: old.width, height, samples: samples.into() }
    };
    match (width != old_width, height != old_height) {
        (false, false) => old,
        (true, false) => rows(old),
        (false, true) => columns(old),
        (true, true) if columns_first => rows(columns(old)),
        (true, true) => columns(rows(old)),
    }
}

/// Windows and weights of a resize from `inputs` to `outputs` positions.
fn taps(inputs: usize, outputs: usize, interpolation: Interpolation) -> Taps {
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
            *fixed = (weight / sum * f64::from(1 << WEIGHT_BITS)).round() as i32;
        }
        windows.push((first, exact.len()));
    }
    Taps { inputs, windows, weights, stride }
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
