//! Lossless processes (ITU-T T.81, annex H): each sample from three neighbours and a Huffman-coded difference.

use super::decoder::Decoder;
use super::entropy::{self, Bits, Defect, Huffman};
use crate::Error;
use crate::codec::Decoded;

/// The frame header of a lossless image.
struct Header {
    width: usize,
    height: usize,
    channels: usize,
    precision: u32,
}

/// How a scan is coded.
struct Coding {
    /// 1 to 7 (T.81, table H.1).
    predictor: u8,
    point_transform: u32,
    /// MCUs between restart markers; 0 for none.
    restart_interval: usize,
}

impl Decoder<'_> {
    /// Everything behind a lossless frame header, whose parameters are `frame`.
    pub(super) fn lossless(&mut self, frame: &[u8]) -> Result<Decoded, Error> {
        let &[precision, _, _, _, _, count, ref components @ ..] = frame else {
            return Err(self.source.damaged("the frame header is cut short"));
        };
        let (height, width) = (self.word(frame, 1, "height")?, self.word(frame, 3, "width")?);
        self.source.check_size(width as u64, height as u64)?;
        let (precision, channels) = (u32::from(precision), usize::from(count));
        if !(2..=16).contains(&precision) || !matches!(channels, 1 | 3) || components.len() != 3 * channels {
            let found = format!("{channels} components of {precision} bits; 1 and 3 of 2 to 16 bits are");
            return Err(self.source.unsupported(found));
        }
        if components.chunks_exact(3).any(|component| channels > 1 && component[1] != 0x11) {
            return Err(self.source.unsupported("subsampled lossless components"));
        }
        let ids: Vec<u8> = components.chunks_exact(3).map(|component| component[0]).collect();
        let header = Header { width, height, channels, precision };
        let mut values = vec![0u16; width * height * channels];
        let mut known = vec![false; channels];
        while let Some((marker, position)) = entropy::next_marker(self.bytes, self.position) {
            self.position = position;
            if matches!(marker, 0x01 | 0xd0..=0xd8) {
                continue;
            }
            if marker == 0xd9 {
                break;
            }
            let segment = self.segment(marker)?;
            match marker {
                0xc4 => self.huffman_tables(segment)?,
                0xdd => self.restart_interval = self.word(segment, 0, "restart interval")?,
                0xda => self.lossless_scan(segment, (&header, &ids), &mut known, &mut values)?,
                _ => {}
            }
            if known.iter().all(|&known| known) {
                let values = values.into_iter().map(u32::from).collect();
                return Ok(Decoded { width, height, channels, bits: precision, rgb: false, values });
            }
        }
        Err(self.source.damaged("the data end inside the image"))
    }

    /// Decodes a scan whose header is `segment` into `values`.
    fn lossless_scan(
        &mut self,
        segment: &[u8],
        (header, ids): (&Header, &[u8]),
        known: &mut [bool],
        values: &mut [u16],
    ) -> Result<(), Error> {
        let damaged = || self.source.damaged("a scan header is not one");
        let [count, rest @ ..] = segment else { return Err(damaged()) };
        let (selectors, rest) = rest.split_at_checked(2 * usize::from(*count)).ok_or_else(damaged)?;
        let &[predictor @ 1..=7, _, transform] = rest else { return Err(damaged()) };
        let mut parts = Vec::new();
        for &[id, tables] in selectors.as_chunks().0 {
            let channel = ids.iter().position(|&other| other == id).ok_or_else(damaged)?;
            let table = self.dc.get(usize::from(tables >> 4)).and_then(Option::as_ref);
            let missing = || self.source.damaged("a scan names a table that the file does not hold");
            if std::mem::replace(&mut known[channel], true) {
                return Err(damaged());
            }
            parts.push((channel, table.ok_or_else(missing)?));
        }
        let point_transform = u32::from(transform & 15);
        if parts.is_empty() || point_transform >= header.precision {
            return Err(damaged());
        }
        let coding = Coding { predictor, point_transform, restart_interval: self.restart_interval };
        let mut bits = Bits::new(self.bytes, self.position);
        scan(&mut bits, header, &coding, &parts, values).map_err(|defect| self.source.damaged(defect))?;
        self.position = bits.position();
        Ok(())
    }
}

/// Samples of the scan's components, `(channel, table)`, into `values`, `[height, width, channels]`.
fn scan(
    bits: &mut Bits,
    header: &Header,
    coding: &Coding,
    parts: &[(usize, &Huffman)],
    values: &mut [u16],
) -> Result<(), Defect> {
    let &Header { width, height, channels, precision } = header;
    let &Coding { predictor, point_transform, restart_interval } = coding;
    let origin = 1i32 << (precision - point_transform - 1);
    // The row in which the interval began is predicted from the left alone (H.1.1).
    let mut first_row = 0;
    let mut begins = true;
    for mcu in 0..width * height {
        let (row, column) = (mcu / width, mcu % width);
        if restart_interval > 0 && mcu > 0 && mcu.is_multiple_of(restart_interval) {
            bits.restart(((mcu / restart_interval - 1) % 8) as u8)?;
            (first_row, begins) = (row, true);
        }
        for &(channel, table) in parts {
            let at = mcu * channels + channel;
            let left = || i32::from(values[at - channels] >> point_transform);
            let above = || i32::from(values[at - width * channels] >> point_transform);
            let prediction = if begins {
                origin
            } else if row == first_row {
                left()
            } else if column == 0 {
                above()
            } else {
                let corner = i32::from(values[at - (width + 1) * channels] >> point_transform);
                let (left, above) = (left(), above());
                match predictor {
                    1 => left,
                    2 => above,
                    3 => corner,
                    4 => left + above - corner,
                    5 => left + ((above - corner) >> 1),
                    6 => above + ((left - corner) >> 1),
                    _ => (left + above) >> 1,
                }
            };
            let difference = entropy::difference(bits, table)?;
            // Modulo 2^16 (H.1.2.1).
            values[at] = ((prediction + difference) as u16) << point_transform;
        }
        begins = false;
    }
    Ok(())
}
