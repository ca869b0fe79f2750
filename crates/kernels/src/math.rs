//! Branch-free scalar functions and lane-wise reductions, written so that the compiler vectorises the loops around them.
//!
//! Where a product is fused with a sum it is so on every instruction set, which then all give the same bits.

/// Lanes of the reductions: one AVX-512 register of f32.
pub(crate) const LANES: usize = 16;

/// `1.5 · 2^23`: adding it rounds a small f32 to an integer, held in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;

/// `e^x` within 2 ulp on [-87.3, 88.7], clamped outside; NaN stays NaN.
///
/// Cephes' `expf`: argument reduced by multiples of ln 2 in two parts, then a degree-5 polynomial.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = if x > 88.7 { 88.7 } else { x };
    let x = if x < -87.3 { -87.3 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let f = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(f, 1.398_199_9e-3);
    let p = p.mul_add(f, 8.333_452e-3);
    let p = p.mul_add(f, 4.166_579_6e-2);
    let p = p.mul_add(f, 1.666_666_5e-1);
    let p = p.mul_add(f, 0.5);
    let y = (p * f).mul_add(f, f) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    y * f32::from_bits(exponent)
}

/// `erf(x)` within 5e-7, clamped to ±1 beyond |x| = 4.
///
/// The odd rational approximation P(x²)·x / Q(x²) of Eigen's `generic_fast_erf_float`.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = if x > 4.0 { 4.0 } else { x };
    let x = if x < -4.0 { -4.0 } else { x };
    let s = x * x;
    let p = -2.726_142_3e-10_f32;
    let p = p.mul_add(s, 2.770_681_5e-8);
    let p = p.mul_add(s, -2.101_024e-6);
    let p = p.mul_add(s, -5.692_506_2e-5);
    let p = p.mul_add(s, -7.349_906_5e-4);
    let p = p.mul_add(s, -2.954_6e-3);
    let p = p.mul_add(s, -1.609_603_3e-2);
    let q = -1.456_607_15e-5_f32;
    let q = q.mul_add(s, -2.133_740_5e-4);
    let q = q.mul_add(s, -1.682_827_e-3);
    let q = q.mul_add(s, -7.373_329_3e-3);
    let q = q.mul_add(s, -1.426_473_9e-2);
    x * p / q
}

/// `tanh(x)` within 3e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `Σ f(a_i, b_i, …)` over slices of equal length, in lanes that are added as a tree.
#[inline(always)]
pub(crate) fn sum_by<const N: usize>(x: [&[f32]; N], f: impl Fn([f32; N]) -> f32) -> f32 {
    let len = x.first().map_or(0, |x| x.len());
    assert!(x.iter().all(|x| x.len() == len), "slices of unequal lengths");
    let mut lanes = [0.0f32; LANES];
    let chunks = x.map(|x| x.as_chunks::<LANES>());
    for at in 0..len / LANES {
        let chunk = chunks.map(|(chunks, _)| &chunks[at]);
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += f(chunk.map(|chunk| chunk[lane]));
        }
    }
    for (lane, total) in lanes.iter_mut().enumerate().take(len % LANES) {
        *total += f(chunks.map(|(_, tail)| tail[lane]));
    }
    tree(lanes)
}

/// Puts `f(x)` in place of every `x`, and returns their sum, added up as [`sum_by`] does.
#[inline(always)]
pub(crate) fn replace_by(x: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, tail) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (x, total) in chunk.iter_mut().zip(&mut lanes) {
            *x = f(*x);
            *total += *x;
        }
    }
    for (x, total) in tail.iter_mut().zip(&mut lanes) {
        *x = f(*x);
        *total += *x;
    }
    tree(lanes)
}

/// Lanes added as a tree.
#[inline(always)]
fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest value of `x`, -inf when it is empty.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, tail) = x.split_at(x.len() - x.len() % LANES);
    for chunk in whole.chunks_exact(LANES) {
        for (best, &value) in lanes.iter_mut().zip(chunk) {
            *best = if value > *best { value } else { *best };
        }
    }
    lanes.iter().chain(tail).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// The smallest value of `x`, inf when it is empty.
#[inline(always)]
pub(crate) fn min(x: &[f32]) -> f32 {
    let mut lanes = [f32::INFINITY; LANES];
    let (whole, tail) = x.split_at(x.len() - x.len() % LANES);
    for chunk in whole.chunks_exact(LANES) {
        for (best, &value) in lanes.iter_mut().zip(chunk) {
            *best = if value < *best { value } else { *best };
        }
    }
    lanes.iter().chain(tail).fold(f32::INFINITY, |a, &b| if b < a { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(low: f64, high: f64, f: impl Fn(f32) -> f32, oracle: impl Fn(f64) -> f64, relative: bool) -> f64 {
        (0..=200_000)
            .map(|i| (low + (high - low) * i as f64 / 200_000.0) as f32)
            .map(|x| {
                let expected = oracle(f64::from(x));
                let error = (f64::from(f(x)) - expected).abs();
                if relative { error / expected.abs() } else { error }
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_within_two_ulp() {
        assert!(worst(-87.0, 88.0, exp, f64::exp, true) < 2.0 * f64::from(f32::EPSILON));
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e30) < 1e-37 && exp(f32::NAN).is_nan());
    }

    #[test]
    fn erf_tanh_sigmoid_are_within_their_bounds() {
        assert!(worst(-6.0, 6.0, erf, libm::erf, false) < 5e-7);
        assert!(worst(-9.0, 9.0, tanh, f64::tanh, false) < 3e-7);
        assert!(worst(-30.0, 30.0, sigmoid, |x| 1.0 / (1.0 + (-x).exp()), false) < 3e-7);
    }

    #[test]
    fn reductions_take_every_value_once() {
        for len in [0, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..len).map(|i| (i as f32) - 40.0).collect();
            assert_eq!(sum_by([&x], |[x]| x), x.iter().sum::<f32>());
            let mut doubled = x.clone();
            assert_eq!(replace_by(&mut doubled, |x| 2.0 * x), 2.0 * x.iter().sum::<f32>());
            assert!(doubled.iter().zip(&x).all(|(doubled, x)| *doubled == 2.0 * x));
            assert_eq!(min(&x), x.iter().copied().fold(f32::INFINITY, f32::min));
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
