//! `melo backbone`: what a checkpoint holds, whether it computes what it should, and a file of our own made of it.

use super::train::usage;
use crate::progress::grouped;
use crate::{Failure, machine, say, say_json};
use clap::ValueEnum;
use melo::interop::{ReadSettings, Statistics};
use melo::vit::{
    BackboneInfo, Engine, Head, ImageBatch, Layer, LayerError, PluginRef, Pool, Precision, Preprocess, Storage,
    TensorFile, VitConfig,
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What a path to weights may be, for the help of every verb that takes one.
const READS: &str = "Weights are read as they are, by content:\n  \
    safetensors, alone or in shards (model.safetensors.index.json), what torch.save writes (.pth, .pt, .bin),\n  \
    Google's .npz, a folder with one of these, or a file of `melo pretrain` and `melo backbone import`.\n\
    Beside them lies their JSON: timm's or Hugging Face's config.json (with preprocessor_config.json or\n\
    processor_config.json). Of several sets of weights in a file the one is taken that timm takes; --weights-key names another.\n\
    Families: ViT, DeiT (distilled too), DINO, DINOv2 (registers, giant), DINOv3, BEiT, EVA-02, MAE, CLIP and SigLIP vision\n\
    towers, and the encoders of pathology and radiology that are one of these; names of timm, Hugging Face (before and since\n\
    transformers 5), OpenAI, open_clip and Facebook.";

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Show a backbone's architecture, preprocessing and digest
    #[command(after_help = format!("{READS}\n\nExample:\n  melo backbone info deit_tiny_patch16_224.safetensors --json"))]
    Info {
        /// Weights, or their folder
        backbone: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write any checkpoint as one self-describing file, which needs no JSON beside it
    #[command(after_help = format!("{READS}\n\nExamples:\n  \
        melo backbone import facebook/dinov2-small/ --out dinov2_small.safetensors\n  \
        melo backbone import mae_pretrain_vit_base.pth --statistics imagenet --out mae_base.safetensors\n  \
        melo backbone import checkpoint.pth --weights-key student --out student.safetensors\n  \
        melo backbone import paige-ai/Virchow2/ --pool tokenavg --out virchow2.safetensors\n\n\
        The digest, and so the plug-ins that belong to it, is that of the original unless --f16 rounds it."))]
    Import {
        /// Weights, or their folder
        weights: PathBuf,
        /// File to write
        #[arg(long)]
        out: PathBuf,
        /// Pixel statistics that timm-named weights without a JSON beside them were trained with
        #[arg(long, value_enum)]
        statistics: Option<StatisticsArg>,
        /// Which of several sets of weights in the file: a key such as state_dict_ema or teacher, or what its names begin with
        #[arg(long, value_name = "KEY")]
        weights_key: Option<String>,
        /// What heads are to read, where the weights' authors take another feature than their file says: Virchow's tokenavg
        #[arg(long, value_enum)]
        pool: Option<PoolArg>,
        /// Store 16-bit floats: half the bytes, another digest
        #[arg(long)]
        f16: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Hold a backbone to its digest, or to the logits that another software computed
    #[command(after_help = "Examples:\n  \
        melo backbone verify vit.safetensors --digest 3f6c…\n  \
        melo backbone verify dinov2/ --against expected.safetensors\n  \
        melo backbone verify dinov2/ --precision int8\n\n\
        expected.safetensors holds `pixels` [n, 3, s, s], normalised, and `logits` [n, c] of the checkpoint's own classifier,\n\
        or its features [n, d] where it has none. Exit status 1 where they differ by more than 1e-4 of the largest.")]
    Verify {
        /// Weights, or their folder
        backbone: PathBuf,
        /// Digest that it must have, or its first digits (8 at least)
        #[arg(long)]
        digest: Option<String>,
        /// Pixels and logits of another software
        #[arg(long)]
        against: Option<PathBuf>,
        /// Tell what 8-bit integers do to each layer, and which therefore stay out of them
        #[arg(long, value_parser = ["int8"])]
        precision: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Statistics by the names under which timm keeps them.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StatisticsArg {
    /// DeiT, DINO, DINOv2, MAE: mean 0.485 0.456 0.406, standard deviation 0.229 0.224 0.225
    Imagenet,
    /// Google's ViTs, augreg: 0.5 and 0.5
    Inception,
    /// CLIP: mean 0.4815 0.4578 0.4082, standard deviation 0.2686 0.2613 0.2758
    Clip,
}

impl From<StatisticsArg> for Statistics {
    fn from(statistics: StatisticsArg) -> Statistics {
        match statistics {
            StatisticsArg::Imagenet => Statistics::Imagenet,
            StatisticsArg::Inception => Statistics::Inception,
            StatisticsArg::Clip => Statistics::Clip,
        }
    }
}

/// What heads read of the tokens.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PoolArg {
    /// The class token
    Token,
    /// The mean of the patch tokens
    Avg,
    /// Both side by side
    Tokenavg,
}

impl From<PoolArg> for Pool {
    fn from(pool: PoolArg) -> Pool {
        match pool {
            PoolArg::Token => Pool::Token,
            PoolArg::Avg => Pool::Avg,
            PoolArg::Tokenavg => Pool::TokenAvg,
        }
    }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    relative_difference: Option<f32>,
}

impl<'a> Fields<'a> {
    fn of(path: &'a Path, backbone: &'a BackboneInfo) -> Self {
        Fields {
            backbone: path,
            name: backbone.name(),
            parameters: backbone.config().parameters(),
            config: backbone.config(),
            preprocess: backbone.preprocess(),
            classifier_classes: backbone.classifier().map(Head::rows),
            backbone_digest: backbone.digest(),
            isa: machine::device(None).info().device,
            relative_difference: None,
        }
    }
}

pub(crate) fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Info { backbone, json } => info(backbone, *json),
        Verb::Import { weights, out, statistics, weights_key, pool, f16, json } => {
            let settings = ReadSettings {
                statistics: statistics.map(Into::into),
                weights_key: weights_key.clone(),
                pool: pool.map(Into::into),
            };
            let checkpoint = machine::read_checkpoint(weights, &settings)?;
            checkpoint.write(out, if *f16 { Storage::F16 } else { Storage::F32 })?;
            info(out, *json)
        }
        Verb::Verify { backbone, digest, against, precision, json } => {
            if digest.is_none() && against.is_none() && precision.is_none() {
                return Err(usage("nothing to verify: name --digest, --against, --precision int8 or several"));
            }
            verify(backbone, digest.as_deref(), against.as_deref(), precision.is_some(), *json)
        }
    }
}

fn info(path: &Path, json: bool) -> Result<(), Failure> {
    let backbone = machine::read_checkpoint(path, &ReadSettings::default())?.freeze();
    let backbone = backbone.info();
    if json {
        return say_json(&Fields::of(path, backbone));
    }
    let (config, preprocess) = (backbone.config(), backbone.preprocess());
    let classes = backbone.classifier().map(Head::rows);
    say(format!(
        "name        {}\n\
         shape       {} blocks, width {}, {} heads, MLP {}, patches of {} px\n\
         parameters  {} without a classifier\n\
         input       {preprocess}; positions for {} px\n\
         details     eps {:e}, {}, pooling {:?}{}\n\
         classifier  {}\n\
         computes on {}\n\
         digest      {}",
        backbone.name(),
        config.depth,
        config.width,
        config.heads,
        config.mlp_hidden,
        config.patch,
        grouped(config.parameters()),
        config.image_size,
        config.eps,
        if config.swiglu { "SwiGLU".to_owned() } else { format!("GELU {:?}", config.activation) },
        config.pool,
        details(config),
        classes.map_or("none".to_owned(), |c| format!("{c} classes")),
        machine::device(None).info().device,
        backbone.digest(),
    ));
    Ok(())
}

/// What sets a backbone apart from a plain ViT.
fn details(config: &VitConfig) -> String {
    let registers = format!(", {} registers", config.registers);
    let said = [
        (config.pre_norm, ", norm before the blocks"),
        (config.distilled, ", distillation token"),
        (config.registers > 0, registers.as_str()),
        (config.layer_scale, ", layer scale"),
        (config.qk_norm, ", query and key norms"),
        (!config.class_token, ", no class token"),
        (!config.pos_embed, ", no position embedding"),
        (config.rotary.is_some(), ", rotary positions"),
        (config.relative_positions, ", relative positions"),
        (config.attn_norm, ", norm in attention"),
        (config.mlp_norm, ", norm in the MLP"),
    ];
    said.into_iter().filter_map(|(holds, words)| holds.then_some(words)).collect()
}

/// Far above what another order of f32 sums does, far below what one wrong constant would.
const RELATIVE: f32 = 1e-4;

fn verify(
    path: &Path,
    digest: Option<&str>,
    against: Option<&Path>,
    integers: bool,
    json: bool,
) -> Result<(), Failure> {
    if let Some(short) = digest.filter(|digest| digest.len() < 8) {
        return Err(usage(format!("--digest {short}: at least 8 digits, or it proves little")));
    }
    let read = || Ok::<_, Failure>(machine::read_checkpoint(path, &ReadSettings::default())?.freeze());
    let checkpoint = read()?;
    let backbone = checkpoint.info().clone();
    let wrong = |what: String| Err(Failure::Message(format!("{}: {what}", path.display())));
    if let Some(digest) = digest.filter(|digest| !backbone.digest().starts_with(&digest.to_ascii_lowercase())) {
        return wrong(format!("its digest is {}, expected {digest}", backbone.digest()));
    }
    let relative_difference =
        against.map(|file| difference(&*machine::device(Some(Precision::F32)).load(checkpoint)?, file)).transpose()?;
    if let Some(difference) = relative_difference.filter(|difference| difference.is_nan() || *difference > RELATIVE) {
        return wrong(format!("logits differ by {difference:.1e} of the largest, more than {RELATIVE:.0e}"));
    }
    let layers = match integers {
        true => machine::device(Some(Precision::Int8)).load(read()?)?.layer_errors().to_vec(),
        false => Vec::new(),
    };
    if json {
        let int8 = layers.iter().map(Int8Layer::from).collect();
        return say_json(&Verified { fields: Fields { relative_difference, ..Fields::of(path, &backbone) }, int8 });
    }
    say(format!("digest      {}", backbone.digest()));
    if let Some(difference) = relative_difference {
        say(format!("difference  {difference:.1e} of the largest logit"));
    }
    say_layers(&layers);
    Ok(())
}

/// A table of blocks and layers, and which of them integers change too much.
fn say_layers(layers: &[LayerError]) {
    if layers.is_empty() {
        return;
    }
    say("int8        error of each layer, in parts of the length of what it gives".to_owned());
    say(format!("            block {}", Layer::ALL.map(|layer| format!("{:>7}", layer.to_string())).join(" ")));
    for block in layers.chunk_by(|a, b| a.block == b.block) {
        let errors: Vec<_> = block
            .iter()
            .map(|layer| format!("{:>6.4}{}", layer.error, if layer.integers { " " } else { "*" }))
            .collect();
        say(format!("            {:>5} {}", block[0].block, errors.join(" ")));
    }
    let left_out = layers.iter().filter(|layer| !layer.integers).count();
    say(match left_out {
        0 => "            every layer is computed in 8-bit integers".to_owned(),
        n => format!("            * too far: {n} of {} layers stay in {}", layers.len(), Precision::beside_int8()),
    });
}

/// What `verify` prints as JSON.
#[derive(Serialize)]
struct Verified<'a> {
    #[serde(flatten)]
    fields: Fields<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    int8: Vec<Int8Layer>,
}

