//! One cell: a training, and what it says of every validation and test image.

use crate::cell_result::{CellResult, Identity};
use crate::claim::Claim;
use crate::error::Error;
use crate::method::StudyMethod;
use crate::plan::{Cell, Plan};
use crate::store::CellFolder;
use melo_data::{Manifest, Row};
use melo_interop::read_backbone;
use melo_train::{Event, Job, Resume, RunOptions, TrainConfig};
use melo_vit::{BackboneInfo, BagConfig, Device, Plugin, Preprocess, TaskKind};
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The manifests of a study's cells, each read, split and hashed once.
#[derive(Debug, Default)]
pub(crate) struct Manifests(Mutex<HashMap<ManifestKey, Arc<CellData>>>);

/// What a cell's manifest depends on: the task, the fold, the share of the training data in parts of a million, and the
/// seed that draws it.
type ManifestKey = (usize, Option<usize>, u32, u64);

/// A manifest with its digest.
#[derive(Debug)]
pub(crate) struct CellData {
    pub(crate) manifest: Manifest,
    pub(crate) digest: String,
}

impl Manifests {
    pub(crate) fn of(&self, plan: &Plan, cell: &Cell) -> Result<Arc<CellData>, Error> {
        let seed = if cell.data_fraction < 1.0 { cell.seed } else { 0 };
        let key = (cell.task, cell.fold, (cell.data_fraction * 1e6).round() as u32, seed);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(data) = known.get(&key) {
            return Ok(Arc::clone(data));
        }
        let manifest = manifest(plan, cell)?;
        let data = Arc::new(CellData { digest: manifest.digest(), manifest });
        known.insert(key, Arc::clone(&data));
        Ok(data)
    }
}

/// What determines a cell's answers, from the plan.
pub(crate) fn identity(plan: &Plan, cell: &Cell, data: &CellData, backbone: &BackboneInfo) -> Result<Identity, Error> {
    let (preprocess, config) = settings(plan, cell, backbone)?;
    let config = TrainConfig { bag: data.manifest.has_bags().then(BagConfig::default), ..config };
    let config = config.of_task(data.manifest.kind);
    Ok(Identity {
        cell: plan.cell_name(cell),
        data_digest: data.digest.clone(),
        backbone_digest: backbone.digest().to_owned(),
        preprocess,
        config,
    })
}

/// Preprocessing and settings of a cell.
pub(crate) fn settings(plan: &Plan, cell: &Cell, backbone: &BackboneInfo) -> Result<(Preprocess, TrainConfig), Error> {
    let method = &plan.methods[cell.method];
    let own = Job::preprocess(backbone.preprocess());
    let size = method.image_size().unwrap_or(own.size);
    let config = method.config(backbone.config(), plan.tasks[cell.task].augment(), cell.seed);
    let config = config.map_err(|reason| Error::Study { path: plan.path.clone(), reason })?;
    Ok((Preprocess { size, ..own }, TrainConfig { precision: plan.precision, ..config }))
}

/// The manifest of a cell, with its splits, in the order of names: shuffles and augmentation go by index.
pub(crate) fn manifest(plan: &Plan, cell: &Cell) -> Result<Manifest, Error> {
    let task = &plan.tasks[cell.task];
    let mut manifest = Manifest::read_with(&task.labels, &task.reading)?;
    if !manifest.kind.has_probabilities() {
        let what = if manifest.kind == TaskKind::Segmentation { "masks" } else { "numbers" };
        let reason = format!("task {}: {what} have no AUC to compare methods by", task.name);
        return Err(Error::Study { path: plan.path.clone(), reason });
    }
    if manifest.has_bags() {
        let refused = |reason: String| {
            Err(Error::Study { path: plan.path.clone(), reason: format!("task {}: {reason}", task.name) })
        };
        let is_tried = |method: &StudyMethod| method.tasks.as_ref().is_none_or(|tasks| tasks.contains(&task.name));
        let whole = plan.methods.iter().find(|method| method.kind.trains_backbone() && is_tried(method));
        if let Some(method) = whole {
            return refused(format!("its images are in bags, which method {} does not train on", method.name));
        }
        if !task.subgroups.is_empty() {
            return refused("subgroups are of single images, and its images are in bags".to_owned());
        }
    }
    match cell.fold {
        Some(fold) => manifest = manifest.with_fold(plan.folds, fold, plan.split_seed)?,
        None => {
            manifest.assign_splits(plan.split_seed, melo_data::DEFAULT_FRACTIONS)?;
        }
    }
    if cell.data_fraction < 1.0 {
        manifest = manifest.subset_train(cell.data_fraction, cell.seed)?;
    }
    let bag = |row: &Row| row.bag.as_ref().map(|bag| (bag.name.clone(), bag.place));
    manifest.rows.sort_by_cached_key(|row| {
        let (first, place) = bag(row).unwrap_or((row.name.clone(), 0));
        (first, place, row.name.clone())
    });
    Ok(manifest)
}

