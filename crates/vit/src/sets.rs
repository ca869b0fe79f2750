//! Prediction sets: the answers that may be true of an image, of a promised coverage (split conformal prediction: Vovk, Gammerman & Shafer,
//! Algorithmic Learning in a Random World, 2005; Angelopoulos & Bates, arXiv 2107.07511).
//!
//! A score says how strange an answer is for an image; the set is every answer whose score is at most a threshold that was fitted on images
//! with known answers. This is the rule; thresholds are fitted by `melo-train`.

use crate::invalid::Invalid;
use crate::task_kind::TaskKind;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// Added to a score of RAPS for each class before it beyond the first (λ of the paper, with its k_reg of 1).
const RAPS_PENALTY: f64 = 0.1;

/// How strange an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetMethod {
    /// `1 - p` of a class or of a finding's presence or absence: the smallest sets on average, which may be empty (Sadinle, Lei & Wasserman,
    /// JASA 114, 2019).
    Lac,
    /// The probability of all classes that are more probable: sets that grow with an image's difficulty, never empty (Romano, Sesia & Candès,
    /// NeurIPS 2020; without their random number, which is held at 1).
    Aps,
    /// As [`SetMethod::Aps`], and 0.1 for each more probable class but the first: few large sets (Angelopoulos et al., ICLR 2021).
    Raps,
    /// The probability of the grades that stand before it where an interval grows from the answer to the more probable neighbour: no gaps, never
    /// empty (Lu, Angelopoulos & Pomerantz, MICCAI 2022).
    OrdinalAps,
    /// The distance of a number from the answer: an interval of one width for all images.
    Residual,
}

/// Whom a threshold is promised for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetBy {
    /// All images: one threshold (marginal).
    All,
    /// The images of each class, or those with and those without a finding: a threshold each (class-conditional, Mondrian).
    Class,
}

/// How sets are made of probabilities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRule {
    /// The score.
    pub method: SetMethod,
    /// The share of images whose set holds the truth, as promised, between 0 and 1.
    pub coverage: f64,
    /// Whom it is promised for.
    pub by: SetBy,
    /// Largest score of a set: `[c]`, of findings `[c, 2]` (absent, present); none where there were too few patients for the promise, and
    /// every answer is in the set.
    pub thresholds: Vec<Option<f64>>,
    /// Patients that each was fitted on.
    pub patients: Vec<u64>,
}

/// What may be true of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictionSet {
    /// The score.
    pub method: SetMethod,
    /// As promised.
    pub coverage: f64,
    /// The answers.
    pub members: SetMembers,
}

/// Answers that may be true.
#[derive(Clone, Debug, PartialEq)]
pub enum SetMembers {
    /// Classes in the order of the head; with none, no class is as probable as the true ones were.
    Classes(Vec<usize>),
    /// Of each finding `[c]`.
    Findings(Vec<FindingSet>),
    /// Of each number `[c]` lowest and highest; none where nothing is excluded.
    Intervals(Vec<Option<[f32; 2]>>),
}

/// What may be true of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingSet {
    /// It is there.
    Present,
    /// It is not there.
    Absent,
    /// Both may be: undecided.
    Either,
    /// Neither is as probable as the true ones were: undecided.
    Neither,
}

impl SetMethod {
    /// The score of each answer of an image with probabilities `[c]`: `[c]`, of findings `[c, 2]` (absent, present), in f64.
    ///
    /// # Panics
    /// For numbers, whose answers are not counted.
    pub fn scores(self, kind: TaskKind, probabilities: &[f32]) -> Vec<f64> {
        let p = |class: usize| f64::from(probabilities[class]);
        match self {
            SetMethod::Lac if kind == TaskKind::MultiLabel => {
                (0..probabilities.len()).flat_map(|finding| [p(finding), 1.0 - p(finding)]).collect()
            }
            SetMethod::Lac => (0..probabilities.len()).map(|class| 1.0 - p(class)).collect(),
            SetMethod::Aps => before(&ranked(probabilities), p, 0.0),
            SetMethod::Raps => before(&ranked(probabilities), p, RAPS_PENALTY),
            SetMethod::OrdinalAps => before(&grown(probabilities), p, 0.0),
            SetMethod::Residual => panic!("numbers have no list of answers"),
        }
    }

