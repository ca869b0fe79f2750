//! Scope: training images described, and from which distance on an image is not one of their kind.

use crate::answers::{Answers, passes};
use crate::error::Error;
use crate::judged::Cases;
use melo_data::Dataset;
use melo_eval::{ClusteredShare, Estimate, clusters_needed, conformal_threshold};
use melo_vit::{Engine, Plugin, SCOPE_SCORE, Scope, ScopeConfig, ScopeLimits, Storage, TaskCard, VitConfig};

/// Level of the intervals.
const LEVEL: f64 = 0.95;
/// Training images that are looked at, at most.
const IMAGES: usize = 1024;
/// Shape of a description, see `docs/decisions/0033-scope.md`.
const DIMENSIONS: usize = 48;
const POINTS: usize = 192;
const NEIGHBOUR: usize = 5;
/// The least deviation of a place, in parts of the median one: a place that never moved would decide alone.
const LEAST_DEVIATION: f64 = 0.05;
/// The largest number that every storage holds, f16's.
const LARGEST: f64 = 65_504.0;
/// Share of the validation images within either distance, in parts of which the two are compared.
const USUAL: f64 = 0.9;

/// What is asked of a scope.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScopeSettings {
    /// The share of images like those of the training that are called out of scope, between 0 and 1.
    pub false_alarms: f64,
}

impl Default for ScopeSettings {
    /// One of twenty.
    fn default() -> Self {
        ScopeSettings { false_alarms: 0.05 }
    }
}

impl ScopeSettings {
    /// Checks what is asked.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<(), Error> {
        let ScopeSettings { false_alarms } = self;
        match *false_alarms > 0.0 && *false_alarms < 1.0 {
            true => Ok(()),
            false => {
                let reason = format!("is {false_alarms}, expected a number between 0 and 1");
                Err(Error::Setting { setting: "scope_false_alarms", reason })
            }
        }
    }
}

impl From<&ScopeLimits> for ScopeSettings {
    fn from(limits: &ScopeLimits) -> Self {
        ScopeSettings { false_alarms: limits.false_alarms }
    }
}

/// Blocks that are looked at: a quarter of the way and half of it.
fn blocks(vit: &VitConfig) -> Vec<usize> {
    let mut blocks = vec![(vit.depth / 4).saturating_sub(1), (vit.depth / 2).saturating_sub(1)];
    blocks.dedup();
    blocks
}

/// True where answers to the images of a task can come with a scope: of single images.
pub(crate) fn has_scope(card: &TaskCard) -> bool {
    card.bag.is_none() && card.volume.is_none() && card.classes.iter().all(|class| class != SCOPE_SCORE)
}

/// The same of an ensemble whose members have the first `shared` blocks in common: what is looked at has to be the same in all of them.
pub(crate) fn have_scope(card: &TaskCard, vit: &VitConfig, shared: usize) -> bool {
    has_scope(card) && blocks(vit).iter().all(|block| *block < shared)
}

/// Describes the training images of a plug-in whose numbers are those that its file will hold; at most 1,024 of them, spread over all.
///
/// # Errors
/// As [`Engine::forward_intermediates`].
pub(crate) fn describe(
    engine: &dyn Engine,
    plugin: &Plugin,
    train: &Dataset,
    storage: Storage,
) -> Result<Scope, Error> {
    let vit = engine.backbone().config();
    let images = train.len().min(IMAGES);
    let order: Vec<usize> = (0..images).map(|image| image * train.len() / images).collect();
    let config = ScopeConfig {
        blocks: blocks(vit),
        dimensions: DIMENSIONS,
        points: POINTS.min(images),
        neighbour: NEIGHBOUR.min(images),
    };
    let mut scope = Scope::zeros(&config, vit);
    let (images, mut seen) = (train.epoch(&order, None), Vec::with_capacity(images * config.width(vit)));
    passes(engine, plugin, (&images, order.len(), train.spec().size), &config.blocks, |_, intermediates| {
        seen.extend_from_slice(intermediates);
    })?;
    fit(&mut scope, &seen, storage);
    Ok(scope)
}

/// Fits a description to what blocks gave of images, `[n, w]`, in numbers that its file will hold.
fn fit(scope: &mut Scope, seen: &[f32], storage: Storage) {
    let (w, m) = (scope.mean.len(), scope.config.dimensions);
    let n = (seen.len() / w) as f64;
    let mean = |of: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
        let mut sums = vec![0.0; w];
        for row in seen.chunks_exact(w) {
            sums.iter_mut().zip(row).enumerate().for_each(|(at, (sum, x))| *sum += of(at, f64::from(*x)));
        }
        sums.into_iter().map(|sum| sum / n).collect()
    };
    let means = mean(&|_, x| x);
    let deviations: Vec<f64> = mean(&|at, x| (x - means[at]).powi(2)).into_iter().map(f64::sqrt).collect();
    let mut sorted = deviations.clone();
    sorted.sort_by(f64::total_cmp);
    let least = (LEAST_DEVIATION * sorted[w / 2]).max(f64::from(f32::MIN_POSITIVE).sqrt());
    let stored = |values: &mut dyn Iterator<Item = f64>| -> Vec<f32> {
        values.map(|x| storage.round(x.clamp(-LARGEST, LARGEST) as f32)).collect()
    };
    scope.mean = stored(&mut means.iter().copied());
    scope.scale = stored(&mut deviations.iter().map(|deviation| 1.0 / deviation.max(least)));
    let projected: Vec<Vec<f64>> = seen.chunks_exact(w).map(|row| scope.projected(row)).collect();
    scope.whitening = stored(&mut whitening(&projected, m).into_iter());
    let kept = (0..scope.config.points).map(|point| &projected[point * projected.len() / scope.config.points]);
    let points: Vec<f64> = kept.flat_map(|projected| scope.whitened(projected)).collect();
    scope.points = stored(&mut points.into_iter());
}

