//! Random changes to training images, in one resampling pass.
//!
//! For output pixel `(x, y)` of the `s` × `s` crop, with `u = x + 1/2 - s/2` and `v = y + 1/2 - s/2`, the source is at
//!
//! ```text
//! [centre + shift] + scale · R(angle) · F · [u, v] - 1/2        F: flips, R: rotation
//! ```
//!
//! in the fitted image, read bilinearly, coordinates clamped to the edge. With `F = 1`, `angle = 0`, `scale = 1` that is
//! the centre crop itself, bit for bit.
//!
//! The layers of a volume are all changed alike, in their own plane. Along the depth it is shifted as far as a crop may be, and mirrored
//! where top and bottom are; what lies beyond its ends is its first and last layer.

use melo_imaging::{IGNORE, Mask, Padded, PaddedMask, Pixels, Volume};
use melo_vit::Preprocess;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::random::{Purpose, stream};

/// Least [`Augment::crop_scale`]: a tenth of the crop's side.
const MIN_CROP_SCALE: f32 = 0.01;

/// Which changes are drawn for a training image, and how strong they may be.
///
/// Each is drawn uniformly, and whether one is switched on does not change what is drawn for the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Mirror left and right, every other time.
    pub horizontal_flip: bool,
    /// Mirror top and bottom, every other time.
    pub vertical_flip: bool,
    /// Largest rotation, degrees, either way, in [0, 180].
    pub rotate_degrees: f32,
    /// Smallest part of the crop's area that is shown, enlarged, in [0.01, 1]; 1 switches it off.
    pub crop_scale: f32,
    /// Largest relative change of brightness, in [0, 1].
    pub brightness: f32,
    /// Largest relative change of contrast, about the image's mean grey, in [0, 1].
    pub contrast: f32,
}

impl Default for Augment {
    /// Mild changes that leave most clinical images plausible. Switch `horizontal_flip` off where sides matter
    /// to the label.
    fn default() -> Self {
        Self {
            horizontal_flip: true,
            vertical_flip: false,
            rotate_degrees: 10.0,
            crop_scale: 0.8,
            brightness: 0.1,
            contrast: 0.1,
        }
    }
}

impl Augment {
    /// No change at all: the centre crop, as for validation and serving.
    pub fn none() -> Self {
        Self {
            horizontal_flip: false,
            vertical_flip: false,
            rotate_degrees: 0.0,
            crop_scale: 1.0,
            brightness: 0.0,
            contrast: 0.0,
        }
    }

    /// Holds a configuration written by a user to the ranges above.
    ///
    /// # Errors
    /// [`Error::Augment`] with the first value out of range, NaN included.
    pub fn validate(&self) -> Result<(), Error> {
        let ranges = [
            ("rotate_degrees", self.rotate_degrees, 0.0, 180.0),
            ("crop_scale", self.crop_scale, MIN_CROP_SCALE, 1.0),
            ("brightness", self.brightness, 0.0, 1.0),
            ("contrast", self.contrast, 0.0, 1.0),
        ];
        match ranges.into_iter().find(|(_, found, min, max)| !(min..=max).contains(&found)) {
            Some((field, found, min, max)) => Err(Error::Augment { field, min, max, found }),
            None => Ok(()),
        }
    }

    /// The change for `row` in `epoch`, whoever asks and in whatever order.
    fn draw(&self, seed: u64, epoch: u64, row: usize) -> Change {
        let mut random = stream(Purpose::Augment, seed, epoch, row as u64);
        let mut unit = || random.random::<f32>();
        let mut around = |reach: f32| reach * (2.0 * unit() - 1.0);
        let flip = |on: bool, value: f32| if on && value < 0.0 { -1.0 } else { 1.0 };
        let flips = [flip(self.horizontal_flip, around(1.0)), flip(self.vertical_flip, around(1.0))];
        let angle = around(self.rotate_degrees).to_radians();
        let area = 1.0 - (1.0 - self.crop_scale) * around(1.0).abs();
        let scale = area.sqrt();
        let shift = [around(1.0 - scale), around(1.0 - scale)];
        Change {
            flips,
            angle,
            scale,
            shift,
            brightness: 1.0 + around(self.brightness),
            contrast: 1.0 + around(self.contrast),
            // The last, so that images stay what they are.
            depth: (flip(self.vertical_flip, around(1.0)), around(1.0 - scale)),
        }
    }

