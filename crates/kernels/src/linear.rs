//! Matrix products: `y = x Wᵀ + b` with a packed frozen weight, its gradients, and the general product below them.

use crate::bf16::{self, Packed};
use crate::int8;
use crate::lines::{Lines, Sections, bytes_of};
use crate::precision::Precision;
use crate::product::{COLUMNS, Finish};
use crate::rows::{Left, LeftRows, Numbers};
use crate::sgemm::{self, Panels, Products};
use crate::table::Kernels;
use crate::view::{Mat, MatMut, assert_product};
use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::OnceLock;

/// A weight `[out, in]` in the layout that the matrix product wants.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    rows: usize,
    cols: usize,
    pub(crate) layout: Layout,
}

#[derive(Clone, Debug)]
pub(crate) enum Layout {
    /// The row-major matrix itself.
    F32(Lines<f32>),
    /// Panels of the transpose, for both directions.
    Panels(Panels),
    /// Panels of the transpose, for `x Wᵀ`, and once a gradient was asked for those of the matrix, for `d_y W`.
    Bf16 { forward: Packed, backward: OnceLock<Packed> },
    /// Panels of the transpose in integers, for `x Wᵀ`, and once gradients are asked for again and again the transpose itself as a
    /// weight of the table's own precision, for `d_y W`.
    Int8 { forward: int8::Packed, backward: OnceLock<Box<PackedWeight>> },
}

impl PackedWeight {
    /// Output features that lie together: parts of a layer begin at a multiple of it.
    pub const PANEL: usize = COLUMNS;

