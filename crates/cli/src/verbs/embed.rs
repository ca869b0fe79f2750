//! `melo embed`: features of any number of images to one file.

use super::images::{Frames, expand, named};
use super::task::{PrecisionArg, check_output, remark};
use super::train::{CropArg, interrupt_flag};
use crate::progress::{Counter, grouped};
use crate::verbs::backbone_args::BackboneArgs;
use crate::verbs::data_args::DataArgs;
use crate::verbs::eval::SplitArg;
use crate::{Failure, note, say, say_json};
use clap::ValueEnum;
use melo::embed::{Embedder, Event, Inputs, Output, Written, sidecars, write};
use melo::imaging::Tally;
use melo::vit::rendering::{Layout, Plane, Slice, Window};
use melo::vit::{FeatureKind, Features, Storage};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Write the features of images: what the backbone makes of them, bare or with a plug-in
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo embed --backbone vit.safetensors --data wbc/labels.csv --out wbc.npy\n  \
    melo embed --backbone uni.safetensors --list tiles.txt --out tiles.safetensors --what class --dtype f16\n  \
    melo embed --backbone dinov2.safetensors films/ scan.dcm --frame all --out grids.npy --what grid --block 8\n  \
    melo embed --backbone vit.safetensors --plugin cxr.safetensors --data cxr.csv --split test --out cxr.npy\n\n\
    An .npy has a table of its rows beside it (OUT.rows.csv: row, path, digest, and what the manifest says) and what it is \
    (OUT.about.json); a .safetensors holds both, `rows` as the table's text. docs/embed.md shows how to read them.\n\n\
    Interrupted, the same command goes on from OUT.partial and ends with the same bytes. An image that cannot be read is named on \
    standard error and left out, and the exit status is 1.")]
pub(crate) struct Args {
    #[command(flatten)]
    backbone: BackboneArgs,
    /// Images, or folders: every image in them, told by content, also in the folders inside
    #[arg(value_name = "IMAGES", required_unless_present_any = ["data", "list"])]
    files: Vec<PathBuf>,
    /// Manifest (CSV, .xlsx), a folder with a folder for every class, or a pack
    #[arg(long, conflicts_with_all = ["files", "list"])]
    data: Option<PathBuf>,
    /// Images of this split alone
    #[arg(long, value_enum, requires = "data")]
    split: Option<SplitArg>,
    /// Text file with an image a line, relative to its folder
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    list: Option<PathBuf>,
    /// File to write: .npy, .safetensors, or .parquet where it was built in
    #[arg(long)]
    out: PathBuf,
    /// Plug-in, whose low-rank updates and preprocessing are used [default: the bare backbone]
    #[arg(long)]
    pub(crate) plugin: Option<PathBuf>,
    /// What of an image is written
    #[arg(long, value_enum, default_value_t = WhatArg::Pooled)]
    what: WhatArg,
    /// Block whose output is taken, from 0 [default: the last]
    #[arg(long, value_name = "N")]
    block: Option<usize>,
    /// Leave the final norm away; by default it is applied, whichever the block
    #[arg(long)]
    no_norm: bool,
    /// Numbers of the file
    #[arg(long, value_enum, default_value_t = DtypeArg::F32)]
    dtype: DtypeArg,
    /// Numbers that go into the backbone's matrix products
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: DataArgs,
    #[command(flatten)]
    input: InputArgs,
}

/// From files to network input.
#[derive(clap::Args)]
#[command(next_help_heading = "Images")]
struct InputArgs {
    /// Side of the network input, px [default: the weights' own]
    #[arg(long, value_name = "PX", conflicts_with = "plugin")]
    image_size: Option<usize>,
    /// How a rectangle becomes a square, without cutting more than that [default: as the weights say]
    #[arg(long, value_enum, conflicts_with = "plugin")]
    crop_mode: Option<CropArg>,
    /// Grey values from black to white, as `melo train --window` [default: auto]
    #[arg(long, conflicts_with = "plugin")]
    window: Option<Window>,
    /// Plane in which a volume is cut: axial, coronal, sagittal [default: axial]
    #[arg(long, conflicts_with = "plugin")]
    plane: Option<Plane>,
    /// Slice of a volume: middle, or a number from 0 [default: middle]
    #[arg(long, conflicts_with = "plugin")]
    slice: Option<Slice>,
    /// Frame of a multi-frame DICOM, page of a TIFF, of the images named here: first, middle, a number from 1, or all of them
    #[arg(long, value_name = "N|all", conflicts_with_all = ["data", "list"])]
    frame: Option<Frames>,
    /// Axes of arrays named here whose shape leaves them open: hw, hwc, chw (channels first), nhw (grey images)
    #[arg(long, conflicts_with_all = ["data", "list"])]
    layout: Option<Layout>,
}

#[derive(Clone, Copy, ValueEnum)]
enum WhatArg {
    /// The class token
    Class,
    /// The mean of the patch tokens
    Mean,
    /// The patch tokens, rows from the top: [grid, grid, width]
    #[value(alias = "tokens")]
    Grid,
    /// What heads read: pooled as the network pools
    Pooled,
}

