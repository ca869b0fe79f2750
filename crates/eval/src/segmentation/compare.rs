//! One reference against one prediction.

use serde::{Deserialize, Serialize};

use super::crop::{Bounds, Crop};
use super::distance::Lattice;
use super::surface::SurfaceDistances;
use crate::{Counts, Error};

/// A class for each pixel.
#[derive(Clone, Copy, Debug)]
pub struct LabelMap<'a> {
    /// `[h, w]`, or `[d, h, w]` of a stack.
    pub shape: &'a [usize],
    /// Classes in rows, the last axis fastest: `h · w`, or `d · h · w` of them.
    pub labels: &'a [u8],
}

/// Classes that a `u8` can tell apart.
const CLASSES: usize = 256;

/// What is measured, and how.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentationSettings {
    /// Classes, the background (0) among them; 2 to 256.
    pub classes: usize,
    /// Value of reference pixels that count nowhere: both maps are taken to be of no class there, so that a region which they
    /// cut has a border along them. May be a class or beyond the classes (255).
    pub ignore: Option<u8>,
    /// How far apart borders may lie for [`SegmentedClass::surface_dice`], in the unit of the spacing (mm).
    pub tolerance: f64,
    /// Whether Dice and IoU are undefined where the reference lacks the class, as with MONAI's `ignore_empty=True`. If
    /// not, they are 1 where the prediction lacks it too, and 0 where it does not.
    pub ignore_empty: bool,
    /// Whether class 0 is one like the others: its borders are measured, and means include it.
    pub include_background: bool,
}

impl SegmentationSettings {
    /// MONAI's defaults for means over the foreground: no pixel ignored, an empty reference ignored, a tolerance of 1.
    pub fn new(classes: usize) -> Self {
        Self { classes, ignore: None, tolerance: 1.0, ignore_empty: true, include_background: false }
    }

    /// The first class whose borders are measured and which means include.
    pub(super) fn first(&self) -> usize {
        usize::from(!self.include_background)
    }
}

/// How one class of one image was segmented.
///
/// | reference | prediction | Dice, IoU (`ignore_empty`) | Dice, IoU (else) | HD95 | surface Dice |
/// |---|---|---|---|---|---|
/// | empty | empty | undefined | 1 | undefined | undefined |
/// | empty | not | undefined | 0 | undefined | 0 |
/// | not | empty | 0 | 0 | undefined | 0 |
///
/// as MONAI 1.5 has it, with NaN for undefined: `DiceMetric`, `MeanIoU`, `compute_hausdorff_distance(percentile=95)`,
/// `SurfaceDiceMetric`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentedClass {
    /// Pixels that count, in each cell of the 2 × 2 table.
    pub pixels: Counts,
    /// 2 TP / (2 TP + FP + FN).
    pub dice: Option<f64>,
    /// TP / (TP + FP + FN).
    pub iou: Option<f64>,
    /// The larger of the 95th percentiles of the distances from each border to the other, in the unit of the spacing (mm).
    /// A border is the pixels of the class with one of another class, or the image's edge, beside them (four neighbours, six
    /// in a stack). `None` for a class left out as background.
    pub hd95: Option<f64>,
    /// Share of both borders' pixels at most the tolerance away from the other border (Nikolov et al., arXiv 1809.04430, counted
    /// in pixels as Seidlitz et al., arXiv 2111.05408). `None` for a class left out as background.
    pub surface_dice: Option<f64>,
}

impl SegmentedClass {
    /// The class is in the reference.
    pub fn present(&self) -> bool {
        self.pixels.positives() > 0
    }

    /// The class is in the prediction.
    pub fn found(&self) -> bool {
        self.pixels.called() > 0
    }
}

