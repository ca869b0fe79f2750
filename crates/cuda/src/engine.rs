//! The passes of [`Engine`]: a batch in groups that the card has memory for, images of the next one loaded while one is computed.

use crate::backward::Sums;
use crate::forward::Pass;
use crate::gpu::{Gpu, Memory};
use crate::network::{Network, Positions, Shape};
use crate::operations::Rows;
use crate::plan::{Plan, Store};
use crate::{Cuda, ENGINE};
use melo_vit::{
    Adapter, BackboneInfo, Batch, Device, Engine, EngineInfo, Error, ExplainMethod, Explanation, FeatureKind, Features,
    Gradients, Head, ImageSource, PluginRef, Pool, Segment, Weights,
};
use rayon::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most entries of a group: enough to fill the largest card with the rows of small networks.
const MOST_OF_A_GROUP: usize = 64;

/// A backbone on a card.
#[derive(Debug)]
pub(crate) struct CudaEngine {
    device: Cuda,
    backbone: BackboneInfo,
    pub(crate) network: Network,
    /// Held through a whole pass: one at a time.
    memory: Mutex<Memory>,
    /// Those of the shape that was asked for last.
    positions: Mutex<Option<Arc<Positions>>>,
}

/// What was loaded of a group: images `[n, 3, s, s]`, or their embedded patches.
type Loaded = Result<Vec<f32>, Error>;

impl CudaEngine {
    pub(crate) fn new(device: Cuda, backbone: BackboneInfo, weights: &Weights) -> Result<Self, Error> {
        let network = Network::new(&device.gpu, &backbone, weights, device.precision)?;
        let memory = Mutex::new(Memory::new(device.gpu.clone()));
        Ok(CudaEngine { device, backbone, network, memory, positions: Mutex::new(None) })
    }

    pub(crate) fn gpu(&self) -> &Gpu {
        &self.device.gpu
    }

    /// The buffers; those of a pass that panicked are as good as any.
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn positions(&self, shape: Shape) -> Result<Arc<Positions>, Error> {
        let mut kept = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(positions) = kept.as_ref().filter(|of| (of.size, of.layers) == shape) {
            return Ok(Arc::clone(positions));
        }
        let positions = Arc::new(self.network.positions(self.gpu(), shape)?);
        *kept = Some(Arc::clone(&positions));
        Ok(positions)
    }

    /// Entries of a group, by the memory of the card and what an image of this shape takes of it in so many blocks that are kept, and
    /// besides of each patch. All of the card's memory counts, not what is free of it: groups, and with them roundings, are the same in every
    /// run.
    fn group(&self, of: &Positions, taped: usize, dense: usize) -> usize {
        let config = &self.network.config;
        let (d, t) = (config.width, config.volume_tokens(of.size, of.layers.unwrap_or(1)));
        let (hidden, fc1) = (config.mlp_hidden, config.fc1_out());
        let pool = if self.network.attn_pool.is_some() { 3 * d } else { 0 };
        let forward = 11 * d + fc1 + 2 * hidden + pool;
        let backward = if taped > 0 { 9 * d + fc1 + hidden + pool } else { 0 };
        let kept = taped * (10 * d + fc1);
        let pixels = of.layers.map_or(3 * config.patch * config.patch, |_| 0);
        let bytes = 4 * (t * (forward + backward + kept + dense + pixels) + of.loaded(config));
        let sized = (self.gpu().0.memory() / 2 / bytes).clamp(1, MOST_OF_A_GROUP);
        self.device.group.unwrap_or(sized)
    }

    /// The images of a group, of `len` numbers each, on all cores.
    fn load(source: &dyn ImageSource, len: usize, images: &[usize]) -> Loaded {
        let mut data = vec![0.0; images.len() * len];
        let load = |(&index, image): (&usize, &mut [f32])| {
            source.load(index, image).map_err(|source| Error::Image { index, source })
        };
        let loaded: Vec<Result<(), Error>> = images.par_iter().zip(data.par_chunks_exact_mut(len)).map(load).collect();
        loaded.into_iter().collect::<Result<(), Error>>()?;
        Ok(data)
    }

    /// Group by group; the next one is loaded while one is computed.
    fn walk(
        source: &dyn ImageSource,
        len: usize,
        groups: &[Vec<usize>],
        mut work: impl FnMut(usize, &[f32]) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let load = |number: usize| groups.get(number).map(|images| Self::load(source, len, images));
        let mut loaded = load(0);
        let mut number = 0;
        while let Some(images) = loaded {
            let images = images?;
            let (worked, next) = rayon::join(|| work(number, &images), || load(number + 1));
            worked?;
            loaded = next;
            number += 1;
        }
        Ok(())
    }

