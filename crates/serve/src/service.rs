//! The one way from an image's bytes to answers, whoever asks: HTTP, KServe clients, DICOM peers.
//!
//! ```text
//! tasks by name -> versions (a snapshot) -> room in the queue, or Busy at once -> decode once an image
//!   -> batch -> calibrated probabilities -> audit -> answers
//! ```

use crate::answer::{Answer, Heatmap, ImageAnswers, MaskImage};
use crate::audit::{Action, Audit, Record};
use crate::batch::{BatchQueue, Permit};
use crate::disk;
use crate::error::Refusal;
use crate::journal::{Happened, Journal, Visitors};
use crate::metrics::Metrics;
use crate::registry::{Registry, Version};
use crate::shortest;
use melo_imaging::{DecodeMemory, Seen, encode_png};
use melo_predict::{Drawing, Input, Logits, Prepared};
use melo_vit::rendering::Frame;
use melo_vit::{BoundPlugin, Engine, ExplainMethod, Preprocess, hex};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Longest side of previews and heat maps, px.
const SHOWN_SIDE: usize = 1024;
/// Share of the colour of a class in a mask over its image.
const MASK_OPACITY: f32 = 0.4;
/// Heat maps as the server draws them.
const DRAWING: Drawing = Drawing { method: ExplainMethod::Gradient, opacity: 1.0, longest: SHOWN_SIDE };

/// Less room on the disk of the audit is told before it is used up, bytes.
const AUDIT_RESERVE: u64 = 64 << 20;

/// How long a server is not ready after a record that could not be written, before it is looked whether its folder can be again.
const UNRECORDED: Duration = Duration::from_secs(10);

/// What one request may ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of a request.
    pub body_bytes: usize,
    /// Images of a request.
    pub images: usize,
    /// From arrival to answer.
    pub timeout: Duration,
    /// Images that are decoded at a time.
    pub decoders: usize,
    /// Memory of all decoders, by what headers claim, bytes.
    pub decode_bytes: u64,
}

/// An image as it came.
#[derive(Clone)]
pub struct Image {
    /// For messages and answers; never a path.
    pub name: String,
    /// The file.
    pub bytes: Arc<[u8]>,
    /// SOP Instance UID, where it is known.
    pub sop_instance_uid: Option<String>,
}

/// Who asks, and through which door; goes into the audit.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// Name of the key, or of the calling application entity.
    pub who: String,
    /// `http`, `kserve`, `dicom`, `stow`, `server`.
    pub via: &'static str,
    /// The request, as the log names it.
    pub request_id: String,
}

impl Caller {
    /// Nobody: the server does it of itself.
    pub(crate) fn server() -> Self {
        Caller { who: "melo".to_owned(), via: "server", request_id: String::new() }
    }
}

/// A request to any number of tasks.
#[derive(Clone)]
pub struct Request {
    /// At least one.
    pub images: Vec<Image>,
    /// Names, or `name@version`; `all` stands for every task.
    pub tasks: Vec<String>,
    /// Explain each answer's leading class.
    pub heatmap: bool,
    /// Give the masks of tasks that have them.
    pub masks: bool,
    /// Give the decoded image back.
    pub preview: bool,
    /// Of images with several frames this one, whatever the tasks' cards say.
    pub frame: Option<Frame>,
    /// Who asks.
    pub caller: Caller,
}

/// Everything that answers, shared by all doors.
pub struct Service {
    /// Computes, in batches.
    pub batches: BatchQueue,
    /// Knows the tasks.
    pub registry: Arc<Registry>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Remembers; none where nothing is to be kept.
    pub audit: Option<Arc<Audit>>,
    pub(crate) journal: Journal,
    /// Who came.
    pub(crate) visitors: Arc<Visitors>,
    /// Bounds of a request.
    pub limits: Limits,
    decoders: Arc<Semaphore>,
    /// Requests whose heat maps are drawn at a time: half of the threads, so that answers are computed beside them.
    drawers: Arc<Semaphore>,
    decode_memory: Arc<DecodeMemory>,
    /// When a record could not be written, if none was written since.
    unrecorded: Mutex<Option<Instant>>,
}

