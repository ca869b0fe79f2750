//! Prediction sets: fitted on answers with a known truth, and how often they hold it.

use crate::answers::Answers;
use crate::error::Error;
use crate::judged::{Cases, mean_share};
use melo_eval::{ClusteredShare, Estimate, clusters_needed, conformal_threshold, mean_over_clusters, means_by_cluster};
use melo_vit::{SetBy, SetMembers, SetMethod, SetRule, TaskCard, TaskKind};
use std::collections::BTreeMap;

/// Level of the intervals.
const LEVEL: f64 = 0.95;

/// What is asked of prediction sets; what is not said is as the task's kind has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SetSettings {
    /// The share of images whose set is to hold the truth, between 0 and 1.
    pub coverage: f64,
    /// How strange an answer is: of classes [`SetMethod::Lac`].
    pub method: Option<SetMethod>,
    /// Whom the coverage is promised for: all images, of findings those with and those without each.
    pub by: Option<SetBy>,
}

impl Default for SetSettings {
    /// Nine of ten, as the task's kind has it.
    fn default() -> Self {
        SetSettings { coverage: 0.9, method: None, by: None }
    }
}

impl SetSettings {
    /// Checks what is asked of a kind of task.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self, kind: TaskKind) -> Result<(), Error> {
        let wrong = |setting, reason| Err(Error::Setting { setting, reason });
        if !(self.coverage > 0.0 && self.coverage < 1.0) {
            return wrong("coverage", format!("is {}, expected a number between 0 and 1", self.coverage));
        }
        match self.method {
            Some(method) if !method.fits(kind) => wrong("sets", format!("{method} is not for {}", kind.in_words())),
            _ => Ok(()),
        }
    }
}

impl From<&SetRule> for SetSettings {
    fn from(rule: &SetRule) -> Self {
        SetSettings { coverage: rule.coverage, method: Some(rule.method), by: Some(rule.by) }
    }
}

/// The rule of sets that holds the promise on the images of a split that no training saw, at a temperature; none of masks.
///
/// # Errors
/// [`Error::Setting`].
pub fn fit_sets(val: &Answers, temperature: f32, asked: &SetSettings) -> Result<Option<SetRule>, Error> {
    asked.check(val.kind)?;
    let method = match val.kind {
        TaskKind::Segmentation => return Ok(None),
        TaskKind::SingleLabel | TaskKind::MultiLabel => SetMethod::Lac,
        TaskKind::Ordinal => SetMethod::OrdinalAps,
        TaskKind::Regression => SetMethod::Residual,
    };
    let method = asked.method.unwrap_or(method);
    let by = asked.by.unwrap_or(if val.kind == TaskKind::MultiLabel { SetBy::Class } else { SetBy::All });
    let found = true_scores(val, temperature, method, by).into_iter();
    let (thresholds, patients) = found
        .map(|cases| conformal_threshold(&cases, asked.coverage))
        .map(|found| (found.most, found.clusters as u64))
        .unzip();
    Ok(Some(SetRule { method, coverage: asked.coverage, by, thresholds, patients }))
}

/// How strange the truth is, with the patient, for each threshold of a rule.
fn true_scores(val: &Answers, temperature: f32, method: SetMethod, by: SetBy) -> Vec<Cases> {
    let (c, patients) = (val.classes, val.clusters());
    if val.kind == TaskKind::Regression {
        let distance = |at: usize| f64::from(val.numbers[at]) - f64::from(val.logits[at]);
        let of = |number: usize| patients.iter().enumerate().map(move |(row, &of)| (row * c + number, of));
        return (0..c).map(|number| of(number).map(|(at, patient)| (distance(at).abs(), patient)).collect()).collect();
    }
    let probabilities = val.probabilities(temperature);
    let scores: Vec<Vec<f64>> = probabilities.chunks_exact(c).map(|row| method.scores(val.kind, row)).collect();
    // The answers that an image is held to: its class, or of each finding whether it is there.
    let truths = |row: usize| match val.kind {
        TaskKind::MultiLabel => (0..c).map(|finding| 2 * finding + val.labels[row * c + finding]).collect(),
        _ => vec![val.labels[row]],
    };
    let mut cases = vec![Cases::new(); if val.kind == TaskKind::MultiLabel { 2 * c } else { c }];
    let shared = |place: usize| match (by, val.kind) {
        (SetBy::Class, _) => place,
        (SetBy::All, TaskKind::MultiLabel) => place - place % 2,
        (SetBy::All, _) => 0,
    };
    for (row, (scores, &patient)) in scores.iter().zip(&patients).enumerate() {
        truths(row).into_iter().for_each(|place| cases[shared(place)].push((scores[place], patient)));
    }
    (0..cases.len()).map(|place| cases[shared(place)].clone()).collect()
}

