//! What verbs share: the precision of a backbone, and a manifest's splits as data sets, every broken file listed first.

use crate::progress::bar;
use crate::{Failure, note};
use clap::ValueEnum;
use melo::data::{Cache, Dataset, Manifest, Row, Split};
use melo::vit::rendering::{Frame, Plane, Slice, Window};
use melo::vit::{Precision, Preprocess, Rendering, folder_of};
use std::path::Path;
use std::sync::Arc;

/// Memory for decoded images, MiB.
pub(crate) const CACHE_MIB: usize = 1024;
/// How many broken files are listed before the rest is counted.
const LISTED: usize = 20;

/// How the backbone's matrix products are computed.
#[derive(Clone, Copy, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PrecisionArg {
    /// bf16 where this processor multiplies it faster than f32 (AMX; AMD with AVX512-BF16), else f32
    Auto,
    /// As the weights are
    F32,
    /// Factors rounded to bfloat16, sums in f32; on any processor, but slow without instructions for it
    Bf16,
    /// Each factor as the sum of two bfloat16 numbers: as good as f32, and faster where there is AMX
    Bf16x3,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Precision {
        match precision {
            PrecisionArg::Auto => Precision::fastest(),
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::Bf16 => Precision::Bf16,
            PrecisionArg::Bf16x3 => Precision::Bf16x3,
        }
    }
}

/// How files that hold more than one 8-bit image are rendered; it goes into the card, and `predict` does the same.
#[derive(Clone, clap::Args)]
#[command(next_help_heading = "DICOM, NIfTI and arrays")]
pub(crate) struct RenderingArgs {
    /// Grey values from black to white: auto, preset=lung (brain, bone, …), name=LUNG, center=40,width=400, minmax, percentile=1,99
    #[arg(long, default_value_t = Window::Auto)]
    window: Window,
    /// Frame of a multi-frame file: first, middle, or a number from 1
    #[arg(long, default_value_t = Frame::First)]
    frame: Frame,
    /// Plane in which a volume is cut: axial, coronal, sagittal
    #[arg(long, default_value_t = Plane::Axial)]
    plane: Plane,
    /// Slice of a volume: middle, or a number from 0
    #[arg(long, default_value_t = Slice::Middle)]
    slice: Slice,
}

impl RenderingArgs {
    pub(crate) fn rendering(&self) -> Rendering {
        Rendering { window: self.window.clone(), frame: self.frame, plane: self.plane, slice: self.slice }
    }
}

/// Splits, decoded once: the broken files of all of them end here, all together.
pub(crate) fn open_splits<const N: usize>(
    manifest: &Manifest,
    splits: [Split; N],
    preprocess: &Preprocess,
    cache: &Arc<Cache>,
) -> Result<[Dataset; N], Failure> {
    manifest.check_preprocess(preprocess)?;
    let path = manifest.path.display();
    if let Some(split) = splits.into_iter().find(|&split| manifest.split(split).is_empty()) {
        return Err(Failure::Message(format!("{path}: no image is in the {split} split")));
    }
    let datasets = splits.map(|split| {
        let rows: Vec<Row> = manifest.split(split).into_iter().cloned().collect();
        Dataset::new(rows, preprocess.clone(), Arc::clone(cache))
    });
    let images = datasets.iter().map(Dataset::len).sum();
    let bar = bar(images, "read");
    let mut unreadable: Vec<(usize, String)> = Vec::new();
    let mut read = 0;
    for dataset in &datasets {
        let broken = dataset.preload(&|done, _| bar.set_position((read + done) as u64));
        unreadable.extend(broken.iter().map(|broken| (dataset.rows()[broken.row].line, broken.error.to_string())));
        read += dataset.len();
    }
    bar.finish_and_clear();
    if unreadable.is_empty() {
        return Ok(datasets);
    }
    unreadable.sort();
    for (line, error) in unreadable.iter().take(LISTED) {
        match line {
            0 => note(format_args!("melo: {error}")),
            line => note(format_args!("melo: line {line}: {error}")),
        }
    }
    if unreadable.len() > LISTED {
        note(format_args!("melo: and {} more; `melo data check --json` lists all", unreadable.len() - LISTED));
    }
    let words: Vec<&str> = splits.iter().map(|split| split.word()).collect();
    Err(Failure::Message(format!(
        "{path}: {} of {images} images in {} cannot be read; mend or remove them",
        unreadable.len(),
        words.join(" and "),
    )))
}

/// Refuses a file to be written that has no folder, is a folder, or is one of the files that are read.
pub(crate) fn check_output(flag: &str, output: &Path, inputs: &[&Path]) -> Result<(), Failure> {
    let refuse = |reason: String| Err(Failure::Usage(format!("{flag} {}: {reason}", output.display())));
    if !folder_of(output).is_dir() {
        return refuse("the folder does not exist".to_owned());
    }
    if output.is_dir() {
        return refuse("is a folder, expected a file name".to_owned());
    }
    if output.exists() && !output.is_file() {
        return refuse("is not a regular file".to_owned());
    }
    let same = |input: &&&Path| match (input.canonicalize(), output.canonicalize()) {
        (Ok(input), Ok(output)) => input == output,
        _ => false,
    };
    match inputs.iter().find(same) {
        Some(input) => refuse(format!("would replace {}, which is read", input.display())),
        None => Ok(()),
    }
}

/// The name of a task whose data lie in `data`: the folder's.
pub(crate) fn name_of(data: &Path) -> String {
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let folder = if absolute.is_dir() { Some(absolute.as_path()) } else { absolute.parent() };
    folder.and_then(Path::file_name).map_or_else(|| "task".to_owned(), |name| name.to_string_lossy().into_owned())
}
