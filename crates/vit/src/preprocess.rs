//! How an image becomes network input: the *specification* only.
//! `melo-imaging` executes it, for training and for serving alike, so the two cannot drift.

use serde::{Deserialize, Serialize};
use std::fmt;

use crate::Rendering;
use crate::invalid::Invalid;

/// Resampling filter, both antialiased when shrinking, as Pillow's `Image.resize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Triangle filter, support 1.
    Bilinear,
    /// Keys' cubic with a = -0.5, support 2.
    Bicubic,
}

/// How an image that is not square meets the square input; names and meaning as timm's `crop_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CropMode {
    /// Shorter side to `resize_side`, then the centre `size` × `size`; the ends of the longer side are lost.
    Center,
    /// Both sides to `resize_side` (aspect ratio lost), then the centre `size` × `size`.
    Squash,
    /// Longer side to `resize_side`, then the centre `size` × `size`, padded with the mean colour.
    Border,
}

/// Where the centre crop begins when an odd number of pixels is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CropOffset {
    /// At half of them, rounded to even: torchvision, timm.
    #[default]
    Even,
    /// At half of them, rounded down: Hugging Face.
    Down,
}

impl CropOffset {
    /// Pixels cut before the crop, of `excess` that are cut in all.
    pub fn before(self, excess: usize) -> usize {
        match self {
            CropOffset::Even => (excess as f64 / 2.0).round_ties_even() as usize,
            CropOffset::Down => excess / 2,
        }
    }
}

/// Longest side resized to, pixels: far beyond every published ViT's, and small enough to allocate.
const MAX_SIDE: usize = 8192;
/// Most voxels of a volume as it goes into the network: 406 each way.
const MAX_VOXELS: usize = 1 << 26;

/// Everything that turns decoded 8-bit RGB pixels into one `[3, size, size]` input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Side of the square network input, pixels.
    pub size: usize,
    /// Voxels along the depth of a volume, whose layers are such squares, in grey; none of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
    /// How a rectangle becomes a square.
    pub crop_mode: CropMode,
    /// `size` over the side resized to, in (0, 1].
    pub crop_pct: f64,
    /// Resampling filter.
    pub interpolation: Interpolation,
    /// Per-channel mean subtracted from RGB in [0, 1].
    pub mean: [f32; 3],
    /// Per-channel standard deviation divided by.
    pub std: [f32; 3],
    /// Where the centre crop begins; left out where it is the default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub crop_offset: CropOffset,
    /// How a file of more than one 8-bit image becomes one; left out where it is the default.
    #[serde(default, skip_serializing_if = "Rendering::is_default")]
    pub rendering: Rendering,
}

fn is_default(offset: &CropOffset) -> bool {
    *offset == CropOffset::default()
}

impl Preprocess {
    /// The whole image squashed to `size`, bicubic, values from -1 to 1 as the original ViT's: others say where they differ.
    pub fn base(size: usize) -> Self {
        Preprocess {
            size,
            depth: None,
            crop_mode: CropMode::Squash,
            crop_pct: 1.0,
            interpolation: Interpolation::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
            crop_offset: CropOffset::Even,
            rendering: Rendering::default(),
        }
    }

    /// Side resized to before the centre crop: `floor(size / crop_pct)`, as timm's `transforms_imagenet_eval`.
    pub fn resize_side(&self) -> usize {
        (self.size as f64 / self.crop_pct).floor() as usize
    }

    /// Mean and standard deviation of voxels, the means of the three channels' own.
    pub fn of_voxels(&self) -> (f32, f32) {
        let mean = |values: [f32; 3]| values.iter().sum::<f32>() / 3.0;
        (mean(self.mean), mean(self.std))
    }

    /// Checks that it can be carried out.
    ///
    /// # Errors
    /// [`Invalid`] for the first field that is wrong.
    pub fn check(&self) -> Result<(), Invalid> {
        let Preprocess { size, depth, crop_mode, crop_pct, mean, std, .. } = self;
        let wrong = |field, reason: String| Err(Invalid::new(field, reason).within("preprocess: "));
        if !(1..=4096).contains(size) {
            return wrong("size", format!("size {size} is not in 1 to 4096"));
        }
        if let Some(depth) = depth {
            if !(1..=4096).contains(depth) {
                return wrong("depth", format!("depth {depth} is not in 1 to 4096"));
            }
            if depth.saturating_mul(size.pow(2)) > MAX_VOXELS {
                return wrong("depth", format!("depth {depth} of {size} px comes to more than {MAX_VOXELS} voxels"));
            }
            if *crop_mode != CropMode::Squash || *crop_pct != 1.0 {
                return wrong("crop_mode", "a volume is squeezed into its cube as a whole, without a crop".to_owned());
            }
        }
        if !(*crop_pct > 0.0 && *crop_pct <= 1.0) {
            return wrong("crop_pct", format!("crop_pct {crop_pct} is not in (0, 1]"));
        }
        if self.resize_side() > MAX_SIDE {
            let side = self.resize_side();
            return wrong("crop_pct", format!("crop_pct {crop_pct} asks for {side} px, more than {MAX_SIDE}"));
        }
        if !mean.iter().all(|x| x.is_finite()) {
            return wrong("mean", format!("mean {mean:?} is not finite"));
        }
        if !std.iter().all(|s| s.is_finite() && *s > 0.0) {
            return wrong("std", format!("std {std:?} is not positive"));
        }
        self.rendering.check().map_err(|error| error.within("preprocess: "))
    }
}

impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Preprocess { size, depth, crop_mode, crop_pct, interpolation, mean, std, crop_offset: _, rendering } = self;
        let crop = match crop_mode {
            CropMode::Center => "center",
            CropMode::Squash => "squash",
            CropMode::Border => "border",
        };
        let filter = match interpolation {
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
        };
        match depth {
            None => write!(f, "{size} px, {crop} crop of {crop_pct:.3}")?,
            Some(depth) => write!(f, "{depth} x {size} x {size} voxels")?,
        }
        write!(f, ", {filter}, mean {mean:?}, std {std:?}")?;
        if rendering.is_default() { Ok(()) } else { write!(f, ", {rendering}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resize_side_is_timm_s() {
        let mut spec = Preprocess { crop_pct: 0.9, ..Preprocess::base(224) };
        assert_eq!(spec.resize_side(), 248);
        spec.crop_pct = 0.875;
        assert_eq!(spec.resize_side(), 256);
        spec.crop_pct = 1.0;
        assert_eq!(spec.resize_side(), 224);
    }
}
