//! Whether prediction sets keep their promise: fitted on one random half of the patients and held to the other, again and again.

use crate::answers::Answers;
use crate::error::Error;
use crate::sets::{SetSettings, fit_sets, set_figures};
use melo_vit::SetRule;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::collections::BTreeMap;

/// A figure over random splits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SplitMean {
    /// Its mean.
    pub mean: f64,
    /// Its standard deviation from split to split; 0 of one split.
    pub deviation: f64,
    /// The Monte-Carlo error of the mean: the deviation over the root of the splits in which the figure is defined.
    pub error: f64,
}

/// What random splits show.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RepeatedSplits {
    /// Random splits.
    pub splits: usize,
    /// Images of both halves.
    pub images: usize,
    /// Patients of the half that sets were fitted on.
    pub fitted_on: usize,
    /// Patients of the half that they were held to.
    pub held_to: usize,
    /// The rule of the first split.
    pub rule: SetRule,
    /// Figures by the names of [`set_figures`].
    pub figures: BTreeMap<String, SplitMean>,
}

/// Splits the patients of answers into random halves, `splits` times, and fits sets on the first and holds them to the second. The mean coverage over
/// splits is that of exchangeable patients, whatever their images are: at least the promise within its Monte-Carlo error.
///
/// # Errors
/// [`Error::Setting`]: also for masks, no splits or a single patient.
pub fn repeated_splits(
    classes: &[String],
    answers: &Answers,
    temperature: f32,
    asked: &SetSettings,
    (splits, seed): (usize, u64),
) -> Result<RepeatedSplits, Error> {
    let wrong = |reason: String| Error::Setting { setting: "splits", reason };
    let patients = answers.clusters();
    let count = patients.iter().max().map_or(0, |last| last + 1);
    if splits == 0 || count < 2 {
        return Err(wrong(format!("{splits} of {count} patients, expected at least one split and two patients")));
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut drawn, mut first) = (BTreeMap::<String, Vec<f64>>::new(), None);
    let fitted_on = count.div_ceil(2);
    for _ in 0..splits {
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut random);
        let mut fits = vec![false; count];
        order[..fitted_on].iter().for_each(|&patient| fits[patient] = true);
        let half = |wanted: bool| {
            let rows: Vec<usize> = (0..patients.len()).filter(|&row| fits[patients[row]] == wanted).collect();
            answers.of_rows(&rows)
        };
        let Some(rule) = fit_sets(&half(true), temperature, asked)? else {
            return Err(wrong(format!("{} has no prediction sets", answers.kind.in_words())));
        };
        for (name, figure) in set_figures(classes, &rule, temperature, &half(false)) {
            drawn.entry(name).or_default().push(figure.value);
        }
        first.get_or_insert(rule);
    }
    let rule = first.expect("there is a split");
    let figures = drawn.into_iter().map(|(name, values)| (name, SplitMean::of(&values))).collect();
    Ok(RepeatedSplits { splits, images: answers.names.len(), fitted_on, held_to: count - fitted_on, rule, figures })
}

