//! Huffman-coded data of a scan (ITU-T T.81, annexes F and G).
//!
//! Nothing is made up: where the data end, a code is unknown or a run leaves its block, the scan is refused.

/// One 8 × 8 block of quantised coefficients, in natural (row by row) order.
pub(super) type Block = [i16; 64];

/// What can be wrong inside a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Defect {
    #[error("the data end inside the image")]
    Ended,
    #[error("a bit pattern is no code of its Huffman table")]
    UnknownCode,
    #[error("a run of coefficients leaves its block")]
    RunTooLong,
    #[error("a restart marker is missing")]
    MissingRestart,
    #[error("a Huffman table is not one")]
    BadTable,
}

/// Position in zigzag order to position in natural order (T.81, figure A.6).
#[rustfmt::skip]
pub(super) const ZIGZAG: [u8; 64] = [
     0,  1,  8, 16,  9,  2,  3, 10,
    17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34,
    27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36,
    29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46,
    53, 60, 61, 54, 47, 55, 62, 63,
];

/// Bits of entropy-coded data, most significant first; stops at the first marker.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
    /// The next `count` bits, left-aligned, zeros below.
    buffer: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position, buffer: 0, count: 0 }
    }

    /// Where reading stopped: at or before the next marker.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn refill(&mut self) {
        while self.count <= 56 {
            let Some(&byte) = self.bytes.get(self.position) else { return };
            if byte == 0xff {
                // `FF 00` is a data byte of FF; any other `FF xx` is a marker.
                if self.bytes.get(self.position + 1) != Some(&0) {
                    return;
                }
                self.position += 1;
            }
            self.position += 1;
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    fn consume(&mut self, bits: u32) -> Result<(), Defect> {
        if bits > self.count {
            return Err(Defect::Ended);
        }
        self.buffer <<= bits;
        self.count -= bits;
        Ok(())
    }

    /// The next `bits` of at most 16, as a number.
    fn take(&mut self, bits: u32) -> Result<u32, Defect> {
        if bits == 0 {
            return Ok(0);
        }
        if self.count < bits {
            self.refill();
        }
        let value = (self.buffer >> (64 - bits)) as u32;
        self.consume(bits)?;
        Ok(value)
    }

    /// A signed value of `bits` (T.81, F.2.2.1 `EXTEND`).
    fn take_signed(&mut self, bits: u32) -> Result<i32, Defect> {
        let value = self.take(bits)? as i32;
        let negative = bits > 0 && value < 1 << (bits - 1);
        Ok(if negative { value - (1 << bits) + 1 } else { value })
    }

    /// Passes restart marker number `expected`, 0 to 7.
    pub(super) fn restart(&mut self, expected: u8) -> Result<(), Defect> {
        (self.buffer, self.count) = (0, 0);
        let (marker, after) = next_marker(self.bytes, self.position).ok_or(Defect::Ended)?;
        if marker != 0xd0 + expected {
            return Err(Defect::MissingRestart);
        }
        self.position = after;
        Ok(())
    }
}

/// The first marker at or after `position`, and the position behind it.
pub(super) fn next_marker(bytes: &[u8], position: usize) -> Option<(u8, usize)> {
    let rest = bytes.get(position..)?;
    let found = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff))?;
    Some((rest[found + 1], position + found + 2))
}

/// Bits resolved by one look-up; longer codes are rare.
const LOOKUP_BITS: u32 = 9;

/// A canonical Huffman code (T.81, annex C).
pub(super) struct Huffman {
    /// By the next bits: length of the code in the upper byte, symbol in the lower; 0 for a longer code.
    lookup: [u16; 1 << LOOKUP_BITS],
    /// By length: one more than the largest code, 0 if there is none.
    ends: [u32; 17],
    /// By length: index of a code's symbol, less the code.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    /// From the number of codes of each length 1 to 16, and the symbols in order of their codes.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, Defect> {
        let mut table =
            Self { lookup: [0; 1 << LOOKUP_BITS], ends: [0; 17], offsets: [0; 17], symbols: symbols.into() };
        let (mut code, mut index) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            if code + u32::from(count) > 1 << length || index + usize::from(count) > symbols.len() {
                return Err(Defect::BadTable);
            }
            table.offsets[length as usize] = index as i32 - code as i32;
            for _ in 0..count {
                if length <= LOOKUP_BITS {
                    let spare = LOOKUP_BITS - length;
                    let first = (code << spare) as usize;
                    table.lookup[first..first + (1 << spare)].fill((length as u16) << 8 | u16::from(symbols[index]));
                }
                code += 1;
                index += 1;
            }
            table.ends[length as usize] = if count > 0 { code } else { 0 };
            code <<= 1;
        }
        Ok(table)
    }

    fn symbol(&self, bits: &mut Bits) -> Result<u8, Defect> {
        if bits.count < 16 {
            bits.refill();
        }
        let entry = self.lookup[(bits.buffer >> (64 - LOOKUP_BITS)) as usize];
        if entry != 0 {
            bits.consume(u32::from(entry >> 8))?;
            return Ok(entry as u8);
        }
        for length in LOOKUP_BITS + 1..=16 {
            let code = (bits.buffer >> (64 - length)) as u32;
            if code < self.ends[length as usize] {
                bits.consume(length)?;
                return Ok(self.symbols[(code as i32 + self.offsets[length as usize]) as usize]);
            }
        }
        Err(if bits.count < 16 { Defect::Ended } else { Defect::UnknownCode })
    }
}

/// The part of a block that a scan carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    /// First and last position in zigzag order.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Lowest bit known before this scan (0 in a first scan), and after it.
    pub(super) high: u8,
    pub(super) low: u8,
}

