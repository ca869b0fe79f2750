//! An image between its bytes and the engine.

use super::Tasks;
use crate::drift::Look;
use crate::error::Refusal;
use crate::request::Image;
use melo_predict::Prepared;
use melo_vit::rendering::Frame;
use melo_vit::{Preprocess, hex};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// An image that was read.
pub(super) struct Decoded {
    /// SHA-256 of its bytes.
    pub(super) digest: String,
    /// How many frames or pages it holds, where there are several.
    pub(super) frames: Option<usize>,
    /// As the tasks want it.
    pub(super) prepared: Prepared,
}

impl Decoded {
    pub(super) fn new(
        image: &Image,
        specs: &[Preprocess],
        frame: Option<Frame>,
        keep_pixels: bool,
    ) -> Result<Self, Refusal> {
        let specs: Vec<&Preprocess> = specs.iter().collect();
        let prepared = Prepared::of_bytes(&image.bytes, Path::new(&image.name), &specs, keep_pixels);
        let prepared = prepared.map_err(|error| Refusal::Unusable(error.to_string()))?;
        let place = prepared.seen.first().and_then(|seen| seen.place);
        let later = |frame| matches!(frame, Frame::Number(2..));
        if frame.is_some_and(later) && place.is_none() {
            let name = &image.name;
            return Err(Refusal::Unusable(format!("{name}: a frame is asked for, and the file holds one image")));
        }
        // A name may choose a frame of its own: then it is not ours to say which.
        let place = place.filter(|place| matches!(place.kind, "frame" | "page") && !image.name.contains('#'));
        let digest = hex(&Sha256::digest(&image.bytes));
        Ok(Decoded { digest, frames: place.map(|place| place.count), prepared })
    }

    /// What each task sees.
    pub(super) fn looks(&self, tasks: &Tasks) -> Vec<Look> {
        let Prepared { inputs, sides, .. } = &self.prepared;
        let mut looks: Vec<Look> = Vec::new();
        for (place, (version, _)) in tasks.iter().enumerate() {
            let known = inputs[..place].iter().position(|input| Arc::ptr_eq(input, &inputs[place]));
            let brightness = known
                .map_or_else(|| brightness(&inputs[place], &version.card.preprocess), |known| looks[known].brightness);
            looks.push(Look { width: sides[place].0, height: sides[place].1, brightness });
        }
        looks
    }

    /// The number of a frame, 1 the first, where there are several.
    pub(super) fn frame_of(&self, frame: Frame) -> Option<usize> {
        frame.place(self.frames?).map(|place| place + 1)
    }
}

/// Mean of an input `[3, s, s]`, or of voxels, before it was normalised.
fn brightness(input: &[f32], spec: &Preprocess) -> f64 {
    let channels = if spec.depth.is_some() { 1 } else { 3 };
    let of = |(values, channel): (&[f32], usize)| {
        let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
        sum / values.len() as f64 * f64::from(spec.std[channel]) + f64::from(spec.mean[channel])
    };
    input.chunks_exact(input.len() / channels).zip(0..).map(of).sum::<f64>() / channels as f64
}
