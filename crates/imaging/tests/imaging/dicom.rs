//! What DICOM files of every kind become, by files of a few pixels and the formulas of the standard.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::common::dicom::*;
use crate::common::{golden, pattern};
use melo_imaging::{Error, decode, dicom, read, read_with};
use melo_vit::Rendering;
use melo_vit::rendering::{Frame, Preset, Window};

fn levels_with(bytes: &[u8], rendering: &Rendering) -> Vec<u8> {
    let pixels = dicom::render(bytes, Path::new("scan.dcm"), rendering).expect("rendered");
    pixels.rgb.chunks_exact(3).map(|pixel| pixel[0]).collect()
}

/// The first channel, rendered as the file says.
fn levels(bytes: &[u8]) -> Vec<u8> {
    levels_with(bytes, &Rendering::default())
}

fn rgb(bytes: &[u8]) -> Vec<u8> {
    decode(bytes, Path::new("scan.dcm")).expect("rendered").rgb
}

fn window(window: Window) -> Rendering {
    Rendering { window, ..Rendering::default() }
}

const RAMP: [u16; 4] = [0, 1000, 2000, 4000];

#[test]
fn every_uncompressed_syntax_gives_the_same_pixels() {
    let image = Image::grey(2, 2, 12);
    let of = |writing| image.elements(writing).words(0x7fe0_0010, "OW", &RAMP);
    let expected = [0, 64, 128, 255];
    for (writing, syntax) in
        [(Writing::Implicit, IMPLICIT), (Writing::Explicit, EXPLICIT), (Writing::BigEndian, BIG_ENDIAN)]
    {
        assert_eq!(levels(&of(writing).file(syntax)), expected, "{writing:?}");
        // Without preamble and meta group.
        assert_eq!(levels(&of(writing).bytes), expected, "{writing:?}, bare");
    }
    let file = of(Writing::Explicit).file(DEFLATED);
    let start = file.len() - of(Writing::Explicit).bytes.len();
    let mut deflater = flate2::write::DeflateEncoder::new(file[..start].to_vec(), flate2::Compression::default());
    deflater.write_all(&file[start..]).unwrap();
    assert_eq!(levels(&deflater.finish().unwrap()), expected);
}

#[test]
fn eight_bit_words_of_big_endian_are_swapped() {
    let image = Image::grey(3, 1, 8);
    let file = |vr| image.elements(Writing::BigEndian).value(0x7fe0_0010, vr, &[0, 100, 200]).file(BIG_ENDIAN);
    assert_eq!(levels(&file("OB")), [0, 128, 255]);
    // Bytes 0, 100, 200, 0 in words are 100, 0, 0, 200.
    assert_eq!(levels(&file("OW")), [255, 0, 0]);
}

#[test]
fn monochrome1_is_inverted() {
    let image = Image { photometric: "MONOCHROME1", ..Image::grey(2, 2, 12) };
    assert_eq!(levels(&image.of_words(&RAMP)), [255, 191, 127, 0]);
}

#[test]
fn what_lies_beside_the_stored_bits_is_dropped() {
    // 8 bits stored in bits 4 to 11; overlays above, noise below.
    let image = Image { stored: 8, high_bit: 11, ..Image::grey(3, 1, 12) };
    assert_eq!(levels(&image.of_words(&[0xf00f, 0x0641, 0x1ff0])), [0, 100, 255]);
}

#[test]
fn signed_values_keep_their_sign() {
    let image = Image { signed: true, ..Image::grey(3, 1, 12) };
    assert_eq!(levels(&image.of_words(&[0x0800, 0xf000, 0x07ff])), [0, 128, 255]);
    let bytes = Image { signed: true, ..Image::grey(3, 1, 8) };
    assert_eq!(dicom::stored_values(&bytes.of_bytes(&[0x80, 0xff, 1]), Path::new("x"), 0).unwrap(), [-128, -1, 1]);
}

#[test]
fn one_and_thirty_two_bits() {
    let image = Image { allocated: 1, stored: 1, high_bit: 0, frames: 2, ..Image::grey(5, 1, 8) };
    let file = image.of_bytes(&[0b1010_1001, 0b10]);
    assert_eq!(levels(&file), [255, 0, 0, 255, 0]);
    let second = Rendering { frame: Frame::Number(2), ..Rendering::default() };
    assert_eq!(levels_with(&file, &second), [255, 0, 255, 0, 255]);
    let image = Image { allocated: 32, stored: 32, high_bit: 31, ..Image::grey(3, 1, 8) };
    let bytes: Vec<u8> = [0u32, 1 << 31, u32::MAX].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(levels(&image.of_bytes(&bytes)), [0, 128, 255]);
}

/// A CT-like file: values -1000, 0, 40, 1000.
fn ct(more: impl Fn(Elements) -> Elements) -> Vec<u8> {
    let image = Image::grey(4, 1, 16).elements(Writing::Explicit);
    let image = image.text(0x0028_1052, "DS", "-1024").text(0x0028_1053, "DS", "1");
    more(image).words(0x7fe0_0010, "OW", &[24, 1024, 1064, 2024]).file(EXPLICIT)
}

