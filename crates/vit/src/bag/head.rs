//! One row of features out of those of a bag's images, forward and backward.
//!
//! Gated attention (Ilse, Tomczak and Welling, "Attention-based deep multiple instance learning", 2018, equations 7 and 9), of features
//! `h [n, d]` and positions `e [n, p]`:
//!
//! ```text
//! x_k = h_k + P e_k        s_k = w · (tanh(V x_k + b_v) ∘ σ(U x_k + b_u))        a = softmax(s)        z = Σ_k a_k h_k
//! u = k / (n - 1), 0 of a single image        e_k = [sin πu, cos πu, sin 2πu, cos 2πu, …, sin (p/2)πu, cos (p/2)πu]
//! ```
//!
//! `V`, `U` are `[l, d]`, `P` is `[d, p]` and zero at the start. All in f32; sums are taken in one order, whatever the processor.

use crate::bag::config::{BagConfig, BagPooling};
use crate::random::truncated_normal;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Stream of a run's seed that the head's first values are drawn from.
const STREAM: u64 = 0x6261_6773;
/// Partial sums of a product: one a lane of a vector.
const LANES: usize = 16;

/// What pools a bag, or the gradients of it; without tensors for poolings that learn nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct BagHead {
    /// Settings.
    pub config: BagConfig,
    /// `V [l, d]`.
    pub v_weight: Vec<f32>,
    /// `b_v [l]`.
    pub v_bias: Vec<f32>,
    /// `U [l, d]`.
    pub u_weight: Vec<f32>,
    /// `b_u [l]`.
    pub u_bias: Vec<f32>,
    /// `w [1, l]`.
    pub score: Vec<f32>,
    /// `P [d, p]`.
    pub positions: Vec<f32>,
    width: usize,
}

/// What a bag comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Pooled {
    /// `z [d]`.
    pub features: Vec<f32>,
    /// How much each image counts, `[n]`, of sum 1: `a`; of a maximum the share of the features that are the image's.
    pub attention: Vec<f32>,
}

/// What the backward pass needs of one image.
struct Gate {
    /// `x [d]`.
    x: Vec<f32>,
    /// `tanh(V x + b_v) [l]`.
    tanh: Vec<f32>,
    /// `σ(U x + b_u) [l]`.
    sigmoid: Vec<f32>,
}

impl BagHead {
    /// All zeros, for features of width `d`.
    pub fn zeros(config: BagConfig, d: usize) -> Self {
        let BagConfig { hidden, positions, .. } = config;
        BagHead {
            config,
            v_weight: vec![0.0; hidden * d],
            v_bias: vec![0.0; hidden],
            u_weight: vec![0.0; hidden * d],
            u_bias: vec![0.0; hidden],
            score: vec![0.0; hidden],
            positions: vec![0.0; d * positions],
            width: d,
        }
    }

    /// As a training begins: `V`, `U` and `w` normal with deviation `1 / √(inputs)`, cut at two deviations, all else zero.
    pub fn init(config: BagConfig, d: usize, seed: u64) -> Self {
        let mut head = BagHead::zeros(config, d);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(STREAM);
        for (values, inputs) in [(&mut head.v_weight, d), (&mut head.u_weight, d), (&mut head.score, config.hidden)] {
            let deviation = 1.0 / (inputs.max(1) as f32).sqrt();
            values.iter_mut().for_each(|x| *x = deviation * truncated_normal(&mut rng));
        }
        head
    }

    /// Name and shape of every tensor for features of width `d`; none of poolings that learn nothing.
    pub fn tensor_shapes(config: BagConfig, d: usize) -> Vec<(String, Vec<usize>)> {
        let BagConfig { hidden, positions, .. } = config;
        let all: [(&str, &[usize]); 6] = [
            ("bag.v.weight", &[hidden, d]),
            ("bag.v.bias", &[hidden]),
            ("bag.u.weight", &[hidden, d]),
            ("bag.u.bias", &[hidden]),
            ("bag.score.weight", &[1, hidden]),
            ("bag.positions.weight", &[d, positions]),
        ];
        let held = all.into_iter().filter(|(_, shape)| shape.iter().all(|&length| length > 0));
        held.map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect()
    }

    /// Tensors that are not empty, in the order of [`BagHead::tensor_shapes`].
    pub fn tensors(&self) -> Vec<&Vec<f32>> {
        let all = [&self.v_weight, &self.v_bias, &self.u_weight, &self.u_bias, &self.score, &self.positions];
        all.into_iter().filter(|tensor| !tensor.is_empty()).collect()
    }

