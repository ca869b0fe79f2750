//! Overlaps and borders against MONAI and scipy, on the label maps of `tools/golden/segmentation.py`.

use std::time::{Duration, Instant};

use melo_eval::{Error, LabelMap, SegmentationSettings, SegmentedClass, compare_segmentations};
use serde::Deserialize;

/// Ratios of the same counts, and distances by the same sums in f64.
const TOLERANCE: f64 = 1e-9;
/// MONAI rounds distances, and the ranks of their percentile, to f32: some 3e-5 ranks of a few hundred.
const OF_MONAI: f64 = 1e-4;

#[derive(Deserialize)]
struct Case {
    name: String,
    shape: Vec<usize>,
    spacing: Vec<f64>,
    classes: usize,
    tolerance: f64,
    reference: String,
    prediction: String,
    dice: Vec<Option<f64>>,
    dice_scored: Vec<Option<f64>>,
    iou: Vec<Option<f64>>,
    iou_scored: Vec<Option<f64>>,
    hd95: Vec<Option<f64>>,
    hd95_monai: Vec<Option<f64>>,
    surface_dice: Vec<Option<f64>>,
}

fn digits(labels: &str) -> Vec<u8> {
    labels.bytes().map(|digit| digit - b'0').collect()
}

fn settings(classes: usize) -> SegmentationSettings {
    SegmentationSettings { ignore: Some(9), include_background: true, ..SegmentationSettings::new(classes) }
}

#[track_caller]
fn assert_close(found: impl Iterator<Item = Option<f64>>, expected: &[Option<f64>], relative: f64, at: &str) {
    let found: Vec<_> = found.collect();
    assert_eq!(found.len(), expected.len(), "{at}");
    for (class, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = match (found, expected) {
            (Some(a), Some(b)) => (a - b).abs() <= relative * b.abs().max(1.0),
            (a, b) => a == b,
        };
        assert!(close, "{at} of class {class}: found {found:?}, expected {expected:?}");
    }
}

#[test]
fn overlaps_and_borders_equal_monais() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/segmentation.json")).unwrap();
    assert_eq!(cases.len(), 13);
    for case in cases {
        let (reference, prediction) = (digits(&case.reference), digits(&case.prediction));
        let compare = |settings: SegmentationSettings| {
            let [reference, prediction] =
                [&reference, &prediction].map(|labels| LabelMap { shape: &case.shape, labels });
            compare_segmentations(reference, prediction, &case.spacing, &settings).unwrap()
        };
        let with_tolerance = SegmentationSettings { tolerance: case.tolerance, ..settings(case.classes) };
        let found = compare(with_tolerance);
        let scored = compare(SegmentationSettings { ignore_empty: false, ..with_tolerance });
        let check = |found: &[SegmentedClass],
                     figure: fn(&SegmentedClass) -> Option<f64>,
                     expected: &[Option<f64>],
                     tolerance: f64,
                     what: &str| {
            assert_close(found.iter().map(figure), expected, tolerance, &format!("{}: {what}", case.name));
        };
        check(&found, |class| class.dice, &case.dice, TOLERANCE, "Dice");
        check(&scored, |class| class.dice, &case.dice_scored, TOLERANCE, "Dice, empty references scored");
        check(&found, |class| class.iou, &case.iou, TOLERANCE, "IoU");
        check(&scored, |class| class.iou, &case.iou_scored, TOLERANCE, "IoU, empty references scored");
        check(&found, |class| class.hd95, &case.hd95, TOLERANCE, "HD95");
        check(&found, |class| class.hd95, &case.hd95_monai, OF_MONAI, "MONAI's HD95");
        // A ratio in f32.
        check(&found, |class| class.surface_dice, &case.surface_dice, 1e-7, "surface Dice");

        let foreground = compare(SegmentationSettings { include_background: false, ..with_tolerance });
        assert_eq!((foreground[0].hd95, foreground[0].surface_dice), (None, None), "{}", case.name);
        assert_eq!(foreground[0].pixels, found[0].pixels);
        assert_eq!(foreground[1..], found[1..], "{}", case.name);
    }
}

fn compare(shapes: [&[usize]; 2], labels: [&[u8]; 2], spacing: &[f64]) -> Result<Vec<SegmentedClass>, Error> {
    let [reference, prediction] = [0, 1].map(|i| LabelMap { shape: shapes[i], labels: labels[i] });
    compare_segmentations(reference, prediction, spacing, &settings(2))
}

