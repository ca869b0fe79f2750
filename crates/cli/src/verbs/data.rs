//! `melo data`: manifests of public sets, what is wrong with a data set before training meets it, and packs.

mod dicom;
mod pack;
mod preset;

use super::data_args::DataArgs;
use crate::progress::bar;
use crate::{Failure, advice, say, say_json};
use melo::data::{DEFAULT_FRACTIONS, check};
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Decode every image and list what is broken, missing, leaking or doubtful
    #[command(after_help = "Examples:\n  melo data check labels.csv\n  melo data check images/ --json\n  \
        melo data check train.csv --images train_images/ --strict\n  \
        melo data check findings.xlsx --path-column Bild --label-column Befund --patient-column PatNr\n  \
        melo data check ISIC_2019_Training_GroundTruth.csv --images ISIC_2019_Training_Input/\n\n\
        A manifest is a table (CSV with commas, semicolons or tabs, or .xlsx) with the columns \
        path,split,label[,patient_id] (one class an image), or path,split,<a 0/1 column for every finding>[,patient_id]; \
        other columns are kept for `melo eval --subgroup`. Or a folder with a folder for every class, below train, val \
        and test or not; or a folder that holds labels.csv. What else is read, and as what: docs/manifests.md.\n\n\
        Exit status 1 when something would stop training; with --strict also when something is doubtful.")]
    Check {
        /// Manifest (CSV, .xlsx), a folder with a folder for every class, or a pack
        data: PathBuf,
        /// Seed of the patient-wise splits, when the manifest has none
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        reading: DataArgs,
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
        Verb::Check { data, seed, json, reading } => run_check(data, *seed, *json, reading),
        Verb::Preset(args) => preset::run(args),
        Verb::Presets { json } => preset::list(*json),
        Verb::Pack(args) => pack::run(args),
        Verb::Dicom(args) => dicom::run(args),
    }
}

fn run_check(data: &Path, seed: u64, json: bool, reading: &DataArgs) -> Result<(), Failure> {
    let mut manifest = reading.read(data)?;
    let assigned = manifest.assign_splits(seed, DEFAULT_FRACTIONS)?;
    let bar = bar(manifest.rows.len(), "check");
    let mut report = check(&manifest, &|done, _| bar.set_position(done as u64));
    bar.finish_and_clear();
    if json {
        report.path = report.path.to_string_lossy().into_owned().into();
        say_json(&report)?;
    } else {
        say(format!("{report}\n{assigned}").trim_end());
        report.warnings.iter().filter_map(advice::of_warning).for_each(|hint| say(format_args!("hint: {hint}")));
    }
    if !report.problems.is_empty() {
        return Err(Failure::Reported);
    }
    reading.refuse(data, &report.warnings)
}
