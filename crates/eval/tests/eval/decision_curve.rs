//! Net benefit against dcurves, on the cases of `tools/golden/decision_curve.py`.

use melo_eval::decision_curve;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    thresholds: Vec<f64>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    probabilities: Vec<f32>,
    positive: Vec<bool>,
    model: Vec<f64>,
    all: Vec<f64>,
}

#[test]
fn net_benefit_is_that_of_dcurves() {
    let golden: Golden = serde_json::from_str(include_str!("../golden/decision_curve.json")).unwrap();
    assert_eq!(golden.cases.len(), 3);
    for case in golden.cases {
        let found = decision_curve(&case.probabilities, &case.positive, &golden.thresholds).unwrap();
        for ((found, model), all) in found.iter().zip(case.model).zip(case.all) {
            // Sums of counts in f64, in another order.
            assert!(
                (found.model - model).abs() < 1e-12 && (found.all - all).abs() < 1e-12,
                "{found:?}: {model}, {all}"
            );
        }
    }
}
