//! What is being trained: a head, an adapter, and with full fine-tuning the backbone's own weights.

use crate::adamw::TensorStep;
use crate::config::TrainConfig;
use crate::groups::tensor_steps;
use melo_vit::{Adapter, Backbone, Bottlenecks, Checkpoint, Gradients, Head};

/// The backbone a run starts from.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// Frozen weights, shared.
    Frozen(&'a Backbone),
    /// Weights that are trained themselves, copied first.
    Trained(&'a Checkpoint),
}

/// The backbone of a run.
enum Trunk<'a> {
    Frozen(&'a Backbone),
    Trained { checkpoint: Box<Checkpoint>, packed: Box<Backbone> },
}

/// All parameters of a run.
pub(crate) struct Model<'a> {
    trunk: Trunk<'a>,
    pub(crate) adapter: Adapter,
    pub(crate) head: Head,
}

impl<'a> Model<'a> {
    pub(crate) fn new(start: Start<'a>, config: &TrainConfig, classes: usize) -> Result<Self, melo_vit::Error> {
        let vit = match start {
            Start::Frozen(backbone) => &backbone.config,
            Start::Trained(checkpoint) => &checkpoint.config,
        };
        config.lora.check(vit)?;
        config.bottleneck.check(vit)?;
        let bottlenecks = Bottlenecks::init(&config.bottleneck, vit, config.seed);
        let adapter = Adapter { bottlenecks, ..Adapter::init(&config.lora, vit, config.seed) };
        let head = Head::zeros(classes, vit.feature_width());
        let trunk = match start {
            Start::Frozen(backbone) => Trunk::Frozen(backbone),
            Start::Trained(checkpoint) => Trunk::Trained {
                packed: Box::new(Backbone::in_training_with(checkpoint, config.precision)),
                checkpoint: Box::new(checkpoint.clone()),
            },
        };
        Ok(Model { trunk, adapter, head })
    }

    pub(crate) fn backbone(&self) -> &Backbone {
        match &self.trunk {
            Trunk::Frozen(backbone) => backbone,
            Trunk::Trained { packed, .. } => packed,
        }
    }

    /// The trained weights, with full fine-tuning.
    pub(crate) fn checkpoint(&self) -> Option<&Checkpoint> {
        match &self.trunk {
            Trunk::Frozen(_) => None,
            Trunk::Trained { checkpoint, .. } => Some(checkpoint),
        }
    }

    pub(crate) fn gradients(&self) -> Gradients {
        let all_weights = self.checkpoint().is_some();
        Gradients::zeros(&self.adapter, &self.head, &self.backbone().config, all_weights)
    }

    /// Name and shape of every trained tensor, in the order of [`Model::tensors_mut`] and of `Gradients::tensors`.
    pub(crate) fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let vit = &self.backbone().config;
        let mut shapes = self.adapter.tensor_shapes(vit);
        shapes.extend(Head::tensor_shapes(self.head.classes(), vit.feature_width()));
        if self.checkpoint().is_some() {
            shapes.extend(vit.tensor_shapes());
        }
        shapes
    }

    pub(crate) fn tensors(&self) -> Vec<&Vec<f32>> {
        let mut all = self.adapter.tensors();
        all.extend(self.head.tensors());
        all.extend(self.checkpoint().iter().flat_map(|checkpoint| checkpoint.weights.tensors()));
        all
    }

    pub(crate) fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        let mut all = self.adapter.tensors_mut();
        all.extend(self.head.tensors_mut());
        if let Trunk::Trained { checkpoint, .. } = &mut self.trunk {
            all.extend(checkpoint.weights.tensors_mut());
        }
        all
    }

    /// To be called after trained weights were written to: packs them again.
    pub(crate) fn refresh(&mut self) {
        if let Trunk::Trained { checkpoint, packed } = &mut self.trunk {
            **packed = Backbone::in_training_with(checkpoint, packed.precision());
        }
    }

    /// How the optimizer steps each tensor.
    pub(crate) fn tensor_steps(&self, config: &TrainConfig) -> Vec<TensorStep> {
        tensor_steps(&self.tensor_shapes(), config, self.backbone().config.depth)
    }

    /// Number of trained values.
    pub(crate) fn parameters(&self) -> usize {
        self.tensors().into_iter().map(Vec::len).sum()
    }
}

impl Start<'_> {
    /// Parameters of the backbone, and its digest.
    pub(crate) fn describe(&self) -> (usize, String) {
        match self {
            Start::Frozen(backbone) => (backbone.config.parameters(), backbone.digest().to_owned()),
            Start::Trained(checkpoint) => (checkpoint.config.parameters(), checkpoint.digest()),
        }
    }

    /// True when the backbone's own weights are trained.
    pub(crate) fn is_trained(&self) -> bool {
        matches!(self, Start::Trained(_))
    }
}
