//! A checkpoint that timm reads: tensors in its names, and its `config.json`.

use super::left_behind;
use crate::classifier;
use crate::error::Error;
use crate::folder::{write_folder, write_json};
use crate::layout::Layout;
use melo_vit::{
    Activation, Checkpoint, CropMode, Interpolation, NamedTensor, Plugin, Pool, Storage, VitConfig, write_tensors,
};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Writes a merged checkpoint in timm's names: a file that ends in `.safetensors` with its JSON beside it, or a folder with
/// `model.safetensors` and `config.json` (timm's `local-dir:`). Returns what timm cannot be told, a sentence each.
///
/// # Errors
/// [`Error::Unwritable`] for an architecture that timm cannot build, [`Error::Occupied`], [`melo_vit::Error::Io`].
pub fn write_timm(path: &Path, merged: &Checkpoint, plugin: &Plugin) -> Result<Vec<String>, Error> {
    let refuse = |what: &str| Err(Error::Unwritable { format: "timm's VisionTransformer", what: what.to_owned() });
    if let Some(what) = other_positions(&merged.config) {
        return refuse(what);
    }
    let merged = &without_class_position(merged);
    let config = &merged.config;
    if config.pool == Pool::TokenAvg {
        return refuse("a feature of the class token beside the mean of the others");
    }
    if config.registers > 0 && config.distilled {
        return refuse("registers beside a distillation token");
    }
    if config.patch_bias == config.pre_norm {
        return refuse("a patch projection that has a bias beside `norm_pre`, or none without it");
    }
    let mut notes = left_behind(plugin);
    if config.eps != usual_eps(config) {
        notes.push(format!(
            "LayerNorm's epsilon is {:e}, which timm's JSON cannot say: build the model with \
             norm_layer=functools.partial(torch.nn.LayerNorm, eps={:e}) in place of `norm_eps`",
            config.eps, config.eps
        ));
    }
    let head = plugin_head(merged);
    let shapes = config.tensor_shapes();
    let mut tensors: Vec<NamedTensor<'_>> =
        shapes.into_iter().zip(merged.weights.tensors()).map(|((n, s), t)| (n, s, t.as_slice())).collect();
    tensors.extend(head.iter().map(|(n, s, t)| (n.clone(), s.clone(), t.as_slice())));
    let description = description(merged, plugin);
    let metadata = || HashMap::from([("format".to_owned(), "pt".to_owned())]);
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        write_tensors(path, &tensors, metadata(), Storage::F32)?;
        write_json(&path.with_extension("json"), &description)?;
        return Ok(notes);
    }
    write_folder(path, |folder| {
        write_json(&folder.join("config.json"), &description)?;
        write_json(&folder.join(crate::peft::CARD), &crate::peft::card(plugin))?;
        Ok(write_tensors(&folder.join("model.safetensors"), &tensors, metadata(), Storage::F32)?)
    })?;
    Ok(notes)
}

/// What of an architecture only timm's `Eva` and `Beit` have.
pub(super) fn other_positions(config: &VitConfig) -> Option<&'static str> {
    let parts = [
        (config.rotary.is_some(), "rotary positions"),
        (config.relative_positions, "relative positions"),
        (!config.pos_embed, "tokens without a position embedding"),
        (config.attn_norm, "a norm inside of attention"),
        (config.mlp_norm, "a norm inside of the MLP"),
    ];
    parts.into_iter().find(|(is, _)| *is).map(|(_, what)| what)
}

/// Beside registers, timm's class token has no position of its own: added to the token, it is the same.
fn without_class_position(merged: &Checkpoint) -> Checkpoint {
    let mut merged = merged.clone();
    let VitConfig { registers, pos_embed_prefix, register_positions, distilled, class_token, .. } = merged.config;
    if registers > 0 && pos_embed_prefix && !register_positions && !distilled && class_token {
        let patches = merged.weights.pos_embed.split_off(merged.config.width);
        let position = std::mem::replace(&mut merged.weights.pos_embed, patches);
        merged.weights.cls_token.iter_mut().zip(position).for_each(|(token, position)| *token += position);
        merged.config.pos_embed_prefix = false;
    }
    merged
}

fn plugin_head(merged: &Checkpoint) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let tensors = merged.classifier.as_ref().map(|head| classifier::tensors(head, Layout::Timm, &merged.config));
    tensors.unwrap_or_default()
}

