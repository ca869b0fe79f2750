//! Google's archives, an array of one, safetensors, indices of shards, descriptions. The first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_fuzz::{archive, folder, golden, write};
use std::sync::LazyLock;

static SOUND: LazyLock<Vec<u8>> =
    LazyLock::new(|| std::fs::read(golden("interop", "timm.safetensors")).expect("a golden file"));

const TIMM: &[u8] = br#"{"architecture": "vit", "pretrained_cfg": {"interpolation": "bicubic", "crop_pct": 0.9,
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}, "model_args": {"num_heads": 3}}"#;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let folder = folder();
    let path = match kind % 5 {
        0 => write(&folder, "w.npz", bytes),
        1 => {
            let name = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel.npy";
            write(&folder, "w.npz", &archive(&[(name, bytes), ("embedding/kernel.npy", bytes)]))
        }
        2 => {
            write(&folder, "config.json", TIMM);
            write(&folder, "w.safetensors", bytes)
        }
        3 => {
            write(&folder, "config.json", TIMM);
            write(&folder, "a.safetensors", &SOUND);
            write(&folder, "model.safetensors.index.json", bytes)
        }
        _ => {
            write(&folder, "w.json", bytes);
            write(&folder, "w.safetensors", &SOUND)
        }
    };
    let _ = melo_interop::read_checkpoint(&path);
});