#[test]
fn windows_are_those_of_the_standard() {
    let level = |value: f64, center: f64, width: f64| {
        (255.0 * ((value - (center - 0.5)) / (width - 1.0) + 0.5)).round().clamp(0.0, 255.0) as u8
    };
    let values = [-1000.0, 0.0, 40.0, 1000.0];
    let expected = |center, width| values.map(|value| level(value, center, width)).to_vec();
    let file = ct(|elements| {
        elements.text(0x0028_1050, "DS", "40\\-600").text(0x0028_1051, "DS", "400\\1500").text(
            0x0028_1055,
            "LO",
            "BRAIN \\Lung",
        )
    });
    assert_eq!(levels(&file), expected(40.0, 400.0));
    assert_eq!(levels_with(&file, &window(Window::Index(1))), expected(-600.0, 1500.0));
    assert_eq!(levels_with(&file, &window(Window::Name("LUNG".into()))), expected(-600.0, 1500.0));
    for preset in Preset::ALL {
        let (center, width) = preset.center_width_hu();
        assert_eq!(levels_with(&file, &window(Window::Preset(preset))), expected(center, width), "{preset:?}");
    }
    assert_eq!(levels_with(&file, &window(Window::Values { center: 0.0, width: 2001.0 })), expected(0.0, 2001.0));
    assert_eq!(levels_with(&file, &window(Window::MinMax)), [0, 128, 133, 255]);
    let halves = window(Window::Percentile { low: 0.0, high: 50.0 });
    assert_eq!(levels_with(&file, &halves), [0, 250, 255, 255]);
}

#[test]
fn exact_and_sigmoid_windows() {
    let file = |function: &'static str| {
        ct(move |elements| {
            elements.text(0x0028_1050, "DS", "0").text(0x0028_1051, "DS", "400").text(0x0028_1056, "CS", function)
        })
    };
    let level = |part: f64| (255.0 * part).round().clamp(0.0, 255.0) as u8;
    let values = [-1000.0, 0.0, 40.0, 1000.0];
    assert_eq!(levels(&file("LINEAR_EXACT")), values.map(|value: f64| level(value / 400.0 + 0.5)));
    let sigmoid = |value: f64| level(1.0 / (1.0 + (-4.0 * value / 400.0).exp()));
    assert_eq!(levels(&file("SIGMOID")), values.map(sigmoid));
}

#[test]
fn tables_of_values() {
    let table = |words: &[u16; 3], entries: &[u16]| {
        let item = Elements::new(Writing::Explicit).words(0x0028_3002, "US", words);
        item.text(0x0028_3003, "LO", "steep").words(0x0028_3006, "US", entries)
    };
    let image = Image::grey(4, 1, 8).elements(Writing::Explicit);
    for stated in [true, false] {
        // The modality's table makes 10, 20, 30 of values up to 1, 2, from 3.
        let modality = table(&[3, 1, 8], &[10, 20, 30]);
        let voi = table(&[2, 20, 10], &[0x155, 0x3ff]);
        let one = image.clone().sequence(0x0028_3000, std::slice::from_ref(&modality), stated);
        let both = one.clone().sequence(0x0028_3010, std::slice::from_ref(&voi), stated);
        let file = |elements: Elements| elements.value(0x7fe0_0010, "OB", &[0, 1, 2, 9]).file(EXPLICIT);
        assert_eq!(levels(&file(one)), [0, 0, 128, 255]);
        assert_eq!(levels(&file(both.clone())), [85, 85, 85, 255]);
        assert_eq!(levels_with(&file(both), &window(Window::Name("STEEP".into()))), [85, 85, 85, 255]);
    }
    // Bytes two in a word, and an item without anything.
    let packed = Elements::new(Writing::Explicit).words(0x0028_3002, "US", &[4, 0, 8]);
    let packed = packed.value(0x0028_3006, "OW", &[255, 170, 85, 0]);
    let file = |item| image.clone().sequence(0x0028_3010, &[item], true).value(0x7fe0_0010, "OB", &[0, 1, 2, 3]);
    assert_eq!(levels(&file(packed).file(EXPLICIT)), [255, 170, 85, 0]);
    let empty = Elements::new(Writing::Explicit).value(0x0028_3002, "US", &[]);
    assert_eq!(levels(&file(empty).file(EXPLICIT)), [0, 85, 170, 255]);
}

