//! Files of the paper's authors and of UniCAD.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_fuzz::{ENGINE, folder, write};
use melo_interop::{AdapterFormat, ImportSettings, import};

fuzz_target!(|bytes: &[u8]| {
    let folder = folder();
    let path = write(&folder, "adapter.safetensors", bytes);
    let settings = ImportSettings {
        format: Some(AdapterFormat::Authors),
        task: Some("fuzz"),
        alpha: Some(4.0),
        ..ImportSettings::default()
    };
    let _ = import(&path, &**ENGINE, &settings);
});
