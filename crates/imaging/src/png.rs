//! The chunks of PNG files (W3C PNG, 3rd edition); pixels written as PNG.

use std::io::{self, Cursor};
use std::path::Path;

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use libdeflater::crc32;

use crate::source::Source;
use crate::{Error, Pixels, file};

/// What a PNG file begins with.
pub(crate) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A chunk (5.3).
pub(crate) struct Chunk<'a> {
    pub(crate) kind: &'a [u8; 4],
    pub(crate) content: &'a [u8],
    /// Kind and content.
    summed: &'a [u8],
    checksum: u32,
}

impl Chunk<'_> {
    /// Bytes from its length to its checksum.
    pub(crate) fn size(&self) -> usize {
        4 + self.summed.len() + 4
    }

    /// True if the checksum is right.
    pub(crate) fn is_sound(&self) -> bool {
        crc32(self.summed) == self.checksum
    }
}

/// The chunk at the start of `bytes`, if it is whole.
pub(crate) fn chunk(bytes: &[u8]) -> Option<Chunk<'_>> {
    let (length, behind) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (summed, behind) = behind.split_at_checked(length.checked_add(4)?)?;
    let checksum = u32::from_be_bytes(*behind.first_chunk()?);
    let (kind, content) = summed.split_first_chunk()?;
    Some(Chunk { kind, content, summed, checksum })
}

/// Refuses a palette that is not of whole colours (11.2.2), at which `png` 0.18.1 panics.
pub(crate) fn check_palette(bytes: &[u8], source: Source) -> Result<(), Error> {
    let mut rest = bytes.get(SIGNATURE.len()..).unwrap_or_default();
    while let Some(chunk) = chunk(rest).filter(|chunk| chunk.kind != b"IDAT") {
        if chunk.kind == b"PLTE" && !chunk.content.len().is_multiple_of(3) {
            return Err(source.damaged(format!("a palette of {} bytes", chunk.content.len())));
        }
        rest = &rest[chunk.size()..];
    }
    Ok(())
}

/// Writes `pixels` as an 8-bit RGB PNG: first to a temporary file beside `path`, then renamed, so that no reader
/// meets half a file.
///
/// # Errors
/// [`Error::Write`] with what the operating system said.
///
/// # Panics
/// If `pixels` has no pixel or `pixels.rgb` is not `[height, width, 3]`.
pub fn write_png(path: &Path, pixels: &Pixels) -> Result<(), Error> {
    pixels.check();
    let written = encode_png(pixels).and_then(|bytes| file::replace(path, &bytes));
    written.map_err(|source| Error::Write { path: path.into(), source })
}

/// An 8-bit RGB PNG in memory.
///
/// # Errors
/// A side of more than 2³¹ − 1 pixels, which PNG cannot tell.
///
/// # Panics
/// As [`write_png`].
pub fn encode_png(pixels: &Pixels) -> io::Result<Vec<u8>> {
    pixels.check();
    let mut bytes = Cursor::new(Vec::new());
    let side = |length: usize| u32::try_from(length).map_err(io::Error::other);
    PngEncoder::new(&mut bytes)
        .write_image(&pixels.rgb, side(pixels.width)?, side(pixels.height)?, ExtendedColorType::Rgb8)
        .map_err(io::Error::other)?;
    Ok(bytes.into_inner())
}