#[test]
fn maps_of_two_sizes() {
    let found = compare([&[2, 3], &[3, 2]], [&[0; 6]; 2], &[1.0, 1.0]).unwrap_err();
    assert_eq!(found, Error::ShapesDiffer { reference: vec![2, 3], prediction: vec![3, 2] });
    assert_eq!(found.to_string(), "label maps: the reference is [2, 3], the prediction [3, 2]");
}

#[test]
fn maps_that_are_no_plane_and_no_stack() {
    for shape in [&[6][..], &[], &[0, 3], &[1, 1, 2, 3]] {
        let labels = vec![0; shape.iter().product()];
        let found = compare([shape; 2], [&labels; 2], &[1.0, 1.0]).unwrap_err();
        assert_eq!(found, Error::MapShape { found: shape.to_vec() });
    }
}

#[test]
fn labels_that_do_not_fill_their_shape() {
    let found = compare([&[2, 3]; 2], [&[0; 6], &[0; 5]], &[1.0, 1.0]).unwrap_err();
    assert_eq!(found, Error::Length { what: "prediction", expected: 6, found: 5 });
    let huge = [usize::MAX, usize::MAX];
    let found = compare([&huge; 2], [&[0; 6]; 2], &[1.0, 1.0]).unwrap_err();
    assert_eq!(found, Error::Length { what: "reference", expected: usize::MAX, found: 6 });
}

#[test]
fn a_class_outside() {
    let found = compare([&[2, 3]; 2], [&[0, 1, 0, 0, 0, 2], &[0; 6]], &[1.0, 1.0]).unwrap_err();
    assert_eq!(found, Error::ClassOutOfRange { what: "reference", at: vec![1, 2], classes: 2, found: 2 });
    assert_eq!(found.to_string(), "reference at [1, 2]: expected a class below 2, found 2");
    // Only a reference says what is to be ignored.
    let found = compare([&[1, 2, 3]; 2], [&[9; 6], &[0, 1, 0, 0, 9, 0]], &[1.0; 3]).unwrap_err();
    assert_eq!(found, Error::ClassOutOfRange { what: "prediction", at: vec![0, 1, 1], classes: 2, found: 9 });
}

#[test]
fn a_spacing_that_is_none() {
    for spacing in [&[1.0][..], &[1.0; 3], &[0.0, 1.0], &[1.0, -1.0], &[f64::NAN, 1.0], &[1.0, f64::INFINITY]] {
        let found = compare([&[2, 3]; 2], [&[0; 6]; 2], spacing).unwrap_err();
        assert!(matches!(found, Error::Spacing { axes: 2, .. }), "{found}");
    }
}

#[test]
fn settings_that_cannot_be() {
    let map = LabelMap { shape: &[1, 2], labels: &[0, 1] };
    let of = |settings| compare_segmentations(map, map, &[1.0, 1.0], &settings).unwrap_err();
    assert_eq!(of(settings(1)), Error::TooFewClasses { expected: 2, found: 1 });
    assert_eq!(of(settings(257)), Error::TooManyClasses { limit: 256, found: 257 });
    assert_eq!(of(SegmentationSettings { tolerance: -1.0, ..settings(2) }), Error::Tolerance { found: -1.0 });
}

#[test]
#[ignore = "a timing, for an idle machine and a release build"]
fn borders_of_a_film_take_milliseconds() {
    let disc = |centre: [f64; 2], radius: f64| -> Vec<u8> {
        let inside = |i: usize| u8::from(((i / 512) as f64 - centre[0]).hypot((i % 512) as f64 - centre[1]) < radius);
        (0..512 * 512).map(inside).collect()
    };
    let (reference, prediction) = (disc([250.0, 240.0], 200.0), disc([262.0, 255.0], 210.0));
    let [reference, prediction] = [&reference, &prediction].map(|labels| LabelMap { shape: &[512, 512], labels });
    let settings = SegmentationSettings::new(2);
    let times = (0..20).map(|_| {
        let start = Instant::now();
        compare_segmentations(reference, prediction, &[0.14, 0.14], &settings).unwrap();
        start.elapsed()
    });
    let fastest = times.min().unwrap();
    println!("{fastest:.3?}");
    assert!(fastest < Duration::from_millis(10), "{fastest:?}");
}
