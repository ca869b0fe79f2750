//! `melo data pack`: decode and resize once, train from that.

use crate::progress::{bar, duration};
use crate::verbs::data_args::DataArgs;
use crate::verbs::task::RenderingArgs;
use crate::verbs::train::CropArg;
use crate::{Failure, note, say, say_json};
use clap::ValueEnum;
use melo::data::{PackOptions, PackReport, pack};
use melo::interop::read_checkpoint;
use melo::vit::{Interpolation, Preprocess};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// How many unreadable images are listed.
const LISTED: usize = 20;

/// Side of the network input where no backbone says another.
const SIZE: usize = 224;

/// Decode and resize every image once, into a few large files that are trained from as from the manifest
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  melo data pack labels.csv --out chest.pack --backbone vit.safetensors\n  \
    melo train --backbone vit.safetensors --data chest.pack --out chest.safetensors\n  \
    melo data pack labels.csv --out chest256.pack --size 256 --crop-mode center\n\n\
    A pack holds what one preprocessing makes of the images; training with another size, crop or filter is refused.\n\
    A run that was stopped goes on where it was. Exit status 1 when images cannot be read.")]
pub(crate) struct Args {
    /// Manifest (CSV, .xlsx), or a folder with a folder for every class
    manifest: PathBuf,
    /// Folder of the pack: new, empty, or the same pack, unfinished
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Weights whose size and filter are taken, as `melo train` takes them: a file, its folder, or a model on the hub (hf:OWNER/NAME, timm/NAME)
    #[arg(long, value_name = "FILE|DIR|HUB")]
    backbone: Option<PathBuf>,
    /// Side of the network input, px [default: the weights' own, or 224]
    #[arg(long, value_name = "PX")]
    size: Option<usize>,
    /// How a rectangle becomes a square: cut the ends, squeeze, or pad
    #[arg(long, value_enum, default_value_t = CropArg::Squash)]
    crop_mode: CropArg,
    /// Share of the side that the centre crop keeps
    #[arg(long, default_value_t = 1.0)]
    crop_pct: f64,
    /// Resampling filter [default: the weights' own, or bicubic]
    #[arg(long, value_enum)]
    interpolation: Option<FilterArg>,
    #[command(flatten)]
    rendering: RenderingArgs,
    /// Bits a sample
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(8..=16))]
    depth: u8,
    /// Finish without the images that cannot be read
    #[arg(long)]
    leave_out_unreadable: bool,
    /// Replace a pack of another manifest or preprocessing
    #[arg(long)]
    overwrite: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: DataArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum FilterArg {
    Bilinear,
    Bicubic,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let started = Instant::now();
    let spec = preprocess(args)?;
    let options =
        PackOptions { depth: args.depth, overwrite: args.overwrite, leave_out_unreadable: args.leave_out_unreadable };
    let manifest = args.reading.manifest(&args.manifest)?;
    let bar = bar(manifest.rows.len(), "pack");
    let report = pack(&manifest, &spec, &args.out, options, &|done, _| {
        bar.set_position(done as u64);
        bar.set_message(format!("{:.0} images/s", done as f64 / started.elapsed().as_secs_f64()));
    })?;
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    for broken in report.unreadable.iter().take(LISTED).filter(|_| !args.json) {
        match broken.line {
            0 => note(format_args!("melo: {}", broken.reason)),
            line => note(format_args!("melo: line {line}: {}", broken.reason)),
        }
    }
    say_report(args, &report, seconds)?;
    match report.unreadable.len() {
        unreadable if !report.finished => Err(Failure::Message(format!(
            "{}: {unreadable} of {} images cannot be read; mend them and run this again, which packs their shards anew, or give \
             --leave-out-unreadable",
            args.out.display(),
            manifest.rows.len(),
        ))),
        _ => Ok(()),
    }
}

fn say_report(args: &Args, report: &PackReport, seconds: f64) -> Result<(), Failure> {
    if args.json {
        let mut value = serde_json::to_value(report)?;
        value["pack"] = json!(args.out.to_string_lossy());
        value["seconds"] = json!(seconds);
        return say_json(&value);
    }
    if report.finished {
        let PackReport { images, shards, reused_shards, bytes, unreadable, .. } = report;
        say(format_args!(
            "{}: {images} images in {shards} shards ({reused_shards} were there), {:.1} MiB, {} left out, {}",
            args.out.display(),
            *bytes as f64 / f64::from(1 << 20),
            unreadable.len(),
            duration(seconds),
        ));
    }
    Ok(())
}

fn preprocess(args: &Args) -> Result<Preprocess, Failure> {
    let own = args.backbone.as_deref().map(read_checkpoint).transpose()?.map(|checkpoint| checkpoint.preprocess);
    // Its statistics are of no consequence here: values are normalised when they are read.
    let own = own.unwrap_or_else(|| Preprocess::base(SIZE));
    let spec = Preprocess {
        size: args.size.unwrap_or(own.size),
        crop_mode: args.crop_mode.into(),
        crop_pct: args.crop_pct,
        interpolation: match args.interpolation {
            None => own.interpolation,
            Some(FilterArg::Bilinear) => Interpolation::Bilinear,
            Some(FilterArg::Bicubic) => Interpolation::Bicubic,
        },
        crop_offset: Default::default(),
        depth: None,
        rendering: args.rendering.rendering(),
        ..own
    };
    spec.check().map_err(|error| Failure::Usage(error.reason))?;
    Ok(spec)
}
