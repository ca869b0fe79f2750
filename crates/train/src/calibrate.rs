//! Calibration: temperature and thresholds from the validation split, figures with
//! intervals from the test split.

use crate::answers::{Answers, column};
use crate::error::Error;
use crate::errors::of_number;
use crate::examples::measure;
use crate::judged::{Judged, mean_share};
use crate::mask_answers::settings;
use crate::scope::{ScopeSettings, fit_limits, flagged};
use crate::sets::{SetSettings, fit_sets, set_figures};
use melo_eval::{Bootstrap, ClusteredShare, Counts, Reliability, Resampled, SegmentationFigures, SegmentedClass};
use melo_vit::{Calibration, ReliabilityPoint, TaskCard, TaskKind, TestRecord};
use std::collections::BTreeMap;

/// Level of the intervals in a card.
const LEVEL: f64 = 0.95;
/// Bins of the reliability diagram in a card.
const BINS: usize = 10;
/// A threshold is fitted from this many cases on each side; with fewer it stays at one half.
const MIN_CASES: usize = 5;

/// Classes are uneven where the most frequent one has so many times the images of the rarest (decision 0038).
pub const UNEVEN: f64 = 1.5;

/// Of figures that have no formula for their interval.
const BOOTSTRAP: Bootstrap = Bootstrap { replicates: 2000, level: LEVEL, seed: 0 };
/// Images of a number that a card keeps.
const PAIRS: usize = 500;

/// A figure with its interval at 95 %.
pub type Figure = melo_eval::Estimate;

/// Fills in temperature, [`thresholds`], the rule of prediction sets and the limits of the scope, where they are asked for, and, each by the name
/// `test_…`, the [`figures`] of the test split, and its [`record`].
///
/// # Errors
/// [`Error::Eval`], [`Error::Setting`].
pub fn calibrate(
    card: &mut TaskCard,
    val: &Answers,
    test: Option<&Answers>,
    (sets, scope): (Option<&SetSettings>, Option<&ScopeSettings>),
) -> Result<(), Error> {
    (card.temperature, card.thresholds) = fit(val)?;
    card.sets = sets.map(|asked| fit_sets(val, card.temperature, asked)).transpose()?.flatten();
    card.scope_limits = scope.map(|asked| fit_limits(val, asked)).transpose()?.flatten();
    let Some(test) = test else { return Ok(()) };
    let calibration = card.own_calibration();
    for (name, Figure { value, low, high }) in figures(&card.classes, &calibration, test)? {
        card.metrics.insert(format!("test_{name}"), value);
        card.metric_intervals.insert(format!("test_{name}"), [low, high]);
    }
    if test.kind.has_probabilities() {
        let metrics = measure(test.kind, &test.probabilities(card.temperature), &test.labels, &card.thresholds)?;
        card.metrics.insert("test_f1_macro".into(), metrics.f1_macro);
    }
    card.test = Some(record(&calibration, test)?);
    Ok(())
}

/// The temperature and the [`thresholds`] that fit the answers of a validation split best.
///
/// # Errors
/// [`Error::Eval`].
pub fn fit(val: &Answers) -> Result<(f32, Vec<f32>), Error> {
    let fit = match val.kind {
        TaskKind::Regression | TaskKind::Segmentation => return Ok((1.0, thresholds(val, 1.0))),
        TaskKind::SingleLabel | TaskKind::Ordinal => {
            melo_eval::fit_temperature_single_label(&val.logits, &val.labels, val.classes)?
        }
        TaskKind::MultiLabel => melo_eval::fit_temperature_multi_label(&val.logits, &val.findings(), val.classes)?,
    };
    let temperature = fit.temperature as f32;
    Ok((temperature, thresholds(val, temperature)))
}