/// Each class of a `prediction` against a `reference`, `[classes]`. `spacing` is the distance of neighbouring pixels along each
/// axis, in mm: `[row, column]` or `[slice, row, column]`; ones where it is not known, for distances in pixels.
///
/// # Errors
/// Maps of other than two or three axes, without a pixel, of different shapes, or with another number of labels than their shape says; a
/// label that is no class; a spacing of another length, or one that is not positive and finite; a tolerance that is negative
/// or not finite; fewer than 2 classes, or more than 256.
pub fn compare_segmentations(
    reference: LabelMap<'_>,
    prediction: LabelMap<'_>,
    spacing: &[f64],
    settings: &SegmentationSettings,
) -> Result<Vec<SegmentedClass>, Error> {
    let (lattice, plane) = check(reference, prediction, spacing, settings)?;
    let SegmentationSettings { classes, ignore, .. } = *settings;
    let counts = |at: usize| ignore != Some(reference.labels[at]);
    let class_out_of_range = |what, map: LabelMap<'_>, at| Error::ClassOutOfRange {
        what,
        at: place(at, map.shape),
        classes,
        found: map.labels[at],
    };

    let mut confusion = vec![0u64; classes * classes];
    let mut bounds = vec![Bounds::EMPTY; classes];
    for at in 0..reference.labels.len() {
        let predicted = usize::from(prediction.labels[at]);
        if predicted >= classes {
            return Err(class_out_of_range("prediction", prediction, at));
        }
        if !counts(at) {
            continue;
        }
        let class = usize::from(reference.labels[at]);
        if class >= classes {
            return Err(class_out_of_range("reference", reference, at));
        }
        confusion[class * classes + predicted] += 1;
        if class.max(predicted) >= settings.first() {
            let [_, middle, width] = lattice.shape;
            let pixel = [at / (middle * width), at / width % middle, at % width];
            bounds[class].hold(pixel);
            bounds[predicted].hold(pixel);
        }
    }

    let total: u64 = confusion.iter().sum();
    let measured = (0..classes).map(|class| {
        let true_positive = confusion[class * classes + class];
        let false_negative = confusion[class * classes..][..classes].iter().sum::<u64>() - true_positive;
        let false_positive = confusion.iter().skip(class).step_by(classes).sum::<u64>() - true_positive;
        let true_negative = total - true_positive - false_negative - false_positive;
        let pixels = Counts { true_positive, false_positive, false_negative, true_negative };
        let surface = (class >= settings.first() && total > true_negative).then(|| {
            let is_class = |at: usize| {
                let [own, other] = [reference, prediction].map(|map| usize::from(map.labels[at]) == class);
                (own && counts(at), other && counts(at))
            };
            SurfaceDistances::new(&Crop::new(lattice, plane, bounds[class], is_class))
        });
        SegmentedClass {
            pixels,
            dice: overlap(pixels, 2, settings.ignore_empty),
            iou: overlap(pixels, 1, settings.ignore_empty),
            hd95: surface.as_ref().and_then(SurfaceDistances::hd95),
            surface_dice: surface.and_then(|surface| surface.surface_dice(settings.tolerance)),
        }
    });
    Ok(measured.collect())
}

/// `weight · TP / (weight · TP + FP + FN)`: Dice of 2, IoU of 1.
fn overlap(pixels: Counts, weight: u64, ignore_empty: bool) -> Option<f64> {
    if pixels.positives() == 0 {
        return (!ignore_empty).then(|| if pixels.called() == 0 { 1.0 } else { 0.0 });
    }
    let both = weight * pixels.true_positive;
    Some(both as f64 / (both + pixels.false_positive + pixels.false_negative) as f64)
}

/// Everything but the labels; the lattice, and whether it is a plane.
fn check(
    reference: LabelMap<'_>,
    prediction: LabelMap<'_>,
    spacing: &[f64],
    settings: &SegmentationSettings,
) -> Result<(Lattice, bool), Error> {
    if settings.classes < 2 {
        return Err(Error::TooFewClasses { expected: 2, found: settings.classes });
    }
    if settings.classes > CLASSES {
        return Err(Error::TooManyClasses { limit: CLASSES, found: settings.classes });
    }
    if !(settings.tolerance >= 0.0 && settings.tolerance.is_finite()) {
        return Err(Error::Tolerance { found: settings.tolerance });
    }
    if reference.shape != prediction.shape {
        return Err(Error::ShapesDiffer { reference: reference.shape.to_vec(), prediction: prediction.shape.to_vec() });
    }
    let shape = match *reference.shape {
        [h, w] if h > 0 && w > 0 => [h, 1, w],
        [d, h, w] if d > 0 && h > 0 && w > 0 => [d, h, w],
        _ => return Err(Error::MapShape { found: reference.shape.to_vec() }),
    };
    let expected = shape.iter().fold(1usize, |product, length| product.saturating_mul(*length));
    for (what, map) in [("reference", reference), ("prediction", prediction)] {
        if map.labels.len() != expected {
            return Err(Error::Length { what, expected, found: map.labels.len() });
        }
    }
    let wrong = || Error::Spacing { axes: reference.shape.len(), found: spacing.to_vec() };
    if !spacing.iter().all(|step| *step > 0.0 && step.is_finite()) {
        return Err(wrong());
    }
    match (reference.shape.len(), spacing) {
        (2, &[row, column]) => Ok((Lattice { shape, spacing: [row, 1.0, column] }, true)),
        (3, &[slice, row, column]) => Ok((Lattice { shape, spacing: [slice, row, column] }, false)),
        _ => Err(wrong()),
    }
}

/// Index along each axis of a pixel.
fn place(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut place: Vec<_> = shape
        .iter()
        .rev()
        .map(|length| {
            let along = at % length;
            at /= length;
            along
        })
        .collect();
    place.reverse();
    place
}
