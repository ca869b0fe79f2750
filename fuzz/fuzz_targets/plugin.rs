//! Plug-in files: header, card, tensors.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_fuzz::{ENGINE, folder, write};
use melo_vit::{Plugin, PluginInfo};

fuzz_target!(|bytes: &[u8]| {
    let folder = folder();
    let path = write(&folder, "p.safetensors", bytes);
    let _ = PluginInfo::read(&path);
    let _ = Plugin::load(&path, ENGINE.backbone());
});
