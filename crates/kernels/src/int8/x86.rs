//! Products of 8-bit integers with AVX2, AVX-512 and their VNNI: the loops once, the register a parameter.
//!
//! VNNI multiplies unsigned by signed integers and adds four products to a sum without saturation (Intel SDM, `VPDPBUSD`).
//! Without it, what would be its AVX2 relative (`VPMADDUBSW`) saturates at 16 bits: integers are widened instead.

use super::{Lhs, Rhs, finish_tile};
use crate::prefetch::{prefetch, prefetch_rows};
use crate::product::{Blocking, COLUMNS, Finish, Tile, for_each_tile};
use crate::view::MatMut;
use std::arch::x86_64::*;

/// What each way of multiplying adds to the right operand.
pub(crate) const VNNI_OFFSET: u8 = 128;
pub(crate) const WIDENED_OFFSET: u8 = 0;

/// A register of sums. Its functions are instructions, which the machine has wherever they are inlined.
trait Sums: Copy {
    /// Sums of a register.
    const LANES: usize;
    /// Four numbers of as many columns.
    type Columns: Copy;
    /// Four numbers of a row, for every column.
    type Row: Copy;
    unsafe fn zero() -> Self;
    unsafe fn columns(from: *const u8) -> Self::Columns;
    unsafe fn row(quad: i32) -> Self::Row;
    /// Adds the four products of each column.
    unsafe fn add_products(self, columns: Self::Columns, row: Self::Row) -> Self;
    unsafe fn store(self, to: *mut i32);
}

/// 16 sums with AVX512-VNNI.
#[derive(Clone, Copy)]
struct Vnni512(__m512i);

