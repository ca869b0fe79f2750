//! `c = keep · c + scale · a b`: strides, transposes, both factors.

use crate::exact::{Exact, exact, sum};
use crate::problem::{OF_TABLES, Problem, ROWS, Random, WIDTHS, every_isa_in, every_table, rounded};
use melo_kernels::{Kernels, Mat, MatMut, Precision};

#[derive(Debug)]
struct Matmul {
    precision: Precision,
    m: usize,
    k: usize,
    n: usize,
    /// Whether `a` and `b` are transposes of what lies in memory.
    transposed: (bool, bool),
    /// Values between the rows of every matrix.
    gap: usize,
    keep: f32,
    scale: f32,
}

/// A matrix in memory: `rows` of `cols` values, `stride` apart, ending with its last value.
struct Stored {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl Stored {
    fn random(rows: usize, cols: usize, gap: usize, random: &mut Random) -> Self {
        let stride = cols + gap;
        Stored { data: random.values((rows - 1) * stride + cols), rows, cols, stride }
    }

    fn view(&self, transposed: bool) -> Mat<'_> {
        let mat = Mat::strided(&self.data, self.rows, self.cols, self.stride);
        if transposed { mat.t() } else { mat }
    }

    fn at(&self, transposed: bool, row: usize, column: usize) -> Exact {
        let (row, column) = if transposed { (column, row) } else { (row, column) };
        Exact::of(self.data[row * self.stride + column])
    }
}

impl Matmul {
    fn inputs(&self) -> (Stored, Stored, Stored) {
        let &Matmul { m, k, n, gap, keep, .. } = self;
        let mut random = Random::new(m * 7919 + k * 104_729 + n);
        let mut stored = |rows, cols, transposed| {
            let (rows, cols) = if transposed { (cols, rows) } else { (rows, cols) };
            Stored::random(rows, cols, gap, &mut random)
        };
        let a = stored(m, k, self.transposed.0);
        let b = stored(k, n, self.transposed.1);
        let mut c = stored(m, n, false);
        if keep == 0.0 {
            // What is not kept must not be read either.
            c.data.chunks_mut(c.stride).for_each(|row| row[..n].fill(f32::NAN));
        }
        (a, b, c)
    }
}

impl Problem for Matmul {
    fn precision(&self) -> Precision {
        self.precision
    }

    fn steps(&self) -> usize {
        self.k + 3
    }

    fn reference(&self) -> Vec<Exact> {
        let (mut a, mut b, c) = self.inputs();
        for factor in [&mut a, &mut b] {
            factor.data = rounded(self.precision, &factor.data);
        }
        let mut expected: Vec<Exact> = c.data.iter().map(|&x| Exact::untouched(x)).collect();
        for i in 0..self.m {
            for j in 0..self.n {
                let product = sum(self.k, |l| a.at(self.transposed.0, i, l) * b.at(self.transposed.1, l, j));
                let kept = if self.keep == 0.0 { Exact::ZERO } else { Exact::of(self.keep) * c.at(false, i, j) };
                expected[i * c.stride + j] = kept + Exact::of(self.scale) * product;
            }
        }
        expected
    }

    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let (a, b, mut c) = self.inputs();
        let view = MatMut::strided(&mut c.data, self.m, self.n, c.stride);
        kernels.matmul(view, self.keep, self.scale, a.view(self.transposed.0), b.view(self.transposed.1));
        c.data
    }
}

#[test]
fn matmul_is_its_sum_of_products() {
    let factors = [(0.0, 1.0), (1.0, 1.0), (1.0, -0.5), (0.25, 2.0), (-1.0, 0.125)];
    let mut count = 0;
    for m in ROWS {
        for k in WIDTHS {
            for n in WIDTHS {
                let (keep, scale) = factors[count % factors.len()];
                let transposed = (count % 2 == 1, count % 4 > 1);
                for precision in OF_TABLES {
                    Matmul { precision, m, k, n, transposed, gap: [0, 1, 5][count % 3], keep, scale }.check();
                }
                count += 1;
            }
        }
    }
}

