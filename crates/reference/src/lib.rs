//! A second engine: naive, in f64, slow, to hold the others to.
//!
//! It knows of `melo-model` what everyone may know, and computes every pass of [`Engine`] as the papers write it: one row at
//! a time, one image at a time, and every slope by central differences, so that no backward pass has to be believed. It is
//! made for networks of a few thousand parameters; a step on one with low-rank updates takes some hundredths of a second
//! an image.

mod network;

use melo_vit::{
    Adapter, Backbone, BackboneInfo, Batch, Decoder, Device, Engine, EngineInfo, Error, ExplainMethod, Explanation,
    Features, Gradients, Head, ImageSource, Peak, PluginRef, Pool, Precision, Segment, VitConfig, Weights,
};
use network::{Network, Pass, Row};
use std::sync::Arc;

/// The device that computes in f64, on the thread that asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Device for Reference {
    fn info(&self) -> EngineInfo {
        EngineInfo { engine: "reference", device: "f64".to_owned(), precision: Precision::F32, threads: 1 }
    }

    fn load(&self, backbone: Backbone) -> Result<Arc<dyn Engine>, Error> {
        let (backbone, weights) = backbone.into_parts();
        Ok(Arc::new(ReferenceEngine { backbone, weights }))
    }

    fn peak(&self) -> Option<Peak> {
        None
    }
}

/// A backbone as its file has it.
#[derive(Debug)]
struct ReferenceEngine {
    backbone: BackboneInfo,
    weights: Weights,
}

impl ReferenceEngine {
    /// The network for images of this side, with positions of their own, or for what a source gives embedded.
    fn network(&self, size: usize, layers: Option<usize>, plugin: PluginRef<'_>) -> Result<Network, Error> {
        let (mut config, mut weights) = (self.backbone.config().clone(), self.weights.clone());
        weights.resize_positions(&mut config, size);
        let mut network = Network::new(config, &weights, plugin);
        network.layers = layers;
        Ok(network)
    }

    fn load(&self, source: &dyn ImageSource, index: usize, size: usize) -> Result<Vec<f32>, Error> {
        let config = self.backbone.config();
        let len = match source.layers() {
            None => 3 * size * size,
            Some(layers) => layers * (size / config.patch).pow(2) * config.width,
        };
        let mut image = vec![0.0; len];
        source.load(index, &mut image).map_err(|source| Error::Image { index, source })?;
        Ok(image)
    }
}

