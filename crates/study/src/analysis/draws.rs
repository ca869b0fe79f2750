//! The bootstrap draws of a task: the same for every arm.

use crate::plan::Plan;
use melo_eval::Resampling;
use melo_train::Answers;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Draws of the test patients, fold by fold.
pub(super) struct TaskDraws {
    folds: BTreeMap<Option<usize>, (Resampling, usize)>,
    replicates: usize,
}

/// How often each test image of each fold is drawn.
pub(super) type Weights = BTreeMap<Option<usize>, Vec<u32>>;

impl TaskDraws {
    pub(super) fn new(plan: &Plan, task: usize, tests: &BTreeMap<Option<usize>, &Answers>) -> Self {
        let folds = tests
            .iter()
            .map(|(&fold, test)| {
                // A stream of its own for every task and fold: their patients are drawn independently.
                let place = (task as u64) << 32 | fold.map_or(0, |fold| 1 + fold as u64);
                let seed = plan.split_seed ^ place;
                (fold, (Resampling::new(&test.clusters(), &test.strata(), seed), test.names.len()))
            })
            .collect();
        TaskDraws { folds, replicates: plan.replicates }
    }

    /// `statistic` of every draw, in order.
    pub(super) fn map<T: Send>(&self, statistic: impl Fn(&Weights) -> T + Sync) -> Vec<T> {
        (0..self.replicates)
            .into_par_iter()
            .map(|replicate| {
                let weights = self.folds.iter().map(|(&fold, (resampling, n))| {
                    let mut weights = vec![0; *n];
                    resampling.weights(replicate, &mut weights);
                    (fold, weights)
                });
                statistic(&weights.collect())
            })
            .collect()
    }
}
