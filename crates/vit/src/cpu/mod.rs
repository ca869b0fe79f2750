//! The engine of this machine's processor: weights packed once, images walked in groups whose activations stay in the cache.

mod attention_pool;
mod backward;
mod buffers;
mod dense;
mod explain;
mod features;
mod forward;
mod integers;
mod kept;
mod packed;
mod parts;
mod peak;
mod positions;
mod qk_norm;
mod shared;
mod walk;

use crate::adapter::Adapter;
use crate::backbone::{Backbone, BackboneInfo};
use crate::engine::{Batch, Device, Engine, EngineInfo, ImageLoss, LayerError, Peak, PluginRef, Segment};
use crate::error::Error;
use crate::explanation::{ExplainMethod, Explanation};
use crate::features::{FeatureKind, Features};
use crate::gradients::Gradients;
use crate::head::Head;
use crate::image::ImageSource;
use crate::weights::Weights;
use melo_kernels::{Isa, MappedFile, Precision};
use packed::Packed;
use rayon::ThreadPool;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use walk::{LANES, Workspace};

/// Images of a group: one has rows enough to keep the matrix product busy, and what is computed of it stays in the cache.
const GROUP: usize = 1;

/// This machine's processor.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    precision: Precision,
    threads: usize,
    group: usize,
}

impl Cpu {
    /// On all cores.
    pub fn new(precision: Precision) -> Self {
        Cpu { precision, threads: 0, group: GROUP }
    }

    /// On so many threads; 0 for one a core.
    pub fn with_threads(self, threads: usize) -> Self {
        Cpu { threads, ..self }
    }

    /// Walks `group` images at a time.
    ///
    /// # Panics
    /// If `group` is 0.
    pub fn with_group(self, group: usize) -> Self {
        assert!(group > 0, "a group holds at least one image");
        Cpu { group, ..self }
    }

    fn pool(self) -> Result<ThreadPool, Error> {
        let named = |index| format!("melo-compute-{index}");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).thread_name(named);
        pool.build().map_err(|error| Error::Threads { reason: error.to_string() })
    }
}