/// The threshold of each class `[c]`. Of a finding Youden's on the validation split, one half where the split has too few cases. Of a
/// single-label task the mean probability of the class on the validation split, so that a rare class is called where it is likelier than usual,
/// where the split's classes are uneven ([`UNEVEN`]) and its balanced accuracy is the higher for it; of a class with too few images there the highest
/// of these means, which calls it least; else one half, and for tasks of another
/// kind, which need none.
pub fn thresholds(val: &Answers, temperature: f32) -> Vec<f32> {
    let most_probable = vec![0.5; val.classes];
    match val.kind {
        TaskKind::MultiLabel => {}
        TaskKind::SingleLabel if is_uneven(val) => {
            let (probabilities, n) = (val.probabilities(temperature), val.names.len() as f64);
            let mean =
                |class| column(&probabilities, class, val.classes).iter().copied().map(f64::from).sum::<f64>() / n;
            let mut means: Vec<f32> = (0..val.classes).map(|class| mean(class) as f32).collect();
            // What is usual of a class is not known of a few images, nor that calling it gains anything.
            let highest = means.iter().copied().fold(0.0, f32::max);
            let counts = images_of(val);
            means.iter_mut().zip(counts).filter(|(_, count)| *count < MIN_CASES).for_each(|(mean, _)| *mean = highest);
            let [over_its_mean, plain] = [&means, &most_probable].map(|thresholds| {
                let balanced = mean_share(Judged::new(val, temperature, thresholds).balanced());
                balanced.map_or(0.0, |share| share.value())
            });
            return if over_its_mean > plain { means } else { most_probable };
        }
        _ => return most_probable,
    }
    let (probabilities, truth) = (val.probabilities(temperature), val.truth());
    let threshold = |class: usize| {
        let (scores, truth) = (column(&probabilities, class, val.classes), column(&truth, class, val.classes));
        let positives = truth.iter().filter(|&&positive| positive).count();
        let enough = positives >= MIN_CASES && truth.len() - positives >= MIN_CASES;
        let youden = enough.then(|| melo_eval::youden(&scores, &truth)).flatten();
        youden.map_or(0.5, |point| point.threshold.clamp(0.0, 1.0))
    };
    (0..val.classes).map(threshold).collect()
}

/// Whether the most frequent class has [`UNEVEN`] times the images of the rarest.
fn is_uneven(answers: &Answers) -> bool {
    let counts = images_of(answers);
    let (rarest, most) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
    most as f64 >= UNEVEN * rarest as f64
}

/// Images of each class of a single-label task, `[c]`.
fn images_of(answers: &Answers) -> Vec<usize> {
    let mut counts = vec![0; answers.classes];
    answers.labels.iter().for_each(|&label| counts[label] += 1);
    counts
}

/// Figures of answers under the calibration of where they come from, by name, `classes [c]`: `auc_macro`, `acc` (of images, or of findings),
/// `balanced_acc`, and for every class `auc/<class>`, `sensitivity/<class>` and `specificity/<class>` at the decisions; of grades also
/// `kappa_quadratic`, `kappa_linear` and `mae`. Of numbers for each `mae/<number>`, `rmse/…`, `bias/…`, `r2/…`, `pearson/…` and `baseline_mae/…`,
/// the error of their mean as the answer to all. Of masks `dice`, `iou`, `hd95` and `surface_dice` (distances in pixels, a tolerance of
/// one), the means over the classes after the first, and each of these by `…/<class>` ([`melo_eval::segmentation_metrics`]). Those of [`set_figures`], where there are sets; `scope_flagged`, the share of
/// images that are called out of scope, where there is one. Intervals are at 95 %, by patient ([`melo_eval::ClusteredAuc`],
/// [`melo_eval::ClusteredShare`], [`melo_eval::Resampled`]). What is undefined is left out.
///
/// # Errors
/// [`Error::Eval`].
pub fn figures(
    classes: &[String],
    calibration: &Calibration,
    answers: &Answers,
) -> Result<BTreeMap<String, Figure>, Error> {
    let Calibration { temperature, thresholds, sets, scope_limits, .. } = calibration;
    let mut figures = match answers.kind {
        TaskKind::Regression => figures_of_numbers(classes, answers)?,
        TaskKind::Segmentation => figures_of_masks(classes, answers)?,
        _ => figures_of_classes(classes, (*temperature, thresholds), answers)?,
    };
    let flagged = scope_limits.as_ref().and_then(|limits| flagged(limits, answers));
    figures.extend(flagged.map(|share| ("scope_flagged".to_owned(), share)));
    figures.extend(sets.iter().flat_map(|rule| set_figures(classes, rule, *temperature, answers)));
    Ok(figures)
}

