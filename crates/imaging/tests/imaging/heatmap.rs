//! Overlays against preprocessing itself: what lights up a patch of the input is where that patch is drawn.

use std::path::Path;

use crate::common::pattern;
use melo_imaging::heatmap::{overlay, overlay_within};
use melo_imaging::{Pixels, decode, encode_png, prepare};
use melo_vit::{CropMode, Interpolation, Preprocess};

const GRID: usize = 6;
const SIZE: usize = 96;
/// The colour of the largest value.
const HOTTEST: [u8; 3] = [253, 231, 37];

fn spec(crop_mode: CropMode, crop_pct: f64) -> Preprocess {
    let interpolation = Interpolation::Bicubic;
    Preprocess {
        size: SIZE,
        crop_mode,
        crop_pct,
        interpolation,
        mean: [0.0; 3],
        std: [1.0; 3],
        crop_offset: Default::default(),
        depth: None,
        rendering: Default::default(),
    }
}

fn plain(width: usize, height: usize, level: u8) -> Pixels {
    Pixels { width, height, rgb: vec![level; width * height * 3] }
}

fn at(pixels: &Pixels, x: usize, y: usize) -> [u8; 3] {
    let at = (y * pixels.width + x) * 3;
    [pixels.rgb[at], pixels.rgb[at + 1], pixels.rgb[at + 2]]
}

fn one_hot(patch: usize) -> Vec<f32> {
    (0..GRID * GRID).map(|i| if i == patch { 0.25 } else { 0.0 }).collect()
}

/// The patch of the network's input that a white spot of `side` pixels at `(x, y)` brightens most; none if none.
fn brightened(
    spec: &Preprocess,
    (width, height): (usize, usize),
    (x, y): (usize, usize),
    side: usize,
) -> Option<usize> {
    let mut pixels = plain(width, height, 0);
    for (row, column) in (0..side * side).map(|i| (y + i / side, x + i % side)) {
        pixels.rgb[(row * width + column) * 3..][..3].fill(255);
    }
    let input = prepare(&pixels, spec);
    let patch = SIZE / GRID;
    let mut sums = [0.0; GRID * GRID];
    for (i, value) in input[..SIZE * SIZE].iter().enumerate() {
        sums[i / SIZE / patch * GRID + i % SIZE / patch] += value;
    }
    let best = (0..GRID * GRID).max_by(|&a, &b| sums[a].total_cmp(&sums[b]))?;
    (sums[best] > 0.5).then_some(best)
}

/// The middle of the pixels that were drawn in the hottest colour there is, in pixels.
fn hottest_place(drawn: &Pixels) -> (f64, f64) {
    let heat = |x: usize, y: usize| i32::from(at(drawn, x, y)[0]);
    let all = || (0..drawn.width * drawn.height).map(|i| (i % drawn.width, i / drawn.width));
    let most = all().map(|(x, y)| heat(x, y)).max().expect("there are pixels");
    let hot: Vec<_> = all().filter(|&(x, y)| heat(x, y) == most).collect();
    let mean = |values: Vec<usize>| values.iter().sum::<usize>() as f64 / values.len() as f64 + 0.5;
    (mean(hot.iter().map(|p| p.0).collect()), mean(hot.iter().map(|p| p.1).collect()))
}

#[test]
fn a_patch_is_drawn_where_the_pixels_that_made_it_lie() {
    let (mut seen, mut unseen) = (0, 0);
    for (mode, pct) in [CropMode::Center, CropMode::Squash, CropMode::Border].map(|m| [(m, 1.0), (m, 0.8)]).concat() {
        let spec = spec(mode, pct);
        for (width, height) in [(200, 200), (290, 130), (131, 247), (60, 45)] {
            let side = width.min(height) / 20;
            for (x, y) in (1..10).flat_map(|i| (1..10).map(move |j| (width * i / 11, height * j / 11))) {
                let Some(patch) = brightened(&spec, (width, height), (x, y), side) else {
                    // Cut off: darkened by half.
                    let drawn = overlay(&plain(width, height, 100), &spec, GRID, &one_hot(0), 1.0);
                    assert_eq!(at(&drawn, x + side / 2, y + side / 2), [50; 3], "{spec}, {width} × {height}, {x}, {y}");
                    unseen += 1;
                    continue;
                };
                let (column, row) = (patch % GRID, patch / GRID);
                if [column, row].iter().any(|i| [0, GRID - 1].contains(i)) {
                    // An outer patch is hottest from its middle to the rim.
                    continue;
                }
                seen += 1;
                let drawn = overlay(&plain(width, height, 0), &spec, GRID, &one_hot(patch), 1.0);
                let found = hottest_place(&drawn);
                let (expected_x, expected_y) = ((x as f64) + side as f64 / 2.0, (y as f64) + side as f64 / 2.0);
                // The spot lies in the patch, whose middle is at most half a patch away; a patch is at most a
                // GRID-th of the image's side that was seen, here never more than a GRID-th of the whole.
                let side_of_patch = |length: usize, other: usize| match mode {
                    CropMode::Squash => length as f64 * pct,
                    CropMode::Center => width.min(height) as f64 * pct,
                    CropMode::Border => length.max(other) as f64 * pct,
                } / GRID as f64;
                let half = (side_of_patch(width, height) / 2.0 + 1.5, side_of_patch(height, width) / 2.0 + 1.5);
                let off = ((found.0 - expected_x).abs(), (found.1 - expected_y).abs());
                assert!(off.0 <= half.0 && off.1 <= half.1, "{spec}, {width} × {height}, {x}, {y}: off by {off:?}");
            }
        }
    }
    assert!(seen > 600 && unseen > 100, "{seen} spots were seen, {unseen} were not");
}

