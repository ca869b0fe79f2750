//! The classifier of a plug-in: `logits = W f + b` on the backbone's feature.

/// A linear classifier, or the gradients of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// `[c, feature width]`.
    pub weight: Vec<f32>,
    /// `[c]`.
    pub bias: Vec<f32>,
}

impl Head {
    /// All zeros: every class equally likely, and the first gradient step is a class mean.
    pub fn zeros(classes: usize, feature_width: usize) -> Self {
        Head { weight: vec![0.0; classes * feature_width], bias: vec![0.0; classes] }
    }

    /// Number of classes `c`.
    pub fn classes(&self) -> usize {
        self.bias.len()
    }

    /// Name and shape of both tensors.
    pub fn tensor_shapes(classes: usize, feature_width: usize) -> Vec<(String, Vec<usize>)> {
        vec![("head.weight".to_owned(), vec![classes, feature_width]), ("head.bias".to_owned(), vec![classes])]
    }

    /// Weight, then bias.
    pub fn tensors(&self) -> Vec<&Vec<f32>> {
        vec![&self.weight, &self.bias]
    }

    /// As [`Head::tensors`], to write to.
    pub fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        vec![&mut self.weight, &mut self.bias]
    }
}
