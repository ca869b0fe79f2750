//! Kernels with a thread an element: activations, tokens, rotations, dropout.

use super::{Both, Float, Floats, New, Null, Number, Words, assert_close, elements, random, run, wide};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Numbers of activations in `kernels/activation.cu`.
const SWIGLU: usize = 3;
/// libm's `expf`, `erff` and `tanhf` are good to a few units in the last place.
const CLOSE: f64 = 1e-6;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Error function by its series (Abramowitz and Stegun 7.1.6), for |x| below 5.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

fn activation(kind: usize, x: f64) -> f64 {
    let root = (2.0 / std::f64::consts::PI).sqrt();
    match kind {
        0 => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        1 => 0.5 * x * (1.0 + (root * (x + 0.044715 * x.powi(3))).tanh()),
        2 => x * sigmoid(1.702 * x),
        _ => x * sigmoid(x),
    }
}

/// Slope by central differences.
fn slope(kind: usize, x: f64) -> f64 {
    (activation(kind, x + 1e-5) - activation(kind, x - 1e-5)) / 2e-5
}

#[test]
fn activations_and_back() {
    for (kind, [rows, width]) in (0..4).flat_map(|kind| [[1, 1], [5, 7], [3, 200]].map(|shape| (kind, shape))) {
        let columns = if kind == SWIGLU { 2 * width } else { width };
        let h: Vec<f32> = random(rows * columns, 1).iter().map(|x| 4.0 * x).collect();
        let d_g = random(rows * width, 2);
        let sizes = [Number(rows), Number(width), Number(kind)];
        let given = [&[Floats(&h), New(rows * width)][..], &sizes].concat();
        let Some(found) = run("activate", elements(rows * width), 256, &given) else { return };
        let given = [&[Floats(&h), Floats(&d_g), New(h.len())][..], &sizes].concat();
        let found_d = run("activate_backward", elements(rows * width), 256, &given).expect("as before");
        let (mut g, mut d_h) = (Vec::new(), vec![0.0; h.len()]);
        for at in 0..rows * width {
            let place = at / width * columns + at % width;
            let (x, d) = (f64::from(h[place]), f64::from(d_g[at]));
            let up = if kind == SWIGLU { f64::from(h[place + width]) } else { 1.0 };
            g.push(activation(kind, x) * up);
            d_h[place] = d * up * slope(kind, x);
            if kind == SWIGLU {
                d_h[place + width] = d * activation(kind, x);
            }
        }
        assert_close(CLOSE, &found[0], &g, &format!("kind {kind}, {rows} × {width}"));
        assert_close(CLOSE, &found_d[0], &d_h, &format!("slope of kind {kind}, {rows} × {width}"));
    }
}

#[test]
fn scaled() {
    let (x, gamma, y) = (random(21, 1), random(7, 2), random(21, 3));
    for (scaled, accumulate) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
        let of_gamma = if scaled { Floats(&gamma) } else { Null };
        let given = [Floats(&x), of_gamma, Both(&y), Number(3), Number(7), Number(accumulate)];
        let Some(found) = run("scaled", elements(21), 256, &given) else { return };
        let factor = |at: usize| if scaled { f64::from(gamma[at % 7]) } else { 1.0 };
        let before = |at: usize| if accumulate == 1 { f64::from(y[at]) } else { 0.0 };
        let expected: Vec<f64> = (0..21).map(|at| before(at) + factor(at) * f64::from(x[at])).collect();
        assert_close(CLOSE, &found[0], &expected, "scaled");
    }
}

#[test]
fn images_to_tokens() {
    let [n, size, patch, prefix, d] = [2, 6, 2, 2, 5];
    let (grid, columns) = (size / patch, 3 * patch * patch);
    let images = random(n * 3 * size * size, 1);
    let all = n * grid * grid * columns;
    let given = [Floats(&images), New(all), Number(n), Number(size), Number(patch)];
    let Some(found) = run("unfold", elements(all), 256, &given) else { return };
    let mut expected = Vec::new();
    for (image, row, column) in (0..n).flat_map(|n| (0..grid).flat_map(move |y| (0..grid).map(move |x| (n, y, x)))) {
        for (channel, y, x) in (0..3).flat_map(|c| (0..patch).flat_map(move |y| (0..patch).map(move |x| (c, y, x)))) {
            let at = ((image * 3 + channel) * size + row * patch + y) * size + column * patch + x;
            expected.push(f64::from(images[at]));
        }
    }
    assert_close(0.0, &found[0], &expected, "unfold");

    let t = prefix + grid * grid;
    let (front, patches, positions) =
        (random(prefix * d, 2), random(n * (t - prefix) * d, 3), random((t - prefix) * d, 4));
    for positioned in [true, false] {
        let of_positions = if positioned { Floats(&positions) } else { Null };
        let given = [Floats(&front), Floats(&patches), of_positions, New(n * t * d)];
        let sizes = [n, t, prefix, d].map(Number);
        let found = run("assemble", elements(n * t * d), 256, &[&given[..], &sizes].concat()).expect("as before");
        let entry = |at: usize| {
            let (image, token, i) = (at / (t * d), at / d % t, at % d);
            match token.checked_sub(prefix) {
                None => f64::from(front[token * d + i]),
                Some(place) => {
                    let position = if positioned { positions[place * d + i] } else { 0.0 };
                    f64::from(patches[(image * (t - prefix) + place) * d + i]) + f64::from(position)
                }
            }
        };
        assert_close(CLOSE, &found[0], &(0..n * t * d).map(entry).collect::<Vec<_>>(), "assemble");
    }
}

