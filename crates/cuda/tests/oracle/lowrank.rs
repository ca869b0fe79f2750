//! What plug-ins add: images with matrices of their own, of unequal ranks, and gradients of what is trained.

use super::{Both, Float, Floats, New, Null, Number, Words, assert_close, elements, random, run, wide};

const NO_BIAS: u32 = u32::MAX;

/// Ranks of the images of a batch; 0 has none.
const BATCHES: [&[usize]; 4] = [&[1], &[4, 0, 4], &[3, 16, 0, 1], &[33, 2]];

#[test]
fn grouped() {
    for (ranks, [rows, features]) in BATCHES.into_iter().zip([[1, 1], [10, 7], [33, 40], [50, 192]]) {
        let store = random(10_000, 1);
        // Shrinks and expands of the same shapes: `features` to a rank, and a rank to `features`.
        for (expands, backward, accumulate) in
            [(false, 0, 0), (true, 0, 1), (false, 1, 0), (true, 1, 1), (true, 0, 0), (false, 1, 1)]
        {
            let most = *ranks.iter().max().expect("images");
            let (stride_x, stride_y) = if expands { (most, features + 3) } else { (features, most) };
            let (x, y) = (random(ranks.len() * rows * stride_x, 2), random(ranks.len() * rows * stride_y, 3));
            let (mut table, mut expected) = (Vec::new(), wide(&y));
            for (image, &rank) in ranks.iter().enumerate() {
                let (outs, ins) = if expands { (features, rank) } else { (rank, features) };
                let (matrix, bias, scale) = (100 * image, 50 * image, 0.5 + image as f32);
                let biased = image % 2 == 0 && rank > 0;
                let outs = if rank == 0 { 0 } else { outs };
                let word = if biased { bias as u32 } else { NO_BIAS };
                table.extend([matrix as u32, word, outs as u32, ins as u32, scale.to_bits()]);
                for (row, out) in (0..rows).flat_map(|row| (0..outs).map(move |out| (row, out))) {
                    let row = image * rows + row;
                    let weight = |i: usize| store[matrix + if backward == 1 { i * outs + out } else { out * ins + i }];
                    let product = |i: usize| f64::from(x[row * stride_x + i]) * f64::from(weight(i));
                    let sum: f64 = (0..ins).map(product).sum();
                    let at = row * stride_y + out;
                    let before = if accumulate == 1 { expected[at] } else { 0.0 };
                    let bias = if biased { f64::from(store[bias + out]) } else { 0.0 };
                    expected[at] = before + f64::from(scale) * sum + bias;
                }
            }
            let widest = if expands { features } else { most };
            let blocks = [widest.div_ceil(32), rows.div_ceil(32), ranks.len()];
            let given = [Floats(&x), Number(stride_x), Both(&y), Number(stride_y), Number(rows), Floats(&store)];
            let ends = [Words(&table), Number(backward), Number(accumulate)];
            let Some(found) = run("grouped", blocks, 256, &[&given[..], &ends].concat()) else { return };
            // Sums of up to 192 terms in f32.
            assert_close(1e-6, &found[0], &expected, &format!("{ranks:?}, {rows} rows, {expands}, {backward}"));
        }
    }
}

#[test]
fn gradient() {
    // Rows of a batch, of a part, widths.
    for [rows, chunk, p, q] in [[1, 64, 1, 1], [70, 64, 3, 40], [100, 33, 35, 7], [1370, 86, 4, 192]] {
        for ones in [false, true] {
            let p = if ones { 1 } else { p };
            let (left, right, sum) = (random(rows * p, 1), random(rows * q, 2), random(p * q, 3));
            let chunks = rows.div_ceil(chunk);
            let blocks = [q.div_ceil(32), p.div_ceil(32), chunks];
            let of_left = if ones { Null } else { Floats(&left) };
            let given =
                [of_left, Number(p), Number(p), Floats(&right), Number(q), Number(q), Number(rows), Number(chunk)];
            let ends = [Float(0.75), New(chunks * p * q)];
            let Some(parts) = run("gradient", blocks, 256, &[&given[..], &ends].concat()) else { return };
            let given = [Floats(&parts[0]), Both(&sum), Number(chunks), Number(p * q)];
            let found = run("add_parts", elements(p * q), 256, &given).expect("as before");
            let left = |row: usize, i: usize| if ones { 1.0 } else { f64::from(left[row * p + i]) };
            let entry = |at: usize| {
                let of_row = |row: usize| left(row, at / q) * f64::from(right[row * q + at % q]);
                f64::from(sum[at]) + 0.75 * (0..rows).map(of_row).sum::<f64>()
            };
            let expected: Vec<f64> = (0..p * q).map(entry).collect();
            assert_close(2e-6, &found[0], &expected, &format!("{rows} rows, {p}, {q}"));
        }
    }
}