/// What a component carries from block to block within a restart interval.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carry {
    prediction: i32,
    /// Blocks still to come, this one included, that hold nothing new.
    end_of_band_run: u32,
}

/// The difference of a lossless sample from its prediction (T.81, H.1.2.2).
pub(super) fn difference(bits: &mut Bits, table: &Huffman) -> Result<i32, Defect> {
    match u32::from(table.symbol(bits)?) {
        16 => Ok(1 << 15),
        size @ 0..16 => bits.take_signed(size),
        _ => Err(Defect::UnknownCode),
    }
}

/// All of a block of a sequential image (T.81, F.2.2).
pub(super) fn sequential(
    bits: &mut Bits,
    (dc, ac): (&Huffman, &Huffman),
    carry: &mut Carry,
    block: &mut Block,
) -> Result<(), Defect> {
    dc_first(bits, dc, 0, carry, block)?;
    let mut k = 1;
    while k < 64 {
        let symbol = ac.symbol(bits)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if run < 15 {
                return Ok(());
            }
            k += 16;
            continue;
        }
        k += run;
        block[natural(k)?] = bits.take_signed(size)? as i16;
        k += 1;
    }
    Ok(())
}

/// The constant coefficient, down to bit `low` (T.81, G.1.2.1).
pub(super) fn dc_first(
    bits: &mut Bits,
    dc: &Huffman,
    low: u8,
    carry: &mut Carry,
    block: &mut Block,
) -> Result<(), Defect> {
    let size = u32::from(dc.symbol(bits)?);
    if size > 15 {
        return Err(Defect::UnknownCode);
    }
    carry.prediction = carry.prediction.wrapping_add(bits.take_signed(size)?);
    block[0] = (carry.prediction << low) as i16;
    Ok(())
}

/// One more bit of the constant coefficient.
pub(super) fn dc_refine(bits: &mut Bits, low: u8, block: &mut Block) -> Result<(), Defect> {
    block[0] |= (bits.take(1)? as i16) << low;
    Ok(())
}

/// The band's coefficients down to bit `low` (T.81, G.1.2.2).
pub(super) fn ac_first(
    bits: &mut Bits,
    ac: &Huffman,
    band: Band,
    carry: &mut Carry,
    block: &mut Block,
) -> Result<(), Defect> {
    if carry.end_of_band_run > 0 {
        carry.end_of_band_run -= 1;
        return Ok(());
    }
    let mut k = band.start;
    while k <= band.end {
        let symbol = ac.symbol(bits)?;
        let (run, size) = (symbol >> 4, u32::from(symbol & 15));
        if size == 0 && run < 15 {
            carry.end_of_band_run = end_of_band_run(bits, run)? - 1;
            return Ok(());
        }
        k += usize::from(run);
        if size > 0 {
            block[natural(k)?] = (bits.take_signed(size)? << band.low) as i16;
        }
        k += 1;
    }
    Ok(())
}

/// One more bit of the band's coefficients (T.81, G.1.2.3).
pub(super) fn ac_refine(
    bits: &mut Bits,
    ac: &Huffman,
    band: Band,
    carry: &mut Carry,
    block: &mut Block,
) -> Result<(), Defect> {
    let bit = 1i16 << band.low;
    let mut k = band.start;
    while carry.end_of_band_run == 0 && k <= band.end {
        let symbol = ac.symbol(bits)?;
        let (run, size) = (symbol >> 4, symbol & 15);
        let fresh = match (run, size) {
            (15, 0) => None,
            (_, 0) => {
                carry.end_of_band_run = end_of_band_run(bits, run)?;
                break;
            }
            (_, 1) => Some(if bits.take(1)? == 1 { bit } else { -bit }),
            _ => return Err(Defect::UnknownCode),
        };
        k = refine(bits, k..=band.end, bit, Some(run), block)?;
        if let Some(value) = fresh {
            if k > band.end {
                return Err(Defect::RunTooLong);
            }
            block[natural(k)?] = value;
        }
        k += 1;
    }
    if carry.end_of_band_run > 0 {
        refine(bits, k..=band.end, bit, None, block)?;
        carry.end_of_band_run -= 1;
    }
    Ok(())
}

/// Reads a correction bit for each coefficient of `range` that is not zero, until `zeros` zeros are passed and one
/// more is met; gives where that is, or the position behind `range`.
fn refine(
    bits: &mut Bits,
    range: std::ops::RangeInclusive<usize>,
    bit: i16,
    zeros: Option<u8>,
    block: &mut Block,
) -> Result<usize, Defect> {
    let mut left = zeros;
    let behind = range.end() + 1;
    for k in range {
        let coefficient = &mut block[natural(k)?];
        if *coefficient == 0 {
            match &mut left {
                Some(0) => return Ok(k),
                Some(left) => *left -= 1,
                None => {}
            }
        } else if bits.take(1)? == 1 && *coefficient & bit == 0 {
            *coefficient = coefficient.wrapping_add(if *coefficient >= 0 { bit } else { -bit });
        }
    }
    Ok(behind)
}

/// Number of blocks, this one included, that an end-of-band code of `size` ends.
fn end_of_band_run(bits: &mut Bits, size: u8) -> Result<u32, Defect> {
    Ok((1 << size) + bits.take(size.into())?)
}

/// Natural position of zigzag position `k`.
fn natural(k: usize) -> Result<usize, Defect> {
    ZIGZAG.get(k).map(|&position| usize::from(position)).ok_or(Defect::RunTooLong)
}