/// What sets promise and how they kept it on the test split, in words; none without sets or a test split.
pub fn sets_in_words(card: &TaskCard) -> Option<String> {
    let rule = card.sets.as_ref()?;
    let figure = |name: &str| card.metrics.get(&format!("test_{name}"));
    let (held, promise) = (figure("set_coverage")?, rule.coverage);
    let interval = card.metric_intervals.get("test_set_coverage");
    let interval = interval.map_or(String::new(), |[low, high]| format!(" [{low:.3}, {high:.3}]"));
    let size = figure("set_size").map_or(String::new(), |size| format!(", {size:.2} answers on average"));
    let single = figure("set_single").map_or(String::new(), |single| format!(", {single:.3} of them a single one"));
    Some(format!(
        "coverage {held:.3}{interval} on the test split of {promise} promised ({}){size}{single}",
        rule.method
    ))
}

/// That patients were too few for the promise, and what follows, in words; none where they were enough.
pub fn open_in_words(classes: &[String], kind: TaskKind, rule: &SetRule) -> Option<String> {
    let needed =
        format!("prediction sets: a promise of {} needs {} patients", rule.coverage, clusters_needed(rule.coverage));
    let open = |place: &usize| rule.thresholds[*place].is_none();
    let name = |place: usize| match (kind, rule.by) {
        (TaskKind::MultiLabel, SetBy::Class) => format!("{} {}", classes[place / 2], ["absent", "present"][place % 2]),
        (TaskKind::MultiLabel, SetBy::All) => classes[place / 2].clone(),
        _ => classes[place].clone(),
    };
    // One threshold for all is written for each class, and one of a finding twice.
    let found: Vec<String> = match (kind, rule.by) {
        (TaskKind::SingleLabel | TaskKind::Ordinal, SetBy::All) => {
            let patients = rule.patients.first().filter(|_| open(&0))?;
            return Some(format!("{needed} in the validation split, found {patients}: every answer is in every set"));
        }
        (TaskKind::MultiLabel, SetBy::All) => (0..rule.thresholds.len()).step_by(2).filter(open).collect(),
        _ => (0..rule.thresholds.len()).filter(open).collect::<Vec<usize>>(),
    }
    .into_iter()
    .map(|place| format!("{} {}", name(place), rule.patients[place]))
    .collect();
    let found = (!found.is_empty()).then(|| found.join(", "))?;
    Some(format!("{needed} of each in the validation split, found {found}: nothing excludes these from a set"))
}

