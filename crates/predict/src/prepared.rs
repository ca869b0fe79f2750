//! An image as tasks want it: decoded once a rendering, prepared once a preprocessing.

use crate::error::Error;
use crate::input::Input;
use melo_imaging::{
    Pixels, Seen, Volume, check_fit, crop_normalise, decode_seen, decode_volume, fit, fit_volume, normalise_volume,
    read_seen, read_volume,
};
use melo_vit::{BoundPlugin, Preprocess, Rendering};
use rayon::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// An image prepared for a list of tasks.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Network input `[3, s, s]` of each task, or voxels `[depth, s, s]`, in their order; equal preprocessings share one.
    pub inputs: Vec<Arc<[f32]>>,
    /// The decoded image as each task's window renders it, of a volume its middle layer, in the same order; empty where they were not
    /// kept.
    pub pixels: Vec<Arc<Pixels>>,
    /// Width and height of the decoded image, in the same order.
    pub sides: Vec<(usize, usize)>,
    /// What the decoder saw under each task's rendering, in the same order.
    pub seen: Vec<Seen>,
}

impl Prepared {
    /// From a file's bytes; `name` is for messages, and for formats that are told by their ending.
    ///
    /// # Errors
    /// As [`decode_seen`].
    pub fn of_bytes(
        bytes: &[u8],
        name: &Path,
        specs: &[&Preprocess],
        keep_pixels: bool,
    ) -> Result<Self, melo_imaging::Error> {
        let pixels = |rendering: &Rendering| checked(name, specs, decode_seen(bytes, name, rendering)?);
        Prepared::new(specs, keep_pixels, pixels, |rendering| decode_volume(bytes, name, rendering))
    }

    /// From a file.
    ///
    /// # Errors
    /// As [`read_seen`].
    pub fn of_file(path: &Path, specs: &[&Preprocess], keep_pixels: bool) -> Result<Self, melo_imaging::Error> {
        let pixels = |rendering: &Rendering| checked(path, specs, read_seen(path, rendering)?);
        Prepared::new(specs, keep_pixels, pixels, |rendering| read_volume(path, rendering))
    }

    /// From whatever gives an image under a rendering, asked once for each, and a volume.
    ///
    /// # Errors
    /// As `decode` and `volume`.
    pub fn new<E>(
        specs: &[&Preprocess],
        keep_pixels: bool,
        mut decode: impl FnMut(&Rendering) -> Result<(Pixels, Seen), E>,
        mut volume: impl FnMut(&Rendering) -> Result<Volume, E>,
    ) -> Result<Self, E> {
        let mut rendered: Vec<(&Rendering, Arc<Pixels>, Seen)> = Vec::new();
        let mut prepared = Prepared { inputs: Vec::new(), pixels: Vec::new(), sides: Vec::new(), seen: Vec::new() };
        for (index, &spec) in specs.iter().enumerate() {
            if spec.depth.is_some() {
                prepared.add_volume((specs, index), keep_pixels, &volume(&spec.rendering)?);
                continue;
            }
            // Nearly always all tasks want the same pixels.
            let known = rendered.iter().position(|(rendering, ..)| **rendering == spec.rendering);
            let place = match known {
                Some(place) => place,
                None => {
                    let (pixels, seen) = decode(&spec.rendering)?;
                    rendered.push((&spec.rendering, Arc::new(pixels), seen));
                    rendered.len() - 1
                }
            };
            let (_, pixels, seen) = &rendered[place];
            prepared.seen.push(seen.clone());
            prepared.sides.push((pixels.width, pixels.height));
            let input = match specs[..index].iter().position(|&earlier| earlier == spec) {
                Some(equal) => Arc::clone(&prepared.inputs[equal]),
                None => {
                    // Written where it stays: a copy of it would cost as much as all else here.
                    let mut input: Arc<[f32]> = std::iter::repeat_n(0.0, 3 * spec.size * spec.size).collect();
                    let out = Arc::get_mut(&mut input).expect("an input that nobody has yet");
                    crop_normalise(&fit(pixels, spec), spec, out);
                    input
                }
            };
            prepared.inputs.push(input);
            if keep_pixels {
                prepared.pixels.push(Arc::clone(pixels));
            }
        }
        Ok(prepared)
    }

    /// A volume as the task at `index` of `specs` wants it.
    fn add_volume(&mut self, (specs, index): (&[&Preprocess], usize), keep_pixels: bool, volume: &Volume) {
        let (spec, [depth, height, width]) = (specs[index], volume.lengths);
        self.seen.push(Seen::default());
        self.sides.push((width, height));
        let input = match specs[..index].iter().position(|&earlier| earlier == spec) {
            Some(equal) => Arc::clone(&self.inputs[equal]),
            None => {
                let fitted = fit_volume(volume, spec);
                let mut voxels = vec![0.0; fitted.levels.len()];
                normalise_volume(&fitted.levels, spec, &mut voxels);
                voxels.into()
            }
        };
        self.inputs.push(input);
        if keep_pixels {
            let middle = volume.levels.chunks_exact(height * width).nth(depth / 2).unwrap_or_default();
            let rgb = middle.iter().flat_map(|&level| [level; 3]).collect();
            self.pixels.push(Arc::new(Pixels { width, height, rgb }));
        }
    }

    /// What the predictor is asked: tasks that want the same input go together. With it comes, for each task, the number
    /// of its input and its place among that input's plug-ins.
    ///
    /// # Panics
    /// If there are not as many plug-ins as the image was prepared for.
    pub fn asking(&self, plugins: &[Arc<BoundPlugin>]) -> (Vec<Input>, Vec<(usize, usize)>) {
        assert_eq!(plugins.len(), self.inputs.len(), "an image prepared for other tasks");
        let (mut inputs, mut places) = (Vec::<Input>::new(), Vec::new());
        for (plugin, pixels) in plugins.iter().zip(&self.inputs) {
            let same = |input: &Input| Arc::ptr_eq(&input.pixels, pixels);
            let place = inputs.iter().position(same).unwrap_or(inputs.len());
            if place == inputs.len() {
                let size = plugin.card.preprocess.size;
                inputs.push(Input { size, pixels: Arc::clone(pixels), plugins: Vec::new() });
            }
            places.push((place, inputs[place].plugins.len()));
            inputs[place].plugins.push(Arc::clone(plugin));
        }
        (inputs, places)
    }
}

/// A decoded image that can be resized for all tasks.
fn checked(
    name: &Path,
    specs: &[&Preprocess],
    (pixels, seen): (Pixels, Seen),
) -> Result<(Pixels, Seen), melo_imaging::Error> {
    specs.iter().try_for_each(|spec| check_fit(name, pixels.width, pixels.height, spec))?;
    Ok((pixels, seen))
}

/// Files prepared for these plug-ins, on all threads; each that cannot be read says why.
pub fn prepare_files<P: AsRef<Path> + Sync>(
    paths: &[P],
    plugins: &[Arc<BoundPlugin>],
    keep_pixels: bool,
) -> Vec<Result<Prepared, Error>> {
    let specs: Vec<&Preprocess> = plugins.iter().map(|plugin| &plugin.card.preprocess).collect();
    paths.par_iter().map(|path| Ok(Prepared::of_file(path.as_ref(), &specs, keep_pixels)?)).collect()
}
