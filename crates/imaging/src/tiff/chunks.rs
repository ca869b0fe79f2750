//! A strip or tile of a TIFF to its samples.

use std::io::Read;

use super::Page;
use super::colour::Colour;
use crate::source::Source;
use crate::{Error, jpeg};

/// Samples of a chunk, `[height, width, channels]`, of its part of the image alone.
pub(super) enum Samples {
    /// Unsigned, of up to 16 bits.
    Levels(Vec<u16>),
    /// Signed, real, or of more bits.
    Real(Vec<f64>),
}

/// Decodes a chunk of which `part`, width and height, lies in the image.
pub(super) fn decode(page: &Page, data: &[u8], part: (usize, usize), source: Source) -> Result<Samples, Error> {
    if page.compression == 7 {
        return of_jpeg(page, data, part, source);
    }
    let subsampled = matches!(page.colour, Colour::Ycc) && page.subsampling != (1, 1) && !page.planar;
    let channels = if page.planar { 1 } else { page.samples };
    // The last strip has the rows that are left; a tile is always whole.
    let rows = if page.tiled { page.chunk_height } else { part.1 };
    let bits_a_row = page.chunk_width as u64 * channels as u64 * u64::from(page.bits);
    let row_bytes = bits_a_row.div_ceil(8) as usize;
    let (across, down) = page.subsampling;
    let (units_wide, units_high) = (page.chunk_width.div_ceil(across), rows.div_ceil(down));
    let expected =
        if subsampled { units_wide * units_high * (across * down + 2) } else { row_bytes.saturating_mul(rows) };
    let reversed: Vec<u8>;
    let data = if page.reversed_bits {
        reversed = data.iter().map(|byte| byte.reverse_bits()).collect();
        &reversed[..]
    } else {
        data
    };
    let mut raw = decompress(page, data, expected, rows, source)?;
    if raw.len() < expected {
        return Err(source.damaged(format!("a strip or tile holds {} bytes of {expected}", raw.len())));
    }
    if subsampled {
        if page.bits != 8 {
            return Err(source.unsupported(format!("subsampled chroma of {} bits", page.bits)));
        }
        return Ok(Samples::Levels(spread(&raw, part, units_wide, page.subsampling)));
    }
    for row in raw.chunks_exact_mut(row_bytes).take(part.1) {
        unpredict(page, row, channels, source)?;
    }
    let wanted = part.0 * channels;
    let rows = raw.chunks_exact(row_bytes).take(part.1);
    Ok(match page.wide {
        Some(numbers) => Samples::Real(rows.flat_map(|row| numbers.values(&row[..wanted * numbers.size()])).collect()),
        None => Samples::Levels(rows.flat_map(|row| unpack(row, wanted, page.bits, page.big_endian)).collect()),
    })
}

fn decompress(page: &Page, data: &[u8], expected: usize, rows: usize, source: Source) -> Result<Vec<u8>, Error> {
    let damaged = |error: std::io::Error| source.damaged(format!("a strip or tile does not unpack: {error}"));
    let read = |stream: &mut dyn Read| {
        let mut out = Vec::new();
        // What came before the defect may be all that is needed.
        let result = stream.take(expected as u64).read_to_end(&mut out);
        if out.len() < expected { result.map(|_| out).map_err(damaged) } else { Ok(out) }
    };
    match page.compression {
        1 => Ok(data[..expected.min(data.len())].to_vec()),
        3 | 4 => fax(page, data, rows, source),
        5 => {
            // Writers before TIFF 6.0 packed the codes from the other end.
            let mut lzw = if let [0, second, ..] = data
                && second & 1 == 1
            {
                weezl::decode::Decoder::new(weezl::BitOrder::Lsb, 8)
            } else {
                weezl::decode::Decoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8)
            };
            let (mut out, mut at) = (Vec::new(), 0);
            let mut room = vec![0; expected.min(1 << 16)];
            while out.len() < expected {
                let step = lzw.decode_bytes(&data[at..], &mut room);
                at += step.consumed_in;
                out.extend_from_slice(&room[..step.consumed_out]);
                match step.status {
                    Ok(weezl::LzwStatus::Ok) if step.consumed_in > 0 || step.consumed_out > 0 => {}
                    Ok(_) => break,
                    Err(error) => return Err(source.damaged(format!("LZW: {error}"))),
                }
            }
            out.truncate(expected);
            Ok(out)
        }
        8 | 32946 => read(&mut flate2::read::ZlibDecoder::new(data)),
        32773 => Ok(packbits(data, expected)),
        50000 => {
            let mut stream = ruzstd::decoding::StreamingDecoder::new(data)
                .map_err(|error| source.damaged(format!("Zstandard: {error}")))?;
            read(&mut stream)
        }
        other => Err(source.unsupported(format!(
            "compression {other}{}; none, CCITT, LZW, JPEG, deflate, PackBits and Zstandard are",
            match other {
                2 => " (CCITT Huffman)",
                6 => " (JPEG of TIFF before 1995)",
                34712 => " (JPEG 2000)",
                34925 => " (LZMA)",
                50001 | 50002 => " (WebP or JPEG XL)",
                _ => "",
            }
        ))),
    }
}

