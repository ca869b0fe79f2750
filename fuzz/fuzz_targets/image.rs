//! PNG (grey ones both ways), TIFF (its second page too), BMP, WebP, GIF, JPEG 2000 and whatever else is told apart by its content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_fuzz::{folder, preprocess, write};
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let _ = melo_imaging::decode(bytes, Path::new("image"));
    let _ = melo_imaging::decode(bytes, Path::new("image#frame=2"));
    if bytes.starts_with(b"\x89PNG") {
        let folder = folder();
        let _ = melo_imaging::read_fit(&write(&folder, "grey.png", bytes), &preprocess());
    }
});
