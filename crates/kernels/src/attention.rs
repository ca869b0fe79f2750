//! Softmax attention of one image on a fused projection, `o_h = softmax(q_h k_hᵀ / √(d/h)) v_h` (arXiv 1706.03762, eq. 1), where it is
//! asked for with a bias on the scores.
//!
//! Backward computes the probabilities again: `t²` values a head need not be kept between the two passes.

use crate::linear::RightBuffers;
use crate::math::LANES;
use crate::precision::Precision;
use crate::table::Kernels;
use crate::view::{Mat, MatMut};
use std::cell::RefCell;
use std::ops::Range;

/// A bias on the score of every two tokens, looked up in a table that is far smaller than `[h, t, t]`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionBias<'a> {
    /// Rows of a column a head, `[rows, h]`.
    pub table: &'a [f32],
    /// The row for query and key, `[t, t]`.
    pub index: &'a [u32],
}

/// Shape of the attention of one image.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape<'a> {
    /// Tokens `t`.
    pub tokens: usize,
    /// Heads `h`.
    pub heads: usize,
    /// Width `d = h · head width`.
    pub width: usize,
    /// Added to the scaled scores.
    pub bias: Option<AttentionBias<'a>>,
}

impl AttentionShape<'_> {
    fn head_width(self) -> usize {
        self.width / self.heads
    }

    /// Asserts that the heads tile the width and that `qkv [t, 3d]` and `o` values `[t, d]` are of this shape.
    fn check(self, qkv: &[f32], o: usize) {
        let AttentionShape { tokens, heads, width, .. } = self;
        assert!(width.is_multiple_of(heads), "{heads} heads do not tile width {width}");
        assert!(qkv.len() == tokens * 3 * width && o == tokens * width, "attention shapes");
    }

    fn scale(self) -> f32 {
        1.0 / (self.head_width() as f32).sqrt()
    }

    /// Adds a head's bias to its scores, which are still to be scaled: those of queries from `first` on, rows `stride` apart.
    fn add_bias(self, head: usize, first: usize, scores: &mut [f32], stride: usize) {
        let Some(AttentionBias { table, index }) = self.bias else { return };
        let (t, unscaled) = (self.tokens, 1.0 / self.scale());
        for (scores, index) in scores.chunks_mut(stride).zip(index[first * t..].chunks_exact(t)) {
            for (score, &row) in scores.iter_mut().zip(index) {
                *score += unscaled * table[row as usize * self.heads + head];
            }
        }
    }

    /// Head `h` of part 0, 1 or 2 (q, k, v) of `qkv [t, 3d]`.
    fn part(self, qkv: &[f32], part: usize, head: usize) -> Mat<'_> {
        self.rows_of(qkv, self.tokens, part, head)
    }

    /// The same of the first rows of `qkv`.
    fn rows_of(self, qkv: &[f32], rows: usize, part: usize, head: usize) -> Mat<'_> {
        Mat::strided(&qkv[self.column(part, head)..], rows, self.head_width(), 3 * self.width)
    }

    fn part_mut(self, qkv: &mut [f32], part: usize, head: usize) -> MatMut<'_> {
        self.rows_of_mut(qkv, self.tokens, part, head)
    }

    fn rows_of_mut(self, qkv: &mut [f32], rows: usize, part: usize, head: usize) -> MatMut<'_> {
        let column = self.column(part, head);
        MatMut::strided(&mut qkv[column..], rows, self.head_width(), 3 * self.width)
    }

    fn column(self, part: usize, head: usize) -> usize {
        part * self.width + head * self.head_width()
    }
}

/// Rows of queries whose scores are in the first-level cache together.
const STRIP: usize = 24;

thread_local! {
    /// Keys and values of a head.
    static BUFFERS: RefCell<[RightBuffers; 2]> = RefCell::default();
}

impl Kernels {
    /// `o [t, d]` from `qkv [t, 3d]` of one image; `scores` is scratch.
    pub fn attention(&self, shape: AttentionShape<'_>, qkv: &[f32], o: &mut [f32], scores: &mut Vec<f32>) {
        self.attention_of(shape, qkv, 0..shape.tokens, o, scores);
    }

