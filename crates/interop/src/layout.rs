//! Which module of others' models is which target of a plug-in, in both directions.

use crate::names::{Dialect, HF_BEIT, HF_CLIP, HF_DINOV2, HF_DINOV3, HF_SIGLIP, HF_VIT, OPEN_CLIP, Part, Place, TIMM};
use melo_vit::{Pool, Target, VitConfig};

/// How modules and tensors are named in what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// timm's: `blocks.0.attn.qkv`, `head`.
    Timm,
    /// Hugging Face's, as on disk and in transformers before version 5: `vit.encoder.layer.0.attention.attention.query`.
    HuggingFace,
    /// Hugging Face's modules since transformers 5: `vit.layers.0.attention.q_proj`.
    HuggingFaceNew,
}

/// What an update of one module changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Site {
    /// Query, key and value at once.
    Qkv,
    /// One target.
    One(Target),
}

impl Site {
    pub(crate) const ALL: [Site; 7] = [
        Site::Qkv,
        Site::One(Target::Q),
        Site::One(Target::K),
        Site::One(Target::V),
        Site::One(Target::O),
        Site::One(Target::Fc1),
        Site::One(Target::Fc2),
    ];

    /// timm's module within a block, and the share of its rows.
    fn place(self) -> (&'static str, Part) {
        match self {
            Site::Qkv => ("attn.qkv", Part::Whole),
            Site::One(Target::Q) => ("attn.qkv", Part::Q),
            Site::One(Target::K) => ("attn.qkv", Part::K),
            Site::One(Target::V) => ("attn.qkv", Part::V),
            Site::One(Target::O) => ("attn.proj", Part::Whole),
            Site::One(Target::Fc1) => ("mlp.fc1", Part::Whole),
            Site::One(Target::Fc2) => ("mlp.fc2", Part::Whole),
        }
    }

    /// `(in, out)` features.
    pub(crate) fn features(self, vit: &VitConfig) -> (usize, usize) {
        match self {
            Site::Qkv => (vit.width, 3 * vit.width),
            Site::One(target) => target.features(vit),
        }
    }
}

/// The dialects that adapters are named in, beside timm's own.
static DIALECTS: [&Dialect; 8] = [&HF_VIT, &HF_DINOV2, &HF_CLIP, &HF_SIGLIP, &OPEN_CLIP, &HF_DINOV3, &HF_BEIT, &TIMM];

/// Block and site of a module by its path in any known model; `None` for one that no target stands for.
pub(crate) fn site_of(module: &str) -> Option<(usize, Site)> {
    let name = format!("{module}.weight");
    // timm's names come first: Facebook's are the same but for a few.
    let own = Place { name: name.clone(), part: Part::Whole };
    let places = std::iter::once(own).chain(DIALECTS.iter().filter_map(|dialect| dialect.place(&name)));
    places.into_iter().find_map(|place| {
        let (block, inner) = place.name.strip_prefix("blocks.")?.strip_suffix(".weight")?.split_once('.')?;
        let canonical = block == "0" || !block.starts_with('0');
        let block = Some(block).filter(|b| canonical && b.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
        Site::ALL.into_iter().find(|site| site.place() == (inner, place.part)).map(|site| (block, site))
    })
}

/// Every path that a site of a block goes by in some known model.
pub(crate) fn paths_of(block: usize, site: Site) -> Vec<String> {
    let (inner, part) = site.place();
    let place = Place { name: format!("blocks.{block}.{inner}.weight"), part };
    let mut names = if matches!(part, Part::Whole) { vec![place.name.clone()] } else { Vec::new() };
    names.extend(DIALECTS.iter().flat_map(|dialect| dialect.names_of(&place)));
    names.iter().filter_map(|name| name.strip_suffix(".weight").map(str::to_owned)).collect()
}

/// True where some known model of this architecture has a module whose path is `name`, or ends in it.
pub(crate) fn has_module(vit: &VitConfig, name: &str) -> bool {
    let parts = [Part::Whole, Part::Q, Part::K, Part::V, Part::Gate, Part::Up];
    let tensors = vit.tensor_shapes().into_iter().flat_map(|(tensor, _)| {
        let own = std::iter::once(tensor.clone());
        let others = parts.map(|part| Place { name: tensor.clone(), part });
        let others =
            others.into_iter().flat_map(|place| DIALECTS.iter().flat_map(move |dialect| dialect.names_of(&place)));
        own.chain(others).collect::<Vec<_>>()
    });
    let ends = |module: &str| module.strip_suffix(name).is_some_and(|front| front.is_empty() || front.ends_with('.'));
    tensors.into_iter().any(|tensor| tensor.match_indices('.').any(|(end, _)| ends(&tensor[..end])))
}

/// Every path of a classifier.
pub(crate) const CLASSIFIERS: [&str; 6] =
    ["head", "head_dist", "classifier", "cls_classifier", "distillation_classifier", "fc"];

impl Layout {
    /// The path of a site's module; `None` where this layout's model has no such module.
    pub(crate) fn module(self, block: usize, site: Site, vit: &VitConfig) -> Option<String> {
        let (inner, part) = site.place();
        let module = format!("blocks.{block}.{inner}");
        if self == Layout::Timm {
            return (part == Part::Whole).then_some(module);
        }
        let in_mlp = matches!(site, Site::One(Target::Fc1 | Target::Fc2));
        let dialect = hugging_face_dialect(vit).filter(|_| !(vit.swiglu && in_mlp))?;
        let names = dialect.names_of(&Place { name: module, part });
        // CLIP's names never changed.
        let spelling = usize::from(self == Layout::HuggingFaceNew && names.len() > 1);
        names.into_iter().nth(spelling).map(|name| hugging_face_name(&name, vit))
    }

    /// The paths of the classifiers of class token and, where there is one, distillation token.
    pub(crate) fn classifiers(self, vit: &VitConfig) -> &'static [&'static str] {
        match (self, two_classifiers(vit)) {
            (Layout::Timm, false) => &["head"],
            (Layout::Timm, true) => &["head", "head_dist"],
            (_, false) => &["classifier"],
            (_, true) => &["cls_classifier", "distillation_classifier"],
        }
    }
}

