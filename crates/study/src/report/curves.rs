//! ROC, precision-recall and learning curves, methods overlaid, one panel a class or quantity.

use melo_report::Element;
use melo_report::chart::{Axis, Line, LineChart};

use melo_eval::NetBenefit;

use super::legend::{panel, panels};
use super::view::series;
use super::words::{NOTHING, number};
use crate::{Arm, ClassResults, LearningPoint, Results, TaskResults};

/// ROC and precision-recall curves of every class.
pub(super) fn of_classes(results: &Results, task: &TaskResults, arms: &[&Arm]) -> Option<Element> {
    let roc = Kind {
        heading: "ROC curves",
        note: "",
        name: "ROC",
        x: "1 − specificity",
        y: |_| Some(Axis::unit("sensitivity")),
        steps: false,
        of: |class| class.roc.clone(),
        guide: |_| vec![(0.0, 0.0), (1.0, 1.0)],
    };
    let recall = Kind {
        heading: "Precision-recall curves",
        note: "",
        name: "precision-recall",
        x: "recall",
        y: |_| Some(Axis::unit("precision")),
        steps: true,
        of: |class| best_precisions(&class.precision_recall),
        guide: |_| Vec::new(),
    };
    let decision = Kind {
        heading: "Decision curves",
        note: "Net benefit of acting on images whose calibrated probability is at least the threshold: hits less false alarms, weighed by the odds \
               of the threshold, per image. The faint line acts on every image, zero on none. A method is of use at the thresholds where it \
               lies above both.",
        name: "decision curve",
        x: "threshold",
        y: |classes| Axis::around("net benefit", worth_showing(classes), 3),
        steps: false,
        of: |class| shown(class, |point| point.model),
        guide: |class| shown(class, |point| point.all),
    };
    let drawn: Vec<_> = [roc, recall, decision]
        .into_iter()
        .filter_map(|kind| {
            let classes = 0..task.classes.len();
            let drawn = classes.filter_map(|class| kind.panel(results, task, arms, class)).collect();
            panels("small", kind.heading, kind.note, drawn)
        })
        .collect();
    (!drawn.is_empty()).then(|| Element::new("div").class("beside").children(drawn))
}

struct Kind {
    heading: &'static str,
    note: &'static str,
    name: &'static str,
    x: &'static str,
    y: fn(&[&ClassResults]) -> Option<Axis>,
    steps: bool,
    of: fn(&ClassResults) -> Vec<(f64, f64)>,
    /// What to compare with.
    guide: fn(&ClassResults) -> Vec<(f64, f64)>,
}

/// How far below zero a decision curve is drawn, of what could be gained at most: further down nobody would act.
const BELOW: f64 = -0.2;

fn most(class: &ClassResults) -> f64 {
    class.decision_curve.iter().flat_map(|point| [point.model, point.all]).fold(0.0, f64::max)
}

fn worth_showing(classes: &[&ClassResults]) -> [f64; 2] {
    let most = classes.iter().map(|class| most(class)).fold(0.0, f64::max);
    if most > 0.0 { [BELOW * most, most] } else { [f64::NAN; 2] }
}

/// The part of a decision curve that is drawn.
fn shown(class: &ClassResults, of: fn(&NetBenefit) -> f64) -> Vec<(f64, f64)> {
    let least = BELOW * most(class);
    let points = class.decision_curve.iter().map(|point| (point.threshold, of(point)));
    points.filter(|(_, benefit)| *benefit >= least).collect()
}

/// Of the thresholds with the same recall the one with the best precision: the others only add false alarms.
fn best_precisions(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let best = |same: &[(f64, f64)]| same.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    curve.chunk_by(|a, b| a.0 == b.0).filter_map(best).collect()
}

impl Kind {
    fn panel(&self, results: &Results, task: &TaskResults, arms: &[&Arm], class: usize) -> Option<Element> {
        let name = task.classes.get(class)?;
        let with_class: Vec<_> =
            arms.iter().filter_map(|arm| Some((arm.method.as_str(), arm.per_class.get(class)?))).collect();
        let line = |(method, found): &(&str, &ClassResults)| Line {
            steps: self.steps,
            ..Line::new(series(results, method), (self.of)(found))
        };
        let positives = with_class.iter().map(|(_, found)| found.positives).max()?;
        let described: Vec<_> = with_class
            .iter()
            .map(|(method, found)| {
                let auc = found.auc.map_or(NOTHING.to_owned(), |auc| number(auc.value, 3));
                format!("{method}: AUC {auc}")
            })
            .collect();
        let chart = LineChart {
            title: format!("{}, {name}: {}", task.name, self.name),
            description: described.join("; "),
            width: 168.0,
            height: 182.0,
            x: Axis::unit(self.x),
            y: (self.y)(&with_class.iter().map(|(_, found)| *found).collect::<Vec<_>>())?,
            guide: (self.guide)(with_class.first()?.1),
            lines: with_class.iter().map(line).collect(),
        };
        let below = format!("{positives} of the test images");
        Some(panel(name, Some(below), chart.draw()?))
    }
}

/// One of the figures of an epoch.
type Quantity = fn(&LearningPoint) -> f64;

/// Losses and validation AUC by epoch.
pub(super) fn learning(results: &Results, arms: &[&Arm]) -> Option<Element> {
    let quantities: [(&str, Quantity); 3] = [
        ("training loss", |point| point.train_loss),
        ("validation loss", |point| point.val_loss),
        ("validation macro AUC", |point| point.val_auc),
    ];
    let drawn: Vec<_> = quantities.into_iter().filter_map(|(name, of)| quantity(results, arms, name, of)).collect();
    let thinned = arms.iter().any(|arm| arm.learning.windows(2).any(|ends| ends[1].cells < ends[0].cells));
    let note =
        if thinned { "Means over the cells that reached the epoch: later epochs are of fewer cells." } else { "" };
    panels("large", "Learning curves", note, drawn)
}

fn quantity(results: &Results, arms: &[&Arm], name: &str, of: Quantity) -> Option<Element> {
    let line = |arm: &&Arm| {
        let points = arm.learning.iter().map(|point| (point.epoch as f64, of(point))).collect();
        Line { marks: true, ..Line::new(series(results, &arm.method), points) }
    };
    let points = || arms.iter().flat_map(|arm| &arm.learning);
    let ends: Vec<_> = arms
        .iter()
        .filter_map(|arm| Some(format!("{}: {} at the end", arm.method, number(of(arm.learning.last()?), 3))))
        .collect();
    let chart = LineChart {
        title: name.to_owned(),
        description: ends.join("; "),
        width: 340.0,
        height: 210.0,
        x: Axis::counting("epoch", points().map(|point| point.epoch as f64), 5)?,
        y: Axis::around("", points().map(of), 4)?,
        guide: Vec::new(),
        lines: arms.iter().map(line).collect(),
    };
    Some(panel(name, None, chart.draw()?))
}
