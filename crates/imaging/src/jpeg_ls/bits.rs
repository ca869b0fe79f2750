//! Coded bits (T.87, A.1 and C.2.1): behind a byte of FF comes one of seven bits, or a marker.

/// What can be wrong inside a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Defect {
    #[error("the data end inside the image")]
    Ended,
    #[error("a code is longer than any")]
    CodeTooLong,
    #[error("a run leaves its line")]
    RunTooLong,
}

/// Bits, most significant first.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
    /// The next `count` bits, left-aligned, zeros below.
    buffer: u64,
    count: u32,
    after_ff: bool,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position, buffer: 0, count: 0, after_ff: false }
    }

    /// Where reading stopped: at or before the next marker.
    pub(super) fn position(&self) -> usize {
        self.position - usize::from(self.after_ff)
    }

    fn refill(&mut self) {
        while self.count <= 56 {
            let Some(&byte) = self.bytes.get(self.position) else { return };
            if self.after_ff && byte >= 0x80 {
                return;
            }
            let (value, width) = if self.after_ff { (byte & 0x7f, 7) } else { (byte, 8) };
            // A marker's first byte is no data.
            if byte == 0xff && self.bytes.get(self.position + 1).is_none_or(|&next| next >= 0x80) {
                return;
            }
            self.buffer |= u64::from(value) << (64 - width - self.count);
            self.count += width;
            self.after_ff = byte == 0xff;
            self.position += 1;
        }
    }

    /// The next `bits` of at most 32, as a number.
    pub(super) fn take(&mut self, bits: u32) -> Result<u32, Defect> {
        if bits == 0 {
            return Ok(0);
        }
        if self.count < bits {
            self.refill();
            if self.count < bits {
                return Err(Defect::Ended);
            }
        }
        let value = (self.buffer >> (64 - bits)) as u32;
        self.buffer <<= bits;
        self.count -= bits;
        Ok(value)
    }

    /// Number of zeros before the next one, which is passed too; at most `most`.
    pub(super) fn zeros(&mut self, most: u32) -> Result<u32, Defect> {
        let mut zeros = 0;
        loop {
            if self.count == 0 {
                self.refill();
                if self.count == 0 {
                    return Err(Defect::Ended);
                }
            }
            let run = self.buffer.leading_zeros().min(self.count);
            zeros += run;
            if zeros > most {
                return Err(Defect::CodeTooLong);
            }
            self.buffer = self.buffer.unbounded_shl(run);
            self.count -= run;
            if self.count > 0 {
                self.buffer <<= 1;
                self.count -= 1;
                return Ok(zeros);
            }
        }
    }
}
