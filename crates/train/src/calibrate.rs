//! Calibration: temperature and thresholds from the validation split, figures with
//! intervals from the test split.

use crate::answers::{Answers, column};
use crate::error::Error;
use crate::examples::measure;
use melo_eval::{RankedScores, Resampling, mean_of_defined, percentile_interval, wilson};
use melo_vit::{TaskCard, TaskKind};
use serde::Serialize;
use std::collections::BTreeMap;

/// Level of the intervals in a card.
const LEVEL: f64 = 0.95;
/// Bootstrap replicates behind them.
const REPLICATES: usize = 2000;
/// A threshold is fitted from this many cases on each side; with fewer it stays at one half.
const MIN_CASES: usize = 5;

/// A figure with its interval at 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The figure.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Fills in temperature, thresholds (multi-label tasks: Youden's, where the split has enough cases) and, each by the name
/// `test_…`, the [`figures`] of the test split.
///
/// # Errors
/// [`Error::Eval`].
pub fn calibrate(card: &mut TaskCard, val: &Answers, test: Option<&Answers>) -> Result<(), Error> {
    let fit = match val.kind {
        TaskKind::SingleLabel => melo_eval::fit_temperature_single_label(&val.logits, &val.labels, val.classes)?,
        TaskKind::MultiLabel => melo_eval::fit_temperature_multi_label(&val.logits, &val.findings(), val.classes)?,
    };
    card.temperature = fit.temperature as f32;
    if card.kind == TaskKind::MultiLabel {
        let (probabilities, truth) = (val.probabilities(card.temperature), val.truth());
        for (class, threshold) in card.thresholds.iter_mut().enumerate() {
            let (scores, truth) = (column(&probabilities, class, val.classes), column(&truth, class, val.classes));
            let positives = truth.iter().filter(|&&positive| positive).count();
            if positives >= MIN_CASES && truth.len() - positives >= MIN_CASES {
                *threshold =
                    melo_eval::youden(&scores, &truth).map_or(*threshold, |point| point.threshold.clamp(0.0, 1.0));
            }
        }
    }
    for (name, Figure { value, low, high }) in test.map(|test| figures(card, test)).transpose()?.unwrap_or_default() {
        card.metrics.insert(format!("test_{name}"), value);
        card.metric_intervals.insert(format!("test_{name}"), [low, high]);
    }
    Ok(())
}

/// Figures of answers under a card's temperature and thresholds, by name: `auc_macro` (patient bootstrap), `auc/<class>`
/// (DeLong), `sensitivity/<class>` and `specificity/<class>` at the card's decisions (Wilson), `acc` (Wilson, of images for
/// single-label and of findings for multi-label tasks). What is undefined is left out.
///
/// # Errors
/// [`Error::Eval`].
pub fn figures(card: &TaskCard, answers: &Answers) -> Result<BTreeMap<String, Figure>, Error> {
    let (c, probabilities, truth) = (answers.classes, answers.probabilities(card.temperature), answers.truth());
    let metrics = measure(answers.kind, &probabilities, &answers.labels, &card.thresholds)?;
    let mut figures = BTreeMap::new();
    let mut put = |name: String, value: Option<f64>, interval: Option<(f64, f64)>| {
        if let (Some(value), Some((low, high))) = (value, interval) {
            figures.insert(name, Figure { value, low, high });
        }
    };
    put("auc_macro".into(), metrics.auc_macro, auc_interval(answers, &probabilities, &truth));
    let decisions = answers.labels.len() as u64;
    put("acc".into(), Some(metrics.acc), wilson((metrics.acc * decisions as f64).round() as u64, decisions, LEVEL));
    for (class, name) in card.classes.iter().enumerate() {
        let estimate = melo_eval::delong(&column(&probabilities, class, c), &column(&truth, class, c), LEVEL);
        put(format!("auc/{name}"), estimate.map(|e| e.auc), estimate.map(|e| (e.low, e.high)));
        let counts = &metrics.counts_per_class[class];
        let negatives = counts.true_negative + counts.false_positive;
        let sensitivity = wilson(counts.true_positive, counts.positives(), LEVEL);
        let specificity = wilson(counts.true_negative, negatives, LEVEL);
        put(format!("sensitivity/{name}"), counts.sensitivity(), sensitivity);
        put(format!("specificity/{name}"), counts.specificity(), specificity);
    }
    Ok(figures)
}

