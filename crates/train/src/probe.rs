//! A head alone on a frozen backbone: what it reads of an image is the same in every epoch, and computed once.

use crate::error::Error;
use crate::examples::{Examples, lengths};
use melo_vit::Engine;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Images whose features are computed together.
const CHUNK: usize = 64;

/// Features of every image of a run.
pub(crate) struct ProbeFeatures {
    pub(crate) train: SplitFeatures,
    pub(crate) val: SplitFeatures,
}

/// Features of the images of a split, `[images, feature width]`.
pub(crate) struct SplitFeatures {
    pub(crate) values: Vec<f32>,
    width: usize,
    /// The first image of each example, and the number of images.
    starts: Vec<usize>,
}

impl SplitFeatures {
    /// Of the images of one example, `[images, feature width]`.
    pub(crate) fn of(&self, example: usize) -> &[f32] {
        &self.values[self.starts[example] * self.width..self.starts[example + 1] * self.width]
    }
}

/// Asks for features of both splits.
pub(crate) struct ProbeImages<'a> {
    pub(crate) train: &'a dyn Examples,
    pub(crate) val: &'a dyn Examples,
    /// Epoch that is to begin, and the run folder, for an interruption.
    pub(crate) epoch: usize,
    pub(crate) folder: Option<PathBuf>,
}

impl ProbeImages<'_> {
    /// Computes them; `progress(done, of)` after each part.
    ///
    /// # Errors
    /// [`Error::Vit`], [`Error::Interrupted`].
    pub(crate) fn features(
        &self,
        engine: &dyn Engine,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<ProbeFeatures, Error> {
        let all = self.train.len() + self.val.len();
        let mut done = 0;
        let mut of = |examples: &dyn Examples| -> Result<SplitFeatures, Error> {
            let width = engine.backbone().config().feature_width();
            let order: Vec<usize> = (0..examples.len()).collect();
            let mut features =
                SplitFeatures { values: Vec::with_capacity(order.len() * width), width, starts: vec![0] };
            for order in order.chunks(CHUNK) {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted { epoch: self.epoch, folder: self.folder.clone() });
                }
                let source = examples.epoch(order, None);
                let mut images = 0;
                for length in lengths(examples, order) {
                    images += length;
                    features.starts.push(features.values.len() / width + images);
                }
                features.values.extend(engine.embed(&*source, images, examples.size(), None)?);
                done += order.len();
                progress(done, all);
            }
            Ok(features)
        };
        Ok(ProbeFeatures { train: of(self.train)?, val: of(self.val)? })
    }
}
