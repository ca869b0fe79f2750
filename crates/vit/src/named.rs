//! The plain ViTs of timm by their names: shape and preprocessing, without weights.

use crate::checkpoint::Description;
use crate::config::{Activation, Pool, PositionFilter, VitConfig};
use crate::error::Error;
use crate::invalid::Invalid;
use crate::model_description::ModelDescription;
use crate::preprocess::{CropMode, Preprocess};
use crate::timm_names::Named;
use serde_json::json;

/// A size as timm's `vision_transformer.py` builds it.
struct Size {
    name: &'static str,
    width: usize,
    depth: usize,
    heads: usize,
    /// `int(width · mlp_ratio)`: the ratio is 4, of giant 48/11 and of gigantic 64/13.
    mlp_hidden: usize,
}

const SIZES: [Size; 7] = [
    Size { name: "tiny", width: 192, depth: 12, heads: 3, mlp_hidden: 768 },
    Size { name: "small", width: 384, depth: 12, heads: 6, mlp_hidden: 1536 },
    Size { name: "base", width: 768, depth: 12, heads: 12, mlp_hidden: 3072 },
    Size { name: "large", width: 1024, depth: 24, heads: 16, mlp_hidden: 4096 },
    Size { name: "huge", width: 1280, depth: 32, heads: 16, mlp_hidden: 5120 },
    Size { name: "giant", width: 1408, depth: 40, heads: 16, mlp_hidden: 6144 },
    Size { name: "gigantic", width: 1664, depth: 48, heads: 16, mlp_hidden: 8192 },
];

/// Images from this side on are not cropped: timm's `crop_pct` is 0.9 for 224 and 1.0 for 384.
const UNCROPPED_FROM: usize = 384;
/// Most names that are said to be near one.
const NEAR: usize = 3;

impl VitConfig {
    /// `vit_base_patch16_224`, as timm builds it: the plain ViT, of which other shapes say only where they differ.
    pub fn base() -> Self {
        VitConfig {
            depth: 12,
            width: 768,
            heads: 12,
            mlp_hidden: 3072,
            patch: 16,
            image_size: 224,
            eps: 1e-6,
            activation: Activation::Erf,
            pool: Pool::Token,
            pre_norm: false,
            norm: true,
            fc_norm: false,
            distilled: false,
            pos_embed_prefix: true,
            patch_bias: true,
            qkv_bias: true,
            registers: 0,
            layer_scale: false,
            swiglu: false,
            position_filter: PositionFilter::Antialiased,
            class_token: true,
            register_positions: false,
            qk_norm: false,
            pos_embed: true,
            rotary: None,
            relative_positions: false,
            attn_norm: false,
            mlp_norm: false,
        }
    }
}

impl Description {
    /// The architecture that timm calls `name`, such as `deit_tiny_patch16_224`, with the preprocessing of its first recipe. A
    /// training recipe after a dot (`.augreg_in21k`) changes no shape and is passed over. Beside timm's names,
    /// `vit_SIZE_patchP_S` is understood with any patch and image side that fit together.
    ///
    /// # Errors
    /// [`Error::UnknownArchitecture`].
    pub fn named(name: &str) -> Result<Self, Error> {
        let unknown = |reason: String| Error::UnknownArchitecture { name: name.to_owned(), reason };
        let wrong = |error: Invalid| unknown(error.reason);
        let description = match Named::of(name) {
            Some(named) => of_timm(&named).map_err(wrong)?,
            None => of_form(name).ok_or_else(|| unknown(expected(name)))?,
        };
        description.check().map_err(wrong)?;
        Ok(Description { name: name.to_owned(), ..description })
    }
}

