//! Attention of one image on a fused projection, and its gradient.

use crate::exact::{Exact, exact, sum};
use crate::problem::{OF_TABLES, Problem, Random, assert_gradient, central_differences, dot, every_isa, rounded};
use crate::softmax::softmax;
use melo_kernels::{AttentionBias, AttentionShape, Kernels, Precision};

#[derive(Debug)]
struct Attention {
    precision: Precision,
    backward: bool,
    tokens: usize,
    heads: usize,
    width: usize,
    /// Half the range of q, k and v: larger values make sharper probabilities.
    spread: f32,
}

impl Attention {
    fn inputs(&self) -> (Vec<f32>, Vec<f32>) {
        let mut random = Random::new(self.tokens * 17 + self.width);
        (random.around(self.tokens * 3 * self.width, 0.0, self.spread), random.values(self.tokens * self.width))
    }

    fn shape(&self) -> AttentionShape<'static> {
        AttentionShape { tokens: self.tokens, heads: self.heads, width: self.width, bias: None }
    }

    fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// Where part 0, 1 or 2 (q, k, v) of a head's row lies in `qkv`.
    fn at(&self, part: usize, head: usize, row: usize, column: usize) -> usize {
        row * 3 * self.width + part * self.width + head * self.head_width() + column
    }

    /// Probabilities `[t, t]` of a head.
    ///
    /// A rounding of a score, or of its row's largest, moves its probability by as much, relatively.
    fn probabilities(&self, qkv: &[Exact], head: usize) -> Vec<Exact> {
        let (t, w) = (self.tokens, self.head_width());
        let scale = 1.0 / (w as f64).sqrt();
        (0..t)
            .flat_map(|i| {
                let scores: Vec<Exact> =
                    (0..t).map(|j| sum(w, |l| qkv[self.at(0, head, i, l)] * qkv[self.at(1, head, j, l)])).collect();
                let largest = scores.iter().fold(0.0, |a: f64, s| a.max(s.mass * scale));
                let p = softmax(&scores.iter().map(|s| s.value).collect::<Vec<_>>(), scale);
                p.into_iter().map(move |p| Exact { value: p, mass: p * (1.0 + 2.0 * largest) })
            })
            .collect()
    }
}

impl Problem for Attention {
    fn precision(&self) -> Precision {
        self.precision
    }

    /// Probabilities, or the gradient of the scores, on their way into the last product.
    fn bf16_roundings(&self) -> usize {
        usize::from(self.precision == Precision::Bf16)
    }

    fn products(&self) -> usize {
        2 + usize::from(self.backward)
    }

    fn steps(&self) -> usize {
        16 + (1 + usize::from(self.backward)) * (self.tokens + self.head_width())
    }

    fn reference(&self) -> Vec<Exact> {
        let (t, w, d) = (self.tokens, self.head_width(), self.width);
        let (qkv, d_o) = self.inputs();
        let (qkv, d_o) = (exact(&rounded(self.precision, &qkv)), exact(&rounded(self.precision, &d_o)));
        let mut o = vec![Exact::ZERO; t * d];
        let mut d_qkv = vec![Exact::ZERO; t * 3 * d];
        for head in 0..self.heads {
            let p = self.probabilities(&qkv, head);
            let column = |l: usize| head * w + l;
            for (i, l) in (0..t).flat_map(|i| (0..w).map(move |l| (i, l))) {
                o[i * d + column(l)] = sum(t, |j| p[i * t + j] * qkv[self.at(2, head, j, l)]);
            }
            if !self.backward {
                continue;
            }
            let d_p: Vec<Exact> = (0..t * t)
                .map(|at| sum(w, |l| d_o[at / t * d + column(l)] * qkv[self.at(2, head, at % t, l)]))
                .collect();
            let scale = 1.0 / (w as f64).sqrt();
            let scale = Exact { value: scale, mass: scale };
            let mean: Vec<Exact> = (0..t).map(|i| sum(t, |j| p[i * t + j] * d_p[i * t + j])).collect();
            let d_s: Vec<Exact> = (0..t * t).map(|at| scale * p[at] * (d_p[at] - mean[at / t])).collect();
            for (i, l) in (0..t).flat_map(|i| (0..w).map(move |l| (i, l))) {
                d_qkv[self.at(0, head, i, l)] = sum(t, |j| d_s[i * t + j] * qkv[self.at(1, head, j, l)]);
                d_qkv[self.at(1, head, i, l)] = sum(t, |j| d_s[j * t + i] * qkv[self.at(0, head, j, l)]);
                d_qkv[self.at(2, head, i, l)] = sum(t, |j| p[j * t + i] * d_o[j * d + column(l)]);
            }
        }
        if self.backward { d_qkv } else { o }
    }

    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let (qkv, mut d_o) = self.inputs();
        // Scratch of an earlier, larger call.
        let mut scores = vec![f32::NAN; 100_000];
        if self.backward {
            let mut d_qkv = vec![f32::NAN; qkv.len()];
            kernels.attention_backward(self.shape(), &qkv, &d_o, &mut d_qkv, &mut scores);
            return d_qkv;
        }
        d_o.fill(f32::NAN);
        kernels.attention(self.shape(), &qkv, &mut d_o, &mut scores);
        d_o
    }
}

