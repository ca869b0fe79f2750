//! Resizing on the best instruction set, for whoever knows no table.

use crate::precision::Precision;
use crate::resample::Taps;
use crate::table::Kernels;

/// Resizes rows of 8-bit samples: `x [h, taps.inputs, channels]`, `y [h, outputs, channels]`, bit-equal on every instruction set.
///
/// # Panics
/// If a window of `taps` reaches beyond its `inputs`, besides the shapes.
pub fn resample_rows(x: &[u8], channels: usize, taps: &Taps, y: &mut [u8]) {
    // Of integers: the precision is that of matrix products.
    Kernels::detect(Precision::F32).resample_rows(x, channels, taps, y);
}

/// Resizes columns of 8-bit samples: `x [taps.inputs, width]`, `y [outputs, width]`, bit-equal on every instruction set.
///
/// # Panics
/// As [`resample_rows`].
pub fn resample_columns(x: &[u8], taps: &Taps, y: &mut [u8]) {
    Kernels::detect(Precision::F32).resample_columns(x, taps, y);
}
