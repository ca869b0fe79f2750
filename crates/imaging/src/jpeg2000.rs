//! JPEG 2000 (ITU-T T.800) through OpenJPEG's translation to Rust.
//!
//! The header is read here first: what it claims is refused before the decoder allocates by it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use melo_vit::Rendering;
use melo_vit::rendering::Window;

use crate::codec::Decoded;
use crate::jpeg::ycc_to_rgb;
use crate::levels::{self, full_scale};
use crate::seen::{self, Range, Seen};
use crate::source::Source;
use crate::{Error, Pixels};

/// Most tiles: each has its own buffers, and a few bytes can claim 65,535.
const MAX_TILES: u64 = 4096;

/// Samples that a byte may stand for: eight times what the most lossy images have. A black image is a few hundred bytes, so what is no
/// larger than a radiograph is exempt.
const MAX_SAMPLES_PER_BYTE: u64 = 256;
const EXEMPT_SAMPLES: u64 = 1 << 24;

/// Most samples: the decoder takes 22 bytes and a quarter of a microsecond for each.
const MAX_SAMPLES: u64 = 1 << 26;

/// Decodes a codestream of a DICOM file, or a JP2 file that holds one.
pub(crate) fn decode(bytes: &[u8], source: Source) -> Result<Decoded, Error> {
    decode_channels(bytes, source, &[1, 3]).map(|(decoded, _)| decoded)
}

/// Decodes a file: alpha is dropped, luma and chroma become RGB, as in Pillow.
pub(crate) fn decode_file(bytes: &[u8], source: Source, rendering: &Rendering) -> Result<(Pixels, Seen), Error> {
    let (Decoded { width, height, channels, bits, values, .. }, ycc) = decode_channels(bytes, source, &[1, 2, 3, 4])?;
    let colours = if channels < 3 { 1 } else { 3 };
    let samples: Vec<f64> =
        values.chunks_exact(channels).flat_map(|pixel| &pixel[..colours]).map(|&value| value.into()).collect();
    let range = Range::of(samples.iter().copied());
    let is_auto = rendering.window == Window::Auto;
    let levels = if is_auto || bits <= 8 {
        full_scale(bits)
    } else {
        levels::of_window(&rendering.window, &samples).map_err(|reason| source.no_such(reason))?
    };
    let levels = samples.into_iter().map(|value| levels.level(value));
    let mut rgb: Vec<u8> = if colours == 3 { levels.collect() } else { levels.flat_map(|level| [level; 3]).collect() };
    if ycc && colours == 3 {
        rgb.as_chunks_mut().0.iter_mut().for_each(|pixel: &mut [u8; 3]| *pixel = ycc_to_rgb(pixel.map(u16::from)));
    }
    let seen = Seen {
        range_used: range.share_of(bits).filter(|_| is_auto && bits > 8),
        flat: range.is_varied() && seen::is_flat(&rgb),
        window_unused: !is_auto && bits <= 8,
        place: None,
    };
    Ok((Pixels { width, height, rgb }, seen))
}

/// Samples of a number of components that is one of `allowed`, and whether the file says they are luma and chroma.
fn decode_channels(bytes: &[u8], source: Source, allowed: &[usize]) -> Result<(Decoded, bool), Error> {
    let (columns, rows, components) = check_header(bytes, source, allowed)?;
    let samples = columns * rows * components;
    if samples > EXEMPT_SAMPLES.max(bytes.len() as u64 * MAX_SAMPLES_PER_BYTE) {
        let reason = format!("{} bytes cannot hold {components} components of {columns} x {rows} pixels", bytes.len());
        return Err(source.damaged(reason));
    }
    if samples > MAX_SAMPLES {
        let found = format!("{columns} x {rows} pixels of {components} components; {MAX_SAMPLES} samples are");
        return Err(source.unsupported(found));
    }
    // The decoder was written for C's idea of arithmetic; a panic in it is a damaged stream, and it holds no state.
    let image = catch_unwind(AssertUnwindSafe(|| {
        let parameters = jpeg2k::DecodeParameters::new().strict(true);
        jpeg2k::Image::from_bytes_with(bytes, parameters)
    }));
    let image = image.map_err(|_| source.damaged("the decoder gave up"))?.map_err(|error| source.damaged(error))?;
    let components = image.components();
    let [first, ..] = components else { return Err(source.damaged("no component")) };
    let (width, height, bits) = (first.width() as usize, first.height() as usize, first.precision());
    let alike = components.iter().all(|component| {
        (component.width(), component.height(), component.precision()) == (first.width(), first.height(), bits)
    });
    if !alike || !(1..=16).contains(&bits) || !allowed.contains(&components.len()) {
        return Err(source.unsupported("components that differ in size or precision"));
    }
    let channels = components.len();
    let mask = u32::MAX >> (32 - bits);
    let mut values = vec![0; width * height * channels];
    for (channel, component) in components.iter().enumerate() {
        for (value, &sample) in values[channel..].iter_mut().step_by(channels).zip(component.data()) {
            *value = sample as u32 & mask;
        }
    }
    let rgb = channels == 3 && multiple_component_transform(bytes);
    let ycc = matches!(image.color_space(), jpeg2k::ColorSpace::SYCC);
    Ok((Decoded { width, height, channels, bits, rgb, values }, ycc))
}

