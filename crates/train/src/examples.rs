//! Labelled images, or bags of them, to train or validate on, whether read from files or drawn on the fly.

use crate::judged::{called, of_one_hot};
use melo_data::{Dataset, EpochAugment, Labels};
use melo_eval::Metrics;
use melo_vit::{ImageError, ImageSource, TaskKind};

/// Labelled images by index; or bags of them, each of which is one example.
pub trait Examples: Sync {
    /// Number of images, or of bags.
    fn len(&self) -> usize;

    /// True when there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of images of example `index`: 1 where examples are no bags.
    fn images(&self, _index: usize) -> usize {
        1
    }

    /// Labels of image `index`.
    fn labels(&self, index: usize) -> &Labels;

    /// How much image `index` counts in the loss, positive.
    fn weight(&self, _index: usize) -> f64 {
        1.0
    }

    /// Side of the images, pixels.
    fn size(&self) -> usize;

    /// True where an image without augmentation is the same in every epoch.
    fn is_fixed(&self) -> bool {
        false
    }

    /// Images of one epoch: image `i` of the source is image `order[i]`, of bags all those of `order[0]`, then those of `order[1]`; without
    /// `augment`, as they are.
    ///
    /// What is given may depend on index, seed and epoch, and on nothing else.
    fn epoch<'a>(&'a self, order: &'a [usize], augment: Option<EpochAugment<'a>>) -> Box<dyn ImageSource + 'a>;

    /// Side of a mask, cells: every pixel of the input has one, unless examples say otherwise.
    fn mask_side(&self) -> usize {
        self.size()
    }

    /// Writes the classes of the pixels of image `index` of what [`Examples::epoch`] gives to `out`, `[size, size]`; 255 where none
    /// counts.
    ///
    /// # Errors
    /// Whatever kept the mask from being read; of examples without masks, always.
    fn mask(
        &self,
        _order: &[usize],
        _augment: Option<EpochAugment<'_>>,
        _index: usize,
        _out: &mut [u8],
    ) -> Result<(), ImageError> {
        Err("these examples have no masks".into())
    }
}

impl Examples for Dataset {
    fn len(&self) -> usize {
        self.bags().map_or(Dataset::len(self), <[_]>::len)
    }

    fn images(&self, index: usize) -> usize {
        self.bags().map_or(1, |bags| bags[index].len())
    }

    fn labels(&self, index: usize) -> &Labels {
        self.labels(self.bags().map_or(index, |bags| bags[index].start))
    }

    fn weight(&self, index: usize) -> f64 {
        f64::from(self.rows()[self.bags().map_or(index, |bags| bags[index].start)].weight)
    }

    fn size(&self) -> usize {
        self.spec().size
    }

    fn is_fixed(&self) -> bool {
        true
    }

    fn epoch<'a>(&'a self, order: &'a [usize], augment: Option<EpochAugment<'a>>) -> Box<dyn ImageSource + 'a> {
        match self.bags() {
            None => Box::new(self.epoch(order, augment)),
            Some(bags) => {
                let order = order.iter().flat_map(|&bag| bags[bag].clone()).collect();
                Box::new(BagImages { dataset: self, order, augment })
            }
        }
    }

    fn mask(
        &self,
        order: &[usize],
        augment: Option<EpochAugment<'_>>,
        index: usize,
        out: &mut [u8],
    ) -> Result<(), ImageError> {
        Ok(self.epoch(order, augment).load_mask(index, out)?)
    }
}

/// The images of some bags, one behind the other.
struct BagImages<'a> {
    dataset: &'a Dataset,
    order: Vec<usize>,
    augment: Option<EpochAugment<'a>>,
}

impl ImageSource for BagImages<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        self.dataset.epoch(&self.order[index..=index], self.augment).load(0, out)
    }
}

/// Images of each of these examples.
pub(crate) fn lengths(examples: &dyn Examples, order: &[usize]) -> Vec<usize> {
    order.iter().map(|&index| examples.images(index)).collect()
}

/// Number of images of each class (single label) or with each finding (multi-label), `[c]`.
pub(crate) fn class_counts(examples: &dyn Examples, classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    for index in 0..examples.len() {
        match examples.labels(index) {
            Labels::Single(label) => counts[*label] += 1,
            Labels::Multi(labels) => counts.iter_mut().zip(labels).for_each(|(n, &l)| *n += usize::from(l)),
            Labels::Values(_) => {}
        }
    }
    counts
}

/// Which of the classes or findings `[n, c]` all examples in order have.
pub(crate) fn truth(examples: &dyn Examples, classes: usize) -> Vec<bool> {
    let of = |index| (0..classes).map(move |class| examples.labels(index).has(class));
    (0..examples.len()).flat_map(of).collect()
}

/// The numbers `[n, c]` of all examples in order; nothing of classes.
pub(crate) fn numbers(examples: &dyn Examples) -> Vec<f32> {
    let of = |index| match examples.labels(index) {
        Labels::Values(values) => values.as_slice(),
        _ => &[],
    };
    (0..examples.len()).flat_map(of).copied().collect()
}

/// Metrics of probabilities `[n, c]` of classes or findings of all examples in order, at the decisions that a card with these thresholds `[c]` makes.
///
/// # Errors
/// As `melo_eval`.
///
/// # Panics
/// For a task of numbers or masks, see [`crate::figures`].
pub fn evaluate(
    examples: &dyn Examples,
    kind: TaskKind,
    probabilities: &[f32],
    thresholds: &[f32],
) -> Result<Metrics, melo_eval::Error> {
    let labels: Vec<usize> = (0..examples.len())
        .flat_map(|index| match examples.labels(index) {
            Labels::Single(label) => vec![*label],
            Labels::Multi(findings) => findings.iter().map(|&finding| usize::from(finding)).collect(),
            Labels::Values(_) => Vec::new(),
        })
        .collect();
    measure(kind, probabilities, &labels, thresholds)
}

/// Metrics of probabilities `[n, c]` at the decisions that a card with these thresholds `[c]` makes; `labels` are classes
/// `[n]`, or 0 and 1 `[n, c]`.
///
/// # Errors
/// As `melo_eval`.
pub(crate) fn measure(
    kind: TaskKind,
    probabilities: &[f32],
    labels: &[usize],
    thresholds: &[f32],
) -> Result<Metrics, melo_eval::Error> {
    let (c, called) = (thresholds.len(), called(kind, probabilities, thresholds));
    match kind {
        TaskKind::SingleLabel | TaskKind::Ordinal => {
            melo_eval::single_label_decided(probabilities, labels, &of_one_hot(&called, c), c)
        }
        TaskKind::Regression | TaskKind::Segmentation => panic!("numbers and masks have no class of an image"),
        TaskKind::MultiLabel => {
            let findings: Vec<u8> = labels.iter().map(|&label| u8::from(label == 1)).collect();
            melo_eval::multi_label_decided(probabilities, &findings, &called, c)
        }
    }
}
