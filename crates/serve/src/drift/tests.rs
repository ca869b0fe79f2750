//! How often a chart is outside by chance, and how soon it sees what has changed.

use super::chart::{Chart, Figure, LEARNED, Reference};

/// xorshift64*, in [0, 1).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.next()).ln()).sqrt() * (std::f64::consts::TAU * self.next()).cos()
    }
}

/// A stream's law, with a shift.
type Law = fn(&mut Random, f64) -> f64;

const NORMAL: Law = |random, shift| random.normal() + shift;
/// Of mean and standard deviation 1: as skewed as a confidence can be.
const SKEWED: Law = |random, shift| -(1.0 - random.next()).ln() + shift;
const RARE: Law = |random, shift| f64::from(random.next() < 0.01 + shift);
const COMMON: Law = |random, shift| f64::from(random.next() < 0.3 + shift);

/// A chart whose reference is of so many values of the law.
fn chart(figure: Figure, law: Law, images: usize, random: &mut Random) -> Chart {
    let values: Vec<f64> = (0..images).map(|_| law(random, 0.0)).collect();
    let mean = values.iter().sum::<f64>() / images as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (images - 1) as f64;
    Chart::new(figure, Some(Reference { mean, variance, images: images as f64 }))
}

/// How many of `streams` are outside at any of 10,000 answers from the law of their reference.
fn false_alarms(figure: Figure, law: Law, reference: usize, streams: u64) -> usize {
    let is_false = |seed: &u64| {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut chart = chart(figure, law, reference, &mut random);
        (0..10_000).any(|_| {
            chart.add(law(&mut random, 0.0));
            chart.outside
        })
    };
    (1..=streams).filter(is_false).count()
}

#[test]
fn a_figure_that_does_not_drift_is_outside_in_one_of_fifty_streams_of_ten_thousand_at_most() {
    let laws = [(Figure::Mean, NORMAL), (Figure::Mean, SKEWED), (Figure::Share, RARE), (Figure::Share, COMMON)];
    for (place, (figure, law)) in laws.into_iter().enumerate() {
        for reference in [240, 2000] {
            let found = false_alarms(figure, law, reference, 400);
            eprintln!("law {place}, reference of {reference}: {found} of 400 streams");
            assert!(found <= 8, "law {place}, reference of {reference}: {found} of 400 streams");
        }
    }
}

/// Answers until it is outside, after 2,000 without a shift; the median of 51 streams.
fn delay(figure: Figure, law: Law, shift: f64) -> usize {
    let of = |seed: u64| {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut chart = chart(figure, law, 500, &mut random);
        (0..2000).for_each(|_| drop(chart.add(law(&mut random, 0.0))));
        (1..5000).find(|_| {
            chart.add(law(&mut random, shift));
            chart.outside
        })
    };
    let mut delays: Vec<usize> = (1..=51).map(|seed| of(seed).unwrap_or(5000)).collect();
    delays.sort_unstable();
    delays[25]
}

#[test]
fn a_shift_is_seen_within_a_few_hundred_answers() {
    for (figure, law, shift, most) in [
        (Figure::Mean, NORMAL, 0.5, 300),
        (Figure::Mean, NORMAL, 1.0, 120),
        (Figure::Share, RARE, 0.09, 250),
        (Figure::Share, COMMON, 0.3, 200),
    ] {
        let found = delay(figure, law, shift);
        eprintln!("{figure:?} {shift}: after {found}");
        assert!(found <= most, "{figure:?} {shift}: after {found} answers");
    }
}

#[test]
fn a_reference_is_learned_where_there_is_none_and_what_comes_back_is_inside_again() {
    let (mut chart, mut random) = (Chart::new(Figure::Mean, None), Random(7));
    let mut changes = Vec::new();
    for place in 0..6000_u32 {
        let shift = if (2000..3000).contains(&place) { 1.0 } else { 0.0 };
        if chart.add(NORMAL(&mut random, shift)) {
            changes.push((place, chart.outside));
        }
        let is_learned = f64::from(place + 1) >= LEARNED;
        assert_eq!(chart.reference.is_some(), is_learned);
    }
    assert_eq!(changes.iter().map(|change| change.1).collect::<Vec<_>>(), [true, false], "{changes:?}");
    assert!((2000..3000).contains(&changes[0].0), "{changes:?}");
}

#[test]
fn a_chart_that_is_saved_goes_on_to_the_last_bit() {
    let mut random = Random(3);
    let mut whole = chart(Figure::Mean, NORMAL, 240, &mut random);
    let mut cut = whole.clone();
    for place in 0..300 {
        let value = NORMAL(&mut random, 0.0);
        whole.add(value);
        cut.add(value);
        if place % 50 == 0 {
            cut = serde_json::from_slice(&serde_json::to_vec(&cut).unwrap()).unwrap();
        }
    }
    assert_eq!(whole, cut);
    assert!(!whole.add(f64::NAN), "what is no number is no answer");
    assert_eq!(whole, cut);
}
