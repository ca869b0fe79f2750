//! Manifests, splits, checks and datasets on images made in a temporary folder.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod bags;
mod check;
mod columns;
mod dataset;
mod folder;
mod folds;
mod improbable;
mod kinds;
mod lab_tables;
mod manifest;
mod masks;
mod near;
mod pack;
mod preset;
mod split;
mod subset;

use std::path::Path;

use melo_imaging::Pixels;
use melo_vit::{CropMode, Interpolation, Preprocess};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Inputs of `size` pixels a side from pixels as they are, bilinear.
fn plain(size: usize, crop_mode: CropMode) -> Preprocess {
    Preprocess {
        size,
        crop_mode,
        crop_pct: 1.0,
        interpolation: Interpolation::Bilinear,
        mean: [0.0; 3],
        std: [1.0; 3],
        crop_offset: Default::default(),
        depth: None,
        rendering: Default::default(),
    }
}

/// Pixels of noise, different for each `seed`.
fn noise(width: usize, height: usize, seed: u32) -> Pixels {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let sample = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    Pixels { width, height, rgb: (0..width * height * 3).map(sample).collect() }
}

/// Writes a PNG of noise, with the folders that it needs.
fn write_image(path: &Path, width: usize, height: usize, seed: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    melo_imaging::write_png(path, &noise(width, height, seed)).unwrap();
}
