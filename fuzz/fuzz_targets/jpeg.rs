//! JPEG files: every input begins as one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let _ = melo_imaging::decode(&[&[0xff, 0xd8, 0xff], bytes].concat(), Path::new("image.jpg"));
});
