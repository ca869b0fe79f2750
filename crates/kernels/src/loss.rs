//! Losses of one image on its logits, with their gradients, in f64 inside: they are few and steer everything.

/// Cross-entropy of one image with label smoothing and class weights, as PyTorch's `CrossEntropyLoss`.
///
/// With `q = (1 - smoothing) · onehot(label) + smoothing / c`, returns `scale · -Σ weights_j q_j log p_j` and writes its
/// gradient on `logits [c]` to `d_logits [c]`. PyTorch's mean over a batch is `scale = 1 / Σ weights[label]`.
/// An empty `weights` means all ones.
pub fn cross_entropy(
    logits: &[f32],
    label: usize,
    smoothing: f64,
    weights: &[f32],
    scale: f64,
    d_logits: &mut [f32],
) -> f64 {
    let c = logits.len();
    assert!(label < c && d_logits.len() == c && (weights.is_empty() || weights.len() == c), "cross-entropy shapes");
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_norm = f64::from(top) + logits.iter().map(|&x| f64::from(x - top).exp()).sum::<f64>().ln();
    let target = |j: usize| {
        let weight = if weights.is_empty() { 1.0 } else { f64::from(weights[j]) };
        weight * (if j == label { 1.0 - smoothing } else { 0.0 } + smoothing / c as f64)
    };
    let mass: f64 = (0..c).map(target).sum();
    let mut loss = 0.0;
    for j in 0..c {
        let log_p = f64::from(logits[j]) - log_norm;
        loss -= target(j) * log_p;
        d_logits[j] = (scale * (mass * log_p.exp() - target(j))) as f32;
    }
    scale * loss
}

/// Binary cross-entropy with logits of one image, summed over classes, as PyTorch's `BCEWithLogitsLoss`.
///
/// Returns `scale · Σ_j -(w_j y_j log σ(x_j) + (1 - y_j) log(1 - σ(x_j)))` and writes its gradient on `logits [c]` to
/// `d_logits [c]`; `labels [c]` are 0 or 1, `weights` (`pos_weight`) may be empty for all ones.
/// PyTorch's mean is `scale = 1 / (n · c)`.
pub fn binary_cross_entropy(logits: &[f32], labels: &[u8], weights: &[f32], scale: f64, d_logits: &mut [f32]) -> f64 {
    let c = logits.len();
    assert!(labels.len() == c && d_logits.len() == c && (weights.is_empty() || weights.len() == c), "BCE shapes");
    let mut loss = 0.0;
    for j in 0..c {
        let x = f64::from(logits[j]);
        let y = f64::from(labels[j]);
        let weight = if weights.is_empty() { 1.0 } else { f64::from(weights[j]) };
        let softplus_negative = (-x.abs()).exp().ln_1p() + (-x).max(0.0);
        loss += weight * y * softplus_negative + (1.0 - y) * (softplus_negative + x);
        let sigmoid = 1.0 / (1.0 + (-x).exp());
        d_logits[j] = (scale * ((1.0 - y) * sigmoid - weight * y * (1.0 - sigmoid))) as f32;
    }
    scale * loss
}

/// Ranked probability score of one image whose classes are ordered (Epstein, J. Appl. Meteorol. 8, 1969): strictly proper, and the larger
/// the further away the probability lies.
///
/// With `p` the softmax of `logits [c]`, returns `scale · Σ_k (Σ_{j ≤ k} p_j - [label ≤ k])²` over the `c - 1` borders between classes,
/// and writes its gradient to `d_logits [c]`.
pub fn ranked_probability(logits: &[f32], label: usize, scale: f64, d_logits: &mut [f32]) -> f64 {
    let c = logits.len();
    assert!(label < c && d_logits.len() == c, "ranked probability shapes");
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&x| f64::from(x - top).exp()).collect();
    let total: f64 = powers.iter().sum();
    let p = |j: usize| powers[j] / total;
    // Of the border above each class; none above the last.
    let (mut loss, mut below, mut errors) = (0.0, 0.0, vec![0.0; c]);
    for (k, error) in errors.iter_mut().enumerate().take(c - 1) {
        below += p(k);
        *error = below - if label <= k { 1.0 } else { 0.0 };
        loss += *error * *error;
    }
    // The slope by p_j is that of all borders above j.
    let (mut above, mut slopes) = (0.0, vec![0.0; c]);
    for j in (0..c).rev() {
        above += 2.0 * errors[j];
        slopes[j] = above;
    }
    let mean: f64 = (0..c).map(|j| p(j) * slopes[j]).sum();
    d_logits.iter_mut().enumerate().for_each(|(j, d)| *d = (scale * p(j) * (slopes[j] - mean)) as f32);
    scale * loss
}

