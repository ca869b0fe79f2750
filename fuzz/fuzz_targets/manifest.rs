//! Manifests, and columns of a CSV.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_fuzz::{folder, write};

fuzz_target!(|bytes: &[u8]| {
    let folder = folder();
    let path = write(&folder, "labels.csv", bytes);
    let _ = melo_data::Manifest::read(&path);
    let _ = melo_data::columns(&path, &["age:40,60".to_owned(), "label".to_owned()]);
});