    /// As [`BagHead::tensors`], to write to.
    pub fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        let BagHead { v_weight, v_bias, u_weight, u_bias, score, positions, .. } = self;
        let all = [v_weight, v_bias, u_weight, u_bias, score, positions];
        all.into_iter().filter(|tensor| !tensor.is_empty()).collect()
    }

    /// One row of features of those of a bag's images, `features [n, d]`, in their order.
    ///
    /// # Panics
    /// If there is no image, or features are of another width.
    pub fn pool(&self, features: &[f32]) -> Pooled {
        let n = self.images(features);
        let attention = match self.config.pooling {
            BagPooling::GatedAttention => softmax((0..n).map(|k| self.score_of(&self.gate(features, k))).collect()),
            BagPooling::Mean => vec![1.0 / n as f32; n],
            BagPooling::Max => return self.largest(features),
        };
        let mut pooled = vec![0.0; self.width];
        for (row, &weight) in features.chunks_exact(self.width).zip(&attention) {
            pooled.iter_mut().zip(row).for_each(|(z, h)| *z += weight * h);
        }
        Pooled { features: pooled, attention }
    }

    /// The gradient `d_features [n, d]` of what [`BagHead::pool`] gave, from that of its features `d_pooled [d]`; adds the gradient of the
    /// head's tensors to `gradient`.
    ///
    /// # Panics
    /// As [`BagHead::pool`], or if `pooled` is of another bag or `gradient` of another head.
    pub fn backward(&self, features: &[f32], pooled: &Pooled, d_pooled: &[f32], gradient: &mut BagHead) -> Vec<f32> {
        let n = self.images(features);
        assert_eq!((pooled.attention.len(), d_pooled.len()), (n, self.width), "what another bag came to");
        assert_eq!((self.config, self.width), (gradient.config, gradient.width), "the gradient of another head");
        let mut d_features = vec![0.0; features.len()];
        if self.config.pooling == BagPooling::Max {
            for (at, d) in d_pooled.iter().enumerate() {
                d_features[winner(features, self.width, at) * self.width + at] = *d;
            }
            return d_features;
        }
        for (row, &weight) in d_features.chunks_exact_mut(self.width).zip(&pooled.attention) {
            row.iter_mut().zip(d_pooled).for_each(|(d, d_z)| *d = weight * d_z);
        }
        if self.config.pooling == BagPooling::Mean {
            return d_features;
        }
        // d a_k = d_z · h_k, and through the softmax d s_k = a_k (d a_k - Σ a d_a).
        let d_attention: Vec<f32> = features.chunks_exact(self.width).map(|row| dot(row, d_pooled)).collect();
        let mean: f32 = pooled.attention.iter().zip(&d_attention).map(|(a, d)| a * d).sum();
        for (k, d_row) in d_features.chunks_exact_mut(self.width).enumerate() {
            let d_score = pooled.attention[k] * (d_attention[k] - mean);
            self.backward_gate(
                &self.gate(features, k),
                d_score,
                &position(k, n, self.config.positions),
                d_row,
                gradient,
            );
        }
        d_features
    }

    /// Adds to `d_h` and the gradient what the score of one image, of gradient `d_score`, brings.
    fn backward_gate(&self, gate: &Gate, d_score: f32, position: &[f32], d_h: &mut [f32], gradient: &mut BagHead) {
        let d = self.width;
        let mut d_x = vec![0.0; d];
        for (l, (&t, &g)) in gate.tanh.iter().zip(&gate.sigmoid).enumerate() {
            gradient.score[l] += d_score * t * g;
            let d_gate = d_score * self.score[l];
            let (d_v, d_u) = (d_gate * g * (1.0 - t * t), d_gate * t * g * (1.0 - g));
            gradient.v_bias[l] += d_v;
            gradient.u_bias[l] += d_u;
            let row = l * d..(l + 1) * d;
            add_scaled(&mut gradient.v_weight[row.clone()], &gate.x, d_v);
            add_scaled(&mut gradient.u_weight[row.clone()], &gate.x, d_u);
            add_scaled(&mut d_x, &self.v_weight[row.clone()], d_v);
            add_scaled(&mut d_x, &self.u_weight[row], d_u);
        }
        d_h.iter_mut().zip(&d_x).for_each(|(sum, d)| *sum += d);
        if !position.is_empty() {
            let rows = gradient.positions.chunks_exact_mut(position.len());
            rows.zip(&d_x).for_each(|(row, &d)| add_scaled(row, position, d));
        }
    }

    fn gate(&self, features: &[f32], k: usize) -> Gate {
        let (d, p) = (self.width, self.config.positions);
        let mut x = features[k * d..(k + 1) * d].to_vec();
        if p > 0 {
            let e = position(k, features.len() / d, p);
            x.iter_mut().zip(self.positions.chunks_exact(p)).for_each(|(x, row)| *x += dot(row, &e));
        }
        let layer = |weight: &[f32], bias: &[f32], of: fn(f32) -> f32| -> Vec<f32> {
            weight.chunks_exact(d).zip(bias).map(|(row, b)| of(dot(row, &x) + b)).collect()
        };
        let tanh = layer(&self.v_weight, &self.v_bias, |x| f64::from(x).tanh() as f32);
        let sigmoid = layer(&self.u_weight, &self.u_bias, |x| (1.0 / (1.0 + f64::from(-x).exp())) as f32);
        Gate { x, tanh, sigmoid }
    }

    fn score_of(&self, gate: &Gate) -> f32 {
        let products = self.score.iter().zip(&gate.tanh).zip(&gate.sigmoid);
        products.fold(0.0, |sum, ((w, t), g)| sum + w * t * g)
    }

    fn largest(&self, features: &[f32]) -> Pooled {
        let n = features.len() / self.width;
        let mut won = vec![0usize; n];
        let pooled = (0..self.width).map(|at| {
            let image = winner(features, self.width, at);
            won[image] += 1;
            features[image * self.width + at]
        });
        let pooled = pooled.collect();
        Pooled { features: pooled, attention: won.iter().map(|&won| won as f32 / self.width as f32).collect() }
    }

    fn images(&self, features: &[f32]) -> usize {
        assert!(!features.is_empty() && features.len().is_multiple_of(self.width), "features of a bag of this width");
        features.len() / self.width
    }
}