/// Huber's loss of the numbers of one image, summed, as PyTorch's `SmoothL1Loss` with `beta` 1: half the square of an error below 1, and
/// above the error less a half.
///
/// Returns `scale` times that of `outputs [c]` against `targets [c]`, and writes its gradient to `d_outputs [c]`. PyTorch's mean is
/// `scale = 1 / (n · c)`.
pub fn smooth_l1(outputs: &[f32], targets: &[f32], scale: f64, d_outputs: &mut [f32]) -> f64 {
    assert!(outputs.len() == targets.len() && outputs.len() == d_outputs.len(), "smooth L1 shapes");
    let mut loss = 0.0;
    for ((output, target), d) in outputs.iter().zip(targets).zip(d_outputs) {
        let error = f64::from(*output) - f64::from(*target);
        loss += if error.abs() < 1.0 { 0.5 * error * error } else { error.abs() - 0.5 };
        *d = (scale * error.clamp(-1.0, 1.0)) as f32;
    }
    scale * loss
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_gradient(logits: &[f32], loss: impl Fn(&[f32], &mut [f32]) -> f64) {
        let mut d = vec![0.0; logits.len()];
        loss(logits, &mut d);
        for j in 0..logits.len() {
            // The step is a power of two, so that moving an f32 logit by it is exact.
            let step = 1.0 / 1024.0;
            let moved = |by: f32| {
                let mut x = logits.to_vec();
                x[j] += by;
                loss(&x, &mut vec![0.0; x.len()])
            };
            let numeric = (moved(step) - moved(-step)) / f64::from(2.0 * step);
            assert!((numeric - f64::from(d[j])).abs() < 1e-6, "logit {j}: {numeric} and {}", d[j]);
        }
    }

    #[test]
    fn cross_entropy_gradient_is_its_derivative() {
        let logits = [0.25, -1.5, 3.0, 0.125];
        assert_gradient(&logits, |x, d| cross_entropy(x, 2, 0.0, &[], 1.0, d));
        assert_gradient(&logits, |x, d| cross_entropy(x, 1, 0.1, &[0.5, 2.0, 1.0, 3.0], 0.25, d));
    }

    #[test]
    fn cross_entropy_of_equal_logits_is_log_c() {
        let loss = cross_entropy(&[7.0; 5], 3, 0.1, &[], 1.0, &mut [0.0; 5]);
        assert!((loss - 5.0f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn binary_cross_entropy_gradient_is_its_derivative() {
        assert_gradient(&[0.25, -1.5, 3.0], |x, d| binary_cross_entropy(x, &[1, 0, 1], &[], 0.5, d));
        assert_gradient(&[0.25, -1.5, 3.0], |x, d| binary_cross_entropy(x, &[0, 1, 1], &[3.0, 0.5, 2.0], 1.0, d));
    }

    #[test]
    fn ranked_probability_gradient_is_its_derivative() {
        let logits = [0.25, -1.5, 3.0, 0.125];
        (0..4).for_each(|label| assert_gradient(&logits, |x, d| ranked_probability(x, label, 0.5, d)));
        // Two classes: twice the half of Brier's score.
        let loss = ranked_probability(&[0.0, 3.0f32.ln()], 0, 1.0, &mut [0.0; 2]);
        assert!((loss - 0.5625).abs() < 1e-7, "{loss}");
    }

    #[test]
    fn a_probability_further_away_costs_more() {
        let score = |logits: &[f32]| ranked_probability(logits, 0, 1.0, &mut [0.0; 3]);
        assert!(score(&[0.0, 0.0, 5.0]) > score(&[0.0, 5.0, 0.0]));
    }

    #[test]
    fn smooth_l1_is_pytorchs() {
        assert_gradient(&[0.25, -1.5, 3.0], |x, d| smooth_l1(x, &[0.5, 0.5, 1.5], 0.5, d));
        // torch.nn.functional.smooth_l1_loss([0.25, -1.5, 3], [0.5, 0.5, 1.5], reduction="sum")
        assert!((smooth_l1(&[0.25, -1.5, 3.0], &[0.5, 0.5, 1.5], 1.0, &mut [0.0; 3]) - 2.53125).abs() < 1e-12);
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let mut d = [0.0; 2];
        assert!(ranked_probability(&[1e4, -1e4], 1, 1.0, &mut d).is_finite() && d.iter().all(|d| d.is_finite()));
        assert!(cross_entropy(&[1e4, -1e4], 1, 0.0, &[], 1.0, &mut d).is_finite() && d.iter().all(|d| d.is_finite()));
        assert!(binary_cross_entropy(&[1e4, -1e4], &[0, 1], &[], 1.0, &mut d).is_finite());
        assert!(d.iter().all(|d| d.is_finite()));
    }
}
