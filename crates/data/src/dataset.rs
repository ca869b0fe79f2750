//! What training and evaluation read images from.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use melo_imaging::{Mask, MaskReading, PaddedMask};
use melo_vit::{ImageError, ImageSource, Preprocess};
use rayon::prelude::*;

use crate::bags::Bags;
use crate::{Augment, Cache, Error, Labels, Manifest, Row, Split, masks};

/// The rows of one split, and how they become network input.
#[derive(Clone, Debug)]
pub struct Dataset {
    rows: Vec<Row>,
    spec: Preprocess,
    cache: Arc<Cache>,
    /// How masks are read, if they are.
    masks: Option<Arc<MaskReading>>,
    /// Which rows are one example, if any are.
    bags: Option<Arc<Bags>>,
}

/// A row whose image cannot be used.
#[derive(Debug)]
pub struct Unreadable {
    /// Index of the row in its [`Dataset`].
    pub row: usize,
    /// Its line in the manifest, see [`Row::line`].
    pub line: usize,
    /// Why; names the file.
    pub error: Error,
}

/// The augmentation of one epoch. What happens to row `i` depends on these and `i` alone, or the first row of its bag: all images of a bag
/// are changed alike.
#[derive(Clone, Copy, Debug)]
pub struct EpochAugment<'a> {
    /// What is drawn.
    pub augment: &'a Augment,
    /// Seed of the training run.
    pub seed: u64,
    /// Epoch, from 0.
    pub epoch: u64,
}

/// Splits of a manifest as data sets; no image is read. Where the manifest [says how](crate::Reading::masks), they come with their masks, on
/// the slice, frame or page that `spec` takes of the image.
///
/// # Errors
/// [`Error::EmptySplit`]; a pack that was made for another preprocessing.
pub fn unread_splits(
    manifest: &Manifest,
    splits: &[Split],
    spec: &Preprocess,
    cache: &Arc<Cache>,
) -> Result<Vec<Dataset>, Error> {
    manifest.check_preprocess(spec)?;
    let rows: Vec<Vec<Row>> =
        splits.iter().map(|&split| manifest.split(split).into_iter().cloned().collect()).collect();
    if let Some(split) = rows.iter().position(Vec::is_empty) {
        return Err(Error::EmptySplit { path: manifest.path.clone(), split: splits[split] });
    }
    let datasets = rows.into_iter().map(|rows| Dataset::new(rows, spec.clone(), Arc::clone(cache)));
    Ok(match &manifest.reading.masks {
        Some(masks) => datasets.map(|dataset| dataset.with_masks(masks)).collect(),
        None => datasets.collect(),
    })
}

/// [`unread_splits`], every image decoded once. `progress(done, of)` is called from several threads, once an image.
///
/// # Errors
/// As [`unread_splits`]; [`Error::Unreadable`] with *all* images that cannot be read, have no mask, or one that cannot be read, is of
/// another size than its image or has a value that is no class.
pub fn open_splits(
    manifest: &Manifest,
    splits: &[Split],
    spec: &Preprocess,
    cache: &Arc<Cache>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<Dataset>, Error> {
    let datasets = unread_splits(manifest, splits, spec, cache)?;
    let images = datasets.iter().map(Dataset::len).sum();
    let (mut broken, mut read) = (Vec::new(), 0);
    for dataset in &datasets {
        broken.extend(dataset.preload(&|done, _| progress(read + done, images)));
        read += dataset.len();
    }
    if broken.is_empty() {
        return Ok(datasets);
    }
    Err(unreadable(manifest, splits, images, broken))
}

/// What is said of a manifest of whose splits, of so many images, some cannot be read.
pub fn unreadable(manifest: &Manifest, splits: &[Split], images: usize, mut broken: Vec<Unreadable>) -> Error {
    broken.sort_by_key(|unreadable| unreadable.line);
    Error::Unreadable { path: manifest.path.clone(), splits: splits.to_vec(), images, broken }
}

impl Dataset {
    /// `rows`, usually of one [`Split`](crate::Split), prepared by `spec`; nothing is read yet.
    /// Rows of a bag come to stand one behind the other, in their order there.
    pub fn new(mut rows: Vec<Row>, spec: Preprocess, cache: Arc<Cache>) -> Self {
        let bags = Bags::gather(&mut rows).map(Arc::new);
        Self { rows, spec, cache, masks: None, bags }
    }

    /// The same with masks, read as `reading` says, of the slice, frame or page that is taken of the image.
    pub fn with_masks(self, reading: &MaskReading) -> Self {
        let reading = MaskReading { rendering: self.spec.rendering.clone(), ..reading.clone() };
        Self { masks: Some(Arc::new(reading)), ..self }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if there is no image.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows, in order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The rows of each bag; `None` where no row is in one, and every row is its own example.
    pub fn bags(&self) -> Option<&[Range<usize>]> {
        self.bags.as_ref().map(|bags| &bags.of[..])
    }

    /// The row whose draw changes a row: its own, or the first of its bag, so that the slices of a volume stay in place.
    fn drawn(&self, row: usize) -> usize {
        self.bags.as_ref().map_or(row, |bags| bags.first[row])
    }

    /// What row `row` shows.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn labels(&self, row: usize) -> &Labels {
        &self.rows[row].labels
    }

    /// The whole mask of row `row`, as its file has it.
    ///
    /// # Errors
    /// An [`Error`], which names the file; [`Error::NoMask`] where the row has no mask.
    ///
    /// # Panics
    /// If there is no such row, or the data set [has no masks](Dataset::with_masks).
    pub fn mask(&self, row: usize) -> Result<Mask, Error> {
        let row = &self.rows[row];
        let Some(mask) = &row.mask else { return Err(Error::NoMask { name: row.name.clone() }) };
        masks::read(&mask.path, &row.path, self.masks.as_ref().expect("a data set with masks"))
    }

    /// True if it reads masks.
    pub fn has_masks(&self) -> bool {
        self.masks.is_some()
    }

    /// How images become input.
    pub fn spec(&self) -> &Preprocess {
        &self.spec
    }

    /// Decodes all images on the ambient `rayon` pool, filling the cache, and gives *all* that cannot be read, in order.
    ///
    /// `progress(done, of)` is called from the pool's threads, once an image.
    pub fn preload(&self, progress: &(dyn Fn(usize, usize) + Sync)) -> Vec<Unreadable> {
        self.preload_rows(&(0..self.len()).collect::<Vec<_>>(), progress)
    }

    /// As [`Dataset::preload`], of these rows alone.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn preload_rows(&self, rows: &[usize], progress: &(dyn Fn(usize, usize) + Sync)) -> Vec<Unreadable> {
        let done = AtomicUsize::new(0);
        let decode = |&row: &usize| {
            let image = &self.rows[row];
            let error = match &self.masks {
                _ if self.spec.depth.is_some() => self.cache.volume(image, &self.spec).err(),
                None => self.cache.fitted(image, &self.spec).err(),
                Some(masks) => self.cache.fitted_with_mask(image, &self.spec, masks).err(),
            };
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, rows.len());
            error.map(|error| Unreadable { row, line: image.line, error })
        };
        rows.par_iter().filter_map(decode).collect()
    }

    /// The images of rows `order`: index `i` of the source is row `order[i]`. Without `augment`, centre crops.
    pub fn epoch<'a>(&'a self, order: &'a [usize], augment: Option<EpochAugment<'a>>) -> EpochView<'a> {
        EpochView { dataset: self, order, augment }
    }
}

