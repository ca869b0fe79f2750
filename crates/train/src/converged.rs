//! A head alone to convergence: what the field calls a linear probe. Features are standardised, the weights' squares penalised, and the
//! strength of the penalty is chosen on the validation split, along a path from the strongest to the weakest.

use crate::examples::Examples;
use crate::lbfgs::minimise;
use crate::objective::Objective;
use melo_vit::Head;
use rayon::prelude::*;

/// The path of `C`, the inverse strength of the penalty as scikit-learn's `LogisticRegression` has it.
pub(crate) const PATH: [f64; 13] = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];
/// Points of the path without a lower validation loss before it ends.
pub(crate) const PATIENCE: usize = 3;
/// Largest derivative of the mean loss at the end.
const TOLERANCE: f64 = 1e-5;
/// Of one point.
const ITERATIONS: usize = 1000;
/// Images whose part of a sum is computed together: the bounds do not depend on the number of threads.
const CHUNK: usize = 256;

/// What is solved, for every strength of the penalty.
pub(crate) struct Probe<'a> {
    /// `[images, width]`.
    features: &'a [f32],
    width: usize,
    examples: &'a dyn Examples,
    objective: &'a Objective,
    /// Of every feature over the training images, `[width]`.
    mean: Vec<f64>,
    deviation: Vec<f64>,
    normaliser: f64,
}

impl<'a> Probe<'a> {
    /// On features `[images, width]` of examples that are single images.
    pub(crate) fn new(features: &'a [f32], examples: &'a dyn Examples, objective: &'a Objective) -> Self {
        let images = examples.len();
        let width = features.len() / images;
        let mut mean = vec![0.0; width];
        let mut square = vec![0.0; width];
        for row in features.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        mean.iter_mut().for_each(|sum| *sum /= images as f64);
        for row in features.chunks_exact(width) {
            let from_mean = row.iter().zip(&mean).map(|(&x, mean)| f64::from(x) - mean);
            square.iter_mut().zip(from_mean).for_each(|(sum, x)| *sum += x * x);
        }
        // A feature that does not vary says nothing, whatever its weight.
        let deviation =
            square.into_iter().map(|sum| (sum / images as f64).sqrt()).map(|d| if d > 0.0 { d } else { 1.0 });
        let all: Vec<usize> = (0..examples.len()).collect();
        let normaliser = objective.normaliser(examples, &all);
        Probe { features, width, examples, objective, mean, deviation: deviation.collect(), normaliser }
    }

    /// Sets the head to what minimises the mean loss plus `Σ w² / (2 C n)` over the weights `w` of standardised features, begun where it is.
    /// Returns the mean loss, without the penalty.
    pub(crate) fn solve(&self, c: f64, head: &mut Head) -> f64 {
        let weights = head.weight.len();
        let penalty = 1.0 / (c * self.normaliser);
        let mut function = |at: &[f64], gradient: &mut [f64]| {
            let loss = self.loss(at, weights, gradient);
            gradient[..weights].iter_mut().zip(at).for_each(|(d, w)| *d += penalty * w);
            loss + 0.5 * penalty * at[..weights].iter().map(|w| w * w).sum::<f64>()
        };
        let found = minimise(self.standardised(head), TOLERANCE, ITERATIONS, &mut function).at;
        self.write(&found, head);
        self.loss(&found, weights, &mut vec![0.0; found.len()])
    }

    /// Weights `[classes, width]` and then biases `[classes]` of a head on standardised features.
    fn standardised(&self, head: &Head) -> Vec<f64> {
        let rows = head.weight.chunks_exact(self.width);
        let weights = rows.clone().flat_map(|row| row.iter().zip(&self.deviation).map(|(&w, d)| f64::from(w) * d));
        let shift = rows.map(|row| row.iter().zip(&self.mean).map(|(&w, mean)| f64::from(w) * mean).sum::<f64>());
        weights.chain(shift.zip(&head.bias).map(|(shift, &b)| f64::from(b) + shift)).collect()
    }

    /// The same on features as they are.
    fn raw(&self, at: &[f64], weights: usize) -> (Vec<f64>, Vec<f64>) {
        let width = self.width;
        let raw: Vec<f64> = at[..weights]
            .chunks_exact(width)
            .flat_map(|row| row.iter().zip(&self.deviation).map(|(w, d)| w / d))
            .collect();
        let shift = |row: &[f64]| row.iter().zip(&self.mean).map(|(w, mean)| w * mean).sum::<f64>();
        let bias = at[weights..].iter().zip(raw.chunks_exact(width)).map(|(b, row)| b - shift(row)).collect();
        (raw, bias)
    }

    fn write(&self, at: &[f64], head: &mut Head) {
        let (weight, bias) = self.raw(at, head.weight.len());
        head.weight.iter_mut().zip(weight).for_each(|(to, w)| *to = w as f32);
        head.bias.iter_mut().zip(bias).for_each(|(to, b)| *to = b as f32);
    }