    /// The rows `o [queries, d]` of some of the tokens.
    pub fn attention_of(
        &self,
        shape: AttentionShape<'_>,
        qkv: &[f32],
        queries: Range<usize>,
        o: &mut [f32],
        scores: &mut Vec<f32>,
    ) {
        let AttentionShape { tokens: t, heads, width, .. } = shape;
        let rows = queries.len();
        shape.check(qkv, qkv.len() / 3);
        assert!(queries.end <= t && o.len() == rows * width, "attention shapes");
        // Rows of whole registers: what is beyond the tokens stays so small that it has no share.
        let stride = t.next_multiple_of(LANES);
        scores.resize(STRIP * stride, 0.0);
        BUFFERS.with_borrow_mut(|[keys, values]| {
            for head in 0..heads {
                let keys = self.right(shape.part(qkv, 1, head).t(), keys);
                let values = self.right(shape.part(qkv, 2, head), values);
                for strip in (0..rows).step_by(STRIP) {
                    let strip = strip..rows.min(strip + STRIP);
                    let scores = &mut scores[..strip.len() * stride];
                    let q = shape.rows_of(&qkv[(queries.start + strip.start) * 3 * width..], strip.len(), 0, head);
                    scores.chunks_exact_mut(stride).for_each(|row| row[t..].fill(f32::MIN));
                    self.multiply(MatMut::strided(scores, strip.len(), t, stride), 0.0, 1.0, q, keys);
                    shape.add_bias(head, queries.start + strip.start, scores, stride);
                    let mut shares = [0.0; STRIP];
                    let shares = &mut shares[..strip.len()];
                    self.exponentials(scores, stride, shape.scale(), shares);
                    // Eight bits are as good of exponentials as of probabilities; where more count, those are what is weighed by.
                    let afterwards = self.precision == Precision::Bf16;
                    if !afterwards {
                        scale_rows(scores, (stride, t), shares);
                    }
                    let o = &mut o[strip.start * width + head * shape.head_width()..];
                    let p = Mat::strided(scores, strip.len(), t, stride);
                    let y = MatMut::strided(o, strip.len(), shape.head_width(), width);
                    self.multiply(y, 0.0, 1.0, p, values);
                    if afterwards {
                        scale_rows(o, (width, shape.head_width()), shares);
                    }
                }
            }
        });
    }

    /// `d_qkv [t, 3d]` from `d_o [t, d]` of one image; `scores` is scratch.
    pub fn attention_backward(
        &self,
        shape: AttentionShape<'_>,
        qkv: &[f32],
        d_o: &[f32],
        d_qkv: &mut [f32],
        scores: &mut Vec<f32>,
    ) {
        self.attention_backward_of(shape, qkv, 0..shape.tokens, d_o, d_qkv, scores);
    }

    /// The same where only some of the tokens ask, `d_o [queries, d]`: the gradient of the other tokens' queries is zero.
    pub fn attention_backward_of(
        &self,
        shape: AttentionShape<'_>,
        qkv: &[f32],
        queries: Range<usize>,
        d_o: &[f32],
        d_qkv: &mut [f32],
        scores: &mut Vec<f32>,
    ) {
        let AttentionShape { tokens: t, heads, width, .. } = shape;
        let rows = queries.len();
        shape.check(qkv, qkv.len() / 3);
        assert!(queries.end <= t && d_o.len() == rows * width && d_qkv.len() == qkv.len(), "attention shapes");
        for (token, d_qkv) in d_qkv.chunks_exact_mut(3 * width).enumerate() {
            if !queries.contains(&token) {
                d_qkv[..width].fill(0.0);
            }
        }
        let asking = queries.start * 3 * width..queries.end * 3 * width;
        let asked = &qkv[asking.clone()];
        scores.resize(2 * rows * t, 0.0);
        let (p, d_p) = scores.split_at_mut(rows * t);
        for head in 0..heads {
            let q = shape.rows_of(asked, rows, 0, head);
            self.probabilities(shape, (head, queries.start), q, shape.part(qkv, 1, head), p);
            let d_o = Mat::strided(&d_o[head * shape.head_width()..], rows, shape.head_width(), width);
            self.matmul(shape.part_mut(d_qkv, 2, head), 0.0, 1.0, Mat::new(p, rows, t).t(), d_o);
            self.matmul(MatMut::new(d_p, rows, t), 0.0, 1.0, d_o, shape.part(qkv, 2, head).t());
            self.softmax_backward(p, d_p, t, shape.scale());
            let d_s = Mat::new(d_p, rows, t);
            let d_q = shape.rows_of_mut(&mut d_qkv[asking.clone()], rows, 0, head);
            self.matmul(d_q, 0.0, 1.0, d_s, shape.part(qkv, 1, head));
            self.matmul(shape.part_mut(d_qkv, 1, head), 0.0, 1.0, d_s.t(), q);
        }
    }

