//! Bytes from outside: each defect an error that names it, none a panic.

use std::fs;
use std::path::Path;

use crate::common::{self, golden, pattern};
use melo_imaging::{Error, MAX_ASPECT, Pixels, check_fit, decode, read, write_png};
use melo_vit::{CropMode, Preprocess};

fn bytes(name: &str) -> Vec<u8> {
    fs::read(golden(name)).expect("written by tools/golden/pixels.py")
}

fn decoded(bytes: &[u8]) -> Result<Pixels, Error> {
    decode(bytes, Path::new("scan.png"))
}

/// The error, whose message must begin with the file's name.
fn refused(bytes: &[u8]) -> Error {
    let error = decoded(bytes).expect_err("refused");
    assert!(error.to_string().starts_with("scan.png: "), "{error}");
    error
}

/// `file` with `value` at `at`.
fn patched(file: &str, at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = bytes(file);
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

/// Where the frame header's height is, its width following.
fn jpeg_height(bytes: &[u8]) -> usize {
    bytes.windows(2).position(|pair| pair[0] == 0xff && matches!(pair[1], 0xc0 | 0xc2)).expect("a frame header") + 5
}

/// A cut anywhere is refused, unless what is left holds every pixel (only padding or an end marker is lost).
fn no_cut_goes_unseen(file: &str, least_refused: f64) {
    let bytes = bytes(file);
    let whole = decoded(&bytes).expect("whole");
    let mut refused = 0;
    for cut in 0..bytes.len() {
        match decoded(&bytes[..cut]) {
            Ok(pixels) => assert!(pixels == whole, "{file} cut at {cut} of {} gives other pixels", bytes.len()),
            Err(_) => refused += 1,
        }
    }
    assert!(refused as f64 >= least_refused * bytes.len() as f64, "{file}: {refused} of {} cuts", bytes.len());
}

#[test]
fn missing_file() {
    let error = read(Path::new("no/such/scan.png")).unwrap_err();
    assert!(matches!(error, Error::Read { .. }));
    assert!(error.to_string().starts_with("no/such/scan.png: cannot be read: "), "{error}");
}

#[test]
fn directory() {
    assert!(matches!(read(&golden("")), Err(Error::Read { .. })));
}

#[test]
fn empty_file() {
    assert!(matches!(refused(&[]), Error::Empty { .. }));
}

#[test]
fn an_image_without_a_name_is_refused_without_one() {
    let said = "expected an image, found an empty file";
    let named = || decode(&[], Path::new("a.png")).unwrap_err();
    assert_eq!(named().to_string(), format!("a.png: {said}"));
    assert_eq!(named().without_name().to_string(), said);
    assert_eq!(decode(&[], Path::new("")).unwrap_err().to_string(), said);
}

#[test]
fn text_file_named_png() {
    let error = refused(b"patient,label\n");
    assert!(matches!(error, Error::NotAnImage { .. }));
    assert_eq!(
        error.to_string(),
        "scan.png: not an image: this is a table as text (CSV). \
         PNG, JPEG, TIFF, BMP, WebP, GIF, JPEG 2000, DICOM, NIfTI-1 and NumPy are read"
    );
    assert!(matches!(refused(b"x"), Error::NotAnImage { .. }));
}

#[test]
fn content_counts_and_not_the_name() {
    assert_eq!(decode(&bytes("rgb8.png"), Path::new("scan.jpg")).unwrap(), read(&golden("rgb8.bmp")).unwrap());
}

#[test]
fn truncated_png() {
    no_cut_goes_unseen("rgb8.png", 0.95);
    no_cut_goes_unseen("grey16.png", 0.95);
}

#[test]
fn truncated_tiff() {
    no_cut_goes_unseen("rgb8_lzw.tif", 0.95);
    no_cut_goes_unseen("rgb16_little.tif", 0.95);
}

#[test]
fn truncated_bmp() {
    no_cut_goes_unseen("rgb8.bmp", 0.95);
    no_cut_goes_unseen("grey8.bmp", 0.95);
}

#[test]
fn truncated_jpeg() {
    for file in ["420.jpg", "420_restart.jpg", "rgb.jpg", "grey.jpg", "444.jpg", "420_progressive.jpg"] {
        // Only the end marker, and padding before it, can be spared.
        no_cut_goes_unseen(file, (bytes(file).len() - 3) as f64 / bytes(file).len() as f64);
    }
}

#[test]
fn truncated_jpeg_with_an_end_marker_put_behind_it() {
    for file in ["420.jpg", "420_restart.jpg", "grey.jpg", "420_progressive.jpg", "grey_progressive.jpg"] {
        let bytes = bytes(file);
        let whole = decoded(&bytes).unwrap();
        for cut in 2..bytes.len() - 2 {
            let mended = [&bytes[..cut], &[0xff, 0xd9]].concat();
            assert!(decoded(&mended).map_or(true, |pixels| pixels == whole), "{file} cut at {cut}");
        }
    }
}

#[test]
fn jpeg_without_its_end_marker_is_whole() {
    let bytes = bytes("420.jpg");
    assert_eq!(decoded(&bytes[..bytes.len() - 2]).unwrap(), decoded(&bytes).unwrap());
}

#[test]
fn jpeg_that_lost_a_restart_interval() {
    let mut bytes = bytes("420_restart.jpg");
    let markers: Vec<usize> =
        (0..bytes.len() - 1).filter(|&at| bytes[at] == 0xff && (0xd0..0xd8).contains(&bytes[at + 1])).collect();
    bytes.drain(markers[0]..markers[1]);
    assert!(refused(&bytes).to_string().contains("restart marker"));
}

#[test]
fn progressive_jpeg_that_lost_a_scan() {
    let bytes = bytes("grey_progressive.jpg");
    let scans: Vec<usize> = (0..bytes.len() - 1).filter(|&at| bytes[at..at + 2] == [0xff, 0xda]).collect();
    let without_last = [&bytes[..*scans.last().unwrap()], &[0xff, 0xd9]].concat();
    assert!(refused(&without_last).to_string().contains("end inside the image"));
}

#[test]
fn jpeg_without_a_table() {
    for marker in [0xc4, 0xdb] {
        let mut bytes = bytes("grey.jpg");
        let at = bytes.windows(2).position(|pair| pair == [0xff, marker]).unwrap();
        bytes[at + 1] = 0xfe; // a comment
        assert!(refused(&bytes).to_string().contains("table"));
    }
}

#[test]
fn png_whose_palette_is_not_of_whole_colours() {
    let good = bytes("palette.png");
    let at = good.windows(4).position(|kind| kind == b"PLTE").unwrap();
    let length = u32::from_be_bytes(good[at - 4..at].try_into().unwrap()) as usize;
    for cut in [1, 2] {
        let mut summed = flate2::Crc::new();
        summed.update(&good[at..at + 4 + length - cut]);
        let palette = [&((length - cut) as u32).to_be_bytes()[..], &good[at..at + 4 + length - cut]].concat();
        let checksum = summed.sum().to_be_bytes();
        let odd = [&good[..at - 4], &palette, &checksum, &good[at + 8 + length..]].concat();
        let error = refused(&odd).to_string();
        assert!(error.ends_with(&format!("a palette of {} bytes", length - cut)), "{error}");
    }
}

#[test]
fn jpeg_of_fewer_bytes_than_its_blocks_need() {
    for file in ["grey.jpg", "420.jpg", "420_progressive.jpg"] {
        let at = jpeg_height(&bytes(file));
        let claim = patched(file, at, &[14000u16.to_be_bytes(); 2].concat());
        let error = refused(&claim);
        let message = format!("{} bytes cannot hold 14000 x 14000 pixels", claim.len());
        assert!(error.to_string().contains(&message), "{error}");
    }
}

#[test]
fn twelve_bit_jpeg() {
    let bytes = bytes("grey.jpg");
    let error = refused(&patched("grey.jpg", jpeg_height(&bytes) - 1, &[12]));
    assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains("12-bit"), "{error}");
}

