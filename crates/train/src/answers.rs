//! What a plug-in says of every image of a split, with the truth: all that statistics need.

use crate::error::{Error, InvalidAnswers};
use crate::examples::numbers;
use crate::mask_answers::MaskAnswers;
use crate::team::in_the_whole;
use melo_data::{Dataset, Labels, Row};
use melo_eval::SegmentedClass;
use melo_vit::{ComputedOn, Engine, ImageError, ImagePart, ImageSource, Plugin, Segment, TaskKind, mean_logits};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Logits and truth of the images of a split, in the split's order; of bags, where images are in bags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// What kind of answers they are.
    pub kind: TaskKind,
    /// Number of classes, or of numbers, `c`.
    pub classes: usize,
    /// Names in the manifest, `[n]`, of images or bags.
    pub names: Vec<String>,
    /// Patients, `[n]`; an image without one is its own.
    pub patients: Vec<Option<String>>,
    /// Class or grade of each image `[n]`, or findings `[n · c]`, 0 or 1; none of numbers.
    pub labels: Vec<usize>,
    /// True numbers `[n · c]`, of masks the share of each class in the pixels; none of classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<f32>,
    /// `[n · c]`, before temperature, of an ensemble those of its mean ([`mean_logits`]); of masks the share of each class in the pixels.
    pub logits: Vec<f32>,
    /// How well each class of each image was found, `[n · c]`; of masks alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<SegmentedClass>,
    /// How far each image is from those of the training, `[n]`, see [`melo_vit::Scope::distances`]; none of a plug-in that does not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distances: Vec<[f64; 2]>,
}

/// Images that are counted as they are asked for.
struct Observed<'a> {
    source: &'a dyn ImageSource,
    loaded: AtomicUsize,
    begun: &'a (dyn Fn(usize) + Sync),
}

impl ImageSource for Observed<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        (self.begun)(self.loaded.fetch_add(1, Ordering::Relaxed) + 1);
        self.source.load(index, out)
    }
}

/// Images of a pass.
const AT_ONCE: usize = 256;
/// Images of which all members of an ensemble are asked at once: their residual streams are held.
const OF_MEMBERS_AT_ONCE: usize = 64;

/// What heads give of each image, of an ensemble those of its members one behind the other, and what `blocks` gave of it, in the order of a source.
/// Where the members of an ensemble differ, no block is looked at.
///
/// # Errors
/// As [`Engine::forward_intermediates`].
pub(crate) fn passes(
    engine: &dyn Engine,
    plugin: &Plugin,
    (source, images, size): (&dyn ImageSource, usize, usize),
    blocks: &[usize],
    mut take: impl FnMut(&[f32], &[f32]),
) -> Result<(), Error> {
    let vit = engine.backbone().config();
    let outputs = plugin.head.outputs(vit, size);
    let width = outputs + blocks.len() * vit.intermediate_width();
    let at_once = if plugin.further.is_empty() { AT_ONCE } else { OF_MEMBERS_AT_ONCE };
    for first in (0..images).step_by(at_once) {
        let count = at_once.min(images - first);
        let segment = Segment { images: 0..count, plugins: plugin.members().collect() };
        let part = ImagePart { source, first };
        let found = engine
            .forward_intermediates(&part, size, &[segment], blocks)
            .map_err(|error| in_the_whole(error, first))?;
        for image in 0..count {
            let rows: Vec<&[f32]> =
                found[0].iter().map(|of_member| &of_member[image * width..(image + 1) * width]).collect();
            let said: Vec<f32> = rows.iter().flat_map(|row| &row[..outputs]).copied().collect();
            take(&said, &rows[0][outputs..]);
        }
    }
    Ok(())
}

