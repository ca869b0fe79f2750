//! Numbers and verdicts as people read them.

use crate::{Estimate, Verdict};

/// What stands for a figure that does not exist.
pub(super) const NOTHING: &str = "–";

/// `value` with `decimals`, a true minus sign, and [`NOTHING`] for what is not finite.
pub(super) fn number(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return NOTHING.to_owned();
    }
    let text = format!("{:.decimals$}", value.abs());
    let zero = text.chars().all(|c| matches!(c, '0' | '.'));
    if value < 0.0 && !zero { format!("−{text}") } else { text }
}

/// A difference with its sign.
pub(super) fn signed(value: f64) -> String {
    let text = number(value, 3);
    if value.is_finite() && value > 0.0 && text != "0.000" { format!("+{text}") } else { text }
}

/// `[0.890, 0.931]`.
pub(super) fn interval(estimate: &Estimate) -> String {
    format!("[{}, {}]", number(estimate.low, 3), number(estimate.high, 3))
}

/// `[−0.004, +0.028]`.
pub(super) fn signed_interval(estimate: &Estimate) -> String {
    format!("[{}, {}]", signed(estimate.low), signed(estimate.high))
}

/// `+0.012 [−0.004, +0.028]`.
pub(super) fn signed_estimate(estimate: &Estimate) -> String {
    format!("{} {}", signed(estimate.value), signed_interval(estimate))
}

/// `0.912 [0.890, 0.931]`, or [`NOTHING`].
pub(super) fn estimate(estimate: Option<&Estimate>) -> String {
    match estimate.filter(|found| found.value.is_finite()) {
        Some(found) => format!("{} {}", number(found.value, 3), interval(found)),
        None => NOTHING.to_owned(),
    }
}

/// A p value: `< 0.001`, or three decimals.
pub(super) fn p_value(p: f64) -> String {
    if p.is_finite() && p < 0.001 { "< 0.001".to_owned() } else { number(p, 3) }
}

/// `p < 0.001` or `p = 0.032`.
pub(super) fn p_equals(p: f64) -> String {
    let shown = p_value(p);
    if shown.starts_with('<') { format!("p {shown}") } else { format!("p = {shown}") }
}

/// Bytes in decimal units with three significant digits: `1.26 MB`.
pub(super) fn bytes(count: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut value = count;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 { 0 } else { significant(value) };
    format!("{} {}", number(value, decimals), UNITS[unit])
}

/// Decimals that leave three significant digits of `value`.
fn significant(value: f64) -> usize {
    match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 || v == 0.0 => 2,
        v if v >= 0.09995 => 3,
        _ => 4,
    }
}

/// A positive number with three significant digits or a few more: seconds, percents.
pub(super) fn short(value: f64) -> String {
    number(value, significant(value))
}

/// A count with commas between thousands.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 task`, `2 tasks`.
pub(super) fn plural(value: usize, one: &str, many: &str) -> String {
    format!("{} {}", count(value as u64), if value == 1 { one } else { many })
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A share of the training data: `25 %`.
pub(super) fn share(fraction: f64) -> String {
    let percent = (fraction * 1e4).round() / 1e2;
    if percent.is_finite() { format!("{percent} %") } else { NOTHING.to_owned() }
}

/// The level of the intervals: `95 %`.
pub(super) fn level(level: f64) -> String {
    share(level)
}

/// The smallest and the largest of `values` as `show` writes them, once if they read the same.
pub(super) fn range(values: impl Iterator<Item = f64> + Clone, show: impl Fn(f64) -> String) -> String {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return NOTHING.to_owned();
    }
    let (low, high) = (show(low), show(high));
    if low == high { low } else { format!("{low} – {high}") }
}

impl Verdict {
    /// The verdict in a word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Superior => "superior",
            Self::NonInferior => "non-inferior",
            Self::Inconclusive => "inconclusive",
            Self::Inferior => "inferior",
        }
    }

    /// A sign that tells it from the others without colour.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Superior => "▲",
            Self::NonInferior => "●",
            Self::Inconclusive => "○",
            Self::Inferior => "▼",
        }
    }

    /// True if the method is at least not worse than the margin allows.
    pub(super) fn is_non_inferior(self) -> bool {
        matches!(self, Self::Superior | Self::NonInferior)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(-0.0004, 3), "0.000");
        assert_eq!(number(f64::NAN, 3), NOTHING);
        assert_eq!((signed(0.0123), signed(-0.0123), signed(0.0)), ("+0.012".into(), "−0.012".into(), "0.000".into()));
        assert_eq!((p_equals(0.0004), p_equals(0.0316)), ("p < 0.001".into(), "p = 0.032".into()));
        assert_eq!((count(7), count(1000), count(86_567_656)), ("7".into(), "1,000".into(), "86,567,656".into()));
    }

    #[test]
    fn sizes() {
        let cases =
            [(0.0, "0 B"), (999.0, "999 B"), (1000.0, "1.00 kB"), (999_600.0, "1.00 MB"), (343_219_200.0, "343 MB")];
        for (value, text) in cases {
            assert_eq!(bytes(value), text);
        }
        assert_eq!((short(0.1697), short(12.345), short(100.0)), ("0.170".into(), "12.3".into(), "100".into()));
    }

    #[test]
    fn ranges_and_lists() {
        let show = |value: f64| number(value, 1);
        assert_eq!(range([1.02, 1.04].into_iter(), show), "1.0");
        assert_eq!(range([2.0, 1.0, f64::NAN].into_iter(), show), "1.0 – 2.0");
        assert_eq!(range(std::iter::empty(), show), NOTHING);
        assert_eq!(list(&["a".into(), "b".into(), "c".into()]), "a, b and c");
        assert_eq!((share(1.0), share(0.125), share(0.95)), ("100 %".into(), "12.5 %".into(), "95 %".into()));
    }
}