/// How sets hold the truth on a split, by name, with intervals at 95 % by patient; each patient weighs the same. `set_coverage`, the share of
/// images whose set holds the truth, and of each class, finding or number `set_coverage/<name>`; of findings also
/// `set_coverage_present/<finding>` and `set_coverage_absent/<finding>` of the images with and without it; `set_size`, the mean number of answers,
/// `set_single` and `set_empty`, the shares of sets of one answer and of none (of findings the means over them); of numbers
/// `set_width/<number>`. What is undefined is left out.
pub fn set_figures(
    classes: &[String],
    rule: &SetRule,
    temperature: f32,
    answers: &Answers,
) -> BTreeMap<String, Estimate> {
    let seen = Seen::new(rule, temperature, answers);
    let patients = answers.clusters();
    // Of the cases at a place of each image's truths, those whose truth is as wanted.
    let cases = |of: &dyn Fn(&Case) -> f64, place: usize, wanted: &dyn Fn(&Case) -> bool| -> Cases {
        let rows = seen.cases.chunks_exact(seen.width).zip(&patients);
        let chosen = rows.map(|(row, patient)| (&row[place], *patient)).filter(|(case, _)| wanted(case));
        means_by_cluster(chosen.map(|(case, patient)| (of(case), patient)))
    };
    let held = |case: &Case| f64::from(u8::from(case.held));
    let of_size = |size: usize| move |case: &Case| f64::from(u8::from(case.size == size));
    let all = |_: &Case| true;
    let mean = |of: &dyn Fn(&Case) -> f64| {
        mean_share((0..seen.width).map(|place| cases(of, place, &all))).map(|share| share.estimate(LEVEL))
    };
    let share = |cases: Cases| ClusteredShare::new(cases).map(|share| share.estimate(LEVEL));
    let mut figures = BTreeMap::new();
    let mut put = |name: String, figure: Option<Estimate>| figure.map(|figure| figures.insert(name, figure));
    put("set_coverage".into(), mean(&held));
    if answers.kind != TaskKind::Regression {
        let sizes = seen.cases.chunks_exact(seen.width).zip(&patients);
        let size = |row: &[Case]| row.iter().map(|case| case.size as f64).sum::<f64>() / seen.width as f64;
        put("set_size".into(), mean_over_clusters(sizes.map(|(row, patient)| (size(row), *patient)), LEVEL));
        put("set_single".into(), mean(&of_size(1)));
        put("set_empty".into(), mean(&of_size(0)));
    }
    for (class, name) in classes.iter().enumerate() {
        match answers.kind {
            TaskKind::MultiLabel => {
                put(format!("set_coverage/{name}"), share(cases(&held, class, &all)));
                for (truth, word) in [(1, "present"), (0, "absent")] {
                    let of = cases(&held, class, &|case| case.truth == truth);
                    put(format!("set_coverage_{word}/{name}"), share(of));
                }
            }
            TaskKind::Regression => {
                put(format!("set_coverage/{name}"), share(cases(&held, class, &all)));
                let width = rule.thresholds[class].map(|half| 2.0 * half);
                put(format!("set_width/{name}"), width.map(|value| Estimate { value, low: value, high: value }));
            }
            _ => drop(put(format!("set_coverage/{name}"), share(cases(&held, 0, &|case| case.truth == class)))),
        }
    }
    figures
}

/// A truth and the set that should hold it.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// The class, or whether a finding is there; 0 of numbers.
    truth: usize,
    held: bool,
    /// Answers in the set.
    size: usize,
}

/// The truths of each image, `[n, width]`: its class, or each finding or number.
struct Seen {
    width: usize,
    cases: Vec<Case>,
}

impl Seen {
    fn new(rule: &SetRule, temperature: f32, answers: &Answers) -> Self {
        let c = answers.classes;
        let width = if answers.kind.is_one_class() { 1 } else { c };
        let probabilities = answers.probabilities(temperature);
        let of = |(row, outputs): (usize, &[f32])| match rule.set(answers.kind, outputs).members {
            SetMembers::Classes(set) => {
                let truth = answers.labels[row];
                vec![Case { truth, held: set.contains(&truth), size: set.len() }]
            }
            SetMembers::Findings(sets) => {
                let truths = sets.into_iter().zip(&answers.labels[row * c..]);
                truths.map(|(set, &truth)| Case { truth, held: set.holds(truth == 1), size: set.size() }).collect()
            }
            SetMembers::Intervals(sets) => {
                let truths = sets.into_iter().zip(&answers.numbers[row * c..]);
                let holds =
                    |set: Option<[f32; 2]>, truth: f32| set.is_none_or(|[low, high]| (low..=high).contains(&truth));
                truths.map(|(set, &truth)| Case { truth: 0, held: holds(set, truth), size: 1 }).collect()
            }
        };
        Seen { width, cases: probabilities.chunks_exact(c).enumerate().flat_map(of).collect() }
    }
}
