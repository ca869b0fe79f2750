//! A head alone on a frozen backbone: what it reads of an image is the same in every epoch, and computed once.

use crate::error::Error;
use crate::examples::Examples;
use melo_data::EpochAugment;
use melo_vit::Engine;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Images whose features are computed together.
const CHUNK: usize = 64;

/// Features of every image of a run, `[n, feature width]` of each split.
pub(crate) struct ProbeFeatures {
    pub(crate) train: Vec<f32>,
    pub(crate) val: Vec<f32>,
}

/// Asks for features of both splits.
pub(crate) struct ProbeImages<'a> {
    pub(crate) train: &'a dyn Examples,
    pub(crate) val: &'a dyn Examples,
    /// What training images go through: nothing that changes them.
    pub(crate) augment: EpochAugment<'a>,
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
        let mut of = |examples: &dyn Examples, augment: Option<EpochAugment<'_>>| -> Result<Vec<f32>, Error> {
            let order: Vec<usize> = (0..examples.len()).collect();
            let mut features = Vec::with_capacity(order.len() * engine.backbone().config().feature_width());
            for order in order.chunks(CHUNK) {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted { epoch: self.epoch, folder: self.folder.clone() });
                }
                let source = examples.epoch(order, augment);
                features.extend(engine.embed(&*source, order.len(), examples.size(), None)?);
                done += order.len();
                progress(done, all);
            }
            Ok(features)
        };
        Ok(ProbeFeatures { train: of(self.train, Some(self.augment))?, val: of(self.val, None)? })
    }
}
