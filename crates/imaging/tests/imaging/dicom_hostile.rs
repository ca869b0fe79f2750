//! DICOM files that lie: each refused by the attribute's name, at once, and without room for what they claim.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::dicom::*;
use crate::common::{self, golden};
use melo_imaging::{Error, decode, dicom};
use melo_vit::Rendering;
use melo_vit::rendering::Window;

/// The message, which must name the file and come within a second.
fn refused(bytes: &[u8]) -> String {
    refused_with(bytes, &Rendering::default())
}

fn refused_with(bytes: &[u8], rendering: &Rendering) -> String {
    let start = Instant::now();
    let error = dicom::render(bytes, Path::new("scan.dcm"), rendering).expect_err("refused");
    assert!(start.elapsed() < Duration::from_secs(1), "{error}: {:?}", start.elapsed());
    assert!(matches!(error, Error::Attribute { .. }), "{error}");
    let message = error.to_string();
    assert!(message.starts_with("scan.dcm: ("), "{message}");
    message
}

#[track_caller]
fn names(bytes: &[u8], expected: &str) {
    let message = refused(bytes);
    assert!(message.contains(expected), "{message}");
}

fn grey() -> Image<'static> {
    Image::grey(2, 2, 8)
}

#[test]
fn attributes_of_the_image() {
    let bytes = [0; 16];
    let photometric = |photometric| Image { photometric, ..Image::rgb(2, 2) }.of_bytes(&bytes);
    names(&photometric("ARGB"), "(0028,0004) PhotometricInterpretation is ARGB");
    names(&photometric("YBR_PARTIAL_420"), "(0028,0004) PhotometricInterpretation is YBR_PARTIAL_420");
    names(&photometric("YBR_RCT"), "(0028,0004) PhotometricInterpretation is a transform of JPEG 2000");
    names(&photometric("MONOCHROME2"), "(0028,0002) SamplesPerPixel is 3");
    names(&Image { allocated: 12, ..grey() }.of_bytes(&bytes), "(0028,0100) BitsAllocated is 12");
    names(&Image { allocated: 64, ..grey() }.of_bytes(&bytes), "(0028,0100) BitsAllocated is 64");
    names(&Image { stored: 9, ..grey() }.of_bytes(&bytes), "(0028,0101) BitsStored is 9");
    names(&Image { stored: 0, ..grey() }.of_bytes(&bytes), "(0028,0101) BitsStored is 0");
    names(&Image { high_bit: 8, ..grey() }.of_bytes(&bytes), "(0028,0102) HighBit is 8");
    names(&Image { high_bit: 3, ..grey() }.of_bytes(&bytes), "(0028,0102) HighBit is 3");
    names(&Image { planar: 2, ..Image::rgb(2, 2) }.of_bytes(&bytes), "(0028,0006) PlanarConfiguration is 2");
    names(&Image { rows: 0, ..grey() }.of_bytes(&bytes), "(0028,0010) Rows");
    names(&Image { columns: 60000, rows: 60000, ..grey() }.of_bytes(&bytes), "60000 x 60000: expected at most");
    names(&Image { columns: 1000, rows: 2, ..grey() }.of_bytes(&bytes), "within 100:1");
    names(&Image { columns: 9000, rows: 9000, ..grey() }.of_bytes(&bytes), "(7FE0,0010) PixelData holds 16 bytes");
    names(&Image { frames: 65535, ..grey() }.of_bytes(&bytes), "65535 frames of 2 x 2 need 262140");
}

#[test]
fn attributes_that_are_missing() {
    for (tag, name) in [
        (0x0028_0004u32, "(0028,0004) PhotometricInterpretation is missing"),
        (0x0028_0010, "(0028,0010) Rows is missing"),
        (0x0028_0100, "(0028,0100) BitsAllocated is missing"),
        (0x7fe0_0010, "(7FE0,0010) PixelData is missing"),
    ] {
        let mut file = grey().of_bytes(&[0; 4]);
        let bytes = [(tag >> 16) as u16, tag as u16].map(u16::to_le_bytes).concat();
        let at = file.windows(4).position(|four| four == bytes).unwrap();
        file[at + 2] ^= 0x80;
        names(&file, name);
    }
    let float = grey().elements(Writing::Explicit).value(0x7fe0_0008, "OF", &[0; 16]).file(EXPLICIT);
    names(&float, "(7FE0,0008) FloatPixelData is not read");
    names(&Elements::new(Writing::Explicit).text(0x0008_0060, "CS", "SR").file(EXPLICIT), "the file holds no image");
}

