//! What others call the tensors of a Vision Transformer: one table a dialect, read in both directions.
//!
//! A name is a module of timm's (`blocks.3.attn.qkv`) with `weight` or `bias`, or a parameter of its own (`cls_token`).
//! `*` stands for the block's number.

/// Which share of timm's tensor another tensor holds; shares are stacked along the first axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// All of it.
    Whole,
    /// Query, the first third of the rows of `attn.qkv`.
    Q,
    /// Key, the second third.
    K,
    /// Value, the last third.
    V,
    /// Gate of a SwiGLU, the first half of the rows of `mlp.fc1`.
    Gate,
    /// What is gated, the second half.
    Up,
}

impl Part {
    /// `(index, count)`: this is the `index`-th of `count` equal shares of the rows.
    pub fn share(self) -> (usize, usize) {
        match self {
            Part::Whole => (0, 1),
            Part::Q => (0, 3),
            Part::K => (1, 3),
            Part::V => (2, 3),
            Part::Gate => (0, 2),
            Part::Up => (1, 2),
        }
    }
}

/// Where a tensor of another dialect belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// timm's name of the tensor.
    pub name: String,
    /// The share of it.
    pub part: Part,
}

/// timm's name, the share of it, and its names in a dialect, the one that is written first.
type Rule = (&'static str, Part, &'static [&'static str]);

/// How a family of checkpoints names its tensors.
#[derive(Debug)]
pub struct Dialect {
    /// For people.
    pub name: &'static str,
    /// What may stand in front of every name of the backbone; the one that is written first.
    prefixes: &'static [&'static str],
    rules: &'static [Rule],
    /// Beginnings of names that no feature of an image depends on.
    ignored: &'static [&'static str],
    /// Names without a rule are timm's.
    timm: bool,
    /// Tensors that may be without one of their parts.
    lacking: &'static [Lacking],
}

/// A part that may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacking {
    /// The bias of keys beside those of queries and values: zeros. It moves all scores of a query alike.
    KeyBias,
    /// The gate of an MLP: what is left is all of a plain one.
    Gate,
}

use Part::{Gate, K, Q, Up, V, Whole};

/// Hugging Face's ViT, DeiT and ViT-MAE: the names on disk, then those of the modules since transformers 5.
pub static HF_VIT: Dialect = Dialect {
    name: "Hugging Face ViT",
    prefixes: &["vit.", "deit.", ""],
    rules: &[
        ("cls_token", Whole, &["embeddings.cls_token"]),
        ("dist_token", Whole, &["embeddings.distillation_token"]),
        ("pos_embed", Whole, &["embeddings.position_embeddings"]),
        ("patch_embed.proj", Whole, &["embeddings.patch_embeddings.projection"]),
        ("blocks.*.norm1", Whole, &["encoder.layer.*.layernorm_before", "layers.*.layernorm_before"]),
        ("blocks.*.attn.qkv", Q, &["encoder.layer.*.attention.attention.query", "layers.*.attention.q_proj"]),
        ("blocks.*.attn.qkv", K, &["encoder.layer.*.attention.attention.key", "layers.*.attention.k_proj"]),
        ("blocks.*.attn.qkv", V, &["encoder.layer.*.attention.attention.value", "layers.*.attention.v_proj"]),
        ("blocks.*.attn.proj", Whole, &["encoder.layer.*.attention.output.dense", "layers.*.attention.o_proj"]),
        ("blocks.*.norm2", Whole, &["encoder.layer.*.layernorm_after", "layers.*.layernorm_after"]),
        ("blocks.*.mlp.fc1", Whole, &["encoder.layer.*.intermediate.dense", "layers.*.mlp.fc1"]),
        ("blocks.*.mlp.fc2", Whole, &["encoder.layer.*.output.dense", "layers.*.mlp.fc2"]),
        ("norm", Whole, &["layernorm"]),
        ("head", Whole, &["classifier", "cls_classifier"]),
        ("head_dist", Whole, &["distillation_classifier"]),
    ],
    ignored: &["pooler.", "decoder.", "embeddings.mask_token"],
    timm: false,
    lacking: &[],
};

