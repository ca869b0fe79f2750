//! A step on a batch, and the validation split judged.

use super::Run;
use crate::adamw::AdamWStep;
use crate::config::TrainConfig;
use crate::error::Error;
use crate::errors::{agreement, mean_errors};
use crate::examples::{evaluate, lengths, numbers};
use crate::mask_loss::{MaskLoss, Overlap, mean_dice, of_outputs};
use crate::model::Model;
use crate::state::EpochRow;
use melo_data::EpochAugment;
use melo_vit::{BagBatch, BagHead, Batch, Decoder, Dropout, TaskKind, VolumeEmbedding};

impl Run<'_> {
    /// One optimizer step on the images at `batch`; returns the mean loss before it.
    pub(super) fn step(&mut self, batch: &[usize], learning_rate: f64) -> Result<f64, Error> {
        let train = self.train;
        let epoch = self.record.history.len() as u64;
        let augment = EpochAugment { augment: &self.config.augment, seed: self.config.seed, epoch };
        let source = train.epoch(batch, Some(augment));
        let scale = 1.0 / self.objective.normaliser(train, batch);
        let objective = &self.objective;
        let decoder = self.model.head.decoder.as_ref();
        let masks = decoder.map(|decoder| MaskLoss::new(decoder, train, &*source, batch, Some(augment)));
        let image_loss = |image: usize, logits: &[f32], d_logits: &mut [f32]| match &masks {
            Some(masks) => masks.step(image, logits, train.weight(batch[image]) * scale, d_logits),
            None => objective.loss(train.labels(batch[image]), logits, train.weight(batch[image]) * scale, d_logits),
        };
        let input = Batch {
            source: &*source,
            images: batch.len(),
            size: train.size(),
            loss: &image_loss,
            dropout: self.dropout(),
        };
        self.gradients.clear();
        let of_bags = self.bag_gradient.iter_mut().flat_map(BagHead::tensors_mut);
        let of_volumes = self.volume_gradient.iter_mut().flat_map(VolumeEmbedding::tensors_mut);
        of_bags.chain(of_volumes).for_each(|tensor| tensor.fill(0.0));
        let Model { adapter, head, bag, volume, .. } = &self.model;
        let engine = self.model.engine();
        let known: Option<Vec<f32>> =
            self.probe.as_ref().map(|probe| batch.iter().flat_map(|&index| probe.train.of(index)).copied().collect());
        let of_both = (&mut self.bag_gradient, &mut self.volume_gradient);
        let (loss, _) = match (bag, volume, of_both) {
            (Some(bag), _, (Some(of_bag), _)) => {
                let lengths = lengths(train, batch);
                match known {
                    Some(features) => {
                        let into = (of_bag, &mut self.gradients.head);
                        let step = bag.step(&features, &lengths, &image_loss, head, into);
                        (step.loss, step.logits)
                    }
                    None => {
                        let Batch { source, size, loss, dropout, .. } = input;
                        let input = BagBatch { source, lengths: &lengths, size, loss, dropout };
                        engine.bag_step(&input, adapter, (bag, head), (of_bag, &mut self.gradients))?
                    }
                }
            }
            (_, Some(volume), (_, Some(of_volume))) => {
                engine.volume_step(&input, (adapter, head), volume, (of_volume, &mut self.gradients))?
            }
            _ => match known.and_then(|of| engine.head_step(&of, &image_loss, head, &mut self.gradients.head)) {
                Some(step) => step,
                None => engine.step(&input, adapter, head, &mut self.gradients)?,
            },
        };
        if let Some(masks) = masks {
            masks.finish(&mut self.gradients.head, self.team)?;
        }
        let mut gradients = self.gradients.tensors_mut();
        gradients.extend(self.bag_gradient.iter_mut().flat_map(BagHead::tensors_mut));
        gradients.extend(self.volume_gradient.iter_mut().flat_map(VolumeEmbedding::tensors_mut));
        clip(&mut gradients, self.config.clip_norm);
        let gradients: Vec<&Vec<f32>> = gradients.into_iter().map(|tensor| &*tensor).collect();
        let step = AdamWStep::new(learning_rate, self.config.weight_decay);
        self.optimizer.step(self.model.tensors_mut(), &gradients, &self.tensor_steps, step);
        self.model.refresh()?;
        Ok(loss)
    }

    /// Dropout of the step to be taken: steps are counted over the whole run, also when it was resumed.
    fn dropout(&self) -> Option<Dropout> {
        let TrainConfig { lora_dropout: probability, seed, .. } = *self.config;
        (probability > 0.0).then_some(Dropout { probability, seed, step: self.optimizer.steps })
    }

    /// Mean loss and answers `[n, c]` on the validation split.
    pub(super) fn validate(&self) -> Result<(f64, Vec<f32>), Error> {
        let val = self.val;
        let classes = self.card.classes.len();
        let order: Vec<usize> = (0..val.len()).collect();
        let engine = self.model.engine();
        let Model { adapter, head, bag, volume, .. } = &self.model;
        let mut logits = match (bag, &self.probe) {
            (None, Some(probe)) => engine.classify(&probe.val.values, head),
            (None, None) => {
                let source = val.epoch(&order, None);
                engine.logits_of(&*source, (val.len(), val.size()), self.model.plugin(), volume.as_ref())?
            }
            (Some(bag), Some(probe)) => {
                let pooled = order.iter().flat_map(|&index| bag.pool(probe.val.of(index)).features);
                engine.classify(&pooled.collect::<Vec<_>>(), head)
            }
            (Some(bag), None) => {
                let (source, lengths) = (val.epoch(&order, None), lengths(val, &order));
                engine.bag_logits(&*source, &lengths, val.size(), Some(adapter), (bag, head))?.logits
            }
        };
        let scale = 1.0 / self.objective.normaliser(val, &order);
        let mut d_logits = vec![0.0; classes];
        let mut loss = 0.0;
        for (index, logits) in logits.chunks_exact_mut(classes).enumerate() {
            loss += self.objective.loss(val.labels(index), logits, val.weight(index) * scale, &mut d_logits);
            self.objective.answer(logits);
        }
        Ok((loss, logits))
    }

    /// Mean loss and figures of masks on the validation split.
    pub(super) fn judge_masks(&self, decoder: &Decoder) -> Result<(f64, EpochRow), Error> {
        let val = self.val;
        let order: Vec<usize> = (0..val.len()).collect();
        let source = val.epoch(&order, None);
        let judge = MaskLoss::new(decoder, val, &*source, &order, None);
        let images = (&*source, val.len(), val.size());
        let judged = of_outputs(self.model.engine(), self.model.plugin(), images, |image, of| judge.judge(image, of))?;
        let (losses, overlaps): (Vec<f64>, Vec<Vec<Overlap>>) = judged.into_iter().unzip();
        let loss = losses.iter().sum::<f64>();
        let val_dice = Some(mean_dice(&overlaps).unwrap_or(0.0));
        Ok((loss / val.len() as f64, EpochRow { val_dice, ..EpochRow::default() }))
    }

    /// The figures of answers `[n, c]` on the validation split, and nothing else of a row.
    pub(super) fn judge(&self, answers: &[f32]) -> Result<EpochRow, Error> {
        let mut row = EpochRow::default();
        let kind = self.objective.kind();
        if kind == TaskKind::Regression {
            let truth = numbers(self.val);
            (row.val_r2, row.val_mae) = mean_errors(answers, &truth, self.card.classes.len())?;
            return Ok(row);
        }
        let metrics = evaluate(self.val, kind, answers, &self.card.thresholds)?;
        row.val_auc_macro = Some(metrics.auc_macro.expect("the validation split holds a class and its opposite"));
        row.val_acc = Some(metrics.acc);
        if let (TaskKind::Ordinal, Some(confusion)) = (kind, &metrics.confusion) {
            let (kappa, mae) = agreement(confusion)?;
            (row.val_kappa, row.val_mae) = (Some(kappa.unwrap_or(0.0)), Some(mae));
        }
        Ok(row)
    }
}

/// Scales the gradient down to an L2 norm of `limit`, as PyTorch's `clip_grad_norm_`; 0 is unlimited.
fn clip(gradients: &mut [&mut Vec<f32>], limit: f64) {
    let square = |tensor: &&mut Vec<f32>| tensor.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    let norm = gradients.iter().map(square).sum::<f64>().sqrt();
    if limit > 0.0 && norm > limit {
        let scale = (limit / (norm + 1e-6)) as f32;
        gradients.iter_mut().flat_map(|tensor| tensor.iter_mut()).for_each(|x| *x *= scale);
    }
}
