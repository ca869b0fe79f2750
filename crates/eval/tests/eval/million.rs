//! How long a million scores take, on one core: `cargo test --release -p melo-eval million -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use melo_eval::{delong, delong_paired};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[test]
#[ignore = "a timing, for an idle machine and a release build"]
fn a_million_scores_take_less_than_two_seconds() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let positive: Vec<bool> = (0..1_000_000).map(|_| rng.random_bool(0.1)).collect();
    let mut scores = || -> Vec<f32> { positive.iter().map(|_| rng.random()).collect() };
    let (a, b) = (scores(), scores());

    let start = Instant::now();
    let one = delong(&a, &positive, 0.95).unwrap();
    let single = start.elapsed();
    let start = Instant::now();
    let two = delong_paired(&a, &b, &positive, 0.95).unwrap();
    let paired = start.elapsed();
    println!("delong {single:.3?}, delong_paired {paired:.3?}");
    assert_eq!(one.auc, two.auc_a);
    assert!(single < Duration::from_secs(2) && paired < Duration::from_secs(4));
}