#[test]
fn transfer_syntaxes() {
    let of = |syntax| grey().of_fragments(syntax, &[&[0; 100]]);
    names(&of("1.2.840.10008.1.2.4.110"), "(0002,0010) TransferSyntaxUID is 1.2.840.10008.1.2.4.110 (JPEG XL)");
    names(&of("1.2.840.10008.1.2.4.100"), "(video), which is not read");
    names(&of("1.2.3"), "TransferSyntaxUID is `1.2.3`");
    names(&of(EXPLICIT), "(0002,0010) TransferSyntaxUID is one of uncompressed pixels");
    let bytes = grey().elements(Writing::Explicit).value(0x7fe0_0010, "OB", &[0; 4]).file(JPEG);
    names(&bytes, "(7FE0,0010) PixelData is not in fragments");
}

#[test]
fn windows_and_tables() {
    let with = |add: &dyn Fn(Elements) -> Elements| {
        add(grey().elements(Writing::Explicit)).value(0x7fe0_0010, "OB", &[0; 4]).file(EXPLICIT)
    };
    let windowed = |center: &str, width: &str| {
        with(&|elements| elements.text(0x0028_1050, "DS", center).text(0x0028_1051, "DS", width))
    };
    names(&windowed("forty", "1"), "(0028,1050) WindowCenter is `forty`");
    names(&with(&|elements| elements.text(0x0028_1056, "CS", "CUBIC")), "(0028,1056) VOILUTFunction is CUBIC");
    names(&with(&|elements| elements.text(0x0028_1053, "DS", "0")), "(0028,1053) RescaleSlope is 0");
    let item = Elements::new(Writing::Explicit).words(0x0028_3002, "US", &[0, 0, 16]).words(0x0028_3006, "US", &[1, 2]);
    for tag in [0x0028_3000, 0x0028_3010] {
        let file = with(&|elements| elements.sequence(tag, std::slice::from_ref(&item), true));
        names(&file, "(0028,3006) LUTData holds 2 of 65536 entries");
    }
    let asked = |window| refused_with(&windowed("40", "80"), &Rendering { window, ..Rendering::default() });
    assert!(asked(Window::Name("LUNG".into())).contains("(0028,1055) WindowCenterWidthExplanation names no window"));
    assert!(asked(Window::Index(1)).contains("(0028,1050) WindowCenter holds 1 windows"));
    let none = Rendering { window: Window::Index(0), ..Rendering::default() };
    assert!(refused_with(&windowed("40", "0"), &none).contains("(0028,1051) WindowWidth is 0"));
}

#[test]
fn palettes() {
    let image = Image { photometric: "PALETTE COLOR", ..grey() };
    let with = |tag, words: &[u16]| {
        let mut elements = image.elements(Writing::Explicit);
        for descriptor in [0x0028_1101, 0x0028_1102, 0x0028_1103] {
            elements = elements.words(descriptor, "US", &[256, 0, 16]);
        }
        elements.words(tag, "OW", words).value(0x7fe0_0010, "OB", &[0; 4]).file(EXPLICIT)
    };
    names(&image.of_bytes(&[0; 4]), "(0028,1101) RedPaletteColorLookupTableDescriptor is missing");
    names(&with(0x0028_1201, &[1, 2, 3]), "(0028,1201) RedPaletteColorLookupTableData holds 3 of 256 entries");
    let segmented = |words: &[u16]| with(0x0028_1221, words);
    for (words, reason) in [
        (&[0, 9, 1][..], "cut short"),
        (&[1, 9, 1], "begins with a linear segment"),
        (&[2, 9, 0, 0], "has a segment of kind 2"),
        (&[7, 9, 0, 0], "has a segment of kind 7"),
        (&[2, 1, 0xffff, 0xffff], "cut short"),
        // Segments that add nothing, repeated as often as can be said.
        (&[2, 0xffff, 4, 0, 0, 0], "has an empty segment"),
    ] {
        let message = refused(&segmented(words));
        assert!(message.contains("SegmentedRed") && message.contains(reason), "{message}");
    }
}

