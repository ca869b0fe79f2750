//! The passes of a resize: sums of integers, so equal to the oracle on every instruction set.

use crate::problem::{Random, every_isa};
use melo_kernels::{Taps, WEIGHT_BITS};

/// Windows of one to `stride` positions with weights of both signs, and what no window may touch.
fn taps(inputs: usize, outputs: usize, stride: usize, random: &mut Random) -> Taps {
    let mut whole = |least: usize, most: usize| {
        let share = f64::from(random.around(1, 0.5, 0.5)[0]);
        (least + (share * (most - least + 1) as f64) as usize).min(most)
    };
    let (mut windows, mut weights) = (Vec::new(), vec![i32::MAX; outputs * stride]);
    for row in weights.chunks_exact_mut(stride) {
        let length = whole(1, stride);
        windows.push((whole(0, inputs - length), length));
        // Together at most twice a whole, which is what sums have room for.
        let most = (2 << WEIGHT_BITS) / length - 1;
        row[..length].fill_with(|| whole(0, 2 * most) as i32 - most as i32);
    }
    Taps { inputs, windows, weights, stride }
}

/// Output `o` of positions `at(k)`.
fn oracle(taps: &Taps, o: usize, at: impl Fn(usize) -> u8) -> u8 {
    let (first, length) = taps.windows[o];
    let weights = &taps.weights[o * taps.stride..][..length];
    let sum: f64 = weights.iter().zip(first..).map(|(&weight, k)| f64::from(weight) * f64::from(at(k))).sum();
    (sum / f64::from(1 << WEIGHT_BITS) + 0.5).floor().clamp(0.0, 255.0) as u8
}

#[test]
fn passes_of_a_resize() {
    for (rows, inputs, outputs, stride, channels) in [
        (1, 1, 1, 1, 1),
        (2, 3, 5, 3, 3),
        (15, 7, 3, 4, 1),
        (17, 40, 9, 11, 3),
        (33, 9, 20, 5, 2),
        (50, 1024, 224, 11, 1),
    ] {
        let mut random = Random::new(rows * inputs);
        let taps = taps(inputs, outputs, stride, &mut random);
        let x: Vec<u8> = random.around(rows * inputs * channels, 127.5, 127.5).iter().map(|&x| x as u8).collect();
        for kernels in every_isa() {
            let mut y = vec![0; rows * outputs * channels];
            kernels.resample_rows(&x, channels, &taps, &mut y);
            for (place, &found) in y.iter().enumerate() {
                let (row, o, channel) = (place / channels / outputs, place / channels % outputs, place % channels);
                let expected = oracle(&taps, o, |k| x[(row * inputs + k) * channels + channel]);
                assert_eq!(found, expected, "{}, row {row}, output {o}", kernels.isa);
            }
            // The same samples as columns: `[inputs, rows · channels]`.
            let width = rows * channels;
            let mut y = vec![0; outputs * width];
            kernels.resample_columns(&x, &taps, &mut y);
            for (place, &found) in y.iter().enumerate() {
                let (o, column) = (place / width, place % width);
                assert_eq!(found, oracle(&taps, o, |k| x[k * width + column]), "{}, output {o}", kernels.isa);
            }
        }
    }
}