    /// A pass, ready for `embed`.
    pub(crate) fn pass<'a>(
        &'a self,
        memory: &'a mut Memory,
        positions: &'a Positions,
        (store, plan): (&Store<'_>, &'a Plan),
    ) -> Result<Pass<'a>, Error> {
        let table = memory.hold("table", &plan.table)?;
        let store = memory.hold("store", &store.values)?;
        let (gpu, net) = (self.gpu(), &self.network);
        Ok(Pass { gpu, net, positions, memory, plan, store, table, dropout: None, tape_from: None, intermediates: &[] })
    }
}

pub(crate) fn unsupported(what: &str) -> Error {
    Error::Unsupported { engine: ENGINE, what: what.to_owned() }
}

/// Numbers that a pass keeps of a patch for a head that reads patches: what is read and given, and the gradients of both.
fn dense_numbers(head: &Head) -> usize {
    head.blocks().map_or(0, |_| 4 * head.width() + 2 * head.rows())
}

/// Images in groups: as long as they have no more than so many plug-ins together, but at least one.
fn groups(images: &[Vec<usize>], most: usize) -> Vec<Vec<usize>> {
    let (mut groups, mut entries) = (Vec::<Vec<usize>>::new(), 0);
    for (image, plugins) in images.iter().enumerate().filter(|(_, plugins)| !plugins.is_empty()) {
        entries += plugins.len();
        match groups.last_mut().filter(|_| entries <= most) {
            Some(group) => group.push(image),
            None => {
                groups.push(vec![image]);
                entries = plugins.len();
            }
        }
    }
    groups
}

impl Engine for CudaEngine {
    fn backbone(&self) -> &BackboneInfo {
        &self.backbone
    }

    fn info(&self) -> EngineInfo {
        self.device.info()
    }

