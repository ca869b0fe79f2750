//! Random draws and smooth functions that give the same bits on every machine.
//!
//! The standard library's `sin`, `exp` and `powf` differ between platforms; these use only `+ - * /`, `sqrt` and
//! `floor`.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A generator for one purpose (`stream`), class and instance: the three words are the ChaCha key, so no two collide.
pub(crate) fn stream_rng(stream: u64, class: usize, instance: u64) -> ChaCha8Rng {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&stream.to_le_bytes());
    seed[8..16].copy_from_slice(&(class as u64).to_le_bytes());
    seed[16..24].copy_from_slice(&instance.to_le_bytes());
    ChaCha8Rng::from_seed(seed)
}

/// A bell-shaped draw in (-1, 1) with standard deviation 1/3: the mean of three uniform draws (Irwin–Hall).
pub(crate) fn bell_draw(rng: &mut ChaCha8Rng) -> f32 {
    (0..3).map(|_| rng.random_range(-1.0f32..1.0)).sum::<f32>() / 3.0
}

/// The largest whole number not above `x`, for `|x| < 2³¹`. Inlined, unlike `f32::floor` where the baseline
/// instruction set has no rounding.
pub(crate) fn floor(x: f32) -> i32 {
    let cut = x as i32;
    cut - i32::from(x < cut as f32)
}

/// `sin(2πx)` with `x` in turns; absolute error below 1e-5.
pub(crate) fn sin_turns(x: f32) -> f32 {
    let r = x - floor(x + 0.5) as f32;
    let folded = if r > 0.25 {
        0.5 - r
    } else if r < -0.25 {
        -0.5 - r
    } else {
        r
    };
    let z = folded * std::f32::consts::TAU;
    let z2 = z * z;
    // The Taylor series to z⁹.
    z * (1.0 - z2 / 6.0 * (1.0 - z2 / 20.0 * (1.0 - z2 / 42.0 * (1.0 - z2 / 72.0))))
}

/// `cos(2πx)` with `x` in turns.
pub(crate) fn cos_turns(x: f32) -> f32 {
    sin_turns(x + 0.25)
}

/// A bell with compact support, `(1 - d²/8)⁸` for `d² < 8`: close to `exp(-d²)`. Takes `d²`.
pub(crate) fn bell(d2: f32) -> f32 {
    let base = (1.0 - d2 * 0.125).max(0.0);
    let b2 = base * base;
    let b4 = b2 * b2;
    b4 * b4
}

/// Smooth step from 0 at `low` to 1 at `high`; falls where `high < low`.
pub(crate) fn smoothstep(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Linear blend from `a` to `b`.
pub(crate) fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// Schlick's bias, a gamma curve without a power: fixes 0 and 1, takes 1/2 to `half`.
/// C. Schlick, "Fast alternatives to Perlin's bias and gain functions", Graphics Gems IV, 1994.
pub(crate) fn bias(x: f32, half: f32) -> f32 {
    x / ((1.0 / half - 2.0) * (1.0 - x) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sine_is_close_to_the_real_one() {
        for i in -300..300 {
            let x = i as f32 / 97.0;
            let real = (f64::from(x) * std::f64::consts::TAU).sin();
            assert!((f64::from(sin_turns(x)) - real).abs() < 1e-5, "x = {x}");
        }
    }

    #[test]
    fn bell_is_close_to_the_exponential() {
        for i in 0..100 {
            let d2 = i as f32 / 10.0;
            assert!((bell(d2) - (-d2).exp()).abs() < 0.04, "d² = {d2}");
        }
    }

    #[test]
    fn bias_fixes_its_ends() {
        assert_eq!(bias(0.0, 0.3), 0.0);
        assert_eq!(bias(1.0, 0.3), 1.0);
        assert!((bias(0.5, 0.3) - 0.3).abs() < 1e-6);
    }
}