/// Threads for what is spread over images outside of engines: decoding, resizing, statistics. To be called once, before
/// anything else; 0 is one a core.
pub fn set_threads(threads: usize) {
    // Fails where something was spread already: then it goes on with as many threads as there were.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

impl Device for Cpu {
    fn info(&self) -> EngineInfo {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.threads == 0 { all() } else { self.threads };
        EngineInfo { engine: "cpu", device: Isa::detect().to_string(), precision: self.precision, threads }
    }

    fn load(&self, backbone: Backbone) -> Result<Arc<dyn Engine>, Error> {
        let pool = self.pool()?;
        let (backbone, weights) = backbone.into_parts();
        let (packed, errors) = pool.install(|| Packed::new(backbone.config(), weights, self.precision));
        let shared = Arc::new(Shared { device: *self, pool, workspace: Workspace::new(self.group) });
        Ok(Arc::new(CpuEngine { backbone, packed, errors, shared }))
    }

    fn packed_layout(&self) -> Option<String> {
        kept::layout(self.precision, &Isa::detect().to_string())
    }

    fn map_packed(&self, file: &File, key: &str) -> Option<Arc<dyn Engine>> {
        let (pool, layout, file) = (self.pool().ok()?, self.packed_layout()?, MappedFile::of(file).ok()?);
        let read = || kept::read(file, (key, &layout), self.precision);
        let (backbone, packed, errors) = pool.install(read)?;
        let shared = Arc::new(Shared { device: *self, pool, workspace: Workspace::new(self.group) });
        Some(Arc::new(CpuEngine { backbone, packed, errors, shared }))
    }

    fn peak(&self) -> Option<Peak> {
        let pool = self.pool().ok()?;
        Some(pool.install(|| peak::measure(Isa::detect(), self.precision)))
    }
}

/// What engines over the same network's weights have in common.
#[derive(Debug)]
struct Shared {
    device: Cpu,
    pool: ThreadPool,
    workspace: Workspace,
}

/// A backbone packed for this processor.
#[derive(Debug)]
struct CpuEngine {
    backbone: BackboneInfo,
    packed: Packed,
    errors: Vec<LayerError>,
    shared: Arc<Shared>,
}

impl Engine for CpuEngine {
    fn backbone(&self) -> &BackboneInfo {
        &self.backbone
    }

    fn layer_errors(&self) -> &[LayerError] {
        &self.errors
    }

    fn info(&self) -> EngineInfo {
        EngineInfo { threads: self.shared.pool.current_num_threads(), ..self.shared.device.info() }
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
        blocks.iter().map(asked).try_for_each(|features| features.check(self.backbone.config()))?;
        let Shared { pool, workspace, .. } = &*self.shared;
        pool.install(|| match segments.iter().all(|segment| segment.plugins.len() == 1) {
            true => self.packed.forward(source, size, segments, blocks, workspace),
            false => self.packed.forward_shared(source, size, segments, blocks, workspace),
        })
    }

    fn step(
        &self,
        batch: &Batch<'_>,
        adapter: &Adapter,
        head: &Head,
        gradients: &mut Gradients,
    ) -> Result<(f64, Vec<f32>), Error> {
        self.backbone.check_source(batch.source, batch.size)?;
        let Shared { pool, workspace, .. } = &*self.shared;
        pool.install(|| self.packed.step(batch, (adapter, head), gradients, workspace))
    }

    fn lanes(&self, images: usize) -> usize {
        self.shared.workspace.lanes_of(images, LANES)
    }

    fn step_lanes(
        &self,
        batch: &Batch<'_>,
        adapter: &Adapter,
        head: &Head,
        lanes: Range<usize>,
        gradients: &mut [Gradients],
    ) -> Result<Vec<(f64, Vec<f32>)>, Error> {
        self.backbone.check_source(batch.source, batch.size)?;
        let Shared { pool, workspace, .. } = &*self.shared;
        let lanes = (lanes, self.lanes(batch.images));
        pool.install(|| self.packed.step_lanes(batch, (adapter, head), lanes, gradients, workspace))
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
        self.shared.pool.install(|| Ok(self.packed.explain(image, size, plugin, class, method)))
    }

    fn embed(
        &self,
        source: &dyn ImageSource,
        images: usize,
        size: usize,
        adapter: Option<&Adapter>,
    ) -> Result<Vec<f32>, Error> {
        self.backbone.check_source(source, size)?;
        let pooled = Features::pooled(self.backbone.config());
        let Shared { pool, workspace, .. } = &*self.shared;
        pool.install(|| self.packed.features(source, (images, size), adapter, pooled, workspace))
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
        let Shared { pool, workspace, .. } = &*self.shared;
        pool.install(|| self.packed.features(source, (images, size), adapter, features, workspace))
    }

    fn classify(&self, features: &[f32], head: &Head) -> Vec<f32> {
        self.packed.classify(features, head)
    }

    fn head_step(
        &self,
        features: &[f32],
        loss: &ImageLoss<'_>,
        head: &Head,
        gradient: &mut Head,
    ) -> Option<(f64, Vec<f32>)> {
        Some(self.packed.head_step(features, loss, head, gradient, &self.shared.workspace))
    }

    fn with_weights(&self, weights: &Weights) -> Result<Arc<dyn Engine>, Error> {
        let shared = Arc::clone(&self.shared);
        let pack = || Packed::new(self.backbone.config(), weights.by_ref(), shared.device.precision);
        let (packed, errors) = shared.pool.install(pack);
        Ok(Arc::new(CpuEngine { backbone: self.backbone.in_training(), packed, errors, shared }))
    }

    fn write_packed(&self, key: &str, into: &mut dyn Write) -> io::Result<()> {
        let layout = self.shared.device.packed_layout().ok_or(io::ErrorKind::Unsupported)?;
        kept::write(into, (key, &layout), &self.backbone, (&self.packed, &self.errors))
    }
}
