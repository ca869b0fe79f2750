//! The architecture of timm's weights: from their tensors' shapes, and from what their description says beside.

use crate::config::{PositionFilter, VitConfig};
use crate::invalid::Invalid;
use crate::model_description::ModelDescription;
use std::collections::BTreeMap;

impl VitConfig {
    /// Reads the architecture from the tensors' shapes, and from `described` what shapes cannot tell.
    ///
    /// # Errors
    /// [`Invalid`] for the tensor or the setting that is missing, inconsistent or not supported.
    pub fn infer(shapes: &BTreeMap<String, Vec<usize>>, described: &ModelDescription) -> Result<VitConfig, Invalid> {
        let wrong = |tensor, reason: String| Err(Invalid::new(tensor, reason));
        let missing = |name| {
            let first =
                shapes.keys().next().map_or_else(String::new, |first| format!("; its first tensor is `{first}`"));
            Invalid::new(name, format!("not a timm ViT: tensor `{name}` is missing{first}"))
        };
        let shape = |name| shapes.get(name).ok_or_else(|| missing(name));
        let &[width, 3, patch, patch_x] = shape("patch_embed.proj.weight")?.as_slice() else {
            let reason = "`patch_embed.proj.weight` is not [d, 3, p, p]; only three-channel ViTs are supported";
            return wrong("patch_embed.proj.weight", reason.into());
        };
        if patch != patch_x || patch == 0 || width == 0 {
            let reason = format!("`patch_size`: patches of {patch} × {patch_x} pixels are not supported");
            return wrong("patch_embed.proj.weight", reason);
        }
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
        let class_token = shapes.contains_key("cls_token");
        let prefix = usize::from(class_token) + usize::from(distilled);
        let registers = shapes.get("reg_token").map_or(0, |shape| shape.iter().product::<usize>() / width);
        let relative = shapes.get("blocks.0.attn.relative_position_bias_table");
        let side_of_relative = || {
            let apart = relative?.first()?.checked_sub(3)?.isqrt();
            (apart % 2 == 1 && relative?.first() == Some(&(apart * apart + 3))).then_some(apart.div_ceil(2))
        };
        let has_pos_embed = shapes.contains_key("pos_embed") || relative.is_none() && described.has_pos_embed()?;
        let positions = match (has_pos_embed, relative) {
            (true, _) => {
                let &[_, positions, _] = shape("pos_embed")?.as_slice() else {
                    return wrong("pos_embed", "`pos_embed` is not [1, t, d]".into());
                };
                positions
            }
            (false, Some(table)) => match side_of_relative() {
                Some(side) => prefix + side * side,
                None => {
                    let reason =
                        format!("`relative_position_bias_table` {table:?} has no row a distance in a square grid");
                    return wrong("relative_position_bias_table", reason);
                }
            },
            (false, None) => {
                let side = described.image_size()?.unwrap_or(224) / patch;
                side.saturating_pow(2).saturating_add(prefix)
            }
        };
        let side = |count: usize| Some(count.isqrt()).filter(|side| side * side == count && *side > 0);
        // Positions of the patches alone, after those of class tokens, or after those of registers too.
        let grids = [0, prefix, prefix + registers].map(|front| side(positions.saturating_sub(front)));
        let (grid, pos_embed_prefix, register_positions) = match grids {
            [Some(grid), ..] if prefix == 0 => (grid, registers == 0 || !has_pos_embed, false),
            [_, Some(grid), _] => (grid, true, false),
            [Some(grid), ..] => (grid, false, false),
            [.., Some(grid)] => (grid, true, true),
            [None, None, None] => {
                let lacks = if class_token { "" } else { "tensor `cls_token` is missing, and " };
                let reason =
                    format!("{lacks}`pos_embed` has {positions} positions, which is no square grid (`img_size`)");
                return wrong("pos_embed", reason);
            }
        };
        let pre_norm = shapes.contains_key("norm_pre.weight");
        let fc_norm = shapes.contains_key("fc_norm.weight");
        let norm = shapes.contains_key("norm.weight");
        if norm == fc_norm {
            return wrong("norm", "expected either `norm` or `fc_norm` after the last block".into());
        }
        let config = VitConfig {
            depth,
            width,
            heads: described.heads(width, depth, mlp_hidden)?,
            mlp_hidden,
            patch,
            image_size: grid * patch,
            eps: described.eps(pre_norm),
            activation: described.activation(swiglu)?,
            pool: described.pool(fc_norm, (class_token, shapes.contains_key("attn_pool.latent")))?,
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
            class_token,
            register_positions,
            qk_norm: shapes.contains_key("blocks.0.attn.q_norm.weight"),
            pos_embed: has_pos_embed,
            rotary: described.rotary()?,
            relative_positions: relative.is_some(),
            attn_norm: shapes.contains_key("blocks.0.attn.norm.weight"),
            mlp_norm: shapes.contains_key("blocks.0.mlp.norm.weight"),
        };
        described.agrees_with(&config)?;
        Ok(config)
    }
}
