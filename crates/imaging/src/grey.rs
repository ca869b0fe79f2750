//! Grey PNG files (W3C PNG, 3rd edition), decoded whole and resized in one channel instead of three equal ones.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use libdeflater::Decompressor;
use melo_vit::Preprocess;
use melo_vit::rendering::Window;

use crate::png::Chunk;
use crate::preprocess::{check_fit, fitted_size};
use crate::resize::{Samples, resize_samples};
use crate::{Error, Pixels, Seen, fit, limits, png, read_seen};

/// Signature and header chunk.
const HEADER: usize = 33;

/// Most that deflate shrinks: 258 bytes to two bits.
const MOST_SHRUNK: u64 = 1032;

/// [`read_with`](crate::read_with) the spec's rendering, then [`fit`]: the same pixels, in a third of the work where the file is a grey PNG of 8 bits.
///
/// # Errors
/// Those of [`read_with`](crate::read_with).
///
/// # Panics
/// Where [`fit`] does.
pub fn read_fit(path: &Path, spec: &Preprocess) -> Result<Pixels, Error> {
    read_fit_seen(path, spec).map(|(pixels, _)| pixels)
}

/// [`read_fit`], and what was seen of the image that its user may have to hear.
///
/// # Errors
/// Those of [`read_with`].
///
/// # Panics
/// Where [`fit`] does.
///
/// [`read_with`]: crate::read_with
pub fn read_fit_seen(path: &Path, spec: &Preprocess) -> Result<(Pixels, Seen), Error> {
    read_fit_sized(path, spec).map(|Fitted { pixels, seen, .. }| (pixels, seen))
}

/// What [`read_fit_sized`] gives.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The image, resized.
    pub pixels: Pixels,
    /// What was seen of it.
    pub seen: Seen,
    /// Its columns before it was resized.
    pub width: usize,
    /// Its rows before it was resized.
    pub height: usize,
}

/// [`read_fit_seen`], and the size that the image had.
///
/// # Errors
/// Those of [`read_with`].
///
/// # Panics
/// Where [`fit`] does.
///
/// [`read_with`]: crate::read_with
pub fn read_fit_sized(path: &Path, spec: &Preprocess) -> Result<Fitted, Error> {
    // Whatever is odd about a file is said by `read_seen`.
    let Some(grey) = read_grey(path) else {
        let (pixels, seen) = read_seen(path, &spec.rendering)?;
        let (width, height) = (pixels.width, pixels.height);
        check_fit(path, width, height, spec)?;
        return Ok(Fitted { pixels: fit(&pixels, spec), seen, width, height });
    };
    let whole = (grey.width, grey.height);
    check_fit(path, whole.0, whole.1, spec)?;
    let (width, height) = fitted_size(grey.width, grey.height, spec);
    let Samples { samples, .. } = resize_samples::<1>(grey, width, height, spec.interpolation);
    let mut rgb = vec![0; samples.len() * 3];
    rgb.chunks_exact_mut(3).zip(&*samples).for_each(|(pixel, &sample)| pixel.fill(sample));
    let seen = Seen { window_unused: spec.rendering.window != Window::Auto, ..Seen::default() };
    Ok(Fitted { pixels: Pixels { width, height, rgb }, seen, width: whole.0, height: whole.1 })
}

/// One channel of a grey PNG of 8 bits; `None` for any other file, and for one that is odd in any way.
fn read_grey(path: &Path) -> Option<Samples<'static>> {
    let mut file = File::open(path).ok()?;
    let mut bytes = Vec::with_capacity(file.metadata().ok()?.len().min(1 << 24) as usize);
    file.by_ref().take(HEADER as u64).read_to_end(&mut bytes).ok()?;
    // Bit depth, colour type, compression, filters, interlacing (11.2.1): 8 and grey, all rows in one go.
    if !bytes.starts_with(png::SIGNATURE) || bytes.get(24..29) != Some(&[8, 0, 0, 0, 0]) {
        return None;
    }
    file.read_to_end(&mut bytes).ok()?;
    let side = |at: usize| Some(u32::from_be_bytes(*bytes[at..].first_chunk()?));
    let (width, height) = (side(16)?, side(20)?);
    let stream = data(&mut bytes)?;
    let filtered = u64::from(height) * (u64::from(width) + 1);
    let held = filtered <= MOST_SHRUNK * stream.len() as u64;
    if limits::check_size(width.into(), height.into()).is_err() || !held {
        return None;
    }
    let (width, height) = (width as usize, height as usize);
    let mut rows = vec![0; height * (width + 1)];
    let length = Decompressor::new().zlib_decompress(stream, &mut rows).ok()?;
    if length < rows.len() {
        return None;
    }
    unfilter(&mut rows, width)?;
    for row in 0..height {
        rows.copy_within(row * (width + 1) + 1..(row + 1) * (width + 1), row * width);
    }
    rows.truncate(height * width);
    Some(Samples { width, height, samples: rows.into() })
}

/// The compressed rows: the content of all data chunks, moved together.
fn data(bytes: &mut [u8]) -> Option<&[u8]> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let (mut at, mut last) = (png::SIGNATURE.len(), None);
    loop {
        let chunk = png::chunk(&bytes[at..]).filter(Chunk::is_sound)?;
        match chunk.kind {
            b"IHDR" if last.is_none() && at + chunk.size() == HEADER => {}
            b"IDAT" if parts.is_empty() || last == Some(*b"IDAT") => parts.push(at + 8..at + 8 + chunk.content.len()),
            b"IEND" if chunk.content.is_empty() => break,
            // A transparent level makes two channels, and an animation is several images.
            b"tRNS" | b"acTL" | b"fcTL" => return None,
            // A small letter is a chunk that does not matter (5.4).
            [b'a'..=b'z', ..] => {}
            _ => return None,
        }
        (at, last) = (at + chunk.size(), Some(*chunk.kind));
    }
    let mut end = 0;
    for part in parts {
        let length = part.len();
        bytes.copy_within(part, end);
        end += length;
    }
    Some(&bytes[..end])
}

/// Undoes the filters (9.2) of rows that begin with theirs, in place.
fn unfilter(rows: &mut [u8], width: usize) -> Option<()> {
    let first = vec![0; width + 1];
    let mut above = &first[..];
    for row in rows.chunks_exact_mut(width + 1) {
        let (filter, samples) = row.split_first_mut()?;
        let (mut left, mut corner) = (0u8, 0u8);
        let pairs = samples.iter_mut().zip(&above[1..]);
        match filter {
            0 => {}
            1 => pairs.for_each(|(x, _)| {
                left = left.wrapping_add(*x);
                *x = left;
            }),
            2 => pairs.for_each(|(x, &above)| *x = x.wrapping_add(above)),
            3 => pairs.for_each(|(x, &above)| {
                left = x.wrapping_add(left.midpoint(above));
                *x = left;
            }),
            4 => pairs.for_each(|(x, &above)| {
                left = x.wrapping_add(paeth(left, above, corner));
                (*x, corner) = (left, above);
            }),
            _ => return None,
        }
        above = row;
    }
    Some(())
}

/// The one of three neighbours that is nearest to `left + above - corner`; of equally near ones the first (9.4).
fn paeth(left: u8, above: u8, corner: u8) -> u8 {
    let estimate = i16::from(left) + i16::from(above) - i16::from(corner);
    let distance = |neighbour: u8| (estimate - i16::from(neighbour)).abs();
    let (a, b, c) = (distance(left), distance(above), distance(corner));
    if a <= b && a <= c {
        left
    } else if b <= c {
        above
    } else {
        corner
    }
}