impl SplitMean {
    fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 };
        SplitMean { mean, deviation, error: deviation / n.sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use melo_vit::{SetBy, SetMethod, TaskKind};
    use rand::RngExt;

    /// Three classes with logits that say something, patients of one to three images that go together.
    fn answers(kind: TaskKind, patients: usize) -> Answers {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut rows: Vec<(usize, usize, [f32; 3])> = Vec::new();
        for patient in 0..patients {
            let (label, strange) = (random.random_range(0..3), random.random::<f32>());
            for _ in 0..random.random_range(1..4) {
                let logits = std::array::from_fn(|class| {
                    let shown = if class == label { 2.5 * (1.0 - strange) } else { 0.0 };
                    shown + random.random::<f32>()
                });
                rows.push((patient, label, logits));
            }
        }
        Answers {
            kind,
            classes: 3,
            names: (0..rows.len()).map(|row| format!("{row}.png")).collect(),
            patients: rows.iter().map(|(patient, ..)| Some(patient.to_string())).collect(),
            labels: match kind {
                TaskKind::MultiLabel => {
                    rows.iter().flat_map(|row| (0..3).map(|class| usize::from(class == row.1))).collect()
                }
                TaskKind::Regression => Vec::new(),
                _ => rows.iter().map(|(_, label, _)| *label).collect(),
            },
            numbers: match kind {
                TaskKind::Regression => rows.iter().flat_map(|(_, label, _)| [*label as f32, 1.0, 0.0]).collect(),
                _ => Vec::new(),
            },
            logits: rows.iter().flat_map(|(.., logits)| *logits).collect(),
            masks: Vec::new(),
            distances: Vec::new(),
        }
    }

    fn names() -> Vec<String> {
        ["a", "b", "c"].map(str::to_owned).to_vec()
    }

    #[test]
    fn the_promise_is_kept_whatever_the_method() {
        let ways = [
            (TaskKind::SingleLabel, SetMethod::Lac, SetBy::All),
            (TaskKind::SingleLabel, SetMethod::Lac, SetBy::Class),
            (TaskKind::SingleLabel, SetMethod::Aps, SetBy::All),
            (TaskKind::SingleLabel, SetMethod::Raps, SetBy::Class),
            (TaskKind::Ordinal, SetMethod::OrdinalAps, SetBy::All),
            (TaskKind::MultiLabel, SetMethod::Lac, SetBy::Class),
            (TaskKind::MultiLabel, SetMethod::Lac, SetBy::All),
            (TaskKind::Regression, SetMethod::Residual, SetBy::All),
        ];
        for (kind, method, by) in ways {
            let asked = SetSettings { coverage: 0.8, method: Some(method), by: Some(by) };
            let found = repeated_splits(&names(), &answers(kind, 240), 1.0, &asked, (60, 3)).unwrap();
            let SplitMean { mean, error, .. } = found.figures["set_coverage"];
            assert_eq!((found.fitted_on, found.held_to), (120, 120));
            assert!(mean + 3.0 * error >= 0.8, "{kind:?} {method} {by:?}: {mean} {error}");
            // Scores of equal value may cover more: adaptive ones are 0 wherever the answer is right.
            let ties = matches!(method, SetMethod::Aps | SetMethod::Raps | SetMethod::OrdinalAps);
            assert!(ties || mean - 3.0 * error <= 0.8 + 3.0 / 41.0, "{kind:?} {method} {by:?}: {mean} {error}");
            if by == SetBy::Class && kind == TaskKind::SingleLabel {
                names().iter().for_each(|class| {
                    let SplitMean { mean, error, .. } = found.figures[&format!("set_coverage/{class}")];
                    assert!(mean + 3.0 * error >= 0.8, "{method} {class}: {mean} {error}");
                });
            }
        }
    }

    #[test]
    fn too_few_patients_leave_every_class_in_the_set() {
        let asked = SetSettings { coverage: 0.95, ..SetSettings::default() };
        let found = repeated_splits(&names(), &answers(TaskKind::SingleLabel, 30), 1.0, &asked, (3, 0)).unwrap();
        assert_eq!(found.rule.thresholds, [None; 3]);
        assert_eq!((found.figures["set_coverage"].mean, found.figures["set_size"].mean), (1.0, 3.0));
        let said = crate::open_in_words(&names(), TaskKind::SingleLabel, &found.rule).unwrap();
        assert!(said.contains("0.95 needs 19 patients in the validation split, found 15"), "{said}");
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        let refused = |patients, splits| {
            let answers = answers(TaskKind::SingleLabel, patients);
            repeated_splits(&names(), &answers, 1.0, &SetSettings::default(), (splits, 0)).unwrap_err().to_string()
        };
        assert!(refused(1, 3).contains("3 of 1 patients") && refused(9, 0).contains("splits: 0 of 9 patients"));
        let lac = SetSettings { method: Some(SetMethod::Lac), ..SetSettings::default() };
        assert!(lac.check(TaskKind::Ordinal).unwrap_err().to_string().contains("lac is not for one grade an image"));
        let all = SetSettings { coverage: 1.0, ..SetSettings::default() };
        assert!(all.check(TaskKind::SingleLabel).unwrap_err().to_string().contains("coverage: is 1"));
    }
}
