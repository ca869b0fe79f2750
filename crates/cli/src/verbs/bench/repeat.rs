//! Work that is repeated and timed, and what the times come to.

use crate::Failure;
use serde::Serialize;
use std::time::Instant;

/// How often and how long.
#[derive(clap::Args)]
pub(crate) struct RepeatArgs {
    /// Measured repeats at least
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Seconds to go on repeating at least
    #[arg(long, default_value_t = 0.0, value_name = "S", value_parser = seconds)]
    seconds: f64,
    /// Repeats before the first that is measured
    #[arg(long, default_value_t = 1, value_name = "N")]
    warmup: u32,
}

/// A finite number of seconds, 0 or more.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    if (0.0..=1e7).contains(&seconds) { Ok(seconds) } else { Err("expected 0 to 10,000,000 seconds".to_owned()) }
}

impl RepeatArgs {
    /// Runs `work` for warm-up, then until both counts are reached; returns what each measured repeat gave.
    pub(crate) fn measure<T>(&self, mut work: impl FnMut() -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
        for _ in 0..self.warmup {
            work()?;
        }
        let started = Instant::now();
        let mut results = Vec::new();
        while results.len() < self.repeats as usize || started.elapsed().as_secs_f64() < self.seconds {
            results.push(work()?);
        }
        Ok(results)
    }
}

/// Seconds that `work` takes.
pub(crate) fn timed(work: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed().as_secs_f64())
}

/// Middle and ends of several measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (middle, last) = (values.len() / 2, values.len() - 1);
        let lower = if values.len().is_multiple_of(2) { middle - 1 } else { middle };
        Spread { median: (values[lower] + values[middle]) / 2.0, min: values[0], max: values[last] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(Spread::of([7.0]), Spread { median: 7.0, min: 7.0, max: 7.0 });
    }

    #[test]
    fn repeats_are_counted_after_the_warm_up() {
        let mut calls = 0;
        let repeats = RepeatArgs { repeats: 3, seconds: 0.0, warmup: 2 };
        let results = repeats.measure(|| {
            calls += 1;
            Ok::<_, Failure>(calls)
        });
        assert_eq!(results.unwrap(), [3, 4, 5]);
    }
}
