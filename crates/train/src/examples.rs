//! Labelled images to train or validate on, whether read from files or drawn on the fly.

use melo_data::{Dataset, EpochAugment, Labels};
use melo_vit::{ImageSource, TaskKind};

/// Labelled images by index.
pub trait Examples: Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// True when there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Labels of image `index`.
    fn labels(&self, index: usize) -> &Labels;

    /// Side of the images, pixels.
    fn size(&self) -> usize;

    /// Images of one epoch: image `i` of the source is image `order[i]`; without `augment`, as they are.
    ///
    /// What is given may depend on index, seed and epoch, and on nothing else.
    fn epoch<'a>(&'a self, order: &'a [usize], augment: Option<EpochAugment<'a>>) -> Box<dyn ImageSource + 'a>;
}

impl Examples for Dataset {
    fn len(&self) -> usize {
        self.len()
    }

    fn labels(&self, index: usize) -> &Labels {
        self.labels(index)
    }

    fn size(&self) -> usize {
        self.spec().size
    }

    fn epoch<'a>(&'a self, order: &'a [usize], augment: Option<EpochAugment<'a>>) -> Box<dyn ImageSource + 'a> {
        Box::new(self.epoch(order, augment))
    }
}

/// Number of images of each class (single label) or with each finding (multi-label), `[c]`.
pub(crate) fn class_counts(examples: &dyn Examples, classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    for index in 0..examples.len() {
        match examples.labels(index) {
            Labels::Single(label) => counts[*label] += 1,
            Labels::Multi(labels) => counts.iter_mut().zip(labels).for_each(|(n, &l)| *n += usize::from(l)),
        }
    }
    counts
}

/// Metrics of probabilities `[n, c]` of all examples in order; multi-label findings are positive from `thresholds` on.
///
/// # Errors
/// As `melo_eval`.
pub fn evaluate(
    examples: &dyn Examples,
    kind: TaskKind,
    probabilities: &[f32],
    thresholds: &[f32],
) -> Result<melo_eval::Metrics, melo_eval::Error> {
    let labels = (0..examples.len()).map(|index| examples.labels(index));
    match kind {
        TaskKind::SingleLabel => {
            let labels: Vec<usize> =
                labels.filter_map(|l| if let Labels::Single(label) = l { Some(*label) } else { None }).collect();
            melo_eval::single_label(probabilities, &labels, thresholds.len())
        }
        TaskKind::MultiLabel => {
            let labels: Vec<u8> =
                labels.flat_map(|l| if let Labels::Multi(labels) = l { labels.clone() } else { Vec::new() }).collect();
            melo_eval::multi_label(probabilities, &labels, thresholds)
        }
    }
}
