//! One answer for the images of a bag, read as the engine asks for them.

use crate::error::Error;
use crate::predictor::Predictor;
use melo_imaging::{Unpacked, crop_normalise, read_fit};
use melo_vit::{BagLogits, BoundPlugin, Decision, ImageError, ImageSource, Preprocess};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What a plug-in says of a bag.
#[derive(Clone, Debug)]
pub struct BagPrediction {
    /// Who says it.
    pub plugin: Arc<BoundPlugin>,
    /// Before calibration, `[c]`.
    pub logits: Vec<f32>,
    /// Probabilities, class or findings.
    pub decision: Decision,
    /// How much each image counted, `[n]`, of sum 1: see [`melo_vit::Pooled::attention`].
    pub attention: Vec<f32>,
}

impl BagPrediction {
    /// The images that counted most, at most `most` of them, the most first.
    pub fn leading(&self, most: usize) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.attention.len()).collect();
        places.sort_by(|&a, &b| self.attention[b].total_cmp(&self.attention[a]).then(a.cmp(&b)));
        places.truncate(most);
        places
    }
}

impl Predictor {
    /// What a plug-in says of the images of a bag, in their order; none of them is held longer than it is computed.
    ///
    /// # Errors
    /// [`Error::NoBags`] for a plug-in that answers for single images, [`Error::EmptyBag`]; [`Error::Engine`], also for an image that cannot
    /// be read.
    ///
    /// # Panics
    /// If the plug-in is bound to another engine.
    pub fn predict_bag<P: AsRef<Path> + Sync>(
        &self,
        images: &[P],
        plugin: &Arc<BoundPlugin>,
    ) -> Result<BagPrediction, Error> {
        assert!(plugin.is_on(&**self.engine()), "a plug-in that is bound to another engine");
        let Some(bag) = &plugin.bag else { return Err(Error::NoBags { task: plugin.card.task.clone() }) };
        if images.is_empty() {
            return Err(Error::EmptyBag { task: plugin.card.task.clone() });
        }
        let spec = &plugin.card.preprocess;
        let paths = images.iter().map(|path| path.as_ref().to_path_buf()).collect();
        let source = Files { paths, spec, unpacked: Mutex::default() };
        let adapter = Some(&plugin.adapter);
        let found = self.engine().bag_logits(&source, &[images.len()], spec.size, adapter, (bag, &plugin.head))?;
        let BagLogits { logits, mut attention } = found;
        let decision = plugin.decide(&logits);
        Ok(BagPrediction { plugin: Arc::clone(plugin), logits, decision, attention: attention.swap_remove(0) })
    }
}

/// Images of files; a compressed volume is unpacked once for all its slices.
struct Files<'a> {
    paths: Vec<PathBuf>,
    spec: &'a Preprocess,
    unpacked: Mutex<Option<Arc<Unpacked>>>,
}

impl Files<'_> {
    fn unpacked(&self, path: &Path) -> Option<Arc<Unpacked>> {
        let mut held = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.as_ref().is_some_and(|unpacked| unpacked.holds(path)) {
            *held = Unpacked::of(path).map(Arc::new);
        }
        held.clone()
    }
}

impl ImageSource for Files<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        let path = &self.paths[index];
        let fitted = match self.unpacked(path) {
            Some(unpacked) => unpacked.fit_sized(path, self.spec)?.pixels,
            None => read_fit(path, self.spec)?,
        };
        crop_normalise(&fitted, self.spec, out);
        Ok(())
    }
}
