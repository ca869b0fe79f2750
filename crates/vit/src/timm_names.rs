//! What timm's named Vision Transformers are, of which no tensor's shape tells all, from timm itself (`tools/golden/timm_names.py`).

use crate::invalid::Invalid;
use crate::rotary::{Rotary, RotaryGrid, RotaryPairs};
use serde_json::{Value, json};

const TABLE: &str = include_str!("timm_names.tsv");

/// An architecture by its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) width: usize,
    pub(crate) depth: usize,
    pub(crate) mlp_hidden: usize,
    pub(crate) heads: usize,
    pub(crate) eps: f32,
    pub(crate) activation: &'static str,
    pub(crate) pool: &'static str,
    pub(crate) registers: usize,
    /// Which of its parts a model has: `norm_pre`, `fc_norm`, `ls`, `no_embed_class`, `distilled`, `patch_bias`, `qkv_bias`,
    /// `qk_norm`, `relative`, `attn_norm`, `mlp_norm`; or `no_class_token`, `no_pos_embed`; and `rope:` with temperature, `centered` or the
    /// side of the grid, `halves` or `neighbours`.
    parts: &'static str,
    /// Side of a patch, pixels.
    pub(crate) patch: usize,
    /// Side of the images that its positions are made for, pixels.
    pub(crate) image_size: usize,
    crop_pct: f64,
    crop_mode: &'static str,
    interpolation: &'static str,
    /// Of the channels, three numbers with spaces between; so is `std`.
    mean: &'static str,
    std: &'static str,
    /// Classes of timm's that are not the plain ones; empty for a plain ViT.
    pub(crate) special: &'static str,
}

impl Named {
    /// The architecture of a name, with or without the training recipe after a dot.
    pub(crate) fn of(name: &str) -> Option<Named> {
        let model = name.split_once('.').map_or(name, |(model, _recipe)| model);
        all().find(|named| named.name == model)
    }

    /// All names of plain ViTs.
    pub(crate) fn plain() -> impl Iterator<Item = Named> {
        all().filter(|named| named.special.is_empty())
    }

    /// Preprocessing of its first recipe, as timm's `pretrained_cfg`.
    pub(crate) fn pretrained_cfg(&self) -> Value {
        let channels = |text: &str| text.split(' ').filter_map(|value| value.parse::<f64>().ok()).collect::<Vec<f64>>();
        json!({
            "crop_pct": self.crop_pct,
            "crop_mode": self.crop_mode,
            "interpolation": self.interpolation,
            "mean": channels(self.mean),
            "std": channels(self.std),
        })
    }

    /// Whether it has a part.
    pub(crate) fn has(&self, part: &str) -> bool {
        self.parts.split(' ').any(|own| own == part)
    }

    /// Rotary positions, where it has any.
    pub(crate) fn rotary(&self) -> Option<Rotary> {
        let mut said = self.parts.split(' ').find_map(|part| part.strip_prefix("rope:"))?.split(':');
        Some(Rotary {
            temperature: said.next()?.parse().ok()?,
            grid: match said.next()? {
                "centered" => RotaryGrid::Centered,
                side => RotaryGrid::Numbered(side.parse().ok()?),
            },
            pairs: match said.next()? {
                "halves" => RotaryPairs::Halves,
                _ => RotaryPairs::Neighbours,
            },
        })
    }

    /// The heads that all plain ViTs of this shape have which pool their class token; none where they differ or there is none.
    pub(crate) fn heads_of_shape(width: usize, depth: usize, mlp_hidden: usize) -> Option<usize> {
        let shape = |named: &Named| (named.width, named.depth, named.mlp_hidden) == (width, depth, mlp_hidden);
        let mut of_shape = Named::plain().filter(|named| named.pool == "token" && shape(named));
        let heads = of_shape.next()?.heads;
        of_shape.all(|named| named.heads == heads).then_some(heads)
    }

    /// Refuses an architecture whose parts compute something else under the names of the plain ones.
    pub(crate) fn refuse_special(&self) -> Result<(), Invalid> {
        match self.special {
            "" => Ok(()),
            special => {
                let reason = format!("architecture `{}` is no plain ViT: {special} is not supported", self.name);
                Err(Invalid::new("architecture", reason))
            }
        }
    }
}

fn all() -> impl Iterator<Item = Named> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut cells = line.split('\t');
        let mut next = || cells.next();
        Some(Named {
            name: next()?,
            width: next()?.parse().ok()?,
            depth: next()?.parse().ok()?,
            mlp_hidden: next()?.parse().ok()?,
            heads: next()?.parse().ok()?,
            eps: next()?.parse().ok()?,
            activation: next()?,
            pool: next()?,
            registers: next()?.parse().ok()?,
            parts: next()?,
            patch: next()?.parse().ok()?,
            image_size: next()?.parse().ok()?,
            crop_pct: next()?.parse().ok()?,
            crop_mode: next()?,
            interpolation: next()?,
            mean: next()?,
            std: next()?,
            special: next()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        assert_eq!(all().count(), TABLE.lines().count() - 1);
    }

    #[test]
    fn names_tell_what_sizes_do_not() {
        let heads = |name: &str| Named::of(name).map(|named| named.heads);
        assert_eq!(heads("test_vit"), Some(2));
        assert_eq!(heads("vit_base_patch16_224.augreg2_in21k_ft_in1k"), Some(12));
        assert_eq!(heads("vit_base_patch16_gap_224"), Some(16));
        assert_eq!(heads("vit_base_patch16_224_in21k"), Some(12));
        assert_eq!(heads("my_vit"), None);
        assert_eq!(Named::of("vit_base_patch16_clip_quickgelu_224").unwrap().activation, "quick_gelu");
        assert!(Named::of("vit_base_patch16_rpn_224").unwrap().refuse_special().is_err());
        let registers = Named::of("vit_small_patch14_reg4_dinov2").unwrap();
        assert!(registers.has("ls") && !registers.has("norm_pre") && registers.registers == 4);
    }

    #[test]
    fn positions_of_other_kinds_are_said_beside() {
        let dinov3 = Named::of("vit_small_patch16_dinov3").unwrap();
        assert_eq!((dinov3.rotary(), dinov3.has("no_pos_embed"), dinov3.registers), (Some(Rotary::DINOV3), true, 4));
        let eva = Named::of("eva02_base_patch14_448").unwrap();
        let (grid, pairs) = (RotaryGrid::Numbered(16), RotaryPairs::Neighbours);
        assert_eq!(eva.rotary(), Some(Rotary { temperature: 10000.0, grid, pairs }));
        assert!(eva.has("mlp_norm") && !eva.has("no_pos_embed"));
        assert!(Named::of("beitv2_base_patch16_224").unwrap().has("relative"));
    }

    #[test]
    fn a_published_shape_has_its_heads_and_another_has_none() {
        assert_eq!(Named::heads_of_shape(768, 12, 3072), Some(12));
        assert_eq!(Named::heads_of_shape(1280, 32, 5120), Some(16));
        assert_eq!(Named::heads_of_shape(1536, 40, 4096), Some(24));
        assert_eq!(Named::heads_of_shape(192, 11, 768), None);
    }
}
