//! Attention forward and backward against the matrix of probabilities.

use super::{Both, Float, Floats, New, Null, Number, Words, assert_close, random, run, wide};

/// Images, tokens, heads, width of a head: tiny, on both sides of a tile, ViT-B's, ViT-H's, ViT-g's; the most tokens last.
const SHAPES: [[usize; 4]; 7] =
    [[1, 1, 1, 4], [2, 10, 2, 8], [2, 33, 3, 20], [1, 197, 2, 64], [1, 65, 2, 80], [1, 64, 1, 88], [1, 401, 1, 112]];

struct Problem {
    shape: [usize; 4],
    qkv: Vec<f32>,
    d_o: Vec<f32>,
    /// Table `[5, h]` and index `[t, t]`; none without relative positions.
    relative: Option<(Vec<f32>, Vec<u32>)>,
}

/// All that f64 says of a problem.
struct Expected {
    o: Vec<f64>,
    lse: Vec<f64>,
    delta: Vec<f64>,
    d_qkv: Vec<f64>,
    /// Probabilities and their slopes, `[n, h, t, t]`.
    p: Vec<f64>,
    d_p: Vec<f64>,
}

impl Problem {
    fn new(shape: [usize; 4], biased: bool) -> Self {
        let [n, t, h, w] = shape;
        let index = || (0..t * t).map(|at| (at * 7 % 5) as u32).collect();
        let relative = biased.then(|| (random(5 * h, 3), index()));
        Problem { shape, qkv: random(n * t * 3 * h * w, 1), d_o: random(n * t * h * w, 2), relative }
    }

