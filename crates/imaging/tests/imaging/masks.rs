//! Masks: which numbers are read from which files, what is refused, and the geometry that they share with their images.

use std::io::Write;
use std::path::Path;

use crate::common::dicom::{EXPLICIT, Elements, IMPLICIT, Image, JPEG, Writing};
use melo_imaging::{
    Error, IGNORE, MASK_COLOURS, Mask, MaskReading, MaskVolume, Pixels, Segment, SegmentationAbout, decode_mask,
    encode_mask_dicom, encode_mask_png, encode_png, mask_overlay, prepare, prepare_mask, read, read_mask, restore,
    write_mask_png,
};
use melo_vit::rendering::{Frame, Plane, Slice};
use melo_vit::{CropMode, Interpolation, Preprocess, Rendering};
use png::{BitDepth, ColorType};

fn spec(size: usize, crop_mode: CropMode, crop_pct: f64) -> Preprocess {
    Preprocess {
        size,
        crop_mode,
        crop_pct,
        interpolation: Interpolation::Bilinear,
        mean: [0.0; 3],
        std: [1.0; 3],
        crop_offset: Default::default(),
        depth: None,
        rendering: Default::default(),
    }
}

/// Blobs of `classes` classes.
fn mask(width: usize, height: usize, classes: usize) -> Mask {
    let label = |at: usize| ((at % width / 5 + at / width / 3) % classes) as u8;
    Mask { width, height, labels: (0..width * height).map(label).collect() }
}

fn labels_of(bytes: &[u8], reading: &MaskReading) -> Vec<u8> {
    decode_mask(bytes, Path::new("mask"), reading).expect("a mask").labels
}

fn refused(bytes: &[u8], reading: &MaskReading) -> Error {
    decode_mask(bytes, Path::new("mask"), reading).expect_err("no mask")
}

fn any() -> MaskReading {
    MaskReading::default()
}

/// A PNG of packed rows.
fn png(width: u32, height: u32, color: ColorType, depth: BitDepth, palette: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if !palette.is_empty() {
        encoder.set_palette(palette.to_vec());
    }
    let mut writer = encoder.write_header().expect("in memory");
    writer.write_image_data(data).expect("in memory");
    writer.finish().expect("in memory");
    bytes
}

/// A TIFF of one uncompressed strip.
fn tiff(
    width: u32,
    height: u32,
    bits: u16,
    samples: u16,
    photometric: u16,
    more: &[(u16, u32)],
    data: &[u8],
) -> Vec<u8> {
    let mut entries: Vec<(u16, u16, u32, u32)> = vec![
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, bits.into()),
        (259, 3, 1, 1),
        (262, 3, 1, photometric.into()),
        (273, 4, 1, 8),
        (277, 3, 1, samples.into()),
        (278, 4, 1, height),
        (279, 4, 1, data.len() as u32),
    ];
    entries.extend(more.iter().map(|&(tag, value)| (tag, 3, 1, value)));
    let mut map = Vec::new();
    if photometric == 3 {
        // Colours that no index equals.
        map = (0..3u32 << bits).flat_map(|at| ((at * 7 % 256 * 257) as u16).to_le_bytes()).collect();
        entries.push((320, 3, 3 << bits, 8 + data.len() as u32));
    }
    entries.sort_unstable();
    let directory = 8 + data.len() + map.len();
    let mut bytes = [b"II*\0", &(directory as u32).to_le_bytes()[..], data, &map].concat();
    bytes.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        bytes
            .extend([&tag.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes(), &value.to_le_bytes()].concat());
    }
    bytes.extend([0; 4]);
    bytes
}

/// A NIfTI-1 volume of 32-bit numbers with a slope and an affine that keeps or turns x and y.
fn nifti(dim: [i16; 3], slope: f32, turned: bool, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; 352];
    bytes[..4].copy_from_slice(&348i32.to_le_bytes());
    for (axis, length) in [3, dim[0], dim[1], dim[2], 1, 1, 1, 1].into_iter().enumerate() {
        bytes[40 + axis * 2..][..2].copy_from_slice(&i16::to_le_bytes(length));
    }
    bytes[70..72].copy_from_slice(&16i16.to_le_bytes());
    let mut put = |at: usize, value: f32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(108, 352.0);
    put(112, slope);
    let sign = if turned { -1.0 } else { 1.0 };
    [(280, sign), (300, sign), (320, 1.0)].into_iter().for_each(|(at, value)| put(at, value));
    bytes[254..256].copy_from_slice(&1i16.to_le_bytes());
    bytes[344..348].copy_from_slice(b"n+1\0");
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

