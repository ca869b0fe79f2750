//! Architecture of a Hugging Face model, from its `config.json`.
//!
//! Meanings and defaults as in transformers 5.24. Every field is read, known to change no feature, or refused by its name.

use crate::names::{Dialect, HF_BEIT, HF_CLIP, HF_DINOV2, HF_DINOV3, HF_SIGLIP, HF_VIT};
use crate::processor;
use melo_vit::{Activation, Description, Error, Fields, Invalid, Pool, PositionFilter, Rotary, VitConfig, parse_json};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Fields that are read.
const READ: [&str; 34] = [
    "model_type",
    "_name_or_path",
    "name_or_path",
    "vision_config",
    "vision_config_dict",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "mlp_ratio",
    "patch_size",
    "image_size",
    "num_channels",
    "hidden_act",
    "layer_norm_eps",
    "qkv_bias",
    "num_register_tokens",
    "use_swiglu_ffn",
    "problem_type",
    "is_decoder",
    "is_encoder_decoder",
    "pruned_heads",
    "vision_use_head",
    "rope_theta",
    "query_bias",
    "key_bias",
    "value_bias",
    "proj_bias",
    "mlp_bias",
    "use_gated_mlp",
    "use_absolute_position_embeddings",
    "use_relative_position_bias",
    "use_shared_relative_position_bias",
    "use_mean_pooling",
];

/// Fields on which no feature of an image depends: words, training's noise, first values, other heads and other halves.
const FREE: [&str; 82] = [
    "architectures",
    "auto_map",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "use_bfloat16",
    "output_hidden_states",
    "output_attentions",
    "return_dict",
    "use_return_dict",
    "chunk_size_feed_forward",
    "id2label",
    "label2id",
    "num_labels",
    "finetuning_task",
    "task_specific_params",
    "tokenizer_class",
    "prefix",
    "_commit_hash",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "torchscript",
    "tie_word_embeddings",
    "tie_encoder_decoder",
    "tie_last_hidden_states",
    "tf_legacy_loss",
    "add_cross_attention",
    "cross_attention_hidden_size",
    "vocab_size",
    "bos_token_id",
    "pad_token_id",
    "eos_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "initializer_range",
    "initializer_factor",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "attention_dropout",
    "dropout",
    "drop_path_rate",
    "layerscale_value",
    "encoder_stride",
    "pooler_act",
    "pooler_output_size",
    "decoder_num_attention_heads",
    "decoder_hidden_size",
    "decoder_num_hidden_layers",
    "decoder_intermediate_size",
    "mask_ratio",
    "norm_pix_loss",
    "projection_dim",
    "logit_scale_init_value",
    "text_config",
    "text_config_dict",
    "apply_layernorm",
    "reshape_hidden_states",
    "use_mask_token",
    "stage_names",
    "out_features",
    "out_indices",
    "_out_features",
    "_out_indices",
    "gradient_checkpointing",
    "metadata",
    "model_card",
    "pos_embed_shift",
    "pos_embed_jitter",
    "pos_embed_rescale",
    "layer_scale_init_value",
    "return_class_token",
    "add_fpn",
    "pool_scales",
    "use_auxiliary_head",
    "auxiliary_loss_weight",
    "auxiliary_channels",
    "auxiliary_num_convs",
    "auxiliary_concat_input",
    "semantic_loss_ignore_index",
    "segmentation_indices",
    "out_channels",
];

/// Settings of text generation that older versions left in every file.
const GENERATION: [&str; 34] = [
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "suppress_tokens",
    "target_lookbehind",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "use_cache",
];

/// Models whose configuration is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    Vit,
    VitMsn,
    Dinov2,
    Dinov2Registers,
    Dinov3,
    Beit,
    Clip,
    Siglip,
}

/// Sizes that the classes of transformers assume where a `config.json` leaves them out.
struct Defaults {
    patch: usize,
    eps: f64,
    activation: &'static str,
    registers: usize,
}

