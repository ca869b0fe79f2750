//! A 3 × 3 convolution over a square map with its channels last, zeros around it: strips of it unfolded, then a product.

use melo_kernels::{Kernels, Mat, MatMut};

/// Lines of the map that are unfolded at a time.
const STRIP: usize = 8;

/// `y[i, j] = Σ W[·, a, b, ·] x[i + a - 1, j + b - 1] + bias`, or the gradients of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Convolution {
    /// `[out, 3, 3, in]`.
    pub(super) weight: Vec<f32>,
    /// `[out]`.
    pub(super) bias: Vec<f32>,
}

impl Convolution {
    pub(super) fn zeros(inputs: usize, out: usize) -> Self {
        Convolution { weight: vec![0.0; out * 9 * inputs], bias: vec![0.0; out] }
    }

    /// Channels of its input.
    pub(super) fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len() / 9
    }

    /// `x [m, m, in]` to `y [m, m, out]`.
    pub(super) fn forward(&self, kernels: &Kernels, x: &[f32], m: usize) -> Vec<f32> {
        let (inputs, out) = (self.inputs(), self.bias.len());
        let weight = Mat::new(&self.weight, out, 9 * inputs);
        let mut y = vec![0.0; m * m * out];
        let mut columns = Vec::new();
        for (strip, y) in y.chunks_mut(STRIP * m * out).enumerate() {
            let pixels = y.len() / out;
            unfold(x, inputs, m, strip * STRIP..strip * STRIP + pixels / m, &mut columns);
            kernels.matmul(MatMut::new(y, pixels, out), 0.0, 1.0, Mat::new(&columns, pixels, 9 * inputs), weight.t());
            for y in y.chunks_exact_mut(out) {
                y.iter_mut().zip(&self.bias).for_each(|(y, bias)| *y += bias);
            }
        }
        y
    }

    /// The gradient of `x [m, m, in]`, which is returned, for that of `y`, `d_y [m, m, out]`; adds to its own.
    pub(super) fn backward(
        &self,
        kernels: &Kernels,
        x: &[f32],
        m: usize,
        d_y: &[f32],
        gradient: &mut Convolution,
    ) -> Vec<f32> {
        let (inputs, out) = (self.inputs(), self.bias.len());
        let weight = Mat::new(&self.weight, out, 9 * inputs);
        let mut d_x = vec![0.0; x.len()];
        let (mut columns, mut d_columns) = (Vec::new(), Vec::new());
        for (strip, d_y) in d_y.chunks(STRIP * m * out).enumerate() {
            let pixels = d_y.len() / out;
            let lines = strip * STRIP..strip * STRIP + pixels / m;
            unfold(x, inputs, m, lines.clone(), &mut columns);
            kernels.linear_backward_weight(&columns, d_y, &mut gradient.weight, &mut gradient.bias, out);
            d_columns.resize(columns.len(), 0.0);
            let product = MatMut::new(&mut d_columns, pixels, 9 * inputs);
            kernels.matmul(product, 0.0, 1.0, Mat::new(d_y, pixels, out), weight);
            fold(&d_columns, inputs, m, lines, &mut d_x);
        }
        d_x
    }
}

/// Of each pixel of some lines, its three neighbours in a line, itself among them, that lie in the map: the first one's place, their
/// number, and the place of the first among the nine of an unfolded pixel, for each of the three lines.
fn neighbours(m: usize, line: usize, column: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let lines = line.saturating_sub(1)..(line + 2).min(m);
    let (left, right) = (column.saturating_sub(1), (column + 2).min(m));
    lines.map(move |other| (other * m + left, right - left, (other + 1 - line) * 3 + left + 1 - column))
}

/// Pixels of these lines of `x [m, m, in]` with all their neighbours, `[lines · m, 3, 3, in]`; zeros outside the map.
fn unfold(x: &[f32], inputs: usize, m: usize, lines: std::ops::Range<usize>, columns: &mut Vec<f32>) {
    columns.clear();
    columns.resize(lines.len() * m * 9 * inputs, 0.0);
    let places = lines.flat_map(|line| (0..m).map(move |column| (line, column)));
    for ((line, column), pixel) in places.zip(columns.chunks_exact_mut(9 * inputs)) {
        for (from, count, to) in neighbours(m, line, column) {
            let count = count * inputs;
            pixel[to * inputs..][..count].copy_from_slice(&x[from * inputs..][..count]);
        }
    }
}

/// The way back of [`unfold`]: adds to `d_x [m, m, in]`.
fn fold(d_columns: &[f32], inputs: usize, m: usize, lines: std::ops::Range<usize>, d_x: &mut [f32]) {
    let places = lines.flat_map(|line| (0..m).map(move |column| (line, column)));
    for ((line, column), pixel) in places.zip(d_columns.chunks_exact(9 * inputs)) {
        for (to, count, from) in neighbours(m, line, column) {
            let count = count * inputs;
            let sums = d_x[to * inputs..][..count].iter_mut();
            sums.zip(&pixel[from * inputs..][..count]).for_each(|(sum, d)| *sum += d);
        }
    }
}
