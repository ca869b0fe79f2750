//! A whole training: backbone and manifest in, a finished plug-in out.
//!
//! What every training must do is done here and nowhere else: splits by patient, an order that does not depend on the
//! file's, card and provenance, calibration on the validation split, figures on the test split, rounding to what is stored,
//! the self-test.

use crate::answers::Answers;
use crate::calibrate::calibrate;
use crate::config::{ClassWeights, TrainConfig};
use crate::error::Error;
use crate::folds::{cut, validation_figures};
use crate::model::Start;
use crate::scope::{ScopeSettings, describe, has_scope};
use crate::sets::SetSettings;
use crate::state::{EpochRow, fields};
use crate::team::{Team, read_images};
use crate::trainer::{Event, Outcome, Resume, RunOptions, Task, train};
use chrono::{DateTime, Utc};
use melo_data::{Cache, DEFAULT_FRACTIONS, Dataset, Labels, Manifest, Row, Split, unread_splits, unreadable};
use melo_vit::{
    Backbone, BackboneReference, BagConfig, Checkpoint, CropMode, CropOffset, Device, Engine, EngineInfo, Plugin,
    Preprocess, Storage, TaskCard, TaskKind, VitConfig, VolumeEmbedding, folder_of,
};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// What is trained on what.
pub struct Job {
    /// Where it is computed.
    pub device: Arc<dyn Device>,
    /// The backbone it starts from.
    pub backbone: Backbone,
    /// Images with labels; splits that are missing are assigned by patient.
    pub manifest: Manifest,
    /// Name of the task.
    pub task: String,
    /// From pixels to input, see [`Job::preprocess`].
    pub preprocess: Preprocess,
    /// Settings; the precision is the device's.
    pub config: TrainConfig,
    /// Numbers that are stored.
    pub storage: Storage,
    /// Whether a test split must be there, every image of it readable; else there are test figures where there can be.
    pub needs_test: bool,
    /// What is asked of prediction sets; none where there are to be none.
    pub sets: Option<SetSettings>,
    /// What is asked of the scope; none where the plug-in is not to tell which images are for it. Bags and volumes have none.
    pub scope: Option<ScopeSettings>,
    /// Decoded images.
    pub cache: Arc<Cache>,
    /// The processes that train together, this one alone where there are no others. Each makes the same job.
    pub team: Arc<Team>,
}

/// A training that is about to begin: everything that can be told from settings and manifest is in order.
pub struct ReadyJob {
    pub(crate) start: Start,
    pub(crate) home: Home,
    pub(crate) manifest: Manifest,
    pub(crate) card: TaskCard,
    pub(crate) config: TrainConfig,
    pub(crate) storage: Storage,
    pub(crate) needs_test: bool,
    pub(crate) sets: Option<SetSettings>,
    pub(crate) scope: Option<ScopeSettings>,
    pub(crate) cache: Arc<Cache>,
    volume: Option<VolumeEmbedding>,
    /// The manifest once a member of an ensemble; none of a single plug-in.
    pub(crate) folds: Vec<Manifest>,
    /// Where and of which weights members of an ensemble are trained, with what they share merged in.
    pub(crate) weights: Option<(Arc<dyn Device>, Box<Checkpoint>)>,
    pub(crate) team: Arc<Team>,
}

/// A finished training.
#[derive(Debug)]
pub struct Finished {
    /// The plug-in, calibrated and with its self-test.
    pub plugin: Plugin,
    /// What it runs on: with full fine-tuning another backbone than at the start.
    pub engine: Arc<dyn Engine>,
    /// The fine-tuned backbone, rounded to what is stored, with full fine-tuning.
    pub checkpoint: Option<Checkpoint>,
    /// Numbers that are stored.
    pub storage: Storage,
    /// Every epoch; of an ensemble what its members that came so far had on average, and the seconds of all.
    pub history: Vec<EpochRow>,
    /// The best one; of an ensemble the mean of its members' best, with the figures of all images out of their folds.
    pub best: EpochRow,
    /// Trained values.
    pub trainable: usize,
    /// Values of the backbone, without a classifier.
    pub backbone: usize,
    /// What it says of the validation split; of an ensemble what is said of its images, and where members share nothing of the training split's
    /// too, by the member that did not see them.
    pub val: Answers,
    /// What it says of the test split.
    pub test: Option<Answers>,
}