#[test]
fn rows_gathered_and_means() {
    let (x, order) = (random(3 * 5, 1), [2, 0, 0, 1]);
    let given = [Floats(&x), Words(&order), New(4 * 5), Number(4), Number(5)];
    let Some(found) = run("gather", elements(20), 256, &given) else { return };
    let expected: Vec<f64> = order.iter().flat_map(|&row| wide(&x[row as usize * 5..][..5])).collect();
    assert_close(0.0, &found[0], &expected, "gather");

    let [n, t, d, stride] = [2, 7, 5, 11];
    let (x, d_out, d_x) = (random(n * t * d, 2), random(n * stride, 3), random(n * t * d, 4));
    for [first, many] in [[0, 1], [1, 6], [3, 2]] {
        let out = vec![0.0; n * stride];
        let sizes = [n, t, d, first, many, stride].map(Number);
        let found = run("mean_tokens", elements(n * d), 256, &[&[Floats(&x), Both(&out)][..], &sizes].concat());
        let mut expected = vec![0.0; n * stride];
        let mut expected_d = wide(&d_x);
        for (image, i) in (0..n).flat_map(|image| (0..d).map(move |i| (image, i))) {
            for token in first..first + many {
                expected[image * stride + i] += f64::from(x[(image * t + token) * d + i]) / many as f64;
                expected_d[(image * t + token) * d + i] += f64::from(d_out[image * stride + i]) / many as f64;
            }
        }
        assert_close(CLOSE, &found.expect("as before")[0], &expected, "mean");
        let given = [&[Floats(&d_out), Both(&d_x)][..], &sizes].concat();
        let found = run("mean_tokens_backward", elements(n * many * d), 256, &given).expect("as before");
        assert_close(CLOSE, &found[0], &expected_d, "mean, backward");
    }
}

#[test]
fn rotations() {
    // Two layers of three patches behind two tokens.
    let [n, prefix, patches, heads, width] = [2, 2, 3, 2, 8];
    let t = prefix + 2 * patches;
    let (qkv, angles) = (random(n * t * 3 * heads * width, 1), random(patches * width / 2, 2));
    let turns: Vec<f32> = angles.iter().flat_map(|a| [a.cos(), a.sin()]).collect();
    for (neighbours, backward) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let sizes = [n, t, prefix, patches, heads, width, neighbours, backward].map(Number);
        let given = [&[Both(&qkv), Floats(&turns)][..], &sizes].concat();
        let Some(found) = run("rotate", elements(n * (t - prefix) * heads * width), 256, &given) else { return };
        let mut expected = wide(&qkv);
        for (row, head) in (0..n * t).flat_map(|row| (0..2 * heads).map(move |head| (row, head))) {
            let Some(place) = (row % t).checked_sub(prefix) else { continue };
            for i in 0..width / 2 {
                let (a, b) = if neighbours == 1 { (2 * i, 2 * i + 1) } else { (i, i + width / 2) };
                let at = (row * 3 * heads + head) * width;
                let angle =
                    f64::from(angles[place % patches * (width / 2) + i]) * if backward == 1 { -1.0 } else { 1.0 };
                let (x, y) = (f64::from(qkv[at + a]), f64::from(qkv[at + b]));
                expected[at + a] = x * angle.cos() - y * angle.sin();
                expected[at + b] = y * angle.cos() + x * angle.sin();
            }
        }
        assert_close(CLOSE, &found[0], &expected, "rotate");
    }
}

/// The masks are those of `vit/src/dropout.rs`: words of a ChaCha8 keyed by seed, step, image and place.
#[test]
fn dropout() {
    let ([images, length, width, first_image], place) = ([2, 35, 7, 5], 3 << 8 | 2);
    let (seed, step) = (0x1234_5678_9abc_def0u64, 7u64 << 33 | 9);
    let x = random(images * length, 1);
    let y = random(images * length, 2);
    let (probability, kept) = (0.3f64, (1.0 / 0.7) as f32);
    let dropped = (probability * 2f64.powi(32)) as u32;
    for accumulate in [0, 1] {
        let halves = |word: u64| [word as u32 as usize, (word >> 32) as usize].map(Number);
        let given =
            [Floats(&x), Number(width), Both(&y), Number(width), Number(length), Number(width), Number(first_image)];
        let ends = [Number(place), Number(dropped as usize), Float(kept), Number(accumulate)];
        let given = [&given[..], &halves(seed), &halves(step), &ends].concat();
        let Some(found) = run("dropout", [1, images, 1], 128, &given) else { return };
        let mut expected = Vec::new();
        for image in 0..images {
            let words = [seed, step, (first_image + image) as u64, place as u64];
            let key: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
            let mut rng = ChaCha8Rng::from_seed(key.try_into().expect("32 bytes"));
            for i in 0..length {
                let at = image * length + i;
                let m = if rng.next_u32() < dropped { 0.0 } else { kept };
                let before = if accumulate == 1 { y[at] } else { 0.0 };
                expected.push(f64::from(before) + f64::from(m) * f64::from(x[at]));
            }
        }
        assert!(expected.iter().any(|x| *x == 0.0) || accumulate == 1, "something is dropped");
        assert_close(CLOSE, &found[0], &expected, "dropout");
    }
}
