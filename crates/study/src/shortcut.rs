//! A baseline that never looks: how far size, brightness and colour alone tell the classes apart.
//!
//! One logistic regression a class against the rest, on features standardised over train, minimises
//!
//! ```text
//! ½ w·w + Σᵢ log(1 + exp(-sᵢ (w·xᵢ + b))),   sᵢ = 1 if image i of train shows the class, else -1
//! ```
//!
//! which is scikit-learn's `LogisticRegression(C=1.0)`: strictly convex but for `b`, which is not penalised. Newton's method finds
//! the minimum in f64, without chance and on one thread.

use melo_data::{Appearance, Manifest, Split};

/// From this test AUC on, [`audit`](crate::audit()) warns. Half of what separates chance (0.5) from 0.9.
pub const SHORTCUT_AUC: f64 = 0.7;

/// Features of an image, in order.
const FEATURES: [&str; 9] = [
    "width",
    "height",
    "width / height",
    "file bytes a pixel",
    "mean brightness",
    "deviation of brightness",
    "mean saturation",
    "mean red cast",
    "mean blue cast",
];

/// Weights and `b`.
const PARAMETERS: usize = FEATURES.len() + 1;
/// Newton steps at most; a handful is enough.
const STEPS: usize = 100;
/// Converged when no entry of the gradient exceeds this part of the number of images.
const TOLERANCE: f64 = 1e-10;

/// What the baseline reaches.
#[derive(Clone, Debug, PartialEq)]
pub struct Shortcut {
    /// Macro AUC, one class against the rest, on the test split; `None` where no class can be learned and tested.
    pub auc: Option<f64>,
    /// The features that vary in train, in words.
    pub features: String,
}

/// Trains the baseline on train and measures it on test.
///
/// `appearances` are those of the manifest's rows, as [`melo_data::examine`] gives them; images without one are left
/// out. A class that no image, or every image, of train or of test shows is left out of the mean.
///
/// # Panics
/// If there is not one appearance a row.
pub fn shortcut(manifest: &Manifest, appearances: &[Option<Appearance>]) -> Shortcut {
    assert_eq!(appearances.len(), manifest.rows.len(), "one appearance a row");
    let of_split = |split| -> (Vec<usize>, Vec<[f64; FEATURES.len()]>) {
        let rows = manifest.rows.iter().zip(appearances).enumerate();
        let known = rows.filter(|(_, (row, _))| row.split == Some(split));
        known.filter_map(|(index, (_, appearance))| appearance.map(|a| (index, features(&a)))).unzip()
    };
    let (train_rows, mut train) = of_split(Split::Train);
    let (test_rows, mut test) = of_split(Split::Test);
    let scaling = Scaling::of(&train);
    [&mut train, &mut test].into_iter().flatten().for_each(|x| scaling.apply(x));

    let auc = |class: usize| {
        let shows =
            |rows: &[usize]| -> Vec<bool> { rows.iter().map(|&row| manifest.rows[row].labels.has(class)).collect() };
        let model = Logistic::fit(&train, &shows(&train_rows))?;
        // Not the probability: it has one value for all sure answers.
        let scores: Vec<f32> = test.iter().map(|x| model.score(x) as f32).collect();
        melo_eval::roc_auc(&scores, &shows(&test_rows))
    };
    let aucs: Vec<f64> = (0..manifest.classes.len()).filter_map(auc).collect();
    let names = FEATURES.iter().zip(scaling.deviation).filter(|(_, deviation)| *deviation > 0.0);
    Shortcut {
        auc: (!aucs.is_empty()).then(|| aucs.iter().sum::<f64>() / aucs.len() as f64),
        features: names.map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
    }
}

fn features(appearance: &Appearance) -> [f64; FEATURES.len()] {
    let (width, height) = (appearance.width as f64, appearance.height as f64);
    [
        width,
        height,
        width / height,
        appearance.bytes as f64 / (width * height),
        appearance.brightness,
        appearance.contrast,
        appearance.saturation,
        appearance.red_cast,
        appearance.blue_cast,
    ]
}

/// Mean and (population) deviation of each feature over train; a deviation of 0 where it does not vary.
struct Scaling {
    mean: [f64; FEATURES.len()],
    deviation: [f64; FEATURES.len()],
}

