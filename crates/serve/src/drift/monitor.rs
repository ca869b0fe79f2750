//! The charts of one plug-in: what its card says it was, and what it sees and answers.

use super::chart::{Chart, Figure, Reference};
use melo_vit::{Decision, TaskCard, TaskKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Probability of the answer; of findings their mean.
const CONFIDENCE: &str = "confidence";
/// Logarithm to base 2 of the geometric mean of the sides, px.
const SIDE: &str = "log2_side";
/// Mean of what the network sees, 0 black, 1 white.
const BRIGHTNESS: &str = "brightness";

/// Logarithm to base 2 of the score of the scope: above 0 an image is out of it.
const SCOPE: &str = "log2_scope";

/// Of a score: an image that is another's copy is not endlessly near.
const LEAST_SCORE: f64 = 1e-3;

/// What an image looked like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Look {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Mean of what the network sees, in [0, 1].
    pub(crate) brightness: f64,
}

/// The charts of one plug-in, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Monitor {
    pub(super) task: String,
    pub(super) charts: BTreeMap<String, Chart>,
}

impl Monitor {
    /// References are what the card says of its test split; what it does not say is learned.
    pub(super) fn new(card: &TaskCard) -> Self {
        let mut charts = BTreeMap::new();
        let test = card.test.as_ref().filter(|test| test.images > 1);
        let images = test.map_or(0.0, |test| test.images as f64);
        match card.kind {
            TaskKind::Segmentation | TaskKind::Regression => {
                for (place, name) in card.classes.iter().enumerate() {
                    let answers = test
                        .and_then(|test| test.pairs.get(place))
                        .map(|pairs| pairs.iter().map(|pair| f64::from(pair[1])));
                    charts.insert(format!("value {name}"), Chart::new(Figure::Mean, answers.and_then(of_values)));
                }
            }
            TaskKind::SingleLabel | TaskKind::Ordinal | TaskKind::MultiLabel => {
                for (place, name) in card.classes.iter().enumerate() {
                    let counts = test.and_then(|test| test.counts.get(place));
                    let called = counts.map(|[both, falsely, ..]| {
                        let mean = (both + falsely) as f64 / images;
                        Reference { mean, variance: mean * (1.0 - mean), images }
                    });
                    charts.insert(format!("called {name}"), Chart::new(Figure::Share, called));
                }
                let bins = test.map(|test| test.reliability.iter().map(|bin| (bin.confidence, bin.count as f64)));
                let confidence = bins.and_then(of_bins).map(|reference| Reference { images, ..reference });
                charts.insert(CONFIDENCE.to_owned(), Chart::new(Figure::Mean, confidence));
            }
        }
        if card.scope.is_some() {
            charts.insert(SCOPE.to_owned(), Chart::new(Figure::Mean, None));
        }
        if card.bag.is_none() && card.volume.is_none() {
            charts.extend([SIDE, BRIGHTNESS].map(|name| (name.to_owned(), Chart::new(Figure::Mean, None))));
        }
        Monitor { task: card.task.clone(), charts }
    }

    /// Takes an answer; gives the names of charts that have gone outside, or come back.
    pub(super) fn add(&mut self, card: &TaskCard, decision: &Decision, look: Option<Look>) -> Vec<String> {
        let mut changed = Vec::new();
        let mut add = |name: String, value: f64| {
            if self.charts.get_mut(&name).is_some_and(|chart| chart.add(value)) {
                changed.push(name);
            }
        };
        for (place, class) in card.classes.iter().enumerate() {
            match card.kind {
                TaskKind::Segmentation | TaskKind::Regression => {
                    add(format!("value {class}"), decision.values.get(place).map_or(f64::NAN, |&value| value.into()));
                }
                TaskKind::MultiLabel => add(format!("called {class}"), decision.findings.contains(&place).into()),
                TaskKind::SingleLabel | TaskKind::Ordinal => {
                    add(format!("called {class}"), (decision.best() == place).into());
                }
            }
        }
        let probabilities = decision.probabilities.iter().map(|&p| f64::from(p));
        match card.kind {
            TaskKind::Segmentation | TaskKind::Regression => {}
            TaskKind::MultiLabel => {
                add(CONFIDENCE.to_owned(), probabilities.sum::<f64>() / decision.probabilities.len() as f64);
            }
            TaskKind::SingleLabel | TaskKind::Ordinal => add(CONFIDENCE.to_owned(), probabilities.fold(0.0, f64::max)),
        }
        if let Some(scope) = decision.scope {
            add(SCOPE.to_owned(), f64::from(scope.score).max(LEAST_SCORE).log2());
        }
        if let Some(Look { width, height, brightness }) = look {
            add(SIDE.to_owned(), (width as f64 * height as f64).log2() / 2.0);
            add(BRIGHTNESS.to_owned(), brightness);
        }
        changed
    }
}

/// Of values themselves.
fn of_values(values: impl Iterator<Item = f64>) -> Option<Reference> {
    of_bins(values.map(|value| (value, 1.0)))
}

/// Of values, each so many times: within a bin they are taken as equal.
fn of_bins(bins: impl Iterator<Item = (f64, f64)>) -> Option<Reference> {
    let bins: Vec<(f64, f64)> = bins.collect();
    let images: f64 = bins.iter().map(|bin| bin.1).sum();
    let mean = bins.iter().map(|(value, count)| value * count).sum::<f64>() / images;
    let variance = bins.iter().map(|(value, count)| count * (value - mean).powi(2)).sum::<f64>() / (images - 1.0);
    (images > 1.0).then_some(Reference { mean, variance, images })
}
