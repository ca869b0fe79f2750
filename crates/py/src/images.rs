//! Images as Python has them: files, bytes of files, and pixels.

use crate::errors::{Door, Failure, OrRaise};
use melo::imaging::{self, Pixels, Seen, crop_normalise, fit};
use melo::predict::Prepared;
use melo::vit::{BoundPlugin, ImageError, ImageSource, Preprocess, Rendering};
use numpy::{PyReadonlyArray3, PyReadonlyArray4};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An image.
pub(crate) enum Image {
    /// A file, or one image of a file of several.
    File(PathBuf),
    /// A file's bytes; the name is for messages, and for formats that are told by their ending.
    Bytes(PathBuf, PyBackedBytes),
    /// Pixels, and what they are called.
    Pixels(PathBuf, Pixels),
}

/// What Python's side of the door makes of images: one list, or one batch of pixels.
pub(crate) fn taken(
    images: &Bound<'_, PyAny>,
    layout: Option<&str>,
    value_range: Option<(f64, f64)>,
) -> PyResult<Vec<Image>> {
    let py = images.py();
    let taken = py.import("melo_vit._images")?.getattr("taken")?.call1((images, layout, value_range))?;
    if let Ok(batch) = taken.extract::<PyReadonlyArray4<'_, u8>>() {
        let shape = batch.as_array().dim();
        let samples = batch.as_slice()?;
        let of = |(index, rgb): (usize, &[u8])| Image::Pixels(named(index), pixels(shape.1, shape.2, rgb));
        return Ok(samples.chunks_exact((shape.1 * shape.2 * shape.3).max(1)).enumerate().map(of).collect());
    }
    let one = |(index, item): (usize, PyResult<Bound<'_, PyAny>>)| {
        let item = item?;
        if let Ok(array) = item.extract::<PyReadonlyArray3<'_, u8>>() {
            let (height, width, _) = array.as_array().dim();
            return Ok(Image::Pixels(named(index), pixels(height, width, array.as_slice()?)));
        }
        if let Ok((name, bytes)) = item.extract::<(PathBuf, PyBackedBytes)>() {
            return Ok(Image::Bytes(name, bytes));
        }
        Ok(Image::File(item.extract()?))
    };
    taken.try_iter()?.enumerate().map(one).collect()
}

fn pixels(height: usize, width: usize, rgb: &[u8]) -> Pixels {
    Pixels { width, height, rgb: rgb.to_vec() }
}

/// What an image without a name is called.
pub(crate) fn named(index: usize) -> PathBuf {
    PathBuf::from(format!("image {index}"))
}

impl Image {
    /// Decoded as a rendering says.
    pub(crate) fn decoded(&self, rendering: &Rendering) -> Result<(Pixels, Seen), imaging::Error> {
        match self {
            Image::File(path) => imaging::read_seen(path, rendering),
            Image::Bytes(name, bytes) => imaging::decode_seen(bytes, name, rendering),
            Image::Pixels(_, pixels) => Ok((pixels.clone(), Seen::default())),
        }
    }

    /// As it is called.
    pub(crate) fn name(&self) -> &Path {
        match self {
            Image::File(path) | Image::Bytes(path, _) | Image::Pixels(path, _) => path,
        }
    }

    /// Prepared for plug-ins.
    pub(crate) fn prepared(&self, plugins: &[Arc<BoundPlugin>], keep_pixels: bool) -> Result<Prepared, Failure> {
        let specs: Vec<&Preprocess> = plugins.iter().map(|plugin| &plugin.card.preprocess).collect();
        match self {
            Image::File(path) => Prepared::of_file(path, &specs, keep_pixels).or_raise(Door::Image),
            Image::Bytes(name, bytes) => Prepared::of_bytes(bytes, name, &specs, keep_pixels).or_raise(Door::Image),
            Image::Pixels(name, pixels) => {
                for spec in &specs {
                    imaging::check_fit(name, pixels.width, pixels.height, spec).or_raise(Door::Image)?;
                }
                let decoded = |_: &Rendering| Ok((pixels.clone(), Seen::default()));
                let volume = |_: &Rendering| {
                    let message = format!("{}: a task answers for volumes, which are read from files", name.display());
                    Err(Failure::new(Door::Image, "Volume", message))
                };
                Prepared::new(&specs, keep_pixels, decoded, volume)
            }
        }
    }
}

/// Images prepared for plug-ins, on all threads.
pub(crate) fn prepared(
    images: &[Image],
    plugins: &[Arc<BoundPlugin>],
    keep_pixels: bool,
) -> Result<Vec<Prepared>, Failure> {
    images.par_iter().map(|image| image.prepared(plugins, keep_pixels)).collect()
}

/// Images as an engine asks for them: decoded then, and not held.
pub(crate) struct Source<'a> {
    pub(crate) images: &'a [Image],
    pub(crate) spec: &'a Preprocess,
}

impl ImageSource for Source<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        let image = &self.images[index];
        let (pixels, _) = image.decoded(&self.spec.rendering)?;
        imaging::check_fit(image.name(), pixels.width, pixels.height, self.spec)?;
        crop_normalise(&fit(&pixels, self.spec), self.spec, out);
        Ok(())
    }
}
