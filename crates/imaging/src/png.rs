//! Writes pixels as PNG.

use std::io::{self, Cursor};
use std::path::Path;

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use crate::{Error, Pixels};

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
    write(path, pixels).map_err(|source| Error::Write { path: path.into(), source })
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

fn write(path: &Path, pixels: &Pixels) -> io::Result<()> {
    let bytes = encode_png(pixels)?;
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; a leftover that cannot be removed changes nothing about it.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}
