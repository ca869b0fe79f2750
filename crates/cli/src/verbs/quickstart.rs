//! `melo quickstart`: the whole job on generated images and an embedded backbone, with files to go on playing with.

use super::train::interrupt_flag;
use crate::progress::{bar, duration, grouped, percent};
use crate::{Failure, machine, say, say_json};
use melo::data::{Cache, Manifest, Row, Split};
use melo::imaging::write_png;
use melo::predict::{Prediction, Predictor};
use melo::synthetic::{Phantom, phantom};
use melo::train::{Event, Finished, Job, Method, MethodSettings, Resume, RunOptions, ScopeSettings, TrainConfig};
use melo::vit::{Backbone, BackboneInfo, BoundPlugin, Precision, write_atomically};
use rayon::prelude::*;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// A small ViT that `melo pretrain` made from formulas alone.
pub(super) const BACKBONE: &[u8] = include_bytes!("../../../../assets/vit_small_formula.safetensors");
/// Plug-ins on it, as the quickstart leaves them.
pub(super) const PHANTOMS: [(&str, &[u8]); 4] = [
    ("blood_smear", include_bytes!("../../../../assets/phantoms/blood_smear.safetensors")),
    ("chest_film", include_bytes!("../../../../assets/phantoms/chest_film.safetensors")),
    ("fundus", include_bytes!("../../../../assets/phantoms/fundus.safetensors")),
    ("mammogram", include_bytes!("../../../../assets/phantoms/mammogram.safetensors")),
];
const BACKBONE_FILE: &str = "backbone.safetensors";
const PLUGINS: &str = "plugins";
const MANIFEST: &str = "labels.csv";
/// Side of the generated images, px.
pub(super) const IMAGE_SIDE: usize = 96;
/// Images of the training, validation and test split of each task.
const IMAGES: [(Split, usize); 3] = [(Split::Train, 900), (Split::Val, 120), (Split::Test, 240)];
const EPOCHS: usize = 5;
const RANK: usize = 8;
const BATCH_SIZE: usize = 8;
/// Small models on small images want more than the default.
const LEARNING_RATE: f64 = 2e-3;

/// Train four plug-ins on generated images with an embedded backbone, then ask all of them about one image: no download, a minute or two
#[derive(clap::Args)]
#[command(after_help = "Example:\n  melo quickstart\n\n\
    The images are synthetic phantoms drawn from formulas: they look like four modalities and mean nothing clinically.\n\
    Everything is left in the folder: images, manifests, backbone and plug-ins, to try the other verbs on.")]
pub(crate) struct Args {
    /// Folder to work in
    #[arg(default_value = "melo-quickstart")]
    folder: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What one task came to.
#[derive(Serialize)]
struct TaskRow {
    task: &'static str,
    #[serde(serialize_with = "crate::json_path")]
    plugin: PathBuf,
    trainable_parameters: usize,
    trainable_percent: f64,
    plugin_bytes: u64,
    /// Test figures of a head alone on the frozen backbone.
    auc_before: Option<f64>,
    acc_before: f64,
    /// Test figures with the plug-in.
    auc_after: Option<f64>,
    acc_after: f64,
    seconds: f64,
}

/// One test image, asked about by every plug-in at once.
#[derive(Serialize)]
struct Sample {
    #[serde(serialize_with = "crate::json_path")]
    image: PathBuf,
    task: &'static str,
    /// The class it was drawn as.
    class: String,
    answers: Vec<Answer>,
    switch_seconds: f64,
}

/// What one plug-in says of it.
#[derive(Serialize)]
struct Answer {
    task: String,
    class: String,
    probability: f32,
    in_scope: Option<bool>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let started = Instant::now();
    let backbone = write_backbone(&args.folder)?;
    if !args.json {
        say(heading(&backbone));
    }
    let mut rows = Vec::new();
    for kind in Phantom::ALL {
        let row = train_task(&args.folder, kind)?;
        if !args.json {
            say(line(&row));
        }
        rows.push(row);
    }
    let sample = ask_all(&args.folder, &rows)?;
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        return say_json(&serde_json::json!({ "tasks": rows, "sample": sample, "seconds": seconds }));
    }
    say(answers(&sample));
    say(next_steps(&args.folder, &sample));
    say(format_args!("\nAll of it took {}.", duration(seconds)));
    Ok(())
}