#[test]
fn padding_is_black_and_counts_for_nothing() {
    let image = Image { photometric: "MONOCHROME1", signed: true, ..Image::grey(4, 1, 16) };
    let values = [-2000i16, -1990, 0, 100].map(|value| value as u16);
    let padded = |limit: &[u16]| {
        let elements = image.elements(Writing::Explicit).words(0x0028_0120, "SS", &[-2000i16 as u16]);
        let elements = if limit.is_empty() { elements } else { elements.words(0x0028_0121, "SS", limit) };
        levels(&elements.words(0x7fe0_0010, "OW", &values).file(EXPLICIT))
    };
    assert_eq!(padded(&[]), [0, 255, 12, 0]);
    assert_eq!(padded(&[-1900i16 as u16]), [0, 0, 255, 0]);
}

#[test]
fn colours() {
    let samples = [255, 0, 0, 0, 255, 0];
    assert_eq!(rgb(&Image::rgb(2, 1).of_bytes(&samples)), samples);
    let planar = Image { planar: 1, ..Image::rgb(2, 1) };
    assert_eq!(rgb(&planar.of_bytes(&[255, 0, 0, 255, 0, 0])), samples);
    let ybr = Image { photometric: "YBR_FULL", ..Image::rgb(2, 1) };
    assert_eq!(rgb(&ybr.of_bytes(&[76, 85, 255, 150, 44, 21])), [254, 0, 0, 0, 255, 1]);
    let halved = Image { photometric: "YBR_FULL_422", ..Image::rgb(3, 1) };
    assert_eq!(rgb(&halved.of_bytes(&[10, 20, 128, 128, 30, 0, 128, 128])), [10, 10, 10, 20, 20, 20, 30, 30, 30]);
    let deep = Image { allocated: 16, stored: 16, high_bit: 15, ..Image::rgb(1, 1) };
    assert_eq!(rgb(&deep.of_words(&[0, 0x8000, 0xffff])), [0, 128, 255]);
}

#[test]
fn palettes() {
    let image = Image { photometric: "PALETTE COLOR", ..Image::grey(4, 1, 8) };
    for writing in [Writing::Explicit, Writing::BigEndian] {
        let mut elements = image.elements(writing);
        for tag in [0x0028_1101, 0x0028_1102, 0x0028_1103] {
            elements = elements.words(tag, "US", &[3, 1, 16]);
        }
        for (tag, words) in
            [(0x0028_1201, [0, 0x8000, 0xffff]), (0x0028_1202, [0xffff, 0, 0]), (0x0028_1203, [0, 0, 0x101])]
        {
            elements = elements.words(tag, "OW", &words);
        }
        let syntax = if writing == Writing::Explicit { EXPLICIT } else { BIG_ENDIAN };
        let file = elements.value(0x7fe0_0010, "OB", &[0, 1, 2, 3]).file(syntax);
        assert_eq!(rgb(&file), [0, 255, 0, 0, 255, 0, 128, 0, 0, 255, 0, 1], "{writing:?}");
    }
}

#[test]
fn segmented_palettes() {
    let image = Image { photometric: "PALETTE COLOR", ..Image::grey(6, 1, 8) };
    let mut elements = image.elements(Writing::Explicit);
    for tag in [0x0028_1101, 0x0028_1102, 0x0028_1103] {
        elements = elements.words(tag, "US", &[6, 0, 8]);
    }
    // One value; a line of two to 100; both again.
    let segments = [0, 1, 0, 1, 2, 100, 2, 2, 0, 0];
    for tag in [0x0028_1221, 0x0028_1222, 0x0028_1223] {
        elements = elements.words(tag, "OW", &segments);
    }
    let file = elements.value(0x7fe0_0010, "OB", &[0, 1, 2, 3, 4, 5]).file(EXPLICIT);
    assert_eq!(levels(&file), [0, 50, 100, 0, 50, 100]);
}

#[test]
fn frames_and_their_own_windows() {
    let image = Image { frames: 3, ..Image::grey(2, 1, 16) };
    let group = |center: &str| {
        let item = Elements::new(Writing::Explicit).text(0x0028_1050, "DS", center).text(0x0028_1051, "DS", "2");
        Elements::new(Writing::Explicit).sequence(0x0028_9132, &[item], false)
    };
    let rescale = Elements::new(Writing::Explicit).text(0x0028_1052, "DS", "5").text(0x0028_1053, "DS", "1");
    let shared = Elements::new(Writing::Explicit).sequence(0x0028_9145, &[rescale], true);
    let elements = image.elements(Writing::Explicit).sequence(0x5200_9229, &[shared], true);
    let elements = elements.sequence(0x5200_9230, &[group("6"), group("16"), group("26")], true);
    let file = elements.words(0x7fe0_0010, "OW", &[0, 1, 10, 11, 20, 21]).file(EXPLICIT);
    assert_eq!(dicom::frames(&file, Path::new("x")).unwrap(), 3);
    for number in 1..=3 {
        let frame = Rendering { frame: Frame::Number(number), ..Rendering::default() };
        assert_eq!(levels_with(&file, &frame), [0, 255], "{number}");
    }
    // The second frame with the window of values is the same picture.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scan.dcm");
    fs::write(&path, &file).unwrap();
    let named = read(&folder.path().join("scan.dcm#frame=2")).unwrap();
    let second = Rendering { frame: Frame::Number(2), ..Rendering::default() };
    assert_eq!(named, read_with(&path, &second).unwrap());
    let none = read(&folder.path().join("scan.dcm#frame=4")).unwrap_err();
    assert!(none.to_string().ends_with("(0028,0008) NumberOfFrames is 3: there is no frame 4"), "{none}");
    // A file whose own name looks like one of several images.
    let odd = folder.path().join("other.dcm#frame=4");
    fs::write(&odd, &file).unwrap();
    assert_eq!(read(&odd).unwrap(), read(&path).unwrap());
}

