//! Images to features.

use crate::error::Error;
use crate::inputs::Input;
use melo_data::{Cache, Dataset};
use melo_imaging::{Seen, crop_normalise, file_of, read_fit_seen};
use melo_vit::{Engine, Features, ImageError, ImageSource, Plugin, Preprocess, hex};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A backbone, perhaps with a plug-in, that gives features of images.
#[derive(Debug)]
pub struct Embedder {
    engine: Arc<dyn Engine>,
    plugin: Option<Plugin>,
    features: Features,
    preprocess: Preprocess,
    /// Digests of files that hold several images.
    digests: Mutex<HashMap<PathBuf, String>>,
}

/// An image's features.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// Values, in the shape of [`Embedder::shape`].
    pub values: Vec<f32>,
    /// SHA-256 of the file, as `sha256sum` prints it; of an image in a pack, `input:` and that of the network's input.
    pub digest: String,
    /// What the decoder saw; nothing of an image in a pack.
    pub seen: Option<Seen>,
}

impl Embedder {
    /// The bare backbone with its own preprocessing.
    ///
    /// # Errors
    /// [`melo_vit::Error::Features`].
    pub fn new(engine: Arc<dyn Engine>, features: Features) -> Result<Self, Error> {
        features.check(engine.backbone().config())?;
        let preprocess = engine.backbone().preprocess().clone();
        Ok(Embedder { engine, plugin: None, features, preprocess, digests: Mutex::default() })
    }

    /// Under a plug-in, with its preprocessing.
    ///
    /// # Errors
    /// As [`Plugin::load`], and [`melo_vit::Error::ImageSize`].
    pub fn with_plugin(self, path: &Path) -> Result<Self, Error> {
        let plugin = Plugin::load(path, self.engine.backbone())?;
        plugin.refuse_volumes()?;
        plugin.refuse_ensembles()?;
        let preprocess = plugin.card.preprocess.clone();
        Embedder { plugin: Some(plugin), ..self }.with_preprocess(preprocess)
    }

    /// With another preprocessing.
    ///
    /// # Errors
    /// [`melo_vit::Error::ImageSize`], and [`melo_vit::Error::Features`] for a preprocessing that cannot be carried out.
    pub fn with_preprocess(self, preprocess: Preprocess) -> Result<Self, Error> {
        preprocess.check().map_err(|error| melo_vit::Error::Features(error.reason))?;
        self.engine.backbone().check_size(preprocess.size)?;
        Ok(Embedder { preprocess, ..self })
    }

    /// What computes.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// The plug-in.
    pub fn plugin(&self) -> Option<&Plugin> {
        self.plugin.as_ref()
    }

    /// What is taken.
    pub fn features(&self) -> Features {
        self.features
    }

    /// From pixels to input.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Shape of one image's features, see [`Features::shape`].
    pub fn shape(&self) -> Vec<usize> {
        self.features.shape(self.engine.backbone().config(), self.preprocess.size)
    }

    /// Features of images, in their order; each that cannot be read says why. All are in memory at once.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn embed(&self, images: &[Input]) -> Result<Vec<Result<Embedded, ImageError>>, Error> {
        let prepared: Vec<Result<Prepared, ImageError>> = images.par_iter().map(|image| self.prepare(image)).collect();
        let good: Vec<&[f32]> = prepared.iter().flatten().map(|prepared| prepared.pixels.as_slice()).collect();
        let (count, size) = (good.len(), self.preprocess.size);
        let adapter = self.plugin.as_ref().map(|plugin| &plugin.adapter);
        let values = match count {
            0 => Vec::new(),
            _ => self.engine.features(&Inputs(good), count, size, adapter, self.features)?,
        };
        let mut values = values.chunks_exact(self.shape().iter().product());
        let embedded = |Prepared { digest, seen, .. }| {
            let values = values.next().unwrap_or_default().to_vec();
            Embedded { values, digest, seen }
        };
        let mut embedded = embedded;
        Ok(prepared.into_iter().map(|prepared| prepared.map(&mut embedded)).collect())
    }

    fn prepare(&self, image: &Input) -> Result<Prepared, ImageError> {
        let spec = &self.preprocess;
        let mut pixels = vec![0.0; 3 * spec.size * spec.size];
        if let Some(row) = &image.packed {
            let alone = Dataset::new(vec![row.clone()], spec.clone(), Arc::new(Cache::new(0)));
            alone.epoch(&[0], None).load(0, &mut pixels)?;
            let mut hash = Sha256::new();
            pixels.iter().for_each(|x| hash.update(x.to_le_bytes()));
            return Ok(Prepared { pixels, digest: format!("input:{}", hex(&hash.finalize())), seen: None });
        }
        let (fitted, seen) = read_fit_seen(&image.path, spec)?;
        crop_normalise(&fitted, spec, &mut pixels);
        Ok(Prepared { pixels, digest: self.digest(&image.path)?, seen: Some(seen) })
    }

    fn digest(&self, path: &Path) -> Result<String, ImageError> {
        let file = file_of(path);
        let known = || self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = known().get(&file) {
            return Ok(digest.clone());
        }
        let digest = digest_of(&file).map_err(Error::io(&file))?;
        if file != path {
            known().insert(file, digest.clone());
        }
        Ok(digest)
    }
}

/// A file's SHA-256, a part at a time.
fn digest_of(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hash, mut part) = (File::open(path)?, Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut part)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&part[..read]),
        }
    }
}

struct Prepared {
    /// `[3, s, s]`.
    pixels: Vec<f32>,
    digest: String,
    seen: Option<Seen>,
}

/// Network inputs in memory.
struct Inputs<'a>(Vec<&'a [f32]>);

impl ImageSource for Inputs<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        out.copy_from_slice(self.0[index]);
        Ok(())
    }
}
