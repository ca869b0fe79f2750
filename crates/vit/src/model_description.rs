//! What the JSON beside timm's weights says: `config.json` of a hub repository, or `<weights>.json`.
//!
//! Meanings as in timm 1.0.31, `_parse_model_cfg` and `VisionTransformer.__init__`. Every field is read, known to change no feature, or
//! refused by its name.

use crate::config::{Activation, Pool, VitConfig};
use crate::fields::Fields;
use crate::invalid::Invalid;
use crate::preprocess::{CropMode, CropOffset, Interpolation, Preprocess};
use crate::rendering::Rendering;
use crate::rotary::{Rotary, RotaryGrid, RotaryPairs};
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
const ARGS_READ: [&str; 36] = [
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
    "class_token",
    "qk_norm",
    // Of timm's `Eva` and `Beit`.
    "num_reg_tokens",
    "use_abs_pos_emb",
    "use_rot_pos_emb",
    "use_rel_pos_bias",
    "rope_type",
    "rope_temperature",
    "rope_rotate_half",
    "ref_feat_shape",
    "swiglu_mlp",
    "swiglu_align_to",
    "scale_mlp",
    "scale_attn_inner",
    "use_pre_transformer_norm",
    "use_post_transformer_norm",
    "use_fc_norm",
    "qkv_fused",
];
/// Arguments on which no feature depends: training's noise, first values, and where a model is built.
const ARGS_FREE: [&str; 16] = [
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
    "head_init_scale",
    "rope_shift_coords",
    "rope_jitter_coords",
    "rope_rescale_coords",
    "use_shared_rel_pos_bias",
];
/// Arguments that timm takes as not said where they are `null`; any other is not to be.
const NULLABLE: [&str; 15] = [
    "init_values",
    "fc_norm",
    "embed_norm_layer",
    "norm_layer",
    "act_layer",
    "device",
    "dtype",
    "num_kv_heads",
    "use_post_transformer_norm",
    "use_fc_norm",
    "ref_feat_shape",
    "rope_shift_coords",
    "rope_jitter_coords",
    "rope_rescale_coords",
    "rope_type",
];

/// Timm's description of a model.
#[derive(Clone, Debug)]
pub struct ModelDescription {
    /// Name of the architecture, empty where it is not given.
    pub architecture: String,
    named: Option<Named>,
    /// Heads that are taken where neither name nor arguments say any.
    usual_heads: bool,
    /// Width of a head of a DINOv3 whose weights say that they are.
    dinov3: Option<usize>,
    json: Value,
}

impl ModelDescription {
    /// The description in a JSON object, also in timm's older form, where everything stands side by side.
    ///
    /// # Errors
    /// [`Invalid`] for what is no object, a field that is not known or not supported, and an architecture that is no plain ViT.
    pub fn new(json: Value) -> Result<Self, Invalid> {
        let mut json = split(json);
        Fields::of("", &json)?;
        if json["model_args"].is_null() {
            json["model_args"] = json!({});
        }
        let top = Fields::of("", &json)?;
        top.all_in(&[&TOP])?;
        let architecture = top.text("architecture")?.unwrap_or_default().to_owned();
        let named = Named::of(&architecture);
        named.as_ref().map_or(Ok(()), Named::refuse_special)?;
        if let Some(cfg) = top.get("pretrained_cfg") {
            let cfg = Fields::of("pretrained_cfg.", cfg)?;
            cfg.all_in(&[&CFG_READ, &CFG_FREE])?;
            cfg.only("label_offset", &json!(0), "classes that are left out are not supported")?;
        }
        check_arguments(Fields::of("model_args.", &json["model_args"])?)?;
        Ok(ModelDescription { architecture, named, usual_heads: false, dinov3: None, json })
    }

    /// The same, with the heads that published ViTs of the weights' shape have where nothing says how many there are.
    pub fn with_usual_heads(self) -> Self {
        ModelDescription { usual_heads: true, ..self }
    }