/// `config.json`: `model_args` say every dimension, so that they hold whatever the named architecture has.
fn description(merged: &Checkpoint, plugin: &Plugin) -> Value {
    let Checkpoint { config, preprocess, .. } = merged;
    let [mean, std] = [preprocess.mean, preprocess.std].map(|values| values.map(shortest));
    let size = preprocess.size;
    let head: Value = match crate::layout::two_classifiers(config) {
        true => json!(["head", "head_dist"]),
        false => json!("head"),
    };
    json!({
        "architecture": architecture(&merged.name, config),
        "num_classes": plugin.card.classes.len(),
        "num_features": config.width,
        "global_pool": pool(config),
        "label_names": plugin.card.classes,
        "model_args": model_args(config),
        "pretrained_cfg": {
            "num_classes": plugin.card.classes.len(),
            "input_size": [3, size, size],
            "fixed_input_size": true,
            "pool_size": null,
            "crop_pct": preprocess.crop_pct,
            "crop_mode": match preprocess.crop_mode {
                CropMode::Center => "center",
                CropMode::Squash => "squash",
                CropMode::Border => "border",
            },
            "interpolation": match preprocess.interpolation {
                Interpolation::Bilinear => "bilinear",
                Interpolation::Bicubic => "bicubic",
            },
            "mean": mean,
            "std": std,
            "first_conv": "patch_embed.proj",
            "classifier": head,
        },
    })
}

/// The f64 with the fewest digits that is this f32: 0.485 and not 0.48500001430511475.
pub(super) fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

fn pool(config: &VitConfig) -> &'static str {
    match config.pool {
        Pool::Token => "token",
        Pool::Avg | Pool::TokenAvg => "avg",
        Pool::Map => "map",
    }
}

/// The backbone's own name where it names a ViT of timm's of this patch size, else one of the same kind.
fn architecture(name: &str, config: &VitConfig) -> String {
    let plain = name.split('.').next().unwrap_or(name);
    let patch = format!("_patch{}_", config.patch);
    let known = ["vit_", "deit_", "deit3_"].iter().any(|family| plain.starts_with(family)) && plain.contains(&patch);
    // SwiGLU is the architecture's alone to say.
    let kind = if config.swiglu {
        "vit_giant_patch14_dinov2"
    } else if config.pre_norm {
        "vit_base_patch16_clip_224"
    } else if config.distilled {
        "deit_base_distilled_patch16_224"
    } else {
        "vit_base_patch16_224"
    };
    let same = ["clip", "distilled", "giant"].iter().all(|word| plain.contains(word) == kind.contains(word));
    if known && same { plain.to_owned() } else { kind.to_owned() }
}

/// The epsilon of timm's architectures: CLIP's, which have `norm_pre`, use PyTorch's own.
fn usual_eps(config: &VitConfig) -> f32 {
    if config.pre_norm { 1e-5 } else { 1e-6 }
}

fn model_args(config: &VitConfig) -> Map<String, Value> {
    let mut arguments = Map::new();
    let mut say = |name: &str, value: Value| arguments.insert(name.to_owned(), value);
    say("img_size", json!(config.image_size));
    say("patch_size", json!(config.patch));
    say("embed_dim", json!(config.width));
    say("depth", json!(config.depth));
    say("num_heads", json!(config.heads));
    say("mlp_ratio", json!(mlp_ratio(config)));
    say("qkv_bias", json!(config.qkv_bias));
    say("pre_norm", json!(config.pre_norm));
    say("no_embed_class", json!(!config.pos_embed_prefix));
    say("global_pool", json!(pool(config)));
    say("fc_norm", json!(config.fc_norm));
    if !config.class_token {
        say("class_token", json!(false));
    }
    if config.qk_norm {
        say("qk_norm", json!(true));
    }
    if config.layer_scale {
        // What it starts at in a training; the checkpoint has it as it is.
        say("init_values", json!(1e-5));
    }
    if config.registers > 0 {
        say("reg_tokens", json!(config.registers));
    }
    match config.activation {
        Activation::Erf => {}
        Activation::Tanh => drop(say("act_layer", json!("gelu_tanh"))),
        Activation::Quick => drop(say("act_layer", json!("quick_gelu"))),
    }
    if config.eps != usual_eps(config) {
        say("norm_eps", json!(shortest(config.eps)));
    }
    arguments
}

/// A ratio whose product with the width, rounded down as timm does, is the hidden width.
fn mlp_ratio(config: &VitConfig) -> f64 {
    let ratio = config.fc1_out() as f64 / config.width as f64;
    let hidden = |ratio: f64| (config.width as f64 * ratio) as usize;
    if hidden(ratio) == config.fc1_out() { ratio } else { ratio.next_up() }
}