impl Model {
    fn of(model_type: &str) -> Option<Model> {
        Some(match model_type {
            "vit" | "deit" | "vit_mae" => Model::Vit,
            "vit_msn" => Model::VitMsn,
            "dinov2" => Model::Dinov2,
            "dinov2_with_registers" => Model::Dinov2Registers,
            "dinov3_vit" => Model::Dinov3,
            "beit" | "data2vec-vision" => Model::Beit,
            "clip" | "clip_vision_model" => Model::Clip,
            "siglip" | "siglip_vision_model" => Model::Siglip,
            _ => return None,
        })
    }

    fn defaults(self) -> Defaults {
        let (patch, eps, activation, registers) = match self {
            Model::Vit => (16, 1e-12, "gelu", 0),
            Model::VitMsn => (16, 1e-6, "gelu", 0),
            Model::Dinov2 => (14, 1e-6, "gelu", 0),
            Model::Dinov2Registers => (16, 1e-6, "gelu", 4),
            Model::Dinov3 => (16, 1e-5, "gelu", 0),
            Model::Beit => (16, 1e-12, "gelu", 0),
            Model::Clip => (32, 1e-5, "quick_gelu", 0),
            Model::Siglip => (16, 1e-6, "gelu_pytorch_tanh", 0),
        };
        Defaults { patch, eps, activation, registers }
    }

    fn is_dinov2(self) -> bool {
        matches!(self, Model::Dinov2 | Model::Dinov2Registers)
    }
}

/// `config.json` of a model.
#[derive(Debug)]
pub(crate) struct ModelConfig {
    json: Value,
    model_type: String,
    model: Model,
}

/// JSON of a file, also where a byte order mark stands in front of it.
///
/// # Errors
/// [`Error::Io`], [`Error::Config`].
pub(crate) fn read_json(path: &Path) -> Result<Value, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    parse_json(&text).map_err(|error| Error::Config { path: path.to_owned(), reason: error.to_string() })
}

impl ModelConfig {
    /// The configuration in a JSON object.
    ///
    /// # Errors
    /// [`Invalid`] for a model or a field that is not supported, by its name.
    pub(crate) fn new(json: Value) -> Result<Self, Invalid> {
        let fields = Fields::of("", &json)?;
        let model_type = fields.text("model_type")?.unwrap_or_default().to_owned();
        let model = Model::of(&model_type).ok_or_else(|| {
            let known = "vit, deit, vit_mae, vit_msn, dinov2, dinov2_with_registers, dinov3_vit, beit, data2vec-vision, clip, \
                         clip_vision_model, siglip, siglip_vision_model";
            Invalid::new("model_type", format!("model_type `{model_type}` is not supported ({known})"))
        })?;
        check_fields(fields)?;
        // A whole CLIP or SigLIP: the tower's own settings, of which the older name counts.
        let tower = fields.get("vision_config_dict").or(fields.get("vision_config"));
        let mut tower = tower.filter(|_| matches!(&model_type[..], "clip" | "siglip")).cloned();
        if let Some(tower) = &mut tower {
            check_fields(Fields::of("vision_config.", tower)?)?;
            let own = |name: &str| fields.get(name).cloned().unwrap_or_default();
            tower["name_or_path"] = own("_name_or_path");
            for name in ["problem_type", "id2label", "num_labels"] {
                tower[name] = own(name);
            }
        }
        Ok(ModelConfig { json: tower.unwrap_or(json), model_type, model })
    }

