//! Laws of loading: what an image looks like depends on its row, the seed and the epoch, and on nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use melo_data::{Augment, Cache, Dataset, EpochAugment, Labels, Manifest, Reading, Row};
use melo_vit::{CropMode, ImageSource, Interpolation, Preprocess, TaskKind};
use rayon::prelude::*;
use tempfile::TempDir;

use crate::{folder, write_image};

const SIZE: usize = 32;

fn spec(crop_mode: CropMode) -> Preprocess {
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    Preprocess {
        size: SIZE,
        crop_mode,
        crop_pct: 0.9,
        interpolation: Interpolation::Bicubic,
        mean,
        std,
        crop_offset: Default::default(),
        depth: None,
        rendering: Default::default(),
    }
}

/// Six images of different shapes.
fn rows(folder: &TempDir) -> Vec<Row> {
    let shapes = [(40, 60), (60, 40), (32, 32), (35, 90), (101, 50), (33, 34)];
    let row = |(index, (width, height)): (usize, (usize, usize))| {
        let name = format!("{index}.png");
        let path = folder.path().join(&name);
        write_image(&path, width, height, index as u32);
        Row {
            path,
            name,
            split: None,
            labels: Labels::Single(index % 2),
            mask: None,
            bag: None,
            patient_id: None,
            line: index + 2,
            weight: 1.0,
            packed: None,
        }
    };
    shapes.into_iter().enumerate().map(row).collect()
}

fn dataset(folder: &TempDir, limit_bytes: usize) -> Dataset {
    Dataset::new(rows(folder), spec(CropMode::Center), Arc::new(Cache::new(limit_bytes)))
}

fn load(source: &impl ImageSource, index: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; 3 * SIZE * SIZE];
    source.load(index, &mut out).unwrap();
    out
}

fn augment(augment: &Augment, seed: u64, epoch: u64) -> Option<EpochAugment<'_>> {
    Some(EpochAugment { augment, seed, epoch })
}

#[test]
fn without_augmentation_it_is_what_imaging_prepares() {
    let folder = folder();
    for crop_mode in [CropMode::Center, CropMode::Squash, CropMode::Border] {
        let rows = rows(&folder);
        let data = Dataset::new(rows.clone(), spec(crop_mode), Arc::new(Cache::new(1 << 20)));
        let order = [5, 0, 3, 1, 4, 2];
        let none = Augment::none();
        for view in [data.epoch(&order, None), data.epoch(&order, augment(&none, 3, 4))] {
            assert_eq!(view.len(), 6);
            for (index, &row) in order.iter().enumerate() {
                let expected = melo_imaging::prepare(&melo_imaging::read(&rows[row].path).unwrap(), data.spec());
                assert!(load(&view, index) == expected, "{crop_mode:?}, row {row}");
            }
        }
    }
}

#[test]
fn neither_order_nor_threads_nor_cache_change_pixels() {
    let folder = folder();
    let default = Augment::default();
    let (cached, bare) = (dataset(&folder, 1 << 20), dataset(&folder, 0));
    let forward: Vec<usize> = (0..6).collect();
    let expected: Vec<_> = (0..6).map(|index| load(&bare.epoch(&forward, augment(&default, 1, 2)), index)).collect();
    let backward: Vec<usize> = (0..6).rev().cycle().take(60).collect();
    let view = cached.epoch(&backward, augment(&default, 1, 2));
    let found: Vec<_> = (0..60).into_par_iter().map(|index| load(&view, index)).collect();
    for (row, found) in backward.iter().zip(found) {
        assert!(found == expected[*row], "row {row}");
    }
}

