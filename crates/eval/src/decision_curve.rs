//! Decision curves: what acting on a probability is worth against acting on everyone, or on no one (Vickers & Elkin, Med. Decis.
//! Making 26, 2006).

use serde::{Deserialize, Serialize};

/// What is gained, in true positives a case, by acting on the cases whose probability is at least a threshold; 0 is to act on no one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetBenefit {
    /// Probability from which one acts: one would act on `1 / threshold` cases to find a positive one. In (0, 1).
    pub threshold: f64,
    /// `TP / n - FP / n · threshold / (1 - threshold)` of the probabilities.
    pub model: f64,
    /// The same of acting on every case.
    pub all: f64,
}

/// The decision curve of `probabilities [n]` against `positive [n]` at `thresholds`. `None` with no case or a NaN.
///
/// Equals dcurves' net benefit.
///
/// # Panics
/// Where the lengths differ, or a threshold is not between 0 and 1.
pub fn decision_curve(probabilities: &[f32], positive: &[bool], thresholds: &[f64]) -> Option<Vec<NetBenefit>> {
    assert_eq!(probabilities.len(), positive.len(), "one truth a probability");
    if probabilities.is_empty() || probabilities.iter().any(|p| p.is_nan()) {
        return None;
    }
    let n = positive.len() as f64;
    let share = |acted: &dyn Fn(f32, bool) -> bool| {
        probabilities.iter().zip(positive).filter(|(p, positive)| acted(**p, **positive)).count() as f64 / n
    };
    let positives = share(&|_, positive| positive);
    let at = |&threshold: &f64| {
        assert!(0.0 < threshold && threshold < 1.0, "a threshold is between 0 and 1");
        let odds = threshold / (1.0 - threshold);
        let reached = |p: f32| p >= threshold as f32;
        let hits = share(&|p, positive| positive && reached(p));
        let false_alarms = share(&|p, positive| !positive && reached(p));
        NetBenefit { threshold, model: hits - false_alarms * odds, all: positives - (1.0 - positives) * odds }
    };
    Some(thresholds.iter().map(at).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hit_counts_one_and_a_false_alarm_the_odds() {
        let found = decision_curve(&[0.9, 0.6, 0.3, 0.1], &[true, false, true, false], &[0.2, 0.5]).unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(found[0].model, (2.0 - 0.25) / 4.0) && near(found[0].all, (2.0 - 0.5) / 4.0), "{found:?}");
        assert!(near(found[1].model, 0.0) && near(found[1].all, 0.0), "{found:?}");
    }

    #[test]
    fn what_is_undefined() {
        assert_eq!(decision_curve(&[], &[], &[0.5]), None);
        assert_eq!(decision_curve(&[f32::NAN], &[true], &[0.5]), None);
    }

    proptest! {
        #[test]
        fn no_model_beats_the_truth(cases in prop::collection::vec((0.0f32..1.0, any::<bool>()), 1..50), threshold in 0.01f64..0.99) {
            let (scores, truth): (Vec<f32>, Vec<bool>) = cases.into_iter().unzip();
            let perfect: Vec<f32> = truth.iter().map(|&positive| f32::from(u8::from(positive))).collect();
            let [model, best] = [&scores, &perfect].map(|scores| decision_curve(scores, &truth, &[threshold]).unwrap()[0]);
            let share = truth.iter().filter(|positive| **positive).count() as f64 / truth.len() as f64;
            prop_assert!(model.model <= best.model + 1e-12 && (best.model - share).abs() < 1e-12);
        }
    }
}