    /// The levels `[depth, size, size]` of a fitted volume, changed by the draw for (`seed`, `epoch`, `row`).
    pub(crate) fn apply_volume(&self, volume: &Volume, seed: u64, epoch: u64, row: usize) -> Vec<u8> {
        let change = self.draw(seed, epoch, row);
        let mut levels = change.resample_volume(volume);
        change.tone(&mut levels);
        levels
    }

    /// Draws for (`seed`, `epoch`, `row`) and gives the changed `size` × `size` crop of `fitted`.
    pub(crate) fn apply(&self, fitted: &Pixels, spec: &Preprocess, seed: u64, epoch: u64, row: usize) -> Pixels {
        let change = self.draw(seed, epoch, row);
        let mut square = change.resample(&Padded::new(fitted, spec), spec.size);
        change.tone(&mut square.rgb);
        square
    }

    /// The labels, `[size, size]`, of what [`apply`](Augment::apply) makes of the image for (`seed`, `epoch`, `row`): moved as its
    /// pixels are, by nearest neighbour; [`IGNORE`] outside of the image.
    pub(crate) fn apply_mask(&self, fitted: &Mask, spec: &Preprocess, seed: u64, epoch: u64, row: usize) -> Vec<u8> {
        self.draw(seed, epoch, row).resample_mask(&PaddedMask::new(fitted, spec), spec.size)
    }
}

/// One draw of an [`Augment`].
#[derive(Debug)]
struct Change {
    /// -1 mirrors, 1 does not: horizontally, vertically.
    flips: [f32; 2],
    /// Radians.
    angle: f32,
    /// Side of the part shown over the side of the crop.
    scale: f32,
    /// Shift of the part shown, in half sides of the crop.
    shift: [f32; 2],
    /// Factor.
    brightness: f32,
    /// Factor.
    contrast: f32,
    /// Along the depth of a volume: -1 mirrors; and the shift, in half depths.
    depth: (f32, f32),
}

impl Change {
    /// The `size` × `size` crop of `padded`, flipped, turned, scaled and shifted.
    fn resample(&self, padded: &Padded, size: usize) -> Pixels {
        let mut rgb = vec![0; size * size * 3];
        let mut out = rgb.chunks_exact_mut(3);
        self.places([padded.left, padded.top], size, |x, y| {
            if let Some(out) = out.next() {
                out.copy_from_slice(&sample(&padded.pixels, x, y));
            }
        });
        Pixels { width: size, height: size, rgb }
    }

    /// The same of labels.
    fn resample_mask(&self, padded: &PaddedMask, size: usize) -> Vec<u8> {
        let Mask { width, height, labels } = &*padded.mask;
        let mut out = Vec::with_capacity(size * size);
        self.places([padded.left, padded.top], size, |x, y| {
            let (x, y) = ((x + 0.5).floor(), (y + 0.5).floor());
            let inside = x >= 0.0 && y >= 0.0 && x < *width as f32 && y < *height as f32;
            out.push(if inside { labels[y as usize * width + x as usize] } else { IGNORE });
        });
        out
    }

