//! DeLong's intervals and paired test of two scores of the same cases.
//!
//! ```text
//! delong 0.95 < cases.csv
//! ```
//!
//! Lines are `positive,a,b` with positive 0 or 1 and no header. Prints AUC, variance and interval of a, the same
//! of b, then the interval of the difference, z and p, one number a line.

use std::io::Read;
use std::process::ExitCode;

use melo_eval::{delong, delong_paired, why_undefined};

fn main() -> ExitCode {
    match report() {
        Ok(numbers) => {
            numbers.iter().for_each(|number| println!("{number}"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("delong: {why}");
            ExitCode::FAILURE
        }
    }
}

fn report() -> Result<Vec<f64>, String> {
    let level: f64 = std::env::args().nth(1).and_then(|level| level.parse().ok()).unwrap_or(0.95);
    if !(level > 0.0 && level < 1.0) {
        return Err(format!("expected a level between 0 and 1, found {level}"));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| error.to_string())?;
    let (mut positive, mut a, mut b) = (Vec::new(), Vec::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        let numbers: Result<Vec<f32>, _> = line.split(',').map(|field| field.trim().parse()).collect();
        let Ok([truth, score_a, score_b]) = numbers.as_deref() else {
            return Err(format!("line {}: expected positive,a,b, found {line:?}", at + 1));
        };
        positive.push(*truth > 0.0);
        a.push(*score_a);
        b.push(*score_b);
    }
    let positives = positive.iter().filter(|positive| **positive).count() as u64;
    let why = || why_undefined(positives, positive.len() as u64 - positives, 2).unwrap_or("a score is NaN".into());
    let of = |scores| delong(scores, &positive, level).ok_or_else(why);
    let (of_a, of_b) = (of(&a)?, of(&b)?);
    let pair = delong_paired(&a, &b, &positive, level).ok_or_else(why)?;
    let numbers = [of_a, of_b].map(|of| [of.auc, of.variance, of.low, of.high]);
    let test = [pair.low, pair.high, pair.z.unwrap_or(f64::NAN), pair.p];
    Ok(numbers.into_iter().flatten().chain(test).collect())
}