impl Service {
    /// Puts the parts together.
    pub fn new(
        batches: BatchQueue,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        audit: Option<Arc<Audit>>,
        limits: Limits,
    ) -> Self {
        let journal = Journal::new(audit.clone(), &**batches.predictor().engine());
        let decoders = Arc::new(Semaphore::new(limits.decoders.max(1)));
        let drawers = Arc::new(Semaphore::new((limits.decoders / 2).max(1)));
        let decode_memory = DecodeMemory::new(limits.decode_bytes);
        Service {
            batches,
            registry,
            metrics,
            audit,
            visitors: Arc::new(Visitors::new(journal.clone())),
            journal,
            limits,
            decoders,
            drawers,
            decode_memory,
            unrecorded: Mutex::new(None),
        }
    }

    /// The engine that all tasks share.
    pub fn engine(&self) -> &dyn Engine {
        &**self.batches.predictor().engine()
    }

    /// Versions of the tasks that a request names; `all` gives every task that is served now, without those that cannot be, and of
    /// volumes only where these were sent.
    fn chosen(&self, Request { tasks: names, images, .. }: &Request) -> Result<Vec<Chosen>, Refusal> {
        let volumes = || images.iter().all(|image| melo_imaging::is_volume(&image.bytes, Path::new(&image.name)));
        let mut chosen: Vec<Chosen> = Vec::new();
        for name in names {
            let named = name.contains('@');
            let versions = match name.as_str() {
                "all" => {
                    let served = self.registry.tasks().into_iter();
                    let served = served.filter(|task| self.registry.problem_of(&task.name).is_none());
                    let current = served.map(|task| task.current);
                    current.filter(|version| version.card.volume.is_none() || volumes()).collect()
                }
                name => vec![self.registry.find(name)?],
            };
            for version in versions {
                if !chosen.iter().any(|known| known.version.digest == version.digest) {
                    chosen.push(Chosen { version, named });
                }
            }
        }
        match chosen.is_empty() {
            true if names.is_empty() => Err(Refusal::BadRequest("no task is named: give names, or `all`".to_owned())),
            true => Err(Refusal::NotFound("no task is served".to_owned())),
            false => Ok(chosen),
        }
    }

    /// Answers a request, or says why not.
    ///
    /// # Errors
    /// Every [`Refusal`].
    pub async fn predict(self: &Arc<Self>, request: Request) -> Result<Vec<ImageAnswers>, Refusal> {
        let limit = self.limits.timeout;
        tokio::time::timeout(limit, self.answer(request)).await.map_err(|_| Refusal::Timeout(limit))?
    }

    async fn answer(self: &Arc<Self>, request: Request) -> Result<Vec<ImageAnswers>, Refusal> {
        let started = Instant::now();
        if request.images.is_empty() {
            return Err(Refusal::BadRequest("no image was sent".to_owned()));
        }
        if request.images.len() > self.limits.images {
            let (sent, most) = (request.images.len(), self.limits.images);
            return Err(Refusal::TooLarge(format!("{sent} images were sent, at most {most} are taken at a time")));
        }
        let chosen = self.chosen(&request)?;
        // Heat maps are rows too, and keep theirs until they are drawn.
        let rows = request.images.len() * chosen.len();
        let of_maps = if request.heatmap { rows } else { 0 };
        let mut permit = self.batches.admit(rows + of_maps)?;
        let of_maps = permit.split(of_maps);
        let tasks = self.plugins(chosen).await?;
        let (decoded, logits) = self.compute(&request, &tasks, permit).await?;
        let mut answers = Vec::new();
        for ((image, decoded), logits) in request.images.iter().zip(&decoded).zip(logits) {
            let of_tasks = tasks.iter().zip(logits).map(|((version, plugin), logits)| Answer {
                frame: decoded.frame_of(request.frame.unwrap_or(version.card.preprocess.rendering.frame)),
                ..Answer::new(version, plugin, self.engine(), logits)
            });
            // As the first task sees it, like the preview.
            answers.push(ImageAnswers {
                name: image.name.clone(),
                digest: decoded.digest.clone(),
                frames: decoded.frames,
                remarks: decoded.prepared.seen.first().map(Seen::remarks).unwrap_or_default(),
                answers: of_tasks.collect(),
                preview: None,
            });
        }
        if request.keeps_pixels() {
            answers = self.draw(&request, &tasks, decoded, answers, of_maps).await?;
        }
        self.remember(&request, &answers).await?;
        let took = started.elapsed();
        tasks.iter().for_each(|(version, _)| self.metrics.answered(&version.card.task, answers.len(), took));
        Ok(answers)
    }

