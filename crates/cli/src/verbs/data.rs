//! `melo data`: manifests of public sets, what is wrong with a data set before training meets it, and packs.

mod dicom;
mod pack;
mod preset;

use crate::progress::bar;
use crate::{Failure, say, say_json};
use melo::data::{DEFAULT_FRACTIONS, Manifest, check};
use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Decode every image and list what is broken, missing, leaking or doubtful
    #[command(after_help = "Examples:\n  melo data check labels.csv\n  melo data check images/ --json\n\n\
        A manifest is a CSV with the columns path,split,label[,patient_id] (one class an image), or\n\
        path,split,<a 0/1 column for every finding>[,patient_id]; or a folder with a folder for every class.\n\
        Exit status 1 when something would stop training.")]
    Check {
        /// CSV manifest, a folder with a folder for every class, or a pack
        data: PathBuf,
        /// Seed of the patient-wise splits, when the manifest has none
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    Preset(preset::Args),
    /// List the public sets that `melo data preset` knows
    Presets {
        /// Print one JSON object a set
        #[arg(long)]
        json: bool,
    },
    Pack(pack::Args),
    Dicom(dicom::Args),
}

pub(crate) fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Check { data, seed, json } => run_check(data, *seed, *json),
        Verb::Preset(args) => preset::run(args),
        Verb::Presets { json } => preset::list(*json),
        Verb::Pack(args) => pack::run(args),
        Verb::Dicom(args) => dicom::run(args),
    }
}

fn run_check(data: &std::path::Path, seed: u64, json: bool) -> Result<(), Failure> {
    let mut manifest = Manifest::read(data)?;
    let assigned = manifest.assign_splits(seed, DEFAULT_FRACTIONS)?;
    let bar = bar(manifest.rows.len(), "check");
    let mut report = check(&manifest, &|done, _| bar.set_position(done as u64));
    bar.finish_and_clear();
    if json {
        report.path = report.path.to_string_lossy().into_owned().into();
        say_json(&report)?;
    } else {
        say(format!("{report}\n{assigned}").trim_end());
    }
    if report.problems.is_empty() { Ok(()) } else { Err(Failure::Reported) }
}