/// The probabilities of every head, or the gradient of them, `[h, t, t]`.
#[derive(Debug)]
struct Probabilities(Attention);

impl Problem for Probabilities {
    fn precision(&self) -> Precision {
        self.0.precision
    }

    fn steps(&self) -> usize {
        16 + self.0.tokens + self.0.head_width()
    }

    fn reference(&self) -> Vec<Exact> {
        let Attention { backward, tokens: t, heads, width: d, .. } = self.0;
        let (w, (qkv, d_o)) = (self.0.head_width(), self.0.inputs());
        let (qkv, d_o) = (exact(&rounded(self.0.precision, &qkv)), exact(&rounded(self.0.precision, &d_o)));
        let d_p =
            |head: usize, at: usize| sum(w, |l| d_o[at / t * d + head * w + l] * qkv[self.0.at(2, head, at % t, l)]);
        (0..heads)
            .flat_map(|head| match backward {
                true => (0..t * t).map(|at| d_p(head, at)).collect(),
                false => self.0.probabilities(&qkv, head),
            })
            .collect()
    }

    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let (qkv, d_o) = self.0.inputs();
        let (t, shape) = (self.0.tokens, self.0.shape());
        let mut all = vec![f32::NAN; self.0.heads * t * t];
        for (head, p) in all.chunks_exact_mut(t * t).enumerate() {
            match self.0.backward {
                true => kernels.attention_probabilities_backward(shape, &qkv, &d_o, head, p),
                false => kernels.attention_probabilities(shape, &qkv, head, p),
            }
        }
        all
    }
}

#[test]
fn probabilities_and_their_gradient_are_their_formulas() {
    for (backward, tokens) in [false, true].into_iter().flat_map(|backward| [1, 2, 5, 197].map(|t| (backward, t))) {
        for (heads, width) in [(1, 1), (1, 3), (2, 6), (1, 17), (3, 48), (3, 192)] {
            for precision in OF_TABLES {
                Probabilities(Attention { precision, backward, tokens, heads, width, spread: 2.0 }).check();
            }
        }
    }
}

#[test]
fn attention_and_its_gradient_are_their_formulas() {
    for backward in [false, true] {
        for tokens in [1, 2, 5, 197] {
            for (heads, width) in [(1, 1), (1, 3), (2, 6), (1, 16), (1, 17), (3, 48), (1, 64), (3, 192)] {
                for (precision, spread) in OF_TABLES.into_iter().flat_map(|p| [(p, 0.5), (p, 2.0)]) {
                    Attention { precision, backward, tokens, heads, width, spread }.check();
                }
            }
        }
        Attention { precision: Precision::F32, backward, tokens: 197, heads: 12, width: 768, spread: 1.0 }.check();
    }
}

#[test]
fn attention_backward_is_the_derivative_of_attention() {
    let problem = Attention { precision: Precision::F32, backward: true, tokens: 5, heads: 2, width: 6, spread: 1.5 };
    let (qkv, d_o) = problem.inputs();
    let (t, w, d) = (problem.tokens, problem.head_width(), problem.width);
    let numeric = central_differences(&qkv, |qkv| {
        let mut o = vec![0.0; t * d];
        for (head, i) in (0..problem.heads).flat_map(|head| (0..t).map(move |i| (head, i))) {
            let value = |part, row, l| qkv[problem.at(part, head, row, l)];
            let scores: Vec<f64> = (0..t).map(|j| (0..w).map(|l| value(0, i, l) * value(1, j, l)).sum()).collect();
            let p = softmax(&scores, 1.0 / (w as f64).sqrt());
            for l in 0..w {
                o[i * d + head * w + l] = (0..t).map(|j| p[j] * value(2, j, l)).sum();
            }
        }
        dot(&o, &d_o)
    });
    for k in every_isa() {
        let mut d_qkv = vec![0.0; qkv.len()];
        k.attention_backward(problem.shape(), &qkv, &d_o, &mut d_qkv, &mut Vec::new());
        assert_gradient("attention", k, &d_qkv, &numeric);
    }
}