/// The first image whose feature `at` is the largest.
fn winner(features: &[f32], d: usize, at: usize) -> usize {
    let values = features.iter().skip(at).step_by(d).enumerate();
    values.reduce(|best, found| if found.1 > best.1 { found } else { best }).map_or(0, |(image, _)| image)
}

/// `e_k [p]` of image `k` among `n`.
fn position(k: usize, n: usize, p: usize) -> Vec<f32> {
    let u = if n > 1 { k as f64 / (n - 1) as f64 } else { 0.0 };
    let angle = |at: usize| std::f64::consts::PI * (at / 2 + 1) as f64 * u;
    (0..p).map(|at| if at % 2 == 0 { angle(at).sin() as f32 } else { angle(at).cos() as f32 }).collect()
}

fn softmax(mut scores: Vec<f32>) -> Vec<f32> {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = scores.iter().map(|&s| f64::from(s - top).exp()).sum();
    scores.iter_mut().for_each(|s| *s = (f64::from(*s - top).exp() / total) as f32);
    scores
}

/// The product of two rows, in partial sums of fixed places.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_rows, b_rows) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_rows.remainder().iter().zip(b_rows.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_rows.zip(b_rows) {
        sums.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum += a * b);
    }
    sums.iter().sum::<f32>() + rest
}

