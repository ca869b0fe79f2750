//! Colour samples to 8-bit RGB (DICOM PS3.3, section C.7.6.3.1.2).

use super::data_set::{DataSet, Fault};
use super::lut::{Lut, Tags};
use super::samples::Samples;
use super::tag;

/// Three channels scaled to 8 bits: red, green, blue.
pub(super) fn scaled(samples: &Samples) -> Vec<u8> {
    if samples.bits == 8 {
        return samples.values.iter().map(|&value| value as u8).collect();
    }
    let most = u64::from(u32::MAX >> (32 - samples.bits));
    samples.values.iter().map(|&value| ((u64::from(value) * 255 + most / 2) / most) as u8).collect()
}

/// `YBR_FULL`: ITU-R BT.601-7 over the full range.
pub(super) fn from_ybr(samples: &Samples) -> Vec<u8> {
    let mut rgb = scaled(samples);
    for pixel in rgb.as_chunks_mut::<3>().0 {
        let [y, cb, cr] = pixel.map(f64::from);
        let (cb, cr) = (cb - 128.0, cr - 128.0);
        let values = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
        *pixel = values.map(|value| (value + 0.5).floor().clamp(0.0, 255.0) as u8);
    }
    rgb
}

/// `PALETTE COLOR`: three tables (C.7.9).
pub(super) fn from_palette(set: &DataSet, samples: &Samples) -> Result<Vec<u8>, Fault> {
    let tables = [
        (tag::RED_DESCRIPTOR, tag::RED_TABLE, tag::SEGMENTED_RED_TABLE),
        (tag::GREEN_DESCRIPTOR, tag::GREEN_TABLE, tag::SEGMENTED_GREEN_TABLE),
        (tag::BLUE_DESCRIPTOR, tag::BLUE_TABLE, tag::SEGMENTED_BLUE_TABLE),
    ];
    let mut read = Vec::new();
    for (descriptor, data, segmented) in tables {
        let tags = Tags { descriptor, data, segmented: Some(segmented) };
        read.push(Lut::read(set, tags, samples.signed, samples.range())?);
    }
    // Bytes in words that are stated to be of 16 bits.
    if read.iter().all(|table| table.used_bits() <= 8) {
        read = read.into_iter().map(|table| table.narrowed(8)).collect();
    }
    let colour = |&value: &u32| {
        let value = samples.value(value);
        read.iter().map(move |table| table.level(value))
    };
    Ok(samples.values.iter().flat_map(colour).collect())
}
