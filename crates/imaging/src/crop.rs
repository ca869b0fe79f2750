//! The centre crop of a fitted image.

use std::borrow::Cow;

use melo_vit::{CropMode, CropOffset, Preprocess};

use crate::Pixels;

/// A fitted image, padded to the crop's size where it is smaller, and where the centre crop begins in it.
///
/// Padding is even, the odd pixel going right and below: with black for `center` and `squash` (torchvision
/// `CenterCrop`), with `round(255 · mean)` for `border` (timm `CenterCropOrPad`).
pub struct Padded<'a> {
    /// At least `size` × `size`.
    pub pixels: Cow<'a, Pixels>,
    /// First column of the centre crop.
    pub left: usize,
    /// First row of the centre crop.
    pub top: usize,
}

impl<'a> Padded<'a> {
    /// Of what [`fit`](crate::fit) gave for `spec`.
    ///
    /// # Panics
    /// If `fitted` has no pixel.
    pub fn new(fitted: &'a Pixels, spec: &Preprocess) -> Self {
        fitted.check();
        let Padding { width, height, left, top, before, above } = Padding::of(fitted.width, fitted.height, spec);
        if (width, height) == (fitted.width, fitted.height) {
            return Self { pixels: Cow::Borrowed(fitted), left, top };
        }
        let fill = match spec.crop_mode {
            CropMode::Center | CropMode::Squash => [0; 3],
            CropMode::Border => spec.mean.map(|mean| (255.0 * f64::from(mean)).round_ties_even() as u8),
        };
        let mut rgb = fill.repeat(width * height);
        for (row, from) in fitted.rgb.chunks_exact(fitted.width * 3).enumerate() {
            let to = ((above + row) * width + before) * 3;
            rgb[to..to + from.len()].copy_from_slice(from);
        }
        Self { pixels: Cow::Owned(Pixels { width, height, rgb }), left, top }
    }
}

/// How an image of some size is padded, and where the centre crop begins in it then.
pub(crate) struct Padding {
    /// Columns once padded.
    pub(crate) width: usize,
    /// Rows once padded.
    pub(crate) height: usize,
    /// First column of the crop.
    pub(crate) left: usize,
    /// First row of the crop.
    pub(crate) top: usize,
    /// Columns of padding to the left.
    pub(crate) before: usize,
    /// Rows of padding above.
    pub(crate) above: usize,
}

impl Padding {
    pub(crate) fn of(width: usize, height: usize, spec: &Preprocess) -> Self {
        let (left, before) = center(width, spec.size, spec.crop_offset);
        let (top, above) = center(height, spec.size, spec.crop_offset);
        Self { width: width.max(spec.size), height: height.max(spec.size), left, top, before, above }
    }
}

/// Where the centre `crop` of `length` begins, and how much padding goes before it.
pub(crate) fn center(length: usize, crop: usize, offset: CropOffset) -> (usize, usize) {
    if length < crop { (0, (crop - length) / 2) } else { (offset.before(length - crop), 0) }
}