/// Where the codestream begins: at its start-of-codestream and size markers (T.800, A.4 and A.5).
fn codestream(bytes: &[u8]) -> Option<&[u8]> {
    let start = bytes.windows(4).position(|four| four == [0xff, 0x4f, 0xff, 0x51])?;
    Some(&bytes[start..])
}

/// Columns, rows and components; refuses sizes by the image and tile size marker (T.800, A.5.1).
fn check_header(bytes: &[u8], source: Source, allowed: &[usize]) -> Result<(u64, u64, u64), Error> {
    let stream = codestream(bytes).ok_or_else(|| source.damaged("no image and tile size marker"))?;
    let (Some(header), Some(&[high, low])) = (stream.get(8..40), stream.get(40..42)) else {
        return Err(source.damaged("the image and tile size marker is cut short"));
    };
    let numbers: Vec<u64> = header.as_chunks().0.iter().map(|&number| u32::from_be_bytes(number).into()).collect();
    let &[x1, y1, x0, y0, tile_width, tile_height, tile_x, tile_y] = &numbers[..] else {
        return Err(source.damaged("the image and tile size marker is cut short"));
    };
    source.check_size(x1.saturating_sub(x0), y1.saturating_sub(y0))?;
    let components = usize::from(u16::from_be_bytes([high, low]));
    let sampling = stream.get(42..42 + 3 * components);
    let Some(sampling) = sampling else {
        return Err(source.damaged("the image and tile size marker is cut short"));
    };
    if !allowed.contains(&components) || sampling.chunks_exact(3).any(|component| component[1..] != [1, 1]) {
        let found = format!("{components} components, or subsampled ones; {allowed:?} whole ones are");
        return Err(source.unsupported(found));
    }
    if sampling.chunks_exact(3).any(|component| component[0] & 0x7f > 15) {
        return Err(source.unsupported("samples of more than 16 bits"));
    }
    if tile_width == 0 || tile_height == 0 || tile_x > x0 || tile_y > y0 {
        return Err(source.damaged("a tile without a pixel"));
    }
    let tiles = (x1 - tile_x).div_ceil(tile_width).saturating_mul((y1 - tile_y).div_ceil(tile_height));
    if tiles > MAX_TILES {
        return Err(source.unsupported(format!("{tiles} tiles; {MAX_TILES} are")));
    }
    Ok((x1.saturating_sub(x0), y1.saturating_sub(y0), components as u64))
}

/// Whether the coding style says that three components were transformed (T.800, A.6.1).
fn multiple_component_transform(bytes: &[u8]) -> bool {
    let Some(mut rest) = codestream(bytes).and_then(|stream| stream.get(2..)) else { return false };
    while let [0xff, marker, high, low, ..] = *rest {
        match marker {
            0x52 => return rest.get(8) == Some(&1),
            // Start of a tile-part: the main header has ended.
            0x90 => return false,
            _ => {}
        }
        let length = 2 + usize::from(u16::from_be_bytes([high, low]));
        let Some(behind) = rest.get(length..) else { return false };
        rest = behind;
    }
    false
}
