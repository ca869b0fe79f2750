//! Square float images and the few ways of drawing on them.
//!
//! Coordinates are -1..1 in both directions, x to the right, y down, whatever the size in pixels; so are lengths.

use melo_imaging::Pixels;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::exact::{bell, smoothstep};

/// A point of a stroke: place and half of the line's width there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knot {
    pub(crate) x: f32,
    pub(crate) y: f32,
    pub(crate) half_width: f32,
}

/// One channel, `[size, size]`.
#[derive(Clone)]
pub(crate) struct Field {
    pub(crate) size: usize,
    pub(crate) values: Vec<f32>,
}

impl Field {
    /// All zero.
    pub(crate) fn new(size: usize) -> Self {
        Self { size, values: vec![0.0; size * size] }
    }

    /// The function `f(x, y)` sampled at pixel centres.
    pub(crate) fn from_fn(size: usize, mut f: impl FnMut(f32, f32) -> f32) -> Self {
        let mut field = Self::new(size);
        field.each(|v, x, y| *v = f(x, y));
        field
    }

    /// Visits every value with its place.
    pub(crate) fn each(&mut self, mut f: impl FnMut(&mut f32, f32, f32)) {
        let step = self.pixel();
        for (row, line) in self.values.chunks_exact_mut(self.size).enumerate() {
            let y = (row as f32 + 0.5) * step - 1.0;
            for (column, v) in line.iter_mut().enumerate() {
                f(v, (column as f32 + 0.5) * step - 1.0, y);
            }
        }
    }

    /// Visits the values in the square of half side `reach` about `(cx, cy)` with their offsets from it.
    pub(crate) fn each_near(&mut self, cx: f32, cy: f32, reach: f32, mut f: impl FnMut(&mut f32, f32, f32)) {
        let step = self.pixel();
        let span = |c: f32| {
            let first = ((c - reach + 1.0) / step).floor().max(0.0) as usize;
            let last = ((c + reach + 1.0) / step).floor().max(-1.0) + 1.0;
            first..(last as usize).min(self.size)
        };
        let (rows, columns) = (span(cy), span(cx));
        for row in rows {
            let dy = (row as f32 + 0.5) * step - 1.0 - cy;
            for column in columns.clone() {
                let dx = (column as f32 + 0.5) * step - 1.0 - cx;
                f(&mut self.values[row * self.size + column], dx, dy);
            }
        }
    }

    /// A disc of radius `r` whose rim falls off over `edge`, joined by maximum: overlapping discs do not add up.
    pub(crate) fn disc(&mut self, cx: f32, cy: f32, r: f32, edge: f32, amount: f32) {
        let edge = edge.max(self.pixel());
        self.each_near(cx, cy, r + edge, |v, dx, dy| {
            let d = (dx * dx + dy * dy).sqrt();
            *v = v.max(amount * smoothstep(r + edge * 0.5, r - edge * 0.5, d));
        });
    }

    /// Adds a bell of radius `r` (its value at `r` is 0.37 `amount`).
    pub(crate) fn add_bell(&mut self, cx: f32, cy: f32, r: f32, amount: f32) {
        let scale = 1.0 / (r * r);
        self.each_near(cx, cy, 2.6 * r, |v, dx, dy| *v += amount * bell((dx * dx + dy * dy) * scale));
    }

    /// A line through the knots with round joints and anti-aliased rim, joined by maximum.
    /// A line thinner than a pixel is drawn a pixel wide and fainter.
    pub(crate) fn stroke(&mut self, knots: &[Knot], amount: f32) {
        for pair in knots.windows(2) {
            self.segment(pair[0], pair[1], amount);
        }
    }

