//! What an image looks like in 255 bits, so that an image saved again, resized, brightened or slightly cropped is
//! found again: `docs/decisions/0004-near-duplicates.md` says why these numbers.
//!
//! ```text
//! y  = 0.299 R + 0.587 G + 0.114 B of the image resized to 64 × 64, bilinear and antialiased     (luminance)
//! m  = mean of y, v = mean of (y - m)², each over the 13 × 13 pixels around, as far as there are
//! z  = (y - m) / (√v + 8)                                                  (local contrast)
//! bit[16 i + j] = C[i, j] > 0,   C = the cosine transform (DCT-II) of z,   i, j < 16, not i = j = 0
//! ```
//!
//! The cosine transform and its signs are Zauner's pHash (2010). Local contrast comes before it because images of one
//! kind share their large shapes: without it, two fundus photographs are alike for their black corners alone.

use std::f64::consts::PI;
use std::sync::LazyLock;

use melo_imaging::{Pixels, resize};
use melo_vit::Interpolation;

/// Side of the reduced image.
const SIDE: usize = 64;
/// Pixels on each side in the window of local contrast.
const RADIUS: usize = 6;
/// Grey levels added to the local deviation, so that flat regions stay flat.
const FLOOR: f64 = 8.0;
/// Frequencies kept along each axis.
const BANDS: usize = 16;
/// Below this deviation, in grey levels, an image shows nothing that it could be known by.
const FLAT: f64 = 1.0;
/// Bits of odd horizontal frequency: mirroring left to right turns exactly these.
const MIRROR: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// `cos(π i (2x + 1) / 128)`, `[BANDS, SIDE]`.
static COSINES: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let cosine = |i: usize, x: usize| (PI * (i * (2 * x + 1)) as f64 / (2 * SIDE) as f64).cos();
    (0..BANDS).flat_map(|i| (0..SIDE).map(move |x| cosine(i, x))).collect()
});

/// The fingerprint of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint([u64; 4]);

impl Fingerprint {
    /// `None` for an image of one grey.
    pub(crate) fn of(pixels: &Pixels) -> Option<Self> {
        let small = resize(pixels, SIDE, SIDE, Interpolation::Bilinear);
        let luminance: Vec<f64> = small.rgb.chunks_exact(3).map(luminance).collect();
        let mean = luminance.iter().sum::<f64>() / luminance.len() as f64;
        let squares: f64 = luminance.iter().map(|y| (y - mean).powi(2)).sum();
        if (squares / luminance.len() as f64).sqrt() < FLAT {
            return None;
        }
        let coefficients = cosine_transform(&local_contrast(&luminance));
        let mut bits = [0; 4];
        for (index, _) in coefficients.iter().enumerate().skip(1).filter(|(_, coefficient)| **coefficient > 0.0) {
            bits[index / 64] |= 1 << (index % 64);
        }
        Some(Self(bits))
    }

    /// That of the image mirrored left to right.
    pub(crate) fn mirrored(self) -> Self {
        Self(self.0.map(|word| word ^ MIRROR))
    }

    /// Bits that differ, 0 to 255, if they are at most `most`.
    pub(crate) fn distance_up_to(self, other: Self, most: u32) -> Option<u32> {
        let [a, b, c, d] = [0, 1, 2, 3].map(|word| self.0[word] ^ other.0[word]);
        // Half the bits decide for nearly all pairs.
        let half = a.count_ones() + b.count_ones();
        let distance = if half > most { half } else { half + c.count_ones() + d.count_ones() };
        (distance <= most).then_some(distance)
    }
}

#[cfg(test)]
impl Fingerprint {
    pub(crate) fn from_words(words: [u64; 4]) -> Self {
        Self(words)
    }

    /// `bits` bits turned, at most 48.
    pub(crate) fn with_bits_turned(self, bits: usize) -> Self {
        let mut turned = self;
        (0..bits).for_each(|bit| turned.0[bit % 4] ^= 1 << (bit / 4 * 5));
        turned
    }
}

/// ITU-R BT.601, of one RGB pixel.
pub(crate) fn luminance(rgb: &[u8]) -> f64 {
    0.299 * f64::from(rgb[0]) + 0.587 * f64::from(rgb[1]) + 0.114 * f64::from(rgb[2])
}

fn local_contrast(luminance: &[f64]) -> Vec<f64> {
    let means = local_means(luminance);
    let above: Vec<f64> = luminance.iter().zip(&means).map(|(y, mean)| y - mean).collect();
    let variances = local_means(&above.iter().map(|above| above * above).collect::<Vec<_>>());
    above.iter().zip(variances).map(|(above, variance)| above / (variance.sqrt() + FLOOR)).collect()
}

/// The mean of each pixel's window, along rows and then along columns.
fn local_means(image: &[f64]) -> Vec<f64> {
    let along = |image: &[f64], stride: usize, other: usize| -> Vec<f64> {
        let mut means = vec![0.0; SIDE * SIDE];
        for line in 0..SIDE {
            for x in 0..SIDE {
                let window = x.saturating_sub(RADIUS)..(x + RADIUS + 1).min(SIDE);
                let length = window.len() as f64;
                let sum: f64 = window.map(|x| image[line * other + x * stride]).sum();
                means[line * other + x * stride] = sum / length;
            }
        }
        means
    };
    along(&along(image, 1, SIDE), SIDE, 1)
}

