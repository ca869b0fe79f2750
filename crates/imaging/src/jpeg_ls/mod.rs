//! JPEG-LS (ITU-T T.87), lossless and near-lossless.
//!
//! Not read: mapping tables, restart intervals, subsampling, and the colour transforms of HP's extension.

mod bits;
mod line;
mod model;

use crate::Error;
use crate::codec::Decoded;
use crate::source::Source;
use bits::{Bits, Defect};
use line::Lines;
use model::{Model, Parameters};

/// The frame header (T.87, C.2.2).
struct Frame {
    width: usize,
    height: usize,
    precision: u32,
    ids: Vec<u8>,
}

/// Decodes one image; every sample must be there, an end-of-image marker need not.
pub(crate) fn decode(bytes: &[u8], source: Source) -> Result<Decoded, Error> {
    Decoder { source, bytes, position: 0, frame: None, preset: Preset::default() }.read()
}

/// Coding parameters of an LSE segment (T.87, C.2.4.1.1); 0 for the default.
#[derive(Clone, Copy, Default)]
struct Preset {
    most: u16,
    thresholds: [u16; 3],
    reset: u16,
}

struct Decoder<'a> {
    source: Source<'a>,
    bytes: &'a [u8],
    position: usize,
    frame: Option<Frame>,
    preset: Preset,
}

