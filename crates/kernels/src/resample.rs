//! The two passes of a separable resize of 8-bit samples, in fixed point: `y[o] = Σ_k weights[o, k] · x[first[o] + k]`, rounded to
//! 8 bits. All sums are of integers, so every instruction set gives the same.

/// Bits after the binary point of a weight: 32, less 8 of the sample and 2 of headroom for weights beyond [0, 1],
/// as in Pillow's `Resample.c`; other values round differently.
pub const WEIGHT_BITS: u32 = 32 - 8 - 2;

/// Half a grey level: sums start here so that the shift rounds.
const HALF: i32 = 1 << (WEIGHT_BITS - 1);

/// Rows that are weighed side by side: an AVX-512 vector of sums.
const LANES: usize = 16;

/// For each output position of a resize along one axis: where its window of input starts, and its weights.
#[derive(Clone, Debug)]
pub struct Taps {
    /// Positions of the input.
    pub inputs: usize,
    /// `(first, length)` of each output's window, within `inputs`.
    pub windows: Vec<(usize, usize)>,
    /// Weights times 2^[`WEIGHT_BITS`], `[outputs, stride]`; a window has the first `length` of its row.
    pub weights: Vec<i32>,
    /// Most weights of a window.
    pub stride: usize,
}

impl Taps {
    /// `(first, weights)` of each output in turn.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let weights = self.weights.chunks_exact(self.stride);
        self.windows.iter().zip(weights).map(|(&(first, length), weights)| (first, &weights[..length]))
    }
}

#[inline(always)]
fn level(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// Along rows: `x [h, inputs, channels]`, `y [h, outputs, channels]`.
#[inline(always)]
pub(crate) fn along_rows(x: &[u8], channels: usize, taps: &Taps, y: &mut [u8]) {
    let (old, new) = (taps.inputs * channels, taps.windows.len() * channels);
    assert!(x.len().is_multiple_of(old) && x.len() / old * new == y.len(), "shapes of a resize along rows");
    let mut turned = vec![[0; LANES]; old];
    for (x, y) in x.chunks(old * LANES).zip(y.chunks_mut(new * LANES)) {
        for (lane, row) in x.chunks_exact(old).enumerate() {
            turned.iter_mut().zip(row).for_each(|(turned, &sample)| turned[lane] = sample);
        }
        for (output, (first, weights)) in taps.iter().enumerate() {
            for channel in 0..channels {
                let levels = weigh(&turned[first * channels + channel..], channels, weights);
                let rows = y.chunks_exact_mut(new).zip(levels);
                rows.for_each(|(row, level)| row[output * channels + channel] = level);
            }
        }
    }
}

/// Every `step`-th of `samples`, weighed.
#[inline(always)]
fn weigh(samples: &[[u8; LANES]], step: usize, weights: &[i32]) -> [u8; LANES] {
    let mut sums = [HALF; LANES];
    // By two: the loop over single weights is the one that the compiler would make vectors of, by gathering.
    let (pairs, last) = weights.as_chunks();
    for (at, &[one, other]) in pairs.iter().enumerate() {
        let (a, b) = (&samples[2 * at * step], &samples[(2 * at + 1) * step]);
        for lane in 0..LANES {
            sums[lane] += i32::from(a[lane]) * one + i32::from(b[lane]) * other;
        }
    }
    if let [weight] = *last {
        let a = &samples[2 * pairs.len() * step];
        for lane in 0..LANES {
            sums[lane] += i32::from(a[lane]) * weight;
        }
    }
    sums.map(level)
}

/// Along columns: `x [inputs, width]`, `y [outputs, width]`, each of `width` samples for itself.
#[inline(always)]
pub(crate) fn along_columns(x: &[u8], taps: &Taps, y: &mut [u8]) {
    let width = x.len() / taps.inputs;
    assert!(
        x.len() == width * taps.inputs && y.len() == width * taps.windows.len(),
        "shapes of a resize along columns"
    );
    let mut sums = vec![HALF; width];
    for ((first, weights), y) in taps.iter().zip(y.chunks_exact_mut(width)) {
        sums.fill(HALF);
        for (row, &weight) in x[first * width..].chunks_exact(width).zip(weights) {
            sums.iter_mut().zip(row).for_each(|(sum, &sample)| *sum += i32::from(sample) * weight);
        }
        y.iter_mut().zip(&sums).for_each(|(y, &sum)| *y = level(sum));
    }
}