/// Writes the embedded backbone; a folder with anything else in it is left alone.
fn write_backbone(folder: &Path) -> Result<BackboneInfo, Failure> {
    let path = folder.join(BACKBONE_FILE);
    let failed = |error: std::io::Error| Failure::Message(format!("{}: {error}", folder.display()));
    let ours = std::fs::read(&path).is_ok_and(|bytes| bytes == BACKBONE);
    if folder.exists() && !ours && std::fs::read_dir(folder).map_err(failed)?.next().is_some() {
        let message = format!("{}: is not empty and not from a quickstart; name another folder", folder.display());
        return Err(Failure::Message(message));
    }
    std::fs::create_dir_all(folder.join(PLUGINS)).map_err(failed)?;
    write_atomically(&path, BACKBONE)?;
    Ok(Backbone::read(&path)?.info().clone())
}

/// Draws a task's images and its manifest; returns the manifest's path.
fn write_images(folder: &Path, kind: Phantom) -> Result<PathBuf, Failure> {
    let folder = folder.join(kind.name());
    std::fs::create_dir_all(folder.join("images"))
        .map_err(|error| Failure::Message(format!("{}: {error}", folder.display())))?;
    let classes = kind.classes();
    let splits = IMAGES.iter().flat_map(|&(split, images)| std::iter::repeat_n(split, images));
    let images: Vec<(usize, Split)> = splits.enumerate().collect();
    let lines: Vec<String> = images
        .into_par_iter()
        .map(|(index, split)| {
            let class = index % classes.len();
            let name = format!("images/{}_{index:04}.png", classes[class]);
            write_png(&folder.join(&name), &phantom(kind, class, index as u64, IMAGE_SIDE))?;
            Ok(format!("{name},{split},{}\n", classes[class]))
        })
        .collect::<Result<_, Failure>>()?;
    let manifest = folder.join(MANIFEST);
    write_atomically(&manifest, format!("path,split,label\n{}", lines.concat()).as_bytes())?;
    Ok(manifest)
}