/// Hugging Face's DINOv2, with and without registers.
pub static HF_DINOV2: Dialect = Dialect {
    name: "Hugging Face DINOv2",
    prefixes: &["dinov2.", "dinov2_with_registers.", ""],
    rules: &[
        ("cls_token", Whole, &["embeddings.cls_token"]),
        ("reg_token", Whole, &["embeddings.register_tokens"]),
        ("pos_embed", Whole, &["embeddings.position_embeddings"]),
        ("patch_embed.proj", Whole, &["embeddings.patch_embeddings.projection"]),
        ("blocks.*.norm1", Whole, &["encoder.layer.*.norm1"]),
        ("blocks.*.attn.qkv", Q, &["encoder.layer.*.attention.attention.query", "encoder.layer.*.attention.q_proj"]),
        ("blocks.*.attn.qkv", K, &["encoder.layer.*.attention.attention.key", "encoder.layer.*.attention.k_proj"]),
        ("blocks.*.attn.qkv", V, &["encoder.layer.*.attention.attention.value", "encoder.layer.*.attention.v_proj"]),
        ("blocks.*.attn.proj", Whole, &["encoder.layer.*.attention.output.dense", "encoder.layer.*.attention.o_proj"]),
        ("blocks.*.ls1.gamma", Whole, &["encoder.layer.*.layer_scale1.lambda1"]),
        ("blocks.*.norm2", Whole, &["encoder.layer.*.norm2"]),
        // `weights_in` holds gate and gated together, as timm's `fc1` does.
        ("blocks.*.mlp.fc1", Whole, &["encoder.layer.*.mlp.fc1", "encoder.layer.*.mlp.weights_in"]),
        ("blocks.*.mlp.fc1", Gate, &["encoder.layer.*.mlp.gate_proj"]),
        ("blocks.*.mlp.fc1", Up, &["encoder.layer.*.mlp.up_proj"]),
        (
            "blocks.*.mlp.fc2",
            Whole,
            &["encoder.layer.*.mlp.fc2", "encoder.layer.*.mlp.weights_out", "encoder.layer.*.mlp.down_proj"],
        ),
        ("blocks.*.ls2.gamma", Whole, &["encoder.layer.*.layer_scale2.lambda1"]),
        ("norm", Whole, &["layernorm"]),
        ("head", Whole, &["classifier"]),
    ],
    ignored: &["embeddings.mask_token"],
    timm: false,
    lacking: &[],
};

/// Hugging Face's DINOv3; the encoder is `model` since transformers 5.
pub static HF_DINOV3: Dialect = Dialect {
    name: "Hugging Face DINOv3",
    prefixes: &["", "model.", "dinov3_vit.", "dinov3_vit.model."],
    rules: &[
        ("cls_token", Whole, &["embeddings.cls_token"]),
        ("reg_token", Whole, &["embeddings.register_tokens"]),
        ("patch_embed.proj", Whole, &["embeddings.patch_embeddings"]),
        ("blocks.*.norm1", Whole, &["layer.*.norm1"]),
        ("blocks.*.attn.qkv", Q, &["layer.*.attention.q_proj"]),
        ("blocks.*.attn.qkv", K, &["layer.*.attention.k_proj"]),
        ("blocks.*.attn.qkv", V, &["layer.*.attention.v_proj"]),
        ("blocks.*.attn.proj", Whole, &["layer.*.attention.o_proj"]),
        ("blocks.*.ls1.gamma", Whole, &["layer.*.layer_scale1.lambda1"]),
        ("blocks.*.norm2", Whole, &["layer.*.norm2"]),
        ("blocks.*.mlp.fc1", Gate, &["layer.*.mlp.gate_proj"]),
        ("blocks.*.mlp.fc1", Up, &["layer.*.mlp.up_proj"]),
        ("blocks.*.mlp.fc2", Whole, &["layer.*.mlp.down_proj"]),
        ("blocks.*.ls2.gamma", Whole, &["layer.*.layer_scale2.lambda1"]),
        ("norm", Whole, &["norm"]),
        ("head", Whole, &["classifier"]),
    ],
    ignored: &["embeddings.mask_token", "rope_embeddings."],
    timm: false,
    lacking: &[Lacking::KeyBias, Lacking::Gate],
};