impl Job {
    /// A job with the defaults of a backbone and its manifest's folder as the task's name.
    pub fn new(device: Arc<dyn Device>, backbone: Backbone, manifest: Manifest) -> Self {
        let config = TrainConfig::new(backbone.info().config().depth);
        let preprocess = Job::preprocess(backbone.info().preprocess());
        let task = task_name(&manifest.path);
        Job {
            device,
            backbone,
            manifest,
            task,
            preprocess,
            config,
            storage: Storage::F32,
            needs_test: false,
            sets: Some(SetSettings::default()),
            scope: Some(ScopeSettings::default()),
            cache: Arc::new(Cache::new(Cache::DEFAULT_BYTES)),
            team: Team::alone(),
        }
    }

    /// The preprocessing of a task on a backbone: the weights' size, statistics and filter, and the whole image.
    pub fn preprocess(own: &Preprocess) -> Preprocess {
        Preprocess { crop_mode: CropMode::Squash, crop_pct: 1.0, crop_offset: CropOffset::Even, ..own.clone() }
    }

    /// Checks settings and manifest, and puts the backbone where it is computed; no image is opened.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::ForeignSetting`], [`Error::Card`], [`Error::Images`], [`Error::Vit`]; [`Error::Team`] where another rank
    /// makes another job.
    pub fn prepare(self, observer: &mut dyn FnMut(Event<'_>)) -> Result<ReadyJob, Error> {
        let Job { device, backbone, mut manifest, task, preprocess, storage, needs_test, sets, scope, .. } = self;
        let (cache, team) = (self.cache, self.team);
        let config = TrainConfig { precision: device.info().precision, ..self.config };
        let config = match (config.bag, manifest.has_bags()) {
            (None, true) => TrainConfig { bag: Some(BagConfig::default()), ..config },
            (Some(_), false) => return Err(Error::NoBags { path: manifest.path }),
            _ => config,
        };
        if config.bag.is_some() && manifest.kind == TaskKind::Segmentation {
            return Err(Error::MasksOfBags { path: manifest.path });
        }
        if config.volume.is_some() && (config.bag.is_some() || manifest.kind == TaskKind::Segmentation) {
            return Err(Error::VolumesInBags { path: manifest.path });
        }
        let config = config.of_task(manifest.kind);
        config.check()?;
        if let (Some(folds), TaskKind::Segmentation) = (config.folds, manifest.kind) {
            let reason = format!("is {folds}, but ensembles of folds give no masks");
            return Err(Error::Setting { setting: "folds", reason });
        }
        let info = backbone.info();
        config.lora.check(info.config())?;
        config.bottleneck.check(info.config())?;
        preprocess.check().map_err(|error| Error::Setting { setting: "preprocess", reason: error.reason })?;
        info.check_size(preprocess.size)?;
        let inflated = |config| VolumeEmbedding::inflated(config, &preprocess, &backbone);
        let volume = config.volume.map(inflated).transpose()?;
        if manifest.kind == TaskKind::Segmentation {
            manifest = manifest.with_mask_classes()?;
        }
        observer(Event::Splits(manifest.assign_splits(config.seed, DEFAULT_FRACTIONS)?));
        // Shuffles and augmentation go by index: the order of the file's lines must not matter.
        manifest.rows.sort_by(|a, b| order_of(a).cmp(&order_of(b)));
        let folds = cut(&manifest, &config)?;
        if !team.is_alone() {
            let things = things(&*device, &backbone, &manifest, (&config, &preprocess), (&task, storage, needs_test))?;
            team.agree("its job", &things)?;
        }
        let (backbone, weights) = match &config.late {
            None => (backbone, None),
            Some(_) => {
                let checkpoint = backbone.thaw();
                (checkpoint.clone().freeze(), Some((Arc::clone(&device), Box::new(checkpoint))))
            }
        };
        let (start, home) = start(device, backbone, (&config, &preprocess), &team)?;
        let card = new_card(task, &manifest, preprocess, &start, &config)?;
        if !card.kind.has_probabilities() && config.class_weights != ClassWeights::None {
            let what =
                if card.kind == TaskKind::Segmentation { "pixels are not weighted" } else { "numbers have no classes" };
            let reason = format!("is {}, but {what}", config.class_weights);
            return Err(Error::Setting { setting: "class_weights", reason });
        }
        sets.iter().try_for_each(|asked| asked.check(card.kind))?;
        card.check().map_err(|error| Error::Card { reason: error.reason })?;
        scope.iter().try_for_each(ScopeSettings::check)?;
        Ok(ReadyJob {
            start,
            home,
            manifest,
            card,
            config,
            storage,
            needs_test,
            sets,
            scope,
            cache,
            volume,
            folds,
            weights,
            team,
        })
    }

    /// Trains without keeping anything on the way.
    ///
    /// # Errors
    /// As [`Job::prepare`] and [`ReadyJob::run`].
    pub fn run(self, observer: &mut (dyn FnMut(Event<'_>) + Send)) -> Result<Finished, Error> {
        let stop = std::sync::atomic::AtomicBool::new(false);
        self.prepare(observer)?.run(RunOptions { folder: None, resume: Resume::Never, stop: &stop, observer })
    }
}

impl ReadyJob {
    /// The card as it is before the training.
    pub fn card(&self) -> &TaskCard {
        &self.card
    }

    /// The settings as they are run.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The images with labels, in the order of their names, every one in a split.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What computes.
    pub fn engine_info(&self) -> EngineInfo {
        self.start.engine_info()
    }

    /// The architecture that is trained on.
    pub fn vit(&self) -> &VitConfig {
        self.start.config()
    }

    /// Images of the training split, or bags.
    pub fn train_images(&self) -> usize {
        self.manifest.examples(Split::Train)
    }

    /// The splits, images of training and validation decoded once, those of the test split too where they are needed.
    fn read(&self, observer: &mut (dyn FnMut(Event<'_>) + Send)) -> Result<[Dataset; 3], Error> {
        let ReadyJob { manifest, card, cache, team, .. } = self;
        let needed: &[Split] = if self.needs_test { &Split::ALL } else { &[Split::Train, Split::Val] };
        let sets = unread_splits(manifest, needed, &card.preprocess, cache)?;
        let broken = {
            let observer = Mutex::new(observer);
            let news = |done, of| {
                let mut observer = observer.lock().unwrap_or_else(PoisonError::into_inner);
                observer(Event::Reading { done, of });
            };
            read_images(&sets, team, &news)?
        };
        if !broken.is_empty() {
            let images = sets.iter().map(Dataset::len).sum();
            return Err(unreadable(manifest, needed, images, broken).into());
        }
        let mut sets = sets.into_iter();
        let (Some(train_set), Some(val_set)) = (sets.next(), sets.next()) else {
            unreachable!("a data set for each split that is needed");
        };
        let test_set = sets.next().unwrap_or_else(|| {
            let rows: Vec<Row> = manifest.split(Split::Test).into_iter().cloned().collect();
            let dataset = Dataset::new(rows, card.preprocess.clone(), Arc::new(cache.apart()));
            manifest.reading.masks.iter().fold(dataset, |dataset, masks| dataset.with_masks(masks))
        });
        Ok([train_set, val_set, test_set])
    }

    /// Reads the images and trains, or goes on with it.
    ///
    /// # Errors
    /// Every cause by its name, see [`Error`]; finished epochs stay in the run folder.
    pub fn run(self, options: RunOptions<'_>) -> Result<Finished, Error> {
        // What rank 0 cannot write to is known before all read.
        self.team.gather::<Error>("its beginning", Ok(Vec::new()))?;
        let [train_set, val_set, test_set] = self.read(&mut *options.observer)?;
        if self.config.folds.is_some() {
            return self.run_folds([&train_set, &val_set, &test_set], options);
        }
        let (asked_sets, asked_scope) = (self.sets, self.scope);
        let ReadyJob { start, home, card, config, storage, needs_test, volume, team, .. } = self;
        let RunOptions { folder, resume, stop, observer } = options;
        let task = Task { start, card, train: &train_set, val: &val_set, volume, team: &team };
        let outcome = train(task, &config, RunOptions { folder, resume, stop, observer: &mut *observer })?;
        let Outcome { mut plugin, checkpoint, history, best, trainable, backbone } = outcome;
        let (engine, checkpoint) = home.finish(checkpoint, storage)?;
        plugin.card.backbone = engine.backbone().reference();
        let together = team.engine(Arc::clone(&engine));
        let asked_scope = asked_scope.filter(|_| has_scope(&plugin.card));
        if asked_scope.is_some() {
            plugin.round(storage);
            let scope = describe(&*together, &plugin, &train_set, storage)?;
            plugin.card.scope = Some(scope.config.clone());
            plugin.scope = Some(scope);
        }
        let val = Answers::of(&*together, &plugin, &val_set)?;
        let test = test_answers(&*together, &plugin, &test_set, needs_test, observer)?;
        calibrate(&mut plugin.card, &val, test.as_ref(), (asked_sets.as_ref(), asked_scope.as_ref()))?;
        // Of classes as they are called from now on: an epoch knew no thresholds.
        let mut best = best;
        if best.val_acc.is_some() {
            best.val_acc = validation_figures(&val, &plugin.card.own_calibration())?.val_acc;
            plugin.card.metrics.extend(best.val_acc.map(|acc| ("val_acc".to_owned(), acc)));
        }
        plugin.card.provenance.date = today();
        plugin.finish(&*engine, storage)?;
        observer(Event::Card(&plugin.card));
        Ok(Finished { plugin, engine, checkpoint, storage, history, best, trainable, backbone, val, test })
    }
}

/// What a plug-in says of the test split, where there is one that can be read.
pub(crate) fn test_answers(
    engine: &dyn Engine,
    plugin: &Plugin,
    test_set: &Dataset,
    needed: bool,
    observer: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Option<Answers>, Error> {
    if test_set.is_empty() {
        return Ok(None);
    }
    match Answers::of(engine, plugin, test_set) {
        Err(error) if !needed => {
            observer(Event::NoTestFigures(&error));
            Ok(None)
        }
        answers => answers.map(Some),
    }
}

impl Finished {
    /// Writes the plug-in, atomically.
    ///
    /// # Errors
    /// As [`Plugin::save`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        Ok(self.plugin.save(path, self.engine.backbone().config(), self.storage)?)
    }
}

/// Frozen weights go to the device as they are; those that are trained have their positions interpolated to the task's
/// image size first.
fn start(
    device: Arc<dyn Device>,
    backbone: Backbone,
    (config, preprocess): (&TrainConfig, &Preprocess),
    team: &Arc<Team>,
) -> Result<(Start, Home), Error> {
    if !config.method.trains_backbone() {
        let engine = device.load(backbone)?;
        return Ok((Start::Frozen(team.engine(Arc::clone(&engine))), Home::Engine(engine)));
    }
    let mut checkpoint = backbone.thaw();
    if preprocess.size != checkpoint.config.image_size {
        checkpoint.weights.resize_positions(&mut checkpoint.config, preprocess.size);
    }
    checkpoint.preprocess = preprocess.clone();
    let home = Home::Device(Arc::clone(&device));
    Ok((Start::Trained { device: team.device(device), checkpoint: Box::new(checkpoint) }, home))
}

/// What makes a job, by name: two ranks of one training have the same.
fn things(
    device: &dyn Device,
    backbone: &Backbone,
    manifest: &Manifest,
    (config, preprocess): (&TrainConfig, &Preprocess),
    (task, storage, needs_test): (&str, Storage, bool),
) -> Result<Vec<(String, String)>, Error> {
    let EngineInfo { engine, device, precision, threads: _ } = device.info();
    let masks = manifest.mask_digest()?.unwrap_or_default();
    let outputs = format!("{task}, {storage:?}, test split {}", if needs_test { "needed" } else { "optional" });
    let named = [
        ("the version", crate::SOFTWARE.to_owned()),
        ("the kind of processor", format!("{engine}, {device}")),
        ("the precision", precision.to_string()),
        ("the backbone (digest)", backbone.info().digest().to_owned()),
        ("the data (digest of names and labels)", manifest.digest() + &masks),
        ("the outputs", outputs),
    ];
    let settings = fields(config).into_iter().chain(fields(preprocess));
    let settings = settings.map(|(field, value)| (format!("setting `{field}`"), value.to_string()));
    let splits = ("the splits (digest)".to_owned(), manifest.split_digest());
    Ok(named.map(|(what, value)| (what.to_owned(), value)).into_iter().chain(settings).chain([splits]).collect())
}

/// Images by name, those of a bag by their places.
fn order_of(row: &Row) -> (&str, usize, &str) {
    let bag = row.bag.as_ref().map(|bag| (bag.name.as_str(), bag.place));
    let (first, place) = bag.unwrap_or((&row.name, 0));
    (first, place, &row.name)
}

/// Where the finished plug-in is at home: on the frozen backbone's engine, or on a device that the fine-tuned one is put on.
pub(crate) enum Home {
    Engine(Arc<dyn Engine>),
    Device(Arc<dyn Device>),
}

impl Home {
    /// The engine; with full fine-tuning that of the trained weights, as their file will hold them.
    pub(crate) fn finish(
        self,
        checkpoint: Option<Checkpoint>,
        storage: Storage,
    ) -> Result<(Arc<dyn Engine>, Option<Checkpoint>), Error> {
        match (self, checkpoint) {
            (Home::Device(device), Some(mut checkpoint)) => {
                checkpoint.round(storage);
                Ok((device.load(checkpoint.clone().freeze())?, Some(checkpoint)))
            }
            (Home::Engine(engine), _) => Ok((engine, None)),
            (Home::Device(_), None) => unreachable!("trained weights come back from a training"),
        }
    }
}

/// The card of a task before its training: everything but adapter and metrics.
fn new_card(
    task: String,
    manifest: &Manifest,
    preprocess: Preprocess,
    start: &Start,
    config: &TrainConfig,
) -> Result<TaskCard, Error> {
    let backbone = match start {
        Start::Frozen(engine) => engine.backbone().reference(),
        // It has a digest when it is finished.
        Start::Trained { checkpoint, .. } => BackboneReference { digest: String::new(), name: checkpoint.name.clone() },
    };
    let mut card = TaskCard::new(task, manifest.kind, manifest.classes.clone(), preprocess, backbone);
    card.provenance.software = crate::SOFTWARE.to_owned();
    card.provenance.data_digest = manifest.digest();
    card.provenance.split_digest = manifest.split_digest();
    card.provenance.data = data_name(&manifest.path);
    card.provenance.train_images_of = images_of(manifest, config.folds);
    if card.kind == TaskKind::Segmentation {
        card.decoder = Some(config.mask_head.decoder(start.config(), card.classes.len()));
        card.provenance.mask_digest = manifest.mask_digest()?.unwrap_or_default();
    }
    card.volume = config.volume;
    card.format = card.format_written();
    Ok(card)
}

/// Images, or bags, of each class in the training split, `[c]`, of an ensemble in the validation split too; nothing of numbers.
fn images_of(manifest: &Manifest, folds: Option<usize>) -> Vec<u64> {
    if manifest.kind == TaskKind::Regression {
        return Vec::new();
    }
    let mut images_of = vec![0; manifest.classes.len()];
    let seen = |row: &&Row| match row.split {
        Some(Split::Train) => true,
        Some(Split::Val) => folds.is_some(),
        _ => false,
    };
    for row in manifest.rows.iter().filter(seen).filter(|row| row.is_example()) {
        match &row.labels {
            Labels::Single(class) => images_of[*class] += 1,
            Labels::Multi(findings) => {
                images_of.iter_mut().zip(findings).for_each(|(images, &shown)| *images += u64::from(shown));
            }
            Labels::Values(_) => {}
        }
    }
    images_of
}

/// A manifest with its folder, `wbc/labels.csv`, or a folder: enough to know it by, and no more of a path than that.
pub(crate) fn data_name(data: &Path) -> String {
    let folder = task_name(data);
    match data.file_name() {
        Some(file) if !data.is_dir() => format!("{folder}/{}", file.to_string_lossy()),
        _ => folder,
    }
}

/// The day in UTC, `2026-11-28`; that of `SOURCE_DATE_EPOCH`, seconds since 1970, where it is set, so that a file can be made
/// again to the last bit.
pub fn today() -> String {
    let asked = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let time = asked.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    time.unwrap_or_else(|| DateTime::<Utc>::from(SystemTime::now())).format("%Y-%m-%d").to_string()
}

/// The name of a task whose data lie in `data`: the folder's.
pub fn task_name(data: &Path) -> String {
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let folder = if absolute.is_dir() { &absolute } else { folder_of(&absolute) };
    folder.file_name().map_or_else(|| "task".to_owned(), |name| name.to_string_lossy().into_owned())
}
