//! The MCUs of a scan, in the order of the stream (ITU-T T.81, A.2).

use super::entropy::{self, Band, Bits, Block, Carry, Huffman};
use super::frame::Frame;

/// One component's part in a scan.
pub(super) struct Part<'t> {
    pub(super) component: usize,
    pub(super) dc: Option<&'t Huffman>,
    pub(super) ac: Option<&'t Huffman>,
    pub(super) carry: Carry,
}

/// Decodes what the scan brings of its components into the frame.
pub(super) fn decode_scan(
    bits: &mut Bits,
    mut parts: Vec<Part>,
    band: Band,
    restart_interval: usize,
    frame: &mut Frame,
) -> Result<(), entropy::Defect> {
    let progressive = frame.progressive;
    // A component alone comes block by block, without those that only fill up an MCU (T.81, A.2.2).
    let interleaved = parts.len() > 1;
    let (wide, high) = if interleaved {
        (frame.mcus_wide, frame.mcus_high)
    } else {
        let component = &frame.components[parts[0].component];
        (component.columns.div_ceil(8), component.rows.div_ceil(8))
    };
    for mcu in 0..wide * high {
        if restart_interval > 0 && mcu > 0 && mcu % restart_interval == 0 {
            bits.restart(((mcu / restart_interval - 1) % 8) as u8)?;
            parts.iter_mut().for_each(|part| part.carry = Carry::default());
        }
        let (row, column) = (mcu / wide, mcu % wide);
        for part in &mut parts {
            let component = &mut frame.components[part.component];
            let (across, down) = if interleaved { (component.across, component.down) } else { (1, 1) };
            for at in 0..across * down {
                let (y, x) = (row * down + at / across, column * across + at % across);
                let block = &mut component.blocks[y * component.blocks_wide + x];
                part.decode_block(bits, band, progressive, block)?;
            }
        }
    }
    Ok(())
}

impl Part<'_> {
    fn decode_block(
        &mut self,
        bits: &mut Bits,
        band: Band,
        progressive: bool,
        block: &mut Block,
    ) -> Result<(), entropy::Defect> {
        let carry = &mut self.carry;
        match (progressive, band.start, band.high, self.dc, self.ac) {
            (false, _, _, Some(dc), Some(ac)) => entropy::sequential(bits, (dc, ac), carry, block),
            (true, 0, 0, Some(dc), _) => entropy::dc_first(bits, dc, band.low, carry, block),
            (true, 0, _, _, _) => entropy::dc_refine(bits, band.low, block),
            (true, _, 0, _, Some(ac)) => entropy::ac_first(bits, ac, band, carry, block),
            (true, _, _, _, Some(ac)) => entropy::ac_refine(bits, ac, band, carry, block),
            _ => unreachable!("the scan header was checked for its tables"),
        }
    }
}
