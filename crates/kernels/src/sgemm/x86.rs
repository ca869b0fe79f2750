//! Products in f32 with AVX2 and AVX-512: the loops once, the register a parameter.

use super::{Line, Products, Rhs, Scratch};
use crate::prefetch::{prefetch, prefetch_rows};
use crate::product::{Blocking, COLUMNS, Finish, first};
use crate::transpose::transpose_words;
use crate::view::{Mat, MatMut};
use std::arch::x86_64::*;

pub(crate) const AVX2: Products = Products { turn, product: avx2 };
pub(crate) const AVX512: Products = Products { turn: turn_avx512, product: avx512 };

/// A register of numbers. Its functions are instructions, which the machine has wherever they are inlined.
trait Register: Copy {
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn splat(from: *const f32) -> Self;
    /// `self + x · y`, rounded once.
    unsafe fn add_product(self, x: Self, y: Self) -> Self;
    unsafe fn add(self, x: Self) -> Self;
    unsafe fn scale(self, factor: f32) -> Self;
    unsafe fn store(self, to: *mut f32);
}

impl Register for __m512 {
    const LANES: usize = 16;
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the machine has the instruction.
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's pointer is to 16 numbers.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's pointer is to a number.
        unsafe { _mm512_set1_ps(*from) }
    }
    #[inline(always)]
    unsafe fn add_product(self, x: Self, y: Self) -> Self {
        // SAFETY: the machine has the instruction.
        unsafe { _mm512_fmadd_ps(x, y, self) }
    }
    #[inline(always)]
    unsafe fn add(self, x: Self) -> Self {
        // SAFETY: the machine has the instruction.
        unsafe { _mm512_add_ps(self, x) }
    }
    #[inline(always)]
    unsafe fn scale(self, factor: f32) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { _mm512_mul_ps(self, _mm512_set1_ps(factor)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's pointer is to 16 numbers.
        unsafe { _mm512_storeu_ps(to, self) }
    }
}

impl Register for __m256 {
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the machine has the instruction.
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's pointer is to 8 numbers.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's pointer is to a number.
        unsafe { _mm256_broadcast_ss(&*from) }
    }
    #[inline(always)]
    unsafe fn add_product(self, x: Self, y: Self) -> Self {
        // SAFETY: the machine has the instruction.
        unsafe { _mm256_fmadd_ps(x, y, self) }
    }
    #[inline(always)]
    unsafe fn add(self, x: Self) -> Self {
        // SAFETY: the machine has the instruction.
        unsafe { _mm256_add_ps(self, x) }
    }
    #[inline(always)]
    unsafe fn scale(self, factor: f32) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { _mm256_mul_ps(self, _mm256_set1_ps(factor)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's pointer is to 8 numbers.
        unsafe { _mm256_storeu_ps(to, self) }
    }
}

/// A strip of the left operand, a few of its rows: `[rows, steps]` by its first number and the distances.
#[derive(Clone, Copy)]
enum Strip {
    /// Numbers of a column are adjacent, columns so many numbers apart.
    Columns(*const f32, usize),
    /// Numbers of a row are adjacent, rows so many numbers apart.
    Rows(*const f32, usize),
}

/// Rows of a strip at most.
const ROWS: usize = 12;
/// Rows that are addressed from one pointer, by multiples of their distance.
const OF_A_POINTER: usize = 3;

/// Where the sums of a tile go, by the first number and the distance of rows, and what becomes of them there; the bias is that of
/// the tile's columns.
struct Target<'a> {
    start: *mut f32,
    apart: usize,
    finish: Finish<'a>,
}