/// PackBits of literal runs and of one repeated byte.
fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    for run in bytes.chunk_by(|a, b| a == b).flat_map(|run| run.chunks(128)) {
        match run {
            [one] => packed.extend([0, *one]),
            _ => packed.extend([(257 - run.len()) as u8, run[0]]),
        }
    }
    packed
}

fn rle_frame(segments: &[Vec<u8>]) -> Vec<u8> {
    let mut header = vec![segments.len() as u32];
    let mut start = 64;
    for segment in segments {
        header.push(start);
        start += segment.len() as u32;
    }
    header.resize(16, 0);
    [header.iter().flat_map(|number| number.to_le_bytes()).collect(), segments.concat()].concat()
}

#[test]
fn run_lengths() {
    let picture = pattern(40, 3);
    let planes: Vec<Vec<u8>> = (0..3)
        .map(|channel| packed(&picture.rgb.iter().skip(channel).step_by(3).copied().collect::<Vec<u8>>()))
        .collect();
    let frame = rle_frame(&planes);
    assert_eq!(rgb(&Image::rgb(40, 3).of_fragments(RLE, &[&frame])), picture.rgb);
    // In two fragments.
    assert_eq!(rgb(&Image::rgb(40, 3).of_fragments(RLE, &[&frame[..100], &frame[100..]])), picture.rgb);
    let deep = rle_frame(&[packed(&[0, 0x0f, 0x0f]), packed(&[0, 0xa0, 0xa0])]);
    let file = Image::grey(3, 1, 12).of_fragments(RLE, &[&deep]);
    assert_eq!(dicom::stored_values(&file, Path::new("x"), 0).unwrap(), [0, 0xfa0, 0xfa0]);
}

#[test]
fn jpeg_is_that_of_jpeg_files() {
    for (name, photometric) in
        [("420.jpg", "YBR_FULL_422"), ("444.jpg", "YBR_FULL"), ("rgb.jpg", "RGB"), ("grey.jpg", "MONOCHROME2")]
    {
        let bytes = fs::read(golden(name)).unwrap();
        let expected = decode(&bytes, Path::new(name)).unwrap();
        let (columns, rows) = (expected.width as u16, expected.height as u16);
        let image =
            if photometric == "MONOCHROME2" { Image::grey(columns, rows, 8) } else { Image::rgb(columns, rows) };
        let image = Image { photometric, ..image };
        let file = image.of_fragments(JPEG, &[&bytes]);
        let whole = window(Window::Values { center: 128.0, width: 256.0 });
        assert_eq!(dicom::render(&file, Path::new("x"), &whole).unwrap(), expected, "{name}");
    }
}

#[test]
fn lossy_values_beyond_the_stored_bits_wrap() {
    let bytes = fs::read(golden("grey.jpg")).unwrap();
    let whole = decode(&bytes, Path::new("x")).unwrap();
    let image = Image::grey(whole.width as u16, whole.height as u16, 8);
    let file = Image { stored: 5, high_bit: 4, ..image }.of_fragments(JPEG, &[&bytes]);
    let expected: Vec<i64> = whole.rgb.iter().step_by(3).map(|&level| i64::from(level & 31)).collect();
    assert!(whole.rgb.iter().any(|&level| level > 31), "no level is beyond");
    assert_eq!(dicom::stored_values(&file, Path::new("x"), 0).unwrap(), expected);
}