/// The names of Hugging Face's image classifier of this architecture; `None` where there is none whose classifier reads the
/// same feature.
fn hugging_face_dialect(vit: &VitConfig) -> Option<&'static Dialect> {
    // DINOv3 has no classifier there, and BEiT's is another's.
    let other_positions = vit.rotary.is_some() || vit.relative_positions || !vit.pos_embed;
    if other_positions || vit.attn_norm || vit.mlp_norm || vit.qk_norm || vit.register_positions {
        return None;
    }
    match (vit.layer_scale, vit.pre_norm, vit.pool) {
        (false, false, Pool::Avg) if !vit.class_token && vit.norm && vit.registers == 0 => Some(&HF_SIGLIP),
        (true, false, Pool::TokenAvg) => Some(&HF_DINOV2),
        (false, true, Pool::Avg) if !vit.norm && !vit.fc_norm => Some(&HF_CLIP),
        (false, false, Pool::Token) if vit.registers == 0 => Some(&HF_VIT),
        _ => None,
    }
}

/// A name of Hugging Face's as its model of this architecture has it: the distilled ViT is DeiT, and DINOv2 with registers
/// has a name of its own.
pub(crate) fn hugging_face_name(name: &str, vit: &VitConfig) -> String {
    match (name.strip_prefix("vit."), name.strip_prefix("dinov2.")) {
        (Some(inner), _) if vit.distilled => format!("deit.{inner}"),
        (_, Some(inner)) if vit.registers > 0 => format!("dinov2_with_registers.{inner}"),
        _ => name.to_owned(),
    }
}

/// True where others have a classifier for each of two tokens and take the mean of both.
pub(crate) fn two_classifiers(vit: &VitConfig) -> bool {
    vit.distilled && vit.pool == Pool::Token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_a_site_leads_back_to_it() {
        for site in Site::ALL {
            for path in paths_of(11, site) {
                assert_eq!(site_of(&path), Some((11, site)), "{path}");
            }
        }
        for (path, site) in [
            ("blocks.0.attn.qkv", Site::Qkv),
            ("vit.encoder.layer.0.attention.attention.query", Site::One(Target::Q)),
            ("vit.layers.0.attention.o_proj", Site::One(Target::O)),
            ("dinov2.encoder.layer.0.attention.v_proj", Site::One(Target::V)),
            ("deit.encoder.layer.0.intermediate.dense", Site::One(Target::Fc1)),
            ("vision_model.encoder.layers.0.self_attn.k_proj", Site::One(Target::K)),
        ] {
            assert_eq!(site_of(path), Some((0, site)), "{path}");
        }
    }

    #[test]
    fn modules_of_a_model_are_known_by_the_ends_of_their_paths() {
        let vit = VitConfig::base();
        for name in ["norm", "patch_embed", "blocks.0.norm1", "layernorm", "embeddings", "layernorm_before"] {
            assert!(has_module(&vit, name), "{name}");
        }
        for name in ["score", "nothing", "orm", "classifier"] {
            assert!(!has_module(&vit, name), "{name}");
        }
    }

    #[test]
    fn what_is_no_projection_of_a_block_has_no_site() {
        let paths = [
            "",
            "head",
            "patch_embed.proj",
            "blocks.x.attn.qkv",
            "blocks.01.attn.qkv",
            "blocks.0.norm1",
            "../blocks.0.attn.qkv",
            "blocks.99999999999999999999.attn.qkv",
            "vit.embeddings.patch_embeddings.projection",
        ];
        for path in paths {
            assert_eq!(site_of(path), None, "{path}");
        }
    }
}