    fn forward(
        &self,
        source: &dyn ImageSource,
        size: usize,
        segments: &[Segment<'_>],
    ) -> Result<Vec<Vec<Vec<f32>>>, Error> {
        self.forward_intermediates(source, size, segments, &[])
    }

    fn forward_intermediates(
        &self,
        source: &dyn ImageSource,
        size: usize,
        segments: &[Segment<'_>],
        blocks: &[usize],
    ) -> Result<Vec<Vec<Vec<f32>>>, Error> {
        let consecutive = segments.iter().try_fold(0, |next, s| (s.images.start == next).then_some(s.images.end));
        assert!(consecutive.is_some(), "segments are consecutive from image 0");
        self.backbone.check_source(source, size)?;
        let asked = |&block: &usize| Features { kind: FeatureKind::Mean, block, norm: false };
        blocks.iter().map(asked).try_for_each(|features| features.check(&self.network.config))?;
        let (mut store, mut images) = (Store::default(), Vec::new());
        for Segment { images: range, plugins } in segments {
            let numbers: Vec<usize> = plugins.iter().map(|&plugin| store.number(plugin)).collect();
            images.extend(range.clone().map(|_| numbers.clone()));
        }
        let plugins = segments.iter().flat_map(|segment| &segment.plugins);
        let dense = plugins.map(|plugin| dense_numbers(plugin.head)).max().unwrap_or(0);
        let positions = self.positions((size, source.layers()))?;
        assert!(dense == 0 || positions.layers.is_none(), "heads on patch tokens are of images");
        let groups = groups(&images, self.group(&positions, 0, dense));
        let mut answers: Vec<Vec<Vec<f32>>> = vec![Vec::new(); images.len()];
        let (config, memory) = (&self.network.config, &mut *self.memory());
        Self::walk(source, positions.loaded(config), &groups, |number, pixels| {
            let group = &groups[number];
            let plugins: Vec<Vec<usize>> = group.iter().map(|&image| images[image].clone()).collect();
            let plan = Plan::new(config, &store, &plugins);
            let mut pass = self.pass(memory, &positions, (&store, &plan))?;
            pass.intermediates = blocks;
            pass.embed(pixels)?;
            pass.blocks(0..config.depth)?;
            let mut outputs = pass.outputs()?.into_iter();
            group.iter().for_each(|&image| answers[image] = outputs.by_ref().take(images[image].len()).collect());
            Ok(())
        })?;
        let of_segment = |Segment { images, plugins }: &Segment<'_>| {
            let of_plugin = |place: usize| answers[images.clone()].iter().flat_map(|of| of[place].clone()).collect();
            (0..plugins.len()).map(of_plugin).collect()
        };
        Ok(segments.iter().map(of_segment).collect())
    }

    fn step(
        &self,
        batch: &Batch<'_>,
        adapter: &Adapter,
        head: &Head,
        gradients: &mut Gradients,
    ) -> Result<(f64, Vec<f32>), Error> {
        self.backbone.check_source(batch.source, batch.size)?;
        if gradients.weights.is_some() {
            return Err(unsupported("training of all weights"));
        }
        let (config, depth) = (&self.network.config, self.network.config.depth);
        let positions = self.positions((batch.size, batch.source.layers()))?;
        let to_the_input = positions.layers.is_some();
        assert!(head.blocks().is_none() || !to_the_input, "heads on patch tokens are of images");
        let tape_from = if to_the_input { Some(0) } else { adapter.first_block() };
        let mut store = Store::default();
        let number = store.number(PluginRef { adapter: Some(adapter), head });
        let images = vec![vec![number]; batch.images];
        let taped = tape_from.map_or(0, |first| depth - first);
        let groups = groups(&images, self.group(&positions, taped, dense_numbers(head)));
        let memory = &mut *self.memory();
        let len = store.values.len();
        let at = memory.floats("sums", 0, len)?;
        self.gpu().clear(at, len)?;
        let sums = Sums { store: &store, at };
        let (mut loss, mut all_logits) = (0.0, Vec::new());
        Self::walk(batch.source, positions.loaded(config), &groups, |number, pixels| {
            let group = &groups[number];
            let plan = Plan::new(config, &store, &images[..group.len()]);
            let mut pass = self.pass(memory, &positions, (&store, &plan))?;
            pass.dropout = batch.dropout.map(|dropout| (dropout, group[0]));
            pass.tape_from = tape_from;
            pass.embed(pixels)?;
            pass.blocks(0..depth)?;
            let mut d_logits = Vec::new();
            for (&image, logits) in group.iter().zip(pass.outputs()?) {
                let mut d = vec![0.0; logits.len()];
                loss += (batch.loss)(image, &logits, &mut d);
                all_logits.extend(logits);
                d_logits.extend(d);
            }
            pass.outputs_backward(&d_logits, sums)?;
            for block in (tape_from.unwrap_or(depth)..depth).rev() {
                pass.add_read_gradient(block)?;
                pass.block_backward(block, to_the_input || Some(block) > tape_from, Some(sums))?;
            }
            if to_the_input {
                let of_images = group.iter().zip(pass.embed_backward()?);
                of_images.for_each(|(&image, d_patches)| batch.source.take_gradient(image, &d_patches));
            }
            Ok(())
        })?;
        let found = self.gpu().floats(at, len)?;
        let mut found = found.iter();
        let trained = gradients.adapter.tensors_mut().into_iter().chain(gradients.head.tensors_mut());
        trained.flatten().zip(found.by_ref()).for_each(|(sum, part)| *sum += part);
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
        plugin.head.check_explained(ENGINE)?;
        self.backbone.check_size(size)?;
        assert_eq!(image.len(), 3 * size * size, "length of [3, {size}, {size}]");
        self.relevance(image, size, plugin, class, method)
    }

    fn embed(
        &self,
        source: &dyn ImageSource,
        images: usize,
        size: usize,
        adapter: Option<&Adapter>,
    ) -> Result<Vec<f32>, Error> {
        self.features(source, images, size, adapter, Features::pooled(self.backbone.config()))
    }

    fn features(
        &self,
        source: &dyn ImageSource,
        images: usize,
        size: usize,
        adapter: Option<&Adapter>,
        features: Features,
    ) -> Result<Vec<f32>, Error> {
        let config = &self.network.config;
        features.check(config)?;
        self.backbone.check_source(source, size)?;
        let head = Head::zeros(0, config.feature_width());
        let mut store = Store::default();
        let number = store.number(PluginRef { adapter, head: &head });
        let plugins = vec![vec![number]; images];
        let positions = self.positions((size, source.layers()))?;
        let groups = groups(&plugins, self.group(&positions, 0, 0));
        let (d, prefix, memory) = (config.width, config.prefix_tokens(), &mut *self.memory());
        let mut all = Vec::new();
        Self::walk(source, positions.loaded(config), &groups, |number, pixels| {
            let n = groups[number].len();
            let plan = Plan::new(config, &store, &plugins[..n]);
            let mut pass = self.pass(memory, &positions, (&store, &plan))?;
            let t = pass.tokens();
            pass.embed(pixels)?;
            pass.blocks(0..features.block + 1)?;
            if features.kind == FeatureKind::Pooled {
                let pooled = pass.pool()?;
                all.extend(self.gpu().floats(pooled, n * config.feature_width())?);
                return Ok(());
            }
            let mut x = pass.stream(features.block)?;
            if features.norm {
                x = pass.final_norm(x, n * t)?;
            }
            if features.kind == FeatureKind::Grid {
                let tokens = self.gpu().floats(x, n * t * d)?;
                tokens.chunks_exact(t * d).for_each(|tokens| all.extend(&tokens[prefix * d..]));
                return Ok(());
            }
            let pool = if features.kind == FeatureKind::Class { Pool::Token } else { Pool::Avg };
            let (mean, _) = pass.means(pool, n)[0];
            let out = pass.memory.floats("features", 0, n * d)?;
            self.gpu().mean_tokens(x, Rows::new(out, d), mean)?;
            all.extend(self.gpu().floats(out, n * d)?);
            Ok(())
        })?;
        Ok(all)
    }

    fn with_weights(&self, weights: &Weights) -> Result<Arc<dyn Engine>, Error> {
        Ok(Arc::new(CudaEngine::new(self.device.clone(), self.backbone.in_training(), weights)?))
    }
}