    fn expected(&self) -> Expected {
        let [n, t, h, w] = self.shape;
        let (qkv, d_o) = (wide(&self.qkv), wide(&self.d_o));
        let zeros = |len: usize| vec![0.0; len];
        let (mut o, mut d_qkv) = (zeros(n * t * h * w), zeros(qkv.len()));
        let (mut lse, mut delta, mut all_p, mut all_d_p) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (image, head) in (0..n).flat_map(|image| (0..h).map(move |head| (image, head))) {
            let at = |token: usize, part: usize| (((image * t + token) * 3 + part) * h + head) * w;
            let out = |token: usize| ((image * t + token) * h + head) * w;
            for query in 0..t {
                let score = |key: usize| {
                    let dot: f64 = (0..w).map(|i| qkv[at(query, 0) + i] * qkv[at(key, 1) + i]).sum();
                    let bias = self
                        .relative
                        .as_ref()
                        .map_or(0.0, |(table, index)| f64::from(table[index[query * t + key] as usize * h + head]));
                    dot / (w as f64).sqrt() + bias
                };
                let scores: Vec<f64> = (0..t).map(score).collect();
                let total: f64 = scores.iter().map(|score| score.exp()).sum();
                lse.push(total.ln());
                let p: Vec<f64> = scores.iter().map(|score| score.exp() / total).collect();
                let slope = |key: usize| (0..w).map(|i| d_o[out(query) + i] * qkv[at(key, 2) + i]).sum::<f64>();
                let d_p: Vec<f64> = (0..t).map(slope).collect();
                let sum: f64 = p.iter().zip(&d_p).map(|(p, d)| p * d).sum();
                delta.push(sum);
                for key in 0..t {
                    let d_score = p[key] * (d_p[key] - sum) / (w as f64).sqrt();
                    for i in 0..w {
                        o[out(query) + i] += p[key] * qkv[at(key, 2) + i];
                        d_qkv[at(query, 0) + i] += d_score * qkv[at(key, 1) + i];
                        d_qkv[at(key, 1) + i] += d_score * qkv[at(query, 0) + i];
                        d_qkv[at(key, 2) + i] += p[key] * d_o[out(query) + i];
                    }
                }
                all_p.extend(p);
                all_d_p.extend(d_p);
            }
        }
        Expected { o, lse, delta, d_qkv, p: all_p, d_p: all_d_p }
    }
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

#[test]
fn attention_and_back() {
    for (shape, biased) in SHAPES.into_iter().flat_map(|shape| [(shape, false), (shape, true)]) {
        let problem = Problem::new(shape, biased);
        let [n, t, h, w] = shape;
        let Expected { o, lse, delta, d_qkv, .. } = problem.expected();
        let relative = match &problem.relative {
            Some((table, index)) => [Floats(table), Words(index)],
            None => [Null, Null],
        };
        let (blocks, sizes, what) = ([t.div_ceil(32), h, n], [t, h, w].map(Number), format!("{shape:?}, {biased}"));
        let qkv = Floats(&problem.qkv);
        let given = [&[qkv, New(o.len()), New(lse.len())][..], &sizes, &relative].concat();
        let Some(found) = run("attention", blocks, 128, &given) else { return };
        // Scores of a few dozen products, sums of up to 401 terms in f32, expf to 2 units in the last place.
        assert_close(3e-6, &found[0], &o, &format!("o of {what}"));
        assert_close(3e-6, &found[1], &lse, &format!("lse of {what}"));

        let [o, lse, exact_delta] = [&o, &lse, &delta].map(|values| narrow(values));
        let given = [Floats(&o), Floats(&problem.d_o), New(delta.len()), Number(n * t)];
        let found = run("attention_delta", [(n * t * h).div_ceil(4), 1, 1], 128, &[&given[..], &sizes].concat());
        assert_close(3e-6, &found.expect("as before")[0], &delta, &format!("delta of {what}"));

        let matrices = [qkv, Floats(&problem.d_o), Floats(&lse), Floats(&exact_delta)];
        let zeros = vec![0.0; d_qkv.len()];
        let given = [&matrices[..], &[Both(&zeros)], &sizes, &relative].concat();
        let queries = run("attention_backward_queries", blocks, 128, &given).expect("as before").swap_remove(0);
        let given = [&matrices[..], &[Both(&queries)], &sizes, &relative].concat();
        let found = run("attention_backward_keys", blocks, 128, &given);
        // One query and key: all slopes of scores are roundings.
        let close = if t == 1 { 1e-5 } else { 6e-6 };
        assert_close(close, &found.expect("as before")[0], &d_qkv, &format!("d_qkv of {what}"));
    }
}

/// The most tokens: a side of 518 in patches of 14.
#[test]
fn the_most_tokens() {
    let problem = Problem::new([1, 1370, 1, 64], false);
    let Expected { o, .. } = problem.expected();
    let given = [Floats(&problem.qkv), New(o.len()), New(1370), Number(1370), Number(1), Number(64), Null, Null];
    let Some(found) = run("attention", [1370usize.div_ceil(32), 1, 1], 128, &given) else { return };
    assert_close(5e-6, &found[0], &o, "1,370 tokens");
}

#[test]
fn relevance() {
    for shape in [[1, 1, 1, 4], [1, 10, 2, 8], [1, 33, 3, 20]] {
        let problem = Problem::new(shape, true);
        let [_, t, h, w] = shape;
        let Expected { lse, p, d_p, .. } = problem.expected();
        let (lse, read) = (narrow(&lse), random(t, 7));
        let (table, index) = problem.relative.as_ref().expect("biased");
        for by_gradient in [false, true] {
            let d_o = if by_gradient { Floats(&problem.d_o) } else { Null };
            let given = [Floats(&problem.qkv), d_o, Floats(&lse), Floats(&read), New(t)];
            let ends = [Number(t), Number(h), Number(w), Floats(table), Words(index), Float(0.5), Float(0.25)];
            let Some(found) = run("attention_relevance", [t, 1, 1], 128, &[&given[..], &ends].concat()) else { return };
            let entry = |head: usize, query: usize, key: usize| {
                let at = (head * t + query) * t + key;
                if by_gradient { (p[at] * d_p[at]).max(0.0) } else { p[at] }
            };
            let of_key = |key: usize| {
                let all = (0..h).flat_map(|head| (0..t).map(move |query| (head, query)));
                let sum: f64 = all.map(|(head, query)| f64::from(read[query]) * entry(head, query, key)).sum();
                0.5 * sum / h as f64 + 0.25 * f64::from(read[key])
            };
            let expected: Vec<f64> = (0..t).map(of_key).collect();
            assert_close(5e-6, &found[0], &expected, &format!("{shape:?}, {by_gradient}"));
        }
    }
}

/// Attention pooling is the first query of attention whose tokens are the patches.
#[test]
fn pooling_and_back() {
    for shape in SHAPES {
        let [n, p, h, w] = shape;
        let (d, query) = (h * w, random(h * w, 3));
        let mut problem = Problem::new(shape, false);
        problem.qkv.chunks_exact_mut(3 * d).for_each(|qkv| qkv[..d].copy_from_slice(&query));
        for d_o in problem.d_o.chunks_exact_mut(p * d) {
            d_o[d..].fill(0.0);
        }
        let Expected { o, d_qkv, p: all, .. } = problem.expected();
        let probabilities: Vec<f64> = all.chunks_exact(p * p).flat_map(|of_head| &of_head[..p]).copied().collect();
        let o: Vec<f64> = o.chunks_exact(p * d).flat_map(|o| &o[..d]).copied().collect();
        let d_kv: Vec<f64> = d_qkv.chunks_exact(3 * d).flat_map(|d_qkv| &d_qkv[d..]).copied().collect();
        let kv: Vec<f32> = problem.qkv.chunks_exact(3 * d).flat_map(|qkv| &qkv[d..]).copied().collect();
        let d_o: Vec<f32> = problem.d_o.chunks_exact(p * d).flat_map(|d_o| &d_o[..d]).copied().collect();

        let (blocks, sizes, what) = ([h, n, 1], [p, h, w].map(Number), format!("{shape:?}"));
        let read = [Floats(&query), Floats(&kv)];
        let given = [&read[..], &[New(probabilities.len()), New(o.len())], &sizes].concat();
        let Some(found) = run("attention_pool", blocks, 128, &given) else { return };
        assert_close(3e-6, &found[0], &probabilities, &format!("probabilities of {what}"));
        assert_close(3e-6, &found[1], &o, &format!("o of {what}"));

        let [probabilities, o] = [&probabilities, &o].map(|values| narrow(values));
        let matrices = [Floats(&probabilities), Floats(&o), Floats(&d_o), New(d_kv.len())];
        let found = run("attention_pool_backward", blocks, 128, &[&read[..], &matrices, &sizes].concat());
        let close = if p == 1 { 1e-5 } else { 6e-6 };
        assert_close(close, &found.expect("as before")[0], &d_kv, &format!("d_kv of {what}"));
    }
}
