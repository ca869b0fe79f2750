//! Learning rate over a run: linear warm-up, then a cosine to a floor (arXiv 1608.03983, eq. 5, without restarts).

/// A schedule over all steps of a run.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Highest learning rate.
    pub peak: f64,
    /// Learning rate at the last step.
    pub floor: f64,
    /// Steps of warm-up.
    pub warmup_steps: usize,
    /// Steps of the whole run.
    pub steps: usize,
}

impl Schedule {
    /// Learning rate of step `step`, counted from 0.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let span = (self.steps - self.warmup_steps).saturating_sub(1).max(1);
        let progress = ((step - self.warmup_steps) as f64 / span as f64).min(1.0);
        let floor = self.floor.min(self.peak);
        floor + 0.5 * (self.peak - floor) * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_peak_and_falls_to_the_floor() {
        let schedule = Schedule { peak: 1.0, floor: 0.1, warmup_steps: 4, steps: 14 };
        let rates: Vec<f64> = (0..14).map(|step| schedule.at(step)).collect();
        assert_eq!(rates[0], 0.25);
        assert_eq!(rates[3], 1.0);
        assert!(rates[4..].is_sorted_by(|a, b| a > b));
        assert!((rates[4] - 1.0).abs() < 1e-12 && (rates[13] - 0.1).abs() < 1e-12);
    }

    #[test]
    fn one_step_runs_are_defined() {
        let schedule = Schedule { peak: 1.0, floor: 0.0, warmup_steps: 0, steps: 1 };
        assert_eq!(schedule.at(0), 1.0);
    }
}
