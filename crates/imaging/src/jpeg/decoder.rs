//! The markers of a JPEG stream (ITU-T T.81, annex B), frame by frame and scan by scan.

use super::entropy::{self, Band, Bits, Carry, Huffman, ZIGZAG};
use super::frame::{Component, Frame, UNKNOWN};
use super::scan::{Part, decode_scan};
use super::upsample::Colour;
use crate::Error;
use crate::limits::MAX_PIXELS;
use crate::source::Source;

/// Most pixels that all scans of an image walk over.
const MAX_SCANNED: u64 = 10 * MAX_PIXELS;
/// More scans than any encoder writes; each costs a walk over the whole image for a few bytes of file.
const MAX_SCANS: usize = 200;

/// What a stream holds.
pub(super) enum Content<'a> {
    /// Coefficients.
    Blocks(Frame),
    /// The parameters of a lossless frame; its samples are behind them.
    Lossless(&'a [u8]),
}

/// The markers of a stream, and the tables in force.
pub(super) struct Decoder<'a> {
    pub(super) source: Source<'a>,
    /// True for what only DICOM files hold: 12-bit samples, lossless coding.
    pub(super) medical: bool,
    pub(super) bytes: &'a [u8],
    pub(super) position: usize,
    /// In natural order.
    pub(super) quantisation: [Option<[u16; 64]>; 4],
    pub(super) dc: [Option<Huffman>; 4],
    pub(super) ac: [Option<Huffman>; 4],
    /// MCUs between restart markers; 0 for none.
    pub(super) restart_interval: usize,
    pub(super) jfif: bool,
    pub(super) adobe_transform: Option<u8>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8], source: Source<'a>, medical: bool) -> Self {
        Self {
            source,
            medical,
            bytes,
            position: 0,
            quantisation: [None; 4],
            dc: [const { None }; 4],
            ac: [const { None }; 4],
            restart_interval: 0,
            jfif: false,
            adobe_transform: None,
        }
    }

    /// Reads markers until every coefficient is known, or a lossless frame begins.
    pub(super) fn read(&mut self) -> Result<Content<'a>, Error> {
        let mut frame = None;
        let (mut scans, mut scanned) = (0, 0);
        while let Some((marker, position)) = entropy::next_marker(self.bytes, self.position) {
            self.position = position;
            match marker {
                // Start of image, restart, temporary: no parameters.
                0x01 | 0xd0..=0xd8 => continue,
                0xd9 => break,
                _ => {}
            }
            let segment = self.segment(marker)?;
            match marker {
                0xc0..=0xc2 if frame.is_some() => return Err(self.source.damaged("two frame headers")),
                0xc0..=0xc2 => frame = Some(self.frame(segment, marker == 0xc2)?),
                0xc4 => self.huffman_tables(segment)?,
                0xdb => self.quantisation_tables(segment)?,
                0xdd => self.restart_interval = self.word(segment, 0, "restart interval")?,
                0xe0 => self.jfif |= segment.starts_with(b"JFIF\0"),
                0xee if segment.starts_with(b"Adobe") => self.adobe_transform = segment.get(11).copied(),
                0xda => {
                    let Some(frame) = &mut frame else { return Err(self.source.damaged("a scan before the frame")) };
                    scans += 1;
                    if scans > MAX_SCANS {
                        return Err(self.source.damaged(format!("expected at most {MAX_SCANS} scans")));
                    }
                    scanned += (frame.width * frame.height) as u64;
                    if scanned > MAX_SCANNED {
                        let (width, height) = (frame.width, frame.height);
                        return Err(self
                            .source
                            .damaged(format!("{scans} scans of {width} x {height} pixels are too many")));
                    }
                    self.scan(segment, frame)?;
                }
                0xc3 if self.medical && frame.is_none() => return Ok(Content::Lossless(segment)),
                0xc3 | 0xc5..=0xc7 | 0xc9..=0xcf => {
                    let found = format!("process {marker:02X}; baseline, extended and progressive Huffman coding are");
                    return Err(self.source.unsupported(found));
                }
                _ => {}
            }
            if let Some(frame) = frame.take_if(|frame| frame.is_complete()) {
                return Ok(Content::Blocks(frame));
            }
        }
        Err(self.source.damaged(if frame.is_none() { "no frame header" } else { "the data end inside the image" }))
    }

    /// Parameters of the marker just passed.
    pub(super) fn segment(&mut self, marker: u8) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.position..];
        let segment = match rest {
            [high, low, ..] => rest.get(2..usize::from(u16::from_be_bytes([*high, *low]))),
            _ => None,
        };
        let segment = segment.ok_or_else(|| self.source.damaged(format!("segment {marker:02X} is cut short")))?;
        self.position += 2 + segment.len();
        Ok(segment)
    }

    /// The 16-bit number at `at` of a segment.
    pub(super) fn word(&self, segment: &[u8], at: usize, what: &str) -> Result<usize, Error> {
        match segment.get(at..at + 2) {
            Some(&[high, low]) => Ok(u16::from_be_bytes([high, low]).into()),
            _ => Err(self.source.damaged(format!("{what} is cut short"))),
        }
    }

    fn quantisation_tables(&mut self, mut segment: &[u8]) -> Result<(), Error> {
        while let [kind, rest @ ..] = segment {
            let (bytes, index) = (usize::from(kind >> 4) + 1, usize::from(kind & 15));
            if bytes > 2 || index > 3 || rest.len() < 64 * bytes {
                return Err(self.source.damaged("a quantisation table is not one"));
            }
            let (values, rest) = rest.split_at(64 * bytes);
            let mut table = [0; 64];
            for (value, &position) in values.chunks_exact(bytes).zip(&ZIGZAG) {
                table[usize::from(position)] = value.iter().fold(0, |number, &byte| number << 8 | u16::from(byte));
            }
            self.quantisation[index] = Some(table);
            segment = rest;
        }
        Ok(())
    }

    pub(super) fn huffman_tables(&mut self, mut segment: &[u8]) -> Result<(), Error> {
        while let [kind, rest @ ..] = segment {
            let tables = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(self.source.damaged(entropy::Defect::BadTable)),
            };
            let table = tables.get_mut(usize::from(kind & 15)).zip(rest.split_first_chunk::<16>());
            let Some((table, (counts, rest))) = table else {
                return Err(self.source.damaged(entropy::Defect::BadTable));
            };
            let symbols = counts.iter().map(|&count| usize::from(count)).sum();
            let Some((symbols, rest)) = rest.split_at_checked(symbols) else {
                return Err(self.source.damaged(entropy::Defect::BadTable));
            };
            *table = Some(Huffman::new(counts, symbols).map_err(|defect| self.source.damaged(defect))?);
            segment = rest;
        }
        Ok(())
    }

    fn frame(&self, segment: &[u8], progressive: bool) -> Result<Frame, Error> {
        let &[bits, _, _, _, _, count, ref specifications @ ..] = segment else {
            return Err(self.source.damaged("the frame header is cut short"));
        };
        let height = self.word(segment, 1, "height")?;
        let width = self.word(segment, 3, "width")?;
        if bits != 8 && !(bits == 12 && self.medical) {
            return Err(self.source.unsupported(format!("{bits}-bit samples; 8-bit samples are")));
        }
        self.source.check_size(width as u64, height as u64)?;
        if !matches!(count, 1 | 3) && (count != 4 || self.medical) {
            let found = format!("{count} components; 1 (grey), 3 (colour) and, outside DICOM, 4 (CMYK) are");
            return Err(self.source.unsupported(found));
        }
        if specifications.len() != usize::from(count) * 3 {
            return Err(self.source.damaged("the frame header is cut short"));
        }
        let factors = |specification: &[u8]| (usize::from(specification[1] >> 4), usize::from(specification[1] & 15));
        let max = specifications
            .chunks_exact(3)
            .map(factors)
            .fold((0, 0), |(across, down), factors| (factors.0.max(across), factors.1.max(down)));
        let (mcus_wide, mcus_high) = (width.div_ceil(8 * max.0.max(1)), height.div_ceil(8 * max.1.max(1)));
        let mut components = Vec::new();
        for specification in specifications.chunks_exact(3) {
            let (across, down) = factors(specification);
            let valid = (1..=4).contains(&across) && (1..=4).contains(&down) && specification[2] < 4;
            if !valid || components.iter().any(|other: &Component| other.id == specification[0]) {
                return Err(self.source.damaged("a component of the frame header is not one"));
            }
            if max.0 % across != 0 || max.1 % down != 0 {
                let found = format!("sampling of {across} in {}, {down} in {}; whole ratios are", max.0, max.1);
                return Err(self.source.unsupported(found));
            }
            let (blocks_wide, blocks_high) = (mcus_wide * across, mcus_high * down);
            components.push(Component {
                id: specification[0],
                across,
                down,
                quantisation_index: specification[2].into(),
                quantisation: None,
                columns: (width * across).div_ceil(max.0),
                rows: (height * down).div_ceil(max.1),
                blocks_wide,
                blocks_high,
                blocks: Vec::new(),
                known: [UNKNOWN; 64],
            });
        }
        // There is room for coefficients only where the file can hold them: the constant one of a block takes a bit at least.
        let coded = |component: &Component| component.columns.div_ceil(8) * component.rows.div_ceil(8);
        if components.iter().map(coded).sum::<usize>() > self.bytes.len().saturating_mul(8) {
            let reason = format!("{} bytes cannot hold {width} x {height} pixels", self.bytes.len());
            return Err(self.source.damaged(reason));
        }
        for component in &mut components {
            component.blocks = vec![[0; 64]; component.blocks_wide * component.blocks_high];
        }
        Ok(Frame { progressive, precision: bits.into(), width, height, mcus_wide, mcus_high, components })
    }

    fn scan(&mut self, segment: &[u8], frame: &mut Frame) -> Result<(), Error> {
        let (parts, band) = self.scan_header(segment, frame)?;
        let mut bits = Bits::new(self.bytes, self.position);
        let decoded = decode_scan(&mut bits, parts, band, self.restart_interval, frame);
        decoded.map_err(|defect| self.source.damaged(defect))?;
        self.position = bits.position();
        Ok(())
    }

    fn scan_header(&self, segment: &[u8], frame: &mut Frame) -> Result<(Vec<Part<'_>>, Band), Error> {
        let damaged = || self.source.damaged("a scan header is not one");
        let [count, rest @ ..] = segment else { return Err(damaged()) };
        let (selectors, rest) = rest.split_at_checked(2 * usize::from(*count)).ok_or_else(damaged)?;
        let &[start, end, bits] = rest else { return Err(damaged()) };
        let band = if frame.progressive {
            Band { start: start.into(), end: end.into(), high: bits >> 4, low: bits & 15 }
        } else {
            Band { start: 0, end: 63, high: 0, low: 0 }
        };
        // T.81, G.1.1.1: the constant coefficient comes alone, the others one component at a time.
        let alone = band.start == 0 && band.end == 0 || band.start > 0 && *count == 1;
        let refines = band.high == 0 || band.high == band.low + 1;
        let valid = !frame.progressive || alone && refines && band.start <= band.end && band.end < 64 && band.low < 14;
        if !valid || selectors.is_empty() {
            return Err(damaged());
        }
        let mut parts: Vec<Part> = Vec::new();
        for &[id, tables] in selectors.as_chunks().0 {
            let component = frame.components.iter().position(|component| component.id == id).ok_or_else(damaged)?;
            if parts.iter().any(|part| part.component == component) {
                return Err(damaged());
            }
            let dc = self.dc.get(usize::from(tables >> 4)).and_then(Option::as_ref);
            let ac = self.ac.get(usize::from(tables & 15)).and_then(Option::as_ref);
            let dc_missing = band.start == 0 && band.high == 0 && dc.is_none();
            let ac_missing = band.end > 0 && ac.is_none();
            let part = Part { component, dc, ac, carry: Carry::default() };
            let component = &mut frame.components[component];
            let latched = component.quantisation.or(self.quantisation[component.quantisation_index]);
            if dc_missing || ac_missing || latched.is_none() {
                return Err(self.source.damaged("a scan names a table that the file does not hold"));
            }
            component.quantisation = latched;
            component.known[band.start..=band.end].fill(band.low);
            parts.push(part);
        }
        Ok((parts, band))
    }

    /// What the components mean, as libjpeg guesses it.
    pub(super) fn colour(&self, frame: &Frame) -> Colour {
        let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        match (&ids[..], self.adobe_transform) {
            ([_], _) => Colour::Grey,
            ([_, _, _, _], None | Some(0)) => Colour::Cmyk,
            ([_, _, _, _], Some(_)) => Colour::Ycck,
            _ if self.jfif => Colour::YCbCr,
            (_, Some(0)) | (b"RGB", None) => Colour::Rgb,
            _ => Colour::YCbCr,
        }
    }
}