#[test]
fn images_that_are_in_no_file_are_as_if_they_were() {
    let folder = folder();
    let rows = rows(&folder);
    let pixels = |row: &Row| (row.path.clone(), melo_imaging::read(&row.path).unwrap());
    let given = Cache::new(1 << 20).with_images(rows.iter().map(pixels).collect());
    let expected = Dataset::new(rows.clone(), spec(CropMode::Squash), Arc::new(Cache::new(0)));
    let order: Vec<usize> = (0..6).collect();
    let expected: Vec<_> = order.iter().map(|&row| load(&expected.epoch(&order, None), row)).collect();
    let apart = given.apart();
    drop(folder);
    for cache in [given, apart] {
        let data = Dataset::new(rows.clone(), spec(CropMode::Squash), Arc::new(cache));
        assert!(data.preload(&|_, _| ()).is_empty());
        for (row, expected) in expected.iter().enumerate() {
            assert!(load(&data.epoch(&order, None), row) == *expected, "row {row}");
        }
    }
}

#[test]
fn weights_are_in_the_digest_where_they_are_not_all_one() {
    let folder = folder();
    let manifest = |weight: f32| {
        let mut rows = rows(&folder);
        rows[2].weight = weight;
        let (path, classes) = ("rows".into(), vec!["a".to_owned(), "b".to_owned()]);
        Manifest { path, classes, kind: TaskKind::SingleLabel, rows, reading: Reading::default() }.digest()
    };
    assert!(manifest(2.0) != manifest(1.0) && manifest(2.0) != manifest(3.0));
}

#[test]
fn seed_epoch_and_row_each_change_the_draw() {
    let folder = folder();
    let default = Augment::default();
    let mut rows = rows(&folder);
    rows[1] = rows[0].clone();
    let data = Dataset::new(rows, spec(CropMode::Center), Arc::new(Cache::new(1 << 20)));
    let image = |row, seed, epoch| load(&data.epoch(&[row], augment(&default, seed, epoch)), 0);
    let images = [image(0, 0, 0), image(1, 0, 0), image(0, 1, 0), image(0, 0, 1)];
    for (index, image) in images.iter().enumerate() {
        assert!(images[index + 1..].iter().all(|other| other != image), "{index}");
        assert!(image.iter().all(|value| value.is_finite()));
    }
}

#[test]
fn preload_fills_the_cache_and_names_every_broken_file() {
    let folder = folder();
    let data = dataset(&folder, 1 << 20);
    std::fs::remove_file(&data.rows()[1].path).unwrap();
    std::fs::write(&data.rows()[4].path, "not an image").unwrap();
    let calls = AtomicUsize::new(0);
    let unreadable = data.preload(&|_, of| {
        assert_eq!(of, 6);
        calls.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(calls.into_inner(), 6);
    assert_eq!(unreadable.iter().map(|broken| broken.row).collect::<Vec<_>>(), [1, 4]);
    assert!(unreadable[0].error.to_string().contains("1.png"));

    // What is cached needs no file any more; what is not says so.
    std::fs::remove_file(&data.rows()[0].path).unwrap();
    let view = data.epoch(&[0, 1], None);
    load(&view, 0);
    let error = view.load(1, &mut [0.0; 3 * SIZE * SIZE]).unwrap_err();
    assert!(error.to_string().contains("1.png"), "{error}");
}

#[test]
fn the_cache_keeps_to_its_limit_and_is_shared() {
    let folder = folder();
    let rows = rows(&folder);
    let side = spec(CropMode::Squash).resize_side();
    let image_bytes = side * side * 3;
    let cache = Arc::new(Cache::new(4 * image_bytes + 1));
    let halves =
        [&rows[..3], &rows[3..]].map(|rows| Dataset::new(rows.to_vec(), spec(CropMode::Squash), Arc::clone(&cache)));
    assert_eq!(cache.bytes(), 0);
    for _ in 0..2 {
        assert!(halves.iter().all(|half| half.preload(&|_, _| ()).is_empty()));
        assert_eq!(cache.bytes(), 4 * image_bytes);
    }
    // The same files fitted another way are other pixels.
    let cache = Arc::new(Cache::new(1 << 20));
    let [squash, center] =
        [CropMode::Squash, CropMode::Center].map(|mode| Dataset::new(rows.clone(), spec(mode), Arc::clone(&cache)));
    assert!(load(&squash.epoch(&[0], None), 0) != load(&center.epoch(&[0], None), 0));
}
