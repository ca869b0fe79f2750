//! The loss of a map of scores: cross-entropy and soft Dice, with its gradient.

/// Pixels that are added to both sides of a Dice coefficient, so that a class which is nowhere has one.
const SMOOTH: f64 = 1.0;

/// Cross-entropy plus one minus Dice of one image, on its scores `[pixels, c]`.
///
/// With `p` the softmax of each pixel's scores, over the pixels whose label is below `c` (others count nowhere):
/// `scale · (mean -log p_label + 1 - mean over classes k ≥ 1 of (2 Σ p_k [label = k] + 1) / (Σ p_k + Σ [label = k] + 1))`, the second
/// part as MONAI's `DiceLoss(softmax, include_background=False)` with a smoothing of one pixel. Writes its gradient to
/// `d_scores [pixels, c]`. Nothing, where no pixel counts.
///
/// # Panics
/// If a length is another, or there are fewer than two classes.
pub fn cross_entropy_and_dice(scores: &[f32], labels: &[u8], scale: f64, d_scores: &mut [f32]) -> f64 {
    let c = scores.len() / labels.len().max(1);
    assert!(c >= 2 && scores.len() == labels.len() * c && d_scores.len() == scores.len(), "shapes of a pixel loss");
    let counts = |label: u8| usize::from(label) < c;
    let counted = labels.iter().filter(|&&label| counts(label)).count();
    if counted == 0 {
        d_scores.fill(0.0);
        return 0.0;
    }
    let mut entropy = 0.0;
    // Of each class: Σ p, Σ [label], Σ p [label].
    let mut sums = vec![[0.0f64; 3]; c];
    for ((scores, p), &label) in scores.chunks_exact(c).zip(d_scores.chunks_exact_mut(c)).zip(labels) {
        if !counts(label) {
            continue;
        }
        let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        p.iter_mut().zip(scores).for_each(|(p, score)| *p = (score - top).exp());
        let total: f32 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= total);
        let label = usize::from(label);
        entropy += f64::from(total.ln()) - f64::from(scores[label] - top);
        for (sums, p) in sums.iter_mut().zip(&*p) {
            sums[0] += f64::from(*p);
        }
        sums[label][1] += 1.0;
        sums[label][2] += f64::from(p[label]);
    }
    let (mean, share) = (scale / counted as f64, scale / (c - 1) as f64);
    let mut dice = 0.0;
    // Slopes of the second part by p of a class: where the label is another, and where it is this one.
    let slopes: Vec<[f32; 2]> = (sums.iter().enumerate())
        .map(|(class, [p, label, both])| {
            if class == 0 {
                return [0.0; 2];
            }
            let (above, below) = (2.0 * both + SMOOTH, p + label + SMOOTH);
            dice += above / below / (c - 1) as f64;
            let elsewhere = share * above / (below * below);
            [elsewhere as f32, (elsewhere - share * 2.0 / below) as f32]
        })
        .collect();
    let mean_f32 = mean as f32;
    for (d, &label) in d_scores.chunks_exact_mut(c).zip(labels) {
        if !counts(label) {
            d.fill(0.0);
            continue;
        }
        let label = usize::from(label);
        let slope = |class: usize| slopes[class][usize::from(class == label)];
        let along: f32 = d.iter().enumerate().map(|(class, p)| p * slope(class)).sum();
        for (class, d) in d.iter_mut().enumerate() {
            let p = *d;
            let target = if class == label { 1.0 } else { 0.0 };
            *d = mean_f32 * (p - target) + p * (slope(class) - along);
        }
    }
    mean * entropy + scale * (1.0 - dice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(pixels: usize, c: usize) -> Vec<f32> {
        (0..pixels * c).map(|at| ((at * at + 3 * at) as f32 * 0.37).sin() * 2.0).collect()
    }

    #[test]
    fn its_gradient_is_its_derivative_and_ignored_pixels_have_none() {
        for c in [2, 3, 5] {
            let labels: Vec<u8> = (0..12).map(|at| if at % 5 == 4 { 255 } else { (at % c) as u8 }).collect();
            let mut scores = scores(labels.len(), c);
            let mut d = vec![7.0; scores.len()];
            cross_entropy_and_dice(&scores, &labels, 1.5, &mut d);
            let mut none = vec![0.0; d.len()];
            for at in 0..scores.len() {
                let value = scores[at];
                let [up, down] = [value + 1e-3, value - 1e-3].map(|moved| {
                    scores[at] = moved;
                    cross_entropy_and_dice(&scores, &labels, 1.5, &mut none)
                });
                scores[at] = value;
                let slope = (up - down) / f64::from((value + 1e-3) - (value - 1e-3));
                assert!((f64::from(d[at]) - slope).abs() < 2e-4, "{c} classes, score {at}: {} and {slope}", d[at]);
                assert!(labels[at / c] != 255 || d[at] == 0.0, "an ignored pixel has a gradient");
            }
        }
    }

    #[test]
    fn what_is_right_and_sure_costs_nothing_and_what_counts_nowhere_too() {
        let labels = [0, 1, 1, 0];
        let sure: Vec<f32> =
            labels.iter().flat_map(|&label| if label == 1 { [-30.0, 30.0] } else { [30.0, -30.0] }).collect();
        assert!(cross_entropy_and_dice(&sure, &labels, 1.0, &mut [0.0; 8]).abs() < 1e-9);
        let mut d = [1.0; 8];
        assert_eq!(cross_entropy_and_dice(&sure, &[255; 4], 1.0, &mut d), 0.0);
        assert_eq!(d, [0.0; 8]);
    }
}