    /// The layers of a fitted volume, each changed in its plane, and moved along the depth.
    fn resample_volume(&self, Volume { lengths: [depth, size, _], levels }: &Volume) -> Vec<u8> {
        let (area, last) = (size * size, (size - 1) as f32);
        let mut taps = Vec::with_capacity(area);
        self.places([0, 0], *size, |x, y| {
            let (x, y) = (x.clamp(0.0, last), y.clamp(0.0, last));
            let (x0, y0) = (x as usize, y as usize);
            let right = usize::from(x0 + 1 < *size);
            let below = if y0 + 1 < *size { *size } else { 0 };
            taps.push((y0 * size + x0, right, below, x - x0 as f32, y - y0 as f32));
        });
        let (flip, shift) = self.depth;
        let half = *depth as f32 / 2.0;
        let mut out = Vec::with_capacity(depth * area);
        for layer in 0..*depth {
            let from = flip * (layer as f32 + 0.5 - half) + half + (shift * half).round();
            let from = (from.floor().max(0.0) as usize).min(depth - 1);
            let layer = &levels[from * area..(from + 1) * area];
            out.extend(taps.iter().map(|&(at, right, below, u, v)| {
                let value = |at: usize| f32::from(layer[at]);
                let above = value(at) + (value(at + right) - value(at)) * u;
                let under = value(at + below) + (value(at + below + right) - value(at + below)) * u;
                (above + (under - above) * v + 0.5) as u8
            }));
        }
        out
    }

    /// Where each pixel of the `size` × `size` crop lies, row by row, in pixels from the centre of the padded image's first; the crop
    /// begins at `left`, `top`.
    fn places(&self, [left, top]: [usize; 2], size: usize, mut place: impl FnMut(f32, f32)) {
        let half = size as f32 / 2.0;
        let [shift_x, shift_y] = self.shift.map(|shift| shift * half);
        let center = [left as f32 + half + shift_x - 0.5, top as f32 + half + shift_y - 0.5];
        let (sin, cos) = self.angle.sin_cos();
        let [flip_u, flip_v] = self.flips.map(|flip| flip * self.scale);
        for y in 0..size {
            let v = flip_v * (y as f32 + 0.5 - half);
            let (row_x, row_y) = (center[0] - sin * v, center[1] + cos * v);
            for x in 0..size {
                let u = flip_u * (x as f32 + 0.5 - half);
                place(row_x + cos * u, row_y + sin * u);
            }
        }
    }

    /// Brightness, then contrast: `contrast · (brightness · value - mean) + mean`, where `mean` is that of all samples
    /// once brightened.
    fn tone(&self, samples: &mut [u8]) {
        if self.brightness == 1.0 && self.contrast == 1.0 {
            return;
        }
        let sum: u64 = samples.iter().map(|&sample| u64::from(sample)).sum();
        let mean = self.brightness * (sum as f64 / samples.len() as f64) as f32;
        let toned: [u8; 256] = std::array::from_fn(|sample| {
            (self.contrast * (self.brightness * sample as f32 - mean) + mean).round() as u8
        });
        for sample in samples {
            *sample = toned[usize::from(*sample)];
        }
    }
}

/// The colour at `(x, y)`, in pixels from the centre of the first one: bilinear, clamped to the edge.
fn sample(pixels: &Pixels, x: f32, y: f32) -> [u8; 3] {
    let Pixels { width, height, rgb } = pixels;
    let x = x.clamp(0.0, (width - 1) as f32);
    let y = y.clamp(0.0, (height - 1) as f32);
    let (x0, y0) = (x as usize, y as usize);
    let (right, below) = (x - x0 as f32, y - y0 as f32);
    let (x1, y1) = ((x0 + 1).min(width - 1), (y0 + 1).min(height - 1));
    let pixel = |x: usize, y: usize| &rgb[(y * width + x) * 3..][..3];
    let (a, b, c, d) = (pixel(x0, y0), pixel(x1, y0), pixel(x0, y1), pixel(x1, y1));
    std::array::from_fn(|channel| {
        let value = |pixel: &[u8]| f32::from(pixel[channel]);
        let above = value(a) + (value(b) - value(a)) * right;
        let under = value(c) + (value(d) - value(c)) * right;
        (above + (under - above) * below + 0.5) as u8
    })
}

#[cfg(test)]
mod tests {
    use melo_vit::{CropMode, Interpolation};

    use super::*;

