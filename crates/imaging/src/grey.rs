//! Grey PNG files, decoded and resized in one channel instead of three equal ones.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::{ImageDecoder, ImageFormat, ImageReader};
use melo_vit::Preprocess;

use crate::preprocess::fitted_size;
use crate::resize::{Samples, resize_samples};
use crate::{Error, MAX_ASPECT, MAX_PIXELS, Pixels, fit, read_with};

/// Signature and header of a PNG file.
const HEADER: usize = 33;

/// [`read_with`] the spec's rendering, then [`fit`]: the same pixels, in a third of the work where the file is a grey PNG of 8 bits.
///
/// # Errors
/// Those of [`read_with`].
///
/// # Panics
/// Where [`fit`] does.
pub fn read_fit(path: &Path, spec: &Preprocess) -> Result<Pixels, Error> {
    // Whatever is odd about a file is said by `read_with`.
    let Some(grey) = read_grey(path) else { return Ok(fit(&read_with(path, &spec.rendering)?, spec)) };
    let (width, height) = fitted_size(grey.width, grey.height, spec);
    let Samples { samples, .. } = resize_samples::<1>(grey, width, height, spec.interpolation);
    let mut rgb = vec![0; samples.len() * 3];
    rgb.chunks_exact_mut(3).zip(&*samples).for_each(|(pixel, &sample)| pixel.fill(sample));
    Ok(Pixels { width, height, rgb })
}

/// One channel of a grey PNG of 8 bits; `None` for any other file, and for a broken one.
fn read_grey(path: &Path) -> Option<Samples<'static>> {
    let mut file = File::open(path).ok()?;
    let mut bytes = Vec::with_capacity(file.metadata().ok()?.len().min(1 << 24) as usize);
    file.by_ref().take(HEADER as u64).read_to_end(&mut bytes).ok()?;
    // Bit depth and colour type (PNG, 11.2.1): 8 and grey.
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") || bytes.get(24..26) != Some(&[8, 0]) {
        return None;
    }
    file.read_to_end(&mut bytes).ok()?;
    let decoder = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png).into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    let (long, short) = (u64::from(width.max(height)), u64::from(width.min(height)));
    // With a transparent level it is of two channels.
    if decoder.color_type() != image::ColorType::L8 || long * short > MAX_PIXELS || long > MAX_ASPECT * short {
        return None;
    }
    let mut samples = vec![0; usize::try_from(decoder.total_bytes()).ok()?];
    decoder.read_image(&mut samples).ok()?;
    Some(Samples { width: width as usize, height: height as usize, samples: samples.into() })
}
