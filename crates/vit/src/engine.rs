//! The seam between what a backbone *is* and what *computes* with it.
//!
//! ```text
//! DeviceSpec --open--> Device --load(Backbone)--> Engine: forward, step, explain, embed
//! ```
//!
//! The cut is at whole passes: an engine gets images, plug-ins and a loss, and gives logits, gradients or relevance. How it
//! groups a batch, where it keeps activations, which threads and which numbers it uses is its own affair. The plug-in is an
//! argument of every pass and nothing is merged, so switching tasks costs nothing. `docs/adding-an-engine.md` tells how
//! an engine is added.

use crate::adapter::Adapter;
use crate::backbone::{Backbone, BackboneInfo};
use crate::dropout::Dropout;
use crate::error::Error;
use crate::explanation::{ExplainMethod, Explanation};
use crate::features::{FeatureKind, Features};
use crate::gradients::Gradients;
use crate::head::Head;
use crate::image::{ImagePart, ImageSource};
use crate::plugin::Plugin;
use crate::weights::{Layer, Weights};
use melo_kernels::Precision;
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

/// What computes, and how: for cards, reports and logs.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineInfo {
    /// Kind of engine, such as `cpu`: with the precision it says how closely self-tests must agree.
    pub engine: &'static str,
    /// What it runs on, such as `AVX-512`.
    pub device: String,
    /// Numbers in the matrix products.
    pub precision: Precision,
    /// Threads that compute.
    pub threads: usize,
}

/// How far a layer in 8-bit integers is from itself in other numbers, measured on the first image of the self-test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerError {
    /// Number of the block, from 0.
    pub block: usize,
    /// Which of its matrices.
    pub layer: Layer,
    /// Euclidean length of the difference of its results, in parts of theirs; infinite where integers cannot hold the weight.
    pub error: f32,
    /// True where it is computed in integers; false where that is too far, and it stays in bfloat16, or f32 where that is faster.
    pub integers: bool,
}

/// The most that a device can do, measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Multiplications and additions a second, in registers.
    pub flops_per_s: f64,
    /// Bytes read and written a second by copies in its memory.
    pub copy_bytes_per_s: f64,
}

/// Makes engines that compute on one device in one precision.
pub trait Device: Debug + Send + Sync {
    /// What its engines say of themselves.
    fn info(&self) -> EngineInfo;

    /// Takes a backbone over.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a network that this device cannot compute.
    fn load(&self, backbone: Backbone) -> Result<Arc<dyn Engine>, Error>;

    /// The layout of packed weights, such as `bf16-bf16-avx512bf16-0.2.0-v1`: what one device writes another maps where their layouts are
    /// the same. None where it keeps none.
    fn packed_layout(&self) -> Option<String> {
        None
    }

    /// The engine that [`Engine::write_packed`] wrote under this key in this layout; none where a byte of it is another.
    fn map_packed(&self, _file: &File, _key: &str) -> Option<Arc<dyn Engine>> {
        None
    }

    /// The most that it can do in its precision, measured now: takes about a second. None where that cannot be measured.
    fn peak(&self) -> Option<Peak>;
}

/// A plug-in as passes take it, or a part of one.
#[derive(Clone, Copy, Debug)]
pub struct PluginRef<'a> {
    /// Low-rank matrices and bottlenecks; none for the bare backbone.
    pub adapter: Option<&'a Adapter>,
    /// Classifier.
    pub head: &'a Head,
}

impl<'a> From<&'a Plugin> for PluginRef<'a> {
    fn from(plugin: &'a Plugin) -> Self {
        PluginRef { adapter: Some(&plugin.adapter), head: &plugin.head }
    }
}

/// Consecutive images, and the plug-ins that are asked about each of them.
#[derive(Clone, Debug)]
pub struct Segment<'a> {
    /// Indices of the images in the source.
    pub images: Range<usize>,
    /// Their plug-ins. One that several segments share is best the same reference: it is then computed together.
    pub plugins: Vec<PluginRef<'a>>,
}

/// Loss of one image: gets its index in the batch and its outputs, [`Head::outputs`] of them, writes their gradient, returns the loss.
pub type ImageLoss<'a> = dyn Fn(usize, &[f32], &mut [f32]) -> f64 + Sync + 'a;

/// One training step's input.
pub struct Batch<'a> {
    /// Where images come from.
    pub source: &'a dyn ImageSource,
    /// Number of images `n`; indices are `0..n`.
    pub images: usize,
    /// Side of the images, pixels.
    pub size: usize,
    /// Loss of an image, already divided by whatever the mean is over.
    pub loss: &'a ImageLoss<'a>,
    /// Dropout on the low-rank updates.
    pub dropout: Option<Dropout>,
}