    /// Logits `[images][tasks][c]` of inputs that are network inputs already, `[3, size, size]` each.
    ///
    /// # Errors
    /// [`Refusal::Busy`], [`Refusal::Stopping`], [`Refusal::Timeout`], [`Refusal::Internal`].
    ///
    /// # Panics
    /// If an input is not as long as the version's preprocessing says.
    pub async fn infer(
        self: &Arc<Self>,
        inputs: Vec<Arc<[f32]>>,
        version: &Arc<Version>,
        caller: &Caller,
    ) -> Result<Vec<Answer>, Refusal> {
        let started = Instant::now();
        let permit = self.batches.admit(inputs.len())?;
        let tasks = self.plugins(vec![Chosen { version: Arc::clone(version), named: true }]).await?;
        let size = version.card.preprocess.size;
        let digests: Vec<String> = inputs.iter().map(|pixels| digest_of_input(pixels)).collect();
        let input = |pixels| Input { size, pixels, plugins: vec![Arc::clone(&tasks[0].1)] };
        let logits = self.wait(permit, inputs.into_iter().map(input).collect()).await?;
        let answers: Vec<ImageAnswers> = logits
            .into_iter()
            .flatten()
            .zip(digests)
            .map(|(logits, digest)| ImageAnswers {
                name: "tensor".to_owned(),
                digest,
                frames: None,
                remarks: Vec::new(),
                answers: vec![Answer::new(version, &tasks[0].1, self.engine(), logits)],
                preview: None,
            })
            .collect();
        self.append(records(caller, &[], None, &answers)).await?;
        self.metrics.answered(&version.card.task, answers.len(), started.elapsed());
        Ok(answers.into_iter().flat_map(|image| image.answers).collect())
    }

    async fn wait(&self, permit: Permit, inputs: Vec<Input>) -> Result<Vec<Vec<Vec<f32>>>, Refusal> {
        let limit = self.limits.timeout;
        let logits = tokio::time::timeout(limit, permit.submit(inputs)).await.map_err(|_| Refusal::Timeout(limit))?;
        logits.map_err(|_| Refusal::Internal("the batch was lost".to_owned()))?
    }

    /// The weights. A version that was replaced and forgotten since it was chosen gives way to the current one, unless
    /// the request named it.
    async fn plugins(self: &Arc<Self>, chosen: Vec<Chosen>) -> Result<Tasks, Refusal> {
        let registry = Arc::clone(&self.registry);
        blocking(move || {
            let load = |Chosen { mut version, named }| loop {
                match registry.plugin(&version) {
                    Ok(plugin) => return Ok((version, plugin)),
                    Err(_) if !named && registry.known(&version.digest).is_none() => {
                        version = registry.find(&version.card.task)?;
                    }
                    Err(refusal) => return Err(refusal),
                }
            };
            chosen.into_iter().map(load).collect()
        })
        .await
    }

    async fn compute(
        self: &Arc<Self>,
        request: &Request,
        tasks: &Tasks,
        permit: Permit,
    ) -> Result<(Vec<Decoded>, Logits), Refusal> {
        let spec = |version: &Version| {
            let mut spec = version.card.preprocess.clone();
            spec.rendering.frame = request.frame.unwrap_or(spec.rendering.frame);
            spec
        };
        let specs: Arc<[Preprocess]> = tasks.iter().map(|(version, _)| spec(version)).collect();
        let keep_pixels = request.keeps_pixels();
        let plugins: Vec<Arc<BoundPlugin>> = tasks.iter().map(|(_, plugin)| Arc::clone(plugin)).collect();
        let mut decoded = Vec::new();
        for image in &request.images {
            let turn = Arc::clone(&self.decoders).acquire_owned().await.map_err(|_| Refusal::Stopping)?;
            let (image, specs, frame) = (image.clone(), Arc::clone(&specs), request.frame);
            let memory = Arc::clone(&self.decode_memory);
            // The work holds its turn, and not its caller, who may go away.
            let decode = move || {
                let _turn = turn;
                memory.within(|| Decoded::new(&image, &specs, frame, keep_pixels))
            };
            decoded.push(blocking(decode).await?);
        }
        let mut inputs = Vec::new();
        let mut places = Vec::new();
        for image in &decoded {
            let (asked, of_tasks) = image.prepared.asking(&plugins);
            places.push((inputs.len(), of_tasks));
            inputs.extend(asked);
        }
        let mut logits = self.wait(permit, inputs).await?;
        let of_image = |(first, of_tasks): (usize, Vec<(usize, usize)>)| {
            of_tasks.into_iter().map(|(input, place)| std::mem::take(&mut logits[first + input][place])).collect()
        };
        Ok((decoded, places.into_iter().map(of_image).collect()))
    }

