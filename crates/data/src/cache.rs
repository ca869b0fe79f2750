//! Decoded images in memory, so that an epoch does not decode what the last one did.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use melo_imaging::{Fitted, Mask, MaskReading, Pixels, Seen, Tally, Volume, check_fit, fit_volume, read_volume};
use melo_vit::{CropMode, Interpolation, Preprocess, Rendering};

use crate::unpacked::UnpackedFiles;
use crate::{Error, Row, masks};

/// Decoded and fitted images, as 8-bit RGB, and their masks, up to a limit of bytes; shared by the splits and by threads.
///
/// An image stays once it is in. When the limit is reached, further images are decoded each time they are asked for:
/// every epoch asks for all of them, so throwing one out to keep another would gain nothing.
#[derive(Debug)]
pub struct Cache {
    limit_bytes: usize,
    /// Images that are in no file.
    given: Arc<HashMap<PathBuf, Pixels>>,
    held: RwLock<Held>,
    tally: Mutex<Tally>,
    unpacked: UnpackedFiles,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    /// One map for each way of fitting: a few at most.
    by_fit: Vec<(Fit, HashMap<PathBuf, Arc<Pixels>>)>,
    /// The same of masks, by the image that each was held to.
    masks: Vec<(MaskFit, HashMap<PathBuf, Arc<Mask>>)>,
    volumes: Vec<(VolumeFit, HashMap<PathBuf, Arc<Volume>>)>,
}

/// The part of [`Preprocess`] that [`melo_imaging::read_fit`] depends on.
type Fit = (usize, CropMode, Interpolation, Rendering);
/// What a fitted mask depends on.
type MaskFit = (Fit, MaskReading);
/// What a fitted volume depends on.
type VolumeFit = (usize, Option<usize>, Interpolation, Rendering);

impl Cache {
    /// Memory for decoded images where nobody asks for another.
    pub const DEFAULT_BYTES: usize = 1 << 30;

