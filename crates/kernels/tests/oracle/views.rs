//! Views that would leave their slice, and products of shapes that do not fit: the unsafe code rests on these panics.

use crate::problem::every_table;
use melo_kernels::{AttentionShape, Isa, Kernels, Mat, MatMut, Precision};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Asserts that `work` panics and says `why`; an overflow of its own arithmetic would be another message.
fn assert_refused<T: Debug>(why: &str, work: impl FnOnce() -> T) {
    let payload = catch_unwind(AssertUnwindSafe(work)).expect_err("must be refused");
    let message = payload.downcast_ref::<String>().expect("a formatted message");
    assert!(message.contains(why), "`{message}` does not say `{why}`");
}

fn kernels() -> &'static Kernels {
    Kernels::for_isa(Isa::Portable).expect("always there")
}

/// Asserts the same of a read-only and of a writable strided view.
fn assert_strided_refused(why: &str, len: usize, rows: usize, cols: usize, row_stride: usize) {
    let mut data = vec![0.0; len];
    assert_refused(why, || Mat::strided(&data, rows, cols, row_stride));
    assert_refused(why, || MatMut::strided(&mut data, rows, cols, row_stride));
}

/// Asserts the same of a read-only and of a writable dense view.
fn assert_dense_refused(len: usize, rows: usize, cols: usize) {
    let mut data = vec![0.0; len];
    assert_refused("expected [", || Mat::new(&data, rows, cols));
    assert_refused("expected [", || MatMut::new(&mut data, rows, cols));
}

#[test]
fn a_view_ends_inside_its_slice() {
    assert_strided_refused("leaves its 11 values", 11, 3, 2, 5);
    assert_strided_refused("leaves its 2 values", 2, 1, 3, 3);
    assert_strided_refused("leaves its 0 values", 0, 1, 1, 1);
    let _ = Mat::strided(&[0.0; 12], 3, 2, 5);
    let _ = MatMut::strided(&mut [0.0; 12], 3, 2, 5);
}

#[test]
fn rows_do_not_overlap() {
    assert_strided_refused("rows overlap", 100, 3, 5, 4);
    assert_strided_refused("rows overlap", 100, 2, 1, 0);
}

#[test]
fn a_size_that_wraps_around_is_refused() {
    let half = 1 << (usize::BITS / 2);
    assert_strided_refused("leaves its 4 values", 4, half + 1, half, half);
    assert_strided_refused("leaves its 4 values", 4, 3, 2, usize::MAX / 2 + 1);
    assert_strided_refused("leaves its 4 values", 4, 2, 1, usize::MAX);
    assert_dense_refused(0, half, half);
    assert_dense_refused(0, 2, usize::MAX / 2 + 1);
    assert_refused("expected [", || Kernels::detect(Precision::F32).pack(Vec::new(), half, half));
}

#[test]
fn a_dense_view_has_exactly_its_values() {
    assert_dense_refused(5, 2, 3);
    assert_dense_refused(7, 2, 3);
    assert_dense_refused(1, 0, 3);
    assert_refused("expected [", || Kernels::detect(Precision::F32).pack(vec![0.0; 5], 2, 3));
}

#[test]
fn empty_views_and_single_rows_need_no_stride() {
    let k = kernels();
    let _ = MatMut::strided(&mut [], 0, usize::MAX, usize::MAX);
    let _ = MatMut::strided(&mut [], usize::MAX, 0, 0);
    for stride in [0, 1, 3, 1 << (usize::BITS - 1), usize::MAX] {
        let (mut c, a, b) = ([1.0; 3], [2.0; 2], [3.0; 6]);
        k.matmul(MatMut::strided(&mut c, 1, 3, stride), 1.0, 1.0, Mat::strided(&a, 1, 2, stride), Mat::new(&b, 2, 3));
        assert_eq!(c, [13.0; 3]);
        k.matmul(MatMut::new(&mut c, 3, 1), 0.0, 1.0, Mat::new(&b, 3, 2), Mat::strided(&a, 1, 2, stride).t());
        assert_eq!(c, [12.0; 3]);
    }
}

