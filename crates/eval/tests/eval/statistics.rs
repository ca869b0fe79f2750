//! Statistics against pROC, scikit-learn, scipy, statsmodels, numpy and MedMNIST's evaluator, on the cases of
//! `tools/golden/eval_statistics.py`.

use melo_eval::{
    OperatingPoint, RankedScores, Reliability, at_sensitivity, at_specificity, average_precision, brier_multi_label,
    brier_single_label, clopper_pearson, delong, delong_paired, fit_temperature_multi_label,
    fit_temperature_single_label, holm, multi_label, percentile_interval, precision_recall_points,
    reliability_multi_label, reliability_single_label, roc_auc, roc_points, single_label, wilson, youden,
};
use serde::Deserialize;

/// Both sides compute in f64 by the same formulas in another order, on numbers of order 1 and some hundred cases.
const ROUNDING: f64 = 1e-12;

#[derive(Deserialize)]
struct Golden {
    delong: Vec<DeLong>,
    weighted_auc: Vec<WeightedAuc>,
    percentiles: Vec<Percentiles>,
    holm: Vec<Holm>,
    proportions: Vec<Proportion>,
    calibration: Vec<Calibration>,
    temperature: Vec<FittedTemperature>,
    curves: Vec<Curves>,
    medmnist: Vec<MedMnist>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/statistics.json")).expect("the golden file is whole")
}

/// Of 0 and 1.
fn truth(labels: &[u8]) -> Vec<bool> {
    labels.iter().map(|label| *label == 1).collect()
}

fn indices(labels: &[u8]) -> Vec<usize> {
    labels.iter().map(|label| usize::from(*label)).collect()
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, at: &str) {
    assert_eq!(found.len(), expected.len(), "{at}: length");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{at}: found {found}, expected {expected}");
    }
}

#[derive(Deserialize)]
struct DeLong {
    name: String,
    positive: Vec<u8>,
    a: Vec<f32>,
    b: Vec<f32>,
    level: f64,
    estimate_a: [f64; 4],
    estimate_b: [f64; 4],
    interval: [f64; 2],
    z: Option<f64>,
    p: f64,
}

#[test]
fn delong_equals_proc() {
    let cases = golden().delong;
    assert_eq!(cases.len(), 10);
    for case in cases {
        let (positive, at) = (truth(&case.positive), case.name.as_str());
        for (scores, expected) in [(&case.a, case.estimate_a), (&case.b, case.estimate_b)] {
            let found = delong(scores, &positive, case.level).unwrap();
            assert_close(&[found.auc, found.variance, found.low, found.high], &expected, ROUNDING, at);
        }
        let pair = delong_paired(&case.a, &case.b, &positive, case.level).unwrap();
        assert_close(&[pair.low, pair.high, pair.p], &[case.interval[0], case.interval[1], case.p], ROUNDING, at);
        assert_close(&[pair.auc_a, pair.auc_b], &[case.estimate_a[0], case.estimate_b[0]], ROUNDING, at);
        // Without variance, pROC's z is 0 or infinite and ours is undefined.
        match pair.z {
            Some(z) => assert_close(&[z], &[case.z.unwrap()], 1e-10, at),
            None => assert!(pair.variance == 0.0 && case.z.is_none_or(|z| z == 0.0), "{at}"),
        }
    }
}

#[derive(Deserialize)]
struct WeightedAuc {
    positive: Vec<u8>,
    scores: Vec<f32>,
    weights: Vec<u32>,
    auc: f64,
}

#[test]
fn weighted_auc_equals_scikit_learn() {
    let cases = golden().weighted_auc;
    assert_eq!(cases.len(), 2);
    for case in cases {
        let found = RankedScores::new(&case.scores, &truth(&case.positive)).auc(&case.weights).unwrap();
        assert_close(&[found], &[case.auc], ROUNDING, "weighted AUC");
    }
}

#[derive(Deserialize)]
struct Percentiles {
    samples: Vec<f64>,
    level: f64,
    interval: [f64; 2],
}

#[test]
fn percentiles_equal_numpy() {
    let cases = golden().percentiles;
    assert_eq!(cases.len(), 4);
    for mut case in cases {
        let (low, high) = percentile_interval(&mut case.samples, case.level);
        assert_close(&[low, high], &case.interval, ROUNDING, "percentile interval");
    }
}