impl Scaling {
    fn of(rows: &[[f64; FEATURES.len()]]) -> Self {
        let n = rows.len().max(1) as f64;
        let mean: [f64; FEATURES.len()] =
            std::array::from_fn(|feature| rows.iter().map(|x| x[feature]).sum::<f64>() / n);
        let deviation = std::array::from_fn(|feature| {
            let variance = rows.iter().map(|x| (x[feature] - mean[feature]).powi(2)).sum::<f64>() / n;
            // Sums of equal numbers leave roundings that are no variation.
            if variance.sqrt() > 1e-9 * mean[feature].abs() { variance.sqrt() } else { 0.0 }
        });
        Self { mean, deviation }
    }

    fn apply(&self, x: &mut [f64; FEATURES.len()]) {
        for (feature, value) in x.iter_mut().enumerate() {
            let deviation = self.deviation[feature];
            *value = if deviation > 0.0 { (*value - self.mean[feature]) / deviation } else { 0.0 };
        }
    }
}

/// A fitted logistic regression.
struct Logistic {
    /// `w`, then `b`.
    parameters: [f64; PARAMETERS],
}

/// Loss, gradient and Hessian at a point.
struct Local {
    loss: f64,
    gradient: [f64; PARAMETERS],
    hessian: [[f64; PARAMETERS]; PARAMETERS],
}

impl Logistic {
    /// `None` unless some rows are positive and some are not.
    fn fit(rows: &[[f64; FEATURES.len()]], positive: &[bool]) -> Option<Self> {
        let positives = positive.iter().filter(|positive| **positive).count();
        if positives == 0 || positives == rows.len() {
            return None;
        }
        let mut model = Self { parameters: [0.0; PARAMETERS] };
        let mut local = model.local(rows, positive);
        for _ in 0..STEPS {
            let largest = local.gradient.iter().fold(0.0f64, |largest, entry| largest.max(entry.abs()));
            if largest <= TOLERANCE * rows.len() as f64 {
                break;
            }
            let step = solve(local.hessian, local.gradient);
            // Newton's step may overshoot where the loss is nearly linear: halve it until the loss falls.
            let shorter = (0..30).map(|halvings| 0.5f64.powi(halvings)).find_map(|length| {
                let parameters = std::array::from_fn(|k| model.parameters[k] - length * step[k]);
                let next = Self { parameters };
                let at_next = next.local(rows, positive);
                (at_next.loss < local.loss).then_some((next, at_next))
            });
            // No loss below this one: the minimum, as far as f64 goes.
            let Some(next) = shorter else { break };
            (model, local) = next;
        }
        Some(model)
    }

    /// `w·x + b`.
    fn score(&self, x: &[f64; FEATURES.len()]) -> f64 {
        let (weights, bias) = (&self.parameters[..FEATURES.len()], self.parameters[FEATURES.len()]);
        weights.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + bias
    }

    fn local(&self, rows: &[[f64; FEATURES.len()]], positive: &[bool]) -> Local {
        let mut local = Local { loss: 0.0, gradient: [0.0; PARAMETERS], hessian: [[0.0; PARAMETERS]; PARAMETERS] };
        for k in 0..FEATURES.len() {
            local.loss += 0.5 * self.parameters[k] * self.parameters[k];
            local.gradient[k] = self.parameters[k];
            local.hessian[k][k] = 1.0;
        }
        for (x, &positive) in rows.iter().zip(positive) {
            let score = self.score(x);
            let margin = if positive { score } else { -score };
            // log(1 + exp(-margin)), without overflow.
            local.loss += (-margin).max(0.0) + (-margin.abs()).exp().ln_1p();
            let probability = 1.0 / (1.0 + (-score).exp());
            let slope = probability - f64::from(u8::from(positive));
            let curvature = probability * (1.0 - probability);
            let with_one: [f64; PARAMETERS] = std::array::from_fn(|k| x.get(k).copied().unwrap_or(1.0));
            for (k, &xk) in with_one.iter().enumerate() {
                local.gradient[k] += slope * xk;
                for (l, &xl) in with_one.iter().enumerate() {
                    local.hessian[k][l] += curvature * xk * xl;
                }
            }
        }
        local
    }
}