    /// Whether answers of a kind have this score.
    pub fn fits(self, kind: TaskKind) -> bool {
        match kind {
            TaskKind::SingleLabel => matches!(self, SetMethod::Lac | SetMethod::Aps | SetMethod::Raps),
            TaskKind::MultiLabel => self == SetMethod::Lac,
            TaskKind::Ordinal => self == SetMethod::OrdinalAps,
            TaskKind::Regression => self == SetMethod::Residual,
            TaskKind::Segmentation => false,
        }
    }
}

/// As a card writes it.
impl fmt::Display for SetMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SetMethod::Lac => "lac",
            SetMethod::Aps => "aps",
            SetMethod::Raps => "raps",
            SetMethod::OrdinalAps => "ordinal_aps",
            SetMethod::Residual => "residual",
        })
    }
}

/// Classes, the most probable first.
fn ranked(probabilities: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    order
}

/// Grades in the order in which an interval that begins at the most probable takes them in: the more probable neighbour first, of equal ones the
/// lower.
fn grown(probabilities: &[f32]) -> Vec<usize> {
    let first = ranked(probabilities)[0];
    let (mut low, mut high, mut order) = (first, first, vec![first]);
    while order.len() < probabilities.len() {
        let below = low.checked_sub(1);
        let above = Some(high + 1).filter(|&grade| grade < probabilities.len());
        let takes_below = match (below, above) {
            (Some(below), Some(above)) => probabilities[below] >= probabilities[above],
            (below, _) => below.is_some(),
        };
        if takes_below {
            low -= 1;
        } else {
            high += 1;
        }
        order.push(if takes_below { low } else { high });
    }
    order
}

/// The probability of what stands before each class in an order, and the penalty for each but the first of it: `[c]`.
fn before(order: &[usize], p: impl Fn(usize) -> f64, penalty: f64) -> Vec<f64> {
    let (mut scores, mut sum) = (vec![0.0; order.len()], 0.0);
    for (rank, &class) in order.iter().enumerate() {
        scores[class] = sum + penalty * rank as f64;
        sum += p(class);
    }
    scores
}

impl SetRule {
    /// What may be true of an image with these probabilities, or numbers, `[c]`.
    ///
    /// # Panics
    /// If there are not as many as the rule is for.
    pub fn set(&self, kind: TaskKind, outputs: &[f32]) -> PredictionSet {
        assert_eq!(self.thresholds.len(), width(kind) * outputs.len(), "sets of another task");
        let members = if kind == TaskKind::Regression {
            let interval = |(value, threshold): (&f32, &Option<f64>)| {
                let (value, width) = (f64::from(*value), (*threshold)?);
                Some([(value - width) as f32, (value + width) as f32])
            };
            SetMembers::Intervals(outputs.iter().zip(&self.thresholds).map(interval).collect())
        } else {
            let scores = self.method.scores(kind, outputs);
            let holds = |(score, threshold): (&f64, &Option<f64>)| threshold.is_none_or(|most| *score <= most);
            let held: Vec<bool> = scores.iter().zip(&self.thresholds).map(holds).collect();
            match kind {
                TaskKind::MultiLabel => SetMembers::Findings(held.chunks_exact(2).map(FindingSet::of).collect()),
                _ => SetMembers::Classes((0..held.len()).filter(|&class| held[class]).collect()),
            }
        };
        PredictionSet { method: self.method, coverage: self.coverage, members }
    }

    /// Checks what it says against the task.
    ///
    /// # Errors
    /// [`Invalid`] for what does not fit.
    pub(crate) fn check(&self, kind: TaskKind, classes: usize) -> Result<(), Invalid> {
        let wrong = |reason: String| Err(Invalid::new("sets", format!("sets: {reason}")));
        if !self.method.fits(kind) {
            return wrong(format!("`{}` is not for {}", self.method, kind.in_words()));
        }
        if !(self.coverage > 0.0 && self.coverage < 1.0) {
            return wrong(format!("coverage {} is not between 0 and 1", self.coverage));
        }
        let expected = width(kind) * classes;
        if self.thresholds.len() != expected || self.patients.len() != expected {
            let (thresholds, patients) = (self.thresholds.len(), self.patients.len());
            return wrong(format!("{thresholds} thresholds of {patients} numbers of patients, expected {expected}"));
        }
        match self.thresholds.iter().flatten().find(|threshold| !(threshold.is_finite() && **threshold >= 0.0)) {
            Some(threshold) => wrong(format!("threshold {threshold} is not finite and at least 0")),
            None => Ok(()),
        }
    }
}

