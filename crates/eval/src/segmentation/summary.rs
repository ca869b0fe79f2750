//! A test set: means over its images, with intervals by patient.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::compare::{SegmentationSettings, SegmentedClass};
use crate::resampled::{Bootstrap, Resampled, check_patients, resample, weighted_mean};
use crate::{ClusteredShare, Counts, Error, mean_of_defined};

/// Means of one class over the images where each figure is defined, or means of such means over classes. `None` where no image has one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentationFigures {
    /// Of [`SegmentedClass::dice`].
    pub dice: Option<Resampled>,
    /// Of [`SegmentedClass::iou`].
    pub iou: Option<Resampled>,
    /// Of [`SegmentedClass::hd95`], in the unit of the spacing. Images that lack the class in one map cannot be in it: read it
    /// with [`SegmentationClass::missed`] and [`SegmentationClass::invented`].
    pub hd95: Option<Resampled>,
    /// Of [`SegmentedClass::surface_dice`].
    pub surface_dice: Option<Resampled>,
}

/// One class over all images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentationClass {
    /// Means over images.
    pub mean: SegmentationFigures,
    /// Pixels of all images together.
    pub pixels: Counts,
    /// Images whose reference has the class.
    pub present: u64,
    /// Of these, images whose prediction has none of it.
    pub missed: u64,
    /// Images whose prediction alone has the class.
    pub invented: u64,
}

/// How well a test set was segmented.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentationMetrics {
    /// Images.
    pub images: usize,
    /// Patients.
    pub patients: usize,
    /// `[classes]`, the background first.
    pub per_class: Vec<SegmentationClass>,
    /// Means of the classes' means, each class weighing the same; without class 0 unless `include_background`.
    pub mean: SegmentationFigures,
}

/// Figures of an image of a class: Dice, IoU, HD95, surface Dice.
const FIGURES: usize = 4;

fn figures(class: &SegmentedClass) -> [Option<f64>; FIGURES] {
    [class.dice, class.iou, class.hd95, class.surface_dice]
}

/// Of `images`, each `[classes]` as [`compare_segmentations`](super::compare_segmentations) measured it by the same `settings`, of `patients [n]`: any numbers,
/// equal where they mean the same.
///
/// Intervals are percentile intervals over draws of patients. Where all images have the same share (every Dice 0, every one 1),
/// draws show nothing and the interval of a class is Wilson's of so many patients, as [`ClusteredShare`] has it.
/// A draw without any image that a class's figure needs is left out of that figure and of the mean over classes.
///
/// # Errors
/// No image; another number of patients than images, or of classes than the settings'.
///
/// # Panics
/// Where `bootstrap` has no replicates or a level that is not between 0 and 1.
pub fn segmentation_metrics(
    images: &[Vec<SegmentedClass>],
    patients: &[usize],
    settings: &SegmentationSettings,
    bootstrap: &Bootstrap,
) -> Result<SegmentationMetrics, Error> {
    check_patients(patients, images.len())?;
    let classes = settings.classes;
    if let Some(image) = images.iter().find(|image| image.len() != classes) {
        return Err(Error::Length { what: "classes of an image", expected: classes, found: image.len() });
    }
    // [class, figure, image].
    let values: Vec<Vec<Option<f64>>> = (0..classes * FIGURES)
        .map(|at| images.iter().map(|image| figures(&image[at / FIGURES])[at % FIGURES]).collect())
        .collect();
    let defined: Vec<bool> = values.iter().map(|values| values.iter().any(Option::is_some)).collect();
    let of_draw = |weights: &[u32]| {
        let mut means: Vec<_> = values.iter().map(|values| weighted_mean(values.iter().copied(), weights)).collect();
        let over_classes: [_; FIGURES] = std::array::from_fn(|figure| {
            let at = (settings.first()..classes).map(|class| class * FIGURES + figure);
            // Without one of its classes, it would be another mean.
            let whole = at.clone().all(|at| means[at].is_some() || !defined[at]);
            mean_of_defined(at.filter(|_| whole).map(|at| means[at]))
        });
        means.extend(over_classes);
        means
    };
    let mut found = resample(patients, bootstrap, of_draw);
    for (found, (at, values)) in found.iter_mut().zip(values.iter().enumerate()) {
        if let Some(found) = found.as_mut().filter(|found| found.interval.is_none() && at % FIGURES != 2) {
            found.interval = of_equal_shares(values, patients, bootstrap.level);
        }
    }
    let mut found = found.chunks_exact(FIGURES).map(|found| SegmentationFigures {
        dice: found[0],
        iou: found[1],
        hd95: found[2],
        surface_dice: found[3],
    });
    let per_class = (0..classes).zip(found.by_ref()).map(|(class, mean)| {
        let of_class = || images.iter().map(|image| &image[class]);
        let count = |is: fn(&SegmentedClass) -> bool| of_class().filter(|class| is(class)).count() as u64;
        SegmentationClass {
            mean,
            pixels: of_class().map(|class| class.pixels).sum(),
            present: count(SegmentedClass::present),
            missed: count(|class| class.present() && !class.found()),
            invented: count(|class| !class.present() && class.found()),
        }
    });
    Ok(SegmentationMetrics {
        images: images.len(),
        patients: patients.iter().collect::<BTreeSet<_>>().len(),
        per_class: per_class.collect(),
        mean: found.next().expect("figures over classes follow those of classes"),
    })
}

