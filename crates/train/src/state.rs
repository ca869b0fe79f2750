//! The state of a run after an epoch, in one file that is replaced atomically: whatever else is in the run folder can be
//! made from it again.

use crate::adamw::AdamW;
use crate::config::TrainConfig;
use crate::error::Error;
use melo_vit::{NamedTensor, Preprocess, Storage, TaskKind, TensorFile, hash_numbers, hex, write_tensors};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;

/// Metadata key that holds the record's JSON.
const METADATA_KEY: &str = "melo.state";
/// Metadata key of the SHA-256 of record and tensors.
const DIGEST_KEY: &str = "melo.state.sha256";

/// One line of the per-epoch table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Learning rate of its last step.
    pub learning_rate: f64,
    /// Inverse strength of the penalty, of a head that is solved to convergence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub c: Option<f64>,
    /// Mean loss over training images.
    pub train_loss: f64,
    /// Mean loss over validation images.
    pub val_loss: f64,
    /// Macro AUC on the validation split; none of numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_auc_macro: Option<f64>,
    /// Accuracy on the validation split; none of numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_acc: Option<f64>,
    /// Quadratic weighted kappa on the validation split, 0 where it is undefined; of grades alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_kappa: Option<f64>,
    /// Coefficient of determination on the validation split, the mean over the numbers; of numbers alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_r2: Option<f64>,
    /// Mean absolute error on the validation split, in grades, or the mean over the numbers in their units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_mae: Option<f64>,
    /// Mean Dice coefficient on the validation split, at the network's resolution, of the classes after the first; 0 where none is there;
    /// of masks alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_dice: Option<f64>,
    /// Training images a second, validation included.
    pub images_per_s: f64,
    /// Wall time, seconds.
    pub seconds: f64,
    /// True when it is the best epoch so far, or none is chosen: its weights are those that are kept so far.
    pub best: bool,
}

impl EpochRow {
    /// Figures of the validation split that there are, by name, the one that says most first.
    pub fn figures(&self) -> Vec<(&'static str, f64)> {
        let all = [
            ("val_dice", self.val_dice),
            ("val_r2", self.val_r2),
            ("val_kappa", self.val_kappa),
            ("val_auc_macro", self.val_auc_macro),
            ("val_acc", self.val_acc),
            ("val_mae", self.val_mae),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The first of these, the higher the better.
    pub fn score(&self) -> f64 {
        self.figures().first().map_or(f64::NEG_INFINITY, |(_, value)| *value)
    }

    /// True where it is the best so far, after these: by its score and then its validation loss; of a head that is solved to convergence by
    /// that loss. Of tasks of one class an epoch whose loss is far from the lowest so far is none, however well it orders few images.
    pub(crate) fn is_best_after(&self, history: &[EpochRow], kind: TaskKind) -> bool {
        let Some(best) = best(history) else { return true };
        let lowest = history.iter().map(|row| row.val_loss).fold(self.val_loss, f64::min);
        let is_near = |row: &EpochRow| kind != TaskKind::SingleLabel || row.val_loss <= NEAR * lowest;
        match (is_near(self), is_near(best)) {
            (true, true) if self.c.is_some() || self.score() == best.score() => self.val_loss < best.val_loss,
            (true, true) => self.score() > best.score(),
            (is_near, best_is_near) => is_near && !best_is_near,
        }
    }
}

/// The best of these epochs so far.
fn best(history: &[EpochRow]) -> Option<&EpochRow> {
    history.iter().rev().find(|row| row.best)
}

/// Of a task of one class the validation loss of the best epoch is at most so many times the lowest (decision 0038).
const NEAR: f64 = 1.1;

/// What a state says besides its tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) config: TrainConfig,
    /// Digest of the manifest, or what the generator draws.
    pub(crate) data_digest: String,
    /// Digest of the backbone at the start.
    pub(crate) backbone: String,
    /// Classes in the order of the head's rows.
    pub(crate) classes: Vec<String>,
    /// Threads, where the result depends on them: when all weights are trained.
    pub(crate) threads: Option<usize>,
    /// From pixels to input.
    pub(crate) preprocess: Preprocess,
    /// Optimizer steps taken.
    pub(crate) steps: u64,
    /// Every epoch so far.
    pub(crate) history: Vec<EpochRow>,
}

impl Record {
    /// The best epoch so far.
    pub(crate) fn best(&self) -> Option<&EpochRow> {
        best(&self.history)
    }