/// How a cell is run: none of it changes the result.
pub struct CellOptions<'a> {
    /// Set from outside to stop after the step in flight.
    pub stop: &'a AtomicBool,
    /// Told the news of the training.
    pub observer: &'a mut (dyn FnMut(Event<'_>) + Send),
    /// The most memory that this process ever held, bytes.
    pub peak_rss_bytes: fn() -> Option<u64>,
}

/// Trains a cell on a device, or goes on with it, under a claim, and writes its result last: a cell with a result is done, and its
/// result is given back. Why it failed stays in its folder.
///
/// # Errors
/// Every cause by its name; finished epochs stay in the cell's folder.
pub fn run_cell(
    plan: &Plan,
    cell: &Cell,
    folder: &CellFolder,
    device: Arc<dyn Device>,
    options: CellOptions<'_>,
) -> Result<CellResult, Error> {
    folder.create()?;
    let claim = folder.claim(options.stop)?;
    folder.clear_failure()?;
    let error = match compute(plan, cell, folder, device, options, &claim) {
        Err(Error::Train(melo_train::Error::Interrupted { .. })) => {
            return Err(Error::Interrupted { folder: folder.path().to_owned() });
        }
        Err(error) => error,
        done => return done,
    };
    if !claim.is_held() {
        return Err(Error::TakenOver { path: folder.claim_file() });
    }
    // A disk that takes no result may take no reason either: the process still says it.
    let _ = folder.write_failure(&claim.failure(error.to_string()));
    Err(error)
}

fn compute(
    plan: &Plan,
    cell: &Cell,
    folder: &CellFolder,
    device: Arc<dyn Device>,
    options: CellOptions<'_>,
    claim: &Claim,
) -> Result<CellResult, Error> {
    let started = Instant::now();
    let CellOptions { stop, observer, peak_rss_bytes } = options;
    let backbone = read_backbone(&plan.backbones[cell.backbone].weights)?;
    let (preprocess, config) = settings(plan, cell, backbone.info())?;
    let backbone_digest = backbone.info().digest().to_owned();
    let job = Job {
        task: plan.tasks[cell.task].name.clone(),
        preprocess,
        config,
        needs_test: true,
        ..Job::new(device, backbone, manifest(plan, cell)?)
    };
    let ready = job.prepare(&mut |_| ())?;
    let identity = Identity {
        cell: plan.cell_name(cell),
        data_digest: ready.card().provenance.data_digest.clone(),
        backbone_digest,
        preprocess: ready.card().preprocess.clone(),
        config: ready.config().clone(),
    };
    if let Some(result) = folder.read_result(&identity)? {
        return Ok(result);
    }
    let run = folder.run(claim)?;
    // An unfinished state of other settings, or of another number of threads, is of no use to this cell.
    let options = RunOptions { folder: Some(&run), resume: Resume::IfSame, stop, observer };
    let finished = ready.run(options)?;
    let stored_bytes = match &finished.checkpoint {
        Some(tuned) => 4 * (tuned.config.parameters() + finished.plugin.parameters()) as u64,
        None => {
            finished.save(&folder.plugin())?;
            std::fs::metadata(folder.plugin()).map_or(0, |file| file.len())
        }
    };
    let result = CellResult {
        classes: finished.plugin.card.classes.clone(),
        temperature: finished.plugin.card.temperature,
        trainable_parameters: finished.trainable,
        backbone_parameters: finished.backbone,
        stored_bytes,
        peak_rss_bytes: peak_rss_bytes(),
        seconds: started.elapsed().as_secs_f64(),
        history: finished.history,
        val: finished.val,
        test: finished.test.expect("a test split that is needed is answered"),
        identity,
    };
    folder.write_result(&result)?;
    drop(run);
    folder.clear_runs();
    Ok(result)
}

/// A plug-in of a finished cell with its backbone, none with full fine-tuning.
///
/// # Errors
/// As [`Plugin::load`].
pub(crate) fn load_plugin(folder: &CellFolder, backbone: &BackboneInfo) -> Result<Option<Plugin>, Error> {
    match folder.plugin().is_file() {
        true => Ok(Some(Plugin::load(&folder.plugin(), backbone)?)),
        false => Ok(None),
    }
}