#[test]
fn png_gives_numbers_as_they_are_stored() {
    let palette = [9, 9, 9, 255, 0, 0, 0, 255, 0, 1, 2, 3];
    for (depth, data) in [
        (BitDepth::One, vec![0b0110_0000, 0b1000_0000]),
        (BitDepth::Two, vec![0b0001_0100, 0b0100_0000]),
        (BitDepth::Four, vec![0x01, 0x10, 0x10, 0x00]),
        (BitDepth::Eight, vec![0, 1, 1, 1, 0, 0]),
    ] {
        let grey = png(3, 2, ColorType::Grayscale, depth, &[], &data);
        assert_eq!(labels_of(&grey, &any()), [0, 1, 1, 1, 0, 0], "grey of {depth:?}");
        let indexed =
            png(3, 2, ColorType::Indexed, depth, &palette[..if depth == BitDepth::One { 6 } else { 12 }], &data);
        assert_eq!(labels_of(&indexed, &any()), [0, 1, 1, 1, 0, 0], "palette of {depth:?}");
    }
    let deep = png(2, 1, ColorType::Grayscale, BitDepth::Sixteen, &[], &[0, 7, 0, 255]);
    assert_eq!(labels_of(&deep, &any()), [7, IGNORE]);
    let alpha = png(2, 1, ColorType::Rgba, BitDepth::Eight, &[], &[2, 2, 2, 0, 3, 3, 3, 255]);
    assert_eq!(labels_of(&alpha, &any()), [2, 3]);
}

#[test]
fn tiff_gives_numbers_as_they_are_stored() {
    assert_eq!(labels_of(&tiff(3, 1, 8, 1, 1, &[], &[0, 1, 254]), &any()), [0, 1, 254]);
    assert_eq!(labels_of(&tiff(3, 1, 8, 1, 0, &[], &[255, 254, 1]), &any()), [0, 1, 254], "the least value is white");
    assert_eq!(labels_of(&tiff(3, 1, 8, 1, 3, &[], &[0, 1, 2]), &any()), [0, 1, 2], "a palette");
    assert_eq!(labels_of(&tiff(3, 1, 4, 1, 3, &[], &[0x21, 0x30]), &any()), [2, 1, 3]);
    assert_eq!(labels_of(&tiff(2, 1, 16, 1, 1, &[], &[4, 0, 200, 0]), &any()), [4, 200]);
    // Orientation 3 turns the image, and so its mask.
    assert_eq!(labels_of(&tiff(3, 1, 8, 1, 1, &[(274, 3)], &[0, 1, 2]), &any()), [2, 1, 0]);
}

#[test]
fn a_volume_is_cut_as_its_image_is() {
    let values: Vec<f32> = (0..24).map(|at| (at % 7) as f32).collect();
    for (plane, turned, index) in
        [(Plane::Axial, false, 1), (Plane::Axial, true, 0), (Plane::Coronal, true, 2), (Plane::Sagittal, false, 1)]
    {
        let rendering = Rendering { plane, slice: Slice::Index(index), ..Rendering::default() };
        let file = nifti([4, 3, 2], 0.0, turned, &values);
        let shown = melo_imaging::decode_with(&file, Path::new("image"), &rendering).expect("an image");
        let mask = decode_mask(&file, Path::new("mask"), &MaskReading { rendering, ..any() }).expect("a mask");
        assert_eq!((mask.width, mask.height), (shown.width, shown.height));
        // The image's levels are its values, stretched.
        let (least, most) =
            mask.labels.iter().fold((255, 0), |(least, most), &label| (label.min(least), label.max(most)));
        for (label, level) in mask.labels.iter().zip(shown.rgb.chunks_exact(3)) {
            let expected = f64::from(label - least) * 255.0 / f64::from(most - least);
            assert!((expected - f64::from(level[0])).abs() <= 0.5, "{plane} {turned}: {label} is {}", level[0]);
        }
    }
}

