//! What a plug-in that gives masks says of a data set, held against the masks that are there, pixel by pixel of the image files.

use crate::error::Error;
use crate::mask_loss::of_outputs;
use melo_data::Dataset;
use melo_eval::{LabelMap, SegmentationSettings, SegmentedClass, compare_segmentations};
use melo_imaging::{IGNORE, Mask, restore};
use melo_vit::{Decoder, Engine, ImageSource, Plugin, planes};

/// Shares and agreement of the classes of images, each `[n · c]`.
#[derive(Default)]
pub(crate) struct MaskAnswers {
    /// The classes' shares of the pixels that count, in the masks that are there.
    pub(crate) truth: Vec<f32>,
    /// The same in the answers.
    pub(crate) found: Vec<f32>,
    /// How well each class was found.
    pub(crate) classes: Vec<SegmentedClass>,
}

/// How masks are compared: distances in pixels, what the mask ignores counted nowhere.
pub(crate) fn settings(classes: usize) -> SegmentationSettings {
    SegmentationSettings { ignore: Some(IGNORE), ..SegmentationSettings::new(classes) }
}

impl MaskAnswers {
    /// Of a task that gives no masks: true numbers, and logits.
    pub(crate) fn none(truth: Vec<f32>, found: Vec<f32>) -> Self {
        MaskAnswers { truth, found, classes: Vec::new() }
    }

    /// Of every image of a data set with masks; `asked` gives the engine what `source` gives, the images as they go into the network.
    pub(crate) fn of(
        engine: &dyn Engine,
        (plugin, decoder): (&Plugin, &Decoder),
        dataset: &Dataset,
        (asked, source): (&dyn ImageSource, &dyn ImageSource),
    ) -> Result<Self, Error> {
        let images = (asked, dataset.len(), dataset.spec().size);
        let judge = |image: usize, tokens: &[f32]| judge(decoder, tokens, dataset, (image, source));
        let mut answers = MaskAnswers::default();
        for class in of_outputs(engine, plugin.into(), images, judge)?.into_iter().flatten() {
            let pixels = class.pixels;
            let pixels = (pixels.positives() + pixels.false_positive + pixels.true_negative).max(1) as f32;
            answers.truth.push(class.pixels.positives() as f32 / pixels);
            answers.found.push(class.pixels.called() as f32 / pixels);
            answers.classes.push(class);
        }
        Ok(answers)
    }
}

/// One image's mask against the one that is there.
fn judge(
    decoder: &Decoder,
    tokens: &[f32],
    dataset: &Dataset,
    (row, source): (usize, &dyn ImageSource),
) -> Result<Vec<SegmentedClass>, Error> {
    let (size, c) = (dataset.spec().size, decoder.classes());
    let failed = |source| melo_vit::Error::Image { index: row, source };
    let mut pixels = vec![0.0; 3 * size * size];
    source.load(row, &mut pixels).map_err(failed)?;
    let truth = dataset.mask(row).map_err(|error| failed(error.into()))?;
    let scores = planes(&decoder.scores(tokens, &pixels, size), c);
    let Mask { width, height, labels } = &truth;
    let found = restore(&scores, c, decoder.side(size), *width, *height, dataset.spec()).mask;
    let shape = &[*height, *width];
    let (truth, found) = (LabelMap { shape, labels }, LabelMap { shape, labels: &found.labels });
    Ok(compare_segmentations(truth, found, &[1.0; 2], &settings(c))?)
}