fn figures_of_classes(
    classes: &[String],
    (temperature, thresholds): (f32, &[f32]),
    answers: &Answers,
) -> Result<BTreeMap<String, Figure>, Error> {
    measure(answers.kind, &answers.probabilities(temperature), &answers.labels, thresholds)?;
    let judged = Judged::new(answers, temperature, thresholds);
    let mut figures = BTreeMap::new();
    let mut put = |name: String, figure: Option<Figure>| figure.map(|figure| figures.insert(name, figure));
    let share = |cases| Some(ClusteredShare::new(cases)?.estimate(LEVEL));
    put("auc_macro".into(), judged.auc_macro(None).map(|auc| auc.estimate(LEVEL)));
    put("acc".into(), share(judged.accuracy()));
    put("balanced_acc".into(), mean_share(judged.balanced()).map(|share| share.estimate(LEVEL)));
    for (class, name) in classes.iter().enumerate() {
        put(format!("auc/{name}"), judged.auc(class, None).map(|auc| auc.estimate(LEVEL)));
        put(format!("sensitivity/{name}"), share(judged.sensitivity(class)));
        put(format!("specificity/{name}"), share(judged.specificity(class)));
    }
    if answers.kind == TaskKind::Ordinal {
        let called: Vec<usize> = judged.grades();
        let found = melo_eval::ordinal(&called, &answers.labels, answers.classes, judged.patients(), &BOOTSTRAP)?;
        put("kappa_quadratic".into(), estimate(found.kappa_quadratic));
        put("kappa_linear".into(), estimate(found.kappa_linear));
        put("mae".into(), estimate(Some(found.mae)));
    }
    Ok(figures)
}

fn figures_of_numbers(numbers: &[String], answers: &Answers) -> Result<BTreeMap<String, Figure>, Error> {
    let (mut figures, patients) = (BTreeMap::new(), answers.clusters());
    for (number, name) in numbers.iter().enumerate() {
        let [found, truth] =
            [&answers.logits, &answers.numbers].map(|values| of_number(values, number, answers.classes));
        let of = melo_eval::regression(&found, &truth, &patients, None, &BOOTSTRAP)?;
        let all = [
            ("mae", Some(of.mae)),
            ("rmse", Some(of.rmse)),
            ("bias", Some(of.bias)),
            ("r2", of.r2),
            ("pearson", of.pearson),
            ("baseline_mae", Some(of.baseline.mae)),
        ];
        let known = all.into_iter().filter_map(|(figure, value)| Some((format!("{figure}/{name}"), estimate(value)?)));
        figures.extend(known);
    }
    Ok(figures)
}

pub(crate) fn figures_of_masks(classes: &[String], answers: &Answers) -> Result<BTreeMap<String, Figure>, Error> {
    let images: Vec<Vec<SegmentedClass>> = answers.masks.chunks_exact(answers.classes).map(<[_]>::to_vec).collect();
    let found = melo_eval::segmentation_metrics(&images, &answers.clusters(), &settings(answers.classes), &BOOTSTRAP)?;
    let mut figures = BTreeMap::new();
    let mut put = |of: SegmentationFigures, class: &str| {
        let all = [("dice", of.dice), ("iou", of.iou), ("hd95", of.hd95), ("surface_dice", of.surface_dice)];
        figures.extend(all.into_iter().filter_map(|(name, value)| Some((format!("{name}{class}"), estimate(value)?))));
    };
    put(found.mean, "");
    let foreground = classes.iter().zip(found.per_class).skip(1);
    foreground.for_each(|(class, found)| put(found.mean, &format!("/{class}")));
    Ok(figures)
}

/// A figure by draws of patients; one without an interval, where no draw differs from another, is its own.
fn estimate(figure: Option<Resampled>) -> Option<Figure> {
    let Resampled { value, interval } = figure?;
    let (low, high) = interval.unwrap_or((value, value));
    Some(Figure { value, low, high })
}

