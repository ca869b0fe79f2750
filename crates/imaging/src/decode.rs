//! Untrusted bytes to [`Pixels`]: which format they are of, and who decodes it.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use melo_vit::Rendering;
use melo_vit::rendering::Window;

use crate::levels::{self, full_scale};
use crate::reference::{self, Fragment};
use crate::seen::{self, Range, Seen};
use crate::source::Source;
use crate::{Error, Pixels, appearance, dicom, gif, jpeg, jpeg2000, nifti, numpy, png, tiff};

/// Most bytes that a decoder may hold: 200 million pixels of 16-bit RGBA, and room to work.
pub(crate) const MAX_BYTES: u64 = 2 << 30;

/// Reads an image file: PNG, JPEG, TIFF, BMP, WebP, GIF, JPEG 2000, DICOM, NIfTI-1, `.npy` or `.npz`, told apart by
/// content, never by extension. Files of several images give what the default [`Rendering`] names.
///
/// A path may name one image of a file: `scan.dcm#frame=3` (1 the first), `vol.nii.gz#slice=axial:40`,
/// `chest.npz#test_images:17` (0 the first). A file whose own name holds a `#` is read as it is.
///
/// See [`decode`] for what is made of the samples.
///
/// # Errors
/// [`Error::Read`] if there is no such file, it is a directory, or it may not be read; else those of [`decode`].
pub fn read(path: &Path) -> Result<Pixels, Error> {
    read_with(path, &Rendering::default())
}

/// [`read`], with the frame, slice and window that `rendering` names; the path's own fragment wins.
///
/// # Errors
/// Those of [`read`].
pub fn read_with(path: &Path, rendering: &Rendering) -> Result<Pixels, Error> {
    read_seen(path, rendering).map(|(pixels, _)| pixels)
}

/// [`read_with`], and what was seen of the image that its user may have to hear.
///
/// # Errors
/// Those of [`read`].
pub fn read_seen(path: &Path, rendering: &Rendering) -> Result<(Pixels, Seen), Error> {
    let file = reference::file_of(path);
    let bytes = std::fs::read(&file).map_err(|source| Error::Read { path: path.into(), source })?;
    let fragment = if file == path { Fragment::default() } else { reference::split(path).1 };
    decode_fragment(&bytes, path, &fragment, rendering)
}

/// Decodes an image held in memory; `name` serves only the errors, and its fragment to name an image of several.
///
/// - Grey becomes three equal channels, a palette its colours; alpha is dropped, as Pillow's `convert("RGB")` does.
/// - 16-bit samples are scaled, `round(sample · 255 / 65535)`, unless the rendering asks for a window. Pillow instead *clips*
///   16-bit grey at 255, which turns almost every radiograph white: bring such files to 8 bits before comparing with Pillow.
/// - Signed and real samples, and unsigned ones of more than 16 bits, are brought to 8 by the window, from their least to their
///   largest if none is asked for.
/// - Inks (CMYK) become colours without a profile, as in Pillow.
/// - DICOM, NIfTI and arrays: see [`mod@dicom`] and [`Rendering`].
/// - The orientation of a TIFF is applied, that of EXIF is not, as Pillow, and so timm, does.
///
/// # Errors
/// Every defect of the bytes is one of [`Error`]'s variants, among them a JPEG whose last rows are missing,
/// which many decoders fill with grey.
pub fn decode(bytes: &[u8], name: &Path) -> Result<Pixels, Error> {
    decode_with(bytes, name, &Rendering::default())
}

/// [`decode`], with the frame, slice and window that `rendering` names; the name's own fragment wins.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_with(bytes: &[u8], name: &Path, rendering: &Rendering) -> Result<Pixels, Error> {
    decode_seen(bytes, name, rendering).map(|(pixels, _)| pixels)
}

/// [`decode_with`], and what was seen of the image that its user may have to hear.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_seen(bytes: &[u8], name: &Path, rendering: &Rendering) -> Result<(Pixels, Seen), Error> {
    decode_fragment(bytes, name, &reference::split(name).1, rendering)
}

pub(crate) fn decode_fragment(
    bytes: &[u8],
    name: &Path,
    fragment: &Fragment,
    rendering: &Rendering,
) -> Result<(Pixels, Seen), Error> {
    let (pixels, seen) = decode_one(bytes, name, fragment, rendering)?;
    // Who names an image knows which it is.
    let place = seen.place.filter(|_| !fragment.names_one());
    Ok((pixels, Seen { place, ..seen }))
}

