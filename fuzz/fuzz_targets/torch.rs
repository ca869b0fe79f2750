//! Archives of `torch.save`; or the pickle alone, in a sound archive. The first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_fuzz::{archive, folder, write};

const TIMM: &[u8] = br#"{"architecture": "vit", "pretrained_cfg": {"interpolation": "bicubic", "crop_pct": 0.9,
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}, "model_args": {"num_heads": 3}}"#;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let folder = folder();
    write(&folder, "config.json", TIMM);
    let path = if kind % 2 == 0 {
        write(&folder, "w.pth", bytes)
    } else {
        let storage = [0; 1 << 12];
        let entries = ["w/data/0", "w/data/1", "w/data/2"].map(|name| (name, &storage[..]));
        write(&folder, "w.pth", &archive(&[&[("w/data.pkl", bytes)], &entries[..]].concat()))
    };
    let _ = melo_interop::read_checkpoint(&path);
});