/// A line of timm's table.
fn of_timm(named: &Named) -> Result<Description, Invalid> {
    named.refuse_special()?;
    let said = json!({ "architecture": named.name, "pretrained_cfg": named.pretrained_cfg() });
    let model = ModelDescription::new(said)?;
    let swiglu = named.activation == "silu";
    let (fc_norm, class_token) = (named.has("fc_norm"), !named.has("no_class_token"));
    let pos_embed = !named.has("no_pos_embed");
    let config = VitConfig {
        depth: named.depth,
        width: named.width,
        heads: named.heads,
        mlp_hidden: named.mlp_hidden,
        patch: named.patch,
        image_size: named.image_size,
        eps: named.eps,
        activation: model.activation(swiglu)?,
        pool: model.pool(fc_norm, (class_token, named.pool == "map"))?,
        pre_norm: named.has("norm_pre"),
        norm: !fc_norm,
        fc_norm,
        distilled: named.has("distilled"),
        pos_embed_prefix: !(pos_embed && named.has("no_embed_class")) || !class_token && named.registers == 0,
        patch_bias: named.has("patch_bias"),
        qkv_bias: named.has("qkv_bias"),
        registers: named.registers,
        layer_scale: named.has("ls"),
        swiglu,
        position_filter: PositionFilter::Antialiased,
        class_token,
        register_positions: pos_embed && named.registers > 0 && !named.has("no_embed_class"),
        qk_norm: named.has("qk_norm"),
        pos_embed,
        rotary: named.rotary(),
        relative_positions: named.has("relative"),
        attn_norm: named.has("attn_norm"),
        mlp_norm: named.has("mlp_norm"),
    };
    let preprocess = model.preprocess(config.image_size)?;
    Ok(Description { name: named.name.to_owned(), config, preprocess })
}

/// `vit_SIZE_patchP_S` of a size that timm has, with the preprocessing of timm's plain ViTs.
fn of_form(name: &str) -> Option<Description> {
    let model = name.split_once('.').map_or(name, |(model, _recipe)| model);
    let (size, sides) = model.strip_prefix("vit_")?.split_once("_patch")?;
    let (patch, image) = sides.split_once('_')?;
    let size = SIZES.iter().find(|known| known.name == size)?;
    let (patch, image_size) = (patch.parse().ok()?, image.parse().ok()?);
    let config = VitConfig {
        depth: size.depth,
        width: size.width,
        heads: size.heads,
        mlp_hidden: size.mlp_hidden,
        patch,
        image_size,
        ..VitConfig::base()
    };
    let preprocess = Preprocess {
        crop_mode: CropMode::Center,
        crop_pct: if image_size < UNCROPPED_FROM { 0.9 } else { 1.0 },
        ..Preprocess::base(image_size)
    };
    Some(Description { name: name.to_owned(), config, preprocess })
}

/// What could have been meant by a name that is none.
fn expected(name: &str) -> String {
    let form = "expected timm's name of a plain ViT, or vit_SIZE_patchP_S with SIZE one of tiny, small, base, large, huge, \
                giant, gigantic";
    match near(name).as_slice() {
        [] => form.to_owned(),
        near => format!("near it are {}; {form}", near.join(", ")),
    }
}

/// The names that are nearest to one, the nearest first: up to [`NEAR`] that differ in less than a third of the letters.
fn near(name: &str) -> Vec<&'static str> {
    let mut near: Vec<(usize, &str)> = Named::plain().map(|named| (edits(name, named.name), named.name)).collect();
    near.retain(|(edits, _)| 3 * edits < name.len());
    near.sort_unstable();
    near.into_iter().map(|(_, name)| name).take(NEAR).collect()
}