#[test]
fn frames_in_fragments_with_and_without_offsets() {
    let bytes = fs::read(golden("grey.jpg")).unwrap();
    let black = fs::read(golden("16x16.jpg")).unwrap();
    let expected = decode(&bytes, Path::new("x")).unwrap();
    let image = Image { frames: 2, ..Image::grey(expected.width as u16, expected.height as u16, 8) };
    let (first, rest) = bytes.split_at(bytes.len() / 4 * 2);
    let second = Rendering {
        frame: Frame::Number(2),
        window: Window::Values { center: 128.0, width: 256.0 },
        ..Rendering::default()
    };
    let padded = black.len().next_multiple_of(2) as u32;
    for table in [&[][..], &[0, 8 + padded]] {
        let file = image.elements(Writing::Explicit).fragments(table, &[&black, first, rest]).file(JPEG);
        assert_eq!(dicom::render(&file, Path::new("x"), &second).unwrap(), expected);
    }
    // Offsets that are off, or zero, are no table, and neither are extended ones.
    for table in [&[0, 9999][..], &[0, 0], &[8, 8 + padded]] {
        let file = image.elements(Writing::Explicit).fragments(table, &[&black, first, rest]).file(JPEG);
        assert_eq!(dicom::render(&file, Path::new("x"), &second).unwrap(), expected);
        let file = image.elements(Writing::Explicit).value(0x7fe0_0001, "OV", &[9; 16]);
        let file = file.fragments(table, &[&black, &bytes]).file(JPEG);
        assert_eq!(dicom::render(&file, Path::new("x"), &second).unwrap(), expected);
    }
    let nowhere = image.elements(Writing::Explicit).fragments(&[0, 9999], &[&bytes, &[0; 8], &[0; 8]]).file(JPEG);
    let error = dicom::render(&nowhere, Path::new("x"), &second).unwrap_err().to_string();
    assert!(error.contains("(7FE0,0010) PixelData has an offset table that names byte 9999"), "{error}");
}

/// A picture of the words 0 to `words - 1`, each through a table of one item in `sequence`.
fn through_table(words: u16, descriptor: (&str, [u16; 3]), table: &[u16]) -> Vec<u8> {
    let item = Elements::new(Writing::Explicit).words(0x0028_3002, descriptor.0, &descriptor.1);
    let item = item.words(0x0028_3006, "OW", table);
    let image = Image::grey(words, 1, 16).elements(Writing::Explicit).sequence(0x0028_3010, &[item], true);
    image.words(0x7fe0_0010, "OW", &(0..words).collect::<Vec<_>>()).file(EXPLICIT)
}

#[test]
fn tables_of_fewer_bits_than_stated_reach_white() {
    let narrow: Vec<u16> = (0..4).map(|at| at * 1365).collect();
    assert_eq!(levels(&through_table(4, ("US", [4, 0, 16]), &narrow)), [0, 85, 170, 255]);
    // Bytes in the upper half of their words.
    let high: Vec<u16> = (0..4).map(|at| (at * 85) << 8).collect();
    assert_eq!(levels(&through_table(4, ("US", [4, 0, 8]), &high)), [0, 85, 170, 255]);
    // A dark table of bytes is dark.
    assert_eq!(levels(&through_table(3, ("US", [3, 0, 8]), &[0, 1, 2])), [0, 1, 2]);
}

#[test]
fn the_first_value_of_a_table_is_signed_where_values_are() {
    let table: Vec<u16> = (0..4).map(|at| at * 21845).collect();
    let with = |vr: &str, first: u16, intercept: &str| {
        let item = Elements::new(Writing::Explicit).words(0x0028_3002, vr, &[4, first, 16]);
        let item = item.words(0x0028_3006, "OW", &table);
        let image = Image { signed: true, ..Image::grey(4, 1, 16) }.elements(Writing::Explicit);
        let image = image.text(0x0028_1052, "DS", intercept).text(0x0028_1053, "DS", "1");
        let image = image.sequence(0x0028_3010, &[item], true);
        levels(&image.words(0x7fe0_0010, "OW", &[0, 1, 2, 3]).file(EXPLICIT))
    };
    let expected = [0, 85, 170, 255];
    assert_eq!(with("US", 33000, "33000"), expected);
    assert_eq!(with("SS", 33000, "33000"), expected);
    assert_eq!(with("SS", (-2i16) as u16, "-2"), expected);
    assert_eq!(with("US", (-2i16) as u16, "-2"), expected);
}

#[test]
fn a_table_in_the_groups_of_a_frame() {
    let item = Elements::new(Writing::Explicit).words(0x0028_3002, "US", &[4, 0, 8]);
    let item = item.words(0x0028_3006, "OW", &[255, 170, 85, 0]);
    let table = Elements::new(Writing::Explicit).sequence(0x0028_3010, &[item], true);
    let voi = Elements::new(Writing::Explicit).sequence(0x0028_9132, std::slice::from_ref(&table), true);
    // As the standard nests it, and without the sequence around it; shared, and of each frame.
    for item in [&voi, &table] {
        for groups in [0x5200_9229, 0x5200_9230] {
            let image = Image::grey(4, 1, 8).elements(Writing::Explicit);
            let image = image.sequence(groups, std::slice::from_ref(item), true);
            let file = image.value(0x7fe0_0010, "OB", &[0, 1, 2, 3]).file(EXPLICIT);
            assert_eq!(levels(&file), [255, 170, 85, 0]);
        }
    }
}