/// A [`Dataset`] in the order, and with the augmentation, of one epoch.
#[derive(Clone, Copy, Debug)]
pub struct EpochView<'a> {
    dataset: &'a Dataset,
    order: &'a [usize],
    augment: Option<EpochAugment<'a>>,
}

impl EpochView<'_> {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// True if there is no image.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl EpochView<'_> {
    /// Writes the labels of row `order[index]` to `out`, `[size, size]`: those of the pixels that [`load`](ImageSource::load) gives,
    /// [`IGNORE`](melo_imaging::IGNORE) outside of the image and where the mask says so.
    ///
    /// # Errors
    /// An [`Error`], which names the file; [`Error::NoMask`] where the row has no mask.
    ///
    /// # Panics
    /// If `index` or the row is out of range, `out` of another length, or the data set [has no masks](Dataset::with_masks).
    pub fn load_mask(&self, index: usize, out: &mut [u8]) -> Result<(), Error> {
        let Dataset { rows, spec, cache, masks, .. } = self.dataset;
        let masks = masks.as_ref().expect("a data set with masks");
        let row = self.order[index];
        let (_, fitted) = cache.fitted_with_mask(&rows[row], spec, masks)?;
        let labels = match self.augment {
            None => PaddedMask::new(&fitted, spec).crop(spec.size),
            Some(EpochAugment { augment, seed, epoch }) => {
                augment.apply_mask(&fitted, spec, seed, epoch, self.dataset.drawn(row))
            }
        };
        out.copy_from_slice(&labels);
        Ok(())
    }
}

impl ImageSource for EpochView<'_> {
    /// Writes row `order[index]` to `out`, `[3, size, size]`; of a preprocessing of volumes its voxels, `[depth, size, size]`.
    ///
    /// # Errors
    /// An [`Error`], which names the file.
    ///
    /// # Panics
    /// If `index` or the row is out of range, or `out` of another length.
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        let Dataset { rows, spec, cache, .. } = self.dataset;
        let row = self.order[index];
        if spec.depth.is_some() {
            let volume = cache.volume(&rows[row], spec)?;
            match self.augment {
                None => melo_imaging::normalise_volume(&volume.levels, spec, out),
                Some(EpochAugment { augment, seed, epoch }) => {
                    melo_imaging::normalise_volume(&augment.apply_volume(&volume, seed, epoch, row), spec, out);
                }
            }
            return Ok(());
        }
        let fitted = cache.fitted(&rows[row], spec)?;
        match self.augment {
            None => melo_imaging::crop_normalise(&fitted, spec, out),
            Some(EpochAugment { augment, seed, epoch }) => {
                let drawn = self.dataset.drawn(row);
                melo_imaging::normalise(&augment.apply(&fitted, spec, seed, epoch, drawn), spec, out);
            }
        }
        Ok(())
    }
}