    /// Epochs since the best one; of tasks of one class also since the lowest validation loss, as what lowers it may yet order better.
    pub(crate) fn since_best(&self, kind: TaskKind) -> usize {
        let lowest = self.history.iter().min_by(|a, b| a.val_loss.total_cmp(&b.val_loss));
        let lowest = lowest.filter(|_| kind == TaskKind::SingleLabel);
        let last = self.best().into_iter().chain(lowest).map(|row| row.epoch).max();
        last.map_or(0, |last| self.history.len() - last)
    }

    /// Refuses to go on with anything that would change the result, but for more epochs: those that are to come then follow the
    /// cosine of the new number, from the rate that it has after those that are done.
    fn check(&self, path: &Path, saved: &Record) -> Result<(), Error> {
        let mismatch = |field: &str, saved: String, current: String| {
            Err(Error::ResumeMismatch { path: path.to_owned(), field: field.to_owned(), saved, current })
        };
        if saved.data_digest != self.data_digest {
            return mismatch(
                "the data (digest of names, labels and splits)",
                saved.data_digest.clone(),
                self.data_digest.clone(),
            );
        }
        if saved.backbone != self.backbone {
            return mismatch("the backbone", saved.backbone.clone(), self.backbone.clone());
        }
        if saved.classes != self.classes {
            return mismatch("the order of the classes", saved.classes.join(", "), self.classes.join(", "));
        }
        if saved.threads != self.threads {
            let threads = |record: &Record| record.threads.map_or("any".to_owned(), |threads| threads.to_string());
            return mismatch("the number of threads", threads(saved), threads(self));
        }
        let of_config = (fields(&saved.config), fields(&self.config));
        let of_preprocess = (fields(&saved.preprocess), fields(&self.preprocess));
        for (saved, current) in [of_config, of_preprocess] {
            // What is at its default is left out of either.
            let gone = saved.keys().filter(|field| !current.contains_key(*field));
            for field in current.keys().chain(gone) {
                let (saved, current) = (saved.get(field), current.get(field));
                let number = |value: Option<&Value>| value.and_then(Value::as_u64);
                let more_epochs = field == "epochs" && number(saved) < number(current);
                if saved != current && !more_epochs {
                    let say = |value: Option<&Value>| value.map_or_else(|| "not set".to_owned(), Value::to_string);
                    return mismatch(&format!("setting `{field}`"), say(saved), say(current));
                }
            }
        }
        Ok(())
    }
}

/// Name and value of each field, in order of the type's definition.
pub(crate) fn fields(settings: &impl Serialize) -> serde_json::Map<String, Value> {
    match to_json(settings) {
        Value::Object(fields) => fields,
        _ => unreachable!("settings are plain structs"),
    }
}

/// Settings as JSON, by way of text: an f32 of 0.8 stays 0.8 and does not become 0.800000011920929.
pub(crate) fn to_json(settings: &impl Serialize) -> Value {
    let text = serde_json::to_string(settings).expect("settings are plain data");
    serde_json::from_str(&text).expect("what was written can be read")
}

/// Values of every trained tensor, by the names of `Model::tensor_shapes`.
pub(crate) type Values = Vec<Vec<f32>>;

/// A whole state.
pub(crate) struct State {
    pub(crate) record: Record,
    pub(crate) last: Values,
    pub(crate) best: Values,
    pub(crate) optimizer: AdamW,
}

/// The four groups of tensors in a state file.
const GROUPS: [&str; 4] = ["last", "best", "first_moment", "second_moment"];

impl State {
    pub(crate) fn write(&self, path: &Path, shapes: &[(String, Vec<usize>)]) -> Result<(), Error> {
        let groups = [&self.last, &self.best, &self.optimizer.first, &self.optimizer.second];
        let tensors: Vec<NamedTensor<'_>> = GROUPS
            .iter()
            .zip(groups)
            .flat_map(|(group, values)| {
                let named = shapes.iter().zip(values);
                named.map(move |((name, shape), values)| (format!("{group}.{name}"), shape.clone(), values.as_slice()))
            })
            .collect();
        let json = serde_json::to_string(&self.record).expect("a record is plain data");
        let digest = digest(&json, groups);
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), json), (DIGEST_KEY.to_owned(), digest)]);
        write_tensors(path, &tensors, metadata, Storage::F32)?;
        Ok(())
    }

    /// Reads the record alone.
    pub(crate) fn read_record(path: &Path) -> Result<Record, Error> {
        Ok(State::read_metadata(path)?.0)
    }

    /// The record, its JSON, and the digest of all, which states of older versions lack.
    fn read_metadata(path: &Path) -> Result<(Record, String, Option<String>), Error> {
        let state = |reason: String| Error::State { path: path.to_owned(), reason };
        let mut metadata = TensorFile::open(path)?.metadata()?;
        let json =
            metadata.remove(METADATA_KEY).ok_or_else(|| state(format!("no `{METADATA_KEY}` in its metadata")))?;
        let record = serde_json::from_str(&json).map_err(|error| state(error.to_string()))?;
        Ok((record, json, metadata.remove(DIGEST_KEY)))
    }

    /// Reads a state for a run with this record, whose history is taken from the file.
    pub(crate) fn read(path: &Path, current: &Record, shapes: &[(String, Vec<usize>)]) -> Result<State, Error> {
        let (record, json, sha256) = State::read_metadata(path)?;
        current.check(path, &record)?;
        let file = TensorFile::open(path)?;
        let read = |group: &str| -> Result<Values, Error> {
            shapes.iter().map(|(name, shape)| Ok(file.read(&format!("{group}.{name}"), shape)?)).collect()
        };
        let [last, best, first, second] = GROUPS.map(read);
        let (last, best, first, second) = (last?, best?, first?, second?);
        if sha256.is_some_and(|sha256| sha256 != digest(&json, [&last, &best, &first, &second])) {
            let reason = "its checksum is wrong: some of it was changed after it was written".to_owned();
            return Err(Error::State { path: path.to_owned(), reason });
        }
        let optimizer = AdamW { steps: record.steps, first, second };
        let record = Record { config: current.config.clone(), ..record };
        Ok(State { last, best, optimizer, record })
    }
}

