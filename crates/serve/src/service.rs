//! The one way from an image's bytes to answers, whoever asks: HTTP, KServe clients, DICOM peers.
//!
//! ```text
//! tasks by name -> versions (a snapshot) -> room in the queue, or Busy at once -> decode once an image
//!   -> batch -> calibrated probabilities -> audit -> answers
//! ```

mod decoded;
mod recorded;

use crate::answer::{Answer, Answers, Heatmap, ImageAnswers, MaskImage};
use crate::audit::Audit;
use crate::bags::{BagTasks, answers_of, asked_of, rows_of};
use crate::batch::{Asked, BatchQueue, Computed, Permit};
use crate::drift::{Drift, Look};
use crate::error::Refusal;
use crate::journal::{Journal, Visitors};
use crate::metrics::Metrics;
use crate::registry::{Registry, Version};
use crate::request::{Caller, Limits, Request};
use decoded::Decoded;
use melo_imaging::{DecodeMemory, Seen, encode_png};
use melo_predict::{Drawing, Input, Prepared};
use melo_vit::{BoundPlugin, Engine, ExplainMethod, Preprocess, hash_numbers, hex};
use recorded::records;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::Semaphore;

/// Longest side of previews and heat maps, px.
const SHOWN_SIDE: usize = 1024;
/// Share of the colour of a class in a mask over its image.
const MASK_OPACITY: f32 = 0.4;
/// Heat maps as the server draws them.
const DRAWING: Drawing = Drawing { method: ExplainMethod::Gradient, opacity: 1.0, longest: SHOWN_SIDE };

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
    /// Whether what comes is what the plug-ins were tested on.
    pub(crate) drift: Arc<Drift>,
    /// Who came.
    pub(crate) visitors: Arc<Visitors>,
    /// Bounds of a request.
    pub limits: Limits,
    pub(crate) decoders: Arc<Semaphore>,
    /// Requests whose heat maps are drawn at a time: half of the threads, so that answers are computed beside them.
    drawers: Arc<Semaphore>,
    pub(crate) decode_memory: Arc<DecodeMemory>,
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
        let engine = &**batches.predictor().engine();
        metrics.begin(&engine.info(), engine.backbone().digest());
        let journal = Journal::new(audit.clone(), engine);
        let drift = Arc::new(Drift::open(registry.state()));
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
            drift,
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
    fn chosen(&self, names: &[String], volumes: impl Fn() -> bool) -> Result<Vec<Chosen>, Refusal> {
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
    pub async fn predict(self: &Arc<Self>, request: Request) -> Result<Answers, Refusal> {
        let limit = self.limits.timeout;
        let answered =
            async { tokio::time::timeout(limit, self.answer(request)).await.map_err(|_| Refusal::Timeout(limit))? };
        self.counted(answered).await
    }

    /// A request for answers, as the metrics see it.
    async fn counted<T>(&self, answered: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let _in_flight = self.metrics.in_flight();
        answered.await.inspect_err(|refusal| self.metrics.refused(refusal.code()))
    }

    /// Which of the tasks that are named answer for single images, and which for bags, as `name@version` where they were named so.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::BadRequest`].
    pub(crate) fn kinds_of(&self, names: &[String]) -> Result<[Vec<String>; 2], Refusal> {
        let mut kinds = [Vec::new(), Vec::new()];
        for Chosen { version, named } in self.chosen(names, || false)? {
            let Version { card, digest, .. } = &*version;
            let name = if named { format!("{}@{digest}", card.task) } else { card.task.clone() };
            kinds[usize::from(card.bag.is_some())].push(name);
        }
        Ok(kinds)
    }

    async fn answer(self: &Arc<Self>, request: Request) -> Result<Answers, Refusal> {
        let started = Instant::now();
        let files = request.images.len();
        if files == 0 && request.slices.is_none() {
            return Err(Refusal::BadRequest("no image was sent".to_owned()));
        }
        let volumes =
            || request.images.iter().all(|image| melo_imaging::is_volume(&image.bytes, Path::new(&image.name)));
        let chosen = self.chosen(&request.tasks, volumes)?;
        let (of_bags, single): (Vec<_>, Vec<_>) =
            chosen.into_iter().partition(|chosen| chosen.version.card.bag.is_some());
        self.check(&request, single.first(), of_bags.first())?;
        // Heat maps are rows too, and keep theirs until they are drawn. A file is at least one image of a bag.
        let rows = files * single.len();
        let of_maps = if request.heatmap { rows } else { 0 };
        let mut permit = self.batches.admit(&request.caller.share(), rows + of_maps + files * of_bags.len())?;
        let bags = self.gather(&request, of_bags).await?;
        let (of_bags, maps_of_bags) = rows_of(&bags, request.heatmap);
        let of_maps = of_maps + maps_of_bags;
        permit.grow((rows + of_maps + of_bags).saturating_sub(permit.rows()))?;
        let of_maps = permit.split(of_maps);
        let tasks = self.plugins(single).await?;
        let bags = self.with_plugins(bags).await?;
        let (decoded, computed) = self.compute(&request, &tasks, &bags, permit).await?;
        let mut images = Vec::new();
        let images_of_single = if tasks.is_empty() { &[][..] } else { &request.images[..] };
        for ((image, decoded), given) in images_of_single.iter().zip(&decoded).zip(computed.given) {
            let of_tasks = tasks.iter().zip(given).map(|((version, plugin), given)| Answer {
                frame: decoded.frame_of(request.frame.unwrap_or(version.card.preprocess.rendering.frame)),
                ..Answer::new(version, plugin, self.engine(), given)
            });
            // As the first task sees it, like the preview.
            images.push(ImageAnswers {
                name: image.name.clone(),
                digest: decoded.digest.clone(),
                frames: decoded.frames,
                remarks: decoded.prepared.seen.first().map(Seen::remarks).unwrap_or_default(),
                answers: of_tasks.collect(),
                preview: None,
            });
        }
        let looks: Vec<Vec<Look>> = decoded.iter().map(|image| image.looks(&tasks)).collect();
        let mut answers = Answers { images, bags: answers_of(&bags, self.engine(), computed.bags) };
        if request.keeps_pixels() {
            answers = self.draw(&request, &tasks, decoded, bags, answers, of_maps).await?;
        }
        self.append(records(&request.caller, &request.images, request.frame, &answers)).await?;
        self.follow(&answers, &looks);
        let took = started.elapsed();
        for (version, _) in &tasks {
            self.metrics.answered(&version.card.task, answers.images.len(), took);
        }
        for (bag, answer) in answers.bags.iter().flat_map(|bag| bag.answers.iter().map(move |answer| (bag, answer))) {
            self.metrics.answered(&answer.task, bag.images.len(), took);
        }
        Ok(answers)
    }

    /// Whether so much may be asked at a time, of the first task of each kind.
    fn check(&self, request: &Request, single: Option<&Chosen>, of_bags: Option<&Chosen>) -> Result<(), Refusal> {
        let task = |chosen: &Chosen| chosen.version.card.task.clone();
        let (sent, most) = (request.images.len(), self.limits.images);
        if let Some(single) = single.filter(|_| request.images.is_empty()) {
            let task = task(single);
            return Err(Refusal::BadRequest(format!("task `{task}` answers for single images, not for a series")));
        }
        if let Some(single) = single.filter(|_| sent > most) {
            let task = task(single);
            return Err(Refusal::TooLarge(format!(
                "{sent} images were sent, task `{task}` answers for single images, and of these at most {most} are taken at a time"
            )));
        }
        match of_bags.filter(|_| request.frame.is_some()) {
            Some(of_bags) => Err(Refusal::BadRequest(format!(
                "`frame` is for tasks of single images, and `{}` answers for bags: for all frames together",
                task(of_bags)
            ))),
            None => Ok(()),
        }
    }

    /// Answers for inputs that are network inputs already, `[3, size, size]` each.
    ///
    /// # Errors
    /// [`Refusal::Full`], [`Refusal::Busy`], [`Refusal::Stopping`], [`Refusal::Timeout`], [`Refusal::Internal`].
    ///
    /// # Panics
    /// If an input is not as long as the version's preprocessing says.
    pub async fn infer(
        self: &Arc<Self>,
        inputs: Vec<Arc<[f32]>>,
        version: &Arc<Version>,
        caller: &Caller,
    ) -> Result<Vec<Answer>, Refusal> {
        self.counted(self.answer_inputs(inputs, version, caller)).await
    }

    async fn answer_inputs(
        self: &Arc<Self>,
        inputs: Vec<Arc<[f32]>>,
        version: &Arc<Version>,
        caller: &Caller,
    ) -> Result<Vec<Answer>, Refusal> {
        let started = Instant::now();
        let permit = self.batches.admit(&caller.share(), inputs.len())?;
        let tasks = self.plugins(vec![Chosen { version: Arc::clone(version), named: true }]).await?;
        let size = version.card.preprocess.size;
        let digests: Vec<String> = inputs.iter().map(|pixels| digest_of_input(pixels)).collect();
        let input = |pixels| Input { size, pixels, plugins: vec![Arc::clone(&tasks[0].1)] };
        let asked = Asked { inputs: inputs.into_iter().map(input).collect(), bags: Vec::new() };
        let computed = self.wait(permit, asked).await?;
        let images = computed
            .given
            .into_iter()
            .flatten()
            .zip(digests)
            .map(|(given, digest)| ImageAnswers {
                name: "tensor".to_owned(),
                digest,
                frames: None,
                remarks: Vec::new(),
                answers: vec![Answer::new(version, &tasks[0].1, self.engine(), given)],
                preview: None,
            })
            .collect();
        let answers = Answers { images, bags: Vec::new() };
        self.append(records(caller, &[], None, &answers)).await?;
        self.follow(&answers, &[]);
        self.metrics.answered(&version.card.task, answers.images.len(), started.elapsed());
        Ok(answers.images.into_iter().flat_map(|image| image.answers).collect())
    }

    async fn wait(&self, permit: Permit, asked: Asked) -> Result<Computed, Refusal> {
        let limit = self.limits.timeout;
        let computed = tokio::time::timeout(limit, permit.submit(asked)).await.map_err(|_| Refusal::Timeout(limit))?;
        computed.map_err(|_| Refusal::Internal("the batch was lost".to_owned()))?
    }

    /// The weights. A version that was replaced and forgotten since it was chosen gives way to the current one, unless
    /// the request named it.
    pub(crate) async fn plugins(self: &Arc<Self>, chosen: Vec<Chosen>) -> Result<Tasks, Refusal> {
        let registry = Arc::clone(&self.registry);
        blocking(move || {
            let load = |Chosen { mut version, named }| loop {
                match registry.plugin(&version) {
                    Ok(plugin) => return Ok((version, plugin)),
                    Err(_) if !named && registry.known(&version.digest).is_none() => {
                        let current = registry.find(&version.card.task)?;
                        if current.card.bag.is_some() != version.card.bag.is_some() {
                            let task = &version.card.task;
                            return Err(Refusal::Unavailable(format!("task `{task}` was replaced, ask again")));
                        }
                        version = current;
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
        bags: &[BagTasks],
        permit: Permit,
    ) -> Result<(Vec<Decoded>, Computed), Refusal> {
        let spec = |version: &Version| {
            let mut spec = version.card.preprocess.clone();
            spec.rendering.frame = request.frame.unwrap_or(spec.rendering.frame);
            spec
        };
        let specs: Arc<[Preprocess]> = tasks.iter().map(|(version, _)| spec(version)).collect();
        let keep_pixels = request.keeps_pixels();
        let plugins: Vec<Arc<BoundPlugin>> = tasks.iter().map(|(_, plugin)| Arc::clone(plugin)).collect();
        let mut decoded = Vec::new();
        for image in request.images.iter().filter(|_| !tasks.is_empty()) {
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
        let mut computed = self.wait(permit, Asked { inputs, bags: asked_of(bags) }).await?;
        let mut given = computed.given;
        let of_image = |(first, of_tasks): (usize, Vec<(usize, usize)>)| {
            of_tasks.into_iter().map(|(input, place)| std::mem::take(&mut given[first + input][place])).collect()
        };
        computed.given = places.into_iter().map(of_image).collect();
        Ok((decoded, computed))
    }

    /// Heat maps and previews, in turn. The work holds its turn and its rows, and ends after the map at hand where its caller has
    /// gone away.
    async fn draw(
        self: &Arc<Self>,
        request: &Request,
        tasks: &Tasks,
        decoded: Vec<Decoded>,
        bags: Vec<BagTasks>,
        mut answers: Answers,
        permit: Permit,
    ) -> Result<Answers, Refusal> {
        let turn = Arc::clone(&self.drawers).acquire_owned().await.map_err(|_| Refusal::Stopping)?;
        let gone = Gone::default();
        let is_gone = Arc::clone(&gone.0);
        let (service, tasks) = (Arc::clone(self), tasks.clone());
        let Request { heatmap, masks, preview, .. } = *request;
        let broken = |error: std::io::Error| Refusal::Internal(error.to_string());
        let drawn = blocking(move || {
            let _held = (turn, permit);
            let waited_for = || if is_gone.load(Ordering::Relaxed) { Err(Refusal::Stopping) } else { Ok(()) };
            if heatmap {
                service.draw_bags(&bags, &mut answers.bags, waited_for)?;
            }
            for (image, answers) in decoded.iter().map(|image| &image.prepared).zip(&mut answers.images) {
                if preview && let Some(pixels) = image.pixels.first() {
                    let shown = melo_imaging::heatmap::within(pixels, SHOWN_SIDE);
                    answers.preview = Some(encode_png(&shown).map_err(broken)?);
                }
                for (task, answer) in answers.answers.iter_mut().enumerate().filter(|_| masks) {
                    answer.mask = mask_of_answer(image, task, &tasks[task].1, answer).map_err(broken)?;
                }
                for (task, answer) in answers.answers.iter_mut().enumerate().filter(|_| heatmap) {
                    waited_for()?;
                    answer.heatmap = service.explained(image, task, &tasks[task].1, answer)?;
                }
            }
            Ok(answers)
        })
        .await;
        drop(gone);
        drawn
    }

    /// The heat map of an answer's leading class on an image that was prepared with its pixels, under the plug-in that is `task` there.
    pub(crate) fn explained(
        &self,
        image: &Prepared,
        task: usize,
        plugin: &BoundPlugin,
        answer: &Answer,
    ) -> Result<Option<Heatmap>, Refusal> {
        let Some(&class) = answer.decision.explained().first() else { return Ok(None) };
        let _computing = self.metrics.computing();
        let drawn = self.batches.predictor().explain(image, task, plugin, class, DRAWING);
        let drawn = drawn.map_err(|error| Refusal::Internal(error.to_string()))?;
        Ok(Some(Heatmap {
            class: plugin.card.classes[class].clone(),
            grid: drawn.explanation.grid,
            values: drawn.explanation.values,
            png: encode_png(&drawn.picture).map_err(|error| Refusal::Internal(error.to_string()))?,
        }))
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
pub(crate) struct Chosen {
    pub(crate) version: Arc<Version>,
    /// By its digest.
    named: bool,
}

/// Versions with their weights.
pub(crate) type Tasks = Vec<(Arc<Version>, Arc<BoundPlugin>)>;

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
    hash_numbers(&mut digest, pixels);
    hex(&digest.finalize())
}

/// Work that may block, off the threads that serve connections. It runs to its end even where the caller goes away.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Refusal::Internal("the work failed; this is a defect, please report it".to_owned()))?
}
