//! NIfTI, and NumPy's arrays and archives, an image of them and whole; an array also within a sound archive. The first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let read = |bytes: &[u8], name: &str| {
        let _ = melo_imaging::decode(bytes, Path::new(name));
        if let Ok(volume) = melo_imaging::decode_volume(bytes, Path::new(name), &melo_vit::Rendering::default()) {
            assert_eq!(volume.levels.len(), volume.lengths.iter().product::<usize>());
        }
    };
    match kind % 4 {
        0 => read(bytes, "volume.nii"),
        1 => read(bytes, "array.npy#1"),
        2 => read(bytes, "arrays.npz"),
        _ => read(&melo_fuzz::archive(&[("x.npy", bytes)]), "arrays.npz#x:0"),
    }
});
