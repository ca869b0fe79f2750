//! The architecture of timm's weights: from their tensors' shapes, the JSON beside them, and timm's naming rules.

use crate::config::{Activation, Pool, PositionFilter, VitConfig};
use crate::invalid::Invalid;
use crate::preprocess::{CropMode, Interpolation, Preprocess};
use crate::rendering::Rendering;
use serde::Deserialize;
use std::collections::BTreeMap;

impl VitConfig {
    /// Reads the architecture from the tensors' shapes, and from `described` what shapes cannot tell.
    ///
    /// # Errors
    /// [`Invalid`] for the tensor or the setting that is missing, inconsistent or not supported.
    pub fn infer(shapes: &BTreeMap<String, Vec<usize>>, described: &ModelDescription) -> Result<VitConfig, Invalid> {
        let wrong = |tensor, reason: String| Err(Invalid::new(tensor, reason));
        let missing = |name| Invalid::new(name, format!("not a timm ViT: tensor `{name}` is missing"));
        let shape = |name| shapes.get(name).ok_or_else(|| missing(name));
        let &[width, 3, patch, patch_x] = shape("patch_embed.proj.weight")?.as_slice() else {
            let reason = "`patch_embed.proj.weight` is not [d, 3, p, p]; only three-channel ViTs are supported";
            return wrong("patch_embed.proj.weight", reason.into());
        };
        if patch != patch_x || patch == 0 || width == 0 {
            let reason = format!("patches of {patch} × {patch_x} pixels are not supported");
            return wrong("patch_embed.proj.weight", reason);
        }
        shape("cls_token")?;
        let depth = (0..).take_while(|i| shapes.contains_key(&format!("blocks.{i}.attn.qkv.weight"))).count();
        let &[fc1_out, _] = shape("blocks.0.mlp.fc1.weight")?.as_slice() else {
            return wrong("blocks.0.mlp.fc1.weight", "`blocks.0.mlp.fc1.weight` is not a matrix".into());
        };
        let &[_, mlp_hidden] = shape("blocks.0.mlp.fc2.weight")?.as_slice() else {
            return wrong("blocks.0.mlp.fc2.weight", "`blocks.0.mlp.fc2.weight` is not a matrix".into());
        };
        let swiglu = mlp_hidden > 0 && mlp_hidden.checked_mul(2) == Some(fc1_out);
        if !swiglu && mlp_hidden != fc1_out {
            let reason = format!("`blocks.0.mlp.fc1.weight` gives {fc1_out} values and `fc2` reads {mlp_hidden}");
            return wrong("blocks.0.mlp.fc1.weight", reason);
        }
        let distilled = shapes.contains_key("dist_token");
        let prefix = 1 + usize::from(distilled);
        let registers = shapes.get("reg_token").map_or(0, |shape| shape.iter().product::<usize>() / width);
        let &[_, positions, _] = shape("pos_embed")?.as_slice() else {
            return wrong("pos_embed", "`pos_embed` is not [1, t, d]".into());
        };
        let side = |count: usize| Some(count.isqrt()).filter(|side| side * side == count && *side > 0);
        let (grid, pos_embed_prefix) = match (side(positions.saturating_sub(prefix)), side(positions)) {
            (Some(grid), _) => (grid, true),
            (None, Some(grid)) => (grid, false),
            _ if side(positions.saturating_sub(prefix + registers)).is_some() => {
                let reason = "`pos_embed` has positions for register tokens, which are not supported";
                return wrong("pos_embed", reason.into());
            }
            _ => {
                let reason = format!("`pos_embed` has {positions} positions, which is no square grid");
                return wrong("pos_embed", reason);
            }
        };
        let pre_norm = shapes.contains_key("norm_pre.weight");
        let fc_norm = shapes.contains_key("fc_norm.weight");
        let norm = shapes.contains_key("norm.weight");
        if norm == fc_norm {
            return wrong("norm", "expected either `norm` or `fc_norm` after the last block".into());
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
    fn heads(&self, width: usize) -> Result<usize, Invalid> {
        let heads = match (self.argument("num_heads").and_then(|v| v.as_u64()), width) {
            (Some(heads), _) => heads as usize,
            // vit_so400m, vit_huge, vit_giant and vit_gigantic do not use heads of 64.
            (None, 1152 | 1280 | 1408 | 1664) => 16,
            (None, width) if width.is_multiple_of(64) => width / 64,
            (None, _) => {
                let json = "\"model_args\": {\"num_heads\": …}";
                let reason = format!("the number of heads cannot be told from width {width}: add {json} to the JSON");
                return Err(Invalid::new("num_heads", reason));
            }
        };
        Ok(heads)
    }

    /// timm's ViTs use 1e-6; those with `norm_pre` (CLIP) use PyTorch's 1e-5; `model_args.norm_eps` overrides.
    fn eps(&self, pre_norm: bool) -> f32 {
        let default = if pre_norm { 1e-5 } else { 1e-6 };
        self.argument("norm_eps").and_then(|v| v.as_f64()).map_or(default, |eps| eps as f32)
    }

    fn activation(&self) -> Result<Activation, Invalid> {
        match self.argument("act_layer").and_then(|v| v.as_str()) {
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

    fn pool(&self, fc_norm: bool) -> Result<Pool, Invalid> {
        match self.argument("global_pool").and_then(|v| v.as_str()).or(self.global_pool.as_deref()) {
            Some("token") => Ok(Pool::Token),
            Some("avg") => Ok(Pool::Avg),
            Some(other) => {
                let reason = format!("pooling `{other}` is not supported (token, avg)");
                Err(Invalid::new("global_pool", reason))
            }
            None if fc_norm => Ok(Pool::Avg),
            None => Ok(Pool::Token),
        }
    }

    /// The preprocessing these weights were trained with.
    ///
    /// # Errors
    /// [`Invalid`] for the field that the JSON lacks, or that is not supported: statistics are never assumed.
    pub fn preprocess(&self, image_size: usize) -> Result<Preprocess, Invalid> {
        let none = || Invalid::new("pretrained_cfg", "no `pretrained_cfg` with mean and std");
        let missing = |field| Invalid::new(field, format!("`pretrained_cfg.{field}` is missing"));
        let cfg = self.pretrained_cfg.as_ref().ok_or_else(none)?;
        let interpolation = match cfg.interpolation.as_deref() {
            Some("bicubic") => Interpolation::Bicubic,
            Some("bilinear") => Interpolation::Bilinear,
            other => {
                let reason = format!("interpolation {other:?} is not supported (bicubic, bilinear)");
                return Err(Invalid::new("interpolation", reason));
            }
        };
        let crop_mode = match cfg.crop_mode.as_deref() {
            None | Some("center") => CropMode::Center,
            Some("squash") => CropMode::Squash,
            Some("border") => CropMode::Border,
            Some(other) => {
                let reason = format!("crop mode `{other}` is not supported (center, squash, border)");
                return Err(Invalid::new("crop_mode", reason));
            }
        };
        Ok(Preprocess {
            size: cfg.input_size.map_or(image_size, |[_, _, side]| side),
            crop_mode,
            crop_pct: cfg.crop_pct.ok_or_else(|| missing("crop_pct"))?,
            interpolation,
            mean: cfg.mean.ok_or_else(|| missing("mean"))?,
            std: cfg.std.ok_or_else(|| missing("std"))?,
            rendering: Rendering::default(),
        })
    }
}