/// Sums of `M` rows and `V` registers of columns over `steps` rows of the right operand.
///
/// # Safety
/// The machine has the registers' instructions; the strip has at least `M` rows and `steps` columns; each pointer of `b` is
/// to `steps` lines, of which a register's numbers are read; the target has room for `M` rows of `V` registers, and a bias for
/// as many or none.
#[inline(always)]
unsafe fn add_up<R: Register, const M: usize, const V: usize>(
    strip: Strip,
    mut b: [*const f32; V],
    steps: usize,
    to: Target<'_>,
) {
    // SAFETY: the machine has the instruction.
    let mut totals = [[unsafe { R::zero() }; V]; M];
    match strip {
        Strip::Columns(mut a, apart) => {
            for _ in 0..steps {
                // SAFETY: numbers and lines stay within what the caller promises.
                unsafe { add_step(&mut totals, |i| a.wrapping_add(i), b) };
                a = a.wrapping_add(apart);
                b = b.map(|b| b.wrapping_add(COLUMNS));
            }
        }
        Strip::Rows(a, apart) => {
            let mut rows: [_; ROWS / OF_A_POINTER] = std::array::from_fn(|i| a.wrapping_add(i * OF_A_POINTER * apart));
            for _ in 0..steps {
                let number = |i: usize| rows[i / OF_A_POINTER].wrapping_add(i % OF_A_POINTER * apart);
                // SAFETY: as above.
                unsafe { add_step(&mut totals, number, b) };
                rows = rows.map(|row| row.wrapping_add(1));
                b = b.map(|b| b.wrapping_add(COLUMNS));
            }
        }
    }
    let Finish { keep, scale, bias } = to.finish;
    let of_columns = |v: usize| bias.as_ptr().wrapping_add(v * R::LANES);
    // SAFETY: as above.
    unsafe {
        match (bias.is_empty(), keep == 0.0) {
            (true, true) => put(&totals, &to, |sum, _, _| sum.scale(scale)),
            (true, false) => put(&totals, &to, |sum, _, c| R::load(c).scale(keep).add(sum.scale(scale))),
            (false, true) => put(&totals, &to, |sum, v, _| sum.scale(scale).add(R::load(of_columns(v)))),
            (false, false) => {
                put(&totals, &to, |sum, v, c| R::load(c).scale(keep).add(sum.scale(scale).add(R::load(of_columns(v)))))
            }
        }
    }
}

/// Stores what becomes of each register of sums, which is given its number in the row and its place.
///
/// # Safety
/// As of [`add_up`], for the target.
#[inline(always)]
unsafe fn put<R: Register, const M: usize, const V: usize>(
    totals: &[[R; V]; M],
    to: &Target<'_>,
    finished: impl Fn(R, usize, *const f32) -> R,
) {
    for (i, totals) in totals.iter().enumerate() {
        for (v, &total) in totals.iter().enumerate() {
            let at = to.start.wrapping_add(i * to.apart + v * R::LANES);
            // SAFETY: the caller's promise.
            unsafe { finished(total, v, at).store(at) };
        }
    }
}

/// One step of the sums: the number of each row times the registers of a line.
///
/// # Safety
/// As of [`add_up`], for the numbers and lines pointed to.
#[inline(always)]
unsafe fn add_step<R: Register, const M: usize, const V: usize>(
    totals: &mut [[R; V]; M],
    number: impl Fn(usize) -> *const f32,
    b: [*const f32; V],
) {
    // SAFETY: the caller's promise.
    let columns = b.map(|b| unsafe { R::load(b) });
    for (i, totals) in totals.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let x = unsafe { R::splat(number(i)) };
        for (total, &column) in totals.iter_mut().zip(&columns) {
            // SAFETY: the machine has the instruction.
            *total = unsafe { total.add_product(x, column) };
        }
    }
}

/// Element by element.
#[inline(always)]
fn turn(from: &[Line], to: &mut [Line]) {
    for (lane, to) in to.iter_mut().enumerate() {
        to.0[from.len()..].fill(0.0);
        to.0.iter_mut().zip(from).for_each(|(to, from)| *to = from.0[lane]);
    }
}