    const STILL: Change = Change {
        flips: [1.0; 2],
        angle: 0.0,
        scale: 1.0,
        shift: [0.0; 2],
        brightness: 1.0,
        contrast: 1.0,
        depth: (1.0, 0.0),
    };

    fn spec(size: usize, crop_mode: CropMode) -> Preprocess {
        let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        Preprocess {
            size,
            crop_mode,
            crop_pct: 1.0,
            interpolation: Interpolation::Bicubic,
            mean,
            std,
            crop_offset: Default::default(),
            depth: None,
            rendering: Default::default(),
        }
    }

    /// Every pixel different from its neighbours.
    fn pixels(width: usize, height: usize) -> Pixels {
        let rgb = (0..width * height * 3).map(|index| (index * 89 % 251) as u8).collect();
        Pixels { width, height, rgb }
    }

    /// The pixel at `(x, y)` of a square.
    fn at(square: &Pixels, x: usize, y: usize) -> &[u8] {
        &square.rgb[(y * square.width + x) * 3..][..3]
    }

    #[test]
    fn no_change_is_the_centre_crop_bit_for_bit() {
        for size in [7, 8, 33] {
            for (width, height) in [(33, 33), (40, 33), (35, 47), (6, 50), (51, 5), (3, 4), (34, 36)] {
                for mode in [CropMode::Center, CropMode::Squash, CropMode::Border] {
                    let (fitted, spec) = (pixels(width, height), spec(size, mode));
                    let mut expected = vec![0.0; 3 * size * size];
                    let mut found = expected.clone();
                    melo_imaging::crop_normalise(&fitted, &spec, &mut expected);
                    let square = STILL.resample(&Padded::new(&fitted, &spec), size);
                    melo_imaging::normalise(&square, &spec, &mut found);
                    assert!(found == expected, "{width} x {height} to {size}, {mode:?}");
                    assert_eq!(square, Augment::none().apply(&fitted, &spec, 1, 2, 3));
                }
            }
        }
    }

    #[test]
    fn layers_of_a_volume_are_moved_along_its_depth_and_changed_alike() {
        let levels: Vec<u8> = (0..4 * 25).map(|at| (at * 7 % 251) as u8).collect();
        let volume = Volume { lengths: [4, 5, 5], levels };
        let layers = |order: [usize; 4]| order.map(|layer| &volume.levels[layer * 25..(layer + 1) * 25]).concat();
        let moved = |depth| Change { depth, ..STILL }.resample_volume(&volume);
        assert_eq!(moved((1.0, 0.0)), volume.levels);
        assert_eq!(Augment::none().apply_volume(&volume, 1, 2, 3), volume.levels);
        assert_eq!(moved((-1.0, 0.0)), layers([3, 2, 1, 0]));
        assert_eq!(moved((1.0, 0.5)), layers([1, 2, 3, 3]));
        assert_eq!(moved((1.0, -1.0)), layers([0, 0, 0, 1]));
        // In its plane each layer goes where an image of it goes.
        let change = Change { flips: [-1.0, 1.0], angle: 0.3, scale: 0.8, shift: [0.1, -0.2], ..STILL };
        let found = change.resample_volume(&volume);
        for (layer, found) in volume.levels.chunks_exact(25).zip(found.chunks_exact(25)) {
            let rgb = layer.iter().flat_map(|&level| [level; 3]).collect();
            let (image, spec) = (Pixels { width: 5, height: 5, rgb }, spec(5, CropMode::Squash));
            let expected = change.resample(&Padded::new(&image, &spec), 5);
            assert!(expected.rgb.iter().step_by(3).eq(found));
        }
        let drawn = |epoch| Augment::default().apply_volume(&volume, 7, epoch, 3);
        assert!(drawn(1) == drawn(1) && drawn(1) != drawn(2));
    }

