//! Colours of classes, and masks drawn over their images.

use melo_vit::Preprocess;

use super::{IGNORE, Mask};
use crate::Pixels;
use crate::heatmap::{inputs, within};
use crate::preprocess::fitted_size;

/// Colours of classes by their index, in the palette of a PNG and in overlays: class 0 black, then the colours of Pascal VOC
/// (Everingham et al. 2010), whose bits are dealt to the channels from the highest down. 255, which is ignored, is its last, nearly white.
pub const MASK_COLOURS: [[u8; 3]; 256] = voc();

/// What is left of the light where the network saw nothing.
const UNSEEN: f32 = 0.5;

const fn voc() -> [[u8; 3]; 256] {
    let mut colours = [[0; 3]; 256];
    let mut class = 0;
    while class < 256 {
        let (mut rest, mut shift) = (class, 7);
        while rest > 0 {
            let mut channel = 0;
            while channel < 3 {
                colours[class][channel] |= ((rest >> channel & 1) as u8) << shift;
                channel += 1;
            }
            rest >>= 3;
            shift -= 1;
        }
        class += 1;
    }
    colours
}

/// `mask` over its image: each class but 0 filled with its colour of [`MASK_COLOURS`] by `opacity`, its outline, one pixel
/// inside its border, in the plain colour. Pixels that `spec` keeps from the network are darkened by half, where it is given.
///
/// # Panics
/// If `pixels` and `mask` are not of one size, have no pixel, or `opacity` is not in 0 to 1.
pub fn mask_overlay(pixels: &Pixels, mask: &Mask, opacity: f32, spec: Option<&Preprocess>) -> Pixels {
    mask_overlay_within(pixels, mask, opacity, spec, usize::MAX)
}

/// As [`mask_overlay`], on an image that was first scaled down, where needed, so that its longer side is `longest` pixels.
///
/// # Panics
/// As [`mask_overlay`], and if `longest` is zero.
pub fn mask_overlay_within(
    pixels: &Pixels,
    mask: &Mask,
    opacity: f32,
    spec: Option<&Preprocess>,
    longest: usize,
) -> Pixels {
    pixels.check();
    mask.check();
    assert_eq!((mask.width, mask.height), (pixels.width, pixels.height), "sides of the mask and its image");
    assert!((0.0..=1.0).contains(&opacity), "opacity {opacity} is not in 0 to 1");
    assert!(longest > 0, "an image of no pixel");
    let mut shown = within(pixels, longest);
    let (width, height) = (shown.width, shown.height);
    let label = |x: usize, y: usize| {
        let old = |at: usize, new: usize, old: usize| (2 * at + 1) * old / (2 * new);
        mask.labels[old(y, height, mask.height) * mask.width + old(x, width, mask.width)]
    };
    let seen = |length: usize, fitted: Option<usize>| -> Vec<bool> {
        match (spec, fitted) {
            (Some(spec), Some(fitted)) => inputs(length, fitted, spec).map(|input| input.is_some()).collect(),
            _ => vec![true; length],
        }
    };
    let fitted = spec.map(|spec| fitted_size(pixels.width, pixels.height, spec));
    let columns = seen(width, fitted.map(|(width, _)| width));
    let rows = seen(height, fitted.map(|(_, height)| height));
    for (y, &row_seen) in rows.iter().enumerate() {
        for (x, &column_seen) in columns.iter().enumerate() {
            let pixel = &mut shown.rgb[(y * width + x) * 3..][..3];
            let mut paint = |colour: [u8; 3], share: f32| {
                for (under, over) in pixel.iter_mut().zip(colour) {
                    let (from, to) = (f32::from(*under), f32::from(over));
                    *under = (from + (to - from) * share).round() as u8;
                }
            };
            if !(row_seen && column_seen) {
                paint([0; 3], 1.0 - UNSEEN);
            }
            let class = label(x, y);
            if class == 0 || class == IGNORE {
                continue;
            }
            let other = |x: usize, y: usize| label(x, y) != class;
            let outline = x > 0 && other(x - 1, y)
                || x + 1 < width && other(x + 1, y)
                || y > 0 && other(x, y - 1)
                || y + 1 < height && other(x, y + 1);
            paint(MASK_COLOURS[usize::from(class)], if outline { 1.0 } else { opacity });
        }
    }
    shown
}