fn add_scaled(sum: &mut [f32], x: &[f32], scale: f32) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += scale * x);
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: usize = 21;
    const POOLINGS: [BagPooling; 3] = [BagPooling::GatedAttention, BagPooling::Mean, BagPooling::Max];

    fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| truncated_normal(&mut rng)).collect()
    }

    fn head(pooling: BagPooling) -> BagHead {
        let config = match pooling {
            BagPooling::GatedAttention => BagConfig { pooling, hidden: 5, positions: 4 },
            _ => BagConfig::of(pooling),
        };
        let mut head = BagHead::init(config, D, 3);
        for (seed, tensor) in (7..).zip(head.tensors_mut()) {
            let more = values(tensor.len(), seed);
            tensor.iter_mut().zip(more).for_each(|(x, more)| *x += 0.3 * more);
        }
        head
    }

    #[test]
    fn a_bag_of_one_is_its_image() {
        let image = values(D, 1);
        for pooling in POOLINGS {
            let pooled = head(pooling).pool(&image);
            assert_eq!((pooled.features, pooled.attention), (image.clone(), vec![1.0]), "{pooling}");
        }
    }

    #[test]
    fn the_images_of_a_bag_share_one() {
        for (n, pooling) in [2, 7, 40].into_iter().flat_map(|n| POOLINGS.map(|pooling| (n, pooling))) {
            let pooled = head(pooling).pool(&values(n * D, n as u64));
            assert_eq!(pooled.attention.len(), n);
            let sum: f32 = pooled.attention.iter().sum();
            // Forty roundings of f32.
            assert!((sum - 1.0).abs() < 3e-6 && pooled.attention.iter().all(|&a| a >= 0.0), "{pooling}: {sum}");
        }
    }

    #[test]
    fn order_matters_by_positions_alone() {
        let features = values(6 * D, 5);
        let backwards: Vec<f32> = features.chunks_exact(D).rev().flatten().copied().collect();
        let with = head(BagPooling::GatedAttention);
        let without = BagHead { positions: vec![0.0; with.positions.len()], ..with.clone() };
        let apart = |head: &BagHead| {
            let [a, b] = [&features, &backwards].map(|features| head.pool(features).features);
            a.iter().zip(&b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()))
        };
        assert!(apart(&with) > 1e-2, "{}", apart(&with));
        assert!(apart(&without) < 1e-6, "{}", apart(&without));
    }

    /// `Σ c ∘ z` in f64 from the formulas of the module's head.
    fn loss(head: &BagHead, features: &[f64], c: &[f64], tensors: &[Vec<f64>]) -> f64 {
        let n = features.len() / D;
        let row = |k: usize| &features[k * D..(k + 1) * D];
        let of = |x: &[f64], y: &[f64]| -> f64 { x.iter().zip(y).map(|(x, y)| x * y).sum() };
        let weights: Vec<f64> = match head.config.pooling {
            BagPooling::Mean => vec![1.0 / n as f64; n],
            BagPooling::Max => {
                let most = |at: usize| (0..n).map(|k| row(k)[at]).fold(f64::MIN, f64::max);
                return (0..D).map(|at| c[at] * most(at)).sum();
            }
            BagPooling::GatedAttention => {
                let [v, bv, u, bu, w, p] = tensors else { panic!("six tensors") };
                let score = |k: usize| {
                    let e: Vec<f64> = position(k, n, head.config.positions).into_iter().map(f64::from).collect();
                    let x: Vec<f64> =
                        (0..D).map(|at| row(k)[at] + of(&p[at * e.len()..(at + 1) * e.len()], &e)).collect();
                    let gate = |l: usize| {
                        let line = l * D..(l + 1) * D;
                        let sigmoid = 1.0 / (1.0 + (-(of(&u[line.clone()], &x) + bu[l])).exp());
                        w[l] * (of(&v[line], &x) + bv[l]).tanh() * sigmoid
                    };
                    (0..w.len()).map(gate).sum::<f64>().exp()
                };
                let scores: Vec<f64> = (0..n).map(score).collect();
                let total: f64 = scores.iter().sum();
                scores.into_iter().map(|score| score / total).collect()
            }
        };
        (0..n).map(|k| weights[k] * of(row(k), c)).sum()
    }

    /// Central differences of f64 against f32: half its digits, of gradients of about 1.
    #[test]
    fn gradients_are_those_of_central_differences() {
        for (n, pooling) in [1, 2, 9].into_iter().flat_map(|n| POOLINGS.map(|pooling| (n, pooling))) {
            let head = head(pooling);
            let (features, c) = (values(n * D, 11), values(D, 12));
            let mut gradient = BagHead::zeros(head.config, D);
            let d_features = head.backward(&features, &head.pool(&features), &c, &mut gradient);
            let double = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
            let tensors: Vec<Vec<f64>> = head.tensors().into_iter().map(|tensor| double(tensor)).collect();
            let (features, c) = (double(&features), double(&c));
            let close = |found: f32, slope: f64, what: &str| {
                assert!(
                    (f64::from(found) - slope).abs() < 1e-5 * slope.abs().max(1.0),
                    "{pooling} {n} {what}: {found} {slope}"
                );
            };
            let step = 1e-5;
            for at in 0..features.len() {
                let moved = |by: f64| {
                    let mut features = features.clone();
                    features[at] += by;
                    loss(&head, &features, &c, &tensors)
                };
                close(d_features[at], (moved(step) - moved(-step)) / (2.0 * step), "features");
            }
            for (place, found) in gradient.tensors().into_iter().enumerate() {
                for (at, &found) in found.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut tensors = tensors.clone();
                        tensors[place][at] += by;
                        loss(&head, &features, &c, &tensors)
                    };
                    close(found, (moved(step) - moved(-step)) / (2.0 * step), &format!("tensor {place}"));
                }
            }
        }
    }

    #[test]
    fn widths_that_do_not_fit_the_pooling_are_refused() {
        let attention = BagConfig::default();
        let wrong = [
            BagConfig { hidden: 0, ..attention },
            BagConfig { hidden: 5000, ..attention },
            BagConfig { positions: 3, ..attention },
            BagConfig { hidden: 4, ..BagConfig::of(BagPooling::Mean) },
            BagConfig { positions: 4, ..BagConfig::of(BagPooling::Max) },
        ];
        for config in wrong {
            assert!(config.check().is_err(), "{config:?}");
        }
        for pooling in POOLINGS {
            BagConfig::of(pooling).check().unwrap();
        }
    }
}