    /// Heat maps and previews, in turn. The work holds its turn and its rows, and ends after the map at hand where its caller has
    /// gone away.
    async fn draw(
        self: &Arc<Self>,
        request: &Request,
        tasks: &Tasks,
        decoded: Vec<Decoded>,
        mut answers: Vec<ImageAnswers>,
        permit: Permit,
    ) -> Result<Vec<ImageAnswers>, Refusal> {
        let turn = Arc::clone(&self.drawers).acquire_owned().await.map_err(|_| Refusal::Stopping)?;
        let gone = Gone::default();
        let is_gone = Arc::clone(&gone.0);
        let (service, tasks) = (Arc::clone(self), tasks.clone());
        let Request { heatmap, masks, preview, .. } = *request;
        let broken = |error: std::io::Error| Refusal::Internal(error.to_string());
        let drawn = blocking(move || {
            let _held = (turn, permit);
            for (image, answers) in decoded.iter().map(|image| &image.prepared).zip(&mut answers) {
                if preview && let Some(pixels) = image.pixels.first() {
                    let shown = melo_imaging::heatmap::within(pixels, SHOWN_SIDE);
                    answers.preview = Some(encode_png(&shown).map_err(broken)?);
                }
                for (task, answer) in answers.answers.iter_mut().enumerate().filter(|_| masks) {
                    answer.mask = mask_of_answer(image, task, &tasks[task].1, answer).map_err(broken)?;
                }
                for (task, answer) in answers.answers.iter_mut().enumerate().filter(|_| heatmap) {
                    if is_gone.load(Ordering::Relaxed) {
                        return Err(Refusal::Stopping);
                    }
                    let (version, plugin) = &tasks[task];
                    let Some(&class) = answer.decision.explained().first() else { continue };
                    let drawn = service.batches.predictor().explain(image, task, plugin, class, DRAWING);
                    let drawn = drawn.map_err(|error| Refusal::Internal(error.to_string()))?;
                    answer.heatmap = Some(Heatmap {
                        class: version.card.classes[class].clone(),
                        grid: drawn.explanation.grid,
                        values: drawn.explanation.values,
                        png: encode_png(&drawn.picture).map_err(broken)?,
                    });
                }
            }
            Ok(answers)
        })
        .await;
        drop(gone);
        drawn
    }

    async fn remember(self: &Arc<Self>, request: &Request, answers: &[ImageAnswers]) -> Result<(), Refusal> {
        self.append(records(&request.caller, &request.images, request.frame, answers)).await
    }

    /// Records what an admin asks for, before it is done.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`]: then it must not be done.
    pub(crate) async fn note(
        self: &Arc<Self>,
        action: Action,
        task: &str,
        (plugin_digest, output): (Option<String>, serde_json::Value),
        caller: Caller,
    ) -> Result<(), Refusal> {
        let happened = Happened { task: task.to_owned(), plugin_digest, output };
        let record = self.journal.record(action, caller, happened);
        self.append(vec![record]).await
    }

    /// Why nothing can be recorded now. After a failure it is tried whether the folder can be written again.
    pub(crate) fn audit_trouble(&self) -> Option<String> {
        let audit = self.audit.as_ref()?;
        if audit.is_unsigned() {
            return Some("the checkpoint of the audit could not be written".to_owned());
        }
        let folder = melo_vit::folder_of(audit.path()).to_owned();
        if let Ok(free) = disk::free(&folder)
            && free < AUDIT_RESERVE
        {
            return Some(format!("the disk of the audit has {} MiB left", free >> 20));
        }
        let mut failed = self.unrecorded();
        let trouble = "the audit could not be written".to_owned();
        if failed.as_ref()?.elapsed() < UNRECORDED {
            return Some(trouble);
        }
        let tried = tempfile::tempfile_in(&folder).and_then(|mut file| file.write_all(&[0; 4096]));
        *failed = tried.is_err().then(Instant::now);
        failed.map(|_| trouble)
    }

    fn unrecorded(&self) -> MutexGuard<'_, Option<Instant>> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is answered that is not in the audit.
    async fn append(self: &Arc<Self>, records: Vec<Record>) -> Result<(), Refusal> {
        let Some(audit) = &self.audit else { return Ok(()) };
        let written = audit.appended(records).await;
        *self.unrecorded() = written.is_err().then(Instant::now);
        written.map_err(|error| {
            // Where the file is concerns nobody outside.
            tracing::error!(%error, "the audit could not be written");
            Refusal::Unavailable("the audit could not be written, and nothing is done without it".to_owned())
        })
    }
}

