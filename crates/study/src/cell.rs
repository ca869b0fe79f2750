//! One cell: a training, and what it says of every validation and test image.

use crate::error::Error;
use crate::plan::{Cell, Plan};
use crate::store::CellFolder;
use melo_data::{Cache, Dataset, Manifest, Row, Split};
use melo_interop::read_checkpoint;
use melo_train::{Answers, EpochRow, Event, RunOptions, Start, Task, TrainConfig, train};
use melo_vit::{Backbone, Checkpoint, CropMode, Plugin, Preprocess, Storage, TaskCard, TaskKind, VitConfig};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Memory for decoded images, bytes.
const CACHE_BYTES: usize = 1 << 30;

/// What a finished cell leaves behind, `result.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellResult {
    /// What determined it.
    pub identity: Identity,
    /// Names of the classes or findings.
    pub classes: Vec<String>,
    /// Fitted on the validation split.
    pub temperature: f32,
    /// Trained values.
    pub trainable_parameters: usize,
    /// Values of the backbone, without a classifier.
    pub backbone_parameters: usize,
    /// Bytes that the task needs besides the shared backbone.
    pub stored_bytes: u64,
    /// The most memory that the process held, bytes.
    pub peak_rss_bytes: Option<u64>,
    /// Wall time of the whole cell, the last process's alone where it was interrupted.
    pub seconds: f64,
    /// Every epoch.
    pub history: Vec<EpochRow>,
    /// Answers of the best epoch on the validation split.
    pub val: Answers,
    /// Answers of the best epoch on the test split.
    pub test: Answers,
}

/// Everything that determines a cell's answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Name of the cell.
    pub cell: String,
    /// Digest of names, labels, patients and splits.
    pub data_digest: String,
    /// Digest of the backbone at the start.
    pub backbone_digest: String,
    /// From pixels to input.
    pub preprocess: Preprocess,
    /// Settings of the training.
    pub config: TrainConfig,
}

/// What a study needs to know of a backbone without holding its weights.
#[derive(Clone, Debug)]
pub(crate) struct BackboneFacts {
    pub(crate) architecture: String,
    pub(crate) config: VitConfig,
    pub(crate) preprocess: Preprocess,
    pub(crate) digest: String,
}

impl BackboneFacts {
    pub(crate) fn of(checkpoint: &Checkpoint) -> Self {
        BackboneFacts {
            architecture: checkpoint.name.clone(),
            config: checkpoint.config.clone(),
            preprocess: checkpoint.preprocess.clone(),
            digest: checkpoint.digest(),
        }
    }
}

/// A cell's data, and what determines its answers.
pub(crate) struct CellInput {
    pub(crate) manifest: Manifest,
    pub(crate) identity: Identity,
}

impl CellInput {
    pub(crate) fn new(plan: &Plan, cell: &Cell, backbone: &BackboneFacts) -> Result<Self, Error> {
        let manifest = manifest(plan, cell)?;
        let method = &plan.methods[cell.method];
        let own = &backbone.preprocess;
        let size = method.image_size().unwrap_or(own.size);
        let identity = Identity {
            cell: plan.cell_name(cell),
            data_digest: manifest.digest(),
            backbone_digest: backbone.digest.clone(),
            preprocess: Preprocess { size, crop_mode: CropMode::Squash, crop_pct: 1.0, ..own.clone() },
            config: TrainConfig {
                precision: plan.precision,
                ..method.config(&backbone.config, &plan.tasks[cell.task], cell.seed)
            },
        };
        Ok(CellInput { manifest, identity })
    }

    /// The images of a split, all of them readable.
    pub(crate) fn dataset(&self, split: Split, cache: &Arc<Cache>) -> Result<Dataset, Error> {
        let path = &self.manifest.path;
        let rows: Vec<Row> = self.manifest.split(split).into_iter().cloned().collect();
        if rows.is_empty() {
            return Err(Error::Data { path: path.clone(), reason: format!("no image is in the {split} split") });
        }
        let dataset = Dataset::new(rows, self.identity.preprocess.clone(), Arc::clone(cache));
        let broken = dataset.preload(&|_, _| ());
        match broken.first() {
            None => Ok(dataset),
            Some(first) => {
                let reason = format!(
                    "{} of {} images of the {split} split cannot be read; `melo data check` lists all; the first: {}",
                    broken.len(),
                    dataset.len(),
                    first.error
                );
                Err(Error::Data { path: path.clone(), reason })
            }
        }
    }
}

/// The manifest of a cell, with its splits, in the order of names: shuffles and augmentation go by index.
pub(crate) fn manifest(plan: &Plan, cell: &Cell) -> Result<Manifest, Error> {
    let mut manifest = Manifest::read(&plan.tasks[cell.task].labels)?;
    match cell.fold {
        Some(fold) => manifest = manifest.with_fold(plan.folds, fold, plan.split_seed)?,
        None => {
            manifest.assign_splits(plan.split_seed, melo_data::DEFAULT_FRACTIONS)?;
        }
    }
    if cell.data_fraction < 1.0 {
        manifest = manifest.subset_train(cell.data_fraction, cell.seed)?;
    }
    manifest.rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(manifest)
}