/// Letters to insert, remove or replace that make one name of another (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let to = to.as_bytes();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::Interpolation;

    /// Parameters with a classifier of 1000 classes, as `sum(p.numel() for p in timm.create_model(name).parameters())`
    /// gives them.
    #[test]
    fn parameters_are_timm_s() {
        for (name, expected) in [
            ("vit_tiny_patch16_224", 5_717_416),
            ("vit_small_patch16_224", 22_050_664),
            ("vit_small_patch32_224", 22_878_952),
            ("vit_base_patch16_224", 86_567_656),
            ("vit_base_patch32_224", 88_224_232),
            ("vit_base_patch16_384", 86_859_496),
            ("vit_large_patch16_224", 304_326_632),
            ("vit_large_patch16_384", 304_715_752),
            ("vit_huge_patch14_224", 632_045_800),
            ("vit_giant_patch14_224", 1_012_611_432),
            ("vit_gigantic_patch14_224", 1_844_440_680),
        ] {
            let config = Description::named(name).unwrap().config;
            assert_eq!(config.parameters() + 1000 * (config.width + 1), expected, "{name}");
        }
        assert_eq!(Description::named("vit_base_patch16_224").unwrap().config, VitConfig::base());
    }

    #[test]
    fn every_plain_name_of_the_table_is_an_architecture_of_timm_s_parameters() {
        let golden = include_str!("../tests/golden/timm_parameters.tsv");
        let mut names = Vec::new();
        for line in golden.lines().filter(|line| !line.starts_with('#')) {
            let (name, parameters) = line.split_once('\t').unwrap();
            let Description { name: own, config, preprocess } = Description::named(name).unwrap();
            assert_eq!((own.as_str(), config.parameters().to_string()), (name, parameters.to_owned()));
            assert_eq!(preprocess.size, config.image_size, "{name}");
            names.push(name);
        }
        let mut plain: Vec<&str> = Named::plain().map(|named| named.name).collect();
        names.sort_unstable();
        plain.sort_unstable();
        assert_eq!(names, plain);
    }

    #[test]
    fn what_a_name_says_beside_shapes_is_taken() {
        let deit = Description::named("deit_tiny_patch16_224.fb_in1k").unwrap();
        assert_eq!((deit.name.as_str(), deit.config.heads), ("deit_tiny_patch16_224.fb_in1k", 3));
        assert_eq!((deit.preprocess.crop_pct, deit.preprocess.mean), (0.9, [0.485, 0.456, 0.406]));
        let clip = Description::named("vit_base_patch32_clip_quickgelu_224").unwrap().config;
        assert_eq!((clip.activation, clip.eps, clip.pre_norm), (Activation::Quick, 1e-5, true));
        let dinov2 = Description::named("vit_giant_patch14_reg4_dinov2").unwrap().config;
        assert_eq!((dinov2.swiglu, dinov2.registers, dinov2.image_size), (true, 4, 518));
        let eva = Description::named("eva_large_patch14_336").unwrap();
        assert_eq!((eva.config.pool, eva.preprocess.crop_mode), (Pool::Avg, CropMode::Squash));
        let miil = Description::named("vit_base_patch16_224_miil").unwrap();
        assert_eq!((miil.config.qkv_bias, miil.preprocess.interpolation), (false, Interpolation::Bilinear));
    }

    #[test]
    fn models_of_timm_that_are_no_plain_vit_are_refused_by_what_they_are() {
        for (name, part) in [
            ("resnet50", "a model of timm's resnet"),
            ("vit_small_patch16_18x2_224", "ParallelThingsBlock"),
            ("aimv2_large_patch14_224", "RmsNorm"),
        ] {
            let error = Description::named(name).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(part), "{error}");
        }
    }

    #[test]
    fn names_that_are_near_are_said() {
        for (name, near) in [
            ("deit_tiny_patch_16_224", "deit_tiny_patch16_224"),
            ("vit_base_patch16_dinov2", "vit_base_patch14_dinov2"),
            ("vit_bsae_patch16_224", "vit_base_patch16_224"),
        ] {
            let error = Description::named(name).unwrap_err().to_string();
            assert!(error.contains(&format!("near it are {near}")), "{error}");
        }
        assert!(!Description::named("my_model").unwrap_err().to_string().contains("near"));
    }

    #[test]
    fn the_plain_vit_stays_what_digests_were_taken_of() {
        let sizes =
            r#"{"depth":12,"width":768,"heads":12,"mlp_hidden":3072,"patch":16,"image_size":224,"eps":0.000001"#;
        let parts = r#","activation":"erf","pool":"token","pre_norm":false,"norm":true,"fc_norm":false"#;
        let more = r#","distilled":false,"pos_embed_prefix":true,"patch_bias":true,"qkv_bias":true}"#;
        assert_eq!(serde_json::to_string(&VitConfig::base()).unwrap(), [sizes, parts, more].concat());
    }

    #[test]
    fn recipes_are_passed_over_and_sizes_of_others_understood() {
        let base = Description::named("vit_base_patch16_224.augreg2_in21k_ft_in1k").unwrap();
        assert_eq!((base.config.width, base.config.image_size, base.preprocess.crop_pct), (768, 224, 0.9));
        let large = Description::named("vit_large_patch16_384").unwrap();
        assert_eq!((large.preprocess.size, large.preprocess.crop_pct), (384, 1.0));
        assert_eq!(Description::named("vit_tiny_patch8_32").unwrap().config.tokens(32), 17);
    }

    #[test]
    fn what_is_no_such_name_is_refused_by_it() {
        for name in ["", "vit", "vit_medium_patch16_224", "vit_base_patch16", "vit_base_patchx_224"] {
            let error = Description::named(name).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")) && error.contains("gigantic"), "{error}");
        }
        for (name, part) in [
            ("vit_base_patch16_225", "225"),
            ("vit_base_patch0_224", "patch 0"),
            ("vit_base_patch16_0", "image_size 0"),
            ("vit_base_patch16_8192", "8192"),
        ] {
            let error = Description::named(name).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
