//! The shape of a Vision Transformer: from its weights, the JSON beside them, and timm's naming rules.

use crate::error::Error;
use crate::preprocess::{CropMode, Interpolation, Preprocess};
use melo_kernels::Gelu;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// GELU kinds by their names in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Exact GELU.
    Erf,
    /// The tanh approximation.
    Tanh,
    /// `x · σ(1.702 x)`.
    Quick,
}

impl From<Activation> for Gelu {
    fn from(kind: Activation) -> Gelu {
        match kind {
            Activation::Erf => Gelu::Erf,
            Activation::Tanh => Gelu::Tanh,
            Activation::Quick => Gelu::Quick,
        }
    }
}

/// Which tokens become the feature that heads read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The class token; with a distillation token, both side by side.
    Token,
    /// The mean of the patch tokens.
    Avg,
    /// The class token and the mean of the patch tokens, side by side: Hugging Face's DINOv2 classifiers.
    TokenAvg,
}

/// How position embeddings are interpolated to another image size, both bicubic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PositionFilter {
    /// Antialiased, Keys' a = -0.5: timm.
    #[default]
    Antialiased,
    /// Four taps whatever the scale, a = -0.75: PyTorch's plain `bicubic`, as Hugging Face.
    Plain,
}

/// Architecture of a Vision Transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Blocks.
    pub depth: usize,
    /// Width `d` of the residual stream.
    pub width: usize,
    /// Attention heads `h`; `d` is a multiple of it.
    pub heads: usize,
    /// Width of the MLP's hidden layer.
    pub mlp_hidden: usize,
    /// Side of a square patch, pixels.
    pub patch: usize,
    /// Side of the square image that `pos_embed` was trained for, pixels.
    pub image_size: usize,
    /// Epsilon of every LayerNorm.
    pub eps: f32,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Feature for heads.
    pub pool: Pool,
    /// LayerNorm right after the position embedding (`norm_pre`), as CLIP.
    pub pre_norm: bool,
    /// Final LayerNorm over tokens (`norm`).
    pub norm: bool,
    /// LayerNorm over the pooled feature (`fc_norm`).
    pub fc_norm: bool,
    /// A distillation token stands after the class token.
    pub distilled: bool,
    /// `pos_embed` has rows for the class and distillation tokens too.
    pub pos_embed_prefix: bool,
    /// The patch projection has a bias.
    pub patch_bias: bool,
    /// The fused q, k, v projection has a bias.
    pub qkv_bias: bool,
    /// Register tokens between the class token and the patches; they have no positions and no head reads them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub registers: usize,
    /// Both branches of a block are scaled by a vector `[d]` (`ls1`, `ls2`) before they join the residual stream.
    #[serde(default, skip_serializing_if = "is_default")]
    pub layer_scale: bool,
    /// The MLP is a SwiGLU: `fc1` gives `[gate, up]`, `2 · mlp_hidden` wide, and `fc2` reads `silu(gate) · up`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub swiglu: bool,
    /// How positions become those of another image size.
    #[serde(default, skip_serializing_if = "is_default")]
    pub position_filter: PositionFilter,
}

