//! Executes a [`Preprocess`], as timm 1.0's `transforms_imagenet_eval` does over Pillow.

use std::path::Path;

use melo_vit::{CropMode, Preprocess};

use crate::limits::MAX_PIXELS;
use crate::{Error, Padded, Pixels, resize};

/// Resizes as `spec` says: everything up to the centre crop. Deterministic, 8-bit, and worth caching.
///
/// | `crop_mode` | result, `side = spec.resize_side()` |
/// |---|---|
/// | `center` | shorter side is `side`, the longer `floor(side · long / short)` (torchvision `Resize`) |
/// | `squash` | `side` × `side` |
/// | `border` | both sides by one factor so that the longer is `side`, rounded half to even (timm `ResizeKeepRatio`) |
///
/// A side that rounds to no pixel becomes one pixel; timm fails there.
///
/// # Panics
/// If `pixels` has no pixel or `spec.resize_side()` is zero.
pub fn fit(pixels: &Pixels, spec: &Preprocess) -> Pixels {
    pixels.check();
    let (width, height) = fitted_size(pixels.width, pixels.height, spec);
    resize(pixels, width, height, spec.interpolation)
}

/// Refuses what [`fit`] would make of an image where it is more than [`MAX_PIXELS`](crate::MAX_PIXELS): a long image whose short
/// side is enlarged.
///
/// # Errors
/// [`Error::FittedTooLarge`], naming `path`.
pub fn check_fit(path: &Path, width: usize, height: usize, spec: &Preprocess) -> Result<(), Error> {
    let (width, height) = fitted_size(width, height, spec);
    let (width, height) = (width as u64, height as u64);
    match width.saturating_mul(height) > MAX_PIXELS {
        true => Err(Error::FittedTooLarge { path: path.into(), width, height }),
        false => Ok(()),
    }
}

/// Width and height of what [`fit`] makes of an image.
pub(crate) fn fitted_size(width: usize, height: usize, spec: &Preprocess) -> (usize, usize) {
    let side = spec.resize_side();
    match spec.crop_mode {
        CropMode::Squash => (side, side),
        CropMode::Center => {
            let longer = |long: usize, short: usize| (side as f64 * long as f64 / short as f64) as usize;
            if width <= height { (side, longer(height, width)) } else { (longer(width, height), side) }
        }
        CropMode::Border => {
            let ratio = width.max(height) as f64 / side as f64;
            let scaled = |length: usize| ((length as f64 / ratio).round_ties_even() as usize).max(1);
            (scaled(width), scaled(height))
        }
    }
}

/// Crops the centre `size` × `size` out of what [`fit`] gave and normalises it into `out`, `[3, size, size]`.
///
/// Where the image is smaller than the crop it is padded as [`Padded`] says.
///
/// # Panics
/// If `out` is not `3 · size · size` long.
pub fn crop_normalise(fitted: &Pixels, spec: &Preprocess, out: &mut [f32]) {
    let Padded { pixels, left, top } = Padded::new(fitted, spec);
    let row = spec.size * 3;
    let mut rgb = Vec::with_capacity(spec.size * row);
    for line in pixels.rgb.chunks_exact(pixels.width * 3).skip(top).take(spec.size) {
        rgb.extend_from_slice(&line[left * 3..left * 3 + row]);
    }
    normalise(&Pixels { width: spec.size, height: spec.size, rgb }, spec, out);
}

/// [`fit`], then [`crop_normalise`]: `[3, size, size]`.
///
/// # Panics
/// If `pixels` has no pixel or `spec` a side of zero.
pub fn prepare(pixels: &Pixels, spec: &Preprocess) -> Vec<f32> {
    let mut out = vec![0.0; 3 * spec.size * spec.size];
    crop_normalise(&fit(pixels, spec), spec, &mut out);
    out
}

/// Writes `(sample / 255 - mean) / std` of `square`, already `size` × `size`, into `out`, `[3, size, size]`,
/// as torchvision's `ToTensor` and `Normalize`, in f32.
///
/// # Panics
/// If `square` is not `size` × `size` or `out` not `3 · size · size` long.
pub fn normalise(square: &Pixels, spec: &Preprocess, out: &mut [f32]) {
    square.check();
    let area = spec.size * spec.size;
    assert_eq!((square.width, square.height), (spec.size, spec.size), "pixels to normalise, width and height");
    assert_eq!(out.len(), 3 * area, "length of [3, {0}, {0}]", spec.size);
    for (channel, plane) in out.chunks_exact_mut(area).enumerate() {
        let (mean, std) = (spec.mean[channel], spec.std[channel]);
        let values: [f32; 256] = std::array::from_fn(|sample| (sample as f32 / 255.0 - mean) / std);
        for (value, pixel) in plane.iter_mut().zip(square.rgb.chunks_exact(3)) {
            *value = values[usize::from(pixel[channel])];
        }
    }
}