/// Trains a linear probe for comparison, then the plug-in; both are measured on the test split.
fn train_task(folder: &Path, kind: Phantom) -> Result<TaskRow, Failure> {
    let started = Instant::now();
    let data = write_images(folder, kind)?;
    let cache = Arc::new(Cache::new(usize::MAX));
    let stop = interrupt_flag()?;
    let run = |method: Method| -> Result<Finished, Failure> {
        let backbone = Backbone::read(&folder.join(BACKBONE_FILE))?;
        let settings = MethodSettings { rank: (method == Method::Lora).then_some(RANK), ..MethodSettings::default() };
        let mut config = settings.resolve(method, backbone.info().config().depth)?;
        if method == Method::Lora {
            config = TrainConfig { epochs: EPOCHS, batch_size: BATCH_SIZE, learning_rate: LEARNING_RATE, ..config };
        }
        let job = Job {
            task: kind.name().to_owned(),
            config,
            needs_test: true,
            // Nobody asks the probe about other images.
            scope: (method == Method::Lora).then(ScopeSettings::default),
            cache: Arc::clone(&cache),
            ..Job::new(machine::device(Some(Precision::F32)), backbone, Manifest::read(&data)?)
        };
        let ready = job.prepare(&mut |_| ())?;
        let bar = bar(EPOCHS * IMAGES[0].1, kind.name());
        let observer = &mut |event: Event<'_>| {
            if let (Event::Step { epoch, images, .. }, Method::Lora) = (event, method) {
                bar.set_position(((epoch - 1) * IMAGES[0].1 + images) as u64);
            }
        };
        let finished = ready.run(RunOptions { folder: None, resume: Resume::Never, stop: &stop, observer });
        bar.finish_and_clear();
        finished.map_err(|error| match error.into() {
            Failure::Interrupted(_) => {
                Failure::Interrupted("stopped; the quickstart begins anew when run again".into())
            }
            other => other,
        })
    };
    let measured = |finished: &Finished| {
        let metrics = &finished.plugin.card.metrics;
        (metrics.get("test_auc_macro").copied(), metrics.get("test_acc").copied().unwrap_or(f64::NAN))
    };
    let (auc_before, acc_before) = measured(&run(Method::Linear)?);
    let finished = run(Method::Lora)?;
    let (auc_after, acc_after) = measured(&finished);
    let plugin = folder.join(PLUGINS).join(format!("{}.safetensors", kind.name()));
    finished.save(&plugin)?;
    Ok(TaskRow {
        task: kind.name(),
        trainable_parameters: finished.trainable,
        trainable_percent: percent(finished.trainable, finished.backbone),
        plugin_bytes: std::fs::metadata(&plugin).map_or(0, |file| file.len()),
        plugin,
        auc_before,
        acc_before,
        auc_after,
        acc_after,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn heading(backbone: &BackboneInfo) -> String {
    format!(
        "One frozen backbone: a ViT of {} parameters that has only seen formulas.\n\
         Four tasks on it, a plug-in each. Their images are synthetic phantoms and mean nothing clinically.\n\n\
         \x20                 trained          file     test AUC            test accuracy\n\
         task         parameters     %                head   plug-in      head   plug-in   seconds",
        grouped(backbone.config().parameters())
    )
}

fn line(row: &TaskRow) -> String {
    let auc = |auc: Option<f64>| auc.map_or("undefined".to_owned(), |auc| format!("{auc:.3}"));
    format!(
        "{:<12} {:>10} {:>5.1} {:>6.0} kB     {:>5}     {:>5}     {:>5.3}     {:>5.3}   {:>7.1}",
        row.task,
        grouped(row.trainable_parameters),
        row.trainable_percent,
        row.plugin_bytes as f64 / 1000.0,
        auc(row.auc_before),
        auc(row.auc_after),
        row.acc_before,
        row.acc_after,
        row.seconds,
    )
}

/// Runs one test image through all plug-ins at once, and times the switch from one to the next.
fn ask_all(folder: &Path, rows: &[TaskRow]) -> Result<Sample, Failure> {
    let predictor = Predictor::new(machine::load_engine(&folder.join(BACKBONE_FILE), Some(Precision::F32))?);
    let plugins: Vec<Arc<BoundPlugin>> =
        rows.iter().map(|row| Ok(predictor.plugin(&row.plugin)?)).collect::<Result<_, Failure>>()?;
    let kind = Phantom::Fundus;
    let manifest = Manifest::read(&folder.join(kind.name()).join(MANIFEST))?;
    // The first that shows something.
    let class_of = |row: &Row| (0..manifest.classes.len()).find(|&class| row.labels.has(class));
    let shown = manifest.split(Split::Test).into_iter().find_map(|row| {
        let class = &manifest.classes[class_of(row)?];
        (class != kind.classes()[0]).then(|| (row.path.clone(), class.clone()))
    });
    let (image, class) = shown.expect("every class is drawn");
    let answer = |prediction: Prediction| {
        let (card, decision) = (&prediction.plugin.card, &prediction.decision);
        let class = decision.best();
        Answer {
            task: card.task.clone(),
            class: card.classes[class].clone(),
            probability: decision.probabilities[class],
            in_scope: decision.scope.map(|scope| scope.in_scope),
        }
    };
    let answers = predictor.predict(&image, &plugins)?.into_iter().map(answer).collect();
    const SWITCHES: u32 = 100_000;
    let started = Instant::now();
    for switch in 0..SWITCHES {
        std::hint::black_box(Arc::clone(&plugins[switch as usize % plugins.len()]));
    }
    let switch_seconds = started.elapsed().as_secs_f64() / f64::from(SWITCHES);
    Ok(Sample { image, task: kind.name(), class, answers, switch_seconds })
}

fn answers(sample: &Sample) -> String {
    let mut text = format!("\nOne image, {}, drawn as {} of {}:\n", sample.image.display(), sample.class, sample.task);
    for answer in &sample.answers {
        let own = answer.task == sample.task;
        let said = match answer.in_scope {
            Some(false) => "not one of its images".to_owned(),
            _ if own && answer.class == sample.class => format!("{} {:.3}: right", answer.class, answer.probability),
            _ if own => format!("{} {:.3}: wrong", answer.class, answer.probability),
            _ => format!("{} {:.3}, and does not see that it is another's image", answer.class, answer.probability),
        };
        text += &format!("  {:<12} {said}\n", answer.task);
    }
    text + &format!("From one plug-in to another takes {:.0} ns: it is a pointer.", sample.switch_seconds * 1e9)
}

fn next_steps(folder: &Path, sample: &Sample) -> String {
    let at = folder.display();
    let (task, image) = (sample.task, sample.image.display());
    format!(
        "\nNext, with the files in {at}:\n  \
         melo predict --backbone {at}/{BACKBONE_FILE} --plugin {at}/{PLUGINS}/{task}.safetensors {image} --heatmap maps\n  \
         melo serve --backbone {at}/{BACKBONE_FILE} --plugins {at}/{PLUGINS}      then open http://127.0.0.1:8080\n  \
         melo train --backbone {at}/{BACKBONE_FILE} --data {at}/{task}/{MANIFEST} --out mine.safetensors"
    )
}