#[test]
fn lossless_and_arithmetic_jpeg() {
    let bytes = bytes("grey.jpg");
    for process in [0xc3, 0xc9] {
        let error = refused(&patched("grey.jpg", jpeg_height(&bytes) - 4, &[process]));
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}

#[test]
fn half_precision_tiff() {
    let mut bytes = bytes("float.tif");
    // Bits a sample, which stand behind the header.
    bytes[8..14].copy_from_slice(&[16, 0, 16, 0, 16, 0]);
    let error = refused(&bytes);
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("real samples of 16 bits"), "{error}");
}

/// Each format's header claiming `width` × `height`.
fn claiming(width: u16, height: u16) -> [Vec<u8>; 4] {
    let big = |side: u16| u32::from(side).to_be_bytes();
    let little = |side: u16| u32::from(side).to_le_bytes();
    let mut png = patched("rgb8.png", 16, &[big(width), big(height)].concat());
    let sum = crc(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&sum);
    let bmp = patched("rgb8.bmp", 18, &[little(width), little(height)].concat());
    let at = jpeg_height(&bytes("grey.jpg"));
    let jpeg = patched("grey.jpg", at, &[height.to_be_bytes(), width.to_be_bytes()].concat());
    let mut tiff = bytes("rgb16_little.tif");
    let directory = u32::from_le_bytes(tiff[4..8].try_into().expect("4 bytes")) as usize;
    // Tags 256 and 257, and the rows of the only strip, 278; each value is the last 4 of 12 bytes.
    for (entry, side) in [(0, width), (1, height), (7, height)] {
        let at = directory + 2 + entry * 12 + 8;
        tiff[at..at + 2].copy_from_slice(&side.to_le_bytes());
    }
    [png, bmp, tiff, jpeg]
}

