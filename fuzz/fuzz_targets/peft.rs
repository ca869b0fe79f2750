//! PEFT's folders: the configuration beside sound tensors, or tensors beside a sound configuration. The first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_fuzz::{ENGINE, folder, golden, write};
use melo_interop::{AdapterFormat, ImportSettings, import};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let folder = folder();
    let sound = |name: &str| std::fs::read(golden("interop", "timm_qkv").join(name)).expect("a golden file");
    let [config, tensors] = ["adapter_config.json", "adapter_model.safetensors"];
    if kind % 2 == 0 {
        write(&folder, config, bytes);
        write(&folder, tensors, &sound(tensors));
    } else {
        write(&folder, config, &sound(config));
        write(&folder, tensors, bytes);
    }
    let settings =
        ImportSettings { format: Some(AdapterFormat::Peft), task: Some("fuzz"), ..ImportSettings::default() };
    let _ = import(folder.path(), &**ENGINE, &settings);
});