    /// The dialect of its tensors.
    pub(crate) fn dialect(&self) -> &'static Dialect {
        match self.model {
            Model::Vit | Model::VitMsn => &HF_VIT,
            Model::Dinov2 | Model::Dinov2Registers => &HF_DINOV2,
            Model::Dinov3 => &HF_DINOV3,
            Model::Beit => &HF_BEIT,
            Model::Clip => &HF_CLIP,
            Model::Siglip => &HF_SIGLIP,
        }
    }

    /// Classes by `id2label` or `num_labels`, where they are said; of a projection into a space with texts, its width.
    ///
    /// # Errors
    /// [`Invalid`] for what is no number of classes.
    pub(crate) fn classes(&self, is_projection: bool) -> Result<Option<(&'static str, usize)>, Invalid> {
        let fields = Fields::of("", &self.json)?;
        if is_projection {
            return Ok(fields.count("projection_dim")?.map(|width| ("projection_dim", width)));
        }
        let labels = fields.get("id2label").and_then(Value::as_object).map(|labels| ("id2label", labels.len()));
        Ok(match fields.count("num_labels")? {
            Some(count) => Some(("num_labels", count)),
            None => labels,
        })
    }

    /// What the classifier answers, where that is no choice of one class.
    pub(crate) fn other_problem(&self) -> Option<&str> {
        let problem = self.json.get("problem_type").and_then(Value::as_str);
        problem.filter(|problem| *problem != "single_label_classification")
    }

    /// Everything about the model, given its tensors' shapes under timm's names and whether it has a classifier.
    ///
    /// # Errors
    /// [`Error::Config`] that names the file and the field.
    pub(crate) fn describe(
        &self,
        config_path: &Path,
        shapes: &BTreeMap<String, Vec<usize>>,
        classifies: bool,
    ) -> Result<Description, Error> {
        let wrong = |error: Invalid| Error::Config { path: config_path.to_owned(), reason: error.named() };
        let folder = melo_vit::folder_of(config_path);
        let said = ["_name_or_path", "name_or_path"].map(|name| self.json.get(name).and_then(Value::as_str));
        let name = said.into_iter().flatten().find(|name| !name.is_empty()).map(str::to_owned);
        let name = name.unwrap_or_else(|| {
            config_path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned()
        });
        let config = self.vit(shapes, classifies).map_err(wrong)?;
        let preprocess = processor::read(folder, &self.model_type)?;
        let description = Description { name, config, preprocess };
        description.check().map_err(wrong)?;
        Ok(description)
    }

    fn vit(&self, shapes: &BTreeMap<String, Vec<usize>>, classifies: bool) -> Result<VitConfig, Invalid> {
        let fields = Fields::of("", &self.json)?;
        let (clip, siglip) = (self.model == Model::Clip, self.model == Model::Siglip);
        let dinov2 = self.model.is_dinov2();
        let (defaults, base) = (self.model.defaults(), VitConfig::base());
        let (dinov3, beit) = (self.model == Model::Dinov3, self.model == Model::Beit);
        // `DINOv3ViTConfig` leaves a small model's sizes out, the others a base model's.
        let usual = if dinov3 { (384, 1536, 6) } else { (base.width, base.mlp_hidden, base.heads) };
        let width = fields.count("hidden_size")?.unwrap_or(usual.0);
        let gated = dinov3 && fields.truth("use_gated_mlp")?.unwrap_or(false);
        let swiglu = gated || dinov2 && fields.truth("use_swiglu_ffn")?.unwrap_or(false);
        let mlp_hidden = match dinov2 {
            false => fields.count("intermediate_size")?.unwrap_or(usual.1),
            true => {
                let hidden = (width as f64 * fields.number("mlp_ratio")?.unwrap_or(4.0)) as usize;
                // Dinov2SwiGLUFFN: two thirds, rounded up to a multiple of eight.
                if swiglu { ((hidden as f64 * 2.0 / 3.0) as usize).div_ceil(8) * 8 } else { hidden }
            }
        };
        let activation = match fields.text("hidden_act")?.unwrap_or(defaults.activation) {
            "silu" | "swish" if gated => Activation::Erf,
            other if gated => {
                let reason = format!("hidden_act `{other}` of a gated MLP is not supported (silu)");
                return Err(Invalid::new("hidden_act", reason));
            }
            _ if swiglu => Activation::Erf,
            "gelu" | "gelu_python" => Activation::Erf,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate" | "gelu_python_tanh" => Activation::Tanh,
            "quick_gelu" => Activation::Quick,
            other => {
                let reason = format!("hidden_act `{other}` is not supported (gelu, gelu_new, quick_gelu)");
                return Err(Invalid::new("hidden_act", reason));
            }
        };
        let registers = match self.model {
            Model::Dinov2Registers | Model::Dinov3 => {
                fields.count("num_register_tokens")?.unwrap_or(defaults.registers)
            }
            _ => 0,
        };
        let heads = fields.count("num_attention_heads")?.unwrap_or(usual.2);
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(fields.wrong(
                "num_attention_heads",
                &json!(heads),
                &format!("width {width} is no multiple of it"),
            ));
        }
        let truth = |name: &str, usual: bool| Ok::<_, Invalid>(fields.truth(name)?.unwrap_or(usual));
        let biases = [truth("query_bias", true)?, truth("value_bias", true)?];
        if dinov3 && biases[0] != biases[1] {
            let reason = "a bias of queries without one of values, or the other way round, is not supported";
            return Err(fields.wrong("query_bias", &json!(biases[0]), reason));
        }
        let beit_mean = beit && truth("use_mean_pooling", true)?;
        let relative = truth("use_relative_position_bias", false)?;
        let shared = truth("use_shared_relative_position_bias", false)?;
        let layer_scale = dinov2 || dinov3 || beit && fields.number("layer_scale_init_value")?.unwrap_or(0.1) > 0.0;
        Ok(VitConfig {
            depth: fields.count("num_hidden_layers")?.unwrap_or(base.depth),
            width,
            heads,
            mlp_hidden,
            patch: fields.side("patch_size")?.unwrap_or(defaults.patch),
            image_size: fields.side("image_size")?.unwrap_or(base.image_size),
            eps: fields.number("layer_norm_eps")?.unwrap_or(defaults.eps) as f32,
            activation,
            // What the classifiers of transformers read of these.
            pool: match (classifies, dinov2, clip || siglip) {
                (true, true, _) => Pool::TokenAvg,
                (true, _, true) => Pool::Avg,
                _ if siglip && fields.truth("vision_use_head")?.unwrap_or(true) => Pool::Map,
                _ if siglip => Pool::Avg,
                _ if beit_mean => Pool::Avg,
                _ => Pool::Token,
            },
            class_token: !siglip,
            pre_norm: clip,
            norm: !(clip && classifies || beit_mean),
            fc_norm: beit_mean,
            distilled: shapes.contains_key("dist_token"),
            patch_bias: !clip,
            qkv_bias: clip || beit || if dinov3 { biases[0] } else { truth("qkv_bias", true)? },
            registers,
            layer_scale,
            swiglu,
            // The one of them that interpolates antialiased.
            position_filter: match self.model {
                Model::Dinov2Registers => PositionFilter::Antialiased,
                _ => PositionFilter::Plain,
            },
            pos_embed: !dinov3 && (!beit || truth("use_absolute_position_embeddings", false)?),
            rotary: match dinov3 {
                true => {
                    let theta = fields.number("rope_theta")?.unwrap_or(100.0);
                    Some(Rotary { temperature: theta as f32, ..Rotary::DINOV3 })
                }
                false => None,
            },
            relative_positions: beit && (relative || shared),
            ..base
        })
    }
}

fn check_fields(fields: Fields<'_>) -> Result<(), Invalid> {
    fields.only("num_channels", &json!(3), "only three-channel ViTs are supported")?;
    fields.only("is_decoder", &json!(false), "decoders are not supported")?;
    fields.only("is_encoder_decoder", &json!(false), "decoders are not supported")?;
    for name in ["proj_bias", "mlp_bias"] {
        fields.only(name, &json!(true), "layers without a bias are not supported")?;
    }
    fields.only("pruned_heads", &json!({}), "a model without some of its heads is not supported")?;
    fields.all_in(&[&READ, &FREE, &GENERATION])
}
