//! The architectures that the laws are tried on, and what every law needs: images, settings, closeness.

use crate::tiny;
use melo_vit::{
    Activation, Adapter, Engine, Head, ImageBatch, LoraConfig, PluginRef, Pool, PositionFilter, Rotary, RotaryGrid,
    RotaryPairs, Target, VitConfig,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Each a departure from [`tiny::config`] that some published ViT makes.
pub(crate) fn variants() -> Vec<(&'static str, VitConfig)> {
    let plain = tiny::config();
    vec![
        ("augreg", plain.clone()),
        (
            "clip",
            VitConfig { pre_norm: true, activation: Activation::Quick, patch_bias: false, eps: 1e-5, ..plain.clone() },
        ),
        ("tanh", VitConfig { activation: Activation::Tanh, qkv_bias: false, heads: 4, ..plain.clone() }),
        ("distilled", VitConfig { distilled: true, ..plain.clone() }),
        (
            "distilled, positions of patches alone",
            VitConfig { distilled: true, pos_embed_prefix: false, ..plain.clone() },
        ),
        ("positions of patches alone", VitConfig { pos_embed_prefix: false, ..plain.clone() }),
        ("mean of tokens, then norm", VitConfig { pool: Pool::Avg, norm: false, fc_norm: true, ..plain.clone() }),
        ("norm, then mean of tokens", VitConfig { pool: Pool::Avg, pre_norm: true, ..plain.clone() }),
        ("class token, then norm", VitConfig { norm: false, fc_norm: true, eps: 1e-3, ..plain.clone() }),
        ("no norm at the end", VitConfig { pool: Pool::Avg, norm: false, ..plain.clone() }),
        ("dinov2", VitConfig { layer_scale: true, ..plain.clone() }),
        (
            "dinov2 with registers",
            VitConfig { layer_scale: true, registers: 3, pos_embed_prefix: false, ..plain.clone() },
        ),
        ("registers beside positions of the class token", VitConfig { registers: 2, ..plain.clone() }),
        ("swiglu", VitConfig { layer_scale: true, swiglu: true, ..plain.clone() }),
        (
            "dinov3",
            VitConfig {
                layer_scale: true,
                registers: 2,
                pos_embed: false,
                rotary: Some(Rotary::DINOV3),
                pool: Pool::Token,
                eps: 1e-5,
                ..plain.clone()
            },
        ),
        (
            "rotary positions, mean of tokens, gated",
            VitConfig {
                swiglu: true,
                pos_embed: false,
                rotary: Some(Rotary::DINOV3),
                pool: Pool::Avg,
                ..plain.clone()
            },
        ),
        (
            "eva-02",
            VitConfig {
                swiglu: true,
                mlp_norm: true,
                attn_norm: true,
                rotary: Some(Rotary {
                    temperature: 10000.0,
                    grid: RotaryGrid::Numbered(5),
                    pairs: RotaryPairs::Neighbours,
                }),
                pool: Pool::Avg,
                norm: false,
                fc_norm: true,
                ..plain.clone()
            },
        ),
        (
            "beit",
            VitConfig {
                layer_scale: true,
                pos_embed: false,
                relative_positions: true,
                pool: Pool::Avg,
                norm: false,
                fc_norm: true,
                ..plain.clone()
            },
        ),
        (
            "beit's class token, as hugging face",
            VitConfig {
                pos_embed: false,
                relative_positions: true,
                position_filter: PositionFilter::Plain,
                ..plain.clone()
            },
        ),
        (
            "class token and mean",
            VitConfig { pool: Pool::TokenAvg, registers: 1, position_filter: PositionFilter::Plain, ..plain.clone() },
        ),
        ("no class token", VitConfig { class_token: false, pool: Pool::Avg, ..plain.clone() }),
        (
            "no class token, registers",
            VitConfig {
                class_token: false,
                registers: 2,
                pos_embed_prefix: false,
                layer_scale: true,
                pool: Pool::Avg,
                ..plain.clone()
            },
        ),
        ("registers with positions", VitConfig { registers: 2, register_positions: true, ..plain.clone() }),
        ("siglip", VitConfig { class_token: false, pool: Pool::Map, activation: Activation::Tanh, ..plain.clone() }),
        ("attention pooling beside a class token", VitConfig { pool: Pool::Map, norm: false, ..plain.clone() }),
        ("qk_norm", VitConfig { qk_norm: true, ..plain.clone() }),
        ("qk_norm and a mean", VitConfig { qk_norm: true, class_token: false, pool: Pool::Avg, ..plain.clone() }),
        ("qk_norm, then rotary positions", VitConfig { qk_norm: true, rotary: Some(Rotary::DINOV3), ..plain.clone() }),
        (
            "qk_norm and relative positions",
            VitConfig { qk_norm: true, pos_embed: false, relative_positions: true, ..plain.clone() },
        ),
        (
            "rotary positions, registers, no class token",
            VitConfig {
                class_token: false,
                registers: 1,
                pos_embed: false,
                rotary: Some(Rotary {
                    temperature: 10000.0,
                    grid: RotaryGrid::Numbered(3),
                    pairs: RotaryPairs::Neighbours,
                }),
                layer_scale: true,
                pool: Pool::Avg,
                norm: false,
                fc_norm: true,
                ..plain
            },
        ),
    ]
}

/// `n` images of side `size`, in the range of normalised pixels.
pub(crate) fn images(n: usize, size: usize, seed: u64) -> ImageBatch {
    ImageBatch { size, data: tiny::random(n * 3 * size * size, 2.0, &mut ChaCha8Rng::seed_from_u64(seed)) }
}

/// The images at `indices`.
pub(crate) fn pick(batch: &ImageBatch, indices: impl IntoIterator<Item = usize>) -> ImageBatch {
    let len = 3 * batch.size * batch.size;
    let data = indices.into_iter().flat_map(|i| &batch.data[i * len..(i + 1) * len]).copied().collect();
    ImageBatch { size: batch.size, data }
}

/// Settings on all blocks of [`tiny::config`].
pub(crate) fn lora(rank: usize, alpha: f32, targets: &[Target]) -> LoraConfig {
    LoraConfig { rank, alpha, targets: targets.to_vec(), blocks: vec![0, 1], ..LoraConfig::none() }
}

/// The same settings with rank-stabilised scales and a rank of its own for one block.
pub(crate) fn patterned(lora: LoraConfig, block: usize, rank: usize) -> LoraConfig {
    LoraConfig { rslora: true, rank_pattern: BTreeMap::from([(block, rank)]), ..lora }
}

/// Logits of all images of a batch.
pub(crate) fn logits(engine: &dyn Engine, batch: &ImageBatch, adapter: Option<&Adapter>, head: &Head) -> Vec<f32> {
    let plugin = PluginRef { adapter, head };
    engine.logits(batch, batch.len(), batch.size, plugin).expect("images of this size are tiled")
}

/// Names of the tensors of gradients, in their order.
pub(crate) fn gradient_names(adapter: &Adapter, head: &Head, config: &VitConfig, all_weights: bool) -> Vec<String> {
    let weights = if all_weights { config.tensor_shapes() } else { Vec::new() };
    let shapes = adapter.tensor_shapes(config).into_iter().chain(head.shapes()).chain(weights);
    shapes.map(|(name, _)| name).collect()
}

/// Whether a parameter changes no logit: without rotations the bias of the keys' norm adds the same, `q · bias`, to all scores of a query,
/// which softmax does not see. Its slopes are roundings.
pub(crate) fn is_unseen(name: &str, config: &VitConfig) -> bool {
    name.ends_with("attn.k_norm.bias") && config.rotary.is_none()
}

/// Largest magnitude.
pub(crate) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |a, b| a.max(b.abs()))
}

/// Largest difference.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "lengths");
    // A NaN is no distance: it must not be lost in a maximum.
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |worst, d| if d <= worst { worst } else { d })
}

/// Asserts that the same numbers were computed in another order: f32 sums of up to 48 terms, through some 40 operations
/// one after the other, whose roundings (6e-8 each) mostly cancel.
pub(crate) fn assert_reordered(found: &[f32], expected: &[f32], what: &str) {
    assert_within(2e-5, found, expected, what);
}

/// Asserts that no number is off by more than this share of the largest.
pub(crate) fn assert_within(share: f32, found: &[f32], expected: &[f32], what: &str) {
    let bound = share * largest(expected);
    let error = distance(found, expected);
    assert!(bound > 0.0 && error <= bound, "{what}: differs by {error:e}, more than {bound:e}");
}
