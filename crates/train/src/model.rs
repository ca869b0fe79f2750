//! What is being trained: a head, an adapter, and with full fine-tuning the backbone's own weights.

use crate::adamw::TensorStep;
use crate::config::TrainConfig;
use crate::error::Error;
use crate::groups::tensor_steps;
use melo_vit::{
    Adapter, BagHead, Bottlenecks, Checkpoint, Device, Engine, EngineInfo, Gradients, Head, PluginRef, Preprocess,
    TaskCard, VitConfig, VolumeEmbedding,
};
use std::sync::Arc;

/// The backbone a run starts from.
#[derive(Clone, Debug)]
pub enum Start {
    /// Frozen weights, shared.
    Frozen(Arc<dyn Engine>),
    /// Weights that are trained themselves.
    Trained {
        /// Where they are trained.
        device: Arc<dyn Device>,
        /// As they are at the start.
        checkpoint: Box<Checkpoint>,
    },
}

/// All parameters of a run, and what computes with them.
pub(crate) struct Model {
    engine: Arc<dyn Engine>,
    /// The trained weights, with full fine-tuning; the engine's follow them.
    pub(crate) checkpoint: Option<Box<Checkpoint>>,
    pub(crate) adapter: Adapter,
    pub(crate) head: Head,
    /// What pools bags, where examples are bags.
    pub(crate) bag: Option<BagHead>,
    /// What embeds volumes, where examples are volumes.
    pub(crate) volume: Option<VolumeEmbedding>,
}

impl Model {
    /// As a run begins; `volume` is what embeds volumes at the start.
    pub(crate) fn new(
        start: Start,
        config: &TrainConfig,
        card: &TaskCard,
        volume: Option<VolumeEmbedding>,
    ) -> Result<Self, Error> {
        let vit = start.config();
        config.lora.check(vit)?;
        config.bottleneck.check(vit)?;
        let bottlenecks = Bottlenecks::init(&config.bottleneck, vit, config.seed);
        let adapter = Adapter { bottlenecks, ..Adapter::init(&config.lora, vit, config.seed) };
        let classes = card.classes.len();
        let head = match &card.decoder {
            Some(decoder) => Head::dense(decoder, classes, vit, config.seed),
            None => Head::zeros(classes, vit.feature_width()),
        };
        let bag = config.bag.map(|bag| BagHead::init(bag, vit.feature_width(), config.seed));
        let (engine, checkpoint) = match start {
            Start::Frozen(engine) => (engine, None),
            Start::Trained { device, mut checkpoint } => {
                checkpoint.classifier = None;
                (device.load(Checkpoint::clone(&checkpoint).freeze())?, Some(checkpoint))
            }
        };
        Ok(Model { engine, checkpoint, adapter, head, bag, volume })
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    pub(crate) fn vit(&self) -> &VitConfig {
        self.engine.backbone().config()
    }

    /// The trained weights, with full fine-tuning.
    pub(crate) fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_deref()
    }

    /// Adapter and head as passes take them.
    pub(crate) fn plugin(&self) -> PluginRef<'_> {
        PluginRef { adapter: Some(&self.adapter), head: &self.head }
    }

    /// Of what pools bags.
    pub(crate) fn bag_gradient(&self) -> Option<BagHead> {
        self.bag.as_ref().map(|bag| BagHead::zeros(bag.config, self.vit().feature_width()))
    }

    pub(crate) fn gradients(&self) -> Gradients {
        Gradients::zeros(&self.adapter, &self.head, self.vit(), self.checkpoint.is_some())
    }

    /// Name and shape of every trained tensor, in the order of [`Model::tensors_mut`] and of the gradients: `Gradients::tensors`, then those
    /// of what pools bags or embeds volumes, which never stand beside a trained backbone.
    pub(crate) fn tensor_shapes(&self, preprocess: &Preprocess) -> Vec<(String, Vec<usize>)> {
        let mut shapes = self.adapter.tensor_shapes(self.vit());
        let width = self.vit().feature_width();
        shapes.extend(self.head.shapes());
        shapes.extend(self.bag.iter().flat_map(|bag| BagHead::tensor_shapes(bag.config, width)));
        let of_volumes =
            |volume: &VolumeEmbedding| VolumeEmbedding::tensor_shapes(volume.config, preprocess, self.vit());
        shapes.extend(self.volume.iter().flat_map(of_volumes));
        if self.checkpoint.is_some() {
            shapes.extend(self.vit().tensor_shapes());
        }
        shapes
    }

    pub(crate) fn tensors(&self) -> Vec<&Vec<f32>> {
        let mut all = self.adapter.tensors();
        all.extend(self.head.tensors());
        all.extend(self.bag.iter().flat_map(BagHead::tensors));
        all.extend(self.volume.iter().flat_map(VolumeEmbedding::tensors));
        all.extend(self.checkpoint().iter().flat_map(|checkpoint| checkpoint.weights.tensors()));
        all
    }

    pub(crate) fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        let mut all = self.adapter.tensors_mut();
        all.extend(self.head.tensors_mut());
        all.extend(self.bag.iter_mut().flat_map(BagHead::tensors_mut));
        all.extend(self.volume.iter_mut().flat_map(VolumeEmbedding::tensors_mut));
        if let Some(checkpoint) = &mut self.checkpoint {
            all.extend(checkpoint.weights.tensors_mut());
        }
        all
    }

    /// To be called after trained weights were written to: the engine takes them up.
    pub(crate) fn refresh(&mut self) -> Result<(), Error> {
        if let Some(checkpoint) = &self.checkpoint {
            self.engine = self.engine.with_weights(&checkpoint.weights)?;
        }
        Ok(())
    }

    /// How the optimizer steps each tensor.
    pub(crate) fn tensor_steps(&self, config: &TrainConfig, preprocess: &Preprocess) -> Vec<TensorStep> {
        tensor_steps(&self.tensor_shapes(preprocess), config, self.vit().depth, self.head.decoder.is_some())
    }

    /// Number of trained values.
    pub(crate) fn parameters(&self) -> usize {
        self.tensors().into_iter().map(Vec::len).sum()
    }
}

impl Start {
    /// The shape of the network.
    pub fn config(&self) -> &VitConfig {
        match self {
            Start::Frozen(engine) => engine.backbone().config(),
            Start::Trained { checkpoint, .. } => &checkpoint.config,
        }
    }

    /// What computes.
    pub fn engine_info(&self) -> EngineInfo {
        match self {
            Start::Frozen(engine) => engine.info(),
            Start::Trained { device, .. } => device.info(),
        }
    }

    /// Digest of the backbone as it is at the start.
    pub(crate) fn digest(&self) -> String {
        match self {
            Start::Frozen(engine) => engine.backbone().digest().to_owned(),
            Start::Trained { checkpoint, .. } => checkpoint.digest(),
        }
    }

    /// True when the backbone's own weights are trained.
    pub(crate) fn is_trained(&self) -> bool {
        matches!(self, Start::Trained { .. })
    }
}
