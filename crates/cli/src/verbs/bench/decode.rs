//! `melo bench decode`: from the bytes of files to network input.

use super::files::{Format, synthetic};
use super::line::{Line, Unit};
use super::random::described;
use super::repeat::{RepeatArgs, Spread, timed};
use crate::Failure;
use melo::imaging::{decode, prepare};
use rayon::prelude::*;
use std::path::Path;

/// Decoding and preprocessing: JPEG, PNG and DICOM files in memory to network input, images a second
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  melo bench decode\n  melo bench decode --format jpeg --image-size 2048 --images 16 --json\n\n\
    Files are drawn and encoded first; one line for every format. All threads decode, an image each."
)]
pub(crate) struct Args {
    /// Formats
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Format::ALL)]
    format: Vec<Format>,
    /// Side of the images, pixels
    #[arg(long = "image-size", alias = "side", default_value_t = 1024, value_name = "PX", value_parser = clap::value_parser!(u16).range(16..=8192))]
    side: u16,
    /// Images of a repeat
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = super::random::batch)]
    images: usize,
    /// Architecture whose preprocessing is done, by timm's name
    #[arg(long, default_value = "vit_base_patch16_224", value_name = "NAME")]
    arch: String,
    #[command(flatten)]
    repeat: RepeatArgs,
    /// Print one JSON object a format
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let description = described(&args.arch)?;
    let pixels: Vec<_> =
        (0..args.images).into_par_iter().map(|number| synthetic(number, usize::from(args.side))).collect();
    for &format in &args.format {
        let files = pixels.par_iter().map(|pixels| format.encode(pixels)).collect::<Result<Vec<_>, Failure>>()?;
        let seconds = args.repeat.measure(|| {
            timed(|| {
                files.par_iter().try_for_each(|file| {
                    let pixels = decode(file, Path::new(format.name()))?;
                    std::hint::black_box(prepare(&pixels, &description.preprocess));
                    Ok::<_, Failure>(())
                })
            })
        })?;
        let spread = Spread::of(seconds.iter().map(|seconds| files.len() as f64 / seconds));
        let bytes = files.iter().map(Vec::len).sum::<usize>() / files.len();
        let (name, side) = (format.name(), args.side);
        Line::new("decode", &description.name, Unit::ImagesPerSecond, spread)
            .batch(files.len())
            .with("format", name)?
            .with("side", side)?
            .with("mean_file_bytes", bytes)?
            .with("repeats", seconds.len())?
            .print(args.json, &format!("  {name}, {side} x {side} px, {:.0} kB a file\n", bytes as f64 / 1e3))?;
    }
    Ok(())
}
