//! `melo quickstart`: the whole job on generated images and an embedded backbone, with files to go on playing with.

use super::predict::summary;
use super::train::run_with_progress;
use crate::progress::{duration, percent};
use crate::{Failure, machine, note, say, say_json};
use melo::data::{Cache, Manifest, Split};
use melo::imaging::write_png;
use melo::predict::Predictor;
use melo::synthetic::{Phantom, phantom};
use melo::train::{Finished, Job, Method, MethodSettings, Resume, RunFolder, TrainConfig};
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
/// Side of the generated images, px.
pub(super) const IMAGE_SIDE: usize = 96;
/// Images of the training, validation and test split of each task.
const IMAGES: [(Split, usize); 3] = [(Split::Train, 900), (Split::Val, 120), (Split::Test, 240)];
/// Epochs of a head alone, which settles soon, and of a plug-in.
const HEAD_EPOCHS: usize = 3;
const PLUGIN_EPOCHS: usize = 7;
const BATCH_SIZE: usize = 8;
/// Small models on small images want more than the default.
const LEARNING_RATE: f64 = 5e-3;

/// Train four plug-ins on generated images with an embedded backbone, then switch between them: no download, two minutes
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
struct Row {
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

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let started = Instant::now();
    let backbone = write_backbone(&args.folder)?;
    note(format_args!(
        "backbone: {}, {} parameters, frozen, pre-trained on formulas alone",
        backbone.name(),
        backbone.config().parameters()
    ));
    let mut rows = Vec::new();
    for kind in Phantom::ALL {
        note(format_args!("\n{}: {}", kind.title(), kind.classes().join(", ")));
        let data = write_images(&args.folder, kind)?;
        rows.push(train_task(&args.folder, kind, &data)?);
    }
    let switching = switch(&args.folder, &rows)?;
    if args.json {
        return say_json(&serde_json::json!({
            "tasks": rows,
            "switch_seconds": switching.seconds,
            "seconds": started.elapsed().as_secs_f64(),
        }));
    }
    say(table(&rows));
    say(&switching.text);
    say(next_steps(&args.folder));
    note(format_args!("all of it took {}", duration(started.elapsed().as_secs_f64())));
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
    std::fs::create_dir_all(folder).map_err(failed)?;
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
    let manifest = folder.join("labels.csv");
    write_atomically(&manifest, format!("path,split,label\n{}", lines.concat()).as_bytes())?;
    Ok(manifest)
}

/// Trains a linear probe for comparison, then the plug-in; both are measured on the test split.
fn train_task(folder: &Path, kind: Phantom, data: &Path) -> Result<Row, Failure> {
    let started = Instant::now();
    let cache = Arc::new(Cache::new(usize::MAX));
    let run = |name: &str, method: Method, epochs: usize| -> Result<Finished, Failure> {
        let backbone = Backbone::read(&folder.join(BACKBONE_FILE))?;
        let config = MethodSettings::default().resolve(method, backbone.info().config().depth)?;
        let job = Job {
            task: kind.name().to_owned(),
            config: TrainConfig { epochs, batch_size: BATCH_SIZE, learning_rate: LEARNING_RATE, ..config },
            needs_test: true,
            cache: Arc::clone(&cache),
            ..Job::new(machine::device(Some(Precision::F32)), backbone, Manifest::read(data)?)
        };
        let run_folder = || Ok(Some(RunFolder::create(&folder.join(kind.name()).join(name))?));
        run_with_progress(job, |_| {}, run_folder, Resume::Never, &mut |_| ()).map_err(|failure| match failure {
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
    note("a head alone:");
    let (auc_before, acc_before) = measured(&run("probe.run", Method::Linear, HEAD_EPOCHS)?);
    note("the plug-in:");
    let finished = run("plugin.run", Method::Lora, PLUGIN_EPOCHS)?;
    let (auc_after, acc_after) = measured(&finished);
    let plugin = folder.join(format!("{}.safetensors", kind.name()));
    finished.save(&plugin)?;
    Ok(Row {
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

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "\ntask         trainable      %   file size   test AUC           test ACC           seconds\n\
         \x20                                          before   after    before   after\n",
    );
    let auc = |auc: Option<f64>| auc.map_or("undefined".to_owned(), |auc| format!("{auc:.3}"));
    for row in rows {
        text += &format!(
            "{:<12} {:>9} {:>6.3} {:>9.1} kB   {:<8} {:<8} {:<8.3} {:<8.3} {:>7.1}\n",
            row.task,
            row.trainable_parameters,
            row.trainable_percent,
            row.plugin_bytes as f64 / 1000.0,
            auc(row.auc_before),
            auc(row.auc_after),
            row.acc_before,
            row.acc_after,
            row.seconds,
        );
    }
    text + "before: a head alone on the frozen backbone; after: with the low-rank plug-in. Synthetic phantoms, no clinical data."
}

/// The four plug-ins on one image.
struct Switching {
    text: String,
    seconds: f64,
}

/// Runs one image through all plug-ins at once, and times the switch from one to the next.
fn switch(folder: &Path, rows: &[Row]) -> Result<Switching, Failure> {
    let predictor = Predictor::new(machine::load_engine(&folder.join(BACKBONE_FILE), Some(Precision::F32))?);
    let plugins: Vec<Arc<BoundPlugin>> =
        rows.iter().map(|row| Ok(predictor.plugin(&row.plugin)?)).collect::<Result<_, Failure>>()?;
    let manifest = Manifest::read(&folder.join(Phantom::BloodSmear.name()).join("labels.csv"))?;
    let image = &manifest.split(Split::Test)[0].path;
    let predictions = predictor.predict(image, &plugins)?;
    const SWITCHES: u32 = 100_000;
    let started = Instant::now();
    for switch in 0..SWITCHES {
        std::hint::black_box(Arc::clone(&plugins[switch as usize % plugins.len()]));
    }
    let seconds = started.elapsed().as_secs_f64() / f64::from(SWITCHES);
    let mut text = format!("\none image, four tasks, one mixed batch ({}):\n", image.display());
    for prediction in &predictions {
        text += &format!("  {}\n", summary(&prediction.plugin.card, &prediction.decision));
    }
    text += &format!("switching from one plug-in to the next takes {:.0} ns: it is a pointer.", seconds * 1e9);
    Ok(Switching { text, seconds })
}

fn next_steps(folder: &Path) -> String {
    let at = folder.display();
    format!(
        "\nGo on with the files in {at}:\n  \
         melo plugin info {at}/fundus.safetensors\n  \
         melo eval --backbone {at}/{BACKBONE_FILE} --plugin {at}/fundus.safetensors --data {at}/fundus/labels.csv\n  \
         melo train --help"
    )
}
