//! Gradients of everything that a training changes.

use crate::adapter::Adapter;
use crate::config::VitConfig;
use crate::head::Head;
use crate::weights::Weights;

/// Gradients, in the shapes of what they are gradients of.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// Of the low-rank matrices and bottlenecks.
    pub adapter: Adapter,
    /// Of the classifier.
    pub head: Head,
    /// Of the backbone's own parameters, only when all weights are trained.
    pub weights: Option<Weights>,
}

impl Gradients {
    /// All zeros, for these trainable parts.
    pub fn zeros(adapter: &Adapter, head: &Head, vit: &VitConfig, all_weights: bool) -> Self {
        Gradients {
            adapter: adapter.zeros_like(vit),
            head: head.zeros_like(),
            weights: all_weights.then(|| Weights::zeros(vit)),
        }
    }

    /// Every tensor: adapter, head, backbone.
    pub fn tensors(&self) -> Vec<&Vec<f32>> {
        let mut all = self.adapter.tensors();
        all.extend(self.head.tensors());
        all.extend(self.weights.iter().flat_map(Weights::tensors));
        all
    }

    /// As [`Gradients::tensors`], to write to.
    pub fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        let mut all = self.adapter.tensors_mut();
        all.extend(self.head.tensors_mut());
        all.extend(self.weights.iter_mut().flat_map(Weights::tensors_mut));
        all
    }

    /// True when both are gradients of the same trainable parts.
    pub fn is_shaped_like(&self, other: &Gradients) -> bool {
        let lengths = |gradients: &Gradients| gradients.tensors().into_iter().map(Vec::len).collect::<Vec<_>>();
        let configs = |gradients: &Gradients| {
            let Adapter { config, bottlenecks, .. } = &gradients.adapter;
            (config.clone(), bottlenecks.config.clone())
        };
        configs(self) == configs(other) && lengths(self) == lengths(other)
    }

    /// Sets every value to zero.
    pub fn clear(&mut self) {
        self.tensors_mut().into_iter().for_each(|tensor| tensor.fill(0.0));
    }

    pub(crate) fn add(&mut self, other: &Gradients) {
        for (sum, part) in self.tensors_mut().into_iter().zip(other.tensors()) {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    }
}