/// Hugging Face's BEiT and Data2Vec vision: the names on disk, then those of the modules since transformers 5.
pub static HF_BEIT: Dialect = Dialect {
    name: "Hugging Face BEiT",
    prefixes: &["beit.", "data2vec_vision.", ""],
    rules: &[
        ("cls_token", Whole, &["embeddings.cls_token"]),
        ("pos_embed", Whole, &["embeddings.position_embeddings"]),
        ("patch_embed.proj", Whole, &["embeddings.patch_embeddings.projection"]),
        (
            "rel_pos_bias.relative_position_bias_table",
            Whole,
            &[
                "encoder.relative_position_bias.relative_position_bias_table",
                "relative_position_bias.relative_position_bias_table",
            ],
        ),
        ("blocks.*.norm1", Whole, &["encoder.layer.*.layernorm_before", "layers.*.layernorm_before"]),
        ("blocks.*.attn.qkv", Q, &["encoder.layer.*.attention.attention.query", "layers.*.attention.q_proj"]),
        ("blocks.*.attn.qkv", K, &["encoder.layer.*.attention.attention.key", "layers.*.attention.k_proj"]),
        ("blocks.*.attn.qkv", V, &["encoder.layer.*.attention.attention.value", "layers.*.attention.v_proj"]),
        (
            "blocks.*.attn.relative_position_bias_table",
            Whole,
            &[
                "encoder.layer.*.attention.attention.relative_position_bias.relative_position_bias_table",
                "layers.*.relative_position_bias.relative_position_bias_table",
            ],
        ),
        ("blocks.*.attn.proj", Whole, &["encoder.layer.*.attention.output.dense", "layers.*.attention.o_proj"]),
        ("blocks.*.ls1.gamma", Whole, &["encoder.layer.*.lambda_1", "layers.*.lambda_1"]),
        ("blocks.*.norm2", Whole, &["encoder.layer.*.layernorm_after", "layers.*.layernorm_after"]),
        ("blocks.*.mlp.fc1", Whole, &["encoder.layer.*.intermediate.dense", "layers.*.mlp.fc1"]),
        ("blocks.*.mlp.fc2", Whole, &["encoder.layer.*.output.dense", "layers.*.mlp.fc2"]),
        ("blocks.*.ls2.gamma", Whole, &["encoder.layer.*.lambda_2", "layers.*.lambda_2"]),
        ("norm", Whole, &["layernorm"]),
        // Of the mean of the patches.
        ("fc_norm", Whole, &["pooler.layernorm"]),
        ("head", Whole, &["classifier"]),
    ],
    ignored: &["embeddings.mask_token", "lm_head.", "decode_head.", "auxiliary_head.", "fpn"],
    timm: false,
    lacking: &[Lacking::KeyBias],
};

/// Hugging Face's CLIP vision tower, alone or inside a whole CLIP.
pub static HF_CLIP: Dialect = Dialect {
    name: "Hugging Face CLIP",
    prefixes: &["vision_model.", "clip.vision_model.", ""],
    rules: &[
        ("cls_token", Whole, &["embeddings.class_embedding"]),
        ("pos_embed", Whole, &["embeddings.position_embedding.weight"]),
        ("patch_embed.proj", Whole, &["embeddings.patch_embedding"]),
        ("norm_pre", Whole, &["pre_layrnorm"]),
        ("blocks.*.norm1", Whole, &["encoder.layers.*.layer_norm1"]),
        ("blocks.*.attn.qkv", Q, &["encoder.layers.*.self_attn.q_proj"]),
        ("blocks.*.attn.qkv", K, &["encoder.layers.*.self_attn.k_proj"]),
        ("blocks.*.attn.qkv", V, &["encoder.layers.*.self_attn.v_proj"]),
        ("blocks.*.attn.proj", Whole, &["encoder.layers.*.self_attn.out_proj"]),
        ("blocks.*.norm2", Whole, &["encoder.layers.*.layer_norm2"]),
        ("blocks.*.mlp.fc1", Whole, &["encoder.layers.*.mlp.fc1"]),
        ("blocks.*.mlp.fc2", Whole, &["encoder.layers.*.mlp.fc2"]),
        ("norm", Whole, &["post_layernorm"]),
        ("head", Whole, &["visual_projection", "classifier"]),
    ],
    ignored: &["text_model.", "text_projection.", "logit_scale", "embeddings.position_ids"],
    timm: false,
    lacking: &[],
};

