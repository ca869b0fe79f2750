//! JPEG (ITU-T T.81): baseline, extended and progressive Huffman-coded images of 8 bits, bit-equal to libjpeg-turbo;
//! of DICOM files also those of 12 bits, and lossless ones.
//!
//! Why this is written here: `docs/decisions/0002-jpeg.md`.

mod decoder;
mod entropy;
mod frame;
mod idct;
mod lossless;
mod render;
mod scan;
mod upsample;

use crate::codec::Decoded;
use crate::source::Source;
use crate::{Error, Pixels};
use decoder::{Content, Decoder};
use frame::Frame;
use render::{planes, render};
use upsample::Colour;
pub(crate) use upsample::ycc_to_rgb;

/// Decodes `bytes`; every coefficient must be there, an end-of-image marker need not.
pub(crate) fn decode(bytes: &[u8], source: Source) -> Result<Pixels, Error> {
    let mut decoder = Decoder::new(bytes, source, false);
    let Content::Blocks(frame) = decoder.read()? else {
        return Err(source.unsupported("lossless coding"));
    };
    let colour = decoder.colour(&frame);
    Ok(render(frame, colour))
}

/// Decodes a frame of a DICOM file: 8-bit colour to RGB, anything else to its samples.
///
/// `ycc` says that three components without a word of their own on colour are luma and chroma.
pub(crate) fn decode_samples(bytes: &[u8], source: Source, ycc: bool) -> Result<Decoded, Error> {
    let mut decoder = Decoder::new(bytes, source, true);
    let frame = match decoder.read()? {
        Content::Lossless(header) => return decoder.lossless(header),
        Content::Blocks(frame) => frame,
    };
    let (width, height, bits) = (frame.width, frame.height, frame.precision);
    let channels = frame.components.len();
    if bits == 8 && channels == 3 {
        let stated = decoder.jfif || decoder.adobe_transform.is_some();
        let colour = if stated || ycc { decoder.colour(&frame) } else { Colour::Rgb };
        let values = render(frame, colour).rgb.into_iter().map(u32::from).collect();
        return Ok(Decoded { width, height, channels, bits, rgb: true, values });
    }
    Ok(samples(frame))
}

/// Decodes a strip or tile of a TIFF, whose colour its directory states: where `ycc`, three components become RGB.
pub(crate) fn decode_strip(bytes: &[u8], source: Source, ycc: bool) -> Result<Decoded, Error> {
    let mut decoder = Decoder::new(bytes, source, false);
    let Content::Blocks(frame) = decoder.read()? else {
        return Err(source.unsupported("lossless coding"));
    };
    let (width, height, bits) = (frame.width, frame.height, frame.precision);
    if ycc && frame.components.len() == 3 {
        let values = render(frame, Colour::YCbCr).rgb.into_iter().map(u32::from).collect();
        return Ok(Decoded { width, height, channels: 3, bits, rgb: true, values });
    }
    Ok(samples(frame))
}

/// Components as they are, upsampled.
fn samples(frame: Frame) -> Decoded {
    let (width, height, bits) = (frame.width, frame.height, frame.precision);
    let channels = frame.components.len();
    let planes = planes(frame);
    let mut values = vec![0; width * height * channels];
    for (channel, plane) in planes.iter().enumerate() {
        let mut row = vec![0; plane.columns * plane.across];
        for (y, out) in values.chunks_exact_mut(width * channels).enumerate() {
            plane.upsample(y, &mut row);
            out[channel..].iter_mut().step_by(channels).zip(&row).for_each(|(out, &sample)| *out = sample.into());
        }
    }
    Decoded { width, height, channels, bits, rgb: false, values }
}
