//! Axes: ranges that end on round numbers, ticks, and where a value lies.

use super::FONT;
use super::measure::ems;

/// One axis of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    title: String,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
    logarithmic: bool,
}

impl Axis {
    /// From 0 to 1, with ticks at 0, 0.5 and 1.
    pub fn unit(title: impl Into<String>) -> Self {
        let ticks = [(0.0, "0"), (0.5, "0.5"), (1.0, "1")].map(|(value, label)| (value, label.to_owned()));
        Self { title: title.into(), low: 0.0, high: 1.0, ticks: ticks.to_vec(), logarithmic: false }
    }

    /// A linear axis that holds every finite one of `values` and ends on round numbers, with about `count` intervals;
    /// none without a finite value.
    pub fn around(title: impl Into<String>, values: impl IntoIterator<Item = f64>, count: usize) -> Option<Self> {
        let (low, high, step) = nice_range(values, count)?;
        Some(Self::stepped(title.into(), low, high, step))
    }

    /// As [`Axis::around`], of things that are counted, such as epochs: no tick lies between two of them.
    pub fn counting(
        title: impl Into<String>,
        values: impl IntoIterator<Item = f64> + Clone,
        count: usize,
    ) -> Option<Self> {
        let (low, high, step) = nice_range(values.clone(), count)?;
        if step >= 1.0 {
            return Some(Self::stepped(title.into(), low, high, step));
        }
        let finite = || values.clone().into_iter().filter(|value| value.is_finite());
        let (low, high) =
            (finite().fold(f64::INFINITY, f64::min).floor(), finite().fold(f64::NEG_INFINITY, f64::max).ceil());
        Some(Self::stepped(title.into(), low, high.max(low + 1.0), 1.0))
    }

    /// A logarithmic axis over positive `ticks`, ascending, each with its label; none if fewer than two are positive.
    pub fn logarithmic(title: impl Into<String>, ticks: Vec<(f64, String)>) -> Option<Self> {
        let ticks: Vec<_> = ticks.into_iter().filter(|(value, _)| value.is_finite() && *value > 0.0).collect();
        let (low, high) = (ticks.first()?.0, ticks.last()?.0);
        (high > low).then(|| Self { title: title.into(), low, high, ticks, logarithmic: true })
    }

    fn stepped(title: String, low: f64, high: f64, step: f64) -> Self {
        let decimals = decimals(step);
        let first = (low / step - 1e-6).ceil() as i64;
        let last = (high / step + 1e-6).floor() as i64;
        let ticks = (first..=last).map(|k| k as f64 * step).map(|value| (value, label(value, decimals))).collect();
        Self { title, low, high, ticks, logarithmic: false }
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    pub(super) fn ticks(&self) -> &[(f64, String)] {
        &self.ticks
    }

    /// Width of the widest tick label.
    pub(super) fn label_width(&self) -> f64 {
        self.ticks.iter().map(|(_, label)| ems(label) * FONT).fold(0.0, f64::max)
    }

    /// Where `value` lies: 0 at the low end, 1 at the high end, held to these; none for what has no place.
    pub(super) fn share(&self, value: f64) -> Option<f64> {
        let of = |value: f64| if self.logarithmic { value.ln() } else { value };
        let share = (of(value) - of(self.low)) / (of(self.high) - of(self.low));
        share.is_finite().then(|| share.clamp(0.0, 1.0))
    }
}

/// `(low, high, step)`: the smallest range between multiples of a round step (1, 2 or 5 times a power of ten) that holds
/// the finite `values`, in about `count` steps; none without a finite value. A range of one value is widened.
pub fn nice_range(values: impl IntoIterator<Item = f64>, count: usize) -> Option<(f64, f64, f64)> {
    let (low, high) =
        values.into_iter().filter(|value| value.is_finite()).fold(None, |range: Option<(f64, f64)>, value| {
            Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        })?;
    let least = (low.abs().max(high.abs()) * 1e-6).max(1e-9);
    let span = if high - low < least { (high.abs() * 0.1).max(1e-3) } else { high - low };
    let step = nice_step(span / count.max(1) as f64);
    let floor = (low / step + 1e-6).floor() * step;
    let ceil = (high / step - 1e-6).ceil() * step;
    let ceil = if ceil - floor < step / 2.0 { floor + step } else { ceil };
    Some((floor, ceil, step))
}

/// The round number nearest to `step` from above.
fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= step * (1.0 - 1e-9)).unwrap_or(10.0);
    digit * power
}

fn decimals(step: f64) -> usize {
    (-(step * (1.0 + 1e-9)).log10().floor()).clamp(0.0, 9.0) as usize
}

/// A tick's label, with a minus sign that is as wide as a plus.
fn label(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let zero = text.chars().all(|c| matches!(c, '0' | '.'));
    if value < 0.0 && !zero { format!("−{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_counted_has_whole_ticks() {
        let ticks = |last: usize| {
            let axis = Axis::counting("epoch", (1..=last).map(|epoch| epoch as f64), 5).unwrap();
            axis.ticks.into_iter().map(|(_, label)| label).collect::<Vec<_>>()
        };
        assert_eq!(ticks(1), ["1", "2"]);
        assert_eq!(ticks(2), ["1", "2"]);
        assert_eq!(ticks(4), ["1", "2", "3", "4"]);
        assert_eq!(ticks(20), ["0", "5", "10", "15", "20"]);
        assert_eq!(Axis::counting("epoch", [f64::NAN], 5), None);
    }

    #[test]
    fn ranges_end_on_round_numbers() {
        let near = |range: Option<(f64, f64, f64)>, expected: (f64, f64, f64)| {
            let (low, high, step) = range.unwrap();
            let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
            assert!(close(low, expected.0) && close(high, expected.1) && close(step, expected.2), "{range:?}");
        };
        near(nice_range([0.83, 0.97], 4), (0.8, 1.0, 0.05));
        near(nice_range([-0.031, 0.012], 4), (-0.04, 0.02, 0.02));
        near(nice_range([0.0, 1.0], 5), (0.0, 1.0, 0.2));
        near(nice_range([1.0, 20.0], 4), (0.0, 20.0, 5.0));
        assert_eq!(nice_range([f64::NAN, f64::INFINITY], 4), None);
    }

    #[test]
    fn labels_have_the_decimals_of_the_step() {
        let axis = Axis::around("", [-0.03, 0.02], 5).unwrap();
        let labels: Vec<_> = axis.ticks().iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["−0.03", "−0.02", "−0.01", "0.00", "0.01", "0.02"]);
    }

    proptest! {
        #[test]
        fn a_nice_range_holds_its_values_in_few_ticks(a in -1e6f64..1e6, b in -1e6f64..1e6, count in 1usize..9) {
            let axis = Axis::around("", [a, b], count).unwrap();
            let slack = 1e-5 * (axis.high - axis.low);
            prop_assert!(axis.low <= a.min(b) + slack && axis.high >= a.max(b) - slack);
            prop_assert!((2..=count + 3).contains(&axis.ticks().len()), "{:?}", axis.ticks());
        }

        #[test]
        fn one_value_has_a_range_too(value in -1e9f64..1e9) {
            let (low, high, _) = nice_range([value], 4).unwrap();
            prop_assert!(low < high && low <= value + value.abs() * 1e-5 && value <= high + value.abs() * 1e-5);
        }
    }
}