/// Fields that came later are left out where they say nothing, so that digests of older backbones stay what they were.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl VitConfig {
    /// Class token, and distillation token where there is one: what heads with token pooling read.
    pub fn class_tokens(&self) -> usize {
        1 + usize::from(self.distilled)
    }

    /// Class, distillation and register tokens: all that stand in front of the patches.
    pub fn prefix_tokens(&self) -> usize {
        self.class_tokens() + self.registers
    }

    /// Rows of `pos_embed` in front of those of the patches.
    pub(crate) fn position_prefix(&self) -> usize {
        if self.pos_embed_prefix { self.class_tokens() } else { 0 }
    }

    /// Rows of `fc1`.
    pub fn fc1_out(&self) -> usize {
        self.mlp_hidden * if self.swiglu { 2 } else { 1 }
    }

    /// Tokens `t` of an image of side `size`.
    pub fn tokens(&self, size: usize) -> usize {
        self.prefix_tokens() + (size / self.patch).pow(2)
    }

    /// Checks that images of side `size` can be tiled by patches.
    ///
    /// # Errors
    /// [`Error::ImageSize`].
    pub fn check_size(&self, size: usize) -> Result<(), Error> {
        let patch = self.patch;
        if size == 0 || !size.is_multiple_of(patch) {
            return Err(Error::ImageSize { size, patch });
        }
        Ok(())
    }

    /// Length of the feature that heads read: `d`, or `2 d` where two tokens stand side by side.
    pub fn feature_width(&self) -> usize {
        match self.pool {
            Pool::Token => self.width * self.class_tokens(),
            Pool::Avg => self.width,
            Pool::TokenAvg => self.width * 2,
        }
    }

    /// Checks that the numbers describe a network.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn check(&self) -> Result<(), String> {
        let VitConfig { depth, width, heads, mlp_hidden, patch, image_size, eps, registers, .. } = *self;
        // Far beyond every published ViT, and small enough that no product of two of them wraps around.
        const MOST: usize = 1 << 16;
        let sizes = [("depth", depth), ("width", width), ("mlp_hidden", mlp_hidden), ("patch", patch)];
        if let Some((name, size)) =
            sizes.into_iter().chain([("image_size", image_size)]).find(|(_, size)| !(1..=MOST).contains(size))
        {
            return Err(format!("{name} {size} is not in 1 to {MOST}"));
        }
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(format!("width {width} is not a multiple of {heads} heads"));
        }
        if !image_size.is_multiple_of(patch) {
            return Err(format!("image_size {image_size} is not a multiple of patch {patch}"));
        }
        if !(eps.is_finite() && eps > 0.0) {
            return Err(format!("eps {eps} is not positive"));
        }
        if registers > MOST {
            return Err(format!("{registers} registers are more than {MOST}"));
        }
        if self.norm && self.fc_norm {
            return Err("norm and fc_norm exclude each other".into());
        }
        if self.pool == Pool::TokenAvg && (self.fc_norm || self.distilled) {
            return Err("pooling tokenavg goes with neither fc_norm nor a distillation token".into());
        }
        Ok(())
    }

    /// Name and shape of every tensor of the backbone, in the order of `Weights::tensors`; names as timm's.
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (d, hidden) = (self.width, self.mlp_hidden);
        let mut shapes = Vec::new();
        let mut add = |name: &str, shape: &[usize]| shapes.push((name.to_owned(), shape.to_vec()));
        add("cls_token", &[1, 1, d]);
        if self.distilled {
            add("dist_token", &[1, 1, d]);
        }
        if self.registers > 0 {
            add("reg_token", &[1, self.registers, d]);
        }
        let grid = self.image_size / self.patch;
        add("pos_embed", &[1, self.position_prefix() + grid * grid, d]);
        add("patch_embed.proj.weight", &[d, 3, self.patch, self.patch]);
        if self.patch_bias {
            add("patch_embed.proj.bias", &[d]);
        }
        let mut norm = |name: &str, present: bool| {
            if present {
                add(&format!("{name}.weight"), &[d]);
                add(&format!("{name}.bias"), &[d]);
            }
        };
        norm("norm_pre", self.pre_norm);
        norm("norm", self.norm);
        norm("fc_norm", self.fc_norm);
        for block in 0..self.depth {
            let mut add = |name: &str, shape: &[usize]| add(&format!("blocks.{block}.{name}"), shape);
            add("norm1.weight", &[d]);
            add("norm1.bias", &[d]);
            add("attn.qkv.weight", &[3 * d, d]);
            if self.qkv_bias {
                add("attn.qkv.bias", &[3 * d]);
            }
            add("attn.proj.weight", &[d, d]);
            add("attn.proj.bias", &[d]);
            if self.layer_scale {
                add("ls1.gamma", &[d]);
            }
            add("norm2.weight", &[d]);
            add("norm2.bias", &[d]);
            add("mlp.fc1.weight", &[self.fc1_out(), d]);
            add("mlp.fc1.bias", &[self.fc1_out()]);
            add("mlp.fc2.weight", &[d, hidden]);
            add("mlp.fc2.bias", &[d]);
            if self.layer_scale {
                add("ls2.gamma", &[d]);
            }
        }
        shapes
    }

    /// Parameters of the backbone, without any classifier.
    pub fn parameters(&self) -> usize {
        self.tensor_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Reads the architecture from the tensors' shapes, and from `described` what shapes cannot tell.
    ///
    /// # Errors
    /// A sentence that names what is missing, inconsistent or not supported.
    pub fn infer(shapes: &BTreeMap<String, Vec<usize>>, described: &ModelDescription) -> Result<VitConfig, String> {
        let shape = |name: &str| shapes.get(name).ok_or_else(|| format!("not a timm ViT: tensor `{name}` is missing"));
        let &[width, 3, patch, patch_x] = shape("patch_embed.proj.weight")?.as_slice() else {
            return Err("`patch_embed.proj.weight` is not [d, 3, p, p]; only three-channel ViTs are supported".into());
        };
        if patch != patch_x || patch == 0 || width == 0 {
            return Err(format!("patches of {patch} × {patch_x} pixels are not supported"));
        }
        shape("cls_token")?;
        let depth = (0..).take_while(|i| shapes.contains_key(&format!("blocks.{i}.attn.qkv.weight"))).count();
        let &[fc1_out, _] = shape("blocks.0.mlp.fc1.weight")?.as_slice() else {
            return Err("`blocks.0.mlp.fc1.weight` is not a matrix".into());
        };
        let &[_, mlp_hidden] = shape("blocks.0.mlp.fc2.weight")?.as_slice() else {
            return Err("`blocks.0.mlp.fc2.weight` is not a matrix".into());
        };
        let swiglu = mlp_hidden > 0 && mlp_hidden.checked_mul(2) == Some(fc1_out);
        if !swiglu && mlp_hidden != fc1_out {
            return Err(format!("`blocks.0.mlp.fc1.weight` gives {fc1_out} values and `fc2` reads {mlp_hidden}"));
        }
        let distilled = shapes.contains_key("dist_token");
        let prefix = 1 + usize::from(distilled);
        let registers = shapes.get("reg_token").map_or(0, |shape| shape.iter().product::<usize>() / width);
        let &[_, positions, _] = shape("pos_embed")?.as_slice() else {
            return Err("`pos_embed` is not [1, t, d]".into());
        };
        let side = |count: usize| Some(count.isqrt()).filter(|side| side * side == count && *side > 0);
        let (grid, pos_embed_prefix) = match (side(positions.saturating_sub(prefix)), side(positions)) {
            (Some(grid), _) => (grid, true),
            (None, Some(grid)) => (grid, false),
            _ if side(positions.saturating_sub(prefix + registers)).is_some() => {
                return Err("`pos_embed` has positions for register tokens, which are not supported".into());
            }
            _ => return Err(format!("`pos_embed` has {positions} positions, which is no square grid")),
        };
        let pre_norm = shapes.contains_key("norm_pre.weight");
        let fc_norm = shapes.contains_key("fc_norm.weight");
        let norm = shapes.contains_key("norm.weight");
        if norm == fc_norm {
            return Err("expected either `norm` or `fc_norm` after the last block".into());
        }
        let heads = described.heads(width)?;
        Ok(VitConfig {
            depth,
            width,
            heads,
            mlp_hidden,
            patch,
            image_size: grid * patch,
            eps: described.eps(pre_norm),
            activation: described.activation()?,
            pool: described.pool(fc_norm)?,
            pre_norm,
            norm,
            fc_norm,
            distilled,
            pos_embed_prefix,
            patch_bias: shapes.contains_key("patch_embed.proj.bias"),
            qkv_bias: shapes.contains_key("blocks.0.attn.qkv.bias"),
            registers,
            layer_scale: shapes.contains_key("blocks.0.ls1.gamma"),
            swiglu,
            position_filter: PositionFilter::Antialiased,
        })
    }
}

