//! A folder that Hugging Face's `AutoModelForImageClassification` and `AutoImageProcessor` read.

use super::left_behind;
use super::timm::shortest;
use crate::classifier;
use crate::error::Error;
use crate::folder::{write_folder, write_json};
use crate::layout::{Layout, hugging_face_name, two_classifiers};
use crate::names::{HF_VIT, Part, Place};
use melo_vit::{
    Activation, Checkpoint, CropMode, Interpolation, NamedTensor, Plugin, Pool, Preprocess, Storage, TaskKind,
    VitConfig, write_tensors,
};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Writes a merged checkpoint as a folder of Hugging Face's, atomically: ViT, or DeiT for a distilled backbone. Returns what the
/// folder cannot say, a sentence each.
///
/// # Errors
/// [`Error::NotHuggingFace`] that names what Hugging Face's ViT does not have, [`Error::Occupied`], [`melo_vit::Error::Io`].
pub fn write_hugging_face(path: &Path, merged: &Checkpoint, plugin: &Plugin) -> Result<Vec<String>, Error> {
    let config = &merged.config;
    check(config, &merged.preprocess)?;
    let head = merged.classifier.as_ref().map(|head| classifier::tensors(head, Layout::HuggingFace, config));
    let head = head.unwrap_or_default();
    let mut tensors = Vec::new();
    for ((name, shape), values) in config.tensor_shapes().into_iter().zip(merged.weights.tensors()) {
        tensors.extend(renamed(&name, &shape, values, config)?);
    }
    tensors.extend(head.iter().map(|(n, s, t)| (n.clone(), s.clone(), t.as_slice())));
    write_folder(path, |folder| {
        write_json(&folder.join("config.json"), &description(merged, plugin))?;
        write_json(&folder.join("preprocessor_config.json"), &processor(&merged.preprocess))?;
        write_json(&folder.join(crate::peft::CARD), &crate::peft::card(plugin))?;
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        Ok(write_tensors(&folder.join("model.safetensors"), &tensors, metadata, Storage::F32)?)
    })?;
    Ok(left_behind(plugin))
}

fn unwritable(what: &str) -> Error {
    Error::NotHuggingFace { what: what.to_owned() }
}

/// What Hugging Face's ViT and DeiT have, and others do not.
fn check(config: &VitConfig, preprocess: &Preprocess) -> Result<(), Error> {
    let missing = [
        (config.pool == Pool::Map, "attention pooling"),
        (config.pool != Pool::Token, "a feature that is the mean of the tokens"),
        (config.qk_norm, "query and key normalisation"),
        (config.layer_scale, "layer scale"),
        (config.registers > 0, "register tokens"),
        (config.swiglu, "a SwiGLU"),
        (config.pre_norm, "a LayerNorm before the blocks (`norm_pre`)"),
        (!config.norm, "`fc_norm` in place of the last LayerNorm"),
        (!config.pos_embed_prefix, "a class token without a position"),
        (!config.patch_bias, "a patch projection without a bias"),
        (preprocess.crop_mode == CropMode::Border, "the crop mode `border` in preprocessor_config.json"),
    ];
    let missing = missing.iter().find(|(is, _)| *is).map(|(_, what)| *what);
    super::timm::other_positions(config).or(missing).map_or(Ok(()), |what| Err(unwritable(what)))
}

/// A tensor of timm's under Hugging Face's name, or its shares under theirs.
fn renamed<'a>(
    name: &str,
    shape: &[usize],
    values: &'a [f32],
    config: &VitConfig,
) -> Result<Vec<NamedTensor<'a>>, Error> {
    let parts: &[Part] = if name.contains(".attn.qkv.") { &[Part::Q, Part::K, Part::V] } else { &[Part::Whole] };
    let named = |&part: &Part| {
        let place = Place { name: name.to_owned(), part };
        let name = HF_VIT.name_of(&place).ok_or_else(|| unwritable(&format!("tensor `{name}`")))?;
        let (index, count) = part.share();
        let mut shape = shape.to_vec();
        if let Some(rows) = shape.first_mut() {
            *rows /= count;
        }
        let len = values.len() / count;
        Ok((hugging_face_name(&name, config), shape, &values[index * len..(index + 1) * len]))
    };
    parts.iter().map(named).collect()
}

fn description(merged: &Checkpoint, plugin: &Plugin) -> Value {
    let (config, card) = (&merged.config, &plugin.card);
    let (kind, model) = match (config.distilled, two_classifiers(config)) {
        (false, _) => ("vit", "ViTForImageClassification"),
        (true, true) => ("deit", "DeiTForImageClassificationWithTeacher"),
        (true, false) => ("deit", "DeiTForImageClassification"),
    };
    let labels: Map<String, Value> =
        card.classes.iter().enumerate().map(|(i, class)| (i.to_string(), json!(class))).collect();
    let indices: Map<String, Value> =
        card.classes.iter().enumerate().map(|(i, class)| (class.clone(), json!(i))).collect();
    json!({
        "architectures": [model],
        "model_type": kind,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_hidden,
        "hidden_act": match config.activation {
            Activation::Erf => "gelu",
            Activation::Tanh => "gelu_pytorch_tanh",
            Activation::Quick => "quick_gelu",
        },
        "layer_norm_eps": shortest(config.eps),
        "qkv_bias": config.qkv_bias,
        "image_size": config.image_size,
        "patch_size": config.patch,
        "num_channels": 3,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "id2label": labels,
        "label2id": indices,
        "problem_type": match card.kind {
            TaskKind::SingleLabel | TaskKind::Ordinal => "single_label_classification",
            TaskKind::Regression => "regression",
            TaskKind::Segmentation => unreachable!("plug-ins that give masks are not merged"),
            TaskKind::MultiLabel => "multi_label_classification",
        },
        "dtype": "float32",
        "torch_dtype": "float32",
    })
}

/// `preprocessor_config.json`: DINOv2's and BiT's processor resizes the shorter side and crops, DeiT's squashes and crops.
fn processor(preprocess: &Preprocess) -> Value {
    let (size, side) = (preprocess.size, preprocess.resize_side());
    let (kind, resize) = match preprocess.crop_mode {
        CropMode::Squash => ("DeiTImageProcessor", json!({ "height": side, "width": side })),
        CropMode::Center | CropMode::Border => ("BitImageProcessor", json!({ "shortest_edge": side })),
    };
    json!({
        "image_processor_type": kind,
        "do_convert_rgb": true,
        "do_resize": true,
        "size": resize,
        // Pillow's numbers of its filters.
        "resample": match preprocess.interpolation {
            Interpolation::Bilinear => 2,
            Interpolation::Bicubic => 3,
        },
        "do_center_crop": true,
        "crop_size": { "height": size, "width": size },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": preprocess.mean.map(shortest),
        "image_std": preprocess.std.map(shortest),
    })
}