/// In registers.
#[target_feature(enable = "avx512f")]
fn turn_avx512(from: &[Line], to: &mut [Line]) {
    // Copies of known length are registers.
    let mut rows = [Line::default(); COLUMNS];
    let rows = match from.try_into() {
        Ok(rows) => rows,
        Err(_) => {
            rows[..from.len()].copy_from_slice(from);
            &rows
        }
    };
    let mut words = [_mm512_setzero_si512(); COLUMNS];
    for (words, row) in words.iter_mut().zip(rows) {
        // SAFETY: a line is 64 bytes, aligned.
        *words = unsafe { _mm512_load_si512((&raw const row.0).cast()) };
    }
    let columns = transpose_words(words);
    let store = |to: &mut [Line; COLUMNS]| {
        for (to, column) in to.iter_mut().zip(columns) {
            // SAFETY: as above.
            unsafe { _mm512_store_si512((&raw mut to.0).cast(), column) };
        }
    };
    match to.try_into() {
        Ok(to) => store(to),
        Err(_) => {
            let mut columns = [Line::default(); COLUMNS];
            store(&mut columns);
            to.copy_from_slice(&columns[..to.len()]);
        }
    }
}

/// `c = keep · c + scale · sums + bias`; `sums` holds rows of `width` numbers, more than there are columns left.
#[inline(always)]
fn finish_rows(
    c: &mut MatMut<'_>,
    (row, rows): (usize, usize),
    column: usize,
    sums: &[f32],
    width: usize,
    f: Finish<'_>,
) {
    let columns = width.min(c.cols - column);
    for (i, sums) in sums.chunks_exact(width).take(rows).enumerate() {
        let c = &mut c.data[(row + i) * c.row_stride + column..][..columns];
        match (f.bias.get(column..column + columns), f.keep == 0.0) {
            (None, true) => c.iter_mut().zip(sums).for_each(|(c, s)| *c = f.scale * s),
            (None, false) => c.iter_mut().zip(sums).for_each(|(c, s)| *c = f.keep * *c + f.scale * s),
            (Some(bias), true) => c.iter_mut().zip(sums).zip(bias).for_each(|((c, s), b)| *c = f.scale * s + b),
            (Some(bias), false) => {
                c.iter_mut().zip(sums).zip(bias).for_each(|((c, s), b)| *c = f.keep * *c + (f.scale * s + b));
            }
        }
    }
}

/// Packs strips of `strip` rows of a block of `a`: in each, the numbers of one column are adjacent; rows past the end are
/// zeros.
#[inline(always)]
fn pack_strips(
    a: Mat<'_>,
    (first_row, rows): (usize, usize),
    (first_step, steps): (usize, usize),
    strip: usize,
    packed: &mut [f32],
    turn: impl Fn(&[Line], &mut [Line]),
) {
    for (number, packed) in packed.chunks_exact_mut(strip * steps).enumerate() {
        let first_row = first_row + number * strip;
        let filled = strip.min(rows - number * strip);
        if a.col_stride == 1 {
            for (block, packed) in packed.chunks_mut(strip * COLUMNS).enumerate() {
                let columns = packed.len() / strip;
                let (mut rows, mut turned) = ([Line::default(); COLUMNS], [Line::default(); COLUMNS]);
                for (i, row) in rows[..filled].iter_mut().enumerate() {
                    let from = (first_row + i) * a.row_stride + first_step + block * COLUMNS;
                    row.0[..columns].copy_from_slice(&a.data[from..][..columns]);
                }
                turn(&rows[..filled], &mut turned);
                for (packed, turned) in packed.chunks_exact_mut(strip).zip(&turned) {
                    packed.copy_from_slice(&turned.0[..strip]);
                }
            }
        } else {
            for (l, packed) in packed.chunks_exact_mut(strip).enumerate() {
                packed[filled..].fill(0.0);
                let values = &a.data[first_row + (first_step + l) * a.col_stride..][..filled];
                packed[..filled].copy_from_slice(values);
            }
        }
    }
}

