//! Volumes as an engine takes them, and a training step on them.

use super::embedding::VolumeEmbedding;
use crate::adapter::Adapter;
use crate::dropout::Dropout;
use crate::engine::{Batch, Engine, PluginRef};
use crate::error::Error;
use crate::gradients::Gradients;
use crate::head::Head;
use crate::image::{ImageError, ImagePart, ImageSource};
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Volumes whose patches are held until their gradients are added in order.
const GROUP: usize = 16;
/// Bits of a step's number that tell its groups apart where masks are drawn.
const GROUP_BITS: u32 = 20;

/// Embeds what a source gives as voxels `[depth, s, s]`, normalised.
pub struct Volumes<'a> {
    /// The voxels.
    pub voxels: &'a dyn ImageSource,
    /// What makes patches of them.
    pub embedding: &'a VolumeEmbedding,
}

impl Volumes<'_> {
    fn voxels(&self, index: usize) -> Result<Vec<f32>, ImageError> {
        let mut voxels = vec![0.0; self.embedding.voxels()];
        self.voxels.load(index, &mut voxels)?;
        Ok(voxels)
    }
}

impl ImageSource for Volumes<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        self.embedding.forward(&self.voxels(index)?, out);
        Ok(())
    }

    fn layers(&self) -> Option<usize> {
        Some(self.embedding.layers())
    }
}

/// Volumes of a step, and what the engine gives back of each.
struct Stepped<'a> {
    volumes: Volumes<'a>,
    d_patches: Vec<Mutex<Vec<f32>>>,
}

impl ImageSource for Stepped<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        self.volumes.load(index, out)
    }

    fn layers(&self) -> Option<usize> {
        self.volumes.layers()
    }

    fn take_gradient(&self, index: usize, d_patches: &[f32]) {
        *self.d_patches[index].lock().unwrap_or_else(PoisonError::into_inner) = d_patches.to_vec();
    }
}

impl dyn Engine + '_ {
    /// Logits `[n, c]` of images `0..n` under one plug-in; with an embedding, of volumes, whose source gives voxels.
    ///
    /// # Errors
    /// As [`Engine::forward`].
    pub fn logits_of(
        &self,
        source: &dyn ImageSource,
        (images, size): (usize, usize),
        plugin: PluginRef<'_>,
        embedding: Option<&VolumeEmbedding>,
    ) -> Result<Vec<f32>, Error> {
        match embedding {
            None => self.logits(source, images, size, plugin),
            Some(embedding) => self.logits(&Volumes { voxels: source, embedding }, images, size, plugin),
        }
    }

    /// [`Engine::step`] on volumes, whose source gives voxels and is asked twice for each: adds to the gradient of their embedding, too.
    ///
    /// Beside the gradients it holds the patches of 16 volumes.
    ///
    /// # Errors
    /// As [`Engine::step`]; gradients may then be anything.
    ///
    /// # Panics
    /// If all weights are trained, or a part of the plug-in is of another network.
    pub fn volume_step(
        &self,
        batch: &Batch<'_>,
        (adapter, head): (&Adapter, &Head),
        embedding: &VolumeEmbedding,
        (of_embedding, gradients): (&mut VolumeEmbedding, &mut Gradients),
    ) -> Result<(f64, Vec<f32>), Error> {
        let (mut sum, mut all_logits) = (0.0, Vec::new());
        for (number, first) in (0..batch.images).step_by(GROUP).enumerate() {
            let images = GROUP.min(batch.images - first);
            let voxels = ImagePart { source: batch.source, first };
            let volumes = Volumes { voxels: &voxels, embedding };
            let source = Stepped { volumes, d_patches: (0..images).map(|_| Mutex::default()).collect() };
            let loss =
                |image: usize, logits: &[f32], d_logits: &mut [f32]| (batch.loss)(first + image, logits, d_logits);
            let group = Batch {
                source: &source,
                images,
                size: batch.size,
                loss: &loss,
                dropout: batch.dropout.map(|of| Dropout { step: of.step << GROUP_BITS | number as u64, ..of }),
            };
            let (loss, logits) = self.step(&group, adapter, head, gradients)?;
            sum += loss;
            all_logits.extend(logits);
            let d_patches = source.d_patches.into_par_iter().enumerate();
            let of_volumes = d_patches.map(|(index, d_patches)| {
                let voxels = source.volumes.voxels(index).map_err(|source| Error::Image { index, source })?;
                Ok((embedding.unfold(&voxels), d_patches.into_inner().unwrap_or_else(PoisonError::into_inner)))
            });
            embedding.backward(&of_volumes.collect::<Result<Vec<_>, Error>>()?, of_embedding);
        }
        Ok((sum, all_logits))
    }
}