#[test]
fn matmul_takes_every_transpose_with_every_factor() {
    for transposed in [(false, false), (false, true), (true, false), (true, true)] {
        for (keep, scale) in [(0.0, 1.0), (1.0, 1.0), (1.0, 0.75), (0.5, -2.0), (3.0, 0.0)] {
            for (m, k, n) in [(5, 33, 17), (17, 2, 5), (1, 64, 33), (33, 64, 1)] {
                for gap in [0, 3] {
                    for precision in OF_TABLES {
                        Matmul { precision, m, k, n, transposed, gap, keep, scale }.check();
                    }
                }
            }
        }
    }
}

#[test]
fn a_tile_may_be_of_any_number_of_rows() {
    for m in 1..=13 {
        for (transposed, n) in [(false, 33), (true, 33), (false, 800), (true, 800)] {
            for (keep, scale) in [(0.0, 1.0), (0.5, -2.0)] {
                let (precision, transposed) = (Precision::F32, (transposed, false));
                Matmul { precision, m, k: 19, n, transposed, gap: 2, keep, scale }.check();
            }
        }
    }
}

#[test]
fn in_f32_an_element_is_that_of_its_row_and_column_however_they_lie() {
    let (m, k, n) = (29, 1024, 1100);
    let mut random = Random::new(3);
    let (a, b) = (random.values(m * k), random.values(k * n));
    for kernels in every_isa_in(Precision::F32).filter(|kernels| kernels.rows_are_independent()) {
        let product = |a: Mat<'_>, columns: std::ops::Range<usize>| {
            let mut c = vec![f32::NAN; m * columns.len()];
            let b = Mat::strided(&b[columns.start..], k, columns.len(), n);
            kernels.matmul(MatMut::new(&mut c, m, columns.len()), 0.0, 1.0, a, b);
            c
        };
        let whole = product(Mat::new(&a, m, k), 0..n);
        // Rows that lie elsewhere: a number apart, or as columns.
        let apart: Vec<f32> = a.chunks(k).flat_map(|row| row.iter().copied().chain([f32::NAN])).collect();
        let columns: Vec<f32> = (0..k * m).map(|at| a[at % m * k + at / m]).collect();
        for a in [Mat::new(&a, m, k), Mat::strided(&apart, m, k, k + 1), Mat::new(&columns, k, m).t()] {
            for columns in [0..n, 0..333, 333..n] {
                let part = product(a, columns.clone());
                let expected: Vec<f32> = whole.chunks(n).flat_map(|row| &row[columns.clone()]).copied().collect();
                assert!(part == expected, "{:?}, columns {columns:?}", kernels.isa);
            }
        }
    }
}

#[test]
fn without_an_inner_dimension_only_keep_remains() {
    for kernels in every_table() {
        for (keep, expected) in [(0.0, 0.0), (1.0, 4.0), (0.5, 2.0)] {
            let mut c = [4.0, 4.0, 7.0, 4.0, 4.0];
            kernels.matmul(MatMut::strided(&mut c, 2, 2, 3), keep, 1.0, Mat::new(&[], 2, 0), Mat::new(&[], 0, 2));
            assert_eq!(c, [expected, expected, 7.0, expected, expected], "keep {keep}");
        }
        let mut c = [f32::NAN];
        kernels.matmul(MatMut::new(&mut c, 1, 1), 0.0, 1.0, Mat::new(&[], 0, 1).t(), Mat::new(&[], 1, 0).t());
        assert_eq!(c, [0.0]);
    }
}

#[test]
fn without_rows_or_columns_nothing_happens() {
    for kernels in every_table() {
        kernels.matmul(MatMut::new(&mut [], 0, 3), 1.0, 1.0, Mat::new(&[], 0, 2), Mat::new(&[1.0; 6], 2, 3));
        kernels.matmul(MatMut::new(&mut [], 3, 0), 1.0, 1.0, Mat::new(&[1.0; 6], 3, 2), Mat::new(&[], 2, 0));
    }
}

#[test]
fn exact_inputs_have_their_magnitude() {
    let [a, b] = [exact(&[-2.0])[0], exact(&[3.0])[0]];
    assert_eq!(((a * b).value, (a * b).mass), (-6.0, 6.0));
    assert_eq!(((a + b).value, (a + b).mass), (1.0, 5.0));
}