#[test]
fn nested_sequences() {
    for writing in [Writing::Explicit, Writing::Implicit] {
        let mut elements = Elements::new(writing).text(0x0008_0060, "CS", "OT");
        for _ in 0..200_000 {
            elements = elements.header(0x0008_1140, "SQ", u32::MAX).item(u32::MAX);
        }
        let syntax = if writing == Writing::Explicit { EXPLICIT } else { IMPLICIT };
        // In implicit little endian an unknown element of undefined length is a sequence too.
        names(&elements.file(syntax), "nests more than 32 sequences");
    }
}

#[test]
fn lengths_beyond_the_file() {
    let elements = grey().elements(Writing::Explicit);
    names(
        &elements.clone().header(0x7fe0_0010, "OB", 0xffff_fffe).file(EXPLICIT),
        "(7FE0,0010) PixelData claims 4294967294 bytes",
    );
    names(&elements.clone().header(0x0028_3010, "SQ", 1 << 30).file(EXPLICIT), "(0028,3010) VOILUTSequence claims");
    names(
        &elements.clone().header(0x0028_3010, "SQ", u32::MAX).file(EXPLICIT),
        "(0028,3010) VOILUTSequence has no end",
    );
    let item = Elements::new(Writing::Explicit).item(1 << 30);
    names(
        &elements.clone().value(0x0028_3010, "SQ", &item.bytes).file(EXPLICIT),
        "(0028,3010) VOILUTSequence has an item",
    );
    let cut = elements.raw(&[0x28, 0, 0x10]).file(EXPLICIT);
    names(&cut, "(7FE0,0010) PixelData is missing");
}