/// `a⁻¹ b` of a symmetric positive definite `a`, by Cholesky's decomposition.
fn solve(mut a: [[f64; PARAMETERS]; PARAMETERS], mut b: [f64; PARAMETERS]) -> [f64; PARAMETERS] {
    for k in 0..PARAMETERS {
        for l in 0..=k {
            let sum: f64 = (0..l).map(|m| a[k][m] * a[l][m]).sum();
            // The floor keeps `b` finite when all answers are sure, and the curvature along it vanishes.
            a[k][l] = if k == l { (a[k][k] - sum).max(1e-12).sqrt() } else { (a[k][l] - sum) / a[l][l] };
        }
    }
    for k in 0..PARAMETERS {
        let sum: f64 = (0..k).map(|m| a[k][m] * b[m]).sum();
        b[k] = (b[k] - sum) / a[k][k];
    }
    for k in (0..PARAMETERS).rev() {
        let sum: f64 = (k + 1..PARAMETERS).map(|m| a[m][k] * b[m]).sum();
        b[k] = (b[k] - sum) / a[k][k];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use melo_data::{Labels, Row};
    use melo_vit::TaskKind;
    use serde::Deserialize;

    /// One case of `tests/golden/shortcut.json`, which `tools/golden/shortcut.py` describes.
    #[derive(Deserialize)]
    struct Golden {
        classes: usize,
        rows: Vec<[f64; 8]>,
        labels: Vec<usize>,
        train: usize,
        scores: Vec<Vec<f64>>,
        auc_macro: f64,
    }

    fn appearance(
        [width, height, bytes, brightness, contrast, saturation, red_cast, blue_cast]: [f64; 8],
    ) -> Appearance {
        let (width, height, bytes) = (width as usize, height as usize, bytes as u64);
        Appearance { width, height, bytes, brightness, contrast, saturation, red_cast, blue_cast }
    }

    fn manifest(classes: usize, labels: impl IntoIterator<Item = (Labels, Split)>) -> Manifest {
        let row = |(index, (labels, split)): (usize, (Labels, Split))| {
            let name = format!("{index}.png");
            Row {
                path: name.clone().into(),
                name,
                split: Some(split),
                labels,
                mask: None,
                bag: None,
                patient_id: None,
                line: index + 2,
                weight: 1.0,
                packed: None,
            }
        };
        let rows: Vec<Row> = labels.into_iter().enumerate().map(row).collect();
        let kind = match rows[0].labels {
            Labels::Multi(_) => TaskKind::MultiLabel,
            _ => TaskKind::SingleLabel,
        };
        let classes = (0..classes).map(|class| format!("class{class}")).collect();
        Manifest { path: "m.csv".into(), classes, kind, rows, reading: melo_data::Reading::default() }
    }

    /// Train, then half as many for test.
    fn split(index: usize, of: usize) -> Split {
        if index < of * 2 / 3 { Split::Train } else { Split::Test }
    }

    /// Numbers in [0, 1) without a pattern that a regression could find.
    fn draw(index: usize, step: usize) -> f64 {
        let mut mixed = (index * 1000 + step + 1) as u64;
        for shift in [29, 32] {
            mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^= mixed >> shift;
        }
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }

    fn random_look(index: usize) -> Appearance {
        let d = |step| draw(index, step);
        appearance([
            200.0 + (d(1) * 56.0).floor(),
            256.0,
            5000.0 + 900.0 * d(2),
            120.0 * d(3),
            40.0 * d(4),
            9.0 * d(5),
            d(6),
            d(7),
        ])
    }

    #[test]
    fn scores_and_auc_are_those_of_scikit_learn() {
        let cases: std::collections::BTreeMap<String, Golden> =
            serde_json::from_str(include_str!("../tests/golden/shortcut.json")).unwrap();
        assert_eq!(cases.len(), 2);
        for (name, case) in cases {
            let looks: Vec<Appearance> = case.rows.iter().map(|&row| appearance(row)).collect();
            let mut x: Vec<_> = looks.iter().map(features).collect();
            let scaling = Scaling::of(&x[..case.train]);
            x.iter_mut().for_each(|x| scaling.apply(x));
            for class in 0..case.classes {
                let positive: Vec<bool> = case.labels[..case.train].iter().map(|&label| label == class).collect();
                let model = Logistic::fit(&x[..case.train], &positive).unwrap();
                for (x, scores) in x[case.train..].iter().zip(&case.scores) {
                    // Both stop where the gradient has nine digits less than its terms; scores are of order 1 to 10.
                    let difference = model.score(x) - scores[class];
                    assert!(difference.abs() < 1e-6, "{name}, class {class}: off by {difference}");
                }
            }
            let labels = case.labels.iter().enumerate();
            let split = |index| if index < case.train { Split::Train } else { Split::Test };
            let manifest = manifest(case.classes, labels.map(|(index, &label)| (Labels::Single(label), split(index))));
            let found = shortcut(&manifest, &looks.iter().copied().map(Some).collect::<Vec<_>>());
            // The same order of scores is the same number, but for the mean.
            assert!((found.auc.unwrap() - case.auc_macro).abs() < 1e-12, "{name}");
            // All images are equally high.
            assert!(found.features.starts_with("width, width / height"), "{}", found.features);
        }
    }

    #[test]
    fn brightness_that_gives_the_class_away_is_found_and_noise_is_not() {
        let labels = |index: usize| Labels::Single(usize::from(draw(index, 99) < 0.5));
        let manifest = manifest(2, (0..600).map(|index| (labels(index), split(index, 600))));
        let noise: Vec<_> = (0..600).map(|index| Some(random_look(index))).collect();
        let found = shortcut(&manifest, &noise).auc.unwrap();
        // 200 test images of two equal classes: the deviation of a chance AUC is about 0.04.
        assert!((found - 0.5).abs() < 0.12, "{found}");

        let telling = |(row, look): (&Row, &Option<Appearance>)| {
            look.map(|look| Appearance {
                brightness: look.brightness + if row.labels.has(1) { 150.0 } else { 0.0 },
                ..look
            })
        };
        let telling: Vec<_> = manifest.rows.iter().zip(&noise).map(telling).collect();
        assert!(shortcut(&manifest, &telling).auc.unwrap() > 0.999);
    }

    #[test]
    fn findings_are_learned_one_by_one_and_undefined_ones_left_out() {
        // The first finding follows the width, the second is chance, the third is nowhere, the fourth is everywhere.
        let look = |index| Appearance { width: if draw(index, 8) < 0.3 { 300 } else { 200 }, ..random_look(index) };
        let looks: Vec<_> = (0..300).map(|index| Some(look(index))).collect();
        let findings = |index: usize, width: usize| {
            Labels::Multi(vec![u8::from(width == 300), u8::from(draw(index, 9) < 0.5), 0, 1])
        };
        let rows = (0..300).map(|index| (findings(index, look(index).width), split(index, 300)));
        let found = shortcut(&manifest(4, rows), &looks).auc.unwrap();
        assert!((found - 0.75).abs() < 0.1, "the mean of 1 and about ½: {found}");
    }

    #[test]
    fn nothing_to_learn_from_or_to_measure_on_is_no_auc() {
        let looks: Vec<_> = (0..30).map(|index| Some(random_look(index))).collect();
        let auc = |of: &dyn Fn(usize) -> (usize, Split), looks: &[Option<Appearance>]| {
            let rows = (0..30).map(|index| (Labels::Single(of(index).0), of(index).1));
            shortcut(&manifest(2, rows), looks).auc
        };
        let both = |index: usize| (index % 2, split(index, 30));
        assert!(auc(&both, &looks).is_some());
        assert_eq!(auc(&|index| (index % 2, Split::Train), &looks), None);
        assert_eq!(auc(&|index| (index % 2, Split::Test), &looks), None);
        assert_eq!(auc(&|index| (usize::from(index >= 20), split(index, 30)), &looks), None);
        assert_eq!(auc(&both, &[None; 30]), None);
        // Images that are all alike say nothing: every score is equal.
        let found = shortcut(
            &manifest(2, (0..30).map(|index| (Labels::Single(both(index).0), both(index).1))),
            &[Some(random_look(0)); 30],
        );
        assert_eq!((found.auc, found.features.as_str()), (Some(0.5), ""));
    }

    #[test]
    fn classes_that_are_separable_by_a_hair_still_have_a_minimum() {
        let mut rows = [[0.0; FEATURES.len()]; 40];
        let positive: Vec<bool> = (0..40).map(|index| index >= 39).collect();
        rows.iter_mut().zip(0..).for_each(|(x, index)| x[0] = f64::from(index) * 1e6);
        let model = Logistic::fit(&rows, &positive).unwrap();
        assert!(model.parameters.iter().all(|parameter| parameter.is_finite()));
        assert!(model.score(&rows[39]) > model.score(&rows[38]));
    }

    #[test]
    fn cholesky_solves() {
        let mut a = [[0.0; PARAMETERS]; PARAMETERS];
        for (k, row) in a.iter_mut().enumerate() {
            for (l, entry) in row.iter_mut().enumerate() {
                *entry = 1.0 / (1.0 + k.abs_diff(l) as f64) + if k == l { 1.0 } else { 0.0 };
            }
        }
        let b: [f64; PARAMETERS] = std::array::from_fn(|k| k as f64 - 3.0);
        let x = solve(a, b);
        for (row, b) in a.iter().zip(b) {
            // A well-conditioned system of order 1 to 10.
            assert!((row.iter().zip(x).map(|(a, x)| a * x).sum::<f64>() - b).abs() < 1e-12);
        }
    }
}
