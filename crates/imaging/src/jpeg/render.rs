//! Coefficients to samples to pixels.

use super::frame::{Component, Frame};
use super::idct;
use super::upsample::{self, Colour, Plane};
use crate::Pixels;

/// Coefficients to samples.
pub(super) fn planes(frame: Frame) -> Vec<Plane> {
    let Frame { components, precision, .. } = frame;
    let (across, down) = components
        .iter()
        .fold((1, 1), |(across, down), component| (component.across.max(across), component.down.max(down)));
    components.into_iter().map(|component| component.into_plane(across, down, precision)).collect()
}

/// Coefficients to 8-bit pixels.
pub(super) fn render(frame: Frame, colour: Colour) -> Pixels {
    let (width, height) = (frame.width, frame.height);
    let planes = planes(frame);
    let mut rows: Vec<Vec<u16>> = planes.iter().map(|plane| vec![0; plane.columns * plane.across]).collect();
    let mut rgb = vec![0; width * height * 3];
    for (y, out) in rgb.chunks_exact_mut(width * 3).enumerate() {
        for (plane, row) in planes.iter().zip(&mut rows) {
            plane.upsample(y, row);
        }
        upsample::convert(colour, &rows, out);
    }
    Pixels { width, height, rgb }
}

impl Component {
    /// Samples, given the largest number of blocks per MCU across and down.
    fn into_plane(self, across: usize, down: usize, precision: u32) -> Plane {
        let quantisation = self.quantisation.expect("every component was in a scan");
        let stride = self.blocks_wide * 8;
        let mut samples = vec![0; stride * self.blocks_high * 8];
        for (blocks, rows) in self.blocks.chunks_exact(self.blocks_wide).zip(samples.chunks_exact_mut(stride * 8)) {
            for (x, block) in blocks.iter().enumerate() {
                idct::inverse(block, &quantisation, precision, &mut rows[x * 8..], stride);
            }
        }
        Plane {
            samples,
            stride,
            columns: self.columns,
            rows: self.rows,
            across: across / self.across,
            down: down / self.down,
        }
    }
}