#[test]
fn a_cut_anywhere_is_refused() {
    let image = grey();
    let jpeg = fs::read(golden("grey8.jls")).unwrap();
    let files = [image.of_bytes(&[0, 1, 2, 3]), Image::grey(37, 21, 8).of_fragments(JPEG_LS, &[&jpeg])];
    for file in files {
        let whole = decode(&file, Path::new("x")).unwrap();
        for cut in 0..file.len() {
            match decode(&file[..cut], Path::new("x")) {
                // Only what follows the last sample may be spared.
                Ok(pixels) => {
                    assert_eq!((pixels == whole, cut + 16 > file.len()), (true, true), "{cut} of {}", file.len())
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

#[test]
fn deflated_bomb() {
    let mut bomb = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..160 {
        bomb.write_all(&zeros).unwrap();
    }
    let file = Elements::new(Writing::Explicit).file(DEFLATED);
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    names(&[&file[..], &bomb].concat(), "(0002,0010) TransferSyntaxUID is deflated, and inflates to more than");
    names(&[&file[..], &[0xff; 50]].concat(), "does not inflate");
}

#[test]
fn fragments() {
    let many = Image { frames: 3, ..grey() };
    names(&grey().elements(Writing::Explicit).fragments(&[], &[]).file(JPEG), "holds no fragment");
    names(&many.of_fragments(RLE, &[&[0; 4], &[0; 4]]), "holds 2 fragments for 3 frames, and no offset table");
    // Of as many fragments as frames no table is needed.
    let four = &[&[0; 4][..]; 4];
    let table = |offsets: &[u32]| many.elements(Writing::Explicit).fragments(offsets, four).file(RLE);
    names(&table(&[0, 12]), "names 2 frames of 3");
    names(&table(&[0, 13, 24]), "names byte 13, where no fragment begins");
    names(&table(&[4, 12, 24]), "does not run from the first fragment on");
    names(&table(&[0, 0, 0]), "does not run from the first fragment on");
    names(&table(&[0, 24, 12]), "does not run from the first fragment on");
    let tag = grey().elements(Writing::Explicit).header(0x7fe0_0010, "OB", u32::MAX).text(0x0008_0060, "CS", "OT");
    names(&tag.file(JPEG), "holds (0008,0060) Modality where a fragment begins");
}

#[test]
fn run_lengths() {
    let frame = |numbers: &[u32], rest: &[u8]| {
        let mut header = numbers.to_vec();
        header.resize(16, 0);
        let bytes: Vec<u8> =
            header.iter().flat_map(|number| number.to_le_bytes()).chain(rest.iter().copied()).collect();
        grey().of_fragments(RLE, &[&bytes])
    };
    names(&frame(&[2, 64, 64], &[]), "names 2 segments; expected 1");
    names(&frame(&[1, 9999], &[]), "begins at byte 9999");
    names(&frame(&[1, 0], &[]), "begins at byte 0");
    names(&frame(&[1, 64], &[1, 7, 7]), "ends after 2 of 4 samples");
    names(&frame(&[1, 64], &[128, 128]), "ends after 0 of 4 samples");
    names(&grey().of_fragments(RLE, &[&[1, 0, 0, 0]]), "RLE");
}

#[test]
fn compressed_frames_that_are_other_images() {
    for (name, syntax) in [("grey8.j2k", JPEG_2000), ("grey8.jls", JPEG_LS), ("grey.jpg", JPEG)] {
        let bytes = fs::read(golden(name)).unwrap();
        names(&grey().of_fragments(syntax, &[&bytes]), "Columns and Rows say 2 x 2");
        let size = if name == "grey.jpg" {
            decode(&bytes, Path::new("x")).map(|p| (p.width, p.height)).unwrap()
        } else {
            (37, 21)
        };
        let colour = Image::rgb(size.0 as u16, size.1 as u16);
        names(
            &colour.of_fragments(syntax, &[&bytes]),
            "(0028,0002) SamplesPerPixel is 3, and the compressed frame has 1",
        );
        names(&colour.of_fragments(syntax, &[b"no image"]), "frame 1: damaged");
        // A claim of 12,000 x 12,000 on a few bytes.
        let large = Image::grey(12000, 12000, 8);
        names(&large.of_fragments(syntax, &[&bytes]), "bytes cannot hold 12000 x 12000 pixels");
    }
}

#[test]
fn jpeg_2000_headers() {
    let bytes = fs::read(golden("grey8.j2k")).unwrap();
    let at = bytes.windows(4).position(|four| four == [0xff, 0x4f, 0xff, 0x51]).unwrap() + 8;
    let with = |place: usize, number: u32| {
        let mut bytes = bytes.clone();
        bytes[at + place * 4..][..4].copy_from_slice(&number.to_be_bytes());
        Image::grey(37, 21, 8).of_fragments(JPEG_2000, &[&bytes])
    };
    names(&with(0, u32::MAX), "the image is 4294967295 x 21, Columns and Rows say 37 x 21");
    names(&with(4, 0), "a tile without a pixel");
    names(&with(2, 38), "the image is 0 x 21");
    let mut tiny = bytes.clone();
    tiny[at + 16..at + 24].copy_from_slice(&[1u32, 1].map(u32::to_be_bytes).concat());
    // The size itself must fit, or that is what is said.
    tiny[at..at + 8].copy_from_slice(&[100u32, 100].map(u32::to_be_bytes).concat());
    names(&Image::grey(100, 100, 8).of_fragments(JPEG_2000, &[&tiny]), "10000 tiles; 4096 are");
}

#[test]
fn changed_bytes_never_panic() {
    let read = |name: &str| fs::read(golden(name)).unwrap();
    let files = vec![
        Image::grey(37, 21, 8).of_fragments(JPEG_2000, &[&read("grey8.j2k")]),
        Image::grey(37, 21, 8).of_fragments(HIGH_THROUGHPUT, &[&read("grey8.j2c")]),
        Image { photometric: "YBR_RCT", ..Image::rgb(37, 21) }.of_fragments(JPEG_2000, &[&read("rgb8.j2k")]),
        Image::rgb(37, 21).of_fragments(JPEG_LS, &[&read("rgb8_line.jls")]),
        Image::rgb(37, 21).of_fragments(JPEG_LS, &[&read("rgb8_sample_near2.jls")]),
        Image::grey(37, 21, 16).of_fragments(JPEG_LS, &[&read("grey16.jls")]),
        Image::grey(16, 16, 8).of_fragments(JPEG, &[&read("16x16.jpg")]),
        grey().elements(Writing::BigEndian).value(0x7fe0_0010, "OB", &[0, 1, 2, 3]).file(BIG_ENDIAN),
        grey().elements(Writing::Implicit).value(0x7fe0_0010, "OB", &[0, 1, 2, 3]).bytes,
    ];
    common::changed_bytes_never_panic(files, "scan.dcm");
}