/// Outputs `[n, outputs]` of images, of an ensemble the logits `[n, c]` of its mean, read by the calibration that is its own on the engine; and how far each image is
/// from those of the training, `[n]`; nothing of a plug-in without a description.
///
/// # Errors
/// As [`Engine::forward_intermediates`].
fn with_distances(
    engine: &dyn Engine,
    plugin: &Plugin,
    images: (&dyn ImageSource, usize, usize),
) -> Result<(Vec<f32>, Vec<[f64; 2]>), Error> {
    let (card, scope) = (&plugin.card, plugin.scope.as_ref());
    let temperature = card.calibration_for(&ComputedOn::from(&engine.info())).temperature;
    let blocks = scope.map_or(&[][..], |scope| &scope.config.blocks);
    let (mut outputs, mut distances) = (Vec::new(), Vec::new());
    passes(engine, plugin, images, blocks, |said, intermediates| {
        match plugin.further.is_empty() {
            true => outputs.extend_from_slice(said),
            false => outputs.extend(mean_logits(card.kind, temperature, said, card.classes.len())),
        }
        distances.extend(scope.map(|scope| scope.distances(intermediates)));
    })?;
    Ok((outputs, distances))
}

impl Answers {
    /// A plug-in's answers on a data set.
    ///
    /// # Errors
    /// As [`Engine::forward`].
    pub fn of(engine: &dyn Engine, plugin: &Plugin, dataset: &Dataset) -> Result<Self, Error> {
        Answers::observed(engine, plugin, dataset, &|_| ())
    }

    /// As [`Answers::of`]; `begun` is told how many images were begun, again and again, from any thread.
    ///
    /// # Errors
    /// As [`Engine::forward`].
    pub fn observed(
        engine: &dyn Engine,
        plugin: &Plugin,
        dataset: &Dataset,
        begun: &(dyn Fn(usize) + Sync),
    ) -> Result<Self, Error> {
        let order: Vec<usize> = (0..dataset.len()).collect();
        let images = dataset.epoch(&order, None);
        let source = Observed { source: &images, loaded: AtomicUsize::new(0), begun };
        let (size, rows) = (dataset.spec().size, examples(dataset));
        let mut distances = Vec::new();
        let MaskAnswers { truth, found, classes: masks } = match (&plugin.head.decoder, &plugin.bag) {
            (Some(decoder), _) => {
                if plugin.scope.is_some() {
                    distances = with_distances(engine, plugin, (&images, dataset.len(), size))?.1;
                }
                MaskAnswers::of(engine, (plugin, decoder), dataset, (&source, &images))?
            }
            (None, None) if plugin.scope.is_some() || !plugin.further.is_empty() => {
                let (logits, found) = with_distances(engine, plugin, (&source, dataset.len(), size))?;
                distances = found;
                MaskAnswers::none(numbers(dataset), logits)
            }
            (None, None) => {
                let images = (dataset.len(), size);
                let logits = engine.logits_of(&source, images, plugin.into(), plugin.volume.as_ref())?;
                MaskAnswers::none(numbers(dataset), logits)
            }
            (None, Some(bag)) => {
                let single = order.iter().map(|_| 1).collect();
                let lengths: Vec<usize> =
                    dataset.bags().map_or(single, |bags| bags.iter().map(std::ops::Range::len).collect());
                let adapter = Some(&plugin.adapter);
                let logits = engine.bag_logits(&source, &lengths, size, adapter, (bag, &plugin.head))?.logits;
                MaskAnswers::none(numbers(dataset), logits)
            }
        };
        let labels = rows.iter().filter(|_| masks.is_empty()).flat_map(|row| match &row.labels {
            Labels::Single(label) => vec![*label],
            Labels::Multi(findings) => findings.iter().map(|&finding| usize::from(finding)).collect(),
            Labels::Values(_) => Vec::new(),
        });
        Ok(Answers {
            kind: plugin.card.kind,
            classes: plugin.card.classes.len(),
            names: rows.iter().map(|row| row.bag.as_ref().map_or(&row.name, |bag| &bag.name).clone()).collect(),
            patients: rows.iter().map(|row| row.patient_id.clone()).collect(),
            labels: labels.collect(),
            numbers: truth,
            logits: found,
            masks,
            distances,
        })
    }