#[test]
fn the_middle_of_a_patch_has_its_value_and_on_the_way_to_the_next_it_fades() {
    let spec = spec(CropMode::Squash, 1.0);
    let (width, height) = (GRID * 11, GRID * 5);
    let drawn = overlay(&plain(width, height, 0), &spec, GRID, &one_hot(2 * GRID + 3), 1.0);
    let (x, y) = (3 * 11 + 5, 2 * 5 + 2);
    assert_eq!(at(&drawn, x, y), HOTTEST);
    // Six elevenths of the way from the middle of the patch to the next: value and share of the colour are the same.
    let way = 6.0 / 11.0f32;
    let share = 1.0 - way * way * (3.0 - 2.0 * way);
    let found = at(&drawn, x + 6, y)[1];
    assert!((f32::from(found) - share * 130.0).abs() < 12.0, "{found}");
    assert_eq!(at(&drawn, x + 11, y), [0; 3]);
    assert_eq!(at(&drawn, x, y + 5), [0; 3]);
}

#[test]
fn what_the_crop_cuts_off_is_darkened_and_nothing_else() {
    let cold = vec![0.0; GRID * GRID];
    let image = pattern(300, 100);
    let drawn = overlay(&image, &spec(CropMode::Center, 1.0), GRID, &cold, 0.7);
    for (x, y) in (0..300).flat_map(|x| (0..100).map(move |y| (x, y))) {
        let expected = at(&image, x, y).map(|level| if (100..200).contains(&x) { level } else { level.div_ceil(2) });
        assert_eq!(at(&drawn, x, y), expected, "{x}, {y}");
    }
    for mode in [CropMode::Squash, CropMode::Border] {
        assert_eq!(overlay(&image, &spec(mode, 1.0), GRID, &cold, 0.7), image, "{mode:?}");
    }
}

#[test]
fn heat_in_the_padding_lies_beside_the_image() {
    let image = pattern(300, 100);
    // 96 × 32 pixels of the input are image: two of six rows of patches.
    let spec = spec(CropMode::Border, 1.0);
    for row in [0, 1, 4, 5] {
        let drawn = overlay(&image, &spec, GRID, &one_hot(row * GRID + 2), 1.0);
        let touched = (0..100).filter(|&y| (0..300).any(|x| at(&drawn, x, y) != at(&image, x, y)));
        // Interpolation reaches half a patch, 25 pixels, into the image.
        let reached = match row {
            0 | 5 => vec![],
            1 => (0..25).collect::<Vec<_>>(),
            _ => (75..100).collect(),
        };
        assert!(touched.into_iter().all(|y| reached.contains(&y)), "row {row}");
    }
}

#[test]
fn only_proportions_matter() {
    let (image, spec) = (pattern(70, 50), spec(CropMode::Squash, 0.9));
    let values: Vec<f32> = (0..GRID * GRID).map(|i| (i * 7 % 11) as f32).collect();
    let drawn = overlay(&image, &spec, GRID, &values, 0.6);
    assert_ne!(drawn, image);
    let scaled: Vec<f32> = values.iter().map(|value| value * 2f32.powi(-100)).collect();
    assert_eq!(overlay(&image, &spec, GRID, &scaled, 0.6), drawn);
    let no_relevance = [f32::NAN, f32::NEG_INFINITY, -3.0];
    let odd = |i: usize, value: f32| if value == 0.0 { no_relevance[i % 3] } else { value };
    let spoiled: Vec<f32> = values.iter().enumerate().map(|(i, &value)| odd(i, value)).collect();
    assert_eq!(overlay(&image, &spec, GRID, &spoiled, 0.6), drawn, "what is no relevance counts as none");
    let infinite = vec![f32::INFINITY; GRID * GRID];
    let nothing = overlay(&image, &spec, GRID, &infinite, 0.6);
    assert_eq!(nothing, overlay(&image, &spec, GRID, &values, 0.0), "opacity 0");
}

#[test]
fn a_limited_side_shows_the_same_smaller() {
    let spec = spec(CropMode::Center, 0.9);
    let values = one_hot(2 * GRID + 1);
    let image = plain(640, 480, 90);
    let full = overlay(&image, &spec, GRID, &values, 0.8);
    assert_eq!(overlay_within(&image, &spec, GRID, &values, 0.8, 640), full);
    let small = overlay_within(&image, &spec, GRID, &values, 0.8, 160);
    assert_eq!((small.width, small.height), (160, 120));
    let (large_at, small_at) = (hottest_place(&full), hottest_place(&small));
    assert!((large_at.0 / 4.0 - small_at.0).abs() < 1.0 && (large_at.1 / 4.0 - small_at.1).abs() < 1.0);
    assert_eq!(overlay_within(&plain(3, 300, 9), &spec, 1, &[1.0], 0.5, 10).width, 1);
}

#[test]
fn a_png_in_memory_holds_the_pixels() {
    let image = pattern(31, 17);
    let bytes = encode_png(&image).unwrap();
    assert_eq!(decode(&bytes, Path::new("memory")).unwrap(), image);
}