/// What is seen on answers under the calibration of where they come from, for a page to draw.
///
/// # Errors
/// [`Error::Eval`].
pub fn record(calibration: &Calibration, answers: &Answers) -> Result<TestRecord, Error> {
    let known = answers.patients.iter().any(Option::is_some);
    let patients = answers.clusters().into_iter().max().map(|last| last as u64 + 1).filter(|_| known);
    if answers.kind == TaskKind::Segmentation {
        return Ok(TestRecord { images: answers.names.len() as u64, patients, ..TestRecord::default() });
    }
    if answers.kind == TaskKind::Regression {
        let pairs = (0..answers.classes).map(|number| pairs(answers, number)).collect();
        let images = answers.names.len() as u64;
        return Ok(TestRecord { images, patients, pairs, ..TestRecord::default() });
    }
    let probabilities = answers.probabilities(calibration.temperature);
    let metrics = measure(answers.kind, &probabilities, &answers.labels, &calibration.thresholds)?;
    let reliability = reliability(answers, &probabilities)?;
    let filled = reliability.bins.iter().filter_map(|bin| {
        Some(ReliabilityPoint { count: bin.count, confidence: bin.confidence?, accuracy: bin.accuracy? })
    });
    let counts = metrics.counts_per_class.iter();
    Ok(TestRecord {
        images: metrics.n as u64,
        patients,
        counts: counts.map(|of| [of.true_positive, of.false_positive, of.false_negative, of.true_negative]).collect(),
        confusion: metrics.confusion,
        reliability: filled.collect(),
        calibration_error: reliability.ece,
        pairs: Vec::new(),
    })
}

/// Truth and answer of at most [`PAIRS`] images, spread over the split.
fn pairs(answers: &Answers, number: usize) -> Vec<[f32; 2]> {
    let of = |values: &[f32]| column(values, number, answers.classes);
    let (truth, found) = (of(&answers.numbers), of(&answers.logits));
    let (n, kept) = (truth.len(), truth.len().min(PAIRS));
    (0..kept).map(|place| place * n / kept).map(|row| [truth[row], found[row]]).collect()
}

/// Whether probabilities `[n · c]` of answers mean what they say.
pub(crate) fn reliability(answers: &Answers, probabilities: &[f32]) -> Result<Reliability, Error> {
    Ok(match answers.kind {
        TaskKind::Regression | TaskKind::Segmentation => panic!("numbers and masks have no probabilities"),
        TaskKind::SingleLabel | TaskKind::Ordinal => {
            melo_eval::reliability_single_label(probabilities, &answers.labels, answers.classes, BINS)?
        }
        TaskKind::MultiLabel => {
            melo_eval::reliability_multi_label(probabilities, &answers.findings(), answers.classes, BINS)?
        }
    })
}

