//! ROC, precision-recall and learning curves, methods overlaid, one panel a class or quantity.

use melo_report::Element;
use melo_report::chart::{Axis, Line, LineChart};

use super::legend::{panel, panels};
use super::view::series;
use super::words::{NOTHING, number};
use crate::{Arm, ClassResults, LearningPoint, Results, TaskResults};

/// ROC and precision-recall curves of every class.
pub(super) fn of_classes(results: &Results, task: &TaskResults, arms: &[&Arm]) -> Option<Element> {
    let roc =
        Kind { name: "ROC", x: "1 − specificity", y: "sensitivity", steps: false, of: |class| class.roc.clone() };
    let recall = Kind {
        name: "precision-recall",
        x: "recall",
        y: "precision",
        steps: true,
        of: |class| best_precisions(&class.precision_recall),
    };
    let drawn: Vec<_> = [("ROC curves", roc), ("Precision-recall curves", recall)]
        .into_iter()
        .filter_map(|(heading, kind)| {
            let classes = 0..task.classes.len();
            let drawn = classes.filter_map(|class| kind.panel(results, task, arms, class)).collect();
            panels("small", heading, "", drawn)
        })
        .collect();
    (!drawn.is_empty()).then(|| Element::new("div").class("beside").children(drawn))
}

struct Kind {
    name: &'static str,
    x: &'static str,
    y: &'static str,
    steps: bool,
    of: fn(&ClassResults) -> Vec<(f64, f64)>,
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
            y: Axis::unit(self.y),
            diagonal: !self.steps,
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
        diagonal: false,
        lines: arms.iter().map(line).collect(),
    };
    Some(panel(name, None, chart.draw()?))
}