/// Thresholds a class.
fn width(kind: TaskKind) -> usize {
    if kind == TaskKind::MultiLabel { 2 } else { 1 }
}

impl FindingSet {
    fn of(held: &[bool]) -> Self {
        match (held[0], held[1]) {
            (false, true) => FindingSet::Present,
            (true, false) => FindingSet::Absent,
            (true, true) => FindingSet::Either,
            (false, false) => FindingSet::Neither,
        }
    }

    /// Whether the truth is in it.
    pub fn holds(self, present: bool) -> bool {
        match self {
            FindingSet::Present => present,
            FindingSet::Absent => !present,
            FindingSet::Either => true,
            FindingSet::Neither => false,
        }
    }

    /// How many of presence and absence may be true.
    pub fn size(self) -> usize {
        match self {
            FindingSet::Present | FindingSet::Absent => 1,
            FindingSet::Either => 2,
            FindingSet::Neither => 0,
        }
    }
}

impl fmt::Display for FindingSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FindingSet::Present => "present",
            FindingSet::Absent => "absent",
            FindingSet::Either => "present or absent",
            FindingSet::Neither => "neither present nor absent",
        })
    }
}

impl PredictionSet {
    /// The set with the names of the classes: to be written as JSON.
    pub fn named(&self, classes: &[String]) -> NamedSet {
        NamedSet { set: self.clone(), classes: classes.to_vec() }
    }
}

/// A set with the names of its classes. As JSON an object of `coverage`, `method`, and `classes` (a list of names), `findings` (an object of
/// [`FindingSet`]s) or `intervals` (an object of `[low, high]` or `null`); as text its [`NamedSet::items`].
#[derive(Clone, Debug, PartialEq)]
pub struct NamedSet {
    set: PredictionSet,
    classes: Vec<String>,
}

impl NamedSet {
    /// What is in it: names of classes; `edema present`; `age 53.2 to 71`.
    pub fn items(&self) -> Vec<String> {
        let named = |(name, said): (&String, String)| format!("{name} {said}");
        match &self.set.members {
            SetMembers::Classes(members) => members.iter().map(|&class| self.classes[class].clone()).collect(),
            SetMembers::Findings(of) => {
                self.classes.iter().zip(of.iter().map(ToString::to_string)).map(named).collect()
            }
            SetMembers::Intervals(of) => {
                let interval = |interval: &Option<[f32; 2]>| match interval {
                    Some([low, high]) => format!("{low:.4} to {high:.4}"),
                    None => "unbounded".to_owned(),
                };
                self.classes.iter().zip(of.iter().map(interval)).map(named).collect()
            }
        }
    }

    /// The promised coverage as a percentage, `90 %`.
    pub fn promise(&self) -> String {
        format!("{} %", (self.set.coverage * 1e10).round() / 1e8)
    }
}

impl fmt::Display for NamedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = self.items();
        let items = if items.is_empty() { "none".to_owned() } else { items.join(", ") };
        write!(f, "{} set: {items}", self.promise())
    }
}

impl Serialize for NamedSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("coverage", &self.set.coverage)?;
        map.serialize_entry("method", &self.set.method)?;
        match &self.set.members {
            SetMembers::Classes(_) => map.serialize_entry("classes", &self.items())?,
            SetMembers::Findings(of) => map.serialize_entry("findings", &ByName(&self.classes, of))?,
            SetMembers::Intervals(of) => map.serialize_entry("intervals", &ByName(&self.classes, of))?,
        }
        map.end()
    }
}

/// An object in the order of the head.
struct ByName<'a, T>(&'a [String], &'a [T]);

