//! What is written in TOML: presets of public sets, applied to a folder with one table, and studies. The first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_fuzz::{folder, write};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let folder = folder();
    let path = write(&folder, "settings.toml", bytes);
    if kind % 2 == 1 {
        let _ = melo_study::Plan::read(&path);
    } else if let Ok(preset) = melo_data::Preset::read(&path) {
        write(&folder, "labels.csv", b"path,label,image_id,split\na.png,x,a,train\nb.png,y,b,test\n");
        let _ = preset.apply(folder.path(), None);
    }
});