#[test]
fn slopes_make_whole_numbers_and_others_are_refused() {
    let slope = 1.0 / 255.0;
    assert_eq!(labels_of(&gz(&nifti([2, 1, 1], slope, true, &[0.0, 510.0])), &any()), [0, 2]);
    let error = refused(&nifti([2, 1, 1], 1.0, true, &[0.0, 0.5]), &any());
    assert!(matches!(error, Error::MaskValue { value: 0.5, column: 1, row: 0, .. }), "{error}");
    let error = refused(&nifti([2, 1, 1], 1.0, true, &[f32::NAN, 0.0]), &any());
    assert!(matches!(error, Error::MaskValue { column: 0, row: 0, .. }), "{error}");
}

#[test]
fn arrays_of_numbers_and_truth_values() {
    let array = |descr: &str, data: &[u8]| {
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (1, 3), }}");
        header += &" ".repeat(127 - (10 + header.len()) % 128);
        header += "\n";
        [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
    };
    assert_eq!(labels_of(&array("|u1", &[0, 1, 2]), &any()), [0, 1, 2]);
    assert_eq!(labels_of(&array("|b1", &[0, 1, 1]), &any()), [0, 1, 1]);
    assert_eq!(labels_of(&array("<i2", &[0, 0, 3, 0, 255, 0]), &any()), [0, 3, IGNORE]);
    let error = refused(&array("<i2", &[0, 0, 0xff, 0xff, 1, 0]), &any());
    assert!(matches!(error, Error::MaskValue { value: -1.0, column: 1, .. }), "{error}");
}

#[test]
fn values_are_mapped_and_ignored() {
    let file = png(4, 1, ColorType::Grayscale, BitDepth::Eight, &[], &[0, 255, 128, 255]);
    let two = MaskReading { values: [(255, 1)].into(), ignore: Some(128), ..MaskReading::of_classes(2) };
    assert_eq!(labels_of(&file, &two), [0, 1, IGNORE, 1]);
    let gone = MaskReading { values: [(128, IGNORE)].into(), ignore: None, ..two.clone() };
    let error = refused(&file, &gone);
    assert!(matches!(error, Error::MaskValue { value: 255.0, column: 1, .. }), "{error}");
}

#[test]
fn a_value_that_is_no_class_is_named_with_its_first_pixel() {
    let file = png(2, 2, ColorType::Grayscale, BitDepth::Eight, &[], &[0, 1, 1, 255]);
    let error = refused(&file, &MaskReading { ignore: None, ..MaskReading::of_classes(2) });
    assert_eq!(
        error.to_string(),
        "mask: value 255 at column 1, row 1 (0 the first) is no class: expected 0 to 1; the file holds 0, 1, 255"
    );
}

#[test]
fn colours_and_lossy_files_are_refused() {
    let coloured = Pixels { width: 2, height: 1, rgb: vec![5, 5, 5, 255, 0, 0] };
    let error = refused(&encode_png(&coloured).unwrap(), &any());
    assert!(matches!(error, Error::MaskColour { column: 1, row: 0, .. }), "{error}");
    assert!(error.to_string().contains("red 255, green 0, blue 0 at column 1, row 0"), "{error}");
    let error = refused(&tiff(1, 1, 8, 3, 2, &[], &[1, 2, 3]), &any());
    assert!(matches!(error, Error::MaskColour { .. }), "{error}");
    for (bytes, found) in
        [(&b"\xff\xd8\xff\xe0"[..], "JPEG"), (b"\xff\x4f\xff\x51", "JPEG 2000"), (b"RIFF\0\0\0\0WEBPVP8 ", "WebP")]
    {
        let error = refused(bytes, &any());
        assert!(matches!(&error, Error::LossyMask { format, .. } if *format == found), "{error}");
    }
    let error = refused(&Image::grey(1, 1, 8).elements(Writing::Explicit).file(JPEG), &any());
    assert!(matches!(error, Error::Attribute { .. }), "{error}");
}