/// Hugging Face's SigLIP vision tower (SigLIP 2 and MedSigLIP too), alone, inside a whole SigLIP or under a classifier.
pub static HF_SIGLIP: Dialect = Dialect {
    name: "Hugging Face SigLIP",
    prefixes: &["vision_model.", "siglip.vision_model.", ""],
    rules: &[
        ("pos_embed", Whole, &["embeddings.position_embedding.weight"]),
        ("patch_embed.proj", Whole, &["embeddings.patch_embedding"]),
        ("blocks.*.norm1", Whole, &["encoder.layers.*.layer_norm1"]),
        ("blocks.*.attn.qkv", Q, &["encoder.layers.*.self_attn.q_proj"]),
        ("blocks.*.attn.qkv", K, &["encoder.layers.*.self_attn.k_proj"]),
        ("blocks.*.attn.qkv", V, &["encoder.layers.*.self_attn.v_proj"]),
        ("blocks.*.attn.proj", Whole, &["encoder.layers.*.self_attn.out_proj"]),
        ("blocks.*.norm2", Whole, &["encoder.layers.*.layer_norm2"]),
        ("blocks.*.mlp.fc1", Whole, &["encoder.layers.*.mlp.fc1"]),
        ("blocks.*.mlp.fc2", Whole, &["encoder.layers.*.mlp.fc2"]),
        ("norm", Whole, &["post_layernorm"]),
        ("attn_pool.latent", Whole, &["head.probe"]),
        // PyTorch holds the projections of query, key and value together: `Renamed` takes them apart.
        ("attn_pool.qkv.weight", Whole, &["head.attention.in_proj_weight"]),
        ("attn_pool.qkv.bias", Whole, &["head.attention.in_proj_bias"]),
        ("attn_pool.proj", Whole, &["head.attention.out_proj"]),
        ("attn_pool.norm", Whole, &["head.layernorm"]),
        ("attn_pool.mlp.fc1", Whole, &["head.mlp.fc1"]),
        ("attn_pool.mlp.fc2", Whole, &["head.mlp.fc2"]),
        ("head", Whole, &["classifier"]),
    ],
    ignored: &["text_model.", "logit_scale", "logit_bias", "embeddings.position_ids"],
    timm: false,
    lacking: &[],
};

/// OpenAI's own CLIP files and open_clip's: the vision tower is `visual`.
pub static OPEN_CLIP: Dialect = Dialect {
    name: "OpenAI CLIP",
    prefixes: &["visual.", ""],
    rules: &[
        ("cls_token", Whole, &["class_embedding"]),
        ("pos_embed", Whole, &["positional_embedding"]),
        ("patch_embed.proj", Whole, &["conv1"]),
        ("norm_pre", Whole, &["ln_pre"]),
        ("blocks.*.norm1", Whole, &["transformer.resblocks.*.ln_1"]),
        ("blocks.*.attn.qkv.weight", Whole, &["transformer.resblocks.*.attn.in_proj_weight"]),
        ("blocks.*.attn.qkv.bias", Whole, &["transformer.resblocks.*.attn.in_proj_bias"]),
        ("blocks.*.attn.proj", Whole, &["transformer.resblocks.*.attn.out_proj"]),
        ("blocks.*.norm2", Whole, &["transformer.resblocks.*.ln_2"]),
        ("blocks.*.mlp.fc1", Whole, &["transformer.resblocks.*.mlp.c_fc"]),
        ("blocks.*.mlp.fc2", Whole, &["transformer.resblocks.*.mlp.c_proj"]),
        ("norm", Whole, &["ln_post"]),
        // `[d, c]`, a classifier with its axes the other way round.
        ("head.weight", Whole, &["proj"]),
    ],
    ignored: &[
        "token_embedding.",
        "ln_final.",
        "text_projection",
        "logit_scale",
        "input_resolution",
        "context_length",
        "vocab_size",
        "attn_mask",
    ],
    timm: false,
    lacking: &[],
};