/// The inverse of the Cholesky factor of the covariance of rows of mean zero, `[m, m]`, shrunk to a multiple of the identity by as much as its
/// error asks for (Ledoit & Wolf 2004, lemma 3.2 ff.).
fn whitening(rows: &[Vec<f64>], m: usize) -> Vec<f64> {
    let n = rows.len() as f64;
    let mut covariance = vec![0.0; m * m];
    for row in rows {
        for i in 0..m {
            covariance[i * m..(i + 1) * m].iter_mut().zip(row).for_each(|(sum, x)| *sum += row[i] * x / n);
        }
    }
    let mean = (0..m).map(|i| covariance[i * m + i]).sum::<f64>() / m as f64;
    let squares = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
    let all = squares(&covariance);
    let distance = all - m as f64 * mean * mean;
    let error = (rows.iter().map(|row| squares(row).powi(2)).sum::<f64>() / n - all) / n;
    let share = if distance > 0.0 { (error / distance).clamp(0.0, 1.0) } else { 1.0 };
    // Of images that are all alike nothing is left to be turned.
    let least = f64::from(f32::EPSILON);
    for i in 0..m {
        for j in 0..m {
            let target = if i == j { share * mean + least } else { 0.0 };
            covariance[i * m + j] = (1.0 - share) * covariance[i * m + j] + target;
        }
    }
    inverse_cholesky(covariance, m)
}

/// `L⁻¹ [m, m]` of a positive definite `S = L Lᵀ [m, m]`.
fn inverse_cholesky(mut s: Vec<f64>, m: usize) -> Vec<f64> {
    for i in 0..m {
        for j in 0..=i {
            let dot = (0..j).map(|k| s[i * m + k] * s[j * m + k]).sum::<f64>();
            let rest = s[i * m + j] - dot;
            s[i * m + j] = if i == j { rest.max(f64::MIN_POSITIVE).sqrt() } else { rest / s[j * m + j] };
        }
    }
    let mut inverse = vec![0.0; m * m];
    for column in 0..m {
        for i in column..m {
            let dot = (column..i).map(|k| s[i * m + k] * inverse[k * m + column]).sum::<f64>();
            let unit = f64::from(u8::from(i == column));
            inverse[i * m + column] = (unit - dot) / s[i * m + i];
        }
    }
    inverse
}

/// Limits that keep the promise on images that no training saw, from their distances; none where there are none.
///
/// # Errors
/// [`Error::Setting`].
pub(crate) fn fit_limits(val: &Answers, asked: &ScopeSettings) -> Result<Option<ScopeLimits>, Error> {
    asked.check()?;
    if val.distances.is_empty() {
        return Ok(None);
    }
    let patients = val.clusters();
    let cases = |of: &dyn Fn(&[f64; 2]) -> f64| -> Cases {
        val.distances.iter().map(of).zip(patients.iter().copied()).collect()
    };
    let usual = |place: usize| {
        let mut sorted: Vec<f64> = val.distances.iter().map(|distances| distances[place]).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[((USUAL * sorted.len() as f64).ceil() as usize - 1).min(sorted.len() - 1)].max(f64::MIN_POSITIVE)
    };
    let usual = [usual(0), usual(1)];
    let larger = |distances: &[f64; 2]| (distances[0] / usual[0]).max(distances[1] / usual[1]);
    let found = conformal_threshold(&cases(&larger), 1.0 - asked.false_alarms);
    let limits =
        found.most.map(|most| usual.map(|usual| usual * most)).filter(|limits| limits.iter().all(|limit| *limit > 0.0));
    Ok(Some(ScopeLimits { false_alarms: asked.false_alarms, limits, patients: found.clusters as u64 }))
}

/// The share of images that are out of scope by these limits, with its interval at 95 % by patient; none where nothing is said of them.
pub fn flagged(limits: &ScopeLimits, answers: &Answers) -> Option<Estimate> {
    let read = answers.distances.iter().map(|distances| limits.read(*distances));
    let cases: Option<Cases> = read
        .zip(answers.clusters())
        .map(|(read, patient)| Some((f64::from(u8::from(!read?.in_scope)), patient)))
        .collect();
    ClusteredShare::new(cases?).map(|share| share.estimate(LEVEL))
}