impl<'a> Decoder<'a> {
    fn read(mut self) -> Result<Decoded, Error> {
        let mut values = Vec::new();
        let mut known: Vec<bool> = Vec::new();
        while let Some(marker) = self.next_marker() {
            if matches!(marker, 0xd8 | 0x01) {
                continue;
            }
            if marker == 0xd9 {
                break;
            }
            let segment = self.segment(marker)?;
            match marker {
                0xf7 if self.frame.is_some() => return Err(self.source.damaged("two frame headers")),
                0xf7 => {
                    let frame = self.frame(segment)?;
                    values = vec![0u16; frame.width * frame.height * frame.ids.len()];
                    known = vec![false; frame.ids.len()];
                    self.frame = Some(frame);
                }
                0xf8 => self.preset(segment)?,
                0xda => {
                    let Some(frame) = &self.frame else { return Err(self.source.damaged("a scan before the frame")) };
                    self.position = self.scan(frame, segment, &mut values, &mut known)?;
                }
                0xdd if segment.iter().any(|&byte| byte != 0) => {
                    return Err(self.source.unsupported("restart intervals"));
                }
                0xe8 if segment.starts_with(b"mrfx") && segment.get(4).is_some_and(|&kind| kind != 0) => {
                    return Err(self.source.unsupported("a colour transform of HP's extension"));
                }
                0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    return Err(self.source.unsupported("JPEG that is not JPEG-LS"));
                }
                _ => {}
            }
            if let Some(frame) = self.frame.take_if(|_| known.iter().all(|&known| known)) {
                let Frame { width, height, precision, ids } = frame;
                let values = values.into_iter().map(u32::from).collect();
                let channels = ids.len();
                return Ok(Decoded { width, height, channels, bits: precision, rgb: false, values });
            }
        }
        let reason = if self.frame.is_none() { "no frame header" } else { "the data end inside the image" };
        Err(self.source.damaged(reason))
    }

    /// Passes the next marker.
    fn next_marker(&mut self) -> Option<u8> {
        let rest = self.bytes.get(self.position..)?;
        // Within coded data a byte below 0x80 follows 0xFF.
        let found = rest.windows(2).position(|pair| pair[0] == 0xff && (0x80..0xff).contains(&pair[1]))?;
        self.position += found + 2;
        Some(rest[found + 1])
    }

    /// Parameters of the marker just passed.
    fn segment(&mut self, marker: u8) -> Result<&'a [u8], Error> {
        let segment = match &self.bytes[self.position..] {
            rest @ [high, low, ..] => rest.get(2..usize::from(u16::from_be_bytes([*high, *low]))),
            _ => None,
        };
        let segment = segment.ok_or_else(|| self.source.damaged(format!("segment {marker:02X} is cut short")))?;
        self.position += 2 + segment.len();
        Ok(segment)
    }

    fn frame(&self, segment: &[u8]) -> Result<Frame, Error> {
        let &[precision, y1, y0, x1, x0, count, ref components @ ..] = segment else {
            return Err(self.source.damaged("the frame header is cut short"));
        };
        let (height, width) = (u16::from_be_bytes([y1, y0]), u16::from_be_bytes([x1, x0]));
        self.source.check_size(width.into(), height.into())?;
        let components = components.chunks_exact(3);
        if !(2..=16).contains(&precision) || !matches!(count, 1 | 3) || components.len() != usize::from(count) {
            let found = format!("{count} components of {precision} bits; 1 and 3 of 2 to 16 bits are");
            return Err(self.source.unsupported(found));
        }
        if components.clone().any(|component| component[1] != 0x11) {
            return Err(self.source.unsupported("subsampled components"));
        }
        let ids = components.map(|component| component[0]).collect();
        Ok(Frame { width: width.into(), height: height.into(), precision: precision.into(), ids })
    }

    fn preset(&mut self, segment: &[u8]) -> Result<(), Error> {
        let [kind, rest @ ..] = segment else { return Err(self.source.damaged("segment F8 is cut short")) };
        let (words, _) = rest.as_chunks();
        let words: Vec<u16> = words.iter().map(|&word| u16::from_be_bytes(word)).collect();
        match (kind, &words[..]) {
            (1, &[most, t1, t2, t3, reset]) => self.preset = Preset { most, thresholds: [t1, t2, t3], reset },
            (1, _) => return Err(self.source.damaged("segment F8 is cut short")),
            _ => return Err(self.source.unsupported("a mapping table or large sizes (segment F8)")),
        }
        Ok(())
    }

    /// Decodes a scan whose header is `segment`; gives where it ends.
    fn scan(&self, frame: &Frame, segment: &[u8], values: &mut [u16], known: &mut [bool]) -> Result<usize, Error> {
        let damaged = || self.source.damaged("a scan header is not one");
        let [count, rest @ ..] = segment else { return Err(damaged()) };
        let (selectors, rest) = rest.split_at_checked(2 * usize::from(*count)).ok_or_else(damaged)?;
        let &[near, interleave, transform] = rest else { return Err(damaged()) };
        let mut channels = Vec::new();
        for &[id, mapping] in selectors.as_chunks().0 {
            let channel = frame.ids.iter().position(|&other| other == id).ok_or_else(damaged)?;
            if std::mem::replace(&mut known[channel], true) {
                return Err(damaged());
            }
            if mapping != 0 {
                return Err(self.source.unsupported("a mapping table"));
            }
            channels.push(channel);
        }
        // One component is not interleaved, several are, by line (1) or sample (2).
        if channels.is_empty() || interleave > 2 || (interleave == 0) != (channels.len() == 1) && channels.len() > 1 {
            return Err(damaged());
        }
        if transform != 0 {
            return Err(self.source.unsupported("a point transform"));
        }
        let Preset { most, thresholds, reset } = self.preset;
        let parameters = Parameters::new(frame.precision, near.into(), most, thresholds, reset);
        let parameters = parameters.ok_or_else(|| self.source.damaged("coding parameters that are none"))?;
        let mut bits = Bits::new(self.bytes, self.position);
        let mut lines = Lines::new(frame.width, channels.len(), Model::new(parameters));
        let of_pixel = frame.ids.len();
        for row in values.chunks_exact_mut(frame.width * of_pixel) {
            let decoded = if interleave == 2 { lines.by_sample(&mut bits) } else { lines.by_line(&mut bits) };
            decoded.map_err(|defect: Defect| self.source.damaged(defect))?;
            for (part, &channel) in channels.iter().enumerate() {
                for (value, &sample) in row[channel..].iter_mut().step_by(of_pixel).zip(lines.row(part)) {
                    *value = sample as u16;
                }
            }
        }
        Ok(bits.position())
    }
}