/// The lowest frequencies, `[BANDS, BANDS]`, up to a positive factor each.
fn cosine_transform(image: &[f64]) -> Vec<f64> {
    let cosines = |band: usize| &COSINES[band * SIDE..][..SIDE];
    let project = |line: &[f64], band: usize| line.iter().zip(cosines(band)).map(|(z, cosine)| z * cosine).sum::<f64>();
    // [BANDS, SIDE]: horizontal frequency, row.
    let rows: Vec<f64> = (0..BANDS).flat_map(|j| image.chunks_exact(SIDE).map(move |row| project(row, j))).collect();
    (0..BANDS).flat_map(|i| rows.chunks_exact(SIDE).map(move |column| project(column, i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blobs in three colours, from a few numbers of `seed`; seen through `at`, which maps points of [0, 1]².
    fn scene(width: usize, height: usize, seed: usize, at: impl Fn(f64, f64) -> (f64, f64)) -> Pixels {
        // A linear congruential generator, warmed up.
        let mut state = seed as u64 * 2_654_435_761 + 1;
        let mut draw = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        draw();
        let blob = |_| (draw(), draw(), 0.03 + 0.1 * draw(), 160.0 * draw() - 60.0);
        let blobs: Vec<_> = (0..40).map(blob).collect();
        let mut rgb = Vec::new();
        for row in 0..height {
            for column in 0..width {
                let (x, y) = at((column as f64 + 0.5) / width as f64, (row as f64 + 0.5) / height as f64);
                let level: f64 = blobs
                    .iter()
                    .map(|(bx, by, size, height)| {
                        height * (-((x - bx).powi(2) + (y - by).powi(2)) / (2.0 * size * size)).exp()
                    })
                    .sum();
                rgb.extend([0.9, 1.0, 1.1].map(|tint| (60.0 + level * tint).clamp(0.0, 255.0) as u8));
            }
        }
        Pixels { width, height, rgb }
    }

    fn distance(a: &Pixels, b: &Pixels) -> u32 {
        Fingerprint::of(a).unwrap().distance_up_to(Fingerprint::of(b).unwrap(), 255).unwrap()
    }

    fn same(x: f64, y: f64) -> (f64, f64) {
        (x, y)
    }

    #[test]
    fn another_size_another_brightness_and_a_crop_are_near_and_another_scene_is_far() {
        for seed in 0..6 {
            let image = scene(200, 160, seed, same);
            let mut bright = image.clone();
            bright.rgb.iter_mut().for_each(|sample| *sample = (f64::from(*sample) * 1.1).min(255.0) as u8);
            let cropped = scene(196, 157, seed, |x, y| (0.01 + 0.98 * x, 0.01 + 0.98 * y));
            for (near, most) in [(scene(90, 71, seed, same), 12), (bright, 12), (cropped, 34)] {
                let found = distance(&image, &near);
                assert!(found <= most, "seed {seed}: {found} > {most}");
            }
            // Half of 255 bits, and some for what scenes of blobs share.
            assert!(distance(&image, &scene(200, 160, seed + 10, same)) > 80);
        }
    }

    #[test]
    fn mirroring_the_image_mirrors_the_fingerprint() {
        let image = scene(128, 96, 3, same);
        let mirror = scene(128, 96, 3, |x, y| (1.0 - x, y));
        let [image, mirror] = [image, mirror].map(|pixels| Fingerprint::of(&pixels).unwrap());
        // Not equal: pixels are rounded to 8 bits from the other side.
        assert!(image.mirrored().distance_up_to(mirror, 6).is_some());
        assert!(image.distance_up_to(mirror, 80).is_none());
        assert_eq!(image.mirrored().mirrored(), image);
    }

    #[test]
    fn the_transform_is_the_definition() {
        let image: Vec<f64> = (0..SIDE * SIDE).map(|index| (index * 7919 % 101) as f64).collect();
        let found = cosine_transform(&image);
        for (i, j) in [(0, 0), (0, 3), (5, 0), (15, 14)] {
            let cosine = |band: usize, x: usize| (PI * band as f64 * (x as f64 + 0.5) / SIDE as f64).cos();
            let expected: f64 = (0..SIDE * SIDE).map(|p| image[p] * cosine(i, p / SIDE) * cosine(j, p % SIDE)).sum();
            // Sums of 4,096 values of order 100 in another order.
            assert!((found[i * BANDS + j] - expected).abs() < 1e-7, "{i}, {j}");
        }
    }

    #[test]
    fn local_means_are_those_of_the_window_as_far_as_it_goes() {
        let image: Vec<f64> = (0..SIDE * SIDE).map(|index| (index * 31 % 17) as f64).collect();
        let found = local_means(&image);
        for (row, column) in [(0, 0), (3, 60), (30, 31), (63, 63)] {
            let near = |center: usize| center.saturating_sub(RADIUS)..=(center + RADIUS).min(SIDE - 1);
            let window: Vec<f64> =
                near(row).flat_map(|y| near(column).map(move |x| y * SIDE + x)).map(|p| image[p]).collect();
            let expected = window.iter().sum::<f64>() / window.len() as f64;
            assert!((found[row * SIDE + column] - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn an_image_of_one_grey_has_none() {
        let flat = |level: u8| Pixels { width: 50, height: 40, rgb: vec![level; 6000] };
        assert!([0, 1, 128, 255].into_iter().all(|level| Fingerprint::of(&flat(level)).is_none()));
    }

    #[test]
    fn distance_stops_at_the_limit() {
        let (none, all) = (Fingerprint([0; 4]), Fingerprint([u64::MAX; 4]));
        let low = Fingerprint([0, 0, 0, 0b111]);
        assert_eq!(none.distance_up_to(low, 3), Some(3));
        assert_eq!(none.distance_up_to(low, 2), None);
        assert_eq!(none.distance_up_to(all, 255), None);
        assert_eq!(none.distance_up_to(all, 256), Some(256));
    }
}