#[derive(Clone, Copy, ValueEnum)]
enum DtypeArg {
    /// 32-bit floats, as computed
    F32,
    /// 16-bit floats, half the size
    F16,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let started = Instant::now();
    let storage = match args.dtype {
        DtypeArg::F32 => Storage::F32,
        DtypeArg::F16 => Storage::F16,
    };
    let output = Output::new(&args.out, storage)?;
    check_outputs(args)?;
    let inputs = inputs(args)?;
    let embedder = embedder(args)?;
    let stop = interrupt_flag()?;
    let images = inputs.images.len();
    let (mut progress, mut tally) = (Counter::new(images, "embed"), Tally::default());
    let mut observer = |event: Event<'_>| match event {
        Event::Resumed { done } => {
            progress.print(|| note(format_args!("going on after {} of {} images", grouped(done), grouped(images))));
        }
        Event::Read { path, seen } => tally.add(path, seen),
        Event::Failed(failed) => progress.print(|| note(format_args!("melo: {}", failed.reason))),
        Event::Done(done) => progress.set(done),
    };
    let written = write(&embedder, &inputs, &output, &stop, &mut observer);
    drop(progress);
    let written = written?;
    remark(&tally);
    report(args, &written, started.elapsed().as_secs_f64())?;
    match written.failed.len() {
        0 => Ok(()),
        1 => Err(Failure::Reported),
        broken => Err(Failure::Message(format!("{broken} of {images} images could not be read"))),
    }
}

/// Refuses, before anything is computed, what would replace a file that is read.
fn check_outputs(args: &Args) -> Result<(), Failure> {
    let read = [args.plugin.as_deref(), args.data.as_deref(), args.list.as_deref(), Some(args.backbone.path())];
    let read: Vec<&Path> = read.into_iter().flatten().chain(args.files.iter().map(PathBuf::as_path)).collect();
    let written = sidecars(&args.out);
    std::iter::once(&args.out).chain(&written).try_for_each(|output| check_output("--out", output, &read))
}

fn inputs(args: &Args) -> Result<Inputs, Failure> {
    if let Some(data) = &args.data {
        return Ok(Inputs::manifest(&args.reading.manifest(data)?, args.split.map(Into::into))?);
    }
    let InputArgs { frame, layout, .. } = args.input;
    match &args.list {
        None => Ok(Inputs::files(named(expand(&args.files, None)?, frame, layout))),
        Some(list) => Ok(Inputs::list(list)?),
    }
}

fn embedder(args: &Args) -> Result<Embedder, Failure> {
    let engine = args.backbone.engine(args.precision.into())?;
    let kind = match args.what {
        WhatArg::Class => FeatureKind::Class,
        WhatArg::Mean => FeatureKind::Mean,
        WhatArg::Grid => FeatureKind::Grid,
        WhatArg::Pooled => FeatureKind::Pooled,
    };
    let last = Features::new(kind, engine.backbone().config());
    let features = Features { block: args.block.unwrap_or(last.block), norm: !args.no_norm, ..last };
    let embedder = Embedder::new(engine, features)?;
    if let Some(plugin) = &args.plugin {
        return Ok(embedder.with_plugin(plugin)?);
    }
    let InputArgs { image_size, crop_mode, window, plane, slice, .. } = &args.input;
    let mut preprocess = embedder.preprocess().clone();
    preprocess.size = image_size.unwrap_or(preprocess.size);
    if let Some(crop_mode) = *crop_mode {
        (preprocess.crop_mode, preprocess.crop_pct) = (crop_mode.into(), 1.0);
    }
    let rendering = &mut preprocess.rendering;
    rendering.window = window.clone().unwrap_or_else(|| rendering.window.clone());
    rendering.plane = plane.unwrap_or(rendering.plane);
    rendering.slice = slice.unwrap_or(rendering.slice);
    Ok(embedder.with_preprocess(preprocess)?)
}

/// The contract of the JSON is `docs/json.md`.
fn report(args: &Args, written: &Written, seconds: f64) -> Result<(), Failure> {
    let Written { about, failed, resumed } = written;
    let shape: Vec<usize> = std::iter::once(about.rows).chain(about.shape.iter().copied()).collect();
    let bytes = std::fs::metadata(&args.out)?.len();
    if args.json {
        return say_json(&json!({
            "out": args.out.to_string_lossy(),
            "rows": about.rows,
            "shape": shape,
            "dtype": about.dtype,
            "what": about.what,
            "block": about.block,
            "norm": about.norm,
            "failed": failed,
            "resumed": resumed,
            "bytes": bytes,
            "plugin_digest": about.plugin_digest,
            "backbone_digest": about.backbone.digest,
            "precision": about.precision,
            "seconds": seconds,
        }));
    }
    let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
    say(format!(
        "{}: [{}] {}, {} of block {}, {} bytes",
        args.out.display(),
        shape.join(", "),
        about.dtype,
        about.what,
        about.block,
        grouped(bytes as usize)
    ));
    Ok(())
}
