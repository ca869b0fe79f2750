//! Masks of every format, and those that were read written and read again. The first byte chooses the name.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use melo_imaging::{MaskReading, MaskVolume, decode_mask, encode_mask_png};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let name = ["mask.png", "mask.dcm#frame=1", "masks.npz#x:0", "mask.nii#slice=sagittal:0"][usize::from(kind % 4)];
    let Ok(mask) = decode_mask(bytes, Path::new(name), &MaskReading::default()) else { return };
    if mask.labels.len() > 1 << 16 {
        return;
    }
    let png = encode_mask_png(&mask).expect("a side of 32 bits");
    assert_eq!(decode_mask(&png, Path::new("again.png"), &MaskReading::default()).expect("ours"), mask);
    if let Ok(mut volume) = MaskVolume::of_image(mask.width, mask.height) {
        volume.put(&mask, &Default::default()).expect("of its size");
        let volume = volume.encode().expect("in memory");
        assert_eq!(decode_mask(&volume, Path::new("again.nii.gz"), &MaskReading::default()).expect("ours"), mask);
    }
});