    #[test]
    fn no_change_is_the_centre_crop_of_the_mask() {
        for (width, height) in [(33, 33), (40, 33), (35, 47), (6, 50), (51, 5), (3, 4)] {
            for mode in [CropMode::Center, CropMode::Squash, CropMode::Border] {
                let spec = spec(33, mode);
                let mask = Mask { width, height, labels: (0..width * height).map(|at| (at % 5) as u8).collect() };
                let fitted = melo_imaging::fit_mask(&mask, &spec);
                let found = Augment::none().apply_mask(&fitted, &spec, 1, 2, 3);
                assert_eq!(found, melo_imaging::prepare_mask(&mask, &spec), "{width} x {height}, {mode:?}");
            }
        }
    }

    /// What an image becomes is pinned: another value here means that a resumed training run differs.
    #[test]
    fn the_same_draw_changes_an_image_into_the_same_bytes() {
        let augment = Augment { vertical_flip: true, rotate_degrees: 45.0, crop_scale: 0.3, ..Augment::default() };
        let checksums = [CropMode::Center, CropMode::Squash, CropMode::Border].map(|mode| {
            let (fitted, spec) = (pixels(40, 51), spec(48, mode));
            let squares = (0..20).flat_map(|row| augment.apply(&fitted, &spec, 7, 8, row).rgb);
            squares.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        });
        assert_eq!(checksums, [8_933_929_765_858_987_618, 8_933_929_765_858_987_618, 5_761_622_667_330_111_259]);
    }

    #[test]
    fn an_image_that_is_painted_from_its_mask_stays_so() {
        let augment = Augment {
            vertical_flip: true,
            rotate_degrees: 180.0,
            crop_scale: 0.2,
            brightness: 0.0,
            contrast: 0.0,
            ..Augment::default()
        };
        for mode in [CropMode::Center, CropMode::Squash, CropMode::Border] {
            for (width, height) in [(64, 64), (90, 70), (40, 61)] {
                let spec = spec(64, mode);
                let labels = (0..width * height).map(|at| ((at % width / 9 + at / width / 7) % 3) as u8).collect();
                let mask = Mask { width, height, labels };
                // A channel a class: the nearest pixel has at least a quarter of the weight.
                let paint =
                    |&label: &u8| -> [u8; 3] { std::array::from_fn(|c| u8::from(c == usize::from(label)) * 255) };
                let rgb = mask.labels.iter().flat_map(paint).collect();
                let fitted = Pixels { width, height, rgb };
                let mut ignored = 0;
                for row in 0..40 {
                    let square = augment.apply(&fitted, &spec, 3, 4, row);
                    let labels = augment.apply_mask(&mask, &spec, 3, 4, row);
                    for (label, pixel) in labels.iter().zip(square.rgb.chunks_exact(3)) {
                        match *label {
                            IGNORE => ignored += 1,
                            label => assert!(pixel[usize::from(label)] >= 63, "{label} is {pixel:?} in row {row}"),
                        }
                    }
                    if let Some(pure) = labels
                        .iter()
                        .zip(square.rgb.chunks_exact(3))
                        .position(|(label, pixel)| *label != IGNORE && pixel.contains(&255) && *pixel != paint(label))
                    {
                        panic!("row {row}: a pixel of one class is labelled otherwise at {pure}");
                    }
                }
                assert!(ignored > 0 || mode == CropMode::Center, "turned images have corners outside");
            }
        }
    }

    #[test]
    fn flips_mirror() {
        let (fitted, spec) = (pixels(40, 33), spec(32, CropMode::Center));
        let canvas = Padded::new(&fitted, &spec);
        let still = STILL.resample(&canvas, 32);
        let flipped = |flips| Change { flips, ..STILL }.resample(&canvas, 32);
        let (across, down) = (flipped([-1.0, 1.0]), flipped([1.0, -1.0]));
        for (x, y) in [(0, 0), (5, 9), (31, 2)] {
            assert_eq!(at(&across, x, y), at(&still, 31 - x, y));
            assert_eq!(at(&down, x, y), at(&still, x, 31 - y));
        }
    }