/// SHA-256 of a record's JSON and of all values after it, little-endian.
fn digest(json: &str, groups: [&Values; 4]) -> String {
    let mut digest = Sha256::new_with_prefix(json);
    groups.into_iter().flatten().for_each(|tensor| hash_numbers(&mut digest, tensor));
    hex(&digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_back_from_json_bit_for_bit() {
        let mut x = 0.1f64;
        for _ in 0..2000 {
            x = (x * 3.9 * (1.0 - x)).clamp(1e-9, 1.0);
            let text = serde_json::to_string(&x).unwrap();
            assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), x.to_bits(), "{text}");
        }
    }

    /// Epochs of these validation losses and macro AUCs.
    fn record(epochs: &[(f64, f64)], kind: TaskKind) -> Record {
        let mut history = Vec::new();
        for (done, &(val_loss, auc)) in epochs.iter().enumerate() {
            let mut row = EpochRow { epoch: done + 1, val_loss, val_auc_macro: Some(auc), ..EpochRow::default() };
            row.best = row.is_best_after(&history, kind);
            history.push(row);
        }
        Record {
            config: TrainConfig::new(1),
            data_digest: String::new(),
            backbone: String::new(),
            classes: Vec::new(),
            threads: None,
            preprocess: Preprocess::base(32),
            steps: 0,
            history,
        }
    }

    #[test]
    fn the_best_epoch_has_the_best_auc_near_the_lowest_loss() {
        let best = |epochs: &[(f64, f64)], kind| record(epochs, kind).best().map(|row| row.epoch);
        let of_classes = |epochs: &[(f64, f64)]| best(epochs, TaskKind::SingleLabel);
        assert_eq!(of_classes(&[(1.6, 0.8), (1.2, 0.7), (1.0, 0.75)]), Some(3), "an early AUC was luck");
        assert_eq!(of_classes(&[(1.0, 0.8), (1.05, 0.85), (1.02, 0.82)]), Some(2), "near enough");
        assert_eq!(of_classes(&[(1.0, 0.8), (1.2, 0.9)]), Some(1), "too far");
        assert_eq!(of_classes(&[(1.0, 0.8), (0.9, 0.8), (0.95, 0.8)]), Some(2), "of equal AUCs the lower loss");
        assert_eq!(best(&[(1.0, 0.8), (1.2, 0.9)], TaskKind::MultiLabel), Some(2), "findings go by their AUC alone");
    }

    #[test]
    fn patience_counts_from_the_lowest_loss_too_where_classes_are_told_apart() {
        let epochs = [(1.0, 0.8), (0.95, 0.7), (1.0, 0.7), (1.0, 0.7)];
        assert_eq!(record(&epochs, TaskKind::SingleLabel).since_best(TaskKind::SingleLabel), 2);
        assert_eq!(record(&epochs, TaskKind::MultiLabel).since_best(TaskKind::MultiLabel), 3);
    }

    #[test]
    fn settings_keep_their_decimals() {
        assert_eq!(to_json(&[0.8f32]).to_string(), "[0.8]");
    }
}