#[test]
fn a_mask_of_another_size_than_its_image_is_refused_with_both() {
    let error = mask(4, 3, 2).check_size(Path::new("a.png"), 3, 4).unwrap_err();
    assert_eq!(error.to_string(), "a.png: the mask is 4 x 3, its image 3 x 4");
}

#[test]
fn damaged_masks_are_refused_by_name() {
    let whole = encode_mask_png(&mask(60, 40, 4)).unwrap();
    for length in [0, 8, 20, 40, whole.len() / 2, whole.len() - 20] {
        assert!(refused(&whole[..length], &any()).to_string().starts_with("mask: "), "{length}");
    }
    // A bomb: 50,000 x 50,000 pixels claimed.
    let mut bomb = whole.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 195, 80, 0, 0, 195, 80]);
    let checksum = libdeflater::crc32(&bomb[12..29]).to_be_bytes();
    bomb[29..33].copy_from_slice(&checksum);
    assert!(matches!(refused(&bomb, &any()), Error::TooLarge { .. }));
}

#[test]
fn written_masks_read_back_and_show_their_colours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.png");
    let mut mask = mask(33, 21, 5);
    mask.labels[7] = IGNORE;
    write_mask_png(&path, &mask).unwrap();
    assert_eq!(read_mask(&path, &any()).unwrap(), mask);
    let shown = read(&path).unwrap();
    for (label, pixel) in mask.labels.iter().zip(shown.rgb.chunks_exact(3)) {
        assert_eq!(pixel, MASK_COLOURS[usize::from(*label)]);
    }
    assert_eq!(MASK_COLOURS[..4], [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]);
}

/// A frame of a segmentation: its segment, position, and image.
fn groups(segment: u16, position: &str, instance: &str) -> Elements {
    let explicit = || Elements::new(Writing::Explicit);
    let source = explicit().text(0x0008_1155, "UI", instance);
    let derivation = explicit().sequence(0x0008_2112, &[source], true);
    let place = explicit().text(0x0020_0032, "DS", position);
    let number = explicit().words(0x0062_000b, "US", &[segment]);
    explicit().sequence(0x0008_9124, &[derivation], true).sequence(0x0020_9113, &[place], false).sequence(
        0x0062_000a,
        &[number],
        true,
    )
}

/// A segmentation of 3 x 2 pixels.
fn segmentation(kind: &str, allocated: u16, frames: &[Elements], pixels: &[u8]) -> Vec<u8> {
    let image = Image {
        allocated,
        stored: allocated,
        high_bit: allocated - 1,
        frames: frames.len() as u16,
        ..Image::grey(3, 2, 8)
    };
    let class = Elements::new(Writing::Explicit).text(0x0008_0016, "UI", "1.2.840.10008.5.1.4.1.1.66.4");
    let segment = |number| Elements::new(Writing::Explicit).words(0x0062_0004, "US", &[number]);
    let image = image.elements(Writing::Explicit).text(0x0062_0001, "CS", kind);
    let image = image.sequence(0x0062_0002, &[segment(1), segment(2)], true).sequence(0x5200_9230, frames, true);
    class.raw(&image.bytes).value(0x7fe0_0010, "OB", pixels).file(EXPLICIT)
}

#[test]
fn segments_become_their_numbers() {
    let frames = [groups(2, "0\\0\\1", "1.2"), groups(1, "0\\0\\1", "1.2")];
    // Six pixels a frame, packed without a gap: 110000, 000011.
    let file = segmentation("BINARY", 1, &frames, &[0b0000_0011, 0b0000_1100]);
    assert_eq!(labels_of(&file, &any()), [2, 2, 0, 0, 1, 1]);
    let overlapping = segmentation("BINARY", 1, &frames, &[0b1100_0011, 0]);
    assert!(refused(&overlapping, &any()).to_string().contains("overlap at column 0, row 0"));
    let unknown = segmentation("BINARY", 1, &[groups(3, "0", "1.2")], &[0b11]);
    assert!(refused(&unknown, &any()).to_string().contains("is 3 in frame 1"));
    let fractional = segmentation("FRACTIONAL", 8, &frames, &[0; 12]);
    assert!(refused(&fractional, &any()).to_string().contains("FRACTIONAL"));
    let map = segmentation("LABELMAP", 8, &[groups(0, "0", "1.2")], &[0, 1, 2, 2, 1, 0]);
    assert_eq!(labels_of(&map, &any()), [0, 1, 2, 2, 1, 0]);
}