    #[test]
    fn a_quarter_turn_turns() {
        let (fitted, spec) = (pixels(32, 32), spec(32, CropMode::Center));
        let turned = Change { angle: std::f32::consts::FRAC_PI_2, ..STILL }.resample(&Padded::new(&fitted, &spec), 32);
        for (x, y) in [(0, 0), (5, 9), (31, 2)] {
            let (found, expected) = (at(&turned, x, y), at(&fitted, 31 - y, x));
            // Sine and cosine of a quarter turn are off by 1e-7.
            assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 1), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn scale_and_shift_stay_inside_the_crop() {
        // A border of 9 around a crop of 7 that shift and scale must not reach.
        let (mut fitted, spec) = (pixels(16, 16), spec(8, CropMode::Center));
        for (index, pixel) in fitted.rgb.chunks_exact_mut(3).enumerate() {
            let inside = |position| (4..12).contains(&position);
            pixel.fill(if inside(index % 16) && inside(index / 16) { 7 } else { 9 });
        }
        let zoom = Augment { crop_scale: 0.25, ..Augment::none() };
        for row in 0..200 {
            assert!(zoom.apply(&fitted, &spec, 0, 0, row).rgb.iter().all(|&sample| sample == 7), "row {row}");
        }
    }

    #[test]
    fn draws_stay_in_their_ranges_and_reach_them() {
        let augment = Augment { vertical_flip: true, ..Augment::default() };
        let draws: Vec<Change> = (0..1000).map(|row| augment.draw(5, 6, row)).collect();
        let range = |value: fn(&Change) -> f32| {
            let values = draws.iter().map(value);
            (values.clone().fold(f32::INFINITY, f32::min), values.fold(f32::NEG_INFINITY, f32::max))
        };
        let near = |(min, max): (f32, f32), low: f32, high: f32| {
            let slack = (high - low) * 0.02;
            assert!(low <= min && min < low + slack && high - slack < max && max <= high, "{min} to {max}");
        };
        near(range(|change| change.angle.to_degrees()), -10.001, 10.001);
        near(range(|change| change.scale * change.scale), 0.7999, 1.0001);
        near(range(|change| change.brightness), 0.8999, 1.1001);
        near(range(|change| change.contrast), 0.8999, 1.1001);
        for flip in 0..2 {
            let flipped = draws.iter().filter(|change| change.flips[flip] < 0.0).count();
            // Five standard deviations of a fair coin.
            assert!((421..579).contains(&flipped), "{flipped}");
        }
    }

    #[test]
    fn tone_scales_about_the_mean_and_saturates() {
        let mut pixels = Pixels { width: 2, height: 1, rgb: vec![100, 100, 100, 200, 200, 200] };
        Change { contrast: 0.5, ..STILL }.tone(&mut pixels.rgb);
        assert_eq!(pixels.rgb, [125, 125, 125, 175, 175, 175]);
        Change { brightness: 2.0, ..STILL }.tone(&mut pixels.rgb);
        assert_eq!(pixels.rgb, [250, 250, 250, 255, 255, 255]);
    }

    #[test]
    fn refuses_values_out_of_range() {
        assert!(Augment::default().validate().is_ok() && Augment::none().validate().is_ok());
        let bad = [
            Augment { crop_scale: 0.0, ..Augment::none() },
            Augment { rotate_degrees: -1.0, ..Augment::none() },
            Augment { brightness: f32::NAN, ..Augment::none() },
            Augment { contrast: 1.5, ..Augment::none() },
        ];
        for augment in bad {
            assert!(matches!(augment.validate(), Err(Error::Augment { .. })), "{augment:?}");
        }
    }

    #[test]
    fn settings_are_json_with_defaults() {
        let augment: Augment = serde_json::from_str(r#"{"vertical_flip": true}"#).unwrap();
        assert_eq!(augment, Augment { vertical_flip: true, ..Augment::default() });
        assert!(serde_json::from_str::<Augment>(r#"{"shear": 1.0}"#).is_err());
    }
}