#[test]
fn palettes_of_bytes_in_words() {
    let image = Image { photometric: "PALETTE COLOR", ..Image::grey(3, 1, 8) };
    let with = |bits: u16, table: &[u16]| {
        let mut elements = image.elements(Writing::Explicit);
        for descriptor in [0x0028_1101, 0x0028_1102, 0x0028_1103] {
            elements = elements.words(descriptor, "US", &[3, 0, bits]);
        }
        for data in [0x0028_1201, 0x0028_1202, 0x0028_1203] {
            elements = elements.words(data, "OW", table);
        }
        levels(&elements.value(0x7fe0_0010, "OB", &[0, 1, 2]).file(EXPLICIT))
    };
    assert_eq!(with(8, &[0x1000, 0x8000, 0xff00]), [16, 128, 255]);
    assert_eq!(with(16, &[16, 128, 255]), [16, 128, 255]);
    assert_eq!(with(16, &[0x1010, 0x8080, 0xffff]), [16, 128, 255]);
}

#[test]
fn headers_as_pydicom_reads_them() {
    let plain = Image::grey(3, 1, 8).of_bytes(&[0, 100, 200]);
    let with = |add: &dyn Fn(Elements) -> Elements| {
        levels(
            &add(Image::grey(3, 1, 8).elements(Writing::Explicit))
                .value(0x7fe0_0010, "OB", &[0, 100, 200])
                .file(EXPLICIT),
        )
    };
    let windowed = |center: &str, width: &str, function: &str| {
        with(&|elements| {
            let elements = elements.text(0x0028_1050, "DS", center).text(0x0028_1051, "DS", width);
            elements.text(0x0028_1056, "CS", function)
        })
    };
    let expected = levels(&plain);
    assert_eq!(expected, [0, 128, 255]);
    assert_eq!(levels(&Image { frames: 0, ..Image::grey(3, 1, 8) }.of_bytes(&[0, 100, 200])), expected);
    assert_eq!(windowed("40", "0", "LINEAR"), expected);
    assert_eq!(windowed("40", "", "LINEAR"), expected);
    // The first window that is one.
    let second = windowed("40\\100", "0\\200", "LINEAR_EXACT");
    assert_eq!(second, [0, 128, 255]);
    assert_eq!(windowed("100\\", "200\\", "linear_exact "), second);
    assert_eq!(windowed("100\\7", "200", "Linear_Exact"), second);
    // Values of a fraction, in a window of a fraction.
    let fractions = with(&|elements| {
        let elements = elements.text(0x0028_1050, "DS", "0.1").text(0x0028_1051, "DS", "0.2");
        elements.text(0x0028_1052, "DS", "0").text(0x0028_1053, "DS", "0.001")
    });
    assert_eq!(fractions, [0, 128, 255]);
    // PresentationLUTShape repeats the photometric interpretation, and is left alone.
    assert_eq!(with(&|elements| elements.text(0x2050_0020, "CS", "INVERSE")), expected);
}

#[test]
fn what_was_seen_of_a_file() {
    let seen =
        |bytes: &[u8], name: &str| melo_imaging::decode_seen(bytes, Path::new(name), &window(Window::Auto)).unwrap().1;
    let outside = Image::grey(3, 1, 8).elements(Writing::Explicit);
    let outside = outside.text(0x0028_1050, "DS", "5000").text(0x0028_1051, "DS", "10");
    let black = outside.value(0x7fe0_0010, "OB", &[0, 100, 200]).file(EXPLICIT);
    assert_eq!(levels(&black), [0, 0, 0]);
    assert!(seen(&black, "x").flat);
    let plain = Image::grey(3, 1, 8).of_bytes(&[0, 100, 200]);
    assert_eq!(seen(&plain, "x"), melo_imaging::Seen::default());
    let frames = Image { frames: 3, ..Image::grey(1, 1, 8) }.of_bytes(&[0, 1, 2]);
    assert_eq!(seen(&frames, "x").place.map(|place| place.to_string()).as_deref(), Some("frame 1 of 3"));
    assert_eq!(seen(&frames, "x#frame=1").place, None);
}

#[test]
fn jpeg_2000_and_jpeg_ls_are_exact() {
    let picture = pattern(37, 21);
    let grey: Vec<i64> = picture.rgb.chunks_exact(3).map(|pixel| pixel[0].into()).collect();
    let colour: Vec<i64> = picture.rgb.iter().map(|&sample| sample.into()).collect();
    let wide: Vec<i64> = grey.iter().map(|level| level * 257).collect();
    let rct = Image { photometric: "YBR_RCT", ..Image::rgb(37, 21) };
    for (name, syntax, image, values, near) in [
        ("grey8.j2k", JPEG_2000, Image::grey(37, 21, 8), &grey, 0),
        ("grey16.j2k", JPEG_2000, Image::grey(37, 21, 16), &wide, 0),
        ("rgb8.j2k", JPEG_2000, rct, &colour, 0),
        ("grey8.j2c", HIGH_THROUGHPUT, Image::grey(37, 21, 8), &grey, 0),
        ("grey16.j2c", HIGH_THROUGHPUT, Image::grey(37, 21, 16), &wide, 0),
        ("rgb8.j2c", HIGH_THROUGHPUT, rct, &colour, 0),
        ("grey8.jls", JPEG_LS, Image::grey(37, 21, 8), &grey, 0),
        ("grey8_near3.jls", JPEG_LS, Image::grey(37, 21, 8), &grey, 3),
        ("grey16.jls", JPEG_LS, Image::grey(37, 21, 16), &wide, 0),
        ("rgb8_line.jls", JPEG_LS, Image::rgb(37, 21), &colour, 0),
        ("rgb8_sample.jls", JPEG_LS, Image::rgb(37, 21), &colour, 0),
        ("rgb8_sample_near2.jls", JPEG_LS, Image::rgb(37, 21), &colour, 2),
    ] {
        let bytes = fs::read(golden(name)).expect("written by tools/golden/dicom.py --golden");
        let file = image.of_fragments(syntax, &[&bytes]);
        let stored = dicom::stored_values(&file, Path::new(name), 0).unwrap();
        let largest = stored.iter().zip(values).map(|(stored, value)| (stored - value).abs()).max();
        assert_eq!(stored.len(), values.len(), "{name}");
        // A near-lossless image of noise uses its whole allowance.
        assert_eq!(largest, Some(near), "{name}");
    }
}

