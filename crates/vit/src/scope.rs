//! Scope: how far an image is from those that a plug-in was trained on, so that it can say "not for me".
//!
//! Blocks of the pass that is computed anyway give of each image class token and mean patch token, see
//! [`crate::Engine::forward_intermediates`]: `f [w]`. With mean `μ` and deviation `σ` of the training images in each place, a matrix `R` of
//! signs and the inverse Cholesky factor `W` of the shrunk covariance of `R z` (Ledoit & Wolf, J. Multivariate Analysis 88, 2004):
//!
//! ```text
//! z = (f - μ) / σ        y = W R z / √w  [m]
//! ```
//!
//! Two distances count: of `y` from the mean, which is Mahalanobis' (Lee et al., NeurIPS 2018), and from the k-th nearest of some training
//! images (Sun et al., ICML 2022), both root mean squares over the `m` places. The score is the larger of the two in parts of its limit, which
//! validation images have set: above 1 an image is out of scope.

use crate::config::VitConfig;
use crate::invalid::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Numbers of a description at most: what a card claims is made room for.
const MAX_POINTS: usize = 4096;
const MAX_DIMENSIONS: usize = 1024;

/// Shape of a description; since format 10 of a card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeConfig {
    /// Blocks that are looked at, from 0 and ascending.
    pub blocks: Vec<usize>,
    /// Places of the projection, `m`.
    pub dimensions: usize,
    /// Training images that are kept.
    pub points: usize,
    /// Which of them counts, 1 the nearest.
    pub neighbour: usize,
}

/// From which distances on an image is out of scope; fitted where a calibration is, since format 10 of a card.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeLimits {
    /// The share of images like those of the training that are called out of scope, as promised, between 0 and 1.
    pub false_alarms: f64,
    /// Largest distances from the mean and from the neighbour; none where there were too few patients for the promise, and nothing is said.
    pub limits: Option<[f64; 2]>,
    /// Patients that they were fitted on.
    pub patients: u64,
}

/// What a plug-in says of an image being one for it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct InScope {
    /// False where the score is above 1.
    pub in_scope: bool,
    /// The larger of two distances in parts of its limit.
    #[serde(rename = "scope_score")]
    pub score: f32,
}

/// What the score is called where it stands beside the names of classes: no class of a task with a scope is called so.
pub const SCOPE_SCORE: &str = "scope_score";

impl InScope {
    /// By its score.
    pub fn of(score: f32) -> Self {
        InScope { in_scope: score <= 1.0, score }
    }
}

/// `in scope (0.71)`, `not in scope (3.2)`.
impl fmt::Display for InScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.in_scope { "in scope" } else { "not in scope" };
        write!(f, "{word} ({:.2})", self.score)
    }
}

/// What a plug-in gives of an image, before its calibration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// Logits `[c]`; of a mask the scores of each pixel, `[m, m, c]`.
    pub logits: Vec<f32>,
    /// See [`Scope::distances`]; none of a plug-in without a description.
    pub distances: Option<[f64; 2]>,
}

/// The description of the images that a plug-in was trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// Its shape.
    pub config: ScopeConfig,
    /// Mean in each place, `[w]`.
    pub mean: Vec<f32>,
    /// One over the deviation, `[w]`.
    pub scale: Vec<f32>,
    /// `W [m, m]`, lower triangular.
    pub whitening: Vec<f32>,
    /// `y` of training images, `[points, m]`.
    pub points: Vec<f32>,
}

impl ScopeConfig {
    /// Numbers that it looks at, `w`.
    pub fn width(&self, vit: &VitConfig) -> usize {
        self.blocks.len() * vit.intermediate_width()
    }

    /// Checks what a card says.
    ///
    /// # Errors
    /// [`Invalid`] for what is wrong.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let wrong = |reason: String| Err(Invalid::new("scope", format!("scope: {reason}")));
        let ScopeConfig { blocks, dimensions, points, neighbour } = self;
        if blocks.is_empty() || !blocks.is_sorted_by(|a, b| a < b) {
            return wrong(format!("blocks {blocks:?} are none or not ascending"));
        }
        if !(1..=MAX_DIMENSIONS).contains(dimensions) || !(1..=MAX_POINTS).contains(points) {
            return wrong(format!(
                "{points} points in {dimensions} dimensions, expected 1 to {MAX_POINTS} in 1 to {MAX_DIMENSIONS}"
            ));
        }
        match (1..=*points).contains(neighbour) {
            true => Ok(()),
            false => wrong(format!("neighbour {neighbour} of {points} points")),
        }
    }

    /// Checks that a network has the blocks.
    ///
    /// # Errors
    /// [`Invalid`].
    pub(crate) fn check_network(&self, vit: &VitConfig) -> Result<(), Invalid> {
        match self.blocks.iter().find(|block| **block >= vit.depth) {
            Some(block) => Err(Invalid::new("scope", format!("scope: block {block} of {}", vit.depth))),
            None => Ok(()),
        }
    }
}