/// What a scope promises and how it kept it on the test split, in words; none without one or a test split.
pub fn scope_in_words(card: &TaskCard) -> Option<String> {
    let limits = card.scope_limits.as_ref()?;
    let Some(found) = card.metrics.get("test_scope_flagged") else { return scope_open_in_words(limits) };
    let [low, high] = card.metric_intervals.get("test_scope_flagged")?;
    Some(format!(
        "scope: {:.3} of the test images are called out of scope [{low:.3}, {high:.3}], promised at most {}",
        found, limits.false_alarms
    ))
}

/// That no image is called out of scope, where patients were too few for the promise.
pub fn scope_open_in_words(limits: &ScopeLimits) -> Option<String> {
    let needed = clusters_needed(1.0 - limits.false_alarms);
    let ScopeLimits { false_alarms, patients, .. } = limits;
    limits.limits.is_none().then(|| {
        let why = match *patients < needed as u64 {
            true => format!("{patients} patients, and {false_alarms} false alarms need {needed}"),
            false => "the images of the training, or of the validation split, are all alike".to_owned(),
        };
        format!("nothing is said of an image being in scope: {why}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use melo_vit::TaskKind;

    /// Rows of mean zero: `[a + b, a - b, c]` with all signs of three lengths.
    fn rows() -> Vec<Vec<f64>> {
        let signs = (0..8).map(|bits: usize| [0, 1, 2].map(|place| if bits >> place & 1 == 1 { 1.0 } else { -1.0 }));
        signs.map(|[a, b, c]| vec![3.0 * a + b, 3.0 * a - b, 0.1 * c]).collect()
    }

    #[test]
    fn whitened_rows_are_a_ball_as_far_as_their_number_allows() {
        // So many rows that hardly anything is shrunk.
        let rows: Vec<Vec<f64>> = (0..1000).flat_map(|_| rows()).collect();
        let w = whitening(&rows, 3);
        assert!(w[1] == 0.0 && w[2] == 0.0 && w[5] == 0.0, "lower triangular: {w:?}");
        let y: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| w.chunks_exact(3).map(|w| w.iter().zip(row).map(|(w, x)| w * x).sum()).collect())
            .collect();
        for i in 0..3 {
            for j in 0..3 {
                let found = y.iter().map(|y| y[i] * y[j]).sum::<f64>() / y.len() as f64;
                // The third place is as small as what is added to it.
                let expected = f64::from(u8::from(i == j));
                assert!((found - expected).abs() < if i == 2 { 0.2 } else { 2e-3 }, "{i} {j}: {found}");
            }
        }
    }

    #[test]
    fn the_covariance_is_shrunk_as_scikit_learn_shrinks_it() {
        let w = whitening(&rows(), 3);
        // sklearn.covariance.ledoit_wolf(rows, assume_centered=True), inverse of its Cholesky factor.
        let expected = [0.318706048, 0.0, 0.0, -0.390571582, 0.504102873, 0.0, 0.0, 0.0, 1.76822652];
        let worst = w.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-5, "{w:?}");
    }

    #[test]
    fn images_that_are_all_alike_give_finite_numbers() {
        assert!(whitening(&vec![vec![0.0; 3]; 5], 3).iter().all(|x| x.is_finite()));
    }

    fn answers(distances: Vec<[f64; 2]>) -> Answers {
        let n = distances.len();
        Answers {
            kind: TaskKind::SingleLabel,
            classes: 2,
            names: (0..n).map(|i| format!("{i:03}.png")).collect(),
            patients: vec![None; n],
            labels: vec![0; n],
            numbers: Vec::new(),
            logits: vec![0.0; 2 * n],
            masks: Vec::new(),
            distances,
        }
    }

    #[test]
    fn limits_keep_the_promise_and_too_few_patients_say_nothing() {
        let val = answers((1..=39).map(|i| [f64::from(i), 1.0]).collect());
        let asked = ScopeSettings { false_alarms: 0.05 };
        let limits = fit_limits(&val, &asked).unwrap().unwrap();
        let [mean, neighbour] = limits.limits.unwrap();
        // The 38th of 39: two in forty are beyond.
        assert!((mean - 38.0).abs() < 1e-9 && neighbour > 1.0, "{limits:?}");
        assert_eq!((limits.patients, flagged(&limits, &val).unwrap().value), (39, 1.0 / 39.0));
        let few = fit_limits(&answers(vec![[1.0, 1.0]; 18]), &asked).unwrap().unwrap();
        assert_eq!((few.limits, flagged(&few, &val)), (None, None));
        assert!(scope_open_in_words(&few).unwrap().contains("18 patients, and 0.05 false alarms need 19"));
        let alike = fit_limits(&answers(vec![[0.0, 0.0]; 39]), &asked).unwrap().unwrap();
        assert!(scope_open_in_words(&alike).unwrap().contains("are all alike"), "{alike:?}");
        assert_eq!(fit_limits(&answers(Vec::new()), &asked).unwrap(), None);
        assert!(fit_limits(&val, &ScopeSettings { false_alarms: 1.0 }).is_err());
    }
}