/// The example of ITU-T T.87, section H.3.
#[test]
fn jpeg_ls_of_the_standard() {
    let stream = [
        0xff, 0xd8, 0xff, 0xf7, 0, 0x0b, 8, 0, 4, 0, 4, 1, 1, 0x11, 0, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0, 0xc0, 0, 0,
        0x6c, 0x80, 0x20, 0x8e, 1, 0xc0, 0, 0, 0x57, 0x40, 0, 0, 0x6e, 0xe6, 0, 0, 1, 0xbc, 0x18, 0, 0, 5, 0xd8, 0, 0,
        0x91, 0x60, 0xff, 0xd9,
    ];
    let file = Image::grey(4, 4, 8).of_fragments(JPEG_LS, &[&stream]);
    let expected = [0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145];
    assert_eq!(dicom::stored_values(&file, Path::new("x"), 0).unwrap(), expected);
}

/// Bits, most significant first, stuffed as JPEG's.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    held: u64,
    count: u32,
}

impl BitWriter {
    fn put(&mut self, value: u32, bits: u32) {
        self.held = self.held << bits | u64::from(value);
        self.count += bits;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.held >> self.count) as u8;
            self.bytes.push(byte);
            if byte == 0xff {
                self.bytes.push(0);
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let spare = (8 - self.count) % 8;
        self.put((1 << spare) - 1, spare);
        self.bytes
    }
}

