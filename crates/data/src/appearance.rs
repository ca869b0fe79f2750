//! What an image is like without looking at it: size, brightness, colour.

use std::path::Path;

use melo_imaging::{Error, Pixels};

use crate::fingerprint::luminance;

/// Size, brightness and colour of one image.
///
/// Brightness is the luminance `y = 0.299 R + 0.587 G + 0.114 B`; means are over all pixels, levels are 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Appearance {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// Mean of `y`.
    pub brightness: f64,
    /// Standard deviation of `y`.
    pub contrast: f64,
    /// Mean of the largest less the smallest channel; 0 for a grey image.
    pub saturation: f64,
    /// Mean of `R - y`; 0 for a grey image.
    pub red_cast: f64,
    /// Mean of `B - y`; 0 for a grey image.
    pub blue_cast: f64,
}

/// Reads the file at `path`.
///
/// # Errors
/// Those of [`melo_imaging::read`], which name the file.
pub fn appearance(path: &Path) -> Result<Appearance, Error> {
    let bytes =
        std::fs::read(melo_imaging::file_of(path)).map_err(|source| Error::Read { path: path.into(), source })?;
    Ok(Appearance::of(&melo_imaging::decode(&bytes, path)?, bytes.len() as u64))
}

impl Appearance {
    /// Of the `pixels` of a file of `bytes` bytes.
    pub(crate) fn of(pixels: &Pixels, bytes: u64) -> Self {
        let n = (pixels.width * pixels.height) as f64;
        let [mut y, mut y_squared] = [0.0; 2];
        let [mut red, mut blue, mut saturation] = [0u64; 3];
        for rgb in pixels.rgb.chunks_exact(3) {
            let (low, high) = (rgb[0].min(rgb[1]).min(rgb[2]), rgb[0].max(rgb[1]).max(rgb[2]));
            let level = luminance(rgb);
            y += level;
            y_squared += level * level;
            red += u64::from(rgb[0]);
            blue += u64::from(rgb[2]);
            saturation += u64::from(high - low);
        }
        let brightness = y / n;
        let saturation = saturation as f64 / n;
        // The weights of luminance sum to 1 up to a rounding, which must not look like a colour.
        let cast = |sum: u64| if saturation == 0.0 { 0.0 } else { sum as f64 / n - brightness };
        Self {
            width: pixels.width,
            height: pixels.height,
            bytes,
            brightness,
            contrast: (y_squared / n - brightness * brightness).max(0.0).sqrt(),
            saturation,
            red_cast: cast(red),
            blue_cast: cast(blue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_three_pixels() {
        let pixels = Pixels { width: 3, height: 1, rgb: vec![100, 0, 0, 0, 0, 0, 50, 50, 200] };
        let found = Appearance::of(&pixels, 77);
        let y = [29.9, 0.0, 0.299 * 50.0 + 0.587 * 50.0 + 0.114 * 200.0];
        let mean = y.iter().sum::<f64>() / 3.0;
        let deviation = (y.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / 3.0).sqrt();
        let expected = [mean, deviation, 250.0 / 3.0, 50.0 - mean, 200.0 / 3.0 - mean];
        let found_all = [found.brightness, found.contrast, found.saturation, found.red_cast, found.blue_cast];
        // E[y²] - E[y]² cancels three digits of f64.
        assert!(found_all.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-9));
        assert_eq!((found.width, found.height, found.bytes), (3, 1, 77));
    }

    #[test]
    fn grey_has_no_colour() {
        let grey: Vec<u8> = (0..200u8).flat_map(|level| [level; 3]).collect();
        let found = Appearance::of(&Pixels { width: 200, height: 1, rgb: grey }, 1);
        assert_eq!((found.saturation, found.red_cast, found.blue_cast), (0.0, 0.0, 0.0));
    }
}
