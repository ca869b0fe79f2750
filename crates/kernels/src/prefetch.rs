//! Asking for what will be read soon: nothing is read, and any address will do.

use crate::product::COLUMNS;
use crate::view::MatMut;
use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

/// Into the second-level cache: panels that come next.
#[inline(always)]
pub(crate) fn prefetch<T>(line: *const T) {
    // SAFETY: a prefetch reads nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
}

/// Into the first-level cache: where the sums of a tile of two panels will go.
#[inline(always)]
pub(crate) fn prefetch_rows(c: &MatMut<'_>, (row, rows): (usize, usize), column: usize) {
    for row in row..row + rows {
        let from = &raw const c.data[row * c.row_stride + column];
        for panel in 0..2 {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(panel * COLUMNS).cast()) };
        }
    }
}