#[test]
fn of_several_slices_the_one_of_the_image_is_taken() {
    let frames = [groups(1, "0\\0\\1", "1.1"), groups(2, "0\\0\\2", "1.2")];
    let file = segmentation("BINARY", 1, &frames, &[0b0100_0001, 0b0000_0000]);
    assert!(refused(&file, &any()).to_string().contains("2 slices"));
    let of = |instance: &str| MaskReading { instance: Some(instance.to_owned()), ..any() };
    assert_eq!(labels_of(&file, &of("1.1")), [1, 0, 0, 0, 0, 0]);
    assert_eq!(labels_of(&file, &of("1.2")), [2, 0, 0, 0, 0, 0]);
    assert!(refused(&file, &of("1.3")).to_string().contains("1.3"));
    let second = Rendering { frame: Frame::Number(2), ..Rendering::default() };
    assert_eq!(labels_of(&file, &MaskReading { rendering: second, ..any() }), [2, 0, 0, 0, 0, 0]);
}

#[test]
fn other_dicom_files_give_their_stored_numbers() {
    for (writing, syntax) in [(Writing::Explicit, EXPLICIT), (Writing::Implicit, IMPLICIT)] {
        let file = Image::grey(3, 1, 8).elements(writing).value(0x7fe0_0010, "OW", &[0, 255, 255, 0]).file(syntax);
        let reading = MaskReading { values: [(255, 1)].into(), ..MaskReading::of_classes(2) };
        assert_eq!(labels_of(&file, &reading), [0, 1, 1]);
    }
}

#[test]
fn image_and_mask_go_the_same_way() {
    let modes = [CropMode::Center, CropMode::Squash, CropMode::Border];
    for (width, height) in [(64, 64), (70, 51), (33, 90), (20, 20), (131, 128)] {
        for (mode, crop_pct) in modes.into_iter().flat_map(|mode| [(mode, 1.0), (mode, 0.8)]) {
            let spec = spec(64, mode, crop_pct);
            let inside = |at: usize| {
                let (x, y) = (at % width, at / width);
                x > width / 5 && x < width * 3 / 4 && y > height / 3 && y < height * 5 / 6
            };
            let labels: Vec<u8> = (0..width * height).map(|at| u8::from(inside(at))).collect();
            let rgb = labels.iter().flat_map(|&label| [label * 255; 3]).collect();
            let input = prepare(&Pixels { width, height, rgb }, &spec);
            let found = prepare_mask(&Mask { width, height, labels }, &spec);
            assert_eq!(found.len(), 64 * 64);
            let mut mixed = 0;
            for (label, &value) in found.iter().zip(&input) {
                match (*label, value) {
                    (IGNORE, value) => assert_eq!(value, 0.0, "padding"),
                    (label, 0.0 | 1.0) => assert_eq!(f32::from(label), value, "{width} x {height} {mode:?} {crop_pct}"),
                    // Pixels of the border are mixed, and go to the nearer side: within a quarter, for both directions.
                    (label, value) => {
                        mixed += 1;
                        assert!(if label == 1 { value > 0.2 } else { value < 0.8 }, "{label} at {value}");
                    }
                }
            }
            assert!(mixed < 64 * 12, "{mixed} pixels of {width} x {height} {mode:?} {crop_pct}");
            let padded = mode == CropMode::Border && width != height && crop_pct == 1.0;
            assert!(!padded || found.contains(&IGNORE));
        }
    }
}

fn one_hot(labels: &[u8], classes: usize) -> Vec<f32> {
    (0..classes)
        .flat_map(|class| labels.iter().map(move |&label| f32::from(u8::from(usize::from(label) == class))))
        .collect()
}