#[test]
fn a_product_of_unequal_shapes_is_refused() {
    let data = [0.0; 12];
    for kernels in every_table() {
        let product = |c: (usize, usize), a: Mat<'_>, b: Mat<'_>| {
            let mut values = vec![0.0; c.0 * c.1];
            kernels.matmul(MatMut::new(&mut values, c.0, c.1), 0.0, 1.0, a, b);
        };
        let (a, b) = (Mat::new(&data, 3, 4), Mat::new(&data, 4, 3));
        product((3, 3), a, b);
        assert_refused("[3, 4] · [3, 4] into [3, 4]", || product((3, 4), a, b.t()));
        assert_refused("[3, 4] · [4, 3] into [2, 3]", || product((2, 3), a, b));
        assert_refused("[3, 4] · [4, 3] into [3, 2]", || product((3, 2), a, b));
    }
}

#[test]
fn attention_of_another_shape_is_refused() {
    let run = |tokens, heads, width, (qkv, o)| {
        let shape = AttentionShape { tokens, heads, width, bias: None };
        kernels().attention(shape, &vec![0.0; qkv], &mut vec![0.0; o], &mut Vec::new());
    };
    run(2, 2, 4, (24, 8));
    assert_refused("3 heads do not tile width 4", || run(2, 3, 4, (24, 8)));
    assert_refused("0 heads do not tile width 4", || run(2, 0, 4, (24, 8)));
    for lens in [(23, 8), (25, 8), (24, 7), (24, 9)] {
        assert!(catch_unwind(|| run(2, 2, 4, lens)).is_err(), "{lens:?}");
    }
}

#[test]
fn vector_kernels_refuse_slices_of_unequal_lengths() {
    let refused = |work: &dyn Fn(&Kernels)| {
        let refuses = |k: &Kernels| catch_unwind(AssertUnwindSafe(|| work(k))).is_err();
        every_table().for_each(|k| assert!(refuses(k), "{} {}", k.isa, k.precision));
    };
    let (x, w) = ([0.0; 6], [0.0; 3]);
    refused(&|k| k.layernorm(&x, &w, &w, 1e-6, &mut [0.0; 5]));
    refused(&|k| k.layernorm(&x, &w, &w[..2], 1e-6, &mut [0.0; 6]));
    refused(&|k| k.layernorm(&x[..5], &w, &w, 1e-6, &mut [0.0; 5]));
    refused(&|k| k.layernorm_backward(&x, &w, 1e-6, &x[..3], &mut [0.0; 6]));
    refused(&|k| k.layernorm_backward(&x, &w, 1e-6, &x, &mut [0.0; 3]));
    refused(&|k| k.layernorm_backward_affine(&x, 1e-6, &x, &mut [0.0; 3], &mut [0.0; 2]));
    refused(&|k| k.softmax(&mut [0.0; 5], 3, 1.0));
    refused(&|k| k.softmax_backward(&x, &mut [0.0; 3], 3, 1.0));
    refused(&|k| k.gelu(melo_kernels::Gelu::Erf, &x, &mut [0.0; 5]));
    refused(&|k| k.gelu_backward(melo_kernels::Gelu::Erf, &x, &mut [0.0; 5]));
    let weight = |k: &Kernels| k.pack(vec![0.0; 6], 2, 3);
    refused(&|k| k.linear(&x, &weight(k), &[], &mut [0.0; 5]));
    refused(&|k| k.linear(&x[..5], &weight(k), &[], &mut [0.0; 2]));
    refused(&|k| k.linear(&x, &weight(k), &[0.0], &mut [0.0; 4]));
    refused(&|k| k.linear_backward(&x[..4], &weight(k), &mut [0.0; 5]));
    refused(&|k| k.classify(&x, &w, &[0.0; 2], &mut [0.0; 4]));
    refused(&|k| k.classify(&x, &x, &[0.0; 2], &mut [0.0; 3]));
    refused(&|k| k.linear_backward_weight(&x, &x[..4], &mut [0.0; 6], &mut [0.0; 3], 2));
}
