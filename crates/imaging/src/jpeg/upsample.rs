//! Components to rows of RGB: chroma upsampling and colour conversion, in the integer arithmetic of libjpeg-turbo.

use crate::cmyk;

/// Samples of one component, of at most 12 bits: sums of sixteen fit in 16.
pub(super) struct Plane {
    /// Rows, `stride` apart.
    pub(super) samples: Vec<u16>,
    pub(super) stride: usize,
    /// Columns and rows that belong to the image; the rest fills up blocks.
    pub(super) columns: usize,
    pub(super) rows: usize,
    /// Image pixels per sample across and down.
    pub(super) across: usize,
    pub(super) down: usize,
}

impl Plane {
    fn row(&self, y: usize) -> &[u16] {
        &self.samples[y * self.stride..][..self.columns]
    }

    /// Writes image row `y` to `out`, of `columns · across` samples.
    ///
    /// A factor of 2 is interpolated by a triangle filter, 3/4 of the nearer and 1/4 of the farther sample
    /// (libjpeg's "fancy upsampling"); any other factor, and a component of at most two columns, is repeated.
    /// Rounding alternates between up and down, as there.
    pub(super) fn upsample(&self, y: usize, out: &mut [u16]) {
        let near = self.row(y / self.down);
        // The neighbour of a first or last row is that row itself.
        let (upper, lower) = ((y / 2).saturating_sub(1), (y / 2 + 1).min(self.rows - 1));
        let far = || self.row(if y.is_multiple_of(2) { upper } else { lower });
        match (self.across, self.down) {
            (1, 1) => out.copy_from_slice(near),
            (2, 1) if self.columns > 2 => {
                widen(near.iter().copied(), out, [1, 2], 2);
            }
            (1, 2) => {
                let half = 1 + y as u16 % 2;
                for ((out, &near), &far) in out.iter_mut().zip(near).zip(far()) {
                    *out = (3 * near + far + half) >> 2;
                }
            }
            (2, 2) if self.columns > 2 => {
                let sums = near.iter().zip(far()).map(|(&near, &far)| 3 * near + far);
                widen(sums, out, [8, 7], 4);
            }
            (across, _) => {
                for (out, &sample) in out.chunks_exact_mut(across).zip(near) {
                    out.fill(sample);
                }
            }
        }
    }
}

/// Two outputs for each input, 3/4 of it and 1/4 of the left or right neighbour, the ends being their own neighbours;
/// `rounding` of the left and the right output is added before `shift` drops the fraction.
fn widen(mut values: impl Iterator<Item = u16>, out: &mut [u16], rounding: [u16; 2], shift: u32) {
    let Some(mut this) = values.next() else { return };
    let mut last = this;
    for pair in out.chunks_exact_mut(2) {
        let next = values.next();
        let right = next.unwrap_or(this);
        pair[0] = (3 * this + last + rounding[0]) >> shift;
        pair[1] = (3 * this + right + rounding[1]) >> shift;
        (last, this) = (this, right);
    }
}

/// What the components mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Grey,
    Rgb,
    /// ITU-R BT.601, full range (JFIF 1.02).
    YCbCr,
    /// Four inks, 0 the most, as Adobe writes them; Pillow takes all to be so.
    Cmyk,
    /// The same, red, green and blue of the first three transformed as [`Colour::YCbCr`].
    Ycck,
}

/// Writes one row of 8-bit RGB; `rows` holds a row of each component.
pub(super) fn convert(colour: Colour, rows: &[Vec<u16>], out: &mut [u8]) {
    match (colour, rows) {
        (Colour::Grey, [grey, ..]) => {
            for (pixel, &grey) in out.chunks_exact_mut(3).zip(grey) {
                pixel.fill(grey as u8);
            }
        }
        (Colour::Rgb, [red, green, blue, ..]) => {
            for (((pixel, &red), &green), &blue) in out.chunks_exact_mut(3).zip(red).zip(green).zip(blue) {
                pixel.copy_from_slice(&[red as u8, green as u8, blue as u8]);
            }
        }
        (Colour::YCbCr, [y, cb, cr, ..]) => {
            for (((pixel, &y), &cb), &cr) in out.chunks_exact_mut(3).zip(y).zip(cb).zip(cr) {
                pixel.copy_from_slice(&ycc_to_rgb([y, cb, cr]));
            }
        }
        (Colour::Cmyk | Colour::Ycck, [first, second, third, black, ..]) => {
            let inks = first.iter().zip(second).zip(third).zip(black);
            for (pixel, (((&first, &second), &third), &black)) in out.chunks_exact_mut(3).zip(inks) {
                let inks = match colour {
                    Colour::Ycck => ycc_to_rgb([first, second, third]),
                    _ => [first, second, third].map(|ink| 255 - ink as u8),
                };
                let [cyan, magenta, yellow] = inks;
                pixel.copy_from_slice(&cmyk::to_rgb([cyan, magenta, yellow, 255 - black as u8]));
            }
        }
        _ => unreachable!("{colour:?} of {} components", rows.len()),
    }
}

/// JFIF 1.02: `R = Y + 1.402 Cr`, `G = Y - 0.34414 Cb - 0.71414 Cr`, `B = Y + 1.772 Cb`, times 2^16, rounded.
pub(crate) fn ycc_to_rgb([y, cb, cr]: [u16; 3]) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((91881 * cr + HALF) >> 16);
    let green = y + ((-22554 * cb - 46802 * cr + HALF) >> 16);
    let blue = y + ((116130 * cb + HALF) >> 16);
    [red, green, blue].map(|sample| sample.clamp(0, 255) as u8)
}
