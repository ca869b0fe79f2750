//! Untrusted bytes to [`Pixels`].

use std::io::Cursor;
use std::path::Path;

use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::{Error, Pixels, jpeg};

/// Most pixels that an image may claim: 200 million, several times the largest radiograph.
pub const MAX_PIXELS: u64 = 200_000_000;

/// Most that one side may exceed the other: `fit` scales the *shorter* side up, so an image of
/// 1 × 1,000,000 would otherwise become 224 × 224,000,000.
pub const MAX_ASPECT: u64 = 100;

/// Most bytes that a decoder may hold: 200 million pixels of 16-bit RGBA, and room to work.
const MAX_BYTES: u64 = 2 << 30;

/// Reads an image file: PNG, JPEG, TIFF (its first page) or BMP, told apart by content, never by extension.
///
/// See [`decode`] for what is made of the samples.
///
/// # Errors
/// [`Error::Read`] if there is no such file, it is a directory, or it may not be read; else those of [`decode`].
pub fn read(path: &Path) -> Result<Pixels, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    decode(&bytes, path)
}

/// Decodes an image held in memory; `name` serves only the errors.
///
/// - Grey becomes three equal channels, a palette its colours; alpha is dropped, as Pillow's `convert("RGB")` does.
/// - 16-bit samples are scaled, `round(sample · 255 / 65535)`. Pillow instead *clips* 16-bit grey at 255, which turns
///   almost every radiograph white: bring such files to 8 bits before comparing with Pillow.
/// - EXIF orientation is not applied, as in Pillow and timm.
///
/// # Errors
/// Every defect of the bytes is one of [`Error`]'s variants, among them a JPEG whose last rows are missing,
/// which many decoders fill with grey.
pub fn decode(bytes: &[u8], name: &Path) -> Result<Pixels, Error> {
    match bytes {
        [] => Err(Error::Empty { path: name.into() }),
        [0xff, 0xd8, 0xff, ..] => jpeg::decode(bytes, Source { name, format: "JPEG" }),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => {
            decode_with(ImageFormat::Png, bytes, Source { name, format: "PNG" })
        }
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => {
            decode_with(ImageFormat::Tiff, bytes, Source { name, format: "TIFF" })
        }
        [b'B', b'M', ..] => {
            let source = Source { name, format: "BMP" };
            // Checked here because the decoder calls a width of zero "too large".
            if let Some(&[w0, w1, w2, w3, h0, h1, h2, h3]) = bytes.get(18..26).filter(|_| bytes[14] >= 40) {
                let (width, height) = (i32::from_le_bytes([w0, w1, w2, w3]), i32::from_le_bytes([h0, h1, h2, h3]));
                // A negative height is that of an image stored from the top.
                source.check_size(width.max(0) as u64, height.unsigned_abs().into())?;
            }
            decode_with(ImageFormat::Bmp, bytes, source)
        }
        _ => {
            let first = &bytes[..bytes.len().min(8)];
            Err(Error::NotAnImage { path: name.into(), found: format!("{first:02x?} (\"{}\")", first.escape_ascii()) })
        }
    }
}

/// A file being decoded, for its errors.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    name: &'a Path,
    format: &'static str,
}

impl Source<'_> {
    pub(crate) fn damaged(self, reason: impl ToString) -> Error {
        Error::Damaged { path: self.name.into(), format: self.format, reason: reason.to_string() }
    }

    pub(crate) fn unsupported(self, found: impl ToString) -> Error {
        Error::Unsupported { path: self.name.into(), format: self.format, found: found.to_string() }
    }

    /// Refuses a claimed size that is nothing, too much, or too long.
    pub(crate) fn check_size(self, width: u64, height: u64) -> Result<(), Error> {
        let path = self.name.into();
        if width == 0 || height == 0 {
            Err(Error::NoPixels { path, width, height })
        } else if width.saturating_mul(height) > MAX_PIXELS {
            Err(Error::TooLarge { path, width, height })
        } else if width.max(height) > MAX_ASPECT * width.min(height) {
            Err(Error::TooLong { path, width, height })
        } else {
            Ok(())
        }
    }
}

/// Decodes what the `image` crate does as Pillow does: the lossless formats.
fn decode_with(format: ImageFormat, bytes: &[u8], source: Source) -> Result<Pixels, Error> {
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
