//! Whole volumes in grey: read, fitted into a cube and normalised, as images are.

use std::path::Path;

use melo_vit::rendering::Window;
use melo_vit::{Preprocess, Rendering};

use crate::levels::{self, Levels};
use crate::reference::{self, Fragment};
use crate::resize::resize_volume;
use crate::source::Source;
use crate::{Error, nifti, numpy};

/// A volume in grey, 8 bits a voxel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Layers, rows and columns.
    pub lengths: [usize; 3],
    /// `[depth, height, width]`.
    pub levels: Vec<u8>,
}

/// A volume as its file has it, scaled.
pub(crate) struct Scan {
    pub(crate) depth: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// `[depth, height, width]`.
    pub(crate) values: Vec<f64>,
    /// Bytes, which without a window are taken as they are.
    pub(crate) is_grey: bool,
}

/// Reads a volume: NIfTI-1, or an array `[d, h, w]`, or one of `[n, d, h, w]` by `file.npz#name:index`, told apart by content.
///
/// Its layers lie along the axis that the rendering's plane cuts across, each as [`read_with`](crate::read_with) shows that slice; of NIfTI they
/// go from the feet, the back or the left on. The window is of the whole volume.
///
/// # Errors
/// [`Error::NotAVolume`] for a file of another kind; else as [`read_with`](crate::read_with).
pub fn read_volume(path: &Path, rendering: &Rendering) -> Result<Volume, Error> {
    let file = reference::file_of(path);
    let bytes = std::fs::read(&file).map_err(|source| Error::Read { path: path.into(), source })?;
    let fragment = if file == path { Fragment::default() } else { reference::split(path).1 };
    of_fragment(&bytes, path, &fragment, rendering)
}

/// [`read_volume`] of bytes in memory; `name` serves only the errors, and its fragment to name a volume of several.
///
/// # Errors
/// As there.
pub fn decode_volume(bytes: &[u8], name: &Path, rendering: &Rendering) -> Result<Volume, Error> {
    of_fragment(bytes, name, &reference::split(name).1, rendering)
}

/// True where a file that is held in memory holds a volume, or several images that may be one: NIfTI, or an array of that shape.
pub fn is_volume(bytes: &[u8], name: &Path) -> bool {
    if nifti::is_volume(bytes) {
        return true;
    }
    if !bytes.starts_with(melo_npy::MAGIC) && !bytes.starts_with(b"PK") {
        return false;
    }
    let held = numpy::held(bytes, name, &reference::split(name).1.place, &Rendering::default());
    matches!(held, Ok(numpy::Held::Slices(_) | numpy::Held::Images(2..)))
}

pub(crate) fn of_fragment(
    bytes: &[u8],
    name: &Path,
    fragment: &Fragment,
    rendering: &Rendering,
) -> Result<Volume, Error> {
    let rendering = fragment.applied(rendering);
    if nifti::is_volume(bytes) {
        let source = Source::file(name, "NIfTI");
        return nifti::volume(bytes, source, &rendering)?.in_levels(source, &rendering);
    }
    let format = if bytes.starts_with(b"PK") { "npz" } else { "npy" };
    if format == "npy" && !bytes.starts_with(melo_npy::MAGIC) {
        return Err(Error::NotAVolume { path: name.into() });
    }
    let source = Source::file(name, format);
    numpy::volume(bytes, source, &fragment.place, &rendering)?.in_levels(source, &rendering)
}

impl Scan {
    fn in_levels(self, source: Source, rendering: &Rendering) -> Result<Volume, Error> {
        let Scan { depth, height, width, values, is_grey } = self;
        let levels = match is_grey && rendering.window == Window::Auto {
            true => Levels { black: 0.0, white: 255.0 },
            false => levels::of_window(&rendering.window, &values).map_err(|reason| source.no_such(reason))?,
        };
        let levels = values.into_iter().map(|value| levels.level(value)).collect();
        Ok(Volume { lengths: [depth, height, width], levels })
    }
}

/// Squeezes a volume into the cube that `spec` says, by its filter along each axis: 8-bit, and worth caching.
///
/// # Panics
/// If `spec` is of images, or the volume has no voxel.
pub fn fit_volume(volume: &Volume, spec: &Preprocess) -> Volume {
    let lengths = [spec.depth.expect("a preprocessing of volumes"), spec.size, spec.size];
    let levels = resize_volume((&volume.levels, volume.lengths), lengths, spec.interpolation);
    Volume { lengths, levels }
}

/// Writes `(level / 255 - mean) / std` of a fitted volume to `out`, `[depth, size, size]`, by [`Preprocess::of_voxels`].
///
/// # Panics
/// If `out` is of another length.
pub fn normalise_volume(levels: &[u8], spec: &Preprocess, out: &mut [f32]) {
    assert_eq!(out.len(), levels.len(), "voxels of a volume");
    let (mean, std) = spec.of_voxels();
    let values: [f32; 256] = std::array::from_fn(|level| (level as f32 / 255.0 - mean) / std);
    out.iter_mut().zip(levels).for_each(|(value, &level)| *value = values[usize::from(level)]);
}