    /// An empty cache that holds at most `limit_bytes` of pixels; 0 holds nothing.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            given: Arc::default(),
            held: RwLock::default(),
            tally: Mutex::default(),
            unpacked: UnpackedFiles::default(),
        }
    }

    /// The same with images that are in no file, by the paths of their [rows](Row::path); they are held beside the limit.
    pub fn with_images(self, images: HashMap<PathBuf, Pixels>) -> Self {
        Self { given: Arc::new(images), ..self }
    }

    /// An empty cache that holds nothing it reads, and knows the same images that are in no file.
    pub fn apart(&self) -> Self {
        Self { given: Arc::clone(&self.given), ..Self::new(0) }
    }

    /// Bytes of pixels held now.
    pub fn bytes(&self) -> usize {
        self.held.read().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// What was seen of the images decoded so far, those counted twice that were decoded again.
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The image of `row`, decoded and fitted; out of its pack if it lies in one, which is not held here.
    ///
    /// Two threads that ask for one new image both decode it; both get the same pixels.
    pub(crate) fn fitted(&self, row: &Row, spec: &Preprocess) -> Result<Arc<Pixels>, Error> {
        if let Some(packed) = &row.packed {
            return Ok(Arc::new(packed.fitted(spec)?));
        }
        let path = row.path.as_path();
        let fit: Fit = (spec.resize_side(), spec.crop_mode, spec.interpolation, spec.rendering.clone());
        if let Some(pixels) = self.find(path, &fit) {
            return Ok(pixels);
        }
        self.read(path, fit, spec).map(|(pixels, _)| pixels)
    }

    /// The volume of `row`, read and fitted.
    pub(crate) fn volume(&self, row: &Row, spec: &Preprocess) -> Result<Arc<Volume>, Error> {
        let path = row.path.as_path();
        let fit: VolumeFit = (spec.size, spec.depth, spec.interpolation, spec.rendering.clone());
        let held = {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            held.volumes.iter().find(|(known, _)| *known == fit).and_then(|(_, volumes)| volumes.get(path)).cloned()
        };
        if let Some(volume) = held {
            return Ok(volume);
        }
        let volume = match self.unpacked.of(path) {
            Some(file) => file.unpacked.volume(path, &spec.rendering)?,
            None => read_volume(path, &spec.rendering)?,
        };
        let volume = Arc::new(fit_volume(&volume, spec));
        let Held { bytes, volumes, .. } = &mut *self.held.write().unwrap_or_else(PoisonError::into_inner);
        keep(volumes, fit, path, &volume, (bytes, volume.levels.len(), self.limit_bytes));
        Ok(volume)
    }

    /// The image and its mask, both fitted; the mask must be of the image's size.
    pub(crate) fn fitted_with_mask(
        &self,
        row: &Row,
        spec: &Preprocess,
        reading: &MaskReading,
    ) -> Result<(Arc<Pixels>, Arc<Mask>), Error> {
        let Some(mask_file) = &row.mask else { return Err(Error::NoMask { name: row.name.clone() }) };
        let path = row.path.as_path();
        let fit: Fit = (spec.resize_side(), spec.crop_mode, spec.interpolation, spec.rendering.clone());
        let key: MaskFit = (fit.clone(), reading.clone());
        let held = {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            held.masks.iter().find(|(known, _)| *known == key).and_then(|(_, masks)| masks.get(path)).cloned()
        };
        if let Some(mask) = held {
            return Ok((self.fitted(row, spec)?, mask));
        }
        let (pixels, (width, height)) = self.read(path, fit, spec)?;
        let mask = masks::read(&mask_file.path, path, reading)?;
        mask.check_size(&mask_file.path, width, height)?;
        let mask = Arc::new(melo_imaging::fit_mask(&mask, spec));
        self.insert_mask(path, key, &mask);
        Ok((pixels, mask))
    }

    /// The image from its file, and the size that it has there.
    fn read(&self, path: &Path, fit: Fit, spec: &Preprocess) -> Result<(Arc<Pixels>, (usize, usize)), Error> {
        let Fitted { pixels, seen, width, height } = match (self.given.get(path), self.unpacked.of(path)) {
            (Some(given), _) => {
                let (width, height) = (given.width, given.height);
                check_fit(path, width, height, spec)?;
                Fitted { pixels: melo_imaging::fit(given, spec), seen: Seen::default(), width, height }
            }
            (None, Some(file)) => file.unpacked.fit_sized(path, spec)?,
            (None, None) => melo_imaging::read_fit_sized(path, spec)?,
        };
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).add(path, &seen);
        let pixels = Arc::new(pixels);
        self.insert(path, fit, &pixels);
        Ok((pixels, (width, height)))
    }

    fn insert_mask(&self, path: &Path, key: MaskFit, mask: &Arc<Mask>) {
        let Held { bytes, masks, .. } = &mut *self.held.write().unwrap_or_else(PoisonError::into_inner);
        keep(masks, key, path, mask, (bytes, mask.labels.len(), self.limit_bytes));
    }

    fn find(&self, path: &Path, fit: &Fit) -> Option<Arc<Pixels>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.by_fit.iter().find(|(known, _)| known == fit).and_then(|(_, images)| images.get(path)).cloned()
    }

    fn insert(&self, path: &Path, fit: Fit, pixels: &Arc<Pixels>) {
        let Held { bytes, by_fit, .. } = &mut *self.held.write().unwrap_or_else(PoisonError::into_inner);
        keep(by_fit, fit, path, pixels, (bytes, pixels.rgb.len(), self.limit_bytes));
    }
}

/// Holds a value of `size` bytes under a key and a path, unless `bytes`, of all that is held, would pass the limit.
fn keep<K: PartialEq, V>(
    all: &mut Vec<(K, HashMap<PathBuf, Arc<V>>)>,
    key: K,
    path: &Path,
    value: &Arc<V>,
    (bytes, size, limit): (&mut usize, usize, usize),
) {
    if *bytes + size > limit {
        return;
    }
    let index = all.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        all.push((key, HashMap::new()));
        all.len() - 1
    });
    if all[index].1.insert(path.into(), Arc::clone(value)).is_none() {
        *bytes += size;
    }
}

/// The file at `path`, decoded and fitted: what is packed.
pub(crate) fn read_fitted(path: &Path, spec: &Preprocess) -> Result<Pixels, melo_imaging::Error> {
    melo_imaging::read_fit(path, spec)
}