    /// The same of weights that hold DINOv3's periods of rotary positions, a fourth as many as a head is wide: what its authors' files
    /// have, and nobody else's.
    pub fn with_dinov3_periods(self, periods: usize) -> Self {
        ModelDescription { dinov3: Some(4 * periods), ..self }
    }

    /// Whether tokens have a position embedding.
    pub(crate) fn has_pos_embed(&self) -> Result<bool, Invalid> {
        let usual = self.named.map_or(self.dinov3.is_none(), |named| !named.has("no_pos_embed"));
        Ok(self.arguments()?.truth("use_abs_pos_emb")?.unwrap_or(usual))
    }

    /// Side of the images of a model whose weights do not tell it, pixels.
    pub(crate) fn image_size(&self) -> Result<Option<usize>, Invalid> {
        let cfg = self.json.get("pretrained_cfg").filter(|cfg| !cfg.is_null());
        let input = cfg.and_then(|cfg| cfg.get("input_size")?.get(2)?.as_u64()).map(|side| side as usize);
        Ok(self.arguments()?.side("img_size")?.or(input).or(self.named.map(|named| named.image_size)))
    }

    /// Rotary positions, where there are any: by the arguments, else of the architecture that is named, else DINOv3's.
    pub(crate) fn rotary(&self) -> Result<Option<Rotary>, Invalid> {
        let args = self.arguments()?;
        let usual = self.named.map_or(self.dinov3.map(|_| Rotary::DINOV3), |named| named.rotary());
        if !args.truth("use_rot_pos_emb")?.unwrap_or(usual.is_some()) {
            return Ok(None);
        }
        // `Eva.__init__`'s defaults.
        let usual = usual.unwrap_or(Rotary {
            temperature: 10000.0,
            grid: RotaryGrid::Numbered(0),
            pairs: RotaryPairs::Neighbours,
        });
        let reference = args.side("ref_feat_shape")?.map(RotaryGrid::Numbered);
        let grid = match args.text("rope_type")? {
            None if usual.grid == RotaryGrid::Centered => RotaryGrid::Centered,
            Some("dinov3") => RotaryGrid::Centered,
            None | Some("cat") => match (reference, usual.grid) {
                (Some(grid), _) | (None, grid @ RotaryGrid::Numbered(1..)) => grid,
                _ => {
                    let reason = "rotary positions without the side of the grid that they were trained for";
                    return Err(args.wrong("ref_feat_shape", &Value::Null, &format!("{reason} are not supported")));
                }
            },
            Some(other) => {
                let reason = "rotary positions of this type are not supported (dinov3, cat)";
                return Err(args.wrong("rope_type", &json!(other), reason));
            }
        };
        Ok(Some(Rotary {
            temperature: args.number("rope_temperature")?.map_or(usual.temperature, |value| value as f32),
            grid,
            pairs: match args.truth("rope_rotate_half")? {
                Some(true) => RotaryPairs::Halves,
                Some(false) => RotaryPairs::Neighbours,
                None => usual.pairs,
            },
        }))
    }

    /// True where the model gives all tokens instead of one feature: no classifier fits that.
    fn is_unpooled(&self) -> bool {
        let beside = self.json.get("global_pool").filter(|_| self.named.is_none());
        self.argument("global_pool").or(beside).and_then(Value::as_str) == Some("")
    }