/// A layer in 8-bit integers.
#[derive(Serialize)]
struct Int8Layer {
    block: usize,
    layer: String,
    error: f32,
    integers: bool,
}

impl From<&LayerError> for Int8Layer {
    fn from(&LayerError { block, layer, error, integers }: &LayerError) -> Self {
        Int8Layer { block, layer: layer.to_string(), error, integers }
    }
}

/// Largest difference from the logits in a file, in units of the largest of them.
fn difference(engine: &dyn Engine, file: &Path) -> Result<f32, Failure> {
    let wrong = |what: String| Failure::Message(format!("{}: {what}", file.display()));
    let expected = TensorFile::open(file)?;
    let shapes = expected.shapes()?;
    let shape = |name: &str| shapes.get(name).ok_or_else(|| wrong(format!("tensor `{name}` is missing")));
    let (&[n, 3, size, width], &[rows, classes]) = (shape("pixels")?.as_slice(), shape("logits")?.as_slice()) else {
        return Err(wrong("expected `pixels` [n, 3, s, s] and `logits` [n, c]".into()));
    };
    let backbone = engine.backbone();
    let head = match backbone.classifier() {
        Some(head) => head.clone(),
        None => identity(backbone.config().feature_width()),
    };
    if (rows, size, classes) != (n, width, head.rows()) {
        let found = head.rows();
        return Err(wrong(format!(
            "[{n}, 3, {size}, {width}] and [{rows}, {classes}], but the checkpoint gives {found} values"
        )));
    }
    let batch = ImageBatch { size, data: expected.read("pixels", shape("pixels")?)? };
    let logits = expected.read("logits", shape("logits")?)?;
    let found = engine.logits(&batch, n, size, PluginRef { adapter: None, head: &head })?;
    let largest = logits.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    Ok(found.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0f32, |worst, d| if d <= worst { worst } else { d })
        / largest)
}

/// The head that gives the feature itself.
fn identity(width: usize) -> Head {
    let mut head = Head::zeros(width, width);
    head.weight.iter_mut().step_by(width + 1).for_each(|w| *w = 1.0);
    head
}