    /// The mean loss, with its gradient.
    fn loss(&self, at: &[f64], weights: usize, gradient: &mut [f64]) -> f64 {
        let width = self.width;
        let (weight, bias) = self.raw(at, weights);
        let classes = bias.len();
        let of_chunk = |(chunk, rows): (usize, &[f32])| {
            let (mut loss, mut sums) = (0.0, vec![0.0; weights + classes]);
            let (mut logits, mut d_logits) = (vec![0.0; classes], vec![0.0; classes]);
            for (place, row) in rows.chunks_exact(width).enumerate() {
                let index = chunk * CHUNK + place;
                let of_classes = weight.chunks_exact(width).zip(&bias);
                logits.iter_mut().zip(of_classes).for_each(|(to, (w, b))| *to = (product(w, row) + b) as f32);
                let scale = self.examples.weight(index) / self.normaliser;
                loss += scale * self.objective.loss(self.examples.labels(index), &logits, 1.0, &mut d_logits);
                let (of_weights, of_biases) = sums.split_at_mut(weights);
                for ((d, sums), bias) in d_logits.iter().zip(of_weights.chunks_exact_mut(width)).zip(of_biases) {
                    let d = scale * f64::from(*d);
                    *bias += d;
                    sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += d * f64::from(x));
                }
            }
            (loss, sums)
        };
        let chunks: Vec<(f64, Vec<f64>)> = self.features.par_chunks(CHUNK * width).enumerate().map(of_chunk).collect();
        let mut loss = 0.0;
        gradient.fill(0.0);
        for (of_chunk, sums) in chunks {
            loss += of_chunk;
            gradient.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
        }
        let (of_weights, of_biases) = gradient.split_at_mut(weights);
        for (row, bias) in of_weights.chunks_exact_mut(width).zip(of_biases) {
            row.iter_mut()
                .zip(self.mean.iter().zip(&self.deviation))
                .for_each(|(d, (mean, by))| *d = (*d - *bias * mean) / by);
        }
        loss
    }
}

/// `Σ w x`, in eight sums.
fn product(weights: &[f64], features: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    let (of_weights, of_features) = (weights.chunks_exact(8), features.chunks_exact(8));
    let rest: f64 = of_weights.remainder().iter().zip(of_features.remainder()).map(|(w, &x)| w * f64::from(x)).sum();
    for (w, x) in of_weights.zip(of_features) {
        sums.iter_mut().zip(w.iter().zip(x)).for_each(|(sum, (w, &x))| *sum += w * f64::from(x));
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainConfig;
    use melo_data::{EpochAugment, Labels};
    use melo_vit::{ImageSource, TaskKind};
    use serde::Deserialize;

    /// What scikit-learn found, `tools/golden/linear_probe.py`.
    #[derive(Deserialize)]
    struct Golden {
        features: Vec<Vec<f32>>,
        labels: Vec<usize>,
        findings: Vec<Vec<u8>>,
        weights: Vec<f64>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        c: f64,
        logits: Vec<Vec<f64>>,
    }

    struct Labelled {
        labels: Vec<Labels>,
        weights: Vec<f64>,
    }

    impl Examples for Labelled {
        fn len(&self) -> usize {
            self.labels.len()
        }

        fn labels(&self, index: usize) -> &Labels {
            &self.labels[index]
        }

        fn weight(&self, index: usize) -> f64 {
            self.weights[index]
        }

        fn size(&self) -> usize {
            unreachable!("features are known")
        }

        fn epoch<'a>(&'a self, _: &'a [usize], _: Option<EpochAugment<'a>>) -> Box<dyn ImageSource + 'a> {
            unreachable!("features are known")
        }
    }

    #[test]
    fn it_is_the_logistic_regression_of_scikit_learn() {
        let golden: Golden = serde_json::from_str(include_str!("../tests/golden/linear_probe.json")).expect("the file");
        let features: Vec<f32> = golden.features.concat();
        let (images, classes) = (golden.features.len(), golden.cases[0].logits[0].len());
        for case in &golden.cases {
            let multi = case.name == "multi_label";
            let (kind, labels) = match multi {
                true => (TaskKind::MultiLabel, golden.findings.iter().cloned().map(Labels::Multi).collect::<Vec<_>>()),
                false => (TaskKind::SingleLabel, golden.labels.iter().map(|&class| Labels::Single(class)).collect()),
            };
            let weights = if case.name == "weighted" { golden.weights.clone() } else { vec![1.0; images] };
            let examples = Labelled { labels, weights };
            let config = TrainConfig { label_smoothing: 0.0, ..TrainConfig::new(1) };
            let objective = Objective::new(&config, kind, classes, &examples);
            let mut head = Head::zeros(classes, features.len() / images);
            Probe::new(&features, &examples, &objective).solve(case.c, &mut head);
            let largest = case.logits.iter().flatten().fold(0.0, |top: f64, x| top.max(x.abs()));
            for (row, expected) in golden.features.iter().zip(&case.logits) {
                let of = |class: usize| {
                    let weights = head.weight.chunks_exact(row.len()).nth(class).expect("a row a class");
                    weights.iter().zip(row).map(|(w, x)| f64::from(w * x)).sum::<f64>() + f64::from(head.bias[class])
                };
                let mut logits: Vec<f64> = (0..classes).map(of).collect();
                if !multi {
                    let mean = logits.iter().sum::<f64>() / classes as f64;
                    logits.iter_mut().for_each(|x| *x -= mean);
                }
                for (found, expected) in logits.iter().zip(expected) {
                    let (name, c) = (&case.name, case.c);
                    assert!((found - expected).abs() < 2e-3 * largest, "{name}, C {c}: {found}, expected {expected}");
                }
            }
        }
    }
}