    fn arguments(&self) -> Result<Fields<'_>, Invalid> {
        Fields::of("model_args.", &self.json["model_args"])
    }

    fn argument(&self, name: &str) -> Option<&Value> {
        self.json["model_args"].get(name).filter(|value| !value.is_null())
    }

    /// Heads from `model_args.num_heads`, else of the architecture that is named: no shape tells them.
    pub(crate) fn heads(&self, width: usize, depth: usize, mlp_hidden: usize) -> Result<usize, Invalid> {
        let args = self.arguments()?;
        if let Some(heads) = args.count("num_heads")? {
            return match heads > 0 && width.is_multiple_of(heads) {
                true => Ok(heads),
                false => Err(args.wrong("num_heads", &json!(heads), &format!("width {width} is no multiple of it"))),
            };
        }
        if let (None, Some(head)) = (&self.named, self.dinov3.filter(|head| *head > 0 && width.is_multiple_of(*head))) {
            return Ok(width / head);
        }
        let shape = format!("{depth} blocks of width {width}");
        let why = match &self.named {
            Some(named) if named.width == width => return Ok(named.heads),
            Some(named) => {
                format!("architecture `{}` is of width {}, and these weights have {shape}", named.name, named.width)
            }
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
        let usual = if pre_norm || self.dinov3.is_some() { 1e-5 } else { 1e-6 };
        let usual = self.named.map_or(usual, |named| named.eps);
        self.argument("norm_eps").and_then(Value::as_f64).map_or(usual, |eps| eps as f32)
    }

    /// `model_args.act_layer`, else of the architecture that is named, else the exact GELU; a SwiGLU has its own.
    pub(crate) fn activation(&self, swiglu: bool) -> Result<Activation, Invalid> {
        let said = self.argument("act_layer").and_then(Value::as_str);
        match said.or(self.named.map(|named| named.activation)) {
            None | Some("silu") if swiglu => Ok(Activation::Erf),
            // Who builds a plain architecture with a gated MLP says so in a program, which no JSON holds.
            Some(_) if swiglu && said.is_none() => Ok(Activation::Erf),
            Some(other) if swiglu => {
                let reason = format!("`act_layer` is `{other}`: a gated MLP of it is not supported (silu)");
                Err(Invalid::new("act_layer", reason))
            }
            Some("gelu") => Ok(Activation::Erf),
            Some("gelu_tanh") => Ok(Activation::Tanh),
            Some("quick_gelu" | "quickgelu") => Ok(Activation::Quick),
            Some(other) => {
                let reason = format!("`act_layer` is `{other}`, which is not supported (gelu, gelu_tanh, quick_gelu)");
                Err(Invalid::new("act_layer", reason))
            }
            None if self.architecture.contains("quickgelu") => Ok(Activation::Quick),
            None => Ok(Activation::Erf),
        }
    }

    /// `model_args.global_pool`, else the named architecture's, else what stands beside; `fc_norm` proves a mean, and so does the lack
    /// of a class token, where nothing is there to pool otherwise.
    pub(crate) fn pool(&self, fc_norm: bool, (class_token, attn_pool): (bool, bool)) -> Result<Pool, Invalid> {
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
            Some("token" | "") if class_token => Ok(Pool::Token),
            Some(said @ ("token" | "")) => {
                let reason = format!("`global_pool` is `{said}`, but tensor `cls_token` is missing");
                Err(Invalid::new("global_pool", reason))
            }
            Some("avg") => Ok(Pool::Avg),
            Some("map") => Ok(Pool::Map),
            Some(other) => {
                let reason = format!("`global_pool` is `{other}`, which is not supported (token, avg, map)");
                Err(Invalid::new("global_pool", reason))
            }
            None if attn_pool => Ok(Pool::Map),
            None if fc_norm || !class_token => Ok(Pool::Avg),
            None => Ok(Pool::Token),
        }
    }

    /// Refuses arguments that say something else than the tensors do: timm would build another model than these weights are of.
    pub(crate) fn agrees_with(&self, config: &VitConfig) -> Result<(), Invalid> {
        let args = self.arguments()?;
        self.name_agrees_with(config, &args)?;
        let differs = |name: &str, weights: &dyn std::fmt::Display| match args.get(name) {
            Some(value) => Err(args.wrong(name, value, &format!("the weights say {weights}"))),
            None => Ok(()),
        };
        let sizes = [
            ("patch_size", args.side("patch_size")?, config.patch),
            ("embed_dim", args.count("embed_dim")?, config.width),
            ("depth", args.count("depth")?, config.depth),
            ("reg_tokens", args.count("reg_tokens")?, config.registers),
            ("num_reg_tokens", args.count("num_reg_tokens")?, config.registers),
        ];
        for (name, said, found) in sizes {
            if said.is_some_and(|said| said != found) {
                differs(name, &found)?;
            }
        }
        let is_mean = self.named.is_some() && args.text("global_pool")? == Some("avg");
        let no_fc_norm = [args.truth("fc_norm")?, args.truth("use_fc_norm")?].contains(&Some(false));
        let usual_mean = self.named.is_some_and(|named| named.pool == "avg" && !named.has("fc_norm"));
        if is_mean && !config.fc_norm && !no_fc_norm && !usual_mean {
            differs("global_pool", &"`norm` in place of `fc_norm`, which `fc_norm`: false has to say")?;
        }
        // timm's gated MLPs count both halves, `Eva`'s one, which it may round up.
        let gated = args.truth("swiglu_mlp")?.unwrap_or(false);
        let step = args.count("swiglu_align_to")?.unwrap_or(0).max(1);
        let rows = |ratio: f64| {
            let rows = (config.width as f64 * ratio) as usize;
            if gated { 2 * rows.next_multiple_of(step) } else { rows }
        };
        if args.number("mlp_ratio")?.is_some_and(|ratio| rows(ratio) != config.fc1_out()) {
            differs("mlp_ratio", &format!("{} rows of `mlp.fc1`", config.fc1_out()))?;
        }
        // Without positions, or tokens in front of the patches, it says nothing.
        let says_embeds = config.pos_embed && config.prefix_tokens() > 0;
        let embeds = args.truth("no_embed_class")?.filter(|_| says_embeds);
        let parts = [
            ("qkv_bias", args.truth("qkv_bias")?, config.qkv_bias),
            ("pre_norm", args.truth("pre_norm")?, config.pre_norm),
            ("fc_norm", args.truth("fc_norm")?, config.fc_norm),
            ("class_token", args.truth("class_token")?, config.class_token),
            ("qk_norm", args.truth("qk_norm")?, config.qk_norm),
            ("no_embed_class", embeds, !config.pos_embed_prefix),
            ("init_values", args.number("init_values")?.map(|_| true), config.layer_scale),
            ("use_abs_pos_emb", args.truth("use_abs_pos_emb")?, config.pos_embed),
            ("use_rel_pos_bias", args.truth("use_rel_pos_bias")?.filter(|said| *said), config.relative_positions),
            ("swiglu_mlp", args.truth("swiglu_mlp")?, config.swiglu),
            ("scale_mlp", args.truth("scale_mlp")?, config.mlp_norm),
            ("scale_mlp_norm", args.truth("scale_mlp_norm")?, config.mlp_norm),
            ("scale_attn_inner", args.truth("scale_attn_inner")?, config.attn_norm),
            ("scale_attn_norm", args.truth("scale_attn_norm")?, config.attn_norm),
            ("use_pre_transformer_norm", args.truth("use_pre_transformer_norm")?, config.pre_norm),
            ("use_post_transformer_norm", args.truth("use_post_transformer_norm")?, config.norm),
            ("use_fc_norm", args.truth("use_fc_norm")?, config.fc_norm),
        ];
        for (name, said, found) in parts {
            if said.is_some_and(|said| said != found) {
                differs(name, &found)?;
            }
        }
        Ok(())
    }

    /// Refuses weights that are not of the named architecture, where no argument says that they differ from it.
    fn name_agrees_with(&self, config: &VitConfig, args: &Fields<'_>) -> Result<(), Invalid> {
        // Norms inside are called otherwise in timm's plain ViT than in its others.
        let also = |name: &str| match name {
            "scale_attn_inner" => args.get("scale_attn_norm"),
            "scale_mlp" => args.get("scale_mlp_norm"),
            _ => None,
        };
        let said = |name: &str| args.get(name).or_else(|| also(name)).is_some();
        let Some(named) = &self.named else {
            // Nothing says what the weights have to be: a bias that is gone looks like one that never was.
            let lacks = [
                ("qkv_bias", !config.qkv_bias && !said("qkv_bias"), "`blocks.*.attn.qkv.bias` is missing"),
                ("patch_bias", !config.patch_bias && !config.pre_norm, "`patch_embed.proj.bias` is missing"),
                (
                    "class_token",
                    !config.class_token && config.pool != Pool::Map && !said("class_token"),
                    "`cls_token` is missing",
                ),
            ];
            return match lacks.into_iter().find(|(_, lacks, _)| *lacks) {
                Some((field, _, reason)) => Err(Invalid::new(field, format!("tensor {reason}"))),
                None => Ok(()),
            };
        };
        let registers = (named.registers != config.registers && !said("reg_tokens") && !said("num_reg_tokens"))
            .then(|| ("reg_tokens", named.registers.to_string(), config.registers.to_string()));
        let says_embeds = config.pos_embed && config.prefix_tokens() > 0;
        let embeds = if says_embeds { named.has("no_embed_class") } else { !config.pos_embed_prefix };
        let parts = [
            ("pre_norm", named.has("norm_pre"), config.pre_norm),
            ("init_values", named.has("ls"), config.layer_scale),
            ("class_token", !named.has("no_class_token"), config.class_token),
            ("qk_norm", named.has("qk_norm"), config.qk_norm),
            ("no_embed_class", embeds, !config.pos_embed_prefix),
            ("qkv_bias", named.has("qkv_bias"), config.qkv_bias),
            ("patch_bias", named.has("patch_bias") && !said("pre_norm"), config.patch_bias && !said("pre_norm")),
            ("distilled", named.has("distilled"), config.distilled),
            ("use_abs_pos_emb", !named.has("no_pos_embed"), config.pos_embed),
            ("use_rel_pos_bias", named.has("relative"), config.relative_positions),
            ("scale_attn_inner", named.has("attn_norm"), config.attn_norm),
            ("scale_mlp", named.has("mlp_norm"), config.mlp_norm),
        ];
        let part = parts.into_iter().find(|(name, own, found)| own != found && !said(name));
        let part = part.map(|(name, own, found)| (name, own.to_string(), found.to_string()));
        match registers.or(part) {
            None => Ok(()),
            Some((name, own, found)) => {
                let reason =
                    format!("`architecture` is `{}`, whose {name} is {own}, and the weights say {found}", named.name);
                Err(Invalid::new("architecture", reason))
            }
        }
    }

    /// Refuses a classifier that is not of this model: on tokens that are not pooled, or of another number of `rows`, where that
    /// is known.
    ///
    /// # Errors
    /// [`Invalid`] for the field that says otherwise.
    pub fn fits_classifier(&self, is_there: bool, rows: Option<usize>) -> Result<(), Invalid> {
        if self.is_unpooled() && is_there {
            let reason = "`global_pool` is empty, and a classifier on every token is not supported";
            return Err(Invalid::new("global_pool", reason));
        }
        match (self.classes()?, rows) {
            (Some(classes), Some(rows)) if classes != rows => {
                let reason = format!("`num_classes` is {classes}, and the weights' classifier has {rows} rows");
                Err(Invalid::new("num_classes", reason))
            }
            _ => Ok(()),
        }
    }

    /// The classes of the model, where its description says how many, and the same everywhere.
    fn classes(&self) -> Result<Option<usize>, Invalid> {
        let top = Fields::of("", &self.json)?;
        let args = self.arguments()?.count("num_classes")?;
        let cfg = top.get("pretrained_cfg").map(|cfg| Fields::of("pretrained_cfg.", cfg)).transpose()?;
        let cfg = cfg.map_or(Ok(None), |cfg| cfg.count("num_classes"))?;
        let said = [top.count("num_classes")?, args, cfg];
        let mut said = said.into_iter().flatten();
        let first = said.next();
        match said.find(|other| Some(*other) != first) {
            Some(other) => {
                let reason = format!("`num_classes` is {} in one place and {other} in another", first.unwrap_or(0));
                Err(Invalid::new("num_classes", reason))
            }
            None => Ok(first),
        }
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
                let reason =
                    format!("`pretrained_cfg.interpolation` is {other:?}, which is not supported (bicubic, bilinear)");
                return Err(Invalid::new("interpolation", reason));
            }
        };
        let crop_mode = match cfg.text("crop_mode")? {
            None | Some("center") => CropMode::Center,
            Some("squash") => CropMode::Squash,
            Some("border") => CropMode::Border,
            Some(other) => {
                let reason =
                    format!("`pretrained_cfg.crop_mode` is `{other}`, which is not supported (center, squash, border)");
                return Err(Invalid::new("crop_mode", reason));
            }
        };
        Ok(Preprocess {
            depth: None,
            size: self.input_size(&cfg, image_size)?.unwrap_or(image_size),
            crop_mode,
            crop_pct: cfg.number("crop_pct")?.ok_or_else(|| missing("crop_pct"))?,
            interpolation,
            mean: cfg.channels("mean")?.ok_or_else(|| missing("mean"))?,
            std: cfg.channels("std")?.ok_or_else(|| missing("std"))?,
            crop_offset: CropOffset::Even,
            rendering: Rendering::default(),
        })
    }

    /// Side of the input, pixels: that of `pretrained_cfg`, which has to be the model's where the model has one.
    fn input_size(&self, cfg: &Fields<'_>, image_size: usize) -> Result<Option<usize>, Invalid> {
        let square = |value: &Value| match value.as_array()?.as_slice() {
            [channels, height, width] if channels == &json!(3) && height == width => height.as_u64(),
            _ => None,
        };
        let input = cfg.read("input_size", square, "[3, s, s], a square of three channels")?.map(|side| side as usize);
        let args = self.arguments()?;
        let (model, fixed) = (args.side("img_size")?, cfg.truth("fixed_input_size")?.unwrap_or(false));
        let is_any = fixed || args.truth("dynamic_img_size")?.unwrap_or(false);
        match (input, model) {
            (Some(input), None) if self.named.is_some() && input != image_size && !is_any => {
                let reason =
                    format!("the weights' positions are for {image_size}; say {input} in `model_args.img_size` too");
                Err(cfg.wrong("input_size", &json!([3, input, input]), &reason))
            }
            (Some(input), Some(model)) if input != model && !is_any => {
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
    args.not_null(&NULLABLE)?;
    let unsupported = "this is not supported";
    let off = [
        ("pool_include_prefix", "the mean over class and register tokens too is not supported"),
        ("use_post_norm", "norms after the branches of a block are not supported"),
        ("attn_only_layer_scale", unsupported),
        ("gated_attn", unsupported),
    ];
    for (name, reason) in off {
        args.only(name, &json!(false), reason)?;
    }
    for (name, reason) in [("final_norm", "ViTs without a last norm are not supported"), ("proj_bias", unsupported)] {
        args.only(name, &json!(true), reason)?;
    }
    args.only("pos_embed", &json!("learn"), "only learnt positions are supported")?;
    args.only("in_chans", &json!(3), "only three-channel ViTs are supported")?;
    for name in ["embed_layer", "norm_layer", "embed_norm_layer", "block_fn", "mlp_layer", "attn_layer"] {
        args.only(name, &Value::Null, "only the plain layers of a ViT are supported")?;
    }
    args.only("dtype", &Value::Null, unsupported)?;
    args.only("num_kv_heads", &Value::Null, "keys and values that several heads share are not supported")?;
    args.only("attn_type", &json!("eva"), "only attention of type eva is supported")?;
    args.only("rope_grid_offset", &json!(0.0), unsupported)?;
    args.only("rope_grid_indexing", &json!("ij"), "rotary positions with the column first are not supported")?;
    args.text("act_layer")?;
    args.text("global_pool")?;
    args.number("norm_eps")?;
    let checked = [
        "pool_include_prefix",
        "scale_attn_norm",
        "scale_mlp_norm",
        "use_post_norm",
        "attn_only_layer_scale",
        "gated_attn",
        "num_kv_heads",
        "attn_type",
        "rope_grid_offset",
        "rope_grid_indexing",
        "proj_bias",
        "pos_embed",
        "embed_layer",
        "norm_layer",
        "embed_norm_layer",
        "block_fn",
        "mlp_layer",
        "attn_layer",
        "dtype",
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