    /// Checks lengths and numbers of answers that come from a file.
    ///
    /// # Errors
    /// [`InvalidAnswers`].
    pub fn check(&self) -> Result<(), InvalidAnswers> {
        let (n, c) = (self.names.len(), self.classes);
        let (all, multi_label) = (n.checked_mul(c), self.kind == TaskKind::MultiLabel);
        let (labels, numbers) = match self.kind {
            TaskKind::SingleLabel | TaskKind::Ordinal => (Some(n), Some(0)),
            TaskKind::MultiLabel => (all, Some(0)),
            TaskKind::Regression | TaskKind::Segmentation => (Some(0), all),
        };
        let masks = if self.kind == TaskKind::Segmentation { all } else { Some(0) };
        let fits =
            Some(self.labels.len()) == labels && Some(self.numbers.len()) == numbers && Some(self.masks.len()) == masks;
        if n == 0 || c == 0 || self.patients.len() != n || !fits || self.numbers.iter().any(|x| !x.is_finite()) {
            return Err(InvalidAnswers::Lengths);
        }
        if all != Some(self.logits.len()) || self.logits.iter().any(|x| !x.is_finite()) {
            return Err(InvalidAnswers::Logits { images: n, classes: c });
        }
        let scopes = self.distances.len();
        if (scopes != 0 && scopes != n) || self.distances.as_flattened().iter().any(|x| !x.is_finite()) {
            return Err(InvalidAnswers::Lengths);
        }
        let limit = if multi_label { 2 } else { c };
        match self.labels.iter().find(|&&label| label >= limit) {
            Some(&label) => Err(InvalidAnswers::Label { label, limit }),
            None => Ok(()),
        }
    }

    /// The images at these rows alone.
    pub fn of_rows(&self, rows: &[usize]) -> Answers {
        fn pick<T: Clone>(values: &[T], width: usize, rows: &[usize]) -> Vec<T> {
            rows.iter().flat_map(|&row| values[row * width..(row + 1) * width].iter().cloned()).collect()
        }
        let width = |values: usize| values / self.names.len().max(1);
        Answers {
            names: pick(&self.names, 1, rows),
            patients: pick(&self.patients, 1, rows),
            labels: pick(&self.labels, width(self.labels.len()), rows),
            numbers: pick(&self.numbers, width(self.numbers.len()), rows),
            logits: pick(&self.logits, self.classes, rows),
            masks: pick(&self.masks, width(self.masks.len()), rows),
            distances: pick(&self.distances, width(self.distances.len()), rows),
            ..*self
        }
    }

    /// These and other images of the same plug-in, one after the other.
    #[must_use]
    pub fn with(mut self, other: Answers) -> Answers {
        self.names.extend(other.names);
        self.patients.extend(other.patients);
        self.labels.extend(other.labels);
        self.numbers.extend(other.numbers);
        self.logits.extend(other.logits);
        self.masks.extend(other.masks);
        self.distances.extend(other.distances);
        self
    }

    /// Probabilities `[n · c]` at a temperature: softmax, or a sigmoid each. Numbers are as the head gave them.
    pub fn probabilities(&self, temperature: f32) -> Vec<f32> {
        let mut values: Vec<f32> = self.logits.iter().map(|x| x / temperature).collect();
        values.chunks_exact_mut(self.classes).for_each(|row| self.kind.probabilities(row));
        values
    }

    /// Which image shows which class, `[n · c]`, also in one pixel; one-hot where an image has one class, nothing of numbers.
    pub fn truth(&self) -> Vec<bool> {
        match self.kind {
            TaskKind::MultiLabel => self.labels.iter().map(|&label| label == 1).collect(),
            TaskKind::Regression => Vec::new(),
            TaskKind::Segmentation => self.masks.iter().map(SegmentedClass::present).collect(),
            TaskKind::SingleLabel | TaskKind::Ordinal => {
                self.labels.iter().flat_map(|&label| (0..self.classes).map(move |class| class == label)).collect()
            }
        }
    }

    /// Findings `[n · c]` of a multi-label task, 0 or 1.
    pub fn findings(&self) -> Vec<u8> {
        self.labels.iter().map(|&label| u8::from(label == 1)).collect()
    }

    /// A number for each image's patient, `[n]`, whatever the order of the images; an image without one is its own.
    pub fn clusters(&self) -> Vec<usize> {
        let keys: Vec<(&str, bool)> = self
            .names
            .iter()
            .zip(&self.patients)
            .map(|(name, patient)| patient.as_ref().map_or((name.as_str(), false), |id| (id.as_str(), true)))
            .collect();
        let distinct: BTreeSet<(&str, bool)> = keys.iter().copied().collect();
        let numbers: BTreeMap<(&str, bool), usize> = distinct.into_iter().zip(0..).collect();
        keys.iter().map(|key| numbers[key]).collect()
    }

