//! An engine that computes its part of every pass, and has the rest from the other ranks.

use super::{Reader, Team, Writer};
use melo_vit::{
    Adapter, Backbone, BackboneInfo, Batch, Device, Engine, EngineInfo, Error, ExplainMethod, Explanation, Features,
    Gradients, Head, ImageError, ImageLoss, ImagePart, ImageSource, LayerError, Peak, PluginRef, Segment, Weights,
};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A device whose engines are a team's.
#[derive(Debug)]
pub(super) struct TeamDevice {
    pub(super) device: Arc<dyn Device>,
    pub(super) team: Arc<Team>,
}

impl Device for TeamDevice {
    fn info(&self) -> EngineInfo {
        self.device.info()
    }

    fn load(&self, backbone: Backbone) -> Result<Arc<dyn Engine>, Error> {
        Ok(self.team.engine(self.device.load(backbone)?))
    }

    fn peak(&self) -> Option<Peak> {
        self.device.peak()
    }
}

/// This rank's engine, and the team.
#[derive(Debug)]
pub(super) struct TeamEngine {
    engine: Arc<dyn Engine>,
    team: Arc<Team>,
    /// Gradients of this rank's lanes, kept between steps.
    lanes: Mutex<Vec<Gradients>>,
}

impl TeamEngine {
    pub(super) fn new(engine: Arc<dyn Engine>, team: Arc<Team>) -> Self {
        TeamEngine { engine, team, lanes: Mutex::default() }
    }

    /// Some values of each of so many images, `[images, …]`, of which this rank computes its share.
    fn each(
        &self,
        (source, images): (&dyn ImageSource, usize),
        compute: impl FnOnce(&dyn ImageSource, usize) -> Result<Vec<f32>, Error>,
    ) -> Result<Vec<f32>, Error> {
        let share = self.team.share(images);
        let part = ImagePart { source, first: share.start };
        let mine = compute(&part, share.len()).map_err(|error| in_the_whole(error, share.start)).map(|values| {
            let mut bytes = Writer::default();
            bytes.values(&values);
            bytes.bytes()
        });
        let all = self.team.gather("features of images", mine)?;
        Ok(all.iter().flat_map(|bytes| Reader::new(bytes).values()).collect())
    }
}

impl Engine for TeamEngine {
    fn backbone(&self) -> &BackboneInfo {
        self.engine.backbone()
    }

    fn info(&self) -> EngineInfo {
        self.engine.info()
    }

    fn layer_errors(&self) -> &[LayerError] {
        self.engine.layer_errors()
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
        let share = self.team.share(segments.last().map_or(0, |segment| segment.images.end));
        let part = ImagePart { source, first: share.start };
        let mine: Vec<Segment<'_>> = segments
            .iter()
            .map(|segment| Segment { images: within(&segment.images, &share), plugins: segment.plugins.clone() })
            .collect();
        let computed = self.engine.forward_intermediates(&part, size, &mine, blocks);
        let computed = computed.map_err(|error| in_the_whole(error, share.start));
        let mine = computed.map(|answers| {
            let mut bytes = Writer::default();
            answers.iter().flatten().for_each(|values| bytes.values(values));
            bytes.bytes()
        });
        let all = self.team.gather("a forward pass", mine)?;
        let mut all: Vec<Reader<'_>> = all.iter().map(|bytes| Reader::new(bytes)).collect();
        let mut of_ranks = || all.iter_mut().flat_map(Reader::values).collect::<Vec<f32>>();
        Ok(segments.iter().map(|segment| segment.plugins.iter().map(|_| of_ranks()).collect()).collect())
    }