/// What the JSON beside timm weights says (`config.json` of a hub repository, or `<weights>.json`).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ModelDescription {
    /// Name of the architecture, empty where it is not given.
    #[serde(default)]
    pub architecture: String,
    global_pool: Option<String>,
    #[serde(default)]
    model_args: BTreeMap<String, serde_json::Value>,
    pretrained_cfg: Option<PretrainedConfig>,
}

#[derive(Clone, Debug, Deserialize)]
struct PretrainedConfig {
    input_size: Option<[usize; 3]>,
    interpolation: Option<String>,
    crop_pct: Option<f64>,
    crop_mode: Option<String>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
}

impl ModelDescription {
    fn argument(&self, name: &str) -> Option<&serde_json::Value> {
        self.model_args.get(name)
    }

    /// Heads from `model_args.num_heads`, else by width as timm builds its named ViTs.
    fn heads(&self, width: usize) -> Result<usize, String> {
        let heads = match (self.argument("num_heads").and_then(|v| v.as_u64()), width) {
            (Some(heads), _) => heads as usize,
            // vit_so400m, vit_huge, vit_giant and vit_gigantic do not use heads of 64.
            (None, 1152 | 1280 | 1408 | 1664) => 16,
            (None, width) if width.is_multiple_of(64) => width / 64,
            (None, _) => {
                return Err(format!(
                    "the number of heads cannot be told from width {width}: add \"model_args\": {{\"num_heads\": …}} to the JSON"
                ));
            }
        };
        Ok(heads)
    }

