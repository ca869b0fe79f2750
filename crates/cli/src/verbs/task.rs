//! What verbs share: the precision of a backbone, how files are rendered, outputs that must not replace inputs.

use crate::{Failure, note};
use clap::ValueEnum;
use melo::imaging::{Oddity, Tally};
use melo::vit::rendering::{Frame, Layout, Plane, Slice, Window};
use melo::vit::{Precision, Rendering, folder_of};
use std::path::Path;

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
    /// The layers of the frozen blocks in 8-bit integers (gradients through them as `auto`): fastest where there are VNNI or AMX
    Int8,
}

impl From<PrecisionArg> for Option<Precision> {
    fn from(precision: PrecisionArg) -> Option<Precision> {
        match precision {
            PrecisionArg::Auto => None,
            PrecisionArg::F32 => Some(Precision::F32),
            PrecisionArg::Bf16 => Some(Precision::Bf16),
            PrecisionArg::Bf16x3 => Some(Precision::Bf16x3),
            PrecisionArg::Int8 => Some(Precision::Int8),
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
    /// Axes of an array, where its shape leaves them open: hw, hwc, chw (channels first), nhw (grey images)
    #[arg(long, default_value_t = Layout::Auto)]
    layout: Layout,
}

impl RenderingArgs {
    pub(crate) fn rendering(&self) -> Rendering {
        let Self { frame, plane, slice, layout, .. } = *self;
        Rendering { window: self.window.clone(), frame, plane, slice, layout }
    }
}

/// Says what was seen of images that their user may have to hear, once a run.
pub(crate) fn remark(tally: &Tally) {
    for (oddity, said) in tally.remarks() {
        let hint = match (oddity, &tally.several.first) {
            (Oddity::LittleRange, _) => {
                ": `melo train --window minmax` or `percentile=1,99` lets the whole range be seen".to_owned()
            }
            (Oddity::Flat, _) => ": window or table do not fit the values".to_owned(),
            (Oddity::Several(kind), Some(path)) => {
                let form = match kind {
                    "slice" => "#slice=axial:40",
                    "image" => "#17",
                    _ => "#frame=2",
                };
                format!("; name another as {}{form}", path.display())
            }
            (Oddity::WindowUnused | Oddity::Several(_), _) => String::new(),
        };
        note(format_args!("melo: {said}{hint}"));
    }
}

/// Lists the images that a split has and nobody can read; what remains to be said is the error.
pub(crate) fn list_unreadable(error: &melo::data::Error) {
    if let melo::data::Error::Unreadable { broken, .. } = error {
        for unreadable in broken.iter().take(LISTED) {
            match unreadable.line {
                0 => note(format_args!("melo: {}", unreadable.error)),
                line => note(format_args!("melo: line {line}: {}", unreadable.error)),
            }
        }
        if broken.len() > LISTED {
            note(format_args!("melo: and {} more; `melo data check --json` lists all", broken.len() - LISTED));
        }
    }
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
