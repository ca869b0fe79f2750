//! Every field of `Metrics` against scikit-learn, on the cases of `tools/golden/metrics.py`.

use melo_eval::{multi_label, single_label};
use serde::Deserialize;
use serde_json::Value;

/// Both sides compute in f64 from the same counts; scikit-learn's trapezoidal sum over at most a few
/// hundred points of the ROC curve rounds by some 1e-14.
const TOLERANCE: f64 = 1e-12;

#[derive(Deserialize)]
struct Case {
    name: String,
    classes: usize,
    probabilities: Vec<f32>,
    labels: Vec<usize>,
    thresholds: Option<Vec<f32>>,
    expected: Value,
}

fn assert_close(found: &Value, expected: &Value, at: &str) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let mut keys: [Vec<_>; 2] = [found.keys().collect(), expected.keys().collect()];
            keys.iter_mut().for_each(|keys| keys.sort());
            assert_eq!(keys[0], keys[1], "{at}: fields");
            for (key, value) in expected {
                assert_close(&found[key], value, &format!("{at}.{key}"));
            }
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "{at}: length");
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                assert_close(found, expected, &format!("{at}[{i}]"));
            }
        }
        (Value::Number(a), Value::Number(b)) => {
            let difference = a.as_f64().zip(b.as_f64()).map(|(a, b)| (a - b).abs());
            assert!(difference.is_some_and(|d| d < TOLERANCE), "{at}: found {a}, scikit-learn has {b}");
        }
        _ => assert_eq!(found, expected, "{at}"),
    }
}

#[test]
fn equals_scikit_learn() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/metrics.json")).unwrap();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let metrics = match case.thresholds {
            None => single_label(&case.probabilities, &case.labels, case.classes),
            Some(thresholds) => {
                let labels: Vec<u8> = case.labels.iter().map(|&label| label as u8).collect();
                multi_label(&case.probabilities, &labels, &thresholds)
            }
        };
        let found = serde_json::to_value(metrics.unwrap()).unwrap();
        assert_close(&found, &case.expected, &case.name);
    }
}