    fn segment(&mut self, a: Knot, b: Knot, amount: f32) {
        let pixel = self.pixel();
        let (ux, uy) = (b.x - a.x, b.y - a.y);
        let inverse = 1.0 / (ux * ux + uy * uy).max(1e-12);
        let widest = a.half_width.max(b.half_width);
        // Short pieces keep the visited squares small on slanted lines.
        let pieces = (ux.abs().min(uy.abs()) / (4.0 * pixel + 2.0 * widest)).floor() as usize + 1;
        let share = 1.0 / pieces as f32;
        for piece in 0..pieces {
            let middle = (piece as f32 + 0.5) * share;
            let (cx, cy) = (a.x + ux * middle, a.y + uy * middle);
            let half = 0.5 * share * ux.abs().max(uy.abs());
            self.each_near(cx, cy, half + widest + pixel, |v, dx, dy| {
                let t = (middle + (dx * ux + dy * uy) * inverse).clamp(0.0, 1.0);
                let (ex, ey) = (dx - (t - middle) * ux, dy - (t - middle) * uy);
                let wanted = a.half_width + (b.half_width - a.half_width) * t;
                let drawn = wanted.max(0.5 * pixel);
                let d = (ex * ex + ey * ey).sqrt();
                let cover = ((drawn - d) / pixel + 0.5).clamp(0.0, 1.0);
                *v = v.max(amount * cover * (wanted / drawn));
            });
        }
    }

    /// Gaussian blur of standard deviation `sigma`; the border pixels repeat outwards.
    pub(crate) fn blur(&mut self, sigma: f32) {
        let sigma_px = sigma / self.pixel();
        if sigma_px < 0.3 {
            return;
        }
        let radius = ((2.5 * sigma_px) as usize + 1).min(self.size - 1);
        let mut weights: Vec<f32> = (0..=radius).map(|i| bell((i * i) as f32 / (2.0 * sigma_px * sigma_px))).collect();
        let total = weights[0] + 2.0 * weights[1..].iter().sum::<f32>();
        weights.iter_mut().for_each(|w| *w /= total);
        self.blur_rows(&weights);
        self.blur_columns(&weights);
    }

    fn blur_rows(&mut self, weights: &[f32]) {
        let (size, radius) = (self.size, weights.len() - 1);
        let mut padded = vec![0.0; size + 2 * radius];
        for line in self.values.chunks_exact_mut(size) {
            padded[..radius].fill(line[0]);
            padded[radius..radius + size].copy_from_slice(line);
            padded[radius + size..].fill(line[size - 1]);
            line.iter_mut().zip(&padded[radius..]).for_each(|(v, p)| *v = weights[0] * p);
            for (offset, &w) in weights.iter().enumerate().skip(1) {
                let (before, after) = (&padded[radius - offset..], &padded[radius + offset..]);
                for ((v, p), q) in line.iter_mut().zip(before).zip(after) {
                    *v += w * (p + q);
                }
            }
        }
    }

    fn blur_columns(&mut self, weights: &[f32]) {
        let size = self.size;
        let source = self.values.clone();
        let line = |row: usize| &source[row * size..(row + 1) * size];
        for (row, out) in self.values.chunks_exact_mut(size).enumerate() {
            out.iter_mut().for_each(|v| *v *= weights[0]);
            for (offset, &w) in weights.iter().enumerate().skip(1) {
                let (above, below) = (line(row.saturating_sub(offset)), line((row + offset).min(size - 1)));
                for ((v, p), q) in out.iter_mut().zip(above).zip(below) {
                    *v += w * (p + q);
                }
            }
        }
    }

    /// Multiplies so that the mean becomes `target`, as a detector's automatic exposure does.
    pub(crate) fn expose(&mut self, target: f32) {
        let gain = target / self.mean().max(1e-3);
        self.values.iter_mut().for_each(|v| *v *= gain);
    }

    /// Adds independent noise of standard deviation `sigma` to every value.
    pub(crate) fn grain(&mut self, rng: &mut ChaCha8Rng, sigma: f32) {
        let mut bytes = vec![0; self.values.len() * 4];
        rng.fill_bytes(&mut bytes);
        // The sum of four bytes has mean 510 and standard deviation 2·sqrt((256² - 1) / 12) = 147.8.
        let scale = sigma / 147.8;
        for (v, four) in self.values.iter_mut().zip(bytes.chunks_exact(4)) {
            let sum: u16 = four.iter().map(|&b| u16::from(b)).sum();
            *v += (f32::from(sum) - 510.0) * scale;
        }
    }

    /// The mean value.
    pub(crate) fn mean(&self) -> f32 {
        self.values.iter().sum::<f32>() / self.values.len() as f32
    }

