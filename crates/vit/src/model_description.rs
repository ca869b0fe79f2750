//! What the JSON beside timm's weights says: `config.json` of a hub repository, or `<weights>.json`.
//!
//! Meanings as in timm 1.0.31, `_parse_model_cfg` and `VisionTransformer.__init__`. Every field is read, known to change no feature, or
//! refused by its name.

use crate::config::{Activation, Pool, VitConfig};
use crate::fields::Fields;
use crate::invalid::Invalid;
use crate::preprocess::{CropMode, Interpolation, Preprocess};
use crate::rendering::Rendering;
use crate::timm_names::Named;
use serde_json::{Value, json};

/// Fields beside `model_args` and `pretrained_cfg`.
const TOP: [&str; 8] = [
    "architecture",
    "global_pool",
    "model_args",
    "pretrained_cfg",
    "num_classes",
    "num_features",
    "label_names",
    "label_descriptions",
];

/// Fields of `pretrained_cfg` that are read.
const CFG_READ: [&str; 7] = ["input_size", "fixed_input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std"];
/// Fields of `pretrained_cfg` on which no feature depends: where weights come from, words, and settings of tests and of other models.
const CFG_FREE: [&str; 28] = [
    "url",
    "file",
    "hf_hub_id",
    "hf_hub_filename",
    "source",
    "architecture",
    "tag",
    "custom_load",
    "test_input_size",
    "min_input_size",
    "test_crop_pct",
    "num_classes",
    "label_offset",
    "label_names",
    "label_descriptions",
    "labels",
    "pool_size",
    "test_pool_size",
    "first_conv",
    "classifier",
    "license",
    "description",
    "origin_url",
    "paper_name",
    "paper_ids",
    "notes",
    "global_pool",
    "num_features",
];

/// Arguments that are read.
const ARGS_READ: [&str; 18] = [
    "num_heads",
    "norm_eps",
    "act_layer",
    "global_pool",
    "img_size",
    "patch_size",
    "embed_dim",
    "depth",
    "mlp_ratio",
    "qkv_bias",
    "init_values",
    "no_embed_class",
    "reg_tokens",
    "pre_norm",
    "fc_norm",
    "final_norm",
    "dynamic_img_size",
    "in_chans",
];
/// Arguments on which no feature depends: training's noise, first values, and where a model is built.
const ARGS_FREE: [&str; 12] = [
    "num_classes",
    "drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
    "weight_init",
    "fix_init",
    "dynamic_img_pad",
    "device",
    "dtype",
];

/// Timm's description of a model.
#[derive(Clone, Debug)]
pub struct ModelDescription {
    /// Name of the architecture, empty where it is not given.
    pub architecture: String,
    named: Option<Named>,
    /// Heads that are taken where neither name nor arguments say any.
    usual_heads: bool,
    json: Value,
}

impl ModelDescription {
    /// The description in a JSON object, also in timm's older form, where everything stands side by side.
    ///
    /// # Errors
    /// [`Invalid`] for what is no object, a field that is not known or not supported, and an architecture that is no plain ViT.
    pub fn new(json: Value) -> Result<Self, Invalid> {
        let json = split(json);
        let top = Fields::of("", &json)?;
        top.all_in(&[&TOP])?;
        let architecture = top.text("architecture")?.unwrap_or_default().to_owned();
        let named = Named::of(&architecture);
        named.as_ref().map_or(Ok(()), Named::refuse_special)?;
        if let Some(cfg) = top.get("pretrained_cfg") {
            Fields::of("pretrained_cfg.", cfg)?.all_in(&[&CFG_READ, &CFG_FREE])?;
        }
        if let Some(args) = top.get("model_args") {
            check_arguments(Fields::of("model_args.", args)?)?;
        }
        Ok(ModelDescription { architecture, named, usual_heads: false, json })
    }

    /// The same, with the heads that published ViTs of the weights' shape have where nothing says how many there are.
    pub fn with_usual_heads(self) -> Self {
        ModelDescription { usual_heads: true, ..self }
    }

