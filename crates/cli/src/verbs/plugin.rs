//! `melo plugin`: what a plug-in says of itself, and from and to the files of others.

mod certify;
mod describe;
mod export;
mod fold;
mod import;
mod merge;
mod recalibrate;
mod share;
mod sign;

use super::task::check_output;
use crate::{Failure, say, say_json};
use describe::describe;
use melo::sign::{Signature, beside};
use melo::train::card_sheet;
use melo::vit::{PluginInfo, TaskCard};
use serde::Serialize;
pub(crate) use sign::{check_signer, public_key, sign_file};
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Show a plug-in's card, sizes and digests
    #[command(after_help = "Example:\n  melo plugin info wbc.safetensors --json")]
    Info {
        /// Plug-in file
        plugin: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Render a plug-in's card as a page: figures with intervals, thresholds, where it comes from
    #[command(
        after_help = "Examples:\n  melo plugin card wbc.safetensors\n  melo plugin card wbc.safetensors --out wbc.html"
    )]
    Card {
        /// Plug-in file
        plugin: PathBuf,
        /// File to write; HTML where its name ends in `.html`, else Markdown [default: Markdown to standard output]
        #[arg(long)]
        out: Option<PathBuf>,
    },
    Certify(certify::Args),
    Recalibrate(recalibrate::Args),
    Import(import::Args),
    Export(export::Args),
    Fold(fold::Args),
    Merge(merge::Args),
    Keygen(sign::KeygenArgs),
    Sign(sign::SignArgs),
    Verify(sign::VerifyArgs),
    Push(share::PushArgs),
    Pull(share::PullArgs),
    Search(share::SearchArgs),
    Gallery(share::GalleryArgs),
}

impl Verb {
    /// Plug-ins that are read; what is written to stays a file's name.
    pub(crate) fn plugins(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Verb::Info { plugin, .. } | Verb::Card { plugin, .. } => vec![plugin],
            Verb::Certify(args) => args.read_only().into_iter().collect(),
            Verb::Export(args) => vec![&mut args.plugin],
            Verb::Merge(args) => vec![&mut args.plugin],
            Verb::Verify(args) => args.plugins.iter_mut().collect(),
            _ => Vec::new(),
        }
    }
}

/// The object of `--json`; the contract is `docs/json.md`.
#[derive(Serialize)]
struct Fields<'a> {
    #[serde(serialize_with = "crate::json_path")]
    plugin: &'a Path,
    bytes: usize,
    parameters: usize,
    scope_bytes: usize,
    plugin_digest: &'a str,
    /// The key that the signature beside the file says it was made with; `melo plugin verify` checks it.
    signature_key: Option<String>,
    card: &'a TaskCard,
}

pub(crate) fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Info { plugin, json } => show(plugin, *json),
        Verb::Card { plugin, out } => render(plugin, out.as_deref()),
        Verb::Certify(args) => certify::run(args),
        Verb::Recalibrate(args) => recalibrate::run(args),
        Verb::Import(args) => import::run(args),
        Verb::Export(args) => export::run(args),
        Verb::Fold(args) => fold::run(args),
        Verb::Merge(args) => merge::run(args),
        Verb::Keygen(args) => sign::keygen(args),
        Verb::Sign(args) => sign::sign(args),
        Verb::Verify(args) => sign::verify(args),
        Verb::Push(args) => share::run_push(args),
        Verb::Pull(args) => share::run_pull(args),
        Verb::Search(args) => share::run_search(args),
        Verb::Gallery(args) => share::run_gallery(args),
    }
}

fn show(plugin: &Path, json: bool) -> Result<(), Failure> {
    let info = PluginInfo::read(plugin)?;
    let signature = beside(plugin);
    let signature = signature.exists().then(|| Signature::read(&signature)).transpose()?;
    if json {
        return say_json(&Fields {
            plugin,
            bytes: info.bytes,
            parameters: info.parameters(),
            scope_bytes: info.scope_bytes,
            plugin_digest: &info.digest,
            signature_key: signature.map(|signature| signature.key().to_string()),
            card: &info.card,
        });
    }
    say(describe(&info));
    if let Some(signature) = signature {
        say(format_args!("signature   by key {}, not checked here: `melo plugin verify`", signature.key()));
    }
    Ok(())
}

fn render(plugin: &Path, out: Option<&Path>) -> Result<(), Failure> {
    let Some(out) = out else {
        say(card_sheet(&PluginInfo::read(plugin)?).markdown().trim_end());
        return Ok(());
    };
    check_output("--out", out, &[plugin])?;
    let sheet = card_sheet(&PluginInfo::read(plugin)?);
    let is_html = out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("html"));
    let page = if is_html { sheet.html() } else { sheet.markdown() };
    Ok(melo::vit::write_atomically(out, page.as_bytes())?)
}
