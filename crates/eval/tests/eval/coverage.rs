//! Intervals and tests do what their level promises, on data drawn from a known truth.
//! Seeds are fixed; bounds are three standard errors of a simulated share or wider.

use melo_eval::{
    RankedScores, Resampling, bootstrap_p_inferior, bootstrap_p_zero, delong, delong_paired, percentile_interval,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A standard normal draw (Box & Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Φ(1 / √2): scores of positives are N(1, 1), of negatives N(0, 1).
const AUC_OF_SHIFT_ONE: f64 = 0.760249938906;

/// `patients` of each kind with `images` each; the score of an image is a part of its patient's and its own.
struct Drawn {
    scores: Vec<f32>,
    positive: Vec<bool>,
    patients: Vec<usize>,
    strata: Vec<usize>,
}

fn draw(rng: &mut ChaCha8Rng, patients: usize, images: usize, shared: f64) -> Drawn {
    let mut drawn = Drawn { scores: vec![], positive: vec![], patients: vec![], strata: vec![] };
    for patient in 0..2 * patients {
        let positive = patient < patients;
        let of_patient = normal(rng);
        for _ in 0..images {
            let noise = shared.sqrt() * of_patient + (1.0 - shared).sqrt() * normal(rng);
            drawn.scores.push((noise + f64::from(u8::from(positive))) as f32);
            drawn.positive.push(positive);
            drawn.patients.push(patient);
            drawn.strata.push(usize::from(positive));
        }
    }
    drawn
}

fn bootstrap(drawn: &Drawn, patients: &[usize], replicates: usize, seed: u64) -> Vec<f64> {
    let ranked = RankedScores::new(&drawn.scores, &drawn.positive);
    let resampling = Resampling::new(patients, &drawn.strata, seed);
    let mut weights = vec![0; patients.len()];
    (0..replicates)
        .map(|replicate| {
            resampling.weights(replicate, &mut weights);
            ranked.auc(&weights).expect("both strata are drawn")
        })
        .collect()
}

#[test]
fn delong_covers_the_truth() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let trials = 1000;
    let covered = (0..trials)
        .filter(|_| {
            let drawn = draw(&mut rng, 60, 1, 0.0);
            let found = delong(&drawn.scores, &drawn.positive, 0.9).unwrap();
            found.low <= AUC_OF_SHIFT_ONE && AUC_OF_SHIFT_ONE <= found.high
        })
        .count();
    // A standard error of 0.0095; DeLong's interval covers a little less than its level.
    let share = covered as f64 / f64::from(trials);
    assert!((0.87..0.93).contains(&share), "{share}");
}

#[test]
fn delongs_test_keeps_its_level_and_has_power() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let trials = 1000;
    let mut rejected = [0, 0];
    for _ in 0..trials {
        let base = draw(&mut rng, 50, 1, 0.0);
        let noisy = |rng: &mut ChaCha8Rng, noise: f64| -> Vec<f32> {
            base.scores.iter().map(|score| (f64::from(*score) + noise * normal(rng)) as f32).collect()
        };
        let (a, b, worse) = (noisy(&mut rng, 0.5), noisy(&mut rng, 0.5), noisy(&mut rng, 3.0));
        for (count, other) in rejected.iter_mut().zip([&b, &worse]) {
            *count += u32::from(delong_paired(&a, other, &base.positive, 0.95).unwrap().p <= 0.05);
        }
    }
    let [level, power] = rejected.map(|count| f64::from(count) / f64::from(trials));
    // A standard error of 0.007.
    assert!((0.025..0.075).contains(&level), "{level}");
    assert!(power > 0.5, "{power}");
}

#[test]
fn the_bootstrap_agrees_with_delong_where_images_are_independent() {
    let drawn = draw(&mut ChaCha8Rng::seed_from_u64(3), 80, 1, 0.0);
    let estimate = delong(&drawn.scores, &drawn.positive, 0.95).unwrap();
    let mut aucs = bootstrap(&drawn, &drawn.patients, 4000, 3);
    let mean = aucs.iter().sum::<f64>() / aucs.len() as f64;
    let spread = (aucs.iter().map(|auc| (auc - mean).powi(2)).sum::<f64>() / aucs.len() as f64).sqrt();
    let error = estimate.variance.sqrt();
    // A standard deviation of 4000 draws has a relative error of 1.1 %, and the bootstrap divides by m, not m - 1.
    assert!((spread / error - 1.0).abs() < 0.05, "{spread} and {error}");
    assert!((mean - estimate.auc).abs() < 3.0 * error / 4000f64.sqrt(), "{mean} and {}", estimate.auc);
    let (low, high) = percentile_interval(&mut aucs, 0.95);
    assert!((low - estimate.low).abs() < 0.25 * error && (high - estimate.high).abs() < 0.25 * error);
}

#[test]
fn patients_cover_where_images_do_not() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let trials = 300;
    let mut covered = [0, 0];
    for trial in 0..trials {
        let drawn = draw(&mut rng, 25, 6, 0.8);
        let images: Vec<usize> = (0..drawn.scores.len()).collect();
        for (count, clusters) in covered.iter_mut().zip([&drawn.patients, &images]) {
            let (low, high) = percentile_interval(&mut bootstrap(&drawn, clusters, 300, trial), 0.95);
            *count += u32::from(low <= AUC_OF_SHIFT_ONE && AUC_OF_SHIFT_ONE <= high);
        }
    }
    let [by_patient, by_image] = covered.map(|count| f64::from(count) / trials as f64);
    // A standard error of 0.013; percentile intervals of 25 patients a stratum cover a little less than 0.95.
    assert!(by_patient > 0.90, "{by_patient}");
    assert!(by_image < 0.75, "images of a patient pass for independent ones: {by_image}");
}

#[test]
fn paired_draws_share_what_the_methods_share() {
    let base = draw(&mut ChaCha8Rng::seed_from_u64(5), 60, 2, 0.5);
    // The same order: every replicate has the difference 0.
    let doubled = Drawn { scores: base.scores.iter().map(|score| 2.0 * score).collect(), ..base };
    let ranked = RankedScores::new(&doubled.scores, &doubled.positive);
    let halved: Vec<f32> = doubled.scores.iter().map(|score| score / 2.0).collect();
    let other = RankedScores::new(&halved, &doubled.positive);
    let resampling = Resampling::new(&doubled.patients, &doubled.strata, 5);
    let mut weights = vec![0; doubled.patients.len()];
    let differences: Vec<f64> = (0..100)
        .map(|replicate| {
            resampling.weights(replicate, &mut weights);
            let one = ranked.auc(&weights).unwrap();
            resampling.weights(replicate, &mut weights);
            one - other.auc(&weights).unwrap()
        })
        .collect();
    assert_eq!(differences, [0.0; 100]);
    assert_eq!(bootstrap_p_zero(&differences), 1.0);
    assert_eq!(bootstrap_p_inferior(&differences, 0.05), 1.0 / 101.0);
}