impl<T: Serialize> Serialize for ByName<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(method: SetMethod, thresholds: Vec<Option<f64>>) -> SetRule {
        let patients = vec![20; thresholds.len()];
        SetRule { method, coverage: 0.9, by: SetBy::All, thresholds, patients }
    }

    fn classes(rule: &SetRule, kind: TaskKind, p: &[f32]) -> Vec<usize> {
        match rule.set(kind, p).members {
            SetMembers::Classes(classes) => classes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_set_is_every_class_that_is_probable_enough() {
        let lac = rule(SetMethod::Lac, vec![Some(0.75), Some(0.75), Some(0.25)]);
        assert_eq!(classes(&lac, TaskKind::SingleLabel, &[0.25, 0.5, 0.25]), [0, 1]);
        assert_eq!(classes(&lac, TaskKind::SingleLabel, &[0.125, 0.125, 0.75]), [2]);
        assert!(classes(&lac, TaskKind::SingleLabel, &[0.2, 0.2, 0.6]).is_empty());
        let few = rule(SetMethod::Lac, vec![Some(0.5), None, None]);
        assert_eq!(
            classes(&few, TaskKind::SingleLabel, &[0.1, 0.8, 0.1]),
            [1, 2],
            "what was not fitted is in every set"
        );
    }

    #[test]
    fn adaptive_sets_hold_the_most_probable_class() {
        for method in [SetMethod::Aps, SetMethod::Raps] {
            assert_eq!(classes(&rule(method, vec![Some(0.0); 3]), TaskKind::SingleLabel, &[0.2, 0.5, 0.3]), [1]);
        }
        // 0, 0.5 and 0.75 of what is more probable; with the penalties 0, 0.6 and 0.95.
        let aps = rule(SetMethod::Aps, vec![Some(0.8); 3]);
        assert_eq!(classes(&aps, TaskKind::SingleLabel, &[0.25, 0.5, 0.25]), [0, 1, 2]);
        let raps = rule(SetMethod::Raps, vec![Some(0.8); 3]);
        assert_eq!(classes(&raps, TaskKind::SingleLabel, &[0.25, 0.5, 0.25]), [0, 1]);
    }

    #[test]
    fn sets_of_grades_have_no_gaps() {
        let p = [0.3, 0.05, 0.4, 0.05, 0.2];
        for most in [0.0, 0.3, 0.44, 0.46, 0.74, 0.76, 1.0] {
            let set = classes(&rule(SetMethod::OrdinalAps, vec![Some(most); 5]), TaskKind::Ordinal, &p);
            assert!(set.contains(&2) && set.windows(2).all(|pair| pair[1] == pair[0] + 1), "{most}: {set:?}");
        }
        assert_eq!(SetMethod::OrdinalAps.scores(TaskKind::Ordinal, &[0.25, 0.5, 0.25]), [0.5, 0.0, 0.75]);
    }

    #[test]
    fn a_finding_is_there_or_not_or_undecided() {
        let lac = rule(SetMethod::Lac, [0.25, 0.5, 0.75, 0.75, 0.25, 0.25].map(Some).to_vec());
        let set = |p: &[f32]| lac.set(TaskKind::MultiLabel, p).members;
        assert_eq!(
            set(&[0.5, 0.5, 0.5]),
            SetMembers::Findings(vec![FindingSet::Present, FindingSet::Either, FindingSet::Neither])
        );
        assert_eq!(set(&[0.25, 0.125, 0.125]), SetMembers::Findings(vec![FindingSet::Absent; 3]));
    }

    #[test]
    fn a_number_has_an_interval_where_there_were_patients_enough() {
        let residual = rule(SetMethod::Residual, vec![Some(2.5), None]);
        let set = residual.set(TaskKind::Regression, &[60.0, 1.0]);
        assert_eq!(set.members, SetMembers::Intervals(vec![Some([57.5, 62.5]), None]));
        let named = set.named(&["age".into(), "dose".into()]);
        assert_eq!(named.to_string(), "90 % set: age 57.5000 to 62.5000, dose unbounded");
        let json = serde_json::to_string(&named).unwrap();
        assert_eq!(json, r#"{"coverage":0.9,"method":"residual","intervals":{"age":[57.5,62.5],"dose":null}}"#);
    }

    #[test]
    fn rules_that_cannot_be_are_refused() {
        let refused = |rule: SetRule, kind| rule.check(kind, 2).unwrap_err().to_string();
        rule(SetMethod::Lac, vec![Some(0.5), None]).check(TaskKind::SingleLabel, 2).unwrap();
        let lac = || rule(SetMethod::Lac, vec![Some(0.5), None]);
        assert!(refused(lac(), TaskKind::Ordinal).contains("`lac` is not for one grade an image"));
        assert!(refused(lac(), TaskKind::MultiLabel).contains("2 thresholds of 2 numbers of patients, expected 4"));
        assert!(refused(SetRule { coverage: 1.0, ..lac() }, TaskKind::SingleLabel).contains("coverage 1"));
        let nan = SetRule { thresholds: vec![Some(f64::NAN), None], ..lac() };
        assert!(refused(nan, TaskKind::SingleLabel).contains("threshold NaN"));
    }
}
