//! An image of coefficients, as far as the scans have brought it.

use super::entropy::Block;

/// Lowest known bit of a coefficient that no scan has brought yet.
pub(super) const UNKNOWN: u8 = u8::MAX;

/// The image as its header describes it, and what the scans have brought so far.
pub(super) struct Frame {
    pub(super) progressive: bool,
    /// Bits of a sample, 8 or 12.
    pub(super) precision: u32,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) mcus_wide: usize,
    pub(super) mcus_high: usize,
    pub(super) components: Vec<Component>,
}

pub(super) struct Component {
    pub(super) id: u8,
    /// Blocks per MCU.
    pub(super) across: usize,
    pub(super) down: usize,
    pub(super) quantisation_index: usize,
    /// The table in force at the component's first scan.
    pub(super) quantisation: Option<[u16; 64]>,
    pub(super) columns: usize,
    pub(super) rows: usize,
    /// Whole MCUs, `[blocks_high, blocks_wide]`.
    pub(super) blocks_wide: usize,
    pub(super) blocks_high: usize,
    pub(super) blocks: Vec<Block>,
    /// By zigzag position: the lowest bit brought, or [`UNKNOWN`].
    pub(super) known: [u8; 64],
}

impl Frame {
    /// True when every coefficient is known to its last bit.
    pub(super) fn is_complete(&self) -> bool {
        self.components.iter().all(|component| component.known == [0; 64])
    }
}