/// The check of a PNG chunk.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb88320 } else { 0 })
    })
}

#[test]
fn header_claiming_60000_by_60000() {
    for bytes in claiming(60000, 60000) {
        let error = refused(&bytes);
        assert!(matches!(error, Error::TooLarge { width: 60000, height: 60000, .. }), "{error}");
    }
}

#[test]
fn header_claiming_more_than_the_file_holds() {
    for bytes in claiming(14000, 14000) {
        let error = refused(&bytes);
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
}

#[test]
fn header_claiming_no_column() {
    for bytes in claiming(0, 21) {
        let error = refused(&bytes);
        // The PNG and TIFF decoders say so before they are asked.
        let named = matches!(error, Error::NoPixels { .. }) || error.to_string().contains("dimensions");
        assert!(named, "{error}");
    }
}

#[test]
fn header_claiming_a_thread() {
    for bytes in claiming(MAX_ASPECT as u16 * 2 + 1, 2) {
        let error = refused(&bytes);
        assert!(matches!(error, Error::TooLong { .. }), "{error}");
    }
}

#[test]
fn changed_bytes_never_panic() {
    let names = fs::read_dir(golden("")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<Vec<u8>> = names
        .filter(|path| ["png", "jpg", "tif", "bmp"].iter().any(|kind| path.extension().unwrap() == *kind))
        .map(|path| fs::read(path).unwrap())
        .collect();
    common::changed_bytes_never_panic(files, "scan.png");
}

#[test]
fn written_png_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.png");
    for pixels in [pattern(1, 1), pattern(31, 17)] {
        write_png(&path, &pixels).unwrap();
        assert_eq!(read(&path).unwrap(), pixels);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn png_into_a_folder_that_is_not_there() {
    let error = write_png(Path::new("no/such/map.png"), &pattern(2, 2)).unwrap_err();
    assert!(matches!(error, Error::Write { .. }));
    assert!(error.to_string().starts_with("no/such/map.png: cannot be written: "), "{error}");
}

#[test]
fn a_resize_beyond_what_an_image_may_be_is_refused_before_it_is_made() {
    let long = Pixels { width: 100, height: 2, rgb: vec![7; 600] };
    let spec = Preprocess { size: 4096, crop_mode: CropMode::Center, ..Preprocess::base(4096) };
    let path = Path::new("long.png");
    let error = check_fit(path, long.width, long.height, &spec).unwrap_err();
    assert!(matches!(error, Error::FittedTooLarge { width: 204_800, height: 4096, .. }), "{error}");
    assert!(error.to_string().contains("long.png"), "{error}");
    check_fit(path, long.width, long.height, &Preprocess { size: 224, crop_mode: CropMode::Center, ..spec }).unwrap();
}

#[test]
fn a_jpeg_2000_that_claims_more_than_it_can_hold_is_refused_before_it_is_decoded() {
    let stream = bytes("grey8.j2k");
    let at = stream.windows(8).position(|window| window == [0, 0, 0, 37, 0, 0, 0, 21]).expect("the size");
    for (side, bytes, word) in [(13_800u32, 94_000, "cannot hold"), (9_000, 400_000, "samples are")] {
        let mut claim = stream.clone();
        // Image and tile alike, so that there is one tile.
        claim[at..at + 8].copy_from_slice(&[side.to_be_bytes(); 2].concat());
        claim[at + 16..at + 24].copy_from_slice(&[side.to_be_bytes(); 2].concat());
        claim.resize(bytes, 0);
        let started = std::time::Instant::now();
        let error = refused(&claim);
        assert!(error.to_string().contains(word) && started.elapsed().as_millis() < 500, "{error}");
    }
}
