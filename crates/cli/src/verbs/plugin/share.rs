//! `melo plugin push|pull|search|gallery`: plug-ins on the hub, in registries, and on a page.

use super::sign::check_signer;
use crate::shared::TRUSTED_KEYS;
use crate::verbs::task::check_output;
use crate::{Failure, note, say, say_json};
use melo::share::{Found, Readme, Reference, pull, push, search_hub, search_registry, write_gallery};
use melo::sign::beside;
use melo::vit::{PluginInfo, write_atomically};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Push a plug-in, with its signature and a model card, to the Hugging Face hub or an OCI registry
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo plugin push chest.safetensors hf:lab/chest-film@v2 --license cc-by-4.0 --base-model timm/vit_small_patch16_224.dino\n  \
    melo plugin push chest.safetensors oci://registry.lab:5000/lab/chest:2\n\n\
    The hub asks for a token in HF_TOKEN, or one that its own tools saved; registries for what `docker login` saved. What is \
    printed names exactly these bytes.")]
pub(crate) struct PushArgs {
    /// Plug-in file
    plugin: PathBuf,
    /// `hf:OWNER/NAME[@REVISION]` or `oci://HOST/REPOSITORY:TAG`
    reference: Reference,
    /// Licence on the model card, by its name on the hub [default: other]
    #[arg(long, value_name = "NAME")]
    license: Option<String>,
    /// Backbone on the model card, by its name on the hub
    #[arg(long, value_name = "OWNER/NAME")]
    base_model: Option<String>,
    /// Make a repository on the hub that others do not see
    #[arg(long)]
    private: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Fetch a plug-in into a file, with its signature beside it
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo plugin pull hf:lab/chest-film@v2 --out tasks/chest.safetensors\n  \
    melo plugin pull oci://registry.lab:5000/lab/chest:2 --out tasks/chest.safetensors --trusted-keys keys.txt\n\n\
    Every verb that reads a plug-in takes such a name in the place of a file, and fetches it once.")]
pub(crate) struct PullArgs {
    /// `hf:OWNER/NAME[@REVISION]` or `oci://HOST/REPOSITORY:TAG`
    reference: Reference,
    /// File to write
    #[arg(long)]
    out: PathBuf,
    /// Take it only if one of these keys signed it
    #[arg(long, env = TRUSTED_KEYS, value_name = "FILE")]
    trusted_keys: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Search for plug-ins on the hub, or in a registry
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  melo plugin search chest\n  melo plugin search oci://registry.lab:5000 chest")]
pub(crate) struct SearchArgs {
    /// Words that are looked for; a registry, `oci://HOST`, may come first
    #[arg(required = true)]
    words: Vec<String>,
    /// Print a JSON object a plug-in
    #[arg(long)]
    json: bool,
}

/// Make a page of the plug-ins in a folder: cards, search, downloads; it needs no server
#[derive(clap::Args)]
#[command(after_help = "Example:\n  melo plugin gallery tasks/ --out site/")]
pub(crate) struct GalleryArgs {
    /// Folder of plug-ins
    folder: PathBuf,
    /// Folder to write, whose `index.html` is the page
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run_push(args: &PushArgs) -> Result<(), Failure> {
    let readme =
        Readme { license: args.license.clone(), base_model: args.base_model.clone(), is_private: args.private };
    let pinned = push(&args.plugin, &args.reference, &readme)?;
    if args.json {
        let digest = PluginInfo::read(&args.plugin)?.digest;
        let reference = args.reference.to_string();
        return say_json(&json!({ "reference": reference, "pinned": pinned, "plugin_digest": digest }));
    }
    say(pinned);
    Ok(())
}

pub(super) fn run_pull(args: &PullArgs) -> Result<(), Failure> {
    check_output("--out", &args.out, &[])?;
    let cached = pull(&args.reference, true)?;
    if let Some(list) = &args.trusted_keys {
        check_signer(&cached, list).map_err(|failure| failure.on(&args.reference.to_string()))?;
    }
    let info = PluginInfo::read(&cached)?;
    let signature = copy(&beside(&cached), &beside(&args.out))?;
    copy(&cached, &args.out)?;
    if args.json {
        return say_json(&json!({
            "plugin": args.out.to_string_lossy(),
            "reference": args.reference.to_string(),
            "plugin_digest": info.digest,
            "signature": signature,
        }));
    }
    let signed = if signature { "signed" } else { "not signed" };
    say(format_args!(
        "{}: {}, {} bytes, {signed}, SHA-256 {}",
        args.out.display(),
        info.card.task,
        info.bytes,
        info.digest
    ));
    Ok(())
}

/// Copies a file where there is one; else nothing of an older one stays.
fn copy(from: &Path, to: &Path) -> Result<bool, Failure> {
    let failed = |path: &Path, error: std::io::Error| Failure::Message(format!("{}: {error}", path.display()));
    if from.is_file() {
        let bytes = std::fs::read(from).map_err(|error| failed(from, error))?;
        write_atomically(to, &bytes)?;
        return Ok(true);
    }
    match std::fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(to, error)),
        _ => Ok(false),
    }
}

pub(super) fn run_search(args: &SearchArgs) -> Result<(), Failure> {
    let found = match args.words[0].strip_prefix("oci://") {
        Some(host) => search_registry(host.trim_end_matches('/'), &args.words[1..].join(" "))?,
        None => search_hub(&args.words.join(" "))?,
    };
    for Found { reference, facts } in &found {
        if args.json {
            let facts = facts.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
            let all = std::iter::once(("reference".to_owned(), Value::from(reference.as_str()))).chain(facts);
            say_json(&Value::Object(all.collect()))?;
            continue;
        }
        let facts: Vec<String> = facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
        say(format_args!("{reference}  {}", facts.join("; ")));
    }
    if found.is_empty() {
        note("nothing found");
    }
    Ok(())
}

pub(super) fn run_gallery(args: &GalleryArgs) -> Result<(), Failure> {
    let gallery = write_gallery(&args.folder, &args.out)?;
    for (_, reason) in &gallery.passed_over {
        note(format_args!("note: left out: {reason}"));
    }
    say(format_args!("{}: {} plug-ins", gallery.index.display(), gallery.plugins));
    Ok(())
}