impl Sums for Vnni512 {
    const LANES: usize = 16;
    type Columns = __m512i;
    type Row = __m512i;
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the machine has the instruction.
        Vnni512(unsafe { _mm512_setzero_si512() })
    }
    #[inline(always)]
    unsafe fn columns(from: *const u8) -> __m512i {
        // SAFETY: the caller's pointer is to a line.
        unsafe { _mm512_load_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn row(quad: i32) -> __m512i {
        // SAFETY: the machine has the instruction.
        unsafe { _mm512_set1_epi32(quad) }
    }
    #[inline(always)]
    unsafe fn add_products(self, columns: __m512i, row: __m512i) -> Self {
        // SAFETY: the machine has the instruction.
        Vnni512(unsafe { _mm512_dpbusd_epi32(self.0, columns, row) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: the caller's pointer is to 16 sums.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }
}

/// 8 sums with AVX-VNNI.
#[derive(Clone, Copy)]
struct Vnni256(__m256i);

impl Sums for Vnni256 {
    const LANES: usize = 8;
    type Columns = __m256i;
    type Row = __m256i;
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the machine has the instruction.
        Vnni256(unsafe { _mm256_setzero_si256() })
    }
    #[inline(always)]
    unsafe fn columns(from: *const u8) -> __m256i {
        // SAFETY: the caller's pointer is to half a line.
        unsafe { _mm256_load_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn row(quad: i32) -> __m256i {
        // SAFETY: the machine has the instruction.
        unsafe { _mm256_set1_epi32(quad) }
    }
    #[inline(always)]
    unsafe fn add_products(self, columns: __m256i, row: __m256i) -> Self {
        // SAFETY: the machine has the instruction.
        Vnni256(unsafe { _mm256_dpbusd_avx_epi32(self.0, columns, row) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: the caller's pointer is to 8 sums.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }
}

/// 16 sums with AVX-512 BW: numbers in even and in odd places are widened to 16 bits, and multiplied in pairs.
#[derive(Clone, Copy)]
struct Widened512(__m512i);

impl Sums for Widened512 {
    const LANES: usize = 16;
    type Columns = [__m512i; 2];
    type Row = [__m512i; 2];
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the machine has the instruction.
        Widened512(unsafe { _mm512_setzero_si512() })
    }
    #[inline(always)]
    unsafe fn columns(from: *const u8) -> [__m512i; 2] {
        // SAFETY: the caller's pointer is to a line.
        unsafe {
            let quads = _mm512_load_si512(from.cast());
            [_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(quads)), _mm512_srai_epi16::<8>(quads)]
        }
    }
    #[inline(always)]
    unsafe fn row(quad: i32) -> [__m512i; 2] {
        let [even, odd] = pairs(quad);
        // SAFETY: the machine has the instruction.
        unsafe { [_mm512_set1_epi32(even), _mm512_set1_epi32(odd)] }
    }
    #[inline(always)]
    unsafe fn add_products(self, columns: [__m512i; 2], row: [__m512i; 2]) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe {
            let sum = _mm512_add_epi32(self.0, _mm512_madd_epi16(columns[0], row[0]));
            Widened512(_mm512_add_epi32(sum, _mm512_madd_epi16(columns[1], row[1])))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: the caller's pointer is to 16 sums.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }
}

/// The same of 8 sums with AVX2.
#[derive(Clone, Copy)]
struct Widened256(__m256i);

impl Sums for Widened256 {
    const LANES: usize = 8;
    type Columns = [__m256i; 2];
    type Row = [__m256i; 2];
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the machine has the instruction.
        Widened256(unsafe { _mm256_setzero_si256() })
    }
    #[inline(always)]
    unsafe fn columns(from: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller's pointer is to half a line.
        unsafe {
            let quads = _mm256_load_si256(from.cast());
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(quads)), _mm256_srai_epi16::<8>(quads)]
        }
    }
    #[inline(always)]
    unsafe fn row(quad: i32) -> [__m256i; 2] {
        let [even, odd] = pairs(quad);
        // SAFETY: the machine has the instruction.
        unsafe { [_mm256_set1_epi32(even), _mm256_set1_epi32(odd)] }
    }
    #[inline(always)]
    unsafe fn add_products(self, columns: [__m256i; 2], row: [__m256i; 2]) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe {
            let sum = _mm256_add_epi32(self.0, _mm256_madd_epi16(columns[0], row[0]));
            Widened256(_mm256_add_epi32(sum, _mm256_madd_epi16(columns[1], row[1])))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: the caller's pointer is to 8 sums.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }
}

/// The numbers in even and in odd places of a quad, as pairs of 16 bits.
#[inline(always)]
fn pairs(quad: i32) -> [i32; 2] {
    let [a, b, c, d] = quad.to_le_bytes().map(|x| i32::from(x.cast_signed()));
    [a & 0xffff | c << 16, b & 0xffff | d << 16]
}

/// Sums of `M` rows and `V` registers of columns from column `column` on.
///
/// # Safety
/// The machine has the registers' instructions.
#[inline(always)]
unsafe fn add_up<S: Sums, const M: usize, const V: usize>(
    (lhs, rhs): (Lhs<'_>, Rhs<'_>),
    (row, column): (usize, usize),
    sums: &mut [[[i32; COLUMNS]; 2]; M],
) {
    const { assert!(S::LANES == COLUMNS || 2 * S::LANES == COLUMNS, "whole or half lines") };
    let registers = COLUMNS / S::LANES;
    let panels = V.div_ceil(registers);
    let first_line = column / COLUMNS * rhs.quads;
    assert!(first_line + panels * rhs.quads <= rhs.lines.len() && (row + M) * lhs.stride <= lhs.numbers.len());
    assert!(rhs.quads * 4 <= lhs.stride && sums.len() >= M && V * S::LANES <= 2 * COLUMNS);
    let mut b = rhs.lines[first_line..].as_ptr();
    // SAFETY: `M` rows of `4 · quads` numbers and `panels` panels of `quads` lines, as asserted above; each row of `sums` holds
    // `V` registers; the instructions are the caller's promise.
    unsafe {
        let mut a = lhs.numbers.as_ptr().add(row * lhs.stride).cast::<i32>();
        let mut totals = [[S::zero(); V]; M];
        for _ in 0..rhs.quads {
            let mut columns = [S::columns(b.cast()); V];
            // The next panels come meanwhile.
            for panel in panels..2 * panels {
                prefetch(b.wrapping_add(panel * rhs.quads));
            }
            for (v, columns) in columns.iter_mut().enumerate().skip(1) {
                let line = b.wrapping_add(v / registers * rhs.quads).cast::<u8>();
                *columns = S::columns(line.wrapping_add(v % registers * 4 * S::LANES));
            }
            for (i, totals) in totals.iter_mut().enumerate() {
                let row = S::row(a.wrapping_byte_add(i * lhs.stride).read_unaligned());
                for (total, &columns) in totals.iter_mut().zip(&columns) {
                    *total = total.add_products(columns, row);
                }
            }
            a = a.wrapping_add(1);
            b = b.wrapping_add(1);
        }
        // Through memory: were a register chosen by a loop's index, all of them would live there.
        for (sums, totals) in sums.iter_mut().zip(totals) {
            for (v, total) in totals.into_iter().enumerate() {
                total.store(sums.as_flattened_mut().as_mut_ptr().add(v * S::LANES));
            }
        }
    }
}

/// Sums of a tile, by rows and panels.
type TileSums = [[[i32; COLUMNS]; 2]];

/// The rows and columns of a tile from their sums.
#[inline(always)]
fn finish(sums: &TileSums, operands: (Lhs<'_>, Rhs<'_>), tile: Tile, finish: Finish<'_>, c: &mut MatMut<'_>) {
    finish_tile(|i, v| &sums[i][v], operands, tile, finish, c);
}

/// The same, whole tiles of two panels by instructions.
#[inline]
#[target_feature(enable = "avx512f")]
fn finish_avx512(sums: &TileSums, (lhs, rhs): (Lhs<'_>, Rhs<'_>), tile: Tile, f: Finish<'_>, c: &mut MatMut<'_>) {
    if tile.columns < 2 * COLUMNS {
        return finish(sums, (lhs, rhs), tile, f, c);
    }
    match f.keep {
        0.0 => finish_whole::<false>(sums, (lhs, rhs), tile, f.bias, c),
        _ => finish_whole::<true>(sums, (lhs, rhs), tile, f.bias, c),
    }
}

/// A tile of two whole panels, added to what is there or not.
#[inline]
#[target_feature(enable = "avx512f")]
fn finish_whole<const ADD: bool>(
    sums: &TileSums,
    (lhs, rhs): (Lhs<'_>, Rhs<'_>),
    tile: Tile,
    bias: &[f32],
    c: &mut MatMut<'_>,
) {
    let [scales, weights] = [rhs.scales, rhs.sums].map(|values| &values[tile.column..][..2 * COLUMNS]);
    let bias = bias.get(tile.column..tile.column + 2 * COLUMNS);
    let (rows, sums) = (&lhs.rows[tile.row..][..tile.rows], &sums[..tile.rows]);
    let last = (tile.row + tile.rows - 1) * c.row_stride + tile.column;
    assert!(last + 2 * COLUMNS <= c.data.len());
    let mut to = c.data[tile.row * c.row_stride + tile.column..].as_mut_ptr();
    // SAFETY: two registers of scales, of sums, of the bias, of each row's sums, and, from `to` on, of each row of `c`, as asserted above.
    unsafe {
        let [scales, weights] = [scales, weights].map(|x| [0, 1].map(|v| _mm512_loadu_ps(x.as_ptr().add(v * COLUMNS))));
        let bias = [0, 1].map(|v| bias.map_or(_mm512_setzero_ps(), |b| _mm512_loadu_ps(b.as_ptr().add(v * COLUMNS))));
        for (row, sums) in rows.iter().zip(sums) {
            let beyond = _mm512_set1_epi32(i32::from(rhs.offset) * row.sum);
            let (scale, middle) = (_mm512_set1_ps(row.scale), _mm512_set1_ps(row.middle));
            for v in 0..2 {
                let sum = _mm512_sub_epi32(_mm512_loadu_si512(sums[v].as_ptr().cast()), beyond);
                let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
                let value = _mm512_add_ps(value, _mm512_mul_ps(weights[v], middle));
                let value = _mm512_add_ps(_mm512_mul_ps(value, scales[v]), bias[v]);
                let to = to.add(v * COLUMNS);
                _mm512_storeu_ps(to, if ADD { _mm512_add_ps(_mm512_loadu_ps(to), value) } else { value });
            }
            to = to.wrapping_add(c.row_stride);
        }
    }
}

/// Stamps the product of one register: tiles of at most `$rows` rows and `$panels` panels.
macro_rules! stamp {
    ($name:ident, $sums:ty, $feature:literal, $finish:path, $panels:literal, [$most:literal $($rows:literal)*]) => {
        #[inline]
        #[target_feature(enable = $feature)]
        pub(crate) fn $name(lhs: Lhs<'_>, rhs: Rhs<'_>, finish: Finish<'_>, mut c: MatMut<'_>) {
            const REGISTERS: usize = COLUMNS / <$sums>::LANES;
            /// A tile is a function of its own: inlined, all of them would have their addresses computed for each.
            #[inline(never)]
            #[target_feature(enable = $feature)]
            fn tile<const M: usize, const V: usize>(
                operands: (Lhs<'_>, Rhs<'_>),
                tile: Tile,
                finish: Finish<'_>,
                c: &mut MatMut<'_>,
            ) {
                prefetch_rows(c, (tile.row, M), tile.column);
                let mut sums = [[[0; COLUMNS]; 2]; M];
                // SAFETY: the features of this function are the registers' instructions.
                unsafe { add_up::<$sums, M, V>(operands, (tile.row, tile.column), &mut sums) }
                $finish(&sums, operands, tile, finish, c);
            }
            /// A tile of as many panels, with as many rows as it has known to the compiler.
            #[inline]
            #[target_feature(enable = $feature)]
            fn by_rows<const V: usize>(
                operands: (Lhs<'_>, Rhs<'_>),
                of: Tile,
                finish: Finish<'_>,
                c: &mut MatMut<'_>,
            ) {
                match of.rows {
                    $most => tile::<$most, V>(operands, of, finish, c),
                    $($rows => tile::<$rows, V>(operands, of, finish, c),)*
                    rows => unreachable!("a tile of {rows} rows"),
                }
            }
            let tile_rows = even_rows(c.rows, $most);
            let blocking = Blocking { tile_rows, rows: 20 * tile_rows, steps: usize::MAX };
            for_each_tile((c.rows, c.cols, rhs.quads), blocking, finish, |tile, finish| {
                for column in (0..tile.columns).step_by($panels * COLUMNS) {
                    let columns = ($panels * COLUMNS).min(tile.columns - column);
                    let tile = Tile { column: tile.column + column, columns, ..tile };
                    match columns > COLUMNS {
                        true => by_rows::<{ $panels * REGISTERS }>((lhs, rhs), tile, finish, &mut c),
                        false => by_rows::<REGISTERS>((lhs, rhs), tile, finish, &mut c),
                    }
                }
            });
        }
    };
}

/// Rows of a tile, at most `most`, so that the last one is nearly as high as the others.
fn even_rows(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

stamp!(
    vnni512, Vnni512, "avx512f,avx512bw,avx512vl,avx512vnni", finish_avx512, 2, [12 11 10 9 8 7 6 5 4 3 2 1]
);
stamp!(vnni256, Vnni256, "avx2,avxvnni", finish, 1, [6 5 4 3 2 1]);
stamp!(
    widened512, Widened512, "avx512f,avx512bw,avx512vl", finish_avx512, 2, [10 9 8 7 6 5 4 3 2 1]
);
stamp!(widened256, Widened256, "avx2", finish, 1, [4 3 2 1]);