/// A table whose `count` codes all have 5 bits.
fn flat_table(class: u8, count: u8) -> Vec<u8> {
    let mut table = vec![0xff, 0xc4, 0, 19 + count, class];
    table.extend([0, 0, 0, 0, count, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    table.extend(0..count);
    table
}

fn lossless_jpeg(values: &[u16], width: usize, predictor: u8, precision: u8) -> Vec<u8> {
    let height = values.len() / width;
    let mut bits = BitWriter::default();
    for at in 0..values.len() {
        let value = |at: usize| i32::from(values[at]);
        let prediction = match (at / width, at % width) {
            (0, 0) => 1 << (precision - 1),
            (0, _) => value(at - 1),
            (_, 0) => value(at - width),
            _ => {
                let (a, b, c) = (value(at - 1), value(at - width), value(at - width - 1));
                [0, a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) / 2][usize::from(predictor)]
            }
        };
        let difference = i32::from((value(at) - prediction) as i16);
        let size = 32 - difference.unsigned_abs().leading_zeros();
        bits.put(size, 5);
        if size < 16 {
            bits.put((if difference < 0 { difference + (1 << size) - 1 } else { difference }) as u32, size);
        }
    }
    let (w, h) = ((width as u16).to_be_bytes(), (height as u16).to_be_bytes());
    let frame = [0xff, 0xc3, 0, 11, precision, h[0], h[1], w[0], w[1], 1, 1, 0x11, 0];
    let scan = [0xff, 0xda, 0, 8, 1, 1, 0, predictor, 0, 0];
    [&[0xff, 0xd8][..], &frame, &flat_table(0, 17), &scan, &bits.finish(), &[0xff, 0xd9]].concat()
}

#[test]
fn lossless_jpeg_of_every_predictor() {
    let values: Vec<u16> = pattern(19, 11).rgb.chunks_exact(3).map(|p| u16::from_be_bytes([p[1], p[0]])).collect();
    let expected: Vec<i64> = values.iter().map(|&value| value.into()).collect();
    for predictor in 1..=7 {
        let stream = lossless_jpeg(&values, 19, predictor, 16);
        let file = Image::grey(19, 11, 16).of_fragments(JPEG_LOSSLESS, &[&stream]);
        assert_eq!(dicom::stored_values(&file, Path::new("x"), 0).unwrap(), expected, "{predictor}");
    }
}

/// Blocks of one value each: `2048 + round(dc / 8)`.
#[test]
fn twelve_bit_jpeg() {
    let levels = [0i32, 4095, 100, 2048];
    let (mut bits, mut last) = (BitWriter::default(), 0);
    for level in levels {
        let dc = (level - 2048) * 8;
        let difference = dc - last;
        last = dc;
        let size = 32 - difference.unsigned_abs().leading_zeros();
        bits.put(size, 5);
        bits.put((if difference < 0 { difference + (1 << size) - 1 } else { difference }) as u32, size);
        bits.put(0, 5);
    }
    let mut quantisation = vec![0xff, 0xdb, 0, 67, 0];
    quantisation.extend([1; 64]);
    let frame = [0xff, 0xc1, 0, 11, 12, 0, 8, 0, 32, 1, 1, 0x11, 0];
    let tables = [flat_table(0, 17), flat_table(0x10, 1)].concat();
    let scan = [0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0];
    let stream = [&[0xff, 0xd8][..], &quantisation, &frame, &tables, &scan, &bits.finish(), &[0xff, 0xd9]].concat();
    let file = Image::grey(32, 8, 12).of_fragments(JPEG_EXTENDED, &[&stream]);
    let stored = dicom::stored_values(&file, Path::new("x"), 0).unwrap();
    for (at, value) in stored.iter().enumerate() {
        assert_eq!(*value, i64::from(levels[at % 32 / 8]), "{at}");
    }
}

#[test]
fn headers() {
    let file = ct(|elements| elements.text(0x0028_1050, "DS", "40\\50"));
    let names = ["PatientID", "modality", "00280010", "(0028,1050)", "PatientSex", "TransferSyntaxUID"];
    let values = dicom::header(&file, Path::new("x"), &names).unwrap();
    let expected = [Some("patient 7"), Some("OT"), Some("1"), Some("40\\50"), None, Some(EXPLICIT)];
    assert_eq!(values, expected.map(|value| value.map(String::from)));
    let error = dicom::header(&file, Path::new("x"), &["PatientsSex"]).unwrap_err();
    assert!(matches!(error, Error::UnknownAttribute { .. }), "{error}");
}

#[test]
fn directories() {
    let record = |kind: &str| Elements::new(Writing::Explicit).text(0x0004_1430, "CS", kind);
    let image = |name: &str| record("IMAGE").text(0x0004_1500, "CS", name);
    let file = |last: &str| {
        let records = [
            record("PATIENT").text(0x0010_0020, "LO", "7"),
            record("STUDY").text(0x0020_000d, "UI", "1.2"),
            record("SERIES").text(0x0008_0060, "CS", "MR").text(0x0020_000e, "UI", "1.2.3"),
            image("A\\B1").text(0x0020_0013, "IS", "4"),
            record("PATIENT").text(0x0010_0020, "LO", "8"),
            image(last),
        ];
        Elements::new(Writing::Explicit).sequence(0x0004_1220, &records, true).file(EXPLICIT)
    };
    let records = dicom::directory(&file("C"), Path::new("DICOMDIR")).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].file, Path::new("A").join("B1"));
    assert_eq!(records[0].patient_id.as_deref(), Some("7"));
    assert_eq!((records[0].series_uid.as_deref(), records[0].instance_number), (Some("1.2.3"), Some(4)));
    assert_eq!((records[1].patient_id.as_deref(), &records[1].series_uid), (Some("8"), &None));
    let error = dicom::directory(&file("..\\..\\etc"), Path::new("DICOMDIR")).unwrap_err().to_string();
    assert!(error.contains("(0004,1500) ReferencedFileID"), "{error}");
}

#[test]
fn series_are_sorted_by_place_or_number() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, series: &str, number: &str, z: Option<&str>| {
        let mut elements = Elements::new(Writing::Explicit).text(0x0008_0018, "UI", name);
        elements = elements.text(0x0020_000e, "UI", series).text(0x0020_0013, "IS", number);
        if let Some(z) = z {
            elements =
                elements.text(0x0020_0032, "DS", &format!("0\\0\\{z}")).text(0x0020_0037, "DS", "1\\0\\0\\0\\1\\0");
        }
        let file = elements.value(0x7fe0_0010, "OB", &[0, 0]).file(EXPLICIT);
        fs::write(folder.path().join(name), file).unwrap();
    };
    write("a", "1.1", "1", Some("5"));
    write("b", "1.1", "2", Some("-5.5"));
    write("c", "1.2", "10", None);
    write("d", "1.2", "9", None);
    fs::write(folder.path().join("notes.txt"), "no DICOM").unwrap();
    let series = dicom::series(folder.path()).unwrap();
    let names =
        |at: usize| -> Vec<_> { series[at].instances.iter().map(|instance| instance.uid.clone().unwrap()).collect() };
    assert_eq!((series.len(), names(0), names(1)), (2, vec!["b".into(), "a".into()], vec!["d".into(), "c".into()]));
    assert_eq!(series[0].instances[0].position_mm, Some(-5.5));
}