/// A product of more columns than this packs the left operand. For fewer its numbers are read where they lie: to bring those of a
/// column together takes longer than it spares.
const UNPACKED: usize = 768;
/// Rows a multiple of so many numbers apart push one another out of a first-level cache: they are packed for any product.
const SAME_SETS: usize = 1024;

/// Strips of a block of the left operand.
enum Strips<'a> {
    Packed(&'a [f32]),
    /// From the first number of the block on.
    AsTheyAre(Mat<'a>, usize),
}

impl Strips<'_> {
    /// That which begins with a row of the block.
    #[inline(always)]
    fn strip(&self, row: usize, (rows, steps): (usize, usize)) -> Strip {
        match self {
            Strips::Packed(packed) => Strip::Columns(packed[row * steps..].as_ptr(), rows),
            Strips::AsTheyAre(a, start) => {
                let number = a.data.as_ptr().wrapping_add(start + row * a.row_stride);
                if a.col_stride == 1 { Strip::Rows(number, a.row_stride) } else { Strip::Columns(number, a.col_stride) }
            }
        }
    }
}

/// The loops of a product: steps in blocks; rows in blocks; in these a tile's panels pass along all strips.
///
/// `turn` is that of the products; `add_up` gets a strip, how many of its rows are wanted, the tile's panels, and where the sums go:
/// those of a panel that `c` does not fill beside it first.
#[inline(always)]
fn product(
    (a, b, finish, mut c): (Mat<'_>, Rhs<'_>, Finish<'_>, MatMut<'_>),
    scratch: &mut Scratch,
    blocking: Blocking,
    panels_of_tile: usize,
    turn: impl Fn(&[Line], &mut [Line]),
    add_up: impl Fn(Strip, usize, &Panels<'_>, Target<'_>),
) {
    assert!(a.col_stride == 1 || a.row_stride == 1, "rows or columns are adjacent");
    let strip = blocking.tile_rows;
    let packs = c.cols > UNPACKED || a.col_stride == 1 && a.row_stride.is_multiple_of(SAME_SETS);
    let mut sums = Sums([0.0; SUMS]);
    for step in (0..a.cols.max(1)).step_by(blocking.steps) {
        let finish = if step == 0 { finish } else { Finish { keep: 1.0, bias: &[], ..finish } };
        let steps = blocking.steps.min(a.cols - step);
        for block in (0..c.rows).step_by(blocking.rows) {
            let rows = blocking.rows.min(c.rows - block);
            let strips_of_block = if packs && steps > 0 {
                let packed = first(&mut scratch.strips, rows.next_multiple_of(strip) * steps);
                pack_strips(a, (block, rows), (step, steps), strip, packed, &turn);
                Strips::Packed(packed)
            } else {
                Strips::AsTheyAre(a, block * a.row_stride + step * a.col_stride)
            };
            for column in (0..c.cols).step_by(panels_of_tile * COLUMNS) {
                let panel = column / COLUMNS;
                let count = panels_of_tile.min(c.cols.div_ceil(COLUMNS) - panel);
                let panels = if b.transposed {
                    let lines = first(&mut scratch.panels, count * steps);
                    b.turn(panel, (step, steps), lines, &turn);
                    Panels { lines, count, stride: steps, steps }
                } else {
                    Panels { lines: &b.lines[panel * b.rows + step..], count, stride: b.rows, steps }
                };
                let strips = rows.div_ceil(strip);
                for row in (0..rows).step_by(strip) {
                    let filled = strip.min(rows - row);
                    b.prefetch(panel + count, count, (step, steps), (row / strip, strips));
                    prefetch_rows(&c, (block + row, filled), column);
                    let of_rows = strips_of_block.strip(row, (strip, steps));
                    let width = count * COLUMNS;
                    if column + width <= c.cols {
                        let start = c.data[(block + row) * c.row_stride + column..].as_mut_ptr();
                        let bias = finish.bias.get(column..column + width).unwrap_or_default();
                        let finish = Finish { bias, ..finish };
                        add_up(of_rows, filled, &panels, Target { start, apart: c.row_stride, finish });
                    } else {
                        let start = sums.0.as_mut_ptr();
                        let alone = Finish { keep: 0.0, scale: 1.0, bias: &[] };
                        add_up(of_rows, filled, &panels, Target { start, apart: width, finish: alone });
                        finish_rows(&mut c, (block + row, filled), column, &sums.0, width, finish);
                    }
                }
            }
        }
    }
}

