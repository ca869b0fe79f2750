//! One answer for the images of a bag, read as the engine asks for them.

use crate::error::Error;
use crate::predictor::Predictor;
use crate::prepared::Prepared;
use melo_imaging::{DecodeMemory, Pixels, Unpacked, check_fit, crop_normalise, decode_with, fit, read_fit};
use melo_vit::{BagLogits, BoundPlugin, Decision, ImageError, ImageSource, Preprocess};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Images of a bag that are named as those that counted most.
pub const LEADING: usize = 5;

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

/// An image of a bag: a file, or one image of a file of several (`scan.nii.gz#slice=axial:3`), on the disk or in memory.
#[derive(Clone, Debug)]
pub struct BagImage {
    name: PathBuf,
    bytes: Option<Arc<[u8]>>,
}

impl BagImage {
    /// Of a file on the disk.
    pub fn of_file(path: impl Into<PathBuf>) -> Self {
        BagImage { name: path.into(), bytes: None }
    }

    /// Of a file in memory; images of one file share its bytes.
    pub fn of_bytes(name: impl Into<PathBuf>, bytes: Arc<[u8]>) -> Self {
        BagImage { name: name.into(), bytes: Some(bytes) }
    }

    /// As it was named.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// True where both are of one file.
    fn shares(&self, other: &BagImage) -> bool {
        match (&self.bytes, &other.bytes) {
            (Some(bytes), Some(others)) => Arc::ptr_eq(bytes, others),
            (None, None) => true,
            _ => false,
        }
    }

    fn unpacked(&self) -> Option<Unpacked> {
        match &self.bytes {
            Some(bytes) => Unpacked::of_bytes(bytes, &self.name),
            None => Unpacked::of(&self.name),
        }
    }

    /// The image alone, for one task, with its pixels: for its heat map.
    ///
    /// # Errors
    /// Those of [`melo_imaging::read_seen`].
    pub fn prepared(&self, spec: &Preprocess) -> Result<Prepared, melo_imaging::Error> {
        match &self.bytes {
            Some(bytes) => Prepared::of_bytes(bytes, &self.name, &[spec], true),
            None => Prepared::of_file(&self.name, &[spec], true),
        }
    }
}

/// The images of a bag, in their order.
#[derive(Clone, Debug)]
pub struct Bag {
    /// At least one.
    pub images: Vec<BagImage>,
    /// What decoders hold is taken from it, where it is bounded.
    pub memory: Option<Arc<DecodeMemory>>,
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
    pub fn predict_bag(&self, bag: &Bag, plugin: &Arc<BoundPlugin>) -> Result<BagPrediction, Error> {
        assert!(plugin.is_on(&**self.engine()), "a plug-in that is bound to another engine");
        let Some(pooling) = &plugin.bag else { return Err(Error::NoBags { task: plugin.card.task.clone() }) };
        if bag.images.is_empty() {
            return Err(Error::EmptyBag { task: plugin.card.task.clone() });
        }
        let spec = &plugin.card.preprocess;
        let source = Images { bag, spec, unpacked: Mutex::default() };
        let (lengths, adapter) = ([bag.images.len()], Some(&plugin.adapter));
        let found = self.engine().bag_logits(&source, &lengths, spec.size, adapter, (pooling, &plugin.head))?;
        let BagLogits { logits, mut attention } = found;
        let decision = plugin.decide(&logits);
        Ok(BagPrediction { plugin: Arc::clone(plugin), logits, decision, attention: attention.swap_remove(0) })
    }
}

/// Images as one task wants them; a compressed volume is unpacked once for all its slices.
struct Images<'a> {
    bag: &'a Bag,
    spec: &'a Preprocess,
    unpacked: Mutex<Option<(BagImage, Arc<Unpacked>)>>,
}

impl Images<'_> {
    fn unpacked(&self, image: &BagImage) -> Option<Arc<Unpacked>> {
        let mut held = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |(of, unpacked): &(BagImage, Arc<Unpacked>)| of.shares(image) && unpacked.holds(&image.name);
        if !held.as_ref().is_some_and(holds) {
            *held = image.unpacked().map(|unpacked| (image.clone(), Arc::new(unpacked)));
        }
        held.as_ref().map(|(_, unpacked)| Arc::clone(unpacked))
    }

    fn fitted(&self, image: &BagImage) -> Result<Pixels, melo_imaging::Error> {
        match (self.unpacked(image), &image.bytes) {
            (Some(unpacked), _) => Ok(unpacked.fit_sized(&image.name, self.spec)?.pixels),
            (None, None) => read_fit(&image.name, self.spec),
            (None, Some(bytes)) => {
                let pixels = decode_with(bytes, &image.name, &self.spec.rendering)?;
                check_fit(&image.name, pixels.width, pixels.height, self.spec)?;
                Ok(fit(&pixels, self.spec))
            }
        }
    }
}

impl ImageSource for Images<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        let image = &self.bag.images[index];
        let fitted = match &self.bag.memory {
            Some(memory) => memory.within(|| self.fitted(image)),
            None => self.fitted(image),
        };
        crop_normalise(&fitted?, self.spec, out);
        Ok(())
    }
}