/// timm, and the files of Facebook Research (DeiT, DINO, DINOv2, MAE), whose names are timm's but for a few.
pub static TIMM: Dialect = Dialect {
    name: "timm",
    prefixes: &["", "backbone."],
    rules: &[
        ("reg_token", Whole, &["register_tokens", "storage_tokens"]),
        // timm's `Eva` and `Beit`, then their authors'.
        ("blocks.*.attn.qkv", Q, &["blocks.*.attn.q_proj"]),
        ("blocks.*.attn.qkv", K, &["blocks.*.attn.k_proj"]),
        ("blocks.*.attn.qkv", V, &["blocks.*.attn.v_proj"]),
        ("blocks.*.attn.qkv.bias", Q, &["blocks.*.attn.q_bias"]),
        ("blocks.*.attn.qkv.bias", V, &["blocks.*.attn.v_bias"]),
        ("blocks.*.attn.norm", Whole, &["blocks.*.attn.inner_attn_ln"]),
        ("blocks.*.ls1.gamma", Whole, &["blocks.*.gamma_1"]),
        ("blocks.*.ls2.gamma", Whole, &["blocks.*.gamma_2"]),
        ("blocks.*.mlp.fc1", Gate, &["blocks.*.mlp.fc1_g", "blocks.*.mlp.w1"]),
        ("blocks.*.mlp.fc1", Up, &["blocks.*.mlp.fc1_x", "blocks.*.mlp.w2"]),
        ("blocks.*.mlp.norm", Whole, &["blocks.*.mlp.ffn_ln"]),
        ("blocks.*.mlp.fc1", Whole, &["blocks.*.mlp.w12"]),
        ("blocks.*.mlp.fc2", Whole, &["blocks.*.mlp.w3"]),
    ],
    // The projection heads of DINO's self-distillation and the decoder of MAE see no task.
    // Periods of rotary positions are what the architecture says; DINOv3's second last norm is for crops in its own training.
    ignored: &[
        "mask_token",
        "decoder_",
        "decoder.",
        "head.mlp.",
        "head.last_layer.",
        "dino_head.",
        "rope_embed.",
        "local_cls_norm.",
        "lm_head.",
    ],
    timm: true,
    lacking: &[Lacking::KeyBias],
};

/// Ends of names of what follows from the architecture.
const COMPUTED: [&str; 3] = ["relative_position_index", "rope.freqs_cos", "rope.freqs_sin"];

impl Dialect {
    /// Where `name` belongs; `None` for a name of no rule, which is timm's own in [`TIMM`].
    pub fn place(&self, name: &str) -> Option<Place> {
        let inner = self.strip(name);
        let ruled = self.rules.iter().find_map(|(timm, part, names)| {
            let found = names.iter().find_map(|pattern| match_module(pattern, inner))?;
            Some(Place { name: fill(timm, found.block) + found.suffix, part: *part })
        });
        ruled.or_else(|| self.timm.then(|| Place { name: inner.to_owned(), part: Whole }))
    }

    /// The dialect's name of a place, as it is written; `None` where the dialect has no such tensor.
    pub fn name_of(&self, place: &Place) -> Option<String> {
        self.names_of(place).into_iter().next()
    }

    /// All the dialect's names of a place, the one that is written first.
    pub(crate) fn names_of(&self, place: &Place) -> Vec<String> {
        let mut rules = self.rules.iter().filter(|(_, part, _)| *part == place.part);
        let found = rules.find_map(|(timm, _, names)| Some((timm, names, match_module(timm, &place.name)?)));
        found.map_or_else(Vec::new, |(timm, names, found)| {
            let outside = matches!(*timm, "head" | "head_dist");
            let prefix = if outside { "" } else { self.prefixes[0] };
            names.iter().map(|name| format!("{prefix}{}{}", fill(name, found.block), found.suffix)).collect()
        })
    }

    /// Whether this part may be absent.
    pub(crate) fn may_lack(&self, lacking: Lacking) -> bool {
        self.lacking.contains(&lacking)
    }

    /// True for a tensor that no feature of an image depends on.
    pub fn ignores(&self, name: &str) -> bool {
        let inner = self.strip(name);
        if COMPUTED.iter().any(|end| inner.ends_with(end)) {
            return true;
        }
        self.ignored.iter().any(|ignored| inner.starts_with(ignored))
    }

    /// What stands in front of the name of a patch projection, beyond the dialect's own prefixes; `None` for any other tensor.
    pub(crate) fn wrapping<'a>(&self, name: &'a str) -> Option<&'a str> {
        let mut names =
            self.rules.iter().filter(|(timm, ..)| *timm == "patch_embed.proj").flat_map(|(.., names)| *names);
        let is_own = |module: &str| -> Option<&'a str> {
            let front = name.strip_suffix(&format!("{module}.weight"))?;
            (front.is_empty() || front.ends_with('.')).then_some(front)
        };
        let front = match self.timm {
            true => is_own("patch_embed.proj"),
            false => names.find_map(|module| is_own(module)),
        }?;
        let outer =
            self.prefixes.iter().filter_map(|prefix| front.strip_suffix(prefix)).min_by_key(|outer| outer.len());
        outer.filter(|outer| outer.is_empty() || outer.ends_with('.'))
    }

    /// The name without what stands in front of every name.
    pub fn strip<'a>(&self, name: &'a str) -> &'a str {
        let found = self.prefixes.iter().filter_map(|prefix| name.strip_prefix(prefix)).min_by_key(|rest| rest.len());
        found.unwrap_or(name)
    }
}