fn decode_one(bytes: &[u8], name: &Path, fragment: &Fragment, rendering: &Rendering) -> Result<(Pixels, Seen), Error> {
    // Of 8 bits a sample there is no window.
    let plain = Seen { window_unused: rendering.window != Window::Auto, ..Seen::default() };
    let rendering = || fragment.applied(rendering);
    match bytes {
        [] => Err(Error::Empty { path: name.into() }),
        [0xff, 0xd8, 0xff, ..] => Ok((jpeg::decode(bytes, Source::file(name, "JPEG"))?, plain)),
        [0xff, 0x4f, 0xff, 0x51, ..] | [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] => {
            jpeg2000::decode_file(bytes, Source::file(name, "JPEG 2000"), &rendering())
        }
        [b'G', b'I', b'F', b'8', ..] => gif::decode(bytes, Source::file(name, "GIF"), &rendering()),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            webp(bytes, Source::file(name, "WebP"), plain)
        }
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => {
            let source = Source::file(name, "PNG");
            png::check_palette(bytes, source)?;
            decode_image(ImageFormat::Png, bytes, source, &rendering())
        }
        // Before TIFF: the preamble of a file for both may hold a TIFF header (PS3.10, section 7.1).
        _ if bytes.get(128..132) == Some(b"DICM") => dicom::render_seen(bytes, name, &rendering()),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => {
            tiff::decode(bytes, Source::file(name, "TIFF"), &rendering())
        }
        [b'B', b'M', ..] => {
            let source = Source::file(name, "BMP");
            // Checked here because the decoder calls a width of zero "too large".
            if let Some(&[w0, w1, w2, w3, h0, h1, h2, h3]) = bytes.get(18..26).filter(|_| bytes[14] >= 40) {
                let (width, height) = (i32::from_le_bytes([w0, w1, w2, w3]), i32::from_le_bytes([h0, h1, h2, h3]));
                // A negative height is that of an image stored from the top.
                source.check_size(width.max(0) as u64, height.unsigned_abs().into())?;
            }
            decode_image(ImageFormat::Bmp, bytes, source, &rendering())
        }
        [b'P', b'K', 3 | 5, 4 | 6, ..] => {
            numpy::from_archive(bytes, Source::file(name, "npz"), &fragment.place, &rendering())
        }
        _ if bytes.starts_with(melo_npy::MAGIC) => {
            numpy::from_array(bytes, Source::file(name, "npy"), &fragment.place, &rendering())
        }
        // Before DICOM: a NIfTI file of the size 8 would look like its implicit little endian.
        _ if nifti::is_volume(bytes) => nifti::slice(bytes, Source::file(name, "NIfTI"), &rendering()),
        _ if dicom::is_dicom(bytes) => dicom::render_seen(bytes, name, &rendering()),
        _ => Err(Error::NotAnImage { path: name.into(), found: appearance::in_words(bytes).to_owned() }),
    }
}

/// The first frame of a WebP file.
fn webp(bytes: &[u8], source: Source, plain: Seen) -> Result<(Pixels, Seen), Error> {
    // Chunks of an animation (WebP container specification, ANMF).
    let (mut frames, mut at) = (0, 12);
    while let Some(chunk) = bytes.get(at..at + 8) {
        frames += usize::from(chunk.starts_with(b"ANMF"));
        let length = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]) as usize;
        at = at.saturating_add(8 + length + length % 2);
    }
    let (pixels, _) = decode_image(ImageFormat::WebP, bytes, source, &Rendering::default())?;
    Ok((pixels, Seen { place: seen::Place::of(0, frames, "frame"), ..plain }))
}

/// Decodes what the `image` crate does as Pillow does.
fn decode_image(
    format: ImageFormat,
    bytes: &[u8],
    source: Source,
    rendering: &Rendering,
) -> Result<(Pixels, Seen), Error> {
    let broken = |error: ImageError| match error {
        ImageError::Unsupported(error) => source.unsupported(error),
        error => source.damaged(error),
    };
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    source.check_size(width.into(), height.into())?;
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    let (rgb, seen) = to_rgb(image, source, rendering)?;
    Ok((Pixels { width: width as usize, height: height as usize, rgb }, seen))
}

/// 8-bit RGB of whatever was decoded.
fn to_rgb(image: DynamicImage, source: Source, rendering: &Rendering) -> Result<(Vec<u8>, Seen), Error> {
    let kind = image.color();
    let channels = usize::from(kind.channel_count());
    let seen = Seen { window_unused: rendering.window != Window::Auto, ..Seen::default() };
    Ok(match image {
        DynamicImage::ImageRgb8(image) => (image.into_raw(), seen),
        DynamicImage::ImageLuma8(image) => (select(image.as_raw(), channels, |sample| sample), seen),
        DynamicImage::ImageLumaA8(image) => (select(image.as_raw(), channels, |sample| sample), seen),
        DynamicImage::ImageRgba8(image) => (select(image.as_raw(), channels, |sample| sample), seen),
        DynamicImage::ImageLuma16(image) => deep(image.as_raw(), channels, source, rendering)?,
        DynamicImage::ImageLumaA16(image) => deep(image.as_raw(), channels, source, rendering)?,
        DynamicImage::ImageRgb16(image) => deep(image.as_raw(), channels, source, rendering)?,
        DynamicImage::ImageRgba16(image) => deep(image.as_raw(), channels, source, rendering)?,
        _ => return Err(source.unsupported(format!("{kind:?} samples; 8 and 16 bits are"))),
    })
}

/// 16-bit samples by the window; without one by their width.
fn deep(samples: &[u16], channels: usize, source: Source, rendering: &Rendering) -> Result<(Vec<u8>, Seen), Error> {
    let colours = if channels < 3 { 1 } else { 3 };
    let values = || samples.chunks_exact(channels).flat_map(|pixel| &pixel[..colours]).map(|&sample| f64::from(sample));
    let range = Range::of(values());
    let (levels, range_used) = if rendering.window == Window::Auto {
        (full_scale(16), range.share_of(16))
    } else {
        let values: Vec<f64> = values().collect();
        (levels::of_window(&rendering.window, &values).map_err(|reason| source.no_such(reason))?, None)
    };
    let rgb = select(samples, channels, |sample| levels.level(sample.into()));
    let flat = range.is_varied() && seen::is_flat(&rgb);
    Ok((rgb, Seen { range_used, flat, ..Seen::default() }))
}

/// Red, green and blue of each pixel of `channels` samples: grey thrice, alpha dropped.
fn select<T: Copy>(samples: &[T], channels: usize, to_u8: impl Fn(T) -> u8) -> Vec<u8> {
    let rgb = if channels < 3 { [0, 0, 0] } else { [0, 1, 2] };
    samples.chunks_exact(channels).flat_map(|pixel| rgb.map(|channel| to_u8(pixel[channel]))).collect()
}