/// A backbone on a device.
///
/// It owns its scratch memory and its threads, and may be called from several threads at once.
pub trait Engine: Debug + Send + Sync {
    /// The backbone it computes with.
    fn backbone(&self) -> &BackboneInfo;

    /// What it is and runs on.
    fn info(&self) -> EngineInfo;

    /// What 8-bit integers do to each layer of its blocks; empty in other precisions.
    fn layer_errors(&self) -> &[LayerError] {
        &[]
    }

    /// Logits of every image under each of its plug-ins: `result[segment][k]` is `[images, c]` of the segment's `plugins[k]`, or
    /// `[images, patches, rows]` of one whose head [reads patch tokens](Head::blocks).
    /// Segments are consecutive from image 0; each image that has a plug-in is loaded once.
    ///
    /// # Errors
    /// [`Error::ImageSize`], [`Error::Image`].
    ///
    /// # Panics
    /// If segments are not consecutive from image 0, or a plug-in is of another network.
    fn forward(
        &self,
        source: &dyn ImageSource,
        size: usize,
        segments: &[Segment<'_>],
    ) -> Result<Vec<Vec<Vec<f32>>>, Error>;

    /// As [`Engine::forward`]; behind the outputs of an image come its intermediates: of each of `blocks`, from 0 and ascending, what the
    /// block gave under that plug-in, without a norm, as the class token, where there is one, and the mean of the patch tokens
    /// ([`VitConfig::intermediate_width`] numbers). By default asked for by [`Engine::features`], at the price of a pass each.
    ///
    /// # Errors
    /// As [`Engine::forward`] and [`Engine::features`].
    ///
    /// # Panics
    /// As [`Engine::forward`].
    fn forward_intermediates(
        &self,
        source: &dyn ImageSource,
        size: usize,
        segments: &[Segment<'_>],
        blocks: &[usize],
    ) -> Result<Vec<Vec<Vec<f32>>>, Error> {
        let mut found = self.forward(source, size, segments)?;
        if blocks.is_empty() {
            return Ok(found);
        }
        let (config, kinds) = (self.backbone().config(), [FeatureKind::Class, FeatureKind::Mean]);
        for (Segment { images, plugins }, found) in segments.iter().zip(&mut found) {
            let source = ImagePart { source, first: images.start };
            for (plugin, found) in plugins.iter().zip(found) {
                let outputs = plugin.head.outputs(config, size);
                let mut rows: Vec<Vec<f32>> = found.chunks_exact(outputs).map(<[f32]>::to_vec).collect();
                for features in blocks.iter().flat_map(|&block| kinds.map(|kind| Features { kind, block, norm: false }))
                {
                    if features.kind == FeatureKind::Class && config.class_tokens() == 0 {
                        continue;
                    }
                    let of = self.features(&source, images.len(), size, plugin.adapter, features)?;
                    rows.iter_mut().zip(of.chunks_exact(config.width)).for_each(|(row, of)| row.extend(of));
                }
                *found = rows.concat();
            }
        }
        Ok(found)
    }

    /// Forward, loss and backward of a batch: adds to `gradients`, returns the summed loss and the logits `[n, c]`, or `[n, patches, rows]` as
    /// in [`Engine::forward`]; what a head's decoder holds gets its gradient elsewhere.
    ///
    /// # Errors
    /// [`Error::ImageSize`], [`Error::Image`], [`Error::Unsupported`]; `gradients` is then unchanged.
    ///
    /// # Panics
    /// If all weights are trained at another image size than their own, or a plug-in is of another network.
    fn step(
        &self,
        batch: &Batch<'_>,
        adapter: &Adapter,
        head: &Head,
        gradients: &mut Gradients,
    ) -> Result<(f64, Vec<f32>), Error>;

    /// Lanes in which [`Engine::step_lanes`] sums the gradients of so many images: a function of their number alone. By default one.
    fn lanes(&self, images: usize) -> usize {
        images.min(1)
    }

    /// Some lanes of a batch, each apart: a step whose lanes are computed in several places, and added in their order, is the same to the
    /// last bit wherever each was. Overwrites `gradients`, one a lane; returns each lane's loss and logits. [`Engine::step`] is the sum of
    /// all lanes, but where all weights are trained: to save memory it may then have fewer.
    ///
    /// # Errors
    /// As [`Engine::step`]; gradients may then be anything.
    ///
    /// # Panics
    /// As [`Engine::step`], and if there is not one gradient a lane.
    fn step_lanes(
        &self,
        batch: &Batch<'_>,
        adapter: &Adapter,
        head: &Head,
        lanes: Range<usize>,
        gradients: &mut [Gradients],
    ) -> Result<Vec<(f64, Vec<f32>)>, Error> {
        assert!(lanes.end <= self.lanes(batch.images) && lanes.len() == gradients.len(), "a gradient for each lane");
        let whole = |gradients: &mut Gradients| {
            gradients.clear();
            self.step(batch, adapter, head, gradients)
        };
        gradients.iter_mut().map(whole).collect()
    }

    /// The relevance of every patch of `image [3, size, size]`, normalised, to `class` under a plug-in.
    ///
    /// With token pooling it is the row of the class token, or the mean of its row and the distillation token's where the
    /// head reads both; with mean pooling the mean of the patches' rows; half of each where the head reads both. With attention
    /// pooling it is what pooling itself read of each patch, taken through the blocks.
    ///
    /// # Errors
    /// [`Error::ImageSize`], [`Error::Unsupported`].
    ///
    /// # Panics
    /// If `image` is not `[3, size, size]`, or the plug-in has no such class.
    fn explain(
        &self,
        image: &[f32],
        size: usize,
        plugin: PluginRef<'_>,
        class: usize,
        method: ExplainMethod,
    ) -> Result<Explanation, Error>;

    /// Features `[n, feature width]` of images `0..n`, what heads read, under an adapter or bare.
    ///
    /// # Errors
    /// As [`Engine::forward`].
    fn embed(
        &self,
        source: &dyn ImageSource,
        images: usize,
        size: usize,
        adapter: Option<&Adapter>,
    ) -> Result<Vec<f32>, Error>;

    /// Other features of images `0..n` than what heads read, or those: `[n, …]` as [`Features::shape`] says, under an adapter or bare.
    ///
    /// # Errors
    /// As [`Engine::forward`]; [`Error::Features`] for what the network does not have; [`Error::Unsupported`] by default for all but
    /// what heads read.
    fn features(
        &self,
        source: &dyn ImageSource,
        images: usize,
        size: usize,
        adapter: Option<&Adapter>,
        features: Features,
    ) -> Result<Vec<f32>, Error> {
        let config = self.backbone().config();
        features.check(config)?;
        if features == Features::pooled(config) {
            return self.embed(source, images, size, adapter);
        }
        Err(Error::Unsupported { engine: self.info().engine, what: "features other than what heads read".to_owned() })
    }

    /// Logits `[n, c]` of features `[n, feature width]` that [`Engine::embed`] gave: those of [`Engine::forward`] to the last bit where
    /// the engine computes them, by default to the rounding of f32.
    fn classify(&self, features: &[f32], head: &Head) -> Vec<f32> {
        let width = self.backbone().config().feature_width();
        let logit = |features: &[f32], class: usize| {
            let products =
                head.weight[class * width..].iter().zip(features).map(|(w, x)| f64::from(*w) * f64::from(*x));
            (products.sum::<f64>() + f64::from(head.bias[class])) as f32
        };
        let rows = features.chunks_exact(width);
        rows.flat_map(|row| (0..head.rows()).map(move |class| logit(row, class))).collect()
    }

    /// [`Engine::step`] of a head alone, without dropout, on features `[n, feature width]` that [`Engine::embed`] gave: adds to
    /// `gradient`, returns the summed loss and the logits `[n, c]`, all to the last bit those of a step on the images. None, the default,
    /// of an engine that has no such step.
    fn head_step(
        &self,
        _features: &[f32],
        _loss: &ImageLoss<'_>,
        _head: &Head,
        _gradient: &mut Head,
    ) -> Option<(f64, Vec<f32>)> {
        None
    }

    /// An engine over other weights of this network, as they are in the course of training; it shares this one's threads
    /// and scratch memory, and its backbone has no digest.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    fn with_weights(&self, weights: &Weights) -> Result<Arc<dyn Engine>, Error>;

    /// Writes what [`Device::map_packed`] maps.
    ///
    /// # Errors
    /// What the writer answers; [`io::ErrorKind::Unsupported`] of a device without [`Device::packed_layout`].
    fn write_packed(&self, _key: &str, _into: &mut dyn Write) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl dyn Engine + '_ {
    /// Logits `[n, c]` of images `0..n` under one plug-in.
    ///
    /// # Errors
    /// As [`Engine::forward`].
    pub fn logits(
        &self,
        source: &dyn ImageSource,
        images: usize,
        size: usize,
        plugin: PluginRef<'_>,
    ) -> Result<Vec<f32>, Error> {
        let segments = [Segment { images: 0..images, plugins: vec![plugin] }];
        Ok(self.forward(source, size, &segments)?.swap_remove(0).swap_remove(0))
    }
}
