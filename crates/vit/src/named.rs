//! The plain ViTs of timm by their names, `vit_SIZE_patchP_S`: shape and preprocessing, without weights.

use crate::checkpoint::Description;
use crate::config::{Activation, Pool, PositionFilter, VitConfig};
use crate::error::Error;
use crate::preprocess::{CropMode, Preprocess};

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
        }
    }
}

impl Description {
    /// The architecture that timm calls `name`, such as `vit_base_patch16_224`, with the preprocessing that timm gives it
    /// by default. A training recipe after a dot (`.augreg_in21k`) changes no shape and is passed over; any patch and image
    /// side that fit together are understood, also those that timm has no name for.
    ///
    /// # Errors
    /// [`Error::UnknownArchitecture`].
    pub fn named(name: &str) -> Result<Self, Error> {
        let unknown = |reason: &str| Error::UnknownArchitecture { name: name.to_owned(), reason: reason.to_owned() };
        let form = "expected vit_SIZE_patchP_S with SIZE one of tiny, small, base, large, huge, giant, gigantic";
        let (size, patch, image_size) = parts(name).ok_or_else(|| unknown(form))?;
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
        let description = Description { name: name.to_owned(), config, preprocess };
        description.check().map_err(|error| unknown(&error.reason))?;
        Ok(description)
    }
}

fn parts(name: &str) -> Option<(&'static Size, usize, usize)> {
    let model = name.split_once('.').map_or(name, |(model, _recipe)| model);
    let (size, sides) = model.strip_prefix("vit_")?.split_once("_patch")?;
    let (patch, image) = sides.split_once('_')?;
    let size = SIZES.iter().find(|known| known.name == size)?;
    Some((size, patch.parse().ok()?, image.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for name in ["", "vit", "resnet50", "vit_medium_patch16_224", "vit_base_patch16", "vit_base_patchx_224"] {
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