/// Interval of a mean of shares that are all the same; none where they are not.
fn of_equal_shares(values: &[Option<f64>], patients: &[usize], level: f64) -> Option<(f64, f64)> {
    let cases: Vec<_> =
        values.iter().zip(patients).filter_map(|(value, patient)| Some(((*value)?, *patient))).collect();
    let same = cases.iter().all(|(value, _)| *value == cases[0].0);
    let estimate = ClusteredShare::new(cases).filter(|_| same)?.estimate(level);
    Some((estimate.low, estimate.high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(dice: Option<f64>, true_positive: u64, false_positive: u64, false_negative: u64) -> SegmentedClass {
        let pixels = Counts { true_positive, false_positive, false_negative, true_negative: 9 };
        SegmentedClass { pixels, dice, iou: dice, hd95: dice.filter(|dice| *dice > 0.0), surface_dice: dice }
    }

    fn metrics(images: &[Vec<SegmentedClass>], patients: &[usize]) -> SegmentationMetrics {
        let settings = SegmentationSettings::new(images[0].len());
        segmentation_metrics(images, patients, &settings, &Bootstrap::default()).unwrap()
    }

    #[test]
    fn means_are_over_images_then_over_foreground_classes() {
        let background = class(Some(1.0), 5, 0, 0);
        let images = [
            vec![background, class(Some(0.5), 1, 1, 1), class(None, 0, 2, 0)],
            vec![background, class(Some(0.0), 0, 0, 3), class(Some(0.75), 3, 1, 1)],
            vec![background, class(Some(1.0), 4, 0, 0), class(Some(0.25), 1, 3, 3)],
        ];
        let found = metrics(&images, &[4, 1, 7]);
        let value = |figure: Option<Resampled>| figure.unwrap().value;
        assert_eq!((found.images, found.patients), (3, 3));
        assert_eq!((value(found.per_class[1].mean.dice), value(found.per_class[1].mean.hd95)), (0.5, 0.75));
        assert_eq!((value(found.per_class[2].mean.dice), value(found.mean.dice)), (0.5, 0.5));
        assert_eq!(value(found.mean.hd95), 0.625);
        let counted = |class: &SegmentationClass| (class.present, class.missed, class.invented);
        assert_eq!((counted(&found.per_class[1]), counted(&found.per_class[2])), ((3, 1, 0), (2, 0, 1)));
        assert_eq!(
            found.per_class[1].pixels,
            Counts { true_positive: 5, false_positive: 1, false_negative: 4, true_negative: 27 }
        );
        let (low, high) = found.per_class[1].mean.dice.unwrap().interval.unwrap();
        assert!(low <= 0.5 && high >= 0.5 && low >= 0.0 && high <= 1.0, "{low} {high}");
    }

    #[test]
    fn a_class_never_found_is_not_certain_to_be_never_found() {
        let images: Vec<_> = (0..18).map(|_| vec![class(Some(1.0), 5, 0, 0), class(Some(0.0), 0, 0, 3)]).collect();
        let found = metrics(&images, &(0..18).collect::<Vec<_>>()).per_class[1].mean;
        let (low, high) = found.dice.unwrap().interval.unwrap();
        assert!(low == 0.0 && (high - 0.1759).abs() < 1e-4, "{low} {high}");
        assert_eq!(found.hd95, None);
    }

    #[test]
    fn wrong_lengths() {
        let (settings, bootstrap) = (SegmentationSettings::new(2), Bootstrap::default());
        let of = |images: &[Vec<SegmentedClass>], patients: &[usize]| {
            segmentation_metrics(images, patients, &settings, &bootstrap).unwrap_err()
        };
        let one = class(Some(1.0), 1, 0, 0);
        assert_eq!(of(&[], &[]), Error::NoRows);
        assert_eq!(of(&[vec![one; 2]], &[]), Error::Length { what: "patients", expected: 1, found: 0 });
        assert_eq!(of(&[vec![one; 3]], &[0]), Error::Length { what: "classes of an image", expected: 2, found: 3 });
    }
}