/// Interval of the macro AUC by the patient bootstrap.
fn auc_interval(test: &Answers, probabilities: &[f32], truth: &[bool]) -> Option<(f64, f64)> {
    let c = test.classes;
    let ranked: Vec<RankedScores> =
        (0..c).map(|class| RankedScores::new(&column(probabilities, class, c), &column(truth, class, c))).collect();
    let resampling = Resampling::new(&test.clusters(), &test.strata(), 0);
    let mut weights = vec![0; test.names.len()];
    let mut samples: Vec<f64> = (0..REPLICATES)
        .filter_map(|replicate| {
            resampling.weights(replicate, &mut weights);
            mean_of_defined(ranked.iter().map(|ranked| ranked.auc(&weights)))
        })
        .collect();
    (!samples.is_empty()).then(|| percentile_interval(&mut samples, LEVEL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use melo_vit::{BackboneReference, Preprocess};

    /// Two classes whose logits overlap; too sure by a factor of `sharpness`.
    fn answers(kind: TaskKind, sharpness: f32) -> Answers {
        let n = 60;
        let label = |row: usize| row / 2 % 2;
        let score = |row: usize| sharpness * (label(row) as f32 - 0.5 + ((row * 37 % 60) as f32 / 60.0 - 0.5) * 1.6);
        Answers {
            kind,
            classes: 2,
            names: (0..n).map(|row| format!("{row}.png")).collect(),
            patients: (0..n).map(|row| Some((row / 2).to_string())).collect(),
            labels: match kind {
                TaskKind::SingleLabel => (0..n).map(label).collect(),
                // The second finding is rare: two cases.
                TaskKind::MultiLabel => (0..n).flat_map(|row| [label(row), usize::from(row < 2)]).collect(),
            },
            logits: (0..n)
                .flat_map(|row| [if kind == TaskKind::MultiLabel { score(row) } else { -score(row) }, 0.0])
                .collect(),
        }
    }

    fn card(kind: TaskKind) -> TaskCard {
        let preprocess = Preprocess::base(32);
        let backbone = BackboneReference { digest: String::new(), name: "tiny".into() };
        TaskCard::new("task".into(), kind, vec!["a".into(), "b".into()], preprocess, backbone)
    }

    #[test]
    fn logits_that_are_too_sure_get_a_temperature_above_one() {
        let mut card = card(TaskKind::SingleLabel);
        calibrate(&mut card, &answers(TaskKind::SingleLabel, 12.0), None).unwrap();
        assert!(card.temperature > 2.0, "{}", card.temperature);
        assert_eq!(card.thresholds, [0.5, 0.5], "the most probable class needs no threshold");
        assert!(card.metrics.is_empty() && card.metric_intervals.is_empty());
    }

    #[test]
    fn a_threshold_is_youdens_where_there_are_cases_and_one_half_elsewhere() {
        let mut card = card(TaskKind::MultiLabel);
        let val = answers(TaskKind::MultiLabel, 3.0);
        calibrate(&mut card, &val, None).unwrap();
        let scores = column(&val.probabilities(card.temperature), 0, 2);
        let youden = melo_eval::youden(&scores, &column(&val.truth(), 0, 2)).unwrap();
        assert_eq!(card.thresholds, [youden.threshold, 0.5]);
        assert_ne!(youden.threshold, 0.5);
    }

    #[test]
    fn test_figures_come_with_intervals_that_hold_them() {
        for kind in [TaskKind::SingleLabel, TaskKind::MultiLabel] {
            let mut card = card(kind);
            let answers = answers(kind, 3.0);
            calibrate(&mut card, &answers, Some(&answers)).unwrap();
            card.check().unwrap();
            for name in ["test_auc_macro", "test_acc", "test_auc/a", "test_sensitivity/a", "test_specificity/a"] {
                let (value, [low, high]) = (card.metrics[name], card.metric_intervals[name]);
                assert!(
                    0.0 <= low && low <= value && value <= high && high <= 1.0,
                    "{kind:?} {name}: {value} [{low}, {high}]"
                );
            }
        }
    }

    #[test]
    fn what_is_undefined_is_left_out() {
        let mut answers = answers(TaskKind::MultiLabel, 3.0);
        answers.labels.chunks_exact_mut(2).for_each(|row| row[1] = 0);
        let figures = figures(&card(TaskKind::MultiLabel), &answers).unwrap();
        assert!(!figures.contains_key("auc/b") && !figures.contains_key("sensitivity/b"));
        assert!(figures.contains_key("specificity/b") && figures.contains_key("auc/a"));
    }
}