    fn step(
        &self,
        batch: &Batch<'_>,
        adapter: &Adapter,
        head: &Head,
        gradients: &mut Gradients,
    ) -> Result<(f64, Vec<f32>), Error> {
        let share = self.team.share(self.engine.lanes(batch.images));
        let kept = || self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = std::mem::take(&mut *kept());
        sums.retain(|sum| sum.is_shaped_like(gradients));
        let zeros = || Gradients::zeros(adapter, head, self.backbone().config(), gradients.weights.is_some());
        sums.resize_with(share.len().max(sums.len()), zeros);
        let lanes = &mut sums[..share.len()];
        let source = Recorded { source: batch.source, gradients: Mutex::default() };
        let watched = Batch { source: &source, ..*batch };
        let computed = self.engine.step_lanes(&watched, adapter, head, share, lanes).map(|lanes| {
            let mut bytes = Writer::default();
            bytes.number(lanes.len() as u64);
            for (loss, logits) in &lanes {
                bytes.double(*loss);
                bytes.values(logits);
            }
            for (image, d_patches) in source.gradients.into_inner().unwrap_or_else(PoisonError::into_inner) {
                bytes.number(image as u64);
                bytes.values(&d_patches);
            }
            bytes.bytes()
        });
        let all = self.team.gather("a step", computed)?;
        let (mut losses, mut logits) = (Vec::new(), Vec::new());
        for (rank, bytes) in all.iter().enumerate() {
            let mut bytes = Reader::new(bytes);
            for _ in 0..bytes.number() {
                losses.push(bytes.double());
                logits.extend(bytes.values());
            }
            while !bytes.is_empty() {
                let (image, d_patches) = (bytes.index(), bytes.values());
                if rank != self.team.rank() {
                    batch.source.take_gradient(image, &d_patches);
                }
            }
        }
        self.team.add(lanes, gradients)?;
        *kept() = sums;
        Ok((losses.iter().sum(), logits))
    }

    fn lanes(&self, images: usize) -> usize {
        self.engine.lanes(images)
    }

    /// Of one place: it is computed here alone.
    fn step_lanes(
        &self,
        batch: &Batch<'_>,
        adapter: &Adapter,
        head: &Head,
        lanes: Range<usize>,
        gradients: &mut [Gradients],
    ) -> Result<Vec<(f64, Vec<f32>)>, Error> {
        self.engine.step_lanes(batch, adapter, head, lanes, gradients)
    }

    fn explain(
        &self,
        image: &[f32],
        size: usize,
        plugin: PluginRef<'_>,
        class: usize,
        method: ExplainMethod,
    ) -> Result<Explanation, Error> {
        self.engine.explain(image, size, plugin, class, method)
    }

    fn embed(
        &self,
        source: &dyn ImageSource,
        images: usize,
        size: usize,
        adapter: Option<&Adapter>,
    ) -> Result<Vec<f32>, Error> {
        self.each((source, images), |part, images| self.engine.embed(part, images, size, adapter))
    }

    fn features(
        &self,
        source: &dyn ImageSource,
        images: usize,
        size: usize,
        adapter: Option<&Adapter>,
        features: Features,
    ) -> Result<Vec<f32>, Error> {
        self.each((source, images), |part, images| self.engine.features(part, images, size, adapter, features))
    }

    fn classify(&self, features: &[f32], head: &Head) -> Vec<f32> {
        self.engine.classify(features, head)
    }

    /// On every rank alike: there is nothing to be gained.
    fn head_step(
        &self,
        features: &[f32],
        loss: &ImageLoss<'_>,
        head: &Head,
        gradient: &mut Head,
    ) -> Option<(f64, Vec<f32>)> {
        self.engine.head_step(features, loss, head, gradient)
    }

    fn with_weights(&self, weights: &Weights) -> Result<Arc<dyn Engine>, Error> {
        let lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        let engine = TeamEngine::new(self.engine.with_weights(weights)?, Arc::clone(&self.team));
        Ok(Arc::new(TeamEngine { lanes: Mutex::new(lanes), ..engine }))
    }
}

/// The images of a rank's share among these, by their places in the share.
fn within(images: &Range<usize>, share: &Range<usize>) -> Range<usize> {
    let place = |image: usize| image.clamp(share.start, share.end) - share.start;
    place(images.start)..place(images.end)
}

/// An error on a part of the images that begins with `first`.
pub(crate) fn in_the_whole(error: Error, first: usize) -> Error {
    match error {
        Error::Image { index, source } => Error::Image { index: first + index, source },
        other => other,
    }
}

/// A source that keeps the gradients of embedded patches, for the other ranks.
struct Recorded<'a> {
    source: &'a dyn ImageSource,
    gradients: Mutex<Vec<(usize, Vec<f32>)>>,
}

impl ImageSource for Recorded<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        self.source.load(index, out)
    }

    fn layers(&self) -> Option<usize> {
        self.source.layers()
    }

    fn take_gradient(&self, index: usize, d_patches: &[f32]) {
        self.gradients.lock().unwrap_or_else(PoisonError::into_inner).push((index, d_patches.to_vec()));
        self.source.take_gradient(index, d_patches);
    }
}
