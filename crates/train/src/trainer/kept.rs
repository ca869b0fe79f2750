//! What is kept of a run: its state on the disk, and the plug-in or backbone of its best epoch.

use super::{Outcome, Run};
use crate::error::Error;
use crate::folder::RunFolder;
use crate::model::Model;
use crate::state::{State, to_json};
use melo_vit::{Plugin, TaskCard};

impl Run<'_> {
    pub(super) fn save(&mut self, folder: &RunFolder) -> Result<(), Error> {
        self.record.steps = self.optimizer.steps;
        let state = State {
            record: self.record.clone(),
            last: self.model.tensors().into_iter().cloned().collect(),
            best: self.best.clone(),
            optimizer: self.optimizer.clone(),
        };
        state.write(&folder.state(), &self.model.tensor_shapes(&self.card.preprocess))?;
        folder.write_table(&self.record.history)?;
        if self.record.history.last().is_some_and(|row| row.best) {
            self.save_best(folder)?;
        }
        Ok(())
    }

    /// Writes the values now in the model as those of the best epoch.
    pub(super) fn save_best(&self, folder: &RunFolder) -> Result<(), Error> {
        match self.model.checkpoint() {
            None => self.plugin().save(&folder.best(), self.model.vit(), melo_vit::Storage::F32)?,
            Some(checkpoint) => checkpoint.write(&folder.best(), melo_vit::Storage::F32)?,
        }
        Ok(())
    }

    /// The plug-in of the values now in the model, with the best epoch's metrics.
    fn plugin(&self) -> Plugin {
        let Model { adapter, head, bag, volume, .. } = &self.model;
        let (adapter, head, bag) = (adapter.clone(), self.objective.in_units(head.clone()), bag.clone());
        Plugin {
            card: self.card(),
            adapter,
            head,
            further: Vec::new(),
            bag,
            volume: volume.clone(),
            scope: None,
            digest: String::new(),
        }
    }

    /// The task's card with the settings of this run and the best epoch's metrics.
    fn card(&self) -> TaskCard {
        let mut card = self.card.clone();
        card.lora = self.config.lora.clone();
        card.bottleneck = self.config.bottleneck.clone();
        card.bag = self.config.bag;
        card.provenance.seed = self.config.seed;
        card.provenance.precision = self.config.precision;
        card.provenance.train_images = self.train.len();
        card.provenance.settings = to_json(self.config);
        if let Some(best) = self.record.best() {
            card.metrics.insert("best_epoch".into(), best.epoch as f64);
            card.metrics.extend(best.figures().into_iter().map(|(name, value)| (name.to_owned(), value)));
        }
        card
    }

    pub(super) fn finish(mut self, trainable: usize, backbone: usize) -> Result<Outcome, Error> {
        let best = std::mem::take(&mut self.best);
        self.model.tensors_mut().into_iter().zip(best).for_each(|(tensor, values)| *tensor = values);
        let row = self.record.best().cloned().expect("the first epoch is the best so far");
        let mut plugin = self.plugin();
        let checkpoint = self.model.checkpoint.map(|checkpoint| *checkpoint);
        if let Some(checkpoint) = &checkpoint {
            plugin.card.backbone.digest = checkpoint.digest();
        }
        Ok(Outcome { plugin, checkpoint, best: row, trainable, backbone, history: self.record.history })
    }
}