/// Runs and literals (TIFF 6.0, section 9).
fn packbits(mut data: &[u8], expected: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while let ([kind, rest @ ..], true) = (data, out.len() < expected) {
        let kind = *kind as i8;
        data = rest;
        match kind {
            -128 => {}
            0.. => {
                let (literals, rest) = data.split_at((kind as usize + 1).min(data.len()));
                out.extend_from_slice(literals);
                data = rest;
            }
            _ => {
                let Some((&value, rest)) = data.split_first() else { break };
                out.extend(std::iter::repeat_n(value, usize::from(kind.unsigned_abs()) + 1));
                data = rest;
            }
        }
    }
    out.truncate(expected);
    out
}

/// CCITT T.4 in one dimension and T.6: bits of rows, 1 where black.
fn fax(page: &Page, data: &[u8], rows: usize, source: Source) -> Result<Vec<u8>, Error> {
    let width = u16::try_from(page.chunk_width).ok().filter(|_| page.bits == 1 && page.samples == 1);
    let (Some(width), Ok(height)) = (width, u16::try_from(rows)) else {
        return Err(source.unsupported("CCITT coding of more than one bit, or of more than 65535 pixels"));
    };
    if page.compression == 3 && page.fax_options & 1 == 1 {
        return Err(source.unsupported("CCITT group 3 in two dimensions; in one, and group 4, are"));
    }
    let mut out = Vec::new();
    let mut line = |transitions: &[u16]| {
        if out.len() < rows * page.chunk_width.div_ceil(8) {
            let mut bits = fax::decoder::pels(transitions, width).map(|colour| colour == fax::Color::Black);
            for _ in 0..page.chunk_width.div_ceil(8) {
                out.push((0..8).fold(0u8, |byte, bit| byte | u8::from(bits.next() == Some(true)) << (7 - bit)));
            }
        }
    };
    let bytes = data.iter().copied();
    let read = match page.compression {
        3 => {
            let mut decoder = fax::decoder::Group3Decoder::new(bytes.map(Ok::<u8, std::convert::Infallible>)).ok();
            while let Some(rows) = &mut decoder {
                let end = match rows.advance() {
                    Ok(status) => status == fax::decoder::DecodeStatus::End,
                    // Behind the last row there need be no end of a line.
                    Err(_) if rows.transitions().last() != Some(&width) => break,
                    Err(_) => true,
                };
                line(rows.transitions());
                if end {
                    break;
                }
            }
            decoder.map(|_| ())
        }
        _ => fax::decoder::decode_g4(bytes, width, Some(height), &mut line),
    };
    // The end of a strip may be cut off behind its last row.
    if read.is_none() || out.len() < rows * page.chunk_width.div_ceil(8) {
        return Err(source.damaged("CCITT coding that does not decode"));
    }
    Ok(out)
}