    /// A number for the rarest class that each image shows, `[n]`: `c` for the rarest of all, 1 for the commonest, 0 for an
    /// image without a finding. A patient belongs to the highest of its images, so that a draw within strata keeps the
    /// rare classes.
    pub fn strata(&self) -> Vec<usize> {
        let (truth, c) = (self.truth(), self.classes);
        let count = |class: usize| truth.iter().skip(class).step_by(c).filter(|&&shown| shown).count();
        let mut by_count: Vec<usize> = (0..c).collect();
        by_count.sort_by_key(|&class| std::cmp::Reverse(count(class)));
        let mut rarity = vec![0; c];
        by_count.iter().zip(1..).for_each(|(&class, rank)| rarity[class] = rank);
        let rarest = |row: &[bool]| row.iter().zip(&rarity).filter(|(shown, _)| **shown).map(|(_, &rank)| rank).max();
        truth.chunks_exact(c).map(|row| rarest(row).unwrap_or(0)).collect()
    }
}

/// The rows of a data set that stand for an example each: all, or the first of each bag.
pub fn examples(dataset: &Dataset) -> Vec<&Row> {
    match dataset.bags() {
        None => dataset.rows().iter().collect(),
        Some(bags) => bags.iter().map(|rows| &dataset.rows()[rows.start]).collect(),
    }
}

/// Values of one class out of `[n · c]`.
pub fn column<T: Copy>(values: &[T], class: usize, classes: usize) -> Vec<T> {
    values.iter().skip(class).step_by(classes).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(kind: TaskKind, labels: Vec<usize>) -> Answers {
        let patients = ["a", "b", "a", ""].map(|id| (!id.is_empty()).then(|| id.to_owned()));
        Answers {
            kind,
            classes: 2,
            names: (0..4).map(|i| format!("{i}.png")).collect(),
            patients: patients.to_vec(),
            labels,
            numbers: Vec::new(),
            logits: vec![0.0, 1.0, 2.0, -1.0, 0.5, 0.5, 3.0, 1.0],
            masks: Vec::new(),
            distances: Vec::new(),
        }
    }

    #[test]
    fn patients_are_clusters_and_the_rarest_finding_is_the_stratum() {
        let multi = answers(TaskKind::MultiLabel, vec![1, 0, 1, 1, 0, 0, 1, 0]);
        assert_eq!(multi.clusters(), [1, 2, 1, 0]);
        assert_eq!(multi.of_rows(&[3, 1, 0]).clusters(), [0, 2, 1]);
        assert_eq!(multi.strata(), [1, 2, 0, 1]);
        assert_eq!(answers(TaskKind::SingleLabel, vec![1, 0, 0, 0]).strata(), [2, 1, 1, 1]);
        assert_eq!(column(&multi.truth(), 1, 2), [false, true, false, false]);
    }

    #[test]
    fn rows_bring_their_labels_and_logits() {
        let some = answers(TaskKind::MultiLabel, vec![1, 0, 1, 1, 0, 0, 1, 0]).of_rows(&[3, 1]);
        assert_eq!((some.names, some.labels), (vec!["3.png".to_owned(), "1.png".to_owned()], vec![1, 0, 1, 1]));
        assert_eq!(some.logits, [3.0, 1.0, 2.0, -1.0]);
    }

    #[test]
    fn answers_that_do_not_fit_are_refused() {
        assert!(answers(TaskKind::SingleLabel, vec![1, 0, 0, 1]).check().is_ok());
        assert!(answers(TaskKind::SingleLabel, vec![1, 0, 2, 1]).check().unwrap_err().to_string().contains("label 2"));
        assert!(
            answers(TaskKind::MultiLabel, vec![1, 0, 0, 1])
                .check()
                .unwrap_err()
                .to_string()
                .contains("differ in number")
        );
        let mut infinite = answers(TaskKind::SingleLabel, vec![1, 0, 0, 1]);
        infinite.logits[3] = f32::INFINITY;
        assert!(infinite.check().unwrap_err().to_string().contains("finite"));
    }
}