/// How a cell is run: none of it changes the result.
pub struct CellOptions<'a> {
    /// Set from outside to stop after the step in flight.
    pub stop: &'a AtomicBool,
    /// Told every epoch.
    pub observer: &'a mut dyn FnMut(&EpochRow),
    /// The most memory that this process ever held, bytes.
    pub peak_rss_bytes: fn() -> Option<u64>,
}

/// Trains a cell, or goes on with it, and writes its result last: a cell with a result is done.
///
/// # Errors
/// Every cause by its name; finished epochs stay in the cell's folder.
pub fn run_cell(plan: &Plan, cell: &Cell, folder: &CellFolder, options: CellOptions<'_>) -> Result<(), Error> {
    let started = Instant::now();
    let CellOptions { stop, observer, peak_rss_bytes } = options;
    let mut checkpoint = read_checkpoint(&plan.backbones[cell.backbone].weights)?;
    let input = CellInput::new(plan, cell, &BackboneFacts::of(&checkpoint))?;
    let cache = Arc::new(Cache::new(CACHE_BYTES));
    let [train_set, val_set, test_set] =
        [Split::Train, Split::Val, Split::Test].map(|split| input.dataset(split, &cache));
    let (train_set, val_set, test_set) = (train_set?, val_set?, test_set?);
    let CellInput { manifest, identity } = input;
    let config = &identity.config;

    let frozen = Backbone::new_with(checkpoint.clone(), config.precision);
    let card = card(plan, cell, &manifest, &identity, &frozen);
    let start = if config.method.trains_backbone() {
        checkpoint.weights.resize_positions(&mut checkpoint.config, identity.preprocess.size);
        Start::Trained(&checkpoint)
    } else {
        Start::Frozen(&frozen)
    };
    let task = Task { start, card, train: &train_set, val: &val_set };
    let run = folder.run()?;
    let mut show = |event: Event<'_>| {
        if let Event::Epoch(row) = event {
            observer(row);
        }
    };
    let mut attempt =
        |resume: bool| train(&task, config, RunOptions { folder: &run, resume, stop, observer: &mut show });
    let mut outcome = match attempt(true) {
        // An unfinished state of other settings, or of another number of threads, is of no use to this cell.
        Err(melo_train::Error::ResumeMismatch { .. } | melo_train::Error::State { .. }) => attempt(false),
        other => other,
    }?;

    let tuned = outcome.checkpoint.take().map(|checkpoint| Backbone::new_with(checkpoint, config.precision));
    let backbone = tuned.as_ref().unwrap_or(&frozen);
    let mut plugin = outcome.plugin;
    let (val, test) = (Answers::of(backbone, &plugin, &val_set)?, Answers::of(backbone, &plugin, &test_set)?);
    melo_train::certify(&mut plugin.card, &val, Some(&test))?;
    let stored_bytes = match &tuned {
        Some(tuned) => 4 * (tuned.config.parameters() + plugin.parameters()) as u64,
        None => {
            plugin.save_with_self_test(&folder.plugin(), backbone, Storage::F32)?;
            std::fs::metadata(folder.plugin()).map_or(0, |file| file.len())
        }
    };
    let result = CellResult {
        classes: manifest.classes.clone(),
        temperature: plugin.card.temperature,
        trainable_parameters: outcome.trainable,
        backbone_parameters: outcome.backbone,
        stored_bytes,
        peak_rss_bytes: peak_rss_bytes(),
        seconds: started.elapsed().as_secs_f64(),
        history: outcome.history,
        val,
        test,
        identity,
    };
    folder.write_result(&result)?;
    run.clear()?;
    Ok(())
}

fn card(plan: &Plan, cell: &Cell, manifest: &Manifest, identity: &Identity, backbone: &Backbone) -> TaskCard {
    let kind = if manifest.multi_label { TaskKind::MultiLabel } else { TaskKind::SingleLabel };
    let name = plan.tasks[cell.task].name.clone();
    let preprocess = identity.preprocess.clone();
    let mut card = TaskCard::new(name, kind, manifest.classes.clone(), preprocess, backbone.reference());
    card.provenance.software = melo_train::SOFTWARE.to_owned();
    card.provenance.data_digest = identity.data_digest.clone();
    card.provenance.split_digest = manifest.split_digest();
    card
}

/// A plug-in of a finished cell with its backbone, none with full fine-tuning.
///
/// # Errors
/// As [`Plugin::load`].
pub(crate) fn load_plugin(folder: &CellFolder, backbone: &Backbone) -> Result<Option<Plugin>, Error> {
    match folder.plugin().is_file() {
        true => Ok(Some(Plugin::load(&folder.plugin(), backbone)?)),
        false => Ok(None),
    }
}
