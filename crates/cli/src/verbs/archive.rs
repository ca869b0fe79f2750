//! `melo archive`: answers to all images of an archive as Parquet files, and whether those are whole.

mod estimate;
#[cfg(feature = "queue")]
mod queue;

use super::data_args::DataArgs;
use super::task::{PrecisionArg, remark};
use super::train::interrupt_flag;
use crate::progress::{ArchiveProgress, grouped};
use crate::verbs::backbone_args::BackboneArgs;
use crate::{Failure, json_path, say, say_json};
use melo::archive::{Checked, Finished, Input, PatientKey, Place, SAMPLE, Settings, check, run as run_archive};
use melo::predict::Predictor;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Ask plug-ins about all images of an archive, and write the answers as Parquet files
    #[command(after_help = "Examples:\n  \
        melo archive run /archive/2024 --backbone vit.safetensors --plugin cxr.safetensors --out cxr-2024\n  \
        melo archive run films/ more.txt --backbone vit/ --plugin cxr.safetensors --plugin tb.safetensors --out answers --precision auto\n  \
        melo archive run labels.csv --backbone vit/ --plugin wbc.safetensors --out wbc --json\n  \
        melo archive run /archive --backbone vit/ --plugin cxr.safetensors --out cxr --patient-key patients.key\n  \
        melo archive run s3://films/2024 --backbone vit/ --plugin cxr.safetensors --out cxr    (a build with --features object-store)\n  \
        melo archive run /archive --backbone vit/ --plugin cxr.safetensors --estimate\n\n\
        Then, in DuckDB: SELECT image, predicted FROM 'cxr-2024/parts/*.parquet' WHERE error IS NULL. Columns: docs/archive.md.\n\n\
        Killed or interrupted, the same command goes on and ends with the same bytes: every image once, none twice. Another plug-in, \
        backbone, precision or list is refused in a folder that was begun.\n\n\
        An image that cannot be read has rows with the reason, is named on standard error, and the exit status is 1.")]
    Run(Box<RunArgs>),
    #[cfg(feature = "queue")]
    Plan(Box<queue::PlanArgs>),
    #[cfg(feature = "queue")]
    Work(Box<queue::WorkArgs>),
    #[cfg(feature = "queue")]
    Status(queue::StatusArgs),
    #[cfg(feature = "queue")]
    Collect(queue::CollectArgs),
    /// Read an archive again, and say what is missing, damaged or not its own
    #[command(after_help = "Example:\n  melo archive check cxr-2024\n\n\
        Every file is read to its end and held to the manifest's checksums. Exit status 1 where something is wrong. What is missing, or was \
        removed because it is damaged, `melo archive run` computes again.")]
    Check {
        /// The archive's folder
        folder: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

impl Verb {
    /// Plug-ins that are read.
    pub(crate) fn plugins(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Verb::Run(args) => args.asked.plugin.iter_mut().collect(),
            #[cfg(feature = "queue")]
            Verb::Plan(args) => args.plugins(),
            #[cfg(feature = "queue")]
            Verb::Work(args) => args.plugins(),
            _ => Vec::new(),
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    asked: AskedArgs,
    /// Folder for the Parquet files, and all that is needed to go on
    #[arg(long, value_name = "DIR", required_unless_present = "estimate")]
    out: Option<PathBuf>,
    #[command(flatten)]
    estimate: EstimateArgs,
    /// Images of a file: what a kill costs at most, and Ctrl-C waits for [default: 1024]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    chunk: Option<u32>,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// What it would take, instead.
#[derive(clap::Args)]
struct EstimateArgs {
    /// Write nothing, and say what it would take: rates of a few images on this machine, hours, bytes read
    #[arg(long, conflicts_with_all = ["out", "chunk", "precision"])]
    estimate: bool,
    /// Images that --estimate looks at
    #[arg(long, value_name = "N", default_value_t = SAMPLE as u32, requires = "estimate", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    sample: u32,
}

/// What is asked about which images.
#[derive(clap::Args)]
struct AskedArgs {
    /// Folders (every image in them, told by content, also in the folders inside), s3://BUCKET/PREFIX, text files with an image a line
    /// (.txt), manifests (.csv, .tsv, .xlsx), or images
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    #[command(flatten)]
    backbone: BackboneArgs,
    /// Plug-in; may be given several times
    #[arg(long, required = true)]
    plugin: Vec<PathBuf>,
    /// Secret of 16 bytes or more under which Patient IDs become codes [default: patients are left out]
    #[arg(long, value_name = "FILE")]
    patient_key: Option<PathBuf>,
    /// Numbers that go into the backbone's matrix products
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
    #[command(flatten)]
    reading: DataArgs,
}

pub(crate) fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Run(args) => run_all(args),
        #[cfg(feature = "queue")]
        Verb::Plan(args) => queue::run_plan(args),
        #[cfg(feature = "queue")]
        Verb::Work(args) => queue::run_work(args),
        #[cfg(feature = "queue")]
        Verb::Status(args) => queue::run_status(args),
        #[cfg(feature = "queue")]
        Verb::Collect(args) => queue::run_collect(args),
        Verb::Check { folder, json } => run_check(folder, *json),
    }
}

fn run_all(args: &RunArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let inputs = args.asked.inputs()?;
    let Some(out) = &args.out else { return estimate::run(&args.asked, &args.estimate, &inputs, args.json) };
    let (predictor, settings) = args.asked.settings(args.chunk)?;
    let stop = interrupt_flag()?;
    let mut progress = ArchiveProgress::new(true);
    let finished = run_archive(&predictor, &settings, &inputs, out, &stop, &mut |event| progress.show(event));
    let tally = progress.finish();
    let finished = finished?;
    remark(&tally);
    report(out, &finished, started, args.json)?;
    refused(&finished)
}

impl AskedArgs {
    fn settings(&self, chunk: Option<u32>) -> Result<(Predictor, Settings), Failure> {
        let patient_key = self.patient_key()?;
        let predictor = Predictor::new(self.backbone.engine(self.precision.into())?);
        let plugins = self.plugin.iter().map(|path| Ok(predictor.plugin(path)?)).collect::<Result<_, Failure>>()?;
        let chunk = chunk.map(|chunk| chunk as usize);
        Ok((predictor, Settings { plugins, chunk, patient_key }))
    }

    fn patient_key(&self) -> Result<Option<PatientKey>, Failure> {
        Ok(self.patient_key.as_deref().map(PatientKey::read).transpose()?)
    }

    /// Folders and prefixes as they are, lists and manifests as what they name, and all other files as images.
    fn inputs(&self) -> Result<Vec<Input>, Failure> {
        let (mut inputs, mut images) = (Vec::new(), Vec::new());
        for named in &self.inputs {
            let path = match Place::of(named)? {
                Place::Local(path) => path,
                Place::Object(prefix) => {
                    inputs.push(Input::Prefix(prefix));
                    continue;
                }
            };
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
            match ending.as_str() {
                _ if path.is_dir() => inputs.push(Input::Folder(path.clone())),
                "txt" => inputs.push(Input::list(&path)?),
                "csv" | "tsv" | "xlsx" => {
                    let rows = self.reading.manifest(&path)?.rows;
                    inputs.push(Input::Images(rows.into_iter().map(|row| row.path).collect()));
                }
                _ => images.push(path.clone()),
            }
        }
        if !images.is_empty() {
            inputs.push(Input::Images(images));
        }
        Ok(inputs)
    }
}

/// The contract of the JSON is `docs/json.md`.
fn report(out: &Path, finished: &Finished, started: Instant, json: bool) -> Result<(), Failure> {
    let Finished { plan, manifest, resumed } = finished;
    if json {
        return say_json(&json!({
            "out": out.to_string_lossy(),
            "inputs": manifest.inputs,
            "rows": manifest.rows,
            "errors": manifest.errors,
            "unlisted": plan.unlisted,
            "parts": manifest.parts.len(),
            "bytes": manifest.bytes,
            "resumed": resumed,
            "tasks": plan.plugins,
            "plan_digest": manifest.plan,
            "backbone_digest": plan.backbone_digest,
            "precision": plan.precision,
            "seconds": started.elapsed().as_secs_f64(),
        }));
    }
    let [inputs, rows, parts] =
        [manifest.inputs, manifest.rows, manifest.parts.len() as u64].map(|count| grouped(count as usize));
    say(format_args!("{}: {inputs} images, {rows} rows in {parts} parts", out.display()));
    Ok(())
}

/// A failure where images have no answer, or were not even listed.
fn refused(finished: &Finished) -> Result<(), Failure> {
    let (errors, unlisted) = (finished.manifest.errors, finished.plan.unlisted.len());
    let images = || format!("{errors} of {} images could not be read", finished.manifest.inputs);
    let entries = || format!("{unlisted} folders or files could not be listed");
    match (errors, unlisted) {
        (0, 0) => Ok(()),
        (_, 0) => Err(Failure::Message(images())),
        (0, _) => Err(Failure::Message(entries())),
        _ => Err(Failure::Message(format!("{}, {}", images(), entries()))),
    }
}

/// What `melo archive check --json` prints.
#[derive(Serialize)]
struct Said<'a> {
    #[serde(serialize_with = "json_path")]
    archive: &'a Path,
    ok: bool,
    #[serde(flatten)]
    checked: &'a Checked,
}

fn run_check(folder: &Path, json: bool) -> Result<(), Failure> {
    let checked = check(folder)?;
    let Checked { parts, inputs, rows, errors, missing, damaged, unexpected } = &checked;
    if json {
        say_json(&Said { archive: folder, ok: checked.is_whole(), checked: &checked })?;
    } else {
        missing.iter().for_each(|name| say(format_args!("missing: {name}")));
        damaged.iter().for_each(|damaged| say(format_args!("damaged: {}: {}", damaged.name, damaged.reason)));
        unexpected.iter().for_each(|name| say(format_args!("not the archive's: {name}")));
    }
    if !checked.is_whole() {
        let [missing, damaged, unexpected] = [missing.len(), damaged.len(), unexpected.len()];
        return Err(Failure::Message(format!(
            "{}: {missing} files missing, {damaged} damaged, {unexpected} not the archive's; `melo archive run` computes missing parts",
            folder.display()
        )));
    }
    if !json {
        let whole =
            format_args!("{}: {inputs} images, {rows} rows in {parts} parts, whole", folder.display()).to_string();
        say(if *errors == 0 { whole } else { format!("{whole}; {errors} images could not be read") });
    }
    Ok(())
}