#[derive(Deserialize)]
struct Holm {
    p: Vec<f64>,
    adjusted: Vec<f64>,
}

#[test]
fn holm_equals_statsmodels() {
    let cases = golden().holm;
    assert_eq!(cases.len(), 5);
    for case in cases {
        assert_close(&holm(&case.p), &case.adjusted, ROUNDING, "Holm");
    }
}

#[derive(Deserialize)]
struct Proportion {
    successes: u64,
    trials: u64,
    level: f64,
    wilson: [f64; 2],
    clopper_pearson: [f64; 2],
}

#[test]
fn proportions_equal_statsmodels_and_scipy() {
    let cases = golden().proportions;
    assert_eq!(cases.len(), 27);
    for case in cases {
        let at = format!("{} of {} at {}", case.successes, case.trials, case.level);
        let (low, high) = wilson(case.successes, case.trials, case.level).unwrap();
        assert_close(&[low, high], &case.wilson, ROUNDING, &at);
        // scipy searches its root to 1e-12; ln B(a, b) of some 1e7 keeps nine digits.
        let (low, high) = clopper_pearson(case.successes, case.trials, case.level).unwrap();
        assert_close(&[low, high], &case.clopper_pearson, 1e-11, &at);
    }
}

#[derive(Deserialize)]
struct Calibration {
    name: String,
    multi_label: bool,
    classes: usize,
    probabilities: Vec<f32>,
    labels: Vec<u8>,
    reliability: Vec<ExpectedReliability>,
    brier: Vec<f64>,
}

#[derive(Deserialize)]
struct ExpectedReliability {
    bins: usize,
    accuracy: Vec<f64>,
    confidence: Vec<f64>,
    ece: f64,
}

fn assert_reliable(found: &Reliability, expected: &ExpectedReliability, cases: usize, at: &str) {
    assert_eq!(found.bins.len(), expected.bins, "{at}");
    assert_eq!(found.bins.iter().map(|bin| bin.count).sum::<u64>(), cases as u64, "{at}");
    // scikit-learn leaves empty bins out.
    let accuracy: Vec<_> = found.bins.iter().filter_map(|bin| bin.accuracy).collect();
    let confidence: Vec<_> = found.bins.iter().filter_map(|bin| bin.confidence).collect();
    assert_close(&accuracy, &expected.accuracy, ROUNDING, at);
    assert_close(&confidence, &expected.confidence, ROUNDING, at);
    assert_close(&[found.ece], &[expected.ece], ROUNDING, at);
}

#[test]
fn calibration_equals_scikit_learn() {
    let cases = golden().calibration;
    assert_eq!(cases.len(), 3);
    for Calibration { name, multi_label, classes, probabilities, labels, reliability, brier } in cases {
        let found = if multi_label {
            brier_multi_label(&probabilities, &labels, classes).unwrap()
        } else {
            vec![brier_single_label(&probabilities, &indices(&labels), classes).unwrap()]
        };
        assert_close(&found, &brier, ROUNDING, &name);
        for expected in reliability {
            let found = if multi_label {
                reliability_multi_label(&probabilities, &labels, classes, expected.bins)
            } else {
                reliability_single_label(&probabilities, &indices(&labels), classes, expected.bins)
            };
            assert_reliable(&found.unwrap(), &expected, labels.len(), &name);
        }
    }
}

#[derive(Deserialize)]
struct FittedTemperature {
    name: String,
    multi_label: bool,
    classes: usize,
    logits: Vec<f32>,
    labels: Vec<u8>,
    temperature: f64,
    nll_before: f64,
    nll_after: f64,
}

#[test]
fn temperature_equals_scipy() {
    let cases = golden().temperature;
    assert_eq!(cases.len(), 4);
    for case in cases {
        let found = match case.multi_label {
            true => fit_temperature_multi_label(&case.logits, &case.labels, case.classes).unwrap(),
            false => fit_temperature_single_label(&case.logits, &indices(&case.labels), case.classes).unwrap(),
        };
        assert!(!found.at_bound);
        let losses = [found.nll_before, found.nll_after];
        assert_close(&losses, &[case.nll_before, case.nll_after], ROUNDING, &case.name);
        // scipy compares losses, which near their minimum differ by rounding alone within √ε of ln T.
        assert_close(&[found.temperature.ln()], &[case.temperature.ln()], 1e-6, &case.name);
    }
}

