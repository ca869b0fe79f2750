//! The normal and the beta distribution, as far as intervals and tests need them, in f64.

use std::f64::consts::SQRT_2;

/// P(|Z| > |z|) of a standard normal Z.
pub(crate) fn normal_two_sided(z: f64) -> f64 {
    libm::erfc(z.abs() / SQRT_2)
}

/// P(Z < z) of a standard normal Z.
pub(crate) fn normal_below(z: f64) -> f64 {
    0.5 * libm::erfc(-z / SQRT_2)
}

/// The z > 0 with P(|Z| <= z) = `level`; 1.96 for 0.95.
pub(crate) fn normal_z(level: f64) -> f64 {
    let outside = tails(level);
    // P(|Z| > 39) is 0 in f64.
    bisect(0.0, 39.0, 0.0, |z| normal_two_sided(z) <= outside)
}

/// 1 - `level`: what a two-sided interval leaves outside, on both sides together.
///
/// # Panics
/// Where `level` is not between 0 and 1.
pub(crate) fn tails(level: f64) -> f64 {
    assert!(0.0 < level && level < 1.0, "a level of confidence lies between 0 and 1, found {level}");
    1.0 - level
}

/// The regularised incomplete beta function I_x(a, b), the distribution function of Beta(a, b) at x in
/// [0, 1]; a, b > 0.
pub(crate) fn beta_cdf(x: f64, a: f64, b: f64) -> f64 {
    // The continued fraction converges fast below the mean; above it, I_x(a, b) = 1 - I_{1-x}(b, a).
    if x < (a + 1.0) / (a + b + 2.0) { lower_beta(x, 1.0 - x, a, b) } else { 1.0 - lower_beta(1.0 - x, x, b, a) }
}

/// DLMF 8.17.22, with y = 1 - x: I_x(a, b) = x^a y^b / (a B(a, b)) · 1 / (1 + d₁ / (1 + d₂ / (1 + …))),
/// evaluated from the front by Lentz' method (Thompson & Barnett, J. Comput. Phys. 64, 1986).
fn lower_beta(x: f64, y: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    /// Stands for a denominator of exactly 0.
    const TINY: f64 = 1e-300;
    let away = |denominator: f64| if denominator == 0.0 { TINY } else { denominator };
    let (mut fraction, mut c, mut d) = (1.0, 1.0, 0.0);
    let mut m = 0.0;
    loop {
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        m += 1.0;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let mut change = 1.0;
        for step in [odd, even] {
            d = 1.0 / away(1.0 + step * d);
            c = away(1.0 + step / c);
            change *= c * d;
        }
        fraction *= change;
        // After O(√max(a, b)) rounds. Two steps of seven roundings each may never come closer to 1.
        if (change - 1.0).abs() < 16.0 * f64::EPSILON {
            break;
        }
    }
    let log_beta = libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b);
    (a * x.ln() + b * y.ln() - log_beta).exp() / (a * fraction)
}

/// The x with I_x(a, b) = `p`.
pub(crate) fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    bisect(0.0, 1.0, 0.0, |x| beta_cdf(x, a, b) >= p)
}

/// Where `past` turns from false to true between `low` and `high`, to within `width` (0: to the last bit).
pub(crate) fn bisect(mut low: f64, mut high: f64, width: f64, past: impl Fn(f64) -> bool) -> f64 {
    while high - low > width {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if past(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn normal_quantiles() {
        // Abramowitz & Stegun, table 26.1 and beyond: 15 digits.
        for (level, z) in [(0.5, 0.674489750196082), (0.95, 1.959963984540054), (0.99, 2.575829303548901)] {
            assert!((normal_z(level) - z).abs() < 1e-14, "{level}: {}", normal_z(level));
        }
        assert_eq!(normal_two_sided(0.0), 1.0);
        assert_eq!(normal_two_sided(f64::NEG_INFINITY), 0.0);
    }

    /// P(X >= k) of a binomial X is I_p(k, n - k + 1) (DLMF 8.17.5): a sum of n terms against the fraction.
    fn binomial_tail(k: u32, n: u32, p: f64) -> f64 {
        let choose = |j: u32| (0..j).fold(1.0, |product, i| product * f64::from(n - i) / f64::from(i + 1));
        (k..=n).map(|j| choose(j) * p.powi(j as i32) * (1.0 - p).powi((n - j) as i32)).sum()
    }

    proptest! {
        #[test]
        fn beta_is_the_binomial_tail(n in 1u32..60, share in 0.0f64..1.0, p in 0.0f64..1.0) {
            let k = 1 + (f64::from(n - 1) * share) as u32;
            let found = beta_cdf(p, f64::from(k), f64::from(n - k + 1));
            prop_assert!((found - binomial_tail(k, n, p)).abs() < 1e-12);
        }

        #[test]
        fn beta_quantile_is_the_inverse(a in 0.3f64..1e6, b in 0.3f64..1e6, p in 0.001f64..0.999) {
            let x = beta_quantile(p, a, b);
            // The density at the quantile times one ulp of x, and ln B(a, b) of magnitude 1e6, bound the error.
            prop_assert!((beta_cdf(x, a, b) - p).abs() < 1e-8, "I_{}({}, {}) = {}", x, a, b, beta_cdf(x, a, b));
        }
    }

    #[test]
    fn beta_at_the_ends() {
        assert_eq!(beta_cdf(0.0, 3.0, 2.0), 0.0);
        assert_eq!(beta_cdf(1.0, 3.0, 2.0), 1.0);
    }

    #[test]
    #[should_panic(expected = "between 0 and 1, found 95")]
    fn a_level_in_per_cent() {
        normal_z(95.0);
    }
}