    /// True where the model gives all tokens instead of one feature: no classifier fits that.
    pub fn is_unpooled(&self) -> bool {
        self.argument("global_pool").or(self.json.get("global_pool")).and_then(Value::as_str) == Some("")
    }

    fn arguments(&self) -> Result<Option<Fields<'_>>, Invalid> {
        self.json
            .get("model_args")
            .filter(|args| !args.is_null())
            .map(|args| Fields::of("model_args.", args))
            .transpose()
    }

    fn argument(&self, name: &str) -> Option<&Value> {
        self.json.get("model_args")?.get(name).filter(|value| !value.is_null())
    }

    /// Heads from `model_args.num_heads`, else of the architecture that is named: no shape tells them.
    pub(crate) fn heads(&self, width: usize, depth: usize, mlp_hidden: usize) -> Result<usize, Invalid> {
        if let Some(heads) = self.arguments()?.map_or(Ok(None), |args| args.count("num_heads"))? {
            return Ok(heads);
        }
        let shape = format!("{depth} blocks of width {width}");
        let why = match &self.named {
            Some(named) if (named.width, named.depth) == (width, depth) => return Ok(named.heads),
            Some(named) => format!(
                "architecture `{}` has {} blocks of width {}, and these weights {shape}",
                named.name, named.depth, named.width
            ),
            None if self.usual_heads => match Named::heads_of_shape(width, depth, mlp_hidden) {
                Some(heads) => return Ok(heads),
                None => format!("no published ViT has {shape}"),
            },
            None if self.architecture.is_empty() => format!("nothing names the architecture of {shape}"),
            None => format!("timm has no architecture `{}`", self.architecture),
        };
        let json = "\"model_args\": {\"num_heads\": …}";
        let reason = format!("the number of heads cannot be told: {why}; add {json} to the JSON");
        Err(Invalid::new("num_heads", reason))
    }

    /// `model_args.norm_eps`, else of the architecture that is named, else 1e-6, or 1e-5 with `norm_pre` (CLIP).
    pub(crate) fn eps(&self, pre_norm: bool) -> f32 {
        let usual = self.named.map_or(if pre_norm { 1e-5 } else { 1e-6 }, |named| named.eps);
        self.argument("norm_eps").and_then(Value::as_f64).map_or(usual, |eps| eps as f32)
    }

    /// `model_args.act_layer`, else of the architecture that is named, else the exact GELU; a SwiGLU has its own.
    pub(crate) fn activation(&self, swiglu: bool) -> Result<Activation, Invalid> {
        let said = self.argument("act_layer").and_then(Value::as_str);
        match said.or(self.named.map(|named| named.activation)) {
            None | Some("silu") if swiglu => Ok(Activation::Erf),
            Some(other) if swiglu => {
                let reason = format!("activation `{other}` of a gated MLP is not supported (silu)");
                Err(Invalid::new("act_layer", reason))
            }
            Some("gelu") => Ok(Activation::Erf),
            Some("gelu_tanh") => Ok(Activation::Tanh),
            Some("quick_gelu" | "quickgelu") => Ok(Activation::Quick),
            Some(other) => {
                let reason = format!("activation `{other}` is not supported (gelu, gelu_tanh, quick_gelu)");
                Err(Invalid::new("act_layer", reason))
            }
            None if self.architecture.contains("quickgelu") => Ok(Activation::Quick),
            None => Ok(Activation::Erf),
        }
    }

    /// `model_args.global_pool`, else the named architecture's, else what stands beside; `fc_norm` proves a mean.
    pub(crate) fn pool(&self, fc_norm: bool) -> Result<Pool, Invalid> {
        let beside = self.json.get("global_pool").and_then(Value::as_str);
        let own = self.named.map(|named| named.pool);
        let said = match (self.argument("global_pool").and_then(Value::as_str), own) {
            (Some(said), _) => Some(said),
            (None, Some(own)) if fc_norm && matches!((own, beside), ("token", None | Some("avg"))) => Some("avg"),
            (None, Some(own)) => {
                if let Some(beside) = beside.filter(|beside| !beside.is_empty() && *beside != own) {
                    let reason = format!(
                        "`global_pool` is `{beside}`, but the architecture `{}` pools `{own}`: say which in \
                         `model_args.global_pool`",
                        self.architecture
                    );
                    return Err(Invalid::new("global_pool", reason));
                }
                Some(own)
            }
            (None, None) => beside,
        };
        match said {
            // Without pooling the class token is what the tokens begin with.
            Some("token" | "") => Ok(Pool::Token),
            Some("avg") => Ok(Pool::Avg),
            Some(other) => {
                let reason = format!("pooling `{other}` is not supported (token, avg)");
                Err(Invalid::new("global_pool", reason))
            }
            None if fc_norm => Ok(Pool::Avg),
            None => Ok(Pool::Token),
        }
    }

    /// Refuses arguments that say something else than the tensors do: timm would build another model than these weights are of.
    pub(crate) fn agrees_with(&self, config: &VitConfig) -> Result<(), Invalid> {
        let Some(args) = self.arguments()? else { return Ok(()) };
        let differs = |name: &str, weights: &dyn std::fmt::Display| match args.get(name) {
            Some(value) => Err(args.wrong(name, value, &format!("the weights say {weights}"))),
            None => Ok(()),
        };
        let sizes = [
            ("patch_size", args.side("patch_size")?, config.patch),
            ("embed_dim", args.count("embed_dim")?, config.width),
            ("depth", args.count("depth")?, config.depth),
            ("reg_tokens", args.count("reg_tokens")?, config.registers),
        ];
        for (name, said, found) in sizes {
            if said.is_some_and(|said| said != found) {
                differs(name, &found)?;
            }
        }
        let rows = |ratio: f64| (config.width as f64 * ratio) as usize;
        if args.number("mlp_ratio")?.is_some_and(|ratio| rows(ratio) != config.fc1_out()) {
            differs("mlp_ratio", &format!("{} rows of `mlp.fc1`", config.fc1_out()))?;
        }
        let parts = [
            ("qkv_bias", args.truth("qkv_bias")?, config.qkv_bias),
            ("pre_norm", args.truth("pre_norm")?, config.pre_norm),
            ("fc_norm", args.truth("fc_norm")?, config.fc_norm),
            ("no_embed_class", args.truth("no_embed_class")?, !config.pos_embed_prefix),
            ("init_values", args.number("init_values")?.map(|_| true), config.layer_scale),
        ];
        for (name, said, found) in parts {
            if said.is_some_and(|said| said != found) {
                differs(name, &found)?;
            }
        }
        Ok(())
    }

    /// The preprocessing these weights were trained with.
    ///
    /// # Errors
    /// [`Invalid`] for the field that the JSON lacks, or that is not supported: statistics are never assumed.
    pub fn preprocess(&self, image_size: usize) -> Result<Preprocess, Invalid> {
        let none = || Invalid::new("pretrained_cfg", "no `pretrained_cfg` with mean and std");
        let missing = |field| Invalid::new(field, format!("`pretrained_cfg.{field}` is missing"));
        let cfg = self.json.get("pretrained_cfg").filter(|cfg| !cfg.is_null()).ok_or_else(none)?;
        let cfg = Fields::of("pretrained_cfg.", cfg)?;
        let interpolation = match cfg.text("interpolation")? {
            Some("bicubic") => Interpolation::Bicubic,
            Some("bilinear") => Interpolation::Bilinear,
            other => {
                let reason = format!("interpolation {other:?} is not supported (bicubic, bilinear)");
                return Err(Invalid::new("interpolation", reason));
            }
        };
        let crop_mode = match cfg.text("crop_mode")? {
            None | Some("center") => CropMode::Center,
            Some("squash") => CropMode::Squash,
            Some("border") => CropMode::Border,
            Some(other) => {
                let reason = format!("crop mode `{other}` is not supported (center, squash, border)");
                return Err(Invalid::new("crop_mode", reason));
            }
        };
        Ok(Preprocess {
            size: self.input_size(&cfg)?.unwrap_or(image_size),
            crop_mode,
            crop_pct: cfg.number("crop_pct")?.ok_or_else(|| missing("crop_pct"))?,
            interpolation,
            mean: cfg.channels("mean")?.ok_or_else(|| missing("mean"))?,
            std: cfg.channels("std")?.ok_or_else(|| missing("std"))?,
            rendering: Rendering::default(),
        })
    }

    /// Side of the input, pixels: that of `pretrained_cfg`, which has to be the model's where the model has one.
    fn input_size(&self, cfg: &Fields<'_>) -> Result<Option<usize>, Invalid> {
        let square = |value: &Value| match value.as_array()?.as_slice() {
            [channels, height, width] if channels == &json!(3) && height == width => height.as_u64(),
            _ => None,
        };
        let input = cfg.read("input_size", square, "[3, s, s], a square of three channels")?.map(|side| side as usize);
        let Some(args) = self.arguments()? else { return Ok(input) };
        let (model, fixed) = (args.side("img_size")?, cfg.truth("fixed_input_size")?.unwrap_or(false));
        match (input, model) {
            (Some(input), Some(model))
                if input != model && !fixed && !args.truth("dynamic_img_size")?.unwrap_or(false) =>
            {
                let reason = format!("`pretrained_cfg.input_size` is {input}; say the same in both");
                Err(args.wrong("img_size", &json!(model), &reason))
            }
            (_, Some(model)) if fixed => Ok(Some(model)),
            (None, model) => Ok(model),
            (input, _) => Ok(input),
        }
    }
}