#[test]
fn a_mask_there_and_back_is_itself() {
    for (width, height, size, mode) in [
        (48, 48, 48, CropMode::Center),
        (24, 24, 48, CropMode::Squash),
        (16, 16, 48, CropMode::Squash),
        (48, 24, 48, CropMode::Border),
        (24, 48, 48, CropMode::Squash),
        (16, 8, 48, CropMode::Border),
    ] {
        let (mask, spec) = (mask(width, height, 4), spec(size, mode, 1.0));
        let input = prepare_mask(&mask, &spec);
        let restored = restore(&one_hot(&input, 4), 4, size, width, height, &spec);
        assert_eq!((restored.mask, restored.unseen), (mask, 0), "{width} x {height} to {size}, {mode:?}");
    }
}

#[test]
fn what_the_crop_cut_off_is_background_and_counted() {
    let spec = spec(32, CropMode::Center, 0.5);
    let ones = one_hot(&[1; 32 * 32], 2);
    let restored = restore(&ones, 2, 32, 128, 64, &spec);
    // Half of each side of the centre square is seen.
    assert_eq!(restored.unseen, 128 * 64 - 32 * 32);
    assert_eq!(restored.mask.counts(2), (vec![128 * 64 - 32 * 32, 32 * 32], 0));
    assert_eq!(restored.mask.labels[32 * 128 + 64], 1);
    assert_eq!(restored.mask.labels[0], 0);
}