fn rounded(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

impl Engine for ReferenceEngine {
    fn backbone(&self) -> &BackboneInfo {
        &self.backbone
    }

    fn info(&self) -> EngineInfo {
        Reference.info()
    }

    fn forward(
        &self,
        source: &dyn ImageSource,
        size: usize,
        segments: &[Segment<'_>],
    ) -> Result<Vec<Vec<Vec<f32>>>, Error> {
        self.backbone.check_source(source, size)?;
        let mut next = 0;
        let mut logits = Vec::new();
        for Segment { images, plugins } in segments {
            assert_eq!(images.start, next, "segments are consecutive from image 0");
            next = images.end;
            let networks: Vec<_> =
                plugins.iter().map(|&plugin| self.network(size, source.layers(), plugin)).collect::<Result<_, _>>()?;
            let mut of_segment = vec![Vec::new(); networks.len()];
            for index in images.clone().filter(|_| !networks.is_empty()) {
                let image = self.load(source, index, size)?;
                for (logits, network) in of_segment.iter_mut().zip(&networks) {
                    logits.extend(rounded(&network.pass(index, image.clone()).logits));
                }
            }
            logits.push(of_segment);
        }
        Ok(logits)
    }

    fn step(
        &self,
        batch: &Batch<'_>,
        adapter: &Adapter,
        head: &Head,
        gradients: &mut Gradients,
    ) -> Result<(f64, Vec<f32>), Error> {
        self.backbone.check_source(batch.source, batch.size)?;
        let layers = batch.source.layers();
        let mut network = self.network(batch.size, layers, PluginRef { adapter: Some(adapter), head })?;
        network.dropout = batch.dropout;
        let config = self.backbone.config();
        assert!(
            gradients.weights.is_none() || batch.size == config.image_size,
            "all weights are trained at their own image size"
        );
        let images = (0..batch.images).map(|index| self.load(batch.source, index, batch.size));
        let images: Vec<Vec<f32>> = images.collect::<Result<_, _>>()?;

        let (mut loss, mut all_logits, mut passes) = (0.0, Vec::new(), Vec::<(Pass, Row)>::new());
        for (index, image) in images.into_iter().enumerate() {
            let pass = network.pass(index, image);
            let logits = rounded(&pass.logits);
            let mut d_logits = vec![0.0; logits.len()];
            loss += (batch.loss)(index, &logits, &mut d_logits);
            all_logits.extend(logits);
            passes.push((pass, d_logits.into_iter().map(f64::from).collect()));
        }
        let named = names(config, adapter, head).into_iter().zip(gradients.tensors_mut());
        for (index, (pass, d_logits)) in passes.iter().enumerate().filter(|_| layers.is_some()) {
            batch.source.take_gradient(index, &rounded(&network.patch_slopes(pass, d_logits)));
        }
        // What a decoder holds is not the network's.
        for (name, gradient) in named.filter(|(name, _)| !name.starts_with(Decoder::PREFIX)) {
            add_slopes(gradient, &mut network, &name, &passes);
        }
        Ok((loss, all_logits))
    }

    fn explain(
        &self,
        image: &[f32],
        size: usize,
        plugin: PluginRef<'_>,
        class: usize,
        method: ExplainMethod,
    ) -> Result<Explanation, Error> {
        plugin.head.check_explained(self.info().engine)?;
        self.backbone.check_size(size)?;
        let mut network = self.network(size, None, plugin)?;
        assert_eq!(image.len(), 3 * size * size, "length of [3, {size}, {size}]");
        let mut d_logits = vec![0.0; plugin.head.rows()];
        d_logits[class] = 1.0;
        let config = self.backbone.config();
        let pass = network.pass(0, image.to_vec());
        let tokens = config.tokens(size);
        let identity = |i: usize, j: usize| f64::from(u8::from(i == j));
        let mut relevance: Vec<Row> = (0..tokens).map(|i| (0..tokens).map(|j| identity(i, j)).collect()).collect();
        for block in 0..config.depth {
            let attention = network.attention(block, &pass);
            let slopes = match method {
                ExplainMethod::Rollout => Vec::new(),
                ExplainMethod::Gradient => network.attention_slopes(block, &pass, &d_logits),
            };
            let mean = |at: usize| {
                let heads = (0..config.heads).map(|head| head * tokens * tokens + at);
                let entries =
                    heads.map(|at| slopes.get(at).map_or(attention[at], |slope| (slope * attention[at]).max(0.0)));
                entries.sum::<f64>() / config.heads as f64
            };
            let of_block = |i: usize, j: usize| match method {
                ExplainMethod::Rollout => 0.5 * mean(i * tokens + j) + 0.5 * identity(i, j),
                ExplainMethod::Gradient => mean(i * tokens + j) + identity(i, j),
            };
            let entry = |i: usize, j: usize| (0..tokens).map(|k| of_block(i, k) * relevance[k][j]).sum();
            relevance = (0..tokens).map(|i| (0..tokens).map(|j| entry(i, j)).collect()).collect();
        }
        let read_by_pool = (config.pool == Pool::Map)
            .then(|| network.pool_relevance(&pass, (method == ExplainMethod::Gradient).then_some(&d_logits[..])));
        if method == ExplainMethod::Gradient && read_by_pool.is_none() {
            relevance.iter_mut().enumerate().for_each(|(i, row)| row[i] -= 1.0);
        }
        let share = |i: usize| match &read_by_pool {
            Some(read) => i.checked_sub(config.prefix_tokens()).map_or(0.0, |patch| read[patch]),
            None => share(config, tokens, i),
        };
        let read = |j: usize| (0..tokens).map(|i| share(i) * relevance[i][j]).sum::<f64>() as f32;
        let mut prefix: Vec<f32> = (0..tokens).map(read).collect();
        let values = prefix.split_off(config.prefix_tokens());
        Ok(Explanation { grid: size / config.patch, values, prefix, logits: rounded(&pass.logits) })
    }

    fn embed(
        &self,
        source: &dyn ImageSource,
        images: usize,
        size: usize,
        adapter: Option<&Adapter>,
    ) -> Result<Vec<f32>, Error> {
        self.backbone.check_source(source, size)?;
        let head = Head::zeros(0, self.backbone.config().feature_width());
        let network = self.network(size, source.layers(), PluginRef { adapter, head: &head })?;
        let features = |index| Ok(rounded(&network.pass(index, self.load(source, index, size)?).features));
        Ok((0..images).map(features).collect::<Result<Vec<_>, Error>>()?.concat())
    }

    fn features(
        &self,
        source: &dyn ImageSource,
        images: usize,
        size: usize,
        adapter: Option<&Adapter>,
        features: Features,
    ) -> Result<Vec<f32>, Error> {
        features.check(self.backbone.config())?;
        self.backbone.check_source(source, size)?;
        let head = Head::zeros(0, self.backbone.config().feature_width());
        let network = self.network(size, source.layers(), PluginRef { adapter, head: &head })?;
        let of_image =
            |index| Ok(rounded(&network.features_of(&network.pass(index, self.load(source, index, size)?), features)));
        Ok((0..images).map(of_image).collect::<Result<Vec<_>, Error>>()?.concat())
    }

    fn with_weights(&self, weights: &Weights) -> Result<Arc<dyn Engine>, Error> {
        Ok(Arc::new(ReferenceEngine { backbone: self.backbone.in_training(), weights: weights.clone() }))
    }
}

/// Names of adapter, head and backbone tensors, in the order of [`Gradients::tensors`].
fn names(config: &VitConfig, adapter: &Adapter, head: &Head) -> Vec<String> {
    let shapes = adapter.tensor_shapes(config).into_iter().chain(head.shapes()).chain(config.tensor_shapes());
    shapes.map(|(name, _)| name).collect()
}

/// Adds to a gradient the slopes of the passes, each with the slope of the loss by its logits.
fn add_slopes(gradient: &mut [f32], network: &mut Network, name: &str, passes: &[(Pass, Row)]) {
    let mut sum = vec![0.0; gradient.len()];
    for (pass, d_logits) in passes {
        network.slopes(name, pass, d_logits).iter().zip(&mut sum).for_each(|(slope, sum)| *sum += slope);
    }
    gradient.iter_mut().zip(sum).for_each(|(gradient, slope)| *gradient += slope as f32);
}

/// The share of a token's row in an explanation, see [`Engine::explain`].
fn share(config: &VitConfig, tokens: usize, token: usize) -> f64 {
    let (class, prefix) = (config.class_tokens(), config.prefix_tokens());
    let of_class = if token < class { 1.0 / class as f64 } else { 0.0 };
    let of_patches = if token >= prefix { 1.0 / (tokens - prefix) as f64 } else { 0.0 };
    match config.pool {
        Pool::Token => of_class,
        Pool::Avg => of_patches,
        Pool::TokenAvg => (of_class + of_patches) / 2.0,
        Pool::Map => 0.0,
    }
}