/// Refuses arguments that change what a plain ViT computes without changing any tensor's shape.
fn check_arguments(args: Fields<'_>) -> Result<(), Invalid> {
    let unsupported = "this is not supported";
    let off = [
        ("pool_include_prefix", "the mean over class and register tokens too is not supported"),
        ("qk_norm", "query and key normalisation is not supported"),
        ("scale_attn_norm", unsupported),
        ("scale_mlp_norm", unsupported),
    ];
    for (name, reason) in off {
        args.only(name, &json!(false), reason)?;
    }
    for (name, reason) in [
        ("class_token", "ViTs without a class token are not supported"),
        ("final_norm", "ViTs without a last norm are not supported"),
        ("proj_bias", unsupported),
    ] {
        args.only(name, &json!(true), reason)?;
    }
    args.only("pos_embed", &json!("learn"), "only learnt positions are supported")?;
    args.only("in_chans", &json!(3), "only three-channel ViTs are supported")?;
    let plain = [
        ("embed_layer", "PatchEmbed"),
        ("norm_layer", ""),
        ("embed_norm_layer", ""),
        ("block_fn", "Block"),
        ("mlp_layer", "Mlp"),
        ("attn_layer", "Attention"),
    ];
    for (name, usual) in plain {
        args.only(name, &json!(usual), "only the plain layers of a ViT are supported")?;
    }
    args.text("act_layer")?;
    args.text("global_pool")?;
    if args.count("num_heads")? == Some(0) {
        return Err(args.wrong("num_heads", &json!(0), "expected heads"));
    }
    args.number("norm_eps")?;
    let checked = [
        "pool_include_prefix",
        "qk_norm",
        "scale_attn_norm",
        "scale_mlp_norm",
        "class_token",
        "proj_bias",
        "pos_embed",
        "embed_layer",
        "norm_layer",
        "embed_norm_layer",
        "block_fn",
        "mlp_layer",
        "attn_layer",
    ];
    args.all_in(&[&ARGS_READ, &ARGS_FREE, &checked])
}

/// timm's older form, everything side by side, as the newer one.
fn split(mut json: Value) -> Value {
    let Some(fields) = json.as_object_mut().filter(|fields| !fields.contains_key("pretrained_cfg")) else {
        return json;
    };
    if !fields.contains_key("mean") {
        return json;
    }
    let [architecture, args, pool] =
        ["architecture", "model_args", "global_pool"].map(|name| fields.remove(name).unwrap_or_default());
    json!({ "architecture": architecture, "model_args": args, "global_pool": pool, "pretrained_cfg": json })
}
