//! AdamW (Loshchilov & Hutter, arXiv 1711.05101), the update of PyTorch's `torch.optim.AdamW`.

/// Settings of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay rate of the first moment.
    pub beta1: f64,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl AdamWStep {
    /// PyTorch's defaults with this learning rate and decay.
    pub fn new(learning_rate: f64, weight_decay: f64) -> Self {
        AdamWStep { learning_rate, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay }
    }
}

/// How one tensor departs from the step of the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorStep {
    /// True when weight decay applies.
    pub decays: bool,
    /// Its learning rate is the step's times this.
    pub rate: f64,
}

impl TensorStep {
    /// The whole learning rate, with weight decay.
    pub const WHOLE: TensorStep = TensorStep { decays: true, rate: 1.0 };
}

/// First and second moments of every trained tensor.
#[derive(Clone, Debug, Default)]
pub struct AdamW {
    /// Steps taken.
    pub steps: u64,
    /// First moments, one vector a tensor.
    pub first: Vec<Vec<f32>>,
    /// Second moments, one vector a tensor.
    pub second: Vec<Vec<f32>>,
}

impl AdamW {
    /// Zero moments for tensors of these lengths.
    pub fn new(lengths: impl IntoIterator<Item = usize>) -> Self {
        let first: Vec<Vec<f32>> = lengths.into_iter().map(|len| vec![0.0; len]).collect();
        AdamW { steps: 0, second: first.clone(), first }
    }

    /// One step over all tensors, each in its way: PyTorch's parameter groups.
    pub fn step(
        &mut self,
        parameters: Vec<&mut Vec<f32>>,
        gradients: &[&Vec<f32>],
        tensors: &[TensorStep],
        step: AdamWStep,
    ) {
        assert!(
            parameters.len() == gradients.len()
                && parameters.len() == self.first.len()
                && tensors.len() == gradients.len(),
            "one gradient, one moment and one step a parameter"
        );
        self.steps += 1;
        let correction = |beta: f64| 1.0 - beta.powi(i32::try_from(self.steps).unwrap_or(i32::MAX));
        let correction1 = correction(step.beta1);
        let root_correction = correction(step.beta2).sqrt() as f32;
        let (keep2, eps) = (step.beta2 as f32, step.eps as f32);
        let (new1, new2) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32);
        let moments = self.first.iter_mut().zip(&mut self.second);
        for (((parameter, gradient), tensor), (first, second)) in
            parameters.into_iter().zip(gradients).zip(tensors).zip(moments)
        {
            let learning_rate = step.learning_rate * tensor.rate;
            let rate = (learning_rate / correction1) as f32;
            let keep = if tensor.decays { (1.0 - learning_rate * step.weight_decay) as f32 } else { 1.0 };
            for (((p, &g), m), v) in parameter.iter_mut().zip(gradient.iter()).zip(first).zip(second) {
                *m += new1 * (g - *m);
                *v = keep2 * *v + new2 * g * g;
                *p = *p * keep - rate * *m / (v.sqrt() / root_correction + eps);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No weight decay.
    const STILL: TensorStep = TensorStep { decays: false, rate: 1.0 };

    #[test]
    fn the_first_step_moves_by_the_learning_rate() {
        let mut p = vec![1.0, -2.0];
        let g = vec![0.3, -5.0];
        AdamW::new([2]).step(vec![&mut p], &[&g], &[STILL], AdamWStep::new(0.1, 0.5));
        assert!((p[0] - 0.9).abs() < 1e-6 && (p[1] + 1.9).abs() < 1e-6);
    }

    #[test]
    fn decay_shrinks_only_where_it_applies() {
        let (mut a, mut b) = (vec![2.0], vec![2.0]);
        let g = vec![0.0];
        AdamW::new([1, 1]).step(vec![&mut a, &mut b], &[&g, &g], &[TensorStep::WHOLE, STILL], AdamWStep::new(0.1, 0.5));
        assert!((a[0] - 1.9).abs() < 1e-6 && b[0] == 2.0);
    }

    #[test]
    fn a_share_of_the_learning_rate_moves_and_decays_by_that_share() {
        let (mut a, mut b) = (vec![2.0], vec![2.0]);
        let g = vec![0.7];
        let whole = TensorStep::WHOLE;
        AdamW::new([1]).step(vec![&mut a], &[&g], &[TensorStep { rate: 0.25, ..whole }], AdamWStep::new(0.1, 0.5));
        AdamW::new([1]).step(vec![&mut b], &[&g], &[whole], AdamWStep::new(0.025, 0.5));
        assert_eq!(a, b);
        assert!((a[0] - (2.0 - 0.025 - 0.025)).abs() < 1e-6, "{a:?}");
    }
}
