//! The inverse cosine transform, in the integer arithmetic of libjpeg's `JDCT_ISLOW`.
//!
//! Loeffler, Ligtenberg and Moschytz, "Practical fast 1-D DCT algorithms with 11 multiplications" (ICASSP 1989):
//! columns first, kept at two extra bits, then rows. The rounding after each pass is what makes the result that of
//! libjpeg-turbo to the bit. Of 12-bit samples one bit less is kept between the passes, as in `jidctint.c`.

use std::num::Wrapping;

use super::entropy::Block;

/// Arithmetic wraps: a hostile coefficient gives a wrong sample, not a panic.
type Number = Wrapping<i32>;

/// Bits after the binary point of the multipliers below.
const FRACTION_BITS: usize = 13;
/// Extra bits kept between the passes.
fn pass_bits(precision: u32) -> usize {
    if precision > 8 { 1 } else { 2 }
}

/// Multipliers of the paper's figure 1, times 2^13, rounded.
const F_0_298631336: Number = Wrapping(2446);
const F_0_390180644: Number = Wrapping(3196);
const F_0_541196100: Number = Wrapping(4433);
const F_0_765366865: Number = Wrapping(6270);
const F_0_899976223: Number = Wrapping(7373);
const F_1_175875602: Number = Wrapping(9633);
const F_1_501321110: Number = Wrapping(12299);
const F_1_847759065: Number = Wrapping(15137);
const F_1_961570560: Number = Wrapping(16069);
const F_2_053119869: Number = Wrapping(16819);
const F_2_562915447: Number = Wrapping(20995);
const F_3_072711026: Number = Wrapping(25172);

/// Writes the 8 × 8 samples of `block` times `quantisation` (both in natural order) to `out`, whose rows are
/// `stride` apart; a sample has `precision` bits.
pub(super) fn inverse(block: &Block, quantisation: &[u16; 64], precision: u32, out: &mut [u16], stride: usize) {
    let value = |at: usize| {
        // libjpeg's multipliers are short for 8-bit samples, int for 12-bit ones.
        if precision > 8 {
            Wrapping(i32::from(block[at])) * Wrapping(i32::from(quantisation[at]))
        } else {
            Wrapping(i32::from(block[at].wrapping_mul(quantisation[at] as i16)))
        }
    };
    if block[1..].iter().all(|&coefficient| coefficient == 0) {
        let sample = to_sample((value(0) + Wrapping(4)) >> 3, precision);
        for row in out.chunks_mut(stride).take(8) {
            row[..8].fill(sample);
        }
        return;
    }
    let extra = pass_bits(precision);
    let mut columns = [Wrapping(0); 64];
    for column in 0..8 {
        let input = std::array::from_fn(|row| value(row * 8 + column));
        for (row, sum) in transform(input).into_iter().enumerate() {
            columns[row * 8 + column] = descale(sum, FRACTION_BITS - extra);
        }
    }
    for (input, row) in columns.as_chunks().0.iter().zip(out.chunks_mut(stride)) {
        for (sample, sum) in row.iter_mut().zip(transform(*input)) {
            *sample = to_sample(descale(sum, FRACTION_BITS + extra + 3), precision);
        }
    }
}

/// `round(value / 2^bits)`.
fn descale(value: Number, bits: usize) -> Number {
    (value + Wrapping(1 << (bits - 1))) >> bits
}

/// Samples are stored about half of their range.
fn to_sample(value: Number, precision: u32) -> u16 {
    (value + Wrapping(1 << (precision - 1))).0.clamp(0, (1 << precision) - 1) as u16
}

/// One-dimensional transform of 8 values, times `2^FRACTION_BITS · sqrt(8)`.
fn transform(input: [Number; 8]) -> [Number; 8] {
    let [i0, i1, i2, i3, i4, i5, i6, i7] = input;

    let both = (i2 + i6) * F_0_541196100;
    let even_2 = both - i6 * F_1_847759065;
    let even_3 = both + i2 * F_0_765366865;
    let even_0 = (i0 + i4) << FRACTION_BITS;
    let even_1 = (i0 - i4) << FRACTION_BITS;
    let even = [even_0 + even_3, even_1 + even_2, even_1 - even_2, even_0 - even_3];

    let shared = (i7 + i3 + i5 + i1) * F_1_175875602;
    let z1 = (i7 + i1) * -F_0_899976223;
    let z2 = (i5 + i3) * -F_2_562915447;
    let z3 = (i7 + i3) * -F_1_961570560 + shared;
    let z4 = (i5 + i1) * -F_0_390180644 + shared;
    let odd = [
        i1 * F_1_501321110 + z1 + z4,
        i3 * F_3_072711026 + z2 + z3,
        i5 * F_2_053119869 + z2 + z4,
        i7 * F_0_298631336 + z1 + z3,
    ];

    std::array::from_fn(|at| if at < 4 { even[at] + odd[at] } else { even[7 - at] - odd[7 - at] })
}
