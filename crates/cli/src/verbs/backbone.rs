//! `melo backbone`: what a checkpoint holds.

use crate::{Failure, say, say_json};
use melo_vit::{Backbone, Preprocess, VitConfig};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Show a backbone's architecture, preprocessing and digest
    #[command(after_help = "Example:\n  melo backbone info deit_tiny_patch16_224.safetensors --json")]
    Info {
        /// Weights: timm safetensors with their JSON beside them, or a file of `melo pretrain`
        backbone: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// The object of `--json`; the contract is `docs/json.md`.
#[derive(Serialize)]
struct Fields<'a> {
    #[serde(serialize_with = "crate::json_path")]
    backbone: &'a Path,
    name: &'a str,
    parameters: usize,
    config: &'a VitConfig,
    preprocess: &'a Preprocess,
    classifier_classes: Option<usize>,
    backbone_digest: &'a str,
    isa: String,
}

pub(crate) fn run(verb: &Verb) -> Result<(), Failure> {
    let Verb::Info { backbone: path, json } = verb;
    let backbone = Backbone::load(path)?;
    let classes = backbone.classifier.as_ref().map(|head| head.classes());
    let parameters = backbone.config.parameters();
    if *json {
        return say_json(&Fields {
            backbone: path,
            name: &backbone.name,
            parameters,
            config: &backbone.config,
            preprocess: &backbone.preprocess,
            classifier_classes: classes,
            backbone_digest: backbone.digest(),
            isa: backbone.isa().to_string(),
        });
    }
    let config = &backbone.config;
    let preprocess = &backbone.preprocess;
    say(format!(
        "name        {}\n\
         shape       {} blocks, width {}, {} heads, MLP {}, patches of {} px\n\
         parameters  {parameters} without a classifier\n\
         input       {preprocess}; positions for {} px\n\
         details     eps {:e}, GELU {:?}, pooling {:?}{}{}\n\
         classifier  {}\n\
         computes on {}\n\
         digest      {}",
        backbone.name,
        config.depth,
        config.width,
        config.heads,
        config.mlp_hidden,
        config.patch,
        config.image_size,
        config.eps,
        config.activation,
        config.pool,
        if config.pre_norm { ", norm before the blocks" } else { "" },
        if config.distilled { ", distillation token" } else { "" },
        classes.map_or("none".to_owned(), |c| format!("{c} classes")),
        backbone.isa(),
        backbone.digest(),
    ));
    Ok(())
}
