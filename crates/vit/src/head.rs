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

    /// Two classifiers `[c, d]`, one a token, as one `[c, 2d]` that gives `share` times the sum of their logits.
    pub fn side_by_side(first: &Head, second: &Head, share: f32) -> Self {
        let width = |head: &Head| (head.weight.len() / head.classes().max(1)).max(1);
        let rows = first.weight.chunks_exact(width(first)).zip(second.weight.chunks_exact(width(second)));
        Head {
            weight: rows.flat_map(|(a, b)| a.iter().chain(b)).map(|w| share * w).collect(),
            bias: first.bias.iter().zip(&second.bias).map(|(a, b)| share * (a + b)).collect(),
        }
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
