//! Weights that were packed once are mapped at the next start.

use crate::workplace::{Ran, SIDE, Workplace, melo, run};
use melo::synthetic::Phantom;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// What the backbone's own classifier says of an image, with packed weights kept as `cache` and `limit` say.
fn predict(place: &Workplace, backbone: &Path, cache: &OsStr, limit: &str) -> Ran {
    place.image("image.png", Phantom::Fundus, 0, 1, SIDE);
    let mut command = melo();
    command.env("MELO_PACKED_CACHE", cache).env("MELO_PACKED_CACHE_MIB", limit);
    run(command.args(["predict", "--json", "--backbone"]).arg(backbone).arg(place.at("image.png")))
}

/// Files of an extension.
fn files(folder: &Path, extension: &str) -> usize {
    let Ok(files) = fs::read_dir(folder) else { return 0 };
    files.flatten().filter(|file| file.path().extension() == Some(OsStr::new(extension))).count()
}

#[test]
fn packed_weights_are_kept_and_answer_as_the_checkpoint() {
    let place = Workplace::new();
    let backbone = place.tiny_backbone("backbone", 7, Some(3));
    let cache = place.at("cache");
    let off = predict(&place, &backbone, OsStr::new("off"), "100").good();
    assert_eq!(predict(&place, &backbone, cache.as_os_str(), "0").good(), off);
    assert_eq!(files(&cache, "packed"), 0);
    for _ in 0..2 {
        assert_eq!(predict(&place, &backbone, cache.as_os_str(), "100").good(), off);
        assert_eq!(files(&cache, "packed"), 1);
    }
    let other = place.tiny_backbone("other", 8, Some(3));
    fs::copy(&other, &backbone).expect("the backbone can be replaced");
    let replaced = predict(&place, &backbone, cache.as_os_str(), "100").good();
    assert_ne!(replaced, off);
    assert_eq!(replaced, predict(&place, &backbone, OsStr::new("off"), "100").good());
    assert_eq!(files(&cache, "packed"), 2);
}

#[test]
fn a_limit_that_is_no_number_is_said() {
    let place = Workplace::new();
    let backbone = place.tiny_backbone("backbone", 7, Some(3));
    let ran = predict(&place, &backbone, place.at("cache").as_os_str(), "much");
    assert!(ran.stderr.contains("MELO_PACKED_CACHE_MIB=much is no number of MiB"), "{}", ran.stderr);
    ran.good();
}