impl Rhs<'_> {
    /// Asks for one of `parts` of the lines that the tile from `panel` on will be made of: `count` panels, of which rows
    /// `step..step + steps` are taken. They come while this tile's other strips are multiplied.
    #[inline(always)]
    fn prefetch(&self, panel: usize, count: usize, (step, steps): (usize, usize), (part, parts): (usize, usize)) {
        let share = |len: usize| len * part / parts..len * (part + 1) / parts;
        let ask = |first: usize, len: usize| {
            self.lines.get(first..first + len).unwrap_or_default().iter().for_each(|line| prefetch(line));
        };
        if self.transposed {
            for block in share(steps.div_ceil(COLUMNS)) {
                ask((step / COLUMNS + block) * self.rows + panel * COLUMNS, count * COLUMNS);
            }
        } else {
            let rows = share(steps);
            (panel..panel + count).for_each(|panel| ask(panel * self.rows + step + rows.start, rows.len()));
        }
    }
}

/// Panels of a tile: that of number `v` begins `v · stride` lines further.
struct Panels<'a> {
    lines: &'a [Line],
    count: usize,
    stride: usize,
    steps: usize,
}

/// Sums of a tile at most: those of two panels.
const SUMS: usize = ROWS * 2 * COLUMNS;

#[repr(align(64))]
struct Sums([f32; SUMS]);

impl Panels<'_> {
    /// Where each begins, as measured.
    #[inline(always)]
    fn starts<const V: usize>(&self) -> [*const f32; V] {
        std::array::from_fn(|v| self.lines[v * self.stride..][..self.steps].as_ptr().cast())
    }

    /// The two halves of the lines of one.
    #[inline(always)]
    fn halves(&self) -> [*const f32; 2] {
        let [start] = self.starts();
        [start, start.wrapping_add(COLUMNS / 2)]
    }
}

/// The instruction set's product: a tile of as many rows as are listed, and of two registers, which `$pointers` finds.
macro_rules! stamp {
    ($isa:ident, $register:ty, $feature:literal, $turn:ident, $pointers:ident, $($rows:literal)*) => {
        #[target_feature(enable = $feature)]
        fn $isa(a: Mat<'_>, b: Rhs<'_>, finish: Finish<'_>, c: MatMut<'_>, scratch: &mut Scratch) {
            const PANELS: usize = 2 * <$register>::LANES / COLUMNS;
            // Lines of a tile are 32 KiB at most, the rows of a block 408 KiB: two images of 197 tokens.
            let blocking = Blocking { tile_rows: [$($rows),*].len(), rows: 34 * 12, steps: 256 };
            product((a, b, finish, c), scratch, blocking, PANELS, |from, to| $turn(from, to), |strip, rows, panels, to| {
                match (rows, panels.count) {
                    // SAFETY: `panels` measured its lines; `product` gives a strip and a target of so many rows.
                    $(($rows, PANELS) => unsafe {
                        add_up::<$register, $rows, 2>(strip, panels.$pointers(), panels.steps, to)
                    },)*
                    // SAFETY: as above.
                    $(($rows, _) => unsafe { add_up::<$register, $rows, 1>(strip, panels.starts(), panels.steps, to) },)*
                    _ => unreachable!("a strip of {rows} rows"),
                }
            });
        }
    };
}

stamp!(avx512, __m512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", turn_avx512, starts, 1 2 3 4 5 6 7 8 9 10 11 12);
stamp!(avx2, __m256, "avx2,fma", turn, halves, 1 2 3 4 5 6);
