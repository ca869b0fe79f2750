//! What bfloat16 promises beyond its sums: the same roundings everywhere, and elements that depend on nothing else.

use crate::exact::{Exact, exact, sum};
use crate::problem::{OF_TABLES, Problem, Random, every_isa_in, rounded};
use melo_kernels::{Isa, Kernels, Mat, MatMut, Precision};

/// `a b` of dense matrices `[m, k]` and `[k, n]`.
fn product(kernels: &Kernels, a: &[f32], b: &[f32], (m, k, n): (usize, usize, usize)) -> Vec<f32> {
    let mut c = vec![f32::NAN; m * n];
    kernels.matmul(MatMut::new(&mut c, m, n), 0.0, 1.0, Mat::new(a, m, k), Mat::new(b, k, n));
    c
}

#[test]
fn factors_are_rounded_to_the_nearest_and_to_even() {
    let mut x = Random::new(1).values(1000);
    // Ties to either side, a carry into the exponent, the ends of the range, and what is flushed to zero.
    x.extend([0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x3fff_ffff, 0xbf81_8000].map(f32::from_bits));
    x.extend([0.0, -0.0, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE, 1e-40, -1e-45]);
    let expected = rounded(Precision::Bf16, &x);
    for kernels in every_isa_in(Precision::Bf16) {
        assert_eq!(product(kernels, &x, &[1.0], (x.len(), 1, 1)), expected, "left, {}", kernels.isa);
        assert_eq!(product(kernels, &[1.0], &x, (1, 1, x.len())), expected, "right, {}", kernels.isa);
        assert!(product(kernels, &[f32::NAN], &[1.0], (1, 1, 1))[0].is_nan(), "{}", kernels.isa);
    }
}

#[test]
fn a_row_and_a_column_depend_on_nothing_else() {
    // More rows and pairs than a block of either, ends that fill no register.
    let (m, k, n) = (245, 1101, 37);
    let mut random = Random::new(2);
    let (a, b) = (random.values(m * k), random.values(k * n));
    for kernels in every_isa_in(Precision::Bf16).chain(every_isa_in(Precision::Bf16x3)) {
        let whole = product(kernels, &a, &b, (m, k, n));
        for row in [0, 1, 11, 12, 239, 240, 244] {
            let alone = product(kernels, &a[row * k..(row + 1) * k], &b, (1, k, n));
            assert_eq!(alone, whole[row * n..(row + 1) * n], "row {row}, {} {}", kernels.isa, kernels.precision);
        }
        for column in [0, 15, 16, 31, 32, 36] {
            let b: Vec<f32> = b.iter().skip(column).step_by(n).copied().collect();
            let expected: Vec<f32> = whole.iter().skip(column).step_by(n).copied().collect();
            assert_eq!(
                product(kernels, &a, &b, (m, k, 1)),
                expected,
                "column {column}, {} {}",
                kernels.isa,
                kernels.precision
            );
        }
    }
}

#[test]
fn the_emulation_is_the_instruction_but_for_the_order_of_sums() {
    let shape @ (m, k, n) = (197, 768, 35);
    let mut random = Random::new(3);
    let (a, b) = (random.values(m * k), random.values(k * n));
    let portable = Kernels::with(Isa::Portable, Precision::Bf16).expect("always there");
    let expected = product(portable, &a, &b, shape);
    // Every product is below 1 and exact in f32, so each of both sums is off by at most k · ε · k.
    let bound = 2.0 * (k * k) as f32 * f32::EPSILON;
    for kernels in every_isa_in(Precision::Bf16) {
        let found = product(kernels, &a, &b, shape);
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= bound, "{}: {worst:e}, expected at most {bound:e}", kernels.isa);
    }
}

/// Two numbers of 8 bits, the second below the first, hold what f32 holds but for its last bits.
#[test]
fn products_of_three_keep_what_one_rounding_loses() {
    let shape @ (m, k, n) = (33, 200, 19);
    let mut random = Random::new(4);
    let (a, b) = (random.values(m * k), random.values(k * n));
    let worst = |kernels: &Kernels| {
        let exact =
            |at: usize| (0..k).map(|l| f64::from(a[at / n * k + l]) * f64::from(b[l * n + at % n])).sum::<f64>();
        let found = product(kernels, &a, &b, shape);
        found.iter().enumerate().map(|(at, &x)| (f64::from(x) - exact(at)).abs()).fold(0.0, f64::max)
    };
    for (one, three) in every_isa_in(Precision::Bf16).zip(every_isa_in(Precision::Bf16x3)) {
        assert!(worst(three) < worst(one) / 100.0, "{}: {:e} and {:e}", one.isa, worst(three), worst(one));
    }
}

#[test]
fn products_of_three_make_nothing_finite_that_is_not() {
    for kernels in every_isa_in(Precision::Bf16x3) {
        for x in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let found = product(kernels, &[x], &[1.0], (1, 1, 1))[0];
            assert!(!found.is_finite(), "{x} on {}: {found}", kernels.isa);
        }
    }
}

#[test]
fn precisions_are_words() {
    for precision in Precision::ALL {
        assert_eq!(precision.to_string().parse(), Ok(precision));
    }
    let error = "half".parse::<Precision>().expect_err("not a precision");
    assert_eq!(error.to_string(), "precision `half`: expected f32, bf16, bf16x3 or int8");
    assert_eq!(Precision::default(), Precision::F32);
}

/// Logits of a classifier, which no precision touches.
#[derive(Debug)]
struct Classifier {
    precision: Precision,
    n: usize,
    width: usize,
    classes: usize,
}

impl Classifier {
    fn inputs(&self) -> [Vec<f32>; 3] {
        let &Classifier { n, width, classes, .. } = self;
        let mut random = Random::new(n + 7 * width + 31 * classes);
        [n * width, classes * width, classes].map(|len| random.values(len))
    }
}

impl Problem for Classifier {
    fn precision(&self) -> Precision {
        self.precision
    }

    fn steps(&self) -> usize {
        self.width + 2
    }

    fn reference(&self) -> Vec<Exact> {
        let [x, weight, bias] = self.inputs().map(|values| exact(&values));
        let (width, classes) = (self.width, self.classes);
        let logit = |i: usize, j: usize| bias[j] + sum(width, |l| x[i * width + l] * weight[j * width + l]);
        (0..self.n * classes).map(|at| logit(at / classes, at % classes)).collect()
    }

    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let [x, weight, bias] = self.inputs();
        let mut y = vec![f32::NAN; self.n * self.classes];
        kernels.classify(&x, &weight, &bias, &mut y);
        y
    }
}

#[test]
fn classifiers_are_in_f32_in_every_precision() {
    for precision in OF_TABLES {
        for (n, width, classes) in [(1, 1, 1), (2, 17, 3), (3, 192, 7), (1, 768, 1000)] {
            Classifier { precision, n, width, classes }.check();
        }
    }
}
