//! What each cluster adds to a figure: the sum of squares is the figure's variance.

use std::collections::{BTreeMap, BTreeSet};

/// Contributions by set and cluster; a cluster that is not there adds nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Contributions(BTreeMap<(usize, usize), f64>);

impl Contributions {
    /// Adds to what a cluster of the first set contributes.
    pub(crate) fn add(&mut self, cluster: usize, value: f64) {
        *self.0.entry((0, cluster)).or_default() += value;
    }

    /// Adds those of another figure, each `weight` times.
    pub(crate) fn add_all(&mut self, other: &Self, weight: f64) {
        for (&cluster, value) in &other.0 {
            *self.0.entry(cluster).or_default() += weight * value;
        }
    }

    /// The same with clusters that are nobody else's: clusters of different `set`s are different ones, whatever their numbers.
    pub(crate) fn of_set(self, set: usize) -> Self {
        Contributions(self.0.into_iter().map(|((_, cluster), value)| ((set, cluster), value)).collect())
    }

    /// The figure's variance.
    pub(crate) fn variance(&self) -> f64 {
        self.0.values().map(|value| value * value).sum()
    }

    /// The variance of the difference from a figure of the same clusters.
    pub(crate) fn variance_of_difference(&self, other: &Self) -> f64 {
        let clusters: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let of = |contributions: &Self, cluster| contributions.0.get(cluster).copied().unwrap_or(0.0);
        clusters.into_iter().map(|cluster| (of(self, cluster) - of(other, cluster)).powi(2)).sum()
    }
}
