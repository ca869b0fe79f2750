//! Untrusted bytes to [`Pixels`]: which format they are of, and who decodes it.

use std::io::Cursor;
use std::path::Path;

use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use melo_vit::Rendering;

use crate::reference::{self, Fragment};
use crate::source::Source;
use crate::{Error, Pixels, appearance, dicom, jpeg, nifti, numpy, png};

/// Most bytes that a decoder may hold: 200 million pixels of 16-bit RGBA, and room to work.
const MAX_BYTES: u64 = 2 << 30;

/// Reads an image file: PNG, JPEG, TIFF (its first page), BMP, DICOM, NIfTI-1, `.npy` or `.npz`, told apart by
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
    let file = reference::file_of(path);
    let bytes = std::fs::read(&file).map_err(|source| Error::Read { path: path.into(), source })?;
    let fragment = if file == path { Fragment::default() } else { reference::split(path).1 };
    decode_fragment(&bytes, path, &fragment, rendering)
}

/// Decodes an image held in memory; `name` serves only the errors, and its fragment to name an image of several.
///
/// - Grey becomes three equal channels, a palette its colours; alpha is dropped, as Pillow's `convert("RGB")` does.
/// - 16-bit samples are scaled, `round(sample · 255 / 65535)`. Pillow instead *clips* 16-bit grey at 255, which turns
///   almost every radiograph white: bring such files to 8 bits before comparing with Pillow.
/// - DICOM, NIfTI and arrays: see [`mod@dicom`] and [`Rendering`].
/// - An orientation is not applied, whether EXIF or a tag of TIFF states it. Pillow, and so timm, leaves the first alone too,
///   but turns a TIFF by its tag: turn such files before comparing with Pillow.
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
    decode_fragment(bytes, name, &reference::split(name).1, rendering)
}

fn decode_fragment(bytes: &[u8], name: &Path, fragment: &Fragment, rendering: &Rendering) -> Result<Pixels, Error> {
    let rendering = || fragment.applied(rendering);
    match bytes {
        [] => Err(Error::Empty { path: name.into() }),
        [0xff, 0xd8, 0xff, ..] => jpeg::decode(bytes, Source::file(name, "JPEG")),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => {
            let source = Source::file(name, "PNG");
            png::check_palette(bytes, source)?;
            decode_image(ImageFormat::Png, bytes, source)
        }
        // Before TIFF: the preamble of a file for both may hold a TIFF header (PS3.10, section 7.1).
        _ if bytes.get(128..132) == Some(b"DICM") => dicom::render(bytes, name, &rendering()),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => {
            decode_image(ImageFormat::Tiff, bytes, Source::file(name, "TIFF"))
        }
        [b'B', b'M', ..] => {
            let source = Source::file(name, "BMP");
            // Checked here because the decoder calls a width of zero "too large".
            if let Some(&[w0, w1, w2, w3, h0, h1, h2, h3]) = bytes.get(18..26).filter(|_| bytes[14] >= 40) {
                let (width, height) = (i32::from_le_bytes([w0, w1, w2, w3]), i32::from_le_bytes([h0, h1, h2, h3]));
                // A negative height is that of an image stored from the top.
                source.check_size(width.max(0) as u64, height.unsigned_abs().into())?;
            }
            decode_image(ImageFormat::Bmp, bytes, source)
        }
        [b'P', b'K', 3 | 5, 4 | 6, ..] => {
            numpy::from_archive(bytes, Source::file(name, "npz"), &fragment.place, &rendering())
        }
        _ if bytes.starts_with(melo_npy::MAGIC) => {
            numpy::from_array(bytes, Source::file(name, "npy"), &fragment.place, &rendering())
        }
        // Before DICOM: a NIfTI file of the size 8 would look like its implicit little endian.
        _ if nifti::is_header(bytes) || bytes.starts_with(&[0x1f, 0x8b]) && nifti::is_compressed(bytes) => {
            nifti::slice(bytes, Source::file(name, "NIfTI"), &rendering())
        }
        _ if dicom::is_dicom(bytes) => dicom::render(bytes, name, &rendering()),
        _ => Err(Error::NotAnImage { path: name.into(), found: appearance::in_words(bytes).to_owned() }),
    }
}

/// Decodes what the `image` crate does as Pillow does: the lossless formats.
fn decode_image(format: ImageFormat, bytes: &[u8], source: Source) -> Result<Pixels, Error> {
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
    let wrong_samples = |kind: ColorType| source.unsupported(format!("{kind:?} samples; 8 and 16 bits are"));
    if let kind @ (ColorType::Rgb32F | ColorType::Rgba32F) = decoder.color_type() {
        return Err(wrong_samples(kind));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    Ok(Pixels { width: width as usize, height: height as usize, rgb: to_rgb(image).map_err(wrong_samples)? })
}

/// 8-bit RGB of whatever was decoded; the colour type if it has no 8- or 16-bit samples.
fn to_rgb(image: DynamicImage) -> Result<Vec<u8>, ColorType> {
    let kind = image.color();
    let channels = usize::from(kind.channel_count());
    Ok(match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageLuma8(image) => select(image.as_raw(), channels, |sample| sample),
        DynamicImage::ImageLumaA8(image) => select(image.as_raw(), channels, |sample| sample),
        DynamicImage::ImageRgba8(image) => select(image.as_raw(), channels, |sample| sample),
        DynamicImage::ImageLuma16(image) => select(image.as_raw(), channels, narrow),
        DynamicImage::ImageLumaA16(image) => select(image.as_raw(), channels, narrow),
        DynamicImage::ImageRgb16(image) => select(image.as_raw(), channels, narrow),
        DynamicImage::ImageRgba16(image) => select(image.as_raw(), channels, narrow),
        _ => return Err(kind),
    })
}

/// Red, green and blue of each pixel of `channels` samples: grey thrice, alpha dropped.
fn select<T: Copy>(samples: &[T], channels: usize, to_u8: impl Fn(T) -> u8) -> Vec<u8> {
    let rgb = if channels < 3 { [0, 0, 0] } else { [0, 1, 2] };
    samples.chunks_exact(channels).flat_map(|pixel| rgb.map(|channel| to_u8(pixel[channel]))).collect()
}

/// `round(sample · 255 / 65535)`.
fn narrow(sample: u16) -> u8 {
    ((u32::from(sample) + 128) / 257) as u8
}
