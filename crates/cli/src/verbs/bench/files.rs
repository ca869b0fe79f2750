//! Synthetic images as the files that a clinic sends: PNG, JPEG and DICOM.

use crate::Failure;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use melo::imaging::{Pixels, encode_png};
use melo::synthetic::{Phantom, phantom};

/// Quality of JPEGs, as common as any.
const JPEG_QUALITY: u8 = 90;

/// How an image is written.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub(crate) enum Format {
    /// 8-bit RGB
    Png,
    /// Baseline, quality 90
    Jpeg,
    /// 16-bit grey, explicit little endian, not compressed
    Dicom,
}

impl Format {
    pub(crate) const ALL: [Format; 3] = [Format::Png, Format::Jpeg, Format::Dicom];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg => "jpeg",
            Format::Dicom => "dicom",
        }
    }

    pub(crate) fn encode(self, pixels: &Pixels) -> Result<Vec<u8>, Failure> {
        match self {
            Format::Png => Ok(encode_png(pixels)?),
            Format::Jpeg => jpeg(pixels),
            Format::Dicom => Ok(dicom(pixels)),
        }
    }
}

/// Image `number`: all modalities and classes in turn, no two alike.
pub(crate) fn synthetic(number: usize, side: usize) -> Pixels {
    let kind = Phantom::ALL[number % Phantom::ALL.len()];
    let instance = number / Phantom::ALL.len();
    phantom(kind, instance % kind.classes().len(), instance as u64, side)
}

fn jpeg(pixels: &Pixels) -> Result<Vec<u8>, Failure> {
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode(
        &pixels.rgb,
        side(pixels.width),
        side(pixels.height),
        ExtendedColorType::Rgb8,
    )?;
    Ok(bytes)
}

/// The green channel as 12 bits in words of 16 (DICOM PS3.5, explicit VR little endian), with a window over all of them.
fn dicom(pixels: &Pixels) -> Vec<u8> {
    let mut file = vec![0; 128];
    file.extend(b"DICM");
    let mut add = |group: u16, element: u16, vr: &[u8; 2], value: &[u8]| {
        file.extend([group.to_le_bytes(), element.to_le_bytes(), *vr].concat());
        match vr {
            b"OW" => file.extend([&[0, 0][..], &(value.len() as u32).to_le_bytes()].concat()),
            _ => file.extend((value.len() as u16).to_le_bytes()),
        }
        file.extend(value);
    };
    let (rows, columns) = (pixels.height as u16, pixels.width as u16);
    add(0x0002, 0x0010, b"UI", b"1.2.840.10008.1.2.1\0");
    add(0x0008, 0x0016, b"UI", b"1.2.840.10008.5.1.4.1.1.1.1\0");
    add(0x0008, 0x0060, b"CS", b"DX");
    add(0x0028, 0x0002, b"US", &1u16.to_le_bytes());
    add(0x0028, 0x0004, b"CS", b"MONOCHROME2 ");
    for (element, value) in [(0x0010, rows), (0x0011, columns), (0x0100, 16), (0x0101, 12), (0x0102, 11), (0x0103, 0)] {
        add(0x0028, element, b"US", &value.to_le_bytes());
    }
    add(0x0028, 0x1050, b"DS", b"2048");
    add(0x0028, 0x1051, b"DS", b"4096");
    let words: Vec<u8> = pixels.rgb.chunks_exact(3).flat_map(|rgb| (u16::from(rgb[1]) << 4).to_le_bytes()).collect();
    add(0x7fe0, 0x0010, b"OW", &words);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_format_decodes_to_nearly_the_pixels_it_was_made_from() {
        // Grey: DICOM keeps one channel.
        let pixels = synthetic(0, 64);
        assert!(pixels.rgb.chunks_exact(3).all(|rgb| rgb[0] == rgb[1] && rgb[1] == rgb[2]), "a film is grey");
        for format in Format::ALL {
            let read = melo::imaging::decode(&format.encode(&pixels).unwrap(), Path::new(format.name())).unwrap();
            assert_eq!((read.width, read.height), (64, 64), "{format:?}");
            let off = read.rgb.iter().zip(&pixels.rgb).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>();
            let mean = f64::from(off) / read.rgb.len() as f64;
            // PNG is exact, a window rounds by half a level at most, JPEG of this quality by a few levels of noise.
            let limit = [0.0, 6.0, 1.0][format as usize];
            assert!(mean <= limit, "{format:?}: {mean}");
        }
    }

    #[test]
    fn synthetic_images_differ() {
        let images: Vec<_> = (0..12).map(|number| synthetic(number, 32)).collect();
        for (i, image) in images.iter().enumerate() {
            assert!(!images[..i].contains(image), "{i}");
        }
    }
}
