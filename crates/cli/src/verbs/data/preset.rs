//! `melo data preset`: the manifest of a public set, as it is unpacked from its site.

use crate::verbs::task::check_output;
use crate::{Failure, note, say, say_json};
use clap::ValueEnum;
use melo::data::{Applied, Error, Policy, Preset, PresetError};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Write the manifest of a public set, as it is unpacked from its site
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  melo data presets\n  melo data preset nih-chestxray14 ChestX-ray14/ --check\n  \
    melo data preset chexpert CheXpert-v1.0-small/ --policy ones --out chexpert.csv\n  \
    melo data preset chestmnist downloads/\n  melo data preset my-set.toml DIR   (keys: docs/presets.md)\n\n\
    Exit status 1 when something would stop training; nothing is written then.")]
pub(crate) struct Args {
    /// A name that `melo data presets` lists, or a file of your own that ends in .toml
    name: String,
    /// Folder that the set was unpacked into
    dir: PathBuf,
    /// CSV manifest to write; its paths are relative to its folder [default: DIR/labels.csv]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Count, and explain what is missing, without writing anything
    #[arg(long, conflicts_with_all = ["out", "overwrite"])]
    check: bool,
    /// What becomes of uncertain labels [default: zeros, or ignore where an image has one class]
    #[arg(long, value_enum)]
    policy: Option<PolicyArg>,
    /// Replace the manifest if it exists
    #[arg(long)]
    overwrite: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PolicyArg {
    /// The finding is absent
    Zeros,
    /// The finding is present
    Ones,
    /// The image is left out (one class an image only)
    Ignore,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let policy = args.policy.map(|policy| match policy {
        PolicyArg::Zeros => Policy::Zeros,
        PolicyArg::Ones => Policy::Ones,
        PolicyArg::Ignore => Policy::Ignore,
    });
    let preset = Preset::named(&args.name).map_err(usage)?;
    let out = (!args.check).then(|| args.out.clone().unwrap_or_else(|| args.dir.join("labels.csv")));
    if let Some(out) = out.as_deref().filter(|_| args.dir.is_dir()) {
        check_output("--out", out, &[])?;
        if out.exists() && !args.overwrite {
            let message = format!("{}: exists already; --overwrite replaces it, --out names another", out.display());
            return Err(Failure::Message(message));
        }
    }
    let applied = preset.apply(&args.dir, policy).map_err(usage)?;
    let written = out.as_deref().filter(|_| applied.report.problems.is_empty());
    if let Some(out) = written {
        applied.write(out)?;
    }
    report(args, &applied, written)?;
    match (applied.report.problems.len(), args.check) {
        (0, _) => Ok(()),
        (_, true) => Err(Failure::Reported),
        (problems, false) => Err(Failure::Message(format!(
            "{}: nothing written: {problems} of its findings stop training",
            args.dir.display()
        ))),
    }
}

/// A name or a policy that cannot be comes from the command line.
fn usage(error: Error) -> Failure {
    let of_command_line = matches!(
        &error,
        Error::Preset(refused) if matches!(**refused, PresetError::Unknown { .. } | PresetError::Policy { .. })
    );
    if of_command_line { Failure::Usage(error.to_string()) } else { error.into() }
}

fn report(args: &Args, applied: &Applied, written: Option<&Path>) -> Result<(), Failure> {
    let report = &applied.report;
    if args.json {
        let mut value = serde_json::to_value(report)?;
        value["folder"] = json!(report.folder.to_string_lossy());
        value["manifest"] = json!(written.map(Path::to_string_lossy));
        return say_json(&value);
    }
    say(report.to_string().trim_end());
    if let Some(out) = written {
        note(format_args!("written: {}; next: melo data check {0}", out.display()));
    }
    Ok(())
}

pub(crate) fn list(as_json: bool) -> Result<(), Failure> {
    for preset in Preset::all() {
        let expect = preset.expect();
        if as_json {
            say_json(&json!({
                "name": preset.name(),
                "title": preset.title(),
                "multi_label": preset.is_multi_label(),
                "images": expect.images,
                "patients": expect.patients,
                "url": preset.url(),
                "citation": preset.citation(),
                "licence": preset.licence(),
                "note": preset.note(),
            }))?;
        } else {
            let images = expect.images.map_or_else(String::new, |images| images.to_string());
            say(format_args!("{:16}  {images:>7}  {}", preset.name(), preset.title()));
        }
    }
    Ok(())
}