#[test]
fn equal_tokens_attend_equally() {
    let row = [0.5, -1.0, 2.0, 1.0, 0.25, -0.75];
    for k in every_isa() {
        let mut o = [0.0; 8];
        let shape = AttentionShape { tokens: 4, heads: 1, width: 2, bias: None };
        k.attention(shape, &row.repeat(4), &mut o, &mut Vec::new());
        assert_eq!(o, [0.25, -0.75, 0.25, -0.75, 0.25, -0.75, 0.25, -0.75], "{}", k.isa);
    }
}

#[test]
fn few_queries_have_the_gradient_of_all_where_the_others_are_not_read() {
    let problem = Attention { backward: true, tokens: 19, heads: 2, width: 16, precision: Precision::F32, spread: 1.0 };
    let (qkv, mut d_o) = problem.inputs();
    let (queries, width) = (3..6, problem.width);
    for (token, d_o) in d_o.chunks_exact_mut(width).enumerate() {
        d_o.iter_mut().filter(|_| !queries.contains(&token)).for_each(|d| *d = 0.0);
    }
    for k in every_isa() {
        let (mut all, mut few) = (vec![f32::NAN; qkv.len()], vec![f32::NAN; qkv.len()]);
        k.attention_backward(problem.shape(), &qkv, &d_o, &mut all, &mut Vec::new());
        let asked = &d_o[queries.start * width..queries.end * width];
        k.attention_backward_of(problem.shape(), &qkv, queries.clone(), asked, &mut few, &mut Vec::new());
        for (token, (all, few)) in all.chunks_exact(3 * width).zip(few.chunks_exact(3 * width)).enumerate() {
            assert!(queries.contains(&token) || few[..width].iter().all(|&d| d == 0.0), "{}: token {token}", k.isa);
            let near = all.iter().zip(few).all(|(all, few)| (all - few).abs() <= 1e-5 * all.abs().max(1.0));
            assert!(near, "{}: token {token}", k.isa);
        }
    }
}

#[test]
fn a_bias_is_added_to_the_scores_and_its_table_has_their_gradient() {
    let problem = Attention { backward: true, tokens: 7, heads: 2, width: 6, precision: Precision::F32, spread: 1.0 };
    let (qkv, d_o) = problem.inputs();
    let (t, w, d, rows) = (problem.tokens, problem.head_width(), problem.width, 5);
    let table = Random::new(3).around(rows * problem.heads, 0.0, 1.5);
    let index: Vec<u32> = (0..t * t).map(|at| ((at * at + at / t) % rows) as u32).collect();
    let all: Vec<f32> = qkv.iter().chain(&table).copied().collect();
    let attend = |all: &[f64]| {
        let (qkv, table) = all.split_at(qkv.len());
        let mut o = vec![0.0; t * d];
        for (head, i) in (0..problem.heads).flat_map(|head| (0..t).map(move |i| (head, i))) {
            let value = |part, row, l| qkv[problem.at(part, head, row, l)];
            let unscaled = (w as f64).sqrt();
            let score = |j: usize| (0..w).map(|l| value(0, i, l) * value(1, j, l)).sum::<f64>();
            let bias = |j: usize| unscaled * table[index[i * t + j] as usize * problem.heads + head];
            let scores: Vec<f64> = (0..t).map(|j| score(j) + bias(j)).collect();
            let p = softmax(&scores, 1.0 / unscaled);
            for l in 0..w {
                o[i * d + head * w + l] = (0..t).map(|j| p[j] * value(2, j, l)).sum();
            }
        }
        o
    };
    let expected = attend(&all.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    let numeric = central_differences(&all, |all| dot(&attend(all), &d_o));
    let shape = AttentionShape { bias: Some(AttentionBias { table: &table, index: &index }), ..problem.shape() };
    for k in every_isa() {
        let mut scratch = Vec::new();
        let mut o = vec![f32::NAN; t * d];
        for queries in [0..3, 3..7] {
            let o = &mut o[queries.start * d..queries.end * d];
            k.attention_of(shape, &qkv, queries, o, &mut scratch);
        }
        assert!(o.iter().zip(&expected).all(|(o, e)| (f64::from(*o) - e).abs() < 1e-5), "{}", k.isa);
        let mut gradient = vec![0.0; all.len()];
        let (d_qkv, d_table) = gradient.split_at_mut(qkv.len());
        k.attention_backward(shape, &qkv, &d_o, d_qkv, &mut scratch);
        for queries in [0..3, 3..7] {
            let d_o = &d_o[queries.start * d..queries.end * d];
            k.attention_bias_backward(shape, &qkv, queries, d_o, d_table, &mut scratch);
        }
        assert_gradient("attention with a bias", k, &gradient, &numeric);
    }
}
