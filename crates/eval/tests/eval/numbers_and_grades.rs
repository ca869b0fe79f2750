//! Regression and ordinal metrics against scikit-learn and scipy, on the cases of `tools/golden/numbers_and_grades.py`.

use melo_eval::{Bootstrap, Resampled, Resampling, ordinal, percentile_interval, regression};
use serde::Deserialize;

/// Both sides compute in f64 by the same formulas; the correlation of numbers near 1e6 that differ by 0.01 keeps 8 digits
/// fewer than f64 has.
const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Golden {
    numbers: Vec<Numbers>,
    grades: Vec<Grades>,
}

#[derive(Deserialize)]
struct Numbers {
    name: String,
    predictions: Vec<f64>,
    truth: Vec<f64>,
    mae: f64,
    rmse: f64,
    bias: f64,
    r2: Option<f64>,
    pearson: Option<f64>,
    baseline: [f64; 3],
}

#[derive(Deserialize)]
struct Grades {
    name: String,
    grades: usize,
    predictions: Vec<usize>,
    truth: Vec<usize>,
    kappa_quadratic: Option<f64>,
    kappa_linear: Option<f64>,
    mae: f64,
    confusion: Vec<Vec<u64>>,
}

const FEW: Bootstrap = Bootstrap { replicates: 50, level: 0.9, seed: 3 };

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/numbers_and_grades.json")).expect("golden numbers")
}

fn apart(n: usize) -> Vec<usize> {
    (0..n).collect()
}

#[track_caller]
fn assert_close(found: Option<f64>, expected: Option<f64>, at: &str) {
    let close = match (found, expected) {
        (Some(a), Some(b)) => (a - b).abs() <= TOLERANCE * b.abs().max(1.0),
        (a, b) => a == b,
    };
    assert!(close, "{at}: found {found:?}, expected {expected:?}");
}

#[test]
fn numbers_equal_scikit_learns() {
    let cases = golden().numbers;
    assert_eq!(cases.len(), 7);
    for case in cases {
        let found = regression(&case.predictions, &case.truth, &apart(case.truth.len()), None, &FEW).unwrap();
        let close = |found: Option<f64>, expected, what: &str| {
            assert_close(found, expected, &format!("{}: {what}", case.name));
        };
        close(Some(found.mae.value), Some(case.mae), "MAE");
        close(Some(found.rmse.value), Some(case.rmse), "RMSE");
        close(Some(found.bias.value), Some(case.bias), "bias");
        close(found.r2.map(|r2| r2.value), case.r2, "R²");
        close(found.pearson.map(|pearson| pearson.value), case.pearson, "Pearson");
        let baseline = [found.baseline.answer, found.baseline.mae.value, found.baseline.rmse.value];
        for (found, expected) in baseline.into_iter().zip(case.baseline) {
            close(Some(found), Some(expected), "baseline");
        }
    }
}

#[test]
fn grades_equal_scikit_learns() {
    let cases = golden().grades;
    assert_eq!(cases.len(), 7);
    for case in cases {
        let found = ordinal(&case.predictions, &case.truth, case.grades, &apart(case.truth.len()), &FEW).unwrap();
        let value = |figure: Option<Resampled>| figure.map(|figure| figure.value);
        assert_close(value(found.kappa_quadratic), case.kappa_quadratic, &format!("{}: quadratic", case.name));
        assert_close(value(found.kappa_linear), case.kappa_linear, &format!("{}: linear", case.name));
        assert_close(Some(found.mae.value), Some(case.mae), &format!("{}: MAE", case.name));
        assert_eq!(found.confusion, case.confusion, "{}", case.name);
    }
}

/// A draw is a test set in which a patient stands as often as drawn.
#[test]
fn intervals_are_those_of_drawn_test_sets() {
    let Golden { numbers, grades } = golden();
    let (numbers, grades) = (&numbers[0], &grades[0]);
    let patients = |n: usize| (0..n).map(|i| i / 3).collect::<Vec<_>>();
    let once = Bootstrap { replicates: 1, ..FEW };
    let drawn_sets = |patients: &[usize]| -> Vec<Vec<usize>> {
        let resampling = Resampling::new(patients, &vec![0; patients.len()], FEW.seed);
        let draw = |replicate| {
            let mut weights = vec![0; patients.len()];
            resampling.weights(replicate, &mut weights);
            weights.iter().enumerate().flat_map(|(i, weight)| vec![i; *weight as usize]).collect()
        };
        (0..FEW.replicates).map(draw).collect()
    };
    let check = |found: Resampled, mut values: Vec<f64>| {
        let (low, high) = percentile_interval(&mut values, FEW.level);
        let (found_low, found_high) = found.interval.unwrap();
        assert!((found_low - low).abs() < 1e-12 && (found_high - high).abs() < 1e-12, "{found:?} {low} {high}");
    };

    let of_patients = patients(numbers.truth.len());
    let sets = drawn_sets(&of_patients);
    let found = regression(&numbers.predictions, &numbers.truth, &of_patients, None, &FEW).unwrap();
    let figures: Vec<_> = sets
        .iter()
        .map(|set| {
            let of = |values: &[f64]| set.iter().map(|i| values[*i]).collect::<Vec<_>>();
            regression(&of(&numbers.predictions), &of(&numbers.truth), &apart(set.len()), None, &once).unwrap()
        })
        .collect();
    check(found.mae, figures.iter().map(|figure| figure.mae.value).collect());
    check(found.rmse, figures.iter().map(|figure| figure.rmse.value).collect());
    check(found.r2.unwrap(), figures.iter().map(|figure| figure.r2.unwrap().value).collect());
    check(found.pearson.unwrap(), figures.iter().map(|figure| figure.pearson.unwrap().value).collect());

    let of_patients = patients(grades.truth.len());
    let found = ordinal(&grades.predictions, &grades.truth, grades.grades, &of_patients, &FEW).unwrap();
    let figures: Vec<_> = drawn_sets(&of_patients)
        .iter()
        .map(|set| {
            let of = |values: &[usize]| set.iter().map(|i| values[*i]).collect::<Vec<_>>();
            ordinal(&of(&grades.predictions), &of(&grades.truth), grades.grades, &apart(set.len()), &once).unwrap()
        })
        .collect();
    check(found.mae, figures.iter().map(|figure| figure.mae.value).collect());
    check(found.kappa_quadratic.unwrap(), figures.iter().map(|figure| figure.kappa_quadratic.unwrap().value).collect());
}