/// Each class of the test split against the rest, `[c]`; nothing where the card has no record of it.
pub fn test_counts(card: &TaskCard) -> Vec<Counts> {
    let counts = card.test.iter().flat_map(|test| &test.counts);
    counts
        .map(|&[true_positive, false_positive, false_negative, true_negative]| Counts {
            true_positive,
            false_positive,
            false_negative,
            true_negative,
        })
        .collect()
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
            numbers: Vec::new(),
            masks: Vec::new(),
            distances: Vec::new(),
            labels: match kind {
                TaskKind::SingleLabel | TaskKind::Ordinal | TaskKind::Regression | TaskKind::Segmentation => {
                    (0..n).map(label).collect()
                }
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
        calibrate(&mut card, &answers(TaskKind::SingleLabel, 12.0), None, (None, None)).unwrap();
        assert!(card.temperature > 2.0, "{}", card.temperature);
        assert_eq!(card.thresholds, [0.5, 0.5], "the most probable class needs no threshold");
        assert!(card.metrics.is_empty() && card.metric_intervals.is_empty());
    }

    /// One in four is of class 1, whose logit is that of class 0 and `of_rare`, or `of_others` for the others.
    fn uneven(of_rare: f32, of_others: f32) -> Answers {
        let mut answers = answers(TaskKind::SingleLabel, 1.0);
        let rows = answers.labels.iter_mut().zip(answers.logits.chunks_exact_mut(2)).enumerate();
        for (at, (label, logits)) in rows {
            *label = usize::from(at % 4 == 0);
            logits.copy_from_slice(&[0.0, if *label == 1 { of_rare } else { of_others }]);
        }
        answers
    }

    #[test]
    fn a_rare_class_that_is_never_the_most_probable_is_called_over_its_usual_probability() {
        let (mut card, uneven) = (card(TaskKind::SingleLabel), uneven(-0.5, -2.0));
        calibrate(&mut card, &uneven, None, (None, None)).unwrap();
        let probabilities = uneven.probabilities(card.temperature);
        let usual = |class: usize| {
            let of_class = column(&probabilities, class, 2);
            of_class.iter().sum::<f32>() / of_class.len() as f32
        };
        let expected = [usual(0), usual(1)];
        assert!(card.thresholds.iter().zip(expected).all(|(found, usual)| (found - usual).abs() < 1e-5), "{card:?}");
        assert!(card.calls_unevenly() && card.format_written() == 10);
    }

    #[test]
    fn a_class_of_few_validation_images_is_called_least() {
        let mut few = uneven(-0.5, -2.0);
        for images in [MIN_CASES - 1, 0] {
            let rare = few.labels.iter().enumerate().filter(|(_, label)| **label == 1).map(|(row, _)| row);
            let others = (0..few.labels.len()).filter(|row| few.labels[*row] == 0);
            few = few.of_rows(&others.chain(rare.take(images)).collect::<Vec<_>>());
            assert_eq!(few.labels.iter().sum::<usize>(), images);
            let thresholds = thresholds(&few, 1.0);
            assert_eq!(thresholds[0], thresholds[1], "the most probable is called: {images} images");
        }
    }

    #[test]
    fn where_that_gains_nothing_the_most_probable_class_is_called() {
        for (of_rare, of_others) in [(2.0, -2.0), (-1.0, -1.0)] {
            let mut card = card(TaskKind::SingleLabel);
            calibrate(&mut card, &uneven(of_rare, of_others), None, (None, None)).unwrap();
            assert_eq!(card.thresholds, [0.5, 0.5]);
            assert!(!card.calls_unevenly());
        }
    }

    #[test]
    fn a_threshold_is_youdens_where_there_are_cases_and_one_half_elsewhere() {
        let mut card = card(TaskKind::MultiLabel);
        let val = answers(TaskKind::MultiLabel, 3.0);
        calibrate(&mut card, &val, None, (None, None)).unwrap();
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
            calibrate(&mut card, &answers, Some(&answers), (None, None)).unwrap();
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
        let card = card(TaskKind::MultiLabel);
        let figures = figures(&card.classes, &card.own_calibration(), &answers).unwrap();
        assert!(!figures.contains_key("auc/b") && !figures.contains_key("sensitivity/b"));
        assert!(figures.contains_key("specificity/b") && figures.contains_key("auc/a"));
    }

    /// Answers of single images that are said to be of class `said`, of `labels`.
    fn constant(labels: &[usize], said: usize, classes: usize) -> Answers {
        let logits = labels.iter().flat_map(|_| (0..classes).map(move |class| if class == said { 2.0 } else { 0.0 }));
        Answers {
            kind: TaskKind::SingleLabel,
            classes,
            names: (0..labels.len()).map(|row| format!("{row}.png")).collect(),
            patients: vec![None; labels.len()],
            labels: labels.to_vec(),
            numbers: Vec::new(),
            masks: Vec::new(),
            distances: Vec::new(),
            logits: logits.collect(),
        }
    }

    #[test]
    fn a_constant_predictor_has_intervals_as_anyone_else() {
        let labels: Vec<usize> = (0..70).map(|row| usize::from(row >= 41)).collect();
        let card = card(TaskKind::SingleLabel);
        let figures = figures(&card.classes, &card.own_calibration(), &constant(&labels, 0, 2)).unwrap();
        let interval = |name: &str| (figures[name].low, figures[name].value, figures[name].high);
        let (low, value, high) = interval("acc");
        assert!(value == 41.0 / 70.0 && (low - 0.469).abs() < 1e-3 && (high - 0.694).abs() < 1e-3, "{low} {high}");
        let (low, value, high) = interval("sensitivity/a");
        assert!(value == 1.0 && high == 1.0 && (low - 0.914).abs() < 1e-3, "{low}");
        for name in figures.keys() {
            let (low, _, high) = interval(name);
            assert!(low < high, "{name} is [{low}, {high}]");
        }
    }

    #[test]
    fn the_record_of_the_test_split_adds_up() {
        for kind in [TaskKind::SingleLabel, TaskKind::MultiLabel] {
            let mut card = card(kind);
            let answers = answers(kind, 3.0);
            calibrate(&mut card, &answers, Some(&answers), (None, None)).unwrap();
            card.check().unwrap();
            let test = card.test.unwrap();
            assert_eq!((test.images, test.patients), (60, Some(30)));
            let answered = if kind == TaskKind::SingleLabel { 60 } else { 120 };
            assert_eq!(test.reliability.iter().map(|bin| bin.count).sum::<u64>(), answered);
        }
    }
}