/// What a pattern left open.
struct Found<'a> {
    block: Option<usize>,
    /// `.weight` or `.bias` of a module; empty for a parameter.
    suffix: &'a str,
}

/// Matches a name with a pattern: as it stands, or as the module in front of `.weight` or `.bias`.
fn match_module<'a>(pattern: &str, name: &'a str) -> Option<Found<'a>> {
    let suffix = [".weight", ".bias"].into_iter().find(|suffix| name.ends_with(suffix)).unwrap_or("");
    let (module, suffix) = name.split_at(name.len() - suffix.len());
    match_number(pattern, name)
        .map(|block| Found { block, suffix: "" })
        .or_else(|| match_number(pattern, module).map(|block| Found { block, suffix }))
}

/// The number at the pattern's `*`; `Some(None)` where a pattern without one is the name.
fn match_number(pattern: &str, name: &str) -> Option<Option<usize>> {
    let Some((before, after)) = pattern.split_once('*') else {
        return (pattern == name).then_some(None);
    };
    let digits = name.strip_prefix(before)?.strip_suffix(after)?;
    let canonical = digits == "0" || !digits.starts_with('0');
    (canonical && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok().map(Some))?
}

fn fill(pattern: &str, block: Option<usize>) -> String {
    match block {
        Some(block) => pattern.replace('*', &block.to_string()),
        None => pattern.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str, part: Part) -> Option<Place> {
        Some(Place { name: name.to_owned(), part })
    }

    #[test]
    fn old_and_new_names_of_hugging_face_are_one_place() {
        for name in ["vit.encoder.layer.11.attention.attention.key.bias", "layers.11.attention.k_proj.bias"] {
            assert_eq!(HF_VIT.place(name), place("blocks.11.attn.qkv.bias", K), "{name}");
        }
        assert_eq!(HF_DINOV2.place("dinov2.encoder.layer.0.layer_scale1.lambda1"), place("blocks.0.ls1.gamma", Whole));
        assert_eq!(HF_CLIP.place("vision_model.embeddings.position_embedding.weight"), place("pos_embed", Whole));
        assert_eq!(
            OPEN_CLIP.place("visual.transformer.resblocks.2.attn.in_proj_weight").unwrap().name,
            "blocks.2.attn.qkv.weight"
        );
        assert_eq!(TIMM.place("blocks.1.mlp.w12.weight"), place("blocks.1.mlp.fc1.weight", Whole));
    }

    #[test]
    fn names_of_nothing_have_no_place() {
        for name in [
            "vit.encoder.layer.x.layernorm_before.weight",
            "vit.encoder.layer.01.layernorm_before.weight",
            "",
            "pooler.dense.weight",
        ] {
            assert_eq!(HF_VIT.place(name), None, "{name}");
        }
        assert!(HF_VIT.ignores("vit.pooler.dense.weight") && !HF_VIT.ignores("vit.layernorm.weight"));
        assert!(HF_CLIP.ignores("text_model.embeddings.token_embedding.weight"));
    }

    #[test]
    fn what_is_written_is_read_at_the_same_place() {
        for dialect in [&HF_VIT, &HF_DINOV2, &HF_DINOV3, &HF_BEIT, &HF_CLIP, &HF_SIGLIP, &OPEN_CLIP, &TIMM] {
            for (timm, part, _) in dialect.rules {
                let parameter =
                    ["_token", "pos_embed", "latent", "gamma", "qkv.weight", "qkv.bias", "head.weight", "table"]
                        .iter()
                        .any(|end| timm.ends_with(end));
                let name = fill(timm, timm.contains('*').then_some(7)) + if parameter { "" } else { ".weight" };
                let place = Place { name, part: *part };
                let written = dialect.name_of(&place).unwrap_or_else(|| panic!("{}: {place:?}", dialect.name));
                assert_eq!(dialect.place(&written), Some(place), "{}: {written}", dialect.name);
            }
        }
    }
}