    /// Output features.
    pub fn out_features(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn in_features(&self) -> usize {
        self.cols
    }

    /// True where it is in 8-bit integers.
    pub fn is_int8(&self) -> bool {
        matches!(self.layout, Layout::Int8 { .. })
    }

    /// What [`Kernels::unpack`] makes it from again, each as a section of a file.
    pub fn sections(&self) -> Vec<&[u8]> {
        match &self.layout {
            Layout::F32(data) => vec![bytes_of(data)],
            Layout::Panels(panels) => vec![panels.section()],
            Layout::Bf16 { forward, .. } => forward.sections(),
            Layout::Int8 { forward, .. } => forward.sections(),
        }
    }
}

/// `c = keep · c + scale · a b` through the `gemm-f32` crate, which picks its own micro-kernel.
fn matmul(c: MatMut<'_>, keep: f32, scale: f32, a: Mat<'_>, b: Mat<'_>) {
    assert_product(&c, (a.rows, a.cols), (b.rows, b.cols));
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    // Its micro-kernels go down columns: rows are the columns of `cᵀ = keep · cᵀ + scale · bᵀ aᵀ`.
    let (rows, cols, row_stride, col_stride, a, b) = match c.row_stride {
        0 | 1 => (c.rows, c.cols, c.row_stride as isize, 1, a, b),
        stride => (c.cols, c.rows, 1, stride as isize, b.t(), a.t()),
    };
    // SAFETY: a view's constructor asserts that its last element lies inside its slice, so offsets fit an `isize`;
    // `t()` keeps that set of elements; the rows of `c` do not overlap one another; the three shapes agree (asserted
    // above); `c` is borrowed mutably, so it overlaps neither input. With no inner dimension no input is read.
    unsafe {
        gemm_f32::gemm::f32::get_gemm_fn()(
            rows,
            cols,
            a.cols,
            c.data.as_mut_ptr(),
            col_stride,
            row_stride,
            keep != 0.0,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            keep,
            scale,
            false,
            false,
            false,
            gemm_common::Parallelism::None,
        );
    }
}

/// A right operand as the products want it, in a buffer or where it lies.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    AsItIs(Mat<'a>),
    Panels(sgemm::Rhs<'a>),
    Bf16(bf16::Operand<'a>),
}

/// Buffers of a right operand that is not kept.
#[derive(Debug, Default)]
pub(crate) struct RightBuffers {
    panels: Vec<sgemm::Line>,
    bf16: bf16::RightBuffers,
}

thread_local! {
    static RIGHT: RefCell<RightBuffers> = RefCell::default();
    static LEFT: RefCell<LeftRows> = RefCell::default();
}

impl Kernels {
    /// `c = keep · c + scale · a b`; `a [m, k]`, `b [k, n]`, `c [m, n]`; `c` is not read when `keep` is 0.
    pub fn matmul(&self, c: MatMut<'_>, keep: f32, scale: f32, a: Mat<'_>, b: Mat<'_>) {
        assert_product(&c, (a.rows, a.cols), (b.rows, b.cols));
        RIGHT.with_borrow_mut(|buffers| self.multiply(c, keep, scale, a, self.right(b, buffers)));
    }

    /// Makes a right operand ready for any number of products.
    pub(crate) fn right<'a>(&self, b: Mat<'a>, buffers: &'a mut RightBuffers) -> Right<'a> {
        match (self.precision, &self.sgemm) {
            (Precision::F32, None) => Right::AsItIs(b),
            // SAFETY: this table exists only where `Isa::is_available` held, so its instructions do too.
            (Precision::F32, Some(products)) => Right::Panels(unsafe { products.right(b, &mut buffers.panels) }),
            // SAFETY: as above.
            _ => Right::Bf16(unsafe { self.bf16.right(b, self.splits(), &mut buffers.bf16) }),
        }
    }

    /// `c = keep · c + scale · a b` with a right operand that was made ready.
    pub(crate) fn multiply(&self, c: MatMut<'_>, keep: f32, scale: f32, a: Mat<'_>, b: Right<'_>) {
        let finish = Finish { keep, scale, bias: &[] };
        match b {
            Right::AsItIs(b) => matmul(c, keep, scale, a, b),
            // SAFETY: as in `right`, which made it.
            Right::Panels(b) => unsafe { self.sgemm().matmul_packed(c, finish, a, b) },
            // SAFETY: as above.
            Right::Bf16(b) => unsafe { self.bf16.matmul_packed(c, finish, a, b) },
        }
    }

    /// The products that weights in panels were made for.
    fn sgemm(&self) -> &Products {
        self.sgemm.as_ref().expect("a weight of another instruction set")
    }

    /// True where a row of a product depends on its own row of the left operand alone, to the last bit: rows may then be
    /// computed in any company.
    pub fn rows_are_independent(&self) -> bool {
        self.precision != Precision::F32 || self.sgemm.is_some()
    }

    /// True where a factor is two bfloat16 numbers.
    pub(crate) fn splits(&self) -> bool {
        self.precision == Precision::Bf16x3
    }

    /// A dense row-major weight `[out, in]` for the products of this table's precision; copied only where it is kept as it
    /// is.
    pub fn pack<'a>(&self, data: impl Into<Cow<'a, [f32]>>, out: usize, input: usize) -> PackedWeight {
        let data = data.into();
        let transpose = Mat::new(&data, out, input).t();
        let layout = match (self.precision, &self.sgemm) {
            (Precision::F32, None) => Layout::F32(Lines::Owned(data.into_owned())),
            // SAFETY: as in `matmul`.
            (Precision::F32, Some(products)) => Layout::Panels(unsafe { Panels::new(products, transpose) }),
            (Precision::Bf16 | Precision::Bf16x3 | Precision::Int8, _) => {
                // SAFETY: as in `matmul`.
                let forward = unsafe { Packed::new(&self.bf16, transpose, self.splits()) };
                Layout::Bf16 { forward, backward: OnceLock::new() }
            }
        };
        PackedWeight { rows: out, cols: input, layout }
    }

    /// The same in 8-bit integers, whatever the precision of this table, with a scale an output feature; none where a number
    /// is not finite, or where there are more than 66,000 input features, whose sums could leave 32 bits.
    pub fn pack_int8(&self, data: &[f32], out: usize, input: usize) -> Option<PackedWeight> {
        // SAFETY: as in `matmul`.
        let forward = unsafe { int8::Packed::new(&self.int8, Mat::new(data, out, input)) }?;
        Some(PackedWeight { rows: out, cols: input, layout: Layout::Int8 { forward, backward: OnceLock::new() } })
    }

    /// A weight `[out, in]` that was packed before, in 8-bit integers or as [`Kernels::pack`] does, by a table of this precision
    /// and instruction set; none where the file is too short. Its lines stay in the file.
    pub fn unpack(&self, int8: bool, out: usize, input: usize, sections: &mut Sections) -> Option<PackedWeight> {
        let layout = match (self.precision, &self.sgemm) {
            _ if int8 => {
                let forward = int8::Packed::read(&self.int8, (input, out), sections)?;
                Layout::Int8 { forward, backward: OnceLock::new() }
            }
            (Precision::F32, None) => Layout::F32(sections.lines(out.checked_mul(input)?)?),
            (Precision::F32, Some(_)) => Layout::Panels(Panels::read(input, out, sections)?),
            (Precision::Bf16 | Precision::Bf16x3 | Precision::Int8, _) => {
                let forward = Packed::read(&self.bf16, self.splits(), (input, out), sections)?;
                Layout::Bf16 { forward, backward: OnceLock::new() }
            }
        };
        Some(PackedWeight { rows: out, cols: input, layout })
    }

    /// `y = x Wᵀ + b`; `x [m, in]`, `y [m, out]`, `bias [out]` or empty for none.
    pub fn linear(&self, x: &[f32], w: &PackedWeight, bias: &[f32], y: &mut [f32]) {
        LEFT.with_borrow_mut(|left| self.linear_of(self.left(left, x, w), w, 0..w.rows, bias, y));
    }

    /// `y += x Wᵀ + b`: the linear layer that ends a residual branch.
    pub fn linear_add(&self, x: &[f32], w: &PackedWeight, bias: &[f32], y: &mut [f32]) {
        LEFT.with_borrow_mut(|left| self.linear_add_of(self.left(left, x, w), w, bias, y));
    }

    /// The rows of `x [m, in]` for the product with a weight.
    fn left<'a>(&self, left: &'a mut LeftRows, x: &'a [f32], w: &PackedWeight) -> Left<'a> {
        assert!(x.len().is_multiple_of(w.cols), "rows of {} values", w.cols);
        left.begin(self, w, x.len() / w.cols);
        x.chunks_exact(w.cols).for_each(|x| left.push(self, x));
        left.of(x)
    }

    /// Some output features of `y = x Wᵀ + b`, which go to their columns of `y [m, out]`; the others are left as they are.
    ///
    /// # Panics
    /// If the first of them is no multiple of [`PackedWeight::PANEL`], besides the shapes.
    pub fn linear_of(&self, x: Left<'_>, w: &PackedWeight, out: Range<usize>, bias: &[f32], y: &mut [f32]) {
        assert!(
            out.start.is_multiple_of(COLUMNS) && out.end <= w.rows && y.len() == x.rows * w.rows,
            "part of a layer"
        );
        assert!(bias.is_empty() || bias.len() == w.rows, "bias [{}] for [{}, {}]", bias.len(), w.rows, w.cols);
        let bias = if bias.is_empty() { bias } else { &bias[out.clone()] };
        let y = MatMut::strided(y.get_mut(out.start..).unwrap_or_default(), x.rows, out.len(), w.rows);
        self.linear_onto(x, w, out, bias, y, false);
    }

    /// `y += x Wᵀ + b`; `y [m, out]`.
    pub fn linear_add_of(&self, x: Left<'_>, w: &PackedWeight, bias: &[f32], y: &mut [f32]) {
        assert!(bias.is_empty() || bias.len() == w.rows, "bias [{}] for [{}, {}]", bias.len(), w.rows, w.cols);
        self.linear_onto(x, w, 0..w.rows, bias, MatMut::new(y, x.rows, w.rows), true);
    }

    fn linear_onto(
        &self,
        x: Left<'_>,
        w: &PackedWeight,
        out: Range<usize>,
        bias: &[f32],
        mut y: MatMut<'_>,
        add: bool,
    ) {
        assert!(x.cols == w.cols, "rows of another layer");
        let finish = Finish { keep: if add { 1.0 } else { 0.0 }, scale: 1.0, bias };
        match (&w.layout, x.numbers) {
            (Layout::F32(data), Numbers::F32(x)) => {
                set_bias(bias, y.again(), add);
                let keep = if add || !bias.is_empty() { 1.0 } else { 0.0 };
                let data = &data[out.start * w.cols..out.end * w.cols];
                matmul(y, keep, 1.0, x, Mat::new(data, out.len(), w.cols).t());
            }
            (Layout::Panels(panels), Numbers::F32(x)) => {
                // SAFETY: as in `right`; only tables with these products make such weights.
                unsafe { self.sgemm().matmul_packed(y, finish, x, panels.rhs_of(out)) };
            }
            (Layout::Bf16 { forward, .. }, Numbers::F32(x)) => {
                // SAFETY: as in `right`.
                unsafe { self.bf16.matmul_packed(y, finish, x, forward.operand_of(out)) };
            }
            (Layout::Bf16 { forward, .. }, Numbers::Bf16(words)) => {
                // SAFETY: as in `right`.
                unsafe { self.bf16.matmul_rows(y, finish, words, forward.operand_of(out)) };
            }
            (Layout::Int8 { forward, .. }, Numbers::Int8(integers)) => {
                // SAFETY: as in `right`.
                unsafe { self.int8.matmul_packed(y, finish, integers, forward.rhs_of(out)) };
            }
            _ => panic!("rows for a weight of another kind"),
        }
    }

    /// A classifier, `y = x Wᵀ + b` in f32 whatever the precision; `x [n, width]`, `weight [c, width]`, `bias [c]`.
    ///
    /// It steers everything, and a row of `y` depends on its row of `x` alone, to the last bit.
    pub fn classify(&self, x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
        let (classes, width) = (bias.len(), weight.len() / bias.len());
        let n = x.len() / width;
        assert!(weight.len() == classes * width && y.len() == n * classes, "classifier shapes");
        self.dots(Mat::new(x, n, width), weight, 1.0, y);
        set_bias(bias, MatMut::new(y, n, classes), true);
    }

    /// Keeps what gradients through a weight read, for those who ask for many: of 8-bit integers, which are else unpacked each
    /// time, what is computed with in the table's own precision.
    pub fn prepare_backward(&self, w: &PackedWeight) {
        match &w.layout {
            Layout::Bf16 { forward, backward } => {
                backward.get_or_init(|| forward.transposed(&self.bf16));
            }
            Layout::Int8 { forward, backward } => {
                backward.get_or_init(|| Box::new(self.pack(forward.transpose(), w.cols, w.rows)));
            }
            Layout::F32(_) | Layout::Panels(_) => {}
        }
    }

    /// `d_x = d_y W`; `d_y [m, out]`, `d_x [m, in]`.
    pub fn linear_backward(&self, d_y: &[f32], w: &PackedWeight, d_x: &mut [f32]) {
        assert!(d_y.len().is_multiple_of(w.rows), "rows of {} values", w.rows);
        LEFT.with_borrow_mut(|left| {
            left.begin_backward(self, w, d_y.len() / w.rows);
            d_y.chunks_exact(w.rows).for_each(|d_y| left.push(self, d_y));
            self.linear_backward_of(left.of(d_y), w, d_x);
        });
    }

    /// The same of rows that were made one by one.
    pub fn linear_backward_of(&self, d_y: Left<'_>, w: &PackedWeight, d_x: &mut [f32]) {
        assert!(d_y.cols == w.rows, "rows of another layer");
        let d_x = MatMut::new(d_x, d_y.rows, w.cols);
        let overwrite = Finish { keep: 0.0, scale: 1.0, bias: &[] };
        match (&w.layout, d_y.numbers) {
            (Layout::F32(data), Numbers::F32(d_y)) => matmul(d_x, 0.0, 1.0, d_y, Mat::new(data, w.rows, w.cols)),
            (Layout::Panels(panels), Numbers::F32(d_y)) => {
                // SAFETY: as in `matmul`; only tables with these products make such weights.
                unsafe { self.sgemm().matmul_packed(d_x, overwrite, d_y, panels.transposed()) };
            }
            (Layout::Bf16 { forward, backward }, d_y) => {
                let weight = backward.get_or_init(|| forward.transposed(&self.bf16)).operand();
                match d_y {
                    // SAFETY: as in `matmul`.
                    Numbers::Bf16(words) => unsafe { self.bf16.matmul_rows(d_x, overwrite, words, weight) },
                    // SAFETY: as in `matmul`.
                    Numbers::F32(d_y) => unsafe { self.bf16.matmul_packed(d_x, overwrite, d_y, weight) },
                    Numbers::Int8(_) => panic!("rows for a weight of another kind"),
                }
            }
            (Layout::Int8 { forward, backward }, numbers) => match (backward.get(), numbers) {
                (Some(transpose), _) => self.linear_onto(d_y, transpose, 0..w.cols, &[], d_x, false),
                (None, Numbers::F32(d_y)) => {
                    let transpose = forward.transpose();
                    self.matmul(d_x, 0.0, 1.0, d_y, Mat::new(&transpose, w.cols, w.rows).t());
                }
                _ => panic!("rows for a weight of another kind"),
            },
            _ => panic!("rows for a weight of another kind"),
        }
    }

    /// `d_w += d_yᵀ x`, `d_b += Σ d_y` over rows; `x [m, in]`, `d_y [m, out]`; an empty `d_b` is skipped.
    pub fn linear_backward_weight(&self, x: &[f32], d_y: &[f32], d_w: &mut [f32], d_b: &mut [f32], out: usize) {
        let (m, input) = (d_y.len() / out, d_w.len() / out);
        let (sum, d_y_t, x) = (MatMut::new(d_w, out, input), Mat::new(d_y, m, out).t(), Mat::new(x, m, input));
        match self.precision {
            // Large, and nothing of it is kept.
            Precision::F32 => matmul(sum, 1.0, 1.0, d_y_t, x),
            Precision::Bf16 | Precision::Bf16x3 | Precision::Int8 => self.matmul(sum, 1.0, 1.0, d_y_t, x),
        }
        if !d_b.is_empty() {
            assert_eq!(d_b.len(), out, "bias gradient");
            for d_y in d_y.chunks_exact(out) {
                d_b.iter_mut().zip(d_y).for_each(|(b, d)| *b += d);
            }
        }
    }
}

/// The bias in every row of `y`, or added to it; an empty one is none.
fn set_bias(bias: &[f32], y: MatMut<'_>, add: bool) {
    if bias.is_empty() || y.rows == 0 {
        return;
    }
    for y in y.data.chunks_mut(y.row_stride.max(1)).take(y.rows) {
        if add {
            y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        } else {
            y[..bias.len()].copy_from_slice(bias);
        }
    }
}
