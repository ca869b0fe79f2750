//! LayerNorm and its backward pass, over whole rows and over heads side by side.

use super::{Both, Float, Floats, Number, assert_close, random, run, wide};

/// Rows, how many side by side, width, numbers behind the last of a row.
const SHAPES: [(usize, usize, usize, usize); 6] =
    [(1, 1, 1, 0), (3, 1, 7, 0), (5, 1, 33, 4), (9, 1, 768, 0), (2, 1, 1408, 3), (12, 3, 64, 100)];
/// Sums of up to 1,408 terms in f32, of which a warp adds 44 in a row each.
const CLOSE: f64 = 2e-6;

struct Problem {
    x: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    shape: (usize, usize, usize, usize),
}

impl Problem {
    fn new(shape: (usize, usize, usize, usize)) -> Self {
        let (rows, inner, width, behind) = shape;
        let x = random(rows / inner * (inner * width + behind), 1);
        Problem { x, gamma: random(width, 2), beta: random(width, 3), shape }
    }

    fn stride(&self) -> usize {
        self.shape.1 * self.shape.2 + self.shape.3
    }

    fn blocks(&self) -> [usize; 3] {
        [self.shape.0.div_ceil(4), 1, 1]
    }

    /// Where each row begins.
    fn rows(&self) -> Vec<usize> {
        let (rows, inner, width, _) = self.shape;
        (0..rows).map(|row| row / inner * self.stride() + row % inner * width).collect()
    }

    /// A row's `(x - mean) / deviation`, and `1 / deviation`.
    fn normed(&self, at: usize) -> (Vec<f64>, f64) {
        let x = wide(&self.x[at..at + self.shape.2]);
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (variance + 1e-6).sqrt();
        (x.iter().map(|x| (x - mean) * scale).collect(), scale)
    }
}

#[test]
fn layernorm() {
    for shape in SHAPES {
        let problem = Problem::new(shape);
        let (Problem { x, gamma, beta, .. }, stride) = (&problem, Number(problem.stride()));
        let sizes = [shape.0, shape.1, shape.2].map(Number);
        let given = [
            Floats(x),
            stride,
            Both(x),
            stride,
            sizes[0],
            sizes[1],
            sizes[2],
            Floats(gamma),
            Floats(beta),
            Float(1e-6),
        ];
        let Some(found) = run("layernorm", problem.blocks(), 128, &given) else { return };
        let mut expected = wide(x);
        for at in problem.rows() {
            let (normed, _) = problem.normed(at);
            for (i, x) in normed.iter().enumerate() {
                expected[at + i] = x * f64::from(gamma[i]) + f64::from(beta[i]);
            }
        }
        assert_close(CLOSE, &found[0], &expected, &format!("{shape:?}"));
    }
}

#[test]
fn layernorm_backward() {
    for shape in SHAPES {
        let problem = Problem::new(shape);
        let (Problem { x, gamma, .. }, stride) = (&problem, Number(problem.stride()));
        let (d_y, d_x) = (random(x.len(), 4), random(x.len(), 5));
        for accumulate in [0, 1] {
            let sizes = [shape.0, shape.1, shape.2].map(Number);
            let matrices = [Floats(x), stride, Floats(&d_y), stride, Both(&d_x), stride];
            let given = [&matrices[..], &sizes, &[Floats(gamma), Float(1e-6), Number(accumulate)]].concat();
            let Some(found) = run("layernorm_backward", problem.blocks(), 128, &given) else { return };
            let mut expected = wide(&d_x);
            for at in problem.rows() {
                let (normed, scale) = problem.normed(at);
                let g: Vec<f64> = (0..shape.2).map(|i| f64::from(gamma[i]) * f64::from(d_y[at + i])).collect();
                let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / shape.2 as f64;
                let (sum, products) =
                    (mean(&mut g.iter().copied()), mean(&mut g.iter().zip(&normed).map(|(g, x)| g * x)));
                for i in 0..shape.2 {
                    let d = (g[i] - sum - normed[i] * products) * scale;
                    expected[at + i] = d + if accumulate == 1 { expected[at + i] } else { 0.0 };
                }
            }
            // A row of one number has no slope but the roundings of its own difference.
            let close = if shape.2 == 1 { 1e-3 } else { 4.0 * CLOSE };
            assert_close(close, &found[0], &expected, &format!("{shape:?}, {accumulate}"));
        }
    }
}
