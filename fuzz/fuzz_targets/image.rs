//! PNG (grey ones both ways), TIFF, BMP and whatever else is told apart by its content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_fuzz::{folder, preprocess, write};
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let _ = melo_imaging::decode(bytes, Path::new("image"));
    if bytes.starts_with(b"\x89PNG") {
        let folder = folder();
        let _ = melo_imaging::read_fit(&write(&folder, "grey.png", bytes), &preprocess());
    }
});