/// Undoes the predictor of a row (TIFF 6.0, section 14; Adobe, TIFF technical note 3).
fn unpredict(page: &Page, row: &mut [u8], channels: usize, source: Source) -> Result<(), Error> {
    let size = (page.bits / 8) as usize;
    match page.predictor {
        1 => Ok(()),
        2 if matches!(page.bits, 8 | 16 | 32 | 64) => {
            for at in (channels * size..row.len() / size * size).step_by(size) {
                let number = |bytes: &[u8]| {
                    let add = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
                    if page.big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
                };
                let before = number(&row[at - channels * size..][..size]);
                let sum = number(&row[at..][..size]).wrapping_add(before);
                for byte in 0..size {
                    let place = if page.big_endian { size - 1 - byte } else { byte };
                    row[at + place] = (sum >> (8 * byte)) as u8;
                }
            }
            Ok(())
        }
        3 if page.wide.is_some() => {
            for at in channels..row.len() {
                row[at] = row[at].wrapping_add(row[at - channels]);
            }
            let planes = row.to_vec();
            let count = row.len() / size;
            for (at, byte) in row.iter_mut().enumerate().take(count * size) {
                let (value, place) = (at / size, at % size);
                // The planes go from the most significant byte on.
                let plane = if page.big_endian { place } else { size - 1 - place };
                *byte = planes[plane * count + value];
            }
            Ok(())
        }
        other => Err(source.unsupported(format!("predictor {other} of {} bits", page.bits))),
    }
}

/// `count` unsigned samples of up to 16 bits, packed from the most significant bit.
fn unpack(row: &[u8], count: usize, bits: u32, big_endian: bool) -> Vec<u16> {
    match bits {
        8 => row[..count].iter().map(|&byte| byte.into()).collect(),
        16 => {
            let word = if big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
            row.as_chunks().0[..count].iter().map(|&two| word(two)).collect()
        }
        _ => {
            let mut bytes = row.iter();
            let (mut held, mut have) = (0u32, 0);
            let next = |_| {
                while have < bits {
                    held = held << 8 | u32::from(*bytes.next().unwrap_or(&0));
                    have += 8;
                }
                have -= bits;
                (held >> have & (u32::MAX >> (32 - bits))) as u16
            };
            (0..count).map(next).collect()
        }
    }
}

/// Luma and chroma of whole units (TIFF 6.0, section 21), each with its chroma.
fn spread(raw: &[u8], part: (usize, usize), units_wide: usize, (across, down): (usize, usize)) -> Vec<u16> {
    let unit = across * down + 2;
    let mut out = Vec::with_capacity(part.0 * part.1 * 3);
    for y in 0..part.1 {
        for x in 0..part.0 {
            let unit = &raw[(y / down * units_wide + x / across) * unit..][..unit];
            out.extend(
                [unit[y % down * across + x % across], unit[across * down], unit[across * down + 1]].map(u16::from),
            );
        }
    }
    out
}

/// A chunk that is a JPEG stream, its tables perhaps elsewhere (Adobe, TIFF technical note 2).
fn of_jpeg(page: &Page, data: &[u8], part: (usize, usize), source: Source) -> Result<Samples, Error> {
    if page.bits != 8 || page.wide.is_some() {
        return Err(source.unsupported(format!("JPEG of {} bits", page.bits)));
    }
    let whole = match &page.tables[..] {
        [0xff, 0xd8, tables @ .., 0xff, 0xd9] => {
            [&[0xff, 0xd8][..], tables, data.get(2..).unwrap_or_default()].concat()
        }
        _ => data.to_vec(),
    };
    let ycc = matches!(page.colour, Colour::Ycc);
    let decoded = jpeg::decode_strip(&whole, source, ycc)?;
    let channels = if page.planar { 1 } else { page.samples };
    if decoded.channels != channels || decoded.width < part.0 || decoded.height < part.1 {
        let (found, width, height) = (decoded.channels, decoded.width, decoded.height);
        return Err(source.damaged(format!("a strip or tile of {width} x {height} pixels of {found} samples")));
    }
    let rows = decoded.values.chunks_exact(decoded.width * channels).take(part.1);
    Ok(Samples::Levels(rows.flat_map(|row| &row[..part.0 * channels]).map(|&value| value as u16).collect()))
}
