//! Figures with percentile intervals by patient, for those that have no formula of their own: overlaps, errors, kappas.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::bootstrap::{Resampling, percentile_interval};
use crate::distributions::tails;

/// How intervals are drawn: patients with replacement, each with all of its cases.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Draws, at least 1.
    pub replicates: usize,
    /// Confidence, between 0 and 1.
    pub level: f64,
    /// Of the draws: the same seed and patients give the same intervals.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// 2,000 draws for 95 %.
    fn default() -> Self {
        Self { replicates: 2000, level: 0.95, seed: 0 }
    }
}

/// A figure with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resampled {
    /// The figure of all cases.
    pub value: f64,
    /// Ends of its interval, which hold it. `None` where no draw differs from another (one patient, equal cases), and so nothing
    /// shows how uncertain the figure is.
    pub interval: Option<(f64, f64)>,
}

/// Each figure of all cases with the percentile interval of confidence `level` over draws of patients.
///
/// `figures` computes them where each case counts as often as its weight says, `None` where one is undefined. Draws in which a
/// figure is undefined are left out of its interval.
///
/// # Panics
/// Where there are no replicates or `level` is not between 0 and 1.
pub(crate) fn resample(
    patients: &[usize],
    bootstrap: &Bootstrap,
    figures: impl Fn(&[u32]) -> Vec<Option<f64>>,
) -> Vec<Option<Resampled>> {
    tails(bootstrap.level);
    assert!(bootstrap.replicates > 0, "an interval needs at least one replicate");
    let mut weights = vec![1; patients.len()];
    let values = figures(&weights);
    let resampling = Resampling::new(patients, &vec![0; patients.len()], bootstrap.seed);
    let mut drawn = vec![Vec::new(); values.len()];
    for replicate in 0..bootstrap.replicates {
        resampling.weights(replicate, &mut weights);
        for (drawn, figure) in drawn.iter_mut().zip(figures(&weights)) {
            drawn.extend(figure);
        }
    }
    let with_interval = |(value, mut drawn): (Option<f64>, Vec<f64>)| {
        value.map(|value| Resampled { value, interval: interval(value, &mut drawn, bootstrap.level) })
    };
    values.into_iter().zip(drawn).map(with_interval).collect()
}

fn interval(value: f64, drawn: &mut [f64], level: f64) -> Option<(f64, f64)> {
    let (least, most) = drawn.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, m), d| (d.min(l), d.max(m)));
    // Means of equal values in other numbers differ by rounding.
    let varies = most - least > 1e-12 * value.abs().max(most.abs());
    varies.then(|| {
        let (low, high) = percentile_interval(drawn, level);
        (low.min(value), high.max(value))
    })
}

/// `patients [n]` are one a case, n > 0.
pub(crate) fn check_patients(patients: &[usize], n: usize) -> Result<(), Error> {
    match n {
        0 => Err(Error::NoRows),
        _ if patients.len() == n => Ok(()),
        _ => Err(Error::Length { what: "patients", expected: n, found: patients.len() }),
    }
}

/// Mean of the defined values, each as often as its weight says; none where none is drawn.
pub(crate) fn weighted_mean(values: impl IntoIterator<Item = Option<f64>>, weights: &[u32]) -> Option<f64> {
    let defined = values.into_iter().zip(weights).filter_map(|(value, weight)| Some((value?, f64::from(*weight))));
    let (sum, count) = defined.fold((0.0, 0.0), |(sum, count), (value, weight)| (sum + weight * value, count + weight));
    (count > 0.0).then(|| sum / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_of(values: &[f64], patients: &[usize]) -> Resampled {
        let mean = |weights: &[u32]| vec![weighted_mean(values.iter().copied().map(Some), weights)];
        resample(patients, &Bootstrap::default(), mean)[0].unwrap()
    }

    #[test]
    fn what_no_draw_shows_has_no_interval() {
        assert_eq!(mean_of(&[0.3, 0.7, 0.4], &[5, 5, 5]).interval, None);
        assert_eq!(mean_of(&[0.1; 7], &[0, 1, 2, 3, 4, 5, 6]).interval, None);
    }

    #[test]
    fn an_interval_is_the_normal_one_of_a_mean() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 20)).collect();
        let found = mean_of(&values, &(0..400).collect::<Vec<_>>());
        let (low, high) = found.interval.unwrap();
        // A deviation of √(399 / 12) over √400, and its error of 2,000 draws of some 3 %.
        let half = 1.96 * (399.0_f64 / 12.0).sqrt() / 20.0;
        assert!((low - (9.5 - half)).abs() < 0.1 && (high - (9.5 + half)).abs() < 0.1, "{found:?}");
    }

    #[test]
    fn images_of_a_patient_are_drawn_together() {
        let values: Vec<f64> = (0..60).map(|i| f64::from(i / 6)).collect();
        let width = |patients: Vec<usize>| {
            let (low, high) = mean_of(&values, &patients).interval.unwrap();
            high - low
        };
        assert!(width((0..60).map(|i| i / 6).collect()) > 2.0 * width((0..60).collect()));
    }

    #[test]
    #[should_panic(expected = "at least one replicate")]
    fn no_replicates() {
        resample(&[0], &Bootstrap { replicates: 0, ..Bootstrap::default() }, |_| vec![None]);
    }
}
