//! One image as the inputs of several tasks: decoded once a rendering, prepared once a [`Preprocess`].

use crate::{Error, Pixels, decode_with, prepare};
use melo_vit::{Preprocess, Rendering};
use std::path::Path;
use std::sync::Arc;

/// Network input `[3, size, size]` under each of `specs`; equal specs share one.
///
/// # Errors
/// As [`decode_with`].
pub fn prepare_all(bytes: &[u8], name: &Path, specs: &[&Preprocess]) -> Result<Vec<Arc<[f32]>>, Error> {
    let mut rendered: Vec<(&Rendering, Pixels)> = Vec::new();
    let mut inputs: Vec<Arc<[f32]>> = Vec::new();
    for (index, &spec) in specs.iter().enumerate() {
        if let Some(equal) = specs[..index].iter().position(|&earlier| earlier == spec) {
            inputs.push(Arc::clone(&inputs[equal]));
            continue;
        }
        // Nearly always all tasks want the same pixels.
        let known = rendered.iter().position(|(rendering, _)| **rendering == spec.rendering);
        let place = match known {
            Some(place) => place,
            None => {
                rendered.push((&spec.rendering, decode_with(bytes, name, &spec.rendering)?));
                rendered.len() - 1
            }
        };
        inputs.push(prepare(&rendered[place].1, spec).into());
    }
    Ok(inputs)
}