#[derive(Deserialize)]
struct Curves {
    name: String,
    positive: Vec<u8>,
    scores: Vec<f32>,
    roc: Roc,
    precision_recall: PrecisionRecall,
    average_precision: f64,
    youden: (f32, f64, f64),
    #[serde(rename = "at_sensitivity_0.9")]
    at_sensitivity: (f32, f64, f64),
    #[serde(rename = "at_specificity_0.8")]
    at_specificity: (f32, f64, f64),
}

#[derive(Deserialize)]
struct Roc {
    false_positive_rate: Vec<f64>,
    true_positive_rate: Vec<f64>,
    threshold: Vec<Option<f32>>,
}

#[derive(Deserialize)]
struct PrecisionRecall {
    precision: Vec<f64>,
    recall: Vec<f64>,
    threshold: Vec<Option<f32>>,
}

fn assert_point(found: Option<OperatingPoint>, (threshold, sensitivity, specificity): (f32, f64, f64), at: &str) {
    let found = found.expect(at);
    assert_eq!(found.threshold, threshold, "{at}");
    assert_close(&[found.sensitivity, found.specificity], &[sensitivity, specificity], ROUNDING, at);
}

#[test]
fn curves_and_thresholds_equal_scikit_learn() {
    let cases = golden().curves;
    assert_eq!(cases.len(), 3);
    for Curves { name, positive, scores, roc, precision_recall, .. } in &cases {
        let positive = truth(positive);
        let points = roc_points(scores, &positive).unwrap();
        let found: (Vec<_>, Vec<_>) = points.iter().map(|p| (p.false_positive_rate, p.true_positive_rate)).unzip();
        assert_close(&found.0, &roc.false_positive_rate, ROUNDING, name);
        assert_close(&found.1, &roc.true_positive_rate, ROUNDING, name);
        assert_eq!(points.iter().map(|p| p.threshold).collect::<Vec<_>>(), roc.threshold, "{name}");

        let points = precision_recall_points(scores, &positive).unwrap();
        let found: (Vec<_>, Vec<_>) = points.iter().map(|p| (p.precision, p.recall)).unzip();
        assert_close(&found.0, &precision_recall.precision, ROUNDING, name);
        assert_close(&found.1, &precision_recall.recall, ROUNDING, name);
        assert_eq!(points.iter().map(|p| p.threshold).collect::<Vec<_>>(), precision_recall.threshold, "{name}");
    }
    for case in &cases {
        let (scores, positive) = (&case.scores, truth(&case.positive));
        let found = average_precision(scores, &positive).unwrap();
        assert_close(&[found], &[case.average_precision], ROUNDING, &case.name);
        assert_point(youden(scores, &positive), case.youden, &case.name);
        assert_point(at_sensitivity(scores, &positive, 0.9), case.at_sensitivity, &case.name);
        assert_point(at_specificity(scores, &positive, 0.8), case.at_specificity, &case.name);
    }
}

#[derive(Deserialize)]
struct MedMnist {
    task: String,
    classes: usize,
    probabilities: Vec<f32>,
    labels: Vec<u8>,
    auc: f64,
    acc: f64,
}

#[test]
fn auc_and_acc_are_medmnists() {
    let cases = golden().medmnist;
    assert_eq!(cases.len(), 4);
    for MedMnist { task, classes, probabilities, labels, auc, acc } in cases {
        let metrics = if task == "multi-label, binary-class" {
            // MedMNIST calls a finding present *above* 0.5, we at the threshold and above it.
            multi_label(&probabilities, &labels, &vec![0.5f32.next_up(); classes])
        } else {
            single_label(&probabilities, &indices(&labels), classes)
        };
        let metrics = metrics.unwrap();
        // Two classes: MedMNIST takes the score of the second alone.
        assert_close(&[metrics.auc_macro.unwrap(), metrics.acc], &[auc, acc], ROUNDING, &task);
        if task == "binary-class" {
            let second: Vec<f32> = probabilities.chunks_exact(2).map(|row| row[1]).collect();
            assert_close(&[roc_auc(&second, &truth(&labels)).unwrap()], &[auc], ROUNDING, &task);
        }
    }
}