impl ScopeLimits {
    /// What distances come to; none where no limit could be fitted.
    pub fn read(&self, distances: [f64; 2]) -> Option<InScope> {
        let [mean, neighbour] = self.limits?;
        let score = (distances[0] / mean).max(distances[1] / neighbour) as f32;
        Some(InScope::of(score))
    }

    /// Checks what a card says.
    ///
    /// # Errors
    /// [`Invalid`].
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let wrong = |reason: String| Err(Invalid::new("scope_limits", format!("scope_limits: {reason}")));
        if !(self.false_alarms > 0.0 && self.false_alarms < 1.0) {
            return wrong(format!("false_alarms {} is not between 0 and 1", self.false_alarms));
        }
        match self.limits.iter().flatten().find(|limit| !(limit.is_finite() && **limit > 0.0)) {
            Some(limit) => wrong(format!("limit {limit} is not finite and above 0")),
            None => Ok(()),
        }
    }
}

impl Scope {
    /// Of the names of its tensors.
    pub(crate) const PREFIX: &str = "scope.";

    /// A description before it is fitted: nothing is centred, scaled or turned.
    pub fn zeros(config: &ScopeConfig, vit: &VitConfig) -> Self {
        let (w, m) = (config.width(vit), config.dimensions);
        Scope {
            config: config.clone(),
            mean: vec![0.0; w],
            scale: vec![0.0; w],
            whitening: vec![0.0; m * m],
            points: vec![0.0; config.points * m],
        }
    }

    /// Name and shape of every tensor, in the order of [`Scope::tensors`].
    pub(crate) fn tensor_shapes(config: &ScopeConfig, vit: &VitConfig) -> Vec<(String, Vec<usize>)> {
        let (w, m) = (config.width(vit), config.dimensions);
        let shapes =
            [("mean", vec![w]), ("scale", vec![w]), ("whitening", vec![m, m]), ("points", vec![config.points, m])];
        shapes.into_iter().map(|(name, shape)| (format!("{}{name}", Scope::PREFIX), shape)).collect()
    }

    /// Mean, scale, whitening, points.
    pub(crate) fn tensors(&self) -> [&Vec<f32>; 4] {
        [&self.mean, &self.scale, &self.whitening, &self.points]
    }

    /// As [`Scope::tensors`], to write to.
    pub(crate) fn tensors_mut(&mut self) -> [&mut Vec<f32>; 4] {
        [&mut self.mean, &mut self.scale, &mut self.whitening, &mut self.points]
    }

    /// `R z / √w [m]` of an image whose blocks gave `f [w]`.
    pub fn projected(&self, f: &[f32]) -> Vec<f64> {
        assert_eq!(f.len(), self.mean.len(), "intermediates of another description");
        let standard = f.iter().zip(&self.mean).zip(&self.scale);
        let z: Vec<f64> =
            standard.map(|((f, mean), scale)| (f64::from(*f) - f64::from(*mean)) * f64::from(*scale)).collect();
        let share = 1.0 / (z.len() as f64).sqrt();
        let row = |row: usize| {
            let words = z.chunks(SIGNS).enumerate();
            let sums = words.map(|(word, z)| {
                let signs = signs(row, word);
                z.iter().enumerate().map(|(at, z)| if signs >> at & 1 == 1 { *z } else { -z }).sum::<f64>()
            });
            share * sums.sum::<f64>()
        };
        (0..self.config.dimensions).map(row).collect()
    }

    /// `y [m]` of what [`Scope::projected`] gives.
    pub fn whitened(&self, projected: &[f64]) -> Vec<f64> {
        let rows = self.whitening.chunks_exact(self.config.dimensions);
        rows.map(|row| row.iter().zip(projected).map(|(w, x)| f64::from(*w) * x).sum()).collect()
    }

    /// Distance from the mean of the training images, and from the neighbour that counts, of an image whose blocks gave `f [w]`.
    ///
    /// # Panics
    /// If there are not as many numbers.
    pub fn distances(&self, f: &[f32]) -> [f64; 2] {
        let (y, m) = (self.whitened(&self.projected(f)), self.config.dimensions);
        let length = |squares: f64| (squares / m as f64).sqrt();
        let square = |point: &[f32]| point.iter().zip(&y).map(|(p, y)| (y - f64::from(*p)).powi(2)).sum::<f64>();
        let mut squares: Vec<f64> = self.points.chunks_exact(m).map(square).collect();
        let (_, neighbour, _) = squares.select_nth_unstable_by(self.config.neighbour - 1, f64::total_cmp);
        [length(y.iter().map(|y| y * y).sum()), length(*neighbour)]
    }

