//! Prediction sets are those of MAPIE and crepes on the same scores (`tools/golden/conformal.py`).

use melo_train::{Answers, SetSettings, fit_sets};
use melo_vit::{FindingSet, SetBy, SetMembers, SetMethod, SetRule, TaskKind};
use serde::Deserialize;

/// Sets `[coverage, image, answer]`, 1 for what is in them.
type Sets = Vec<Vec<Vec<u8>>>;

#[derive(Deserialize)]
struct Golden {
    coverages: Vec<f64>,
    probabilities: Vec<Vec<f32>>,
    labels: Vec<usize>,
    new_probabilities: Vec<Vec<f32>>,
    lac: Sets,
    aps: Sets,
    class_conditional: Sets,
    raps_scores: Vec<f64>,
    finding_probabilities: Vec<Vec<f32>>,
    finding_labels: Vec<Vec<usize>>,
    new_finding_probabilities: Vec<Vec<f32>>,
    /// A finding each.
    findings: Vec<Sets>,
    answers: Vec<f32>,
    numbers: Vec<f32>,
    new_answers: Vec<f32>,
    residual: Vec<Vec<[f64; 2]>>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/conformal.json")).expect("what the generator wrote")
}

/// Answers whose logits come to these probabilities.
fn answers(kind: TaskKind, probabilities: &[Vec<f32>], labels: Vec<usize>) -> Answers {
    let logit = |p: &f32| match kind {
        TaskKind::MultiLabel => (f64::from(*p) / (1.0 - f64::from(*p))).ln() as f32,
        _ => p.ln(),
    };
    Answers {
        kind,
        classes: probabilities[0].len(),
        names: (0..probabilities.len()).map(|row| row.to_string()).collect(),
        patients: vec![None; probabilities.len()],
        labels,
        numbers: Vec::new(),
        logits: probabilities.iter().flatten().map(logit).collect(),
        masks: Vec::new(),
        distances: Vec::new(),
    }
}

fn fitted(answers: &Answers, coverage: f64, method: SetMethod, by: SetBy) -> SetRule {
    let asked = SetSettings { coverage, method: Some(method), by: Some(by) };
    fit_sets(answers, 1.0, &asked).expect("a method of the kind").expect("no mask")
}

#[test]
fn sets_of_classes_are_mapies_and_crepes() {
    let golden = golden();
    let fit = answers(TaskKind::SingleLabel, &golden.probabilities, golden.labels.clone());
    // As they are computed of logits, once more.
    let new = answers(TaskKind::SingleLabel, &golden.new_probabilities, vec![0; golden.new_probabilities.len()]);
    let ways = [
        (SetMethod::Lac, SetBy::All, &golden.lac),
        (SetMethod::Aps, SetBy::All, &golden.aps),
        (SetMethod::Lac, SetBy::Class, &golden.class_conditional),
    ];
    for (method, by, expected) in ways {
        for (coverage, expected) in golden.coverages.iter().zip(expected) {
            let rule = fitted(&fit, *coverage, method, by);
            for (p, expected) in new.probabilities(1.0).chunks_exact(new.classes).zip(expected) {
                let SetMembers::Classes(found) = rule.set(TaskKind::SingleLabel, p).members else {
                    panic!("no classes")
                };
                let expected: Vec<usize> = (0..expected.len()).filter(|&class| expected[class] == 1).collect();
                assert_eq!(found, expected, "{method} {by:?} {coverage} {p:?}");
            }
        }
    }
}

#[test]
fn regularised_scores_are_mapies() {
    let golden = golden();
    for ((p, &label), expected) in golden.probabilities.iter().zip(&golden.labels).zip(&golden.raps_scores) {
        let found = SetMethod::Raps.scores(TaskKind::SingleLabel, p)[label];
        // Their rows were made to sum to one.
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

#[test]
fn sets_of_findings_are_crepes() {
    let golden = golden();
    let labels = golden.finding_labels.concat();
    let fit = answers(TaskKind::MultiLabel, &golden.finding_probabilities, labels);
    for (place, coverage) in golden.coverages.iter().enumerate() {
        let rule = fitted(&fit, *coverage, SetMethod::Lac, SetBy::Class);
        for (row, p) in golden.new_finding_probabilities.iter().enumerate() {
            let SetMembers::Findings(found) = rule.set(TaskKind::MultiLabel, p).members else { panic!("no findings") };
            for (set, expected) in found.iter().zip(&golden.findings) {
                let expected = match expected[place][row][..] {
                    [1, 0] => FindingSet::Absent,
                    [0, 1] => FindingSet::Present,
                    [1, 1] => FindingSet::Either,
                    _ => FindingSet::Neither,
                };
                assert_eq!(*set, expected, "{coverage} {row} {p:?}");
            }
        }
    }
}

#[test]
fn intervals_of_numbers_are_mapies() {
    let golden = golden();
    let rows: Vec<Vec<f32>> = golden.answers.iter().map(|answer| vec![*answer]).collect();
    let fit = Answers {
        kind: TaskKind::Regression,
        labels: Vec::new(),
        numbers: golden.numbers.clone(),
        logits: golden.answers.clone(),
        ..answers(TaskKind::Regression, &rows, Vec::new())
    };
    for (coverage, expected) in golden.coverages.iter().zip(&golden.residual) {
        let rule = fitted(&fit, *coverage, SetMethod::Residual, SetBy::All);
        for (answer, expected) in golden.new_answers.iter().zip(expected) {
            let SetMembers::Intervals(found) = rule.set(TaskKind::Regression, &[*answer]).members else {
                panic!("no numbers")
            };
            for (found, expected) in found[0].expect("patients enough").into_iter().zip(expected) {
                // An end is stored in f32, of numbers below 128.
                assert!((f64::from(found) - expected).abs() < 1e-5, "{coverage}: {found} {expected}");
            }
        }
    }
}
