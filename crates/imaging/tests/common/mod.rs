//! What `tools/golden/pixels.py` computes too.

pub(crate) mod dicom;

use std::path::{Path, PathBuf};

use melo_imaging::{Pixels, decode};
use proptest::prelude::*;

/// A file of `tests/golden`.
pub(crate) fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Ramps, a grid of edges, and noise from a multiplicative hash.
pub(crate) fn pattern(width: usize, height: usize) -> Pixels {
    let sample = |x: usize, y: usize, c: usize| {
        let ramp = x * (c + 1) + y * 2;
        let edges = (x / 5 + y / 7) % 2 * 90;
        let hash = (x * 73856093) ^ (y * 19349663) ^ (c * 83492791);
        let noise = (hash as u32).wrapping_mul(2654435761) >> 27;
        (ramp + edges + noise as usize) as u8
    };
    let rgb = (0..height * width * 3).map(|at| sample(at / 3 % width, at / 3 / width, at % 3)).collect();
    Pixels { width, height, rgb }
}

/// Changes some bytes of `files` over and over: each is refused, or gives pixels of the size that they claim.
pub(crate) fn changed_bytes_never_panic(files: Vec<Vec<u8>>, name: &str) {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    let config = ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&(prop::sample::select(files), changes), |(mut bytes, changes)| {
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        match decode(&bytes, Path::new(name)) {
            Ok(pixels) => prop_assert_eq!(pixels.rgb.len(), pixels.width * pixels.height * 3),
            Err(error) => prop_assert!(error.to_string().starts_with(name), "{}", error),
        }
        Ok(())
    });
    result.expect("changed bytes are refused, or give an image");
}

/// FNV-1a, 64 bits.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    let hash =
        bytes.iter().fold(0xcbf29ce484222325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100000001b3));
    format!("{hash:016x}")
}
