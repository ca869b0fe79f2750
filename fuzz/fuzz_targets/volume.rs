//! NIfTI, and NumPy's arrays and archives; an array also within a sound archive. The first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let _ = match kind % 4 {
        0 => melo_imaging::decode(bytes, Path::new("volume.nii")),
        1 => melo_imaging::decode(bytes, Path::new("array.npy#1")),
        2 => melo_imaging::decode(bytes, Path::new("arrays.npz")),
        _ => melo_imaging::decode(&melo_fuzz::archive(&[("x.npy", bytes)]), Path::new("arrays.npz#x:0")),
    };
});
