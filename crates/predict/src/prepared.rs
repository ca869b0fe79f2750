//! An image as tasks want it: decoded once a rendering, prepared once a preprocessing.

use crate::error::Error;
use crate::input::Input;
use melo_imaging::{Pixels, Seen, check_fit, decode_seen, prepare, read_seen};
use melo_vit::{BoundPlugin, Preprocess, Rendering};
use rayon::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// An image prepared for a list of tasks.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Network input `[3, s, s]` of each task, in their order; equal preprocessings share one.
    pub inputs: Vec<Arc<[f32]>>,
    /// The decoded image as each task's window renders it, in the same order; empty where they were not kept.
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
        Prepared::new(specs, keep_pixels, |rendering| checked(name, specs, decode_seen(bytes, name, rendering)?))
    }

    /// From a file.
    ///
    /// # Errors
    /// As [`read_seen`].
    pub fn of_file(path: &Path, specs: &[&Preprocess], keep_pixels: bool) -> Result<Self, melo_imaging::Error> {
        Prepared::new(specs, keep_pixels, |rendering| checked(path, specs, read_seen(path, rendering)?))
    }

    /// From whatever gives an image under a rendering; it is asked once for each.
    ///
    /// # Errors
    /// As `decode`.
    pub fn new<E>(
        specs: &[&Preprocess],
        keep_pixels: bool,
        mut decode: impl FnMut(&Rendering) -> Result<(Pixels, Seen), E>,
    ) -> Result<Self, E> {
        let mut rendered: Vec<(&Rendering, Arc<Pixels>, Seen)> = Vec::new();
        let mut prepared = Prepared { inputs: Vec::new(), pixels: Vec::new(), sides: Vec::new(), seen: Vec::new() };
        for (index, &spec) in specs.iter().enumerate() {
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
                None => prepare(pixels, spec).into(),
            };
            prepared.inputs.push(input);
            if keep_pixels {
                prepared.pixels.push(Arc::clone(pixels));
            }
        }
        Ok(prepared)
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