    /// The side of a pixel.
    pub(crate) fn pixel(&self) -> f32 {
        2.0 / self.size as f32
    }

    /// Grey pixels, 0..1 to 0..255.
    pub(crate) fn into_pixels(self) -> Pixels {
        let rgb = self.values.iter().flat_map(|&v| [byte(v); 3]).collect();
        Pixels { width: self.size, height: self.size, rgb }
    }
}

/// Red, green and blue fields of one size.
pub(crate) struct Canvas {
    pub(crate) planes: [Field; 3],
}

impl Canvas {
    /// The colour `f(x, y)` sampled at pixel centres.
    pub(crate) fn from_fn(size: usize, mut f: impl FnMut(f32, f32) -> [f32; 3]) -> Self {
        let mut planes = [Field::new(size), Field::new(size), Field::new(size)];
        let mut index = 0;
        let [red, green, blue] = &mut planes;
        red.each(|r, x, y| {
            [*r, green.values[index], blue.values[index]] = f(x, y);
            index += 1;
        });
        Self { planes }
    }

    /// Paints `colour` with the cover `mask · opacity`.
    pub(crate) fn blend(&mut self, mask: &Field, colour: [f32; 3], opacity: f32) {
        for (plane, c) in self.planes.iter_mut().zip(colour) {
            for (v, m) in plane.values.iter_mut().zip(&mask.values) {
                *v += (c - *v) * (m * opacity).clamp(0.0, 1.0);
            }
        }
    }

    /// Lets light through a stain: multiplies by `colour` to the extent `mask · opacity`.
    pub(crate) fn stain(&mut self, mask: &Field, colour: [f32; 3], opacity: f32) {
        for (plane, c) in self.planes.iter_mut().zip(colour) {
            for (v, m) in plane.values.iter_mut().zip(&mask.values) {
                *v *= 1.0 - (1.0 - c) * m * opacity;
            }
        }
    }

    /// The same without colour.
    pub(crate) fn grey(mut self) -> Self {
        let [red, green, blue] = &mut self.planes;
        for ((r, g), b) in red.values.iter_mut().zip(&mut green.values).zip(&mut blue.values) {
            let mean = (*r + *g + *b) / 3.0;
            (*r, *g, *b) = (mean, mean, mean);
        }
        self
    }

    /// RGB pixels, 0..1 to 0..255.
    pub(crate) fn into_pixels(self) -> Pixels {
        let [red, green, blue] = &self.planes;
        let size = red.size;
        let rgb = red
            .values
            .iter()
            .zip(&green.values)
            .zip(&blue.values)
            .flat_map(|((&r, &g), &b)| [byte(r), byte(g), byte(b)])
            .collect();
        Pixels { width: size, height: size, rgb }
    }
}

fn byte(v: f32) -> u8 {
    (v.clamp(0.0, 1.0) * 255.0 + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn blur_keeps_a_constant_and_the_mean_of_a_point() {
        let mut field = Field::from_fn(17, |_, _| 0.5);
        field.blur(0.2);
        assert!(field.values.iter().all(|v| (v - 0.5).abs() < 1e-5));
        let mut point = Field::new(33);
        point.values[16 * 33 + 16] = 1.0;
        point.blur(0.15);
        assert!((point.values.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        assert!(point.values[16 * 33 + 16] < 0.2);
    }

    #[test]
    fn drawing_outside_is_harmless() {
        let mut field = Field::new(8);
        field.disc(5.0, -7.0, 0.3, 0.1, 1.0);
        field.add_bell(-4.0, 4.0, 0.2, 1.0);
        assert_eq!(field.mean(), 0.0);
        let ends = [-9.0, 9.0].map(|x| Knot { x, y: 0.0, half_width: 0.2 });
        field.stroke(&ends, 1.0);
        assert!(field.mean() > 0.1 && field.mean() < 0.4);
    }

    #[test]
    fn grain_has_the_stated_spread() {
        let mut field = Field::new(128);
        field.grain(&mut ChaCha8Rng::seed_from_u64(1), 0.1);
        let variance = field.values.iter().map(|v| v * v).sum::<f32>() / field.values.len() as f32;
        assert!((variance.sqrt() - 0.1).abs() < 0.003, "{}", variance.sqrt());
    }
}