/// Tells work that nobody waits for it any more.
#[derive(Default)]
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A version that a request asks for.
struct Chosen {
    version: Arc<Version>,
    /// By its digest.
    named: bool,
}

/// Versions with their weights.
type Tasks = Vec<(Arc<Version>, Arc<BoundPlugin>)>;

impl Request {
    fn keeps_pixels(&self) -> bool {
        self.heatmap || self.masks || self.preview
    }
}

/// An image that was read.
struct Decoded {
    /// SHA-256 of its bytes.
    digest: String,
    /// How many frames or pages it holds, where there are several.
    frames: Option<usize>,
    /// As the tasks want it.
    prepared: Prepared,
}

impl Decoded {
    fn new(image: &Image, specs: &[Preprocess], frame: Option<Frame>, keep_pixels: bool) -> Result<Self, Refusal> {
        let specs: Vec<&Preprocess> = specs.iter().collect();
        let prepared = Prepared::of_bytes(&image.bytes, Path::new(&image.name), &specs, keep_pixels);
        let prepared = prepared.map_err(|error| Refusal::Unusable(error.to_string()))?;
        let place = prepared.seen.first().and_then(|seen| seen.place);
        let later = |frame| matches!(frame, Frame::Number(2..));
        if frame.is_some_and(later) && place.is_none() {
            let name = &image.name;
            return Err(Refusal::Unusable(format!("{name}: a frame is asked for, and the file holds one image")));
        }
        // A name may choose a frame of its own: then it is not ours to say which.
        let place = place.filter(|place| matches!(place.kind, "frame" | "page") && !image.name.contains('#'));
        let digest = hex(&Sha256::digest(&image.bytes));
        Ok(Decoded { digest, frames: place.map(|place| place.count), prepared })
    }

    /// The number of a frame, 1 the first, where there are several.
    fn frame_of(&self, frame: Frame) -> Option<usize> {
        frame.place(self.frames?).map(|place| place + 1)
    }
}

fn records(caller: &Caller, images: &[Image], frame: Option<Frame>, answers: &[ImageAnswers]) -> Vec<Record> {
    let seen = |digest: &str| frame.map_or(digest.to_owned(), |frame| format!("{digest}#frame={frame}"));
    let mut records = Vec::new();
    for (index, image) in answers.iter().enumerate() {
        for answer in &image.answers {
            records.push(Record {
                action: Action::Answer,
                request_id: caller.request_id.clone(),
                who: caller.who.clone(),
                via: caller.via.to_owned(),
                input_digest: Some(seen(&image.digest)),
                sop_instance_uid: images.get(index).and_then(|image| image.sop_instance_uid.clone()),
                task: answer.task.clone(),
                plugin_digest: Some(answer.version.clone()),
                backbone_digest: answer.backbone.clone(),
                precision: answer.precision.to_string(),
                output: shortest::value(answer.outputs()),
            });
        }
    }
    records
}

/// The mask of an answer, where its task gives one, of an image whose pixels were kept.
fn mask_of_answer(
    image: &Prepared,
    task: usize,
    plugin: &BoundPlugin,
    answer: &Answer,
) -> std::io::Result<Option<MaskImage>> {
    let (pixels, (width, height)) = (&image.pixels[task], image.sides[task]);
    let Some(restored) = melo_predict::mask_of(plugin, &answer.logits, width, height) else { return Ok(None) };
    let spec = Some(&plugin.card.preprocess);
    let overlay = melo_imaging::mask_overlay_within(pixels, &restored.mask, MASK_OPACITY, spec, SHOWN_SIDE);
    let png = melo_imaging::encode_mask_png(&restored.mask)?;
    Ok(Some(MaskImage { width, height, png, overlay: encode_png(&overlay)?, mask: restored.mask }))
}

/// SHA-256 of an input tensor's little-endian bytes.
fn digest_of_input(pixels: &[f32]) -> String {
    let mut digest = Sha256::new();
    pixels.iter().for_each(|value| digest.update(value.to_le_bytes()));
    hex(&digest.finalize())
}

/// Work that may block, off the threads that serve connections. It runs to its end even where the caller goes away.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Refusal::Internal("the work failed; this is a defect, please report it".to_owned()))?
}