    /// The same, out of what more blocks than its own gave, `asked` of them.
    pub fn distances_among(&self, asked: &[usize], f: &[f32]) -> [f64; 2] {
        let width = f.len() / asked.len().max(1);
        let own = asked.iter().zip(f.chunks_exact(width)).filter(|(block, _)| self.config.blocks.contains(block));
        self.distances(&own.flat_map(|(_, f)| f).copied().collect::<Vec<_>>())
    }
}

/// Signs of a word.
const SIGNS: usize = 32;

/// The signs of `R` at a row, of the 32 places from `32 word` on, the lowest bit first: MurmurHash3's finaliser of `row · 2^16 + word`.
fn signs(row: usize, word: usize) -> u32 {
    let mut k = (row << 16 | word) as u32;
    k = k.wrapping_add(0x9e37_79b9);
    k ^= k >> 16;
    k = k.wrapping_mul(0x85eb_ca6b);
    k ^= k >> 13;
    k = k.wrapping_mul(0xc2b2_ae35);
    k ^ k >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        let config = ScopeConfig { blocks: vec![3], dimensions: 2, points: 3, neighbour: 2 };
        Scope {
            config,
            mean: vec![1.0; 40],
            scale: vec![2.0; 40],
            whitening: vec![0.5, 0.0, 1.0, 0.25],
            points: vec![0.0, 0.0, 3.0, 4.0, 30.0, 40.0],
        }
    }

    #[test]
    fn signs_are_as_the_format_says() {
        let found = [(0, 0), (0, 1), (1, 0), (47, 95)].map(|(row, word)| signs(row, word));
        assert_eq!(found, [0x92ca_2f0e, 0x96a0_f96b, 0x5032_e8f1, 0xcc7d_3f7c], "{found:#x?}");
        let ones: u32 = (0..48).flat_map(|row| (0..24).map(move |word| signs(row, word).count_ones())).sum();
        assert!((17_800..19_100).contains(&ones), "half of 36,864: {ones}");
    }

    #[test]
    fn the_mean_is_at_no_distance_and_distances_are_those_of_the_definition() {
        let scope = scope();
        assert_eq!(scope.distances(&[1.0; 40]), [0.0, (25.0_f64 / 2.0).sqrt()], "the second of three points");
        let f: Vec<f32> = (0..40).map(|place| 1.0 + place as f32 / 8.0).collect();
        let sign = |row: usize, place: usize| if signs(row, place / 32) >> (place % 32) & 1 == 1 { 1.0 } else { -1.0 };
        let r: Vec<f64> =
            (0..2).map(|row| (0..40).map(|at| sign(row, at) * at as f64 / 4.0).sum::<f64>() / 40f64.sqrt()).collect();
        let y = [0.5 * r[0], r[0] + 0.25 * r[1]];
        let mean = ((y[0] * y[0] + y[1] * y[1]) / 2.0).sqrt();
        let mut to: Vec<f64> = [[0.0, 0.0], [3.0, 4.0], [30.0, 40.0]]
            .iter()
            .map(|p| (((y[0] - p[0]).powi(2) + (y[1] - p[1]).powi(2)) / 2.0).sqrt())
            .collect();
        to.sort_by(f64::total_cmp);
        let found = scope.distances(&f);
        assert!((found[0] - mean).abs() < 1e-12 && (found[1] - to[1]).abs() < 1e-12, "{found:?}, {mean}, {to:?}");
        let among = [vec![9.0; 40], f.clone(), vec![7.0; 40]].concat();
        assert_eq!(scope.distances_among(&[1, 3, 5], &among), found);
    }

    #[test]
    fn the_larger_part_of_a_limit_is_the_score_and_one_is_in_scope() {
        let limits = |limits| ScopeLimits { false_alarms: 0.05, limits, patients: 20 };
        let read = |distances| limits(Some([2.0, 4.0])).read(distances).unwrap();
        assert_eq!(read([1.0, 3.0]), InScope { in_scope: true, score: 0.75 });
        assert_eq!(read([2.0, 4.0]), InScope { in_scope: true, score: 1.0 });
        assert_eq!(read([3.0, 4.0]), InScope { in_scope: false, score: 1.5 });
        assert_eq!(limits(None).read([1.0, 1.0]), None, "too few patients say nothing");
        assert_eq!(read([3.0, 4.0]).to_string(), "not in scope (1.50)");
    }
}
