//! What hostile files cost: one process, whose largest size is read at the end.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "a part of it is used here")]
mod common;

use std::fs;
use std::io::Write;
use std::path::Path;

use common::dicom::*;
use common::golden;
use melo_imaging::decode;

/// Largest resident size so far, MiB.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") / 1024
}

#[test]
fn claims_and_bombs_take_no_more_than_200_mib() {
    let refused = |bytes: &[u8], what: &str| {
        let error = decode(bytes, Path::new("scan")).expect_err(what);
        let peak = peak_mib();
        assert!(peak < 200, "{what}: {peak} MiB, {error}");
    };
    for name in ["grey.jpg", "420_progressive.jpg"] {
        let mut jpeg = fs::read(golden(name)).expect("golden");
        let frame = jpeg.windows(2).position(|pair| matches!(pair, [0xff, 0xc0..=0xc2])).expect("a frame header");
        jpeg[frame + 5..frame + 9].copy_from_slice(&[14000u16.to_be_bytes(); 2].concat());
        refused(&jpeg, name);
    }
    let mut deflated = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    let mut volume = vec![0; 352];
    volume[..4].copy_from_slice(&348i32.to_le_bytes());
    for (axis, length) in [3i16, 9000, 9000, 500, 1, 1, 1, 1].into_iter().enumerate() {
        volume[40 + axis * 2..][..2].copy_from_slice(&length.to_le_bytes());
    }
    volume[70..72].copy_from_slice(&64i16.to_le_bytes());
    volume[108..112].copy_from_slice(&352f32.to_le_bytes());
    volume[344..348].copy_from_slice(b"n+1\0");
    refused(&volume, "a volume of 9000 x 9000 x 500 doubles");
    let zeros = vec![0; 1 << 20];
    for _ in 0..256 {
        deflated.write_all(&zeros).expect("in memory");
    }
    let deflated = deflated.finish().expect("in memory");
    let syntax = Elements::new(Writing::Explicit).file(DEFLATED);
    refused(&[&syntax[..], &deflated].concat(), "256 MiB of zeros, deflated");
    for (name, syntax) in [("grey8.j2k", JPEG_2000), ("grey8.j2c", HIGH_THROUGHPUT), ("grey8.jls", JPEG_LS)] {
        let stream = fs::read(golden(name)).expect("golden");
        // The size marker claims 14,000 x 14,000 where the data set says 37 x 21, and where it says the same.
        let (size, bytes) = match name {
            "grey8.jls" => ([14000u16.to_be_bytes(); 2].concat(), [0, 21, 0, 37].to_vec()),
            _ => ([14000u32.to_be_bytes(); 2].concat(), [0, 0, 0, 37, 0, 0, 0, 21].to_vec()),
        };
        let at = stream.windows(bytes.len()).position(|window| window == bytes).expect("the size");
        let mut claim = stream.clone();
        claim[at..at + size.len()].copy_from_slice(&size);
        refused(&Image::grey(37, 21, 8).of_fragments(syntax, &[&claim]), name);
        refused(&Image::grey(14000, 14000, 8).of_fragments(syntax, &[&claim]), name);
    }
    let mut nested = Elements::new(Writing::Explicit).text(0x0008_0060, "CS", "OT");
    for _ in 0..500_000 {
        nested = nested.header(0x0008_1140, "SQ", u32::MAX).item(u32::MAX);
    }
    refused(&nested.file(EXPLICIT), "half a million sequences");
    let mut many = Elements::new(Writing::Explicit).text(0x0008_0060, "CS", "OT");
    for _ in 0..2_000_001 {
        many = many.header(0x0009_1001, "LO", 0);
    }
    refused(&many.file(EXPLICIT), "two million elements");
}