    /// Adds the gradient of the bias' table, `d_table [rows, h]`, for that of what some of the tokens were given, `d_o [queries, d]`;
    /// `scores` is scratch. Nothing without a bias.
    pub fn attention_bias_backward(
        &self,
        shape: AttentionShape<'_>,
        qkv: &[f32],
        queries: Range<usize>,
        d_o: &[f32],
        d_table: &mut [f32],
        scores: &mut Vec<f32>,
    ) {
        let AttentionShape { tokens: t, heads, width, bias } = shape;
        let Some(AttentionBias { table, index }) = bias else { return };
        let rows = queries.len();
        shape.check(qkv, qkv.len() / 3);
        assert!(queries.end <= t && d_o.len() == rows * width && d_table.len() == table.len(), "attention shapes");
        scores.resize(2 * rows * t, 0.0);
        let (p, d_p) = scores.split_at_mut(rows * t);
        for head in 0..heads {
            let q = shape.rows_of(&qkv[queries.start * 3 * width..], rows, 0, head);
            self.probabilities(shape, (head, queries.start), q, shape.part(qkv, 1, head), p);
            let d_o = Mat::strided(&d_o[head * shape.head_width()..], rows, shape.head_width(), width);
            self.matmul(MatMut::new(d_p, rows, t), 0.0, 1.0, d_o, shape.part(qkv, 2, head).t());
            self.softmax_backward(p, d_p, t, 1.0);
            for (d, &row) in d_p.iter().zip(&index[queries.start * t..queries.end * t]) {
                d_table[row as usize * heads + head] += d;
            }
        }
    }

    /// Probabilities `p [t, t]` of one head, `softmax(q_h k_hᵀ / √(d/h))` row by row, from `qkv [t, 3d]` of one image.
    pub fn attention_probabilities(&self, shape: AttentionShape<'_>, qkv: &[f32], head: usize, p: &mut [f32]) {
        self.probabilities(shape, (head, 0), shape.part(qkv, 0, head), shape.part(qkv, 1, head), p);
    }

    /// `p [queries, t]` of one head, from a first query on.
    fn probabilities(
        &self,
        shape: AttentionShape<'_>,
        (head, first): (usize, usize),
        q: Mat<'_>,
        k: Mat<'_>,
        p: &mut [f32],
    ) {
        self.matmul(MatMut::new(p, q.rows, k.rows), 0.0, 1.0, q, k.t());
        shape.add_bias(head, first, p, k.rows);
        self.softmax(p, k.rows, shape.scale());
    }

    /// Gradient `d_p [t, t]` of one head's probabilities, `d_o_h v_hᵀ`, from `qkv [t, 3d]` and `d_o [t, d]` of one image.
    pub fn attention_probabilities_backward(
        &self,
        shape: AttentionShape<'_>,
        qkv: &[f32],
        d_o: &[f32],
        head: usize,
        d_p: &mut [f32],
    ) {
        let AttentionShape { tokens: t, width, .. } = shape;
        shape.check(qkv, d_o.len());
        let d_o = Mat::strided(&d_o[head * shape.head_width()..], t, shape.head_width(), width);
        self.matmul(MatMut::new(d_p, t, t), 0.0, 1.0, d_o, shape.part(qkv, 2, head).t());
    }
}

/// Multiplies the first `cols` values of rows that are `stride` apart, each by its own factor.
fn scale_rows(x: &mut [f32], (stride, cols): (usize, usize), factors: &[f32]) {
    for (x, factor) in x.chunks_mut(stride).zip(factors) {
        x[..cols].iter_mut().for_each(|x| *x *= factor);
    }
}
