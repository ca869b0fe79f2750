//! Intervals by patient against `tools/golden/intervals.py`: statsmodels' cluster-robust variances, AUCs by pairs, roots by scipy.

use melo_eval::{ClusteredAuc, ClusteredShare, Estimate, argmax};
use serde::Deserialize;

/// Both sides compute in f64; a root of scipy's is within 2e-12, and Wilson's ends are roots of a quadratic equation.
const TOLERANCE: f64 = 1e-10;

#[derive(Deserialize)]
struct Case {
    name: String,
    classes: usize,
    patients: Vec<usize>,
    labels: Vec<usize>,
    scores: Vec<f32>,
    acc: [f64; 3],
    auc_macro: [f64; 3],
    auc_per_class: Vec<[f64; 3]>,
    sensitivity: Vec<[f64; 3]>,
}

#[track_caller]
fn assert_close(found: Estimate, expected: [f64; 3], at: &str) {
    for (found, expected) in [found.value, found.low, found.high].into_iter().zip(expected) {
        assert!((found - expected).abs() < TOLERANCE, "{at}: found {found}, expected {expected}");
    }
}

#[test]
fn intervals_by_patient_equal_their_definitions() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/intervals.json")).unwrap();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let Case { name, classes, patients, labels, scores, .. } = &case;
        let right: Vec<(usize, f64)> = scores
            .chunks_exact(*classes)
            .zip(labels)
            .map(|(row, label)| (*label, f64::from(u8::from(argmax(row) == *label))))
            .collect();
        let of = |wanted: Option<usize>| {
            let cases =
                right.iter().zip(patients).filter(|((label, _), _)| wanted.is_none_or(|wanted| wanted == *label));
            ClusteredShare::new(cases.map(|((_, right), patient)| (*right, *patient))).unwrap().estimate(0.95)
        };
        assert_close(of(None), case.acc, &format!("{name}: accuracy"));
        let area = |class: usize| {
            let column: Vec<f32> = scores.iter().skip(class).step_by(*classes).copied().collect();
            let truth: Vec<bool> = labels.iter().map(|label| *label == class).collect();
            ClusteredAuc::new(&column, &truth, patients)
        };
        for class in 0..*classes {
            assert_close(of(Some(class)), case.sensitivity[class], &format!("{name}: sensitivity of {class}"));
            let found = area(class).unwrap().estimate(0.95);
            assert_close(found, case.auc_per_class[class], &format!("{name}: AUC of {class}"));
        }
        let found = ClusteredAuc::mean((0..*classes).map(area)).unwrap().estimate(0.95);
        assert_close(found, case.auc_macro, &format!("{name}: macro AUC"));
    }
}