#[test]
fn coarse_scores_are_interpolated_as_by_pytorch() {
    let spec = spec(8, CropMode::Squash, 1.0);
    let plane = [0.0, 1.0, 2.0, 3.0];
    let threshold = |value: f32| [vec![value; 4], plane.to_vec()].concat();
    let row = |value: f32| restore(&threshold(value), 2, 2, 8, 8, &spec).mask.labels[3 * 8..4 * 8].to_vec();
    // Row 3: 2 · 0.375 = 0.75, plus 0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1.
    assert_eq!(row(0.8), [0, 0, 1, 1, 1, 1, 1, 1]);
    assert_eq!(row(1.2), [0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!(row(1.7), [0, 0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(row(1.75), [0; 8], "of equal scores the first class");
    let nothing = restore(&[f32::NAN; 8], 2, 2, 8, 8, &spec);
    assert_eq!(nothing.mask.labels, [0; 64]);
}

#[test]
fn an_overlay_outlines_fills_and_darkens() {
    let pixels = Pixels { width: 40, height: 20, rgb: vec![100; 40 * 20 * 3] };
    let inside = |at: usize| (15..25).contains(&(at % 40)) && (5..15).contains(&(at / 40));
    let mask = Mask { width: 40, height: 20, labels: (0..800).map(|at| u8::from(inside(at))).collect() };
    let drawn = mask_overlay(&pixels, &mask, 0.5, Some(&spec(20, CropMode::Center, 1.0)));
    let at = |x: usize, y: usize| &drawn.rgb[(y * 40 + x) * 3..][..3];
    assert_eq!(at(15, 5), [128, 0, 0], "outline");
    assert_eq!(at(20, 10), [114, 50, 50], "fill");
    assert_eq!(at(12, 10), [100; 3], "rest");
    assert_eq!(at(2, 10), [50; 3], "unseen");
    assert_eq!(at(39, 0), [50; 3], "unseen");
}

#[test]
fn a_written_volume_reads_back_in_its_space() {
    for (plane, index) in [(Plane::Axial, 1), (Plane::Coronal, 2), (Plane::Sagittal, 0)] {
        let rendering = Rendering { plane, slice: Slice::Index(index), ..Rendering::default() };
        let source = gz(&nifti([40, 30, 20], 3.0, plane == Plane::Coronal, &[0.0; 24_000]));
        let shown = melo_imaging::decode_with(&source, Path::new("image"), &rendering).expect("an image");
        let mask = mask(shown.width, shown.height, 4);
        let mut volume = MaskVolume::like(&source, Path::new("image")).expect("a volume");
        volume.put(&mask, &rendering).expect("of its size");
        let file = volume.encode().expect("in memory");
        let read = |rendering: Rendering| {
            decode_mask(&file, Path::new("mask"), &MaskReading { rendering, ..any() }).expect("a mask")
        };
        assert_eq!(read(rendering.clone()), mask, "{plane}");
        let other = Rendering { slice: Slice::Index(index + 1), ..rendering.clone() };
        assert!(read(other.clone()).labels.iter().all(|&label| label == 0), "another slice is background");
        assert!(matches!(volume.put(&self::mask(3, 3, 2), &rendering), Err(Error::MaskSize { .. })));
        let beyond = Rendering { slice: Slice::Index(99), ..other };
        assert!(matches!(volume.put(&mask, &beyond), Err(Error::NoSuchImage { .. })));
    }
    let mask = mask(31, 17, 3);
    let mut volume = MaskVolume::of_image(31, 17).expect("a volume");
    volume.put(&mask, &Rendering::default()).expect("of its size");
    assert_eq!(labels_of(&volume.encode().expect("in memory"), &any()), mask.labels);
    assert!(MaskVolume::of_image(40_000, 400).is_err(), "sides of NIfTI are of 16 bits");
    assert!(MaskVolume::like(b"no volume", Path::new("x")).is_err());
}

#[test]
fn a_written_segmentation_reads_back_with_its_patient() {
    let image = |pixels: bool| {
        let identity = Elements::new(Writing::Explicit)
            .text(0x0008_0016, "UI", "1.2.840.10008.5.1.4.1.1.2")
            .text(0x0008_0018, "UI", "1.2.3.4")
            .text(0x0020_000d, "UI", "1.2.3")
            .text(0x0020_000e, "UI", "1.2.3.9");
        let identity = if pixels { identity } else { Elements::new(Writing::Explicit) };
        let image = Image::grey(37, 43, 8).elements(Writing::Explicit);
        identity.raw(&image.bytes).value(0x7fe0_0010, "OW", &[0; 37 * 43]).file(EXPLICIT)
    };
    let about = SegmentationAbout {
        segments: ["polyp", "vessel"].map(|label| Segment { label: label.to_owned(), codes: None }).to_vec(),
        instance_uid: "2.25.1".to_owned(),
        series_uid: "2.25.2".to_owned(),
        series_description: "masks".to_owned(),
        algorithm: "polyps".to_owned(),
        model_name: "melo".to_owned(),
        serial_number: "1".to_owned(),
        software_versions: "1".to_owned(),
        date: "20260101".to_owned(),
        time: "120000".to_owned(),
    };
    let mut mask = mask(37, 43, 3);
    let file = encode_mask_dicom(&mask, &image(true), Path::new("image"), 0, &about).expect("a segmentation");
    assert_eq!(labels_of(&file, &any()), mask.labels);
    assert_eq!(labels_of(&file, &MaskReading { instance: Some("1.2.3.4".to_owned()), ..any() }), mask.labels);
    let wanted = ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"];
    let header = melo_imaging::dicom::header(&file, Path::new("mask"), &wanted).expect("a header");
    assert_eq!(header.iter().flatten().collect::<Vec<_>>(), ["patient 7", "1.2.3", "2.25.2", "SEG"]);
    // What is ignored is of no segment.
    mask.labels[0] = IGNORE;
    let file = encode_mask_dicom(&mask, &image(true), Path::new("image"), 0, &about).expect("a segmentation");
    assert_eq!(labels_of(&file, &any())[0], 0);
    let error = encode_mask_dicom(&mask, &image(false), Path::new("image"), 0, &about).unwrap_err();
    assert!(error.to_string().contains("SOPClassUID is missing"), "{error}");
    let other = self::mask(43, 37, 3);
    let error = encode_mask_dicom(&other, &image(true), Path::new("image"), 0, &about).unwrap_err();
    assert!(matches!(error, Error::MaskSize { .. }), "{error}");
    let error = encode_mask_dicom(&mask, &image(true), Path::new("image"), 1, &about).unwrap_err();
    assert!(error.to_string().contains("there is no frame 2"), "{error}");
}