    /// timm's ViTs use 1e-6; those with `norm_pre` (CLIP) use PyTorch's 1e-5; `model_args.norm_eps` overrides.
    fn eps(&self, pre_norm: bool) -> f32 {
        let default = if pre_norm { 1e-5 } else { 1e-6 };
        self.argument("norm_eps").and_then(|v| v.as_f64()).map_or(default, |eps| eps as f32)
    }

    fn activation(&self) -> Result<Activation, String> {
        match self.argument("act_layer").and_then(|v| v.as_str()) {
            Some("gelu") => Ok(Activation::Erf),
            Some("gelu_tanh") => Ok(Activation::Tanh),
            Some("quick_gelu" | "quickgelu") => Ok(Activation::Quick),
            Some(other) => Err(format!("activation `{other}` is not supported (gelu, gelu_tanh, quick_gelu)")),
            None if self.architecture.contains("quickgelu") => Ok(Activation::Quick),
            None => Ok(Activation::Erf),
        }
    }

    fn pool(&self, fc_norm: bool) -> Result<Pool, String> {
        match self.argument("global_pool").and_then(|v| v.as_str()).or(self.global_pool.as_deref()) {
            Some("token") => Ok(Pool::Token),
            Some("avg") => Ok(Pool::Avg),
            Some(other) => Err(format!("pooling `{other}` is not supported (token, avg)")),
            None if fc_norm => Ok(Pool::Avg),
            None => Ok(Pool::Token),
        }
    }

    /// The preprocessing these weights were trained with.
    ///
    /// # Errors
    /// A sentence that names what the JSON lacks: statistics are never assumed.
    pub fn preprocess(&self, image_size: usize) -> Result<Preprocess, String> {
        let cfg = self.pretrained_cfg.as_ref().ok_or("no `pretrained_cfg` with mean and std")?;
        let interpolation = match cfg.interpolation.as_deref() {
            Some("bicubic") => Interpolation::Bicubic,
            Some("bilinear") => Interpolation::Bilinear,
            other => return Err(format!("interpolation {other:?} is not supported (bicubic, bilinear)")),
        };
        let crop_mode = match cfg.crop_mode.as_deref() {
            None | Some("center") => CropMode::Center,
            Some("squash") => CropMode::Squash,
            Some("border") => CropMode::Border,
            Some(other) => return Err(format!("crop mode `{other}` is not supported (center, squash, border)")),
        };
        Ok(Preprocess {
            size: cfg.input_size.map_or(image_size, |[_, _, side]| side),
            crop_mode,
            crop_pct: cfg.crop_pct.ok_or("`pretrained_cfg.crop_pct` is missing")?,
            interpolation,
            mean: cfg.mean.ok_or("`pretrained_cfg.mean` is missing")?,
            std: cfg.std.ok_or("`pretrained_cfg.std` is missing")?,
        })
    }
}
