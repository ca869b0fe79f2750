//! How each trained tensor is stepped: whether weight decay applies, and its share of the learning rate.

use crate::adamw::TensorStep;
use crate::config::TrainConfig;
use melo_vit::Decoder;

/// How much faster a head that gives masks learns than low-rank updates do: it has a hundred times a classifier's parameters, from random
/// numbers, and as many steps. On `nuclei_dsb` with three classes, 1 was far from done after 20 epochs (`docs/decisions/0022-masks.md`).
pub(crate) const MASK_HEAD_RATE: f64 = 4.0;

/// The share of the rate at which the embedding of volumes learns: it begins as the backbone's own, whose weights learn at a tenth of it
/// wherever they are trained (`docs/decisions/0023-volumes.md`). Depth positions, which begin at nothing, learn at the whole.
pub(crate) const VOLUME_EMBED_RATE: f64 = 0.1;

/// The step of every tensor of `shapes`, on a backbone of `depth` blocks, of a head that gives `masks` or a classifier.
pub(crate) fn tensor_steps(
    shapes: &[(String, Vec<usize>)],
    config: &TrainConfig,
    depth: usize,
    masks: bool,
) -> Vec<TensorStep> {
    let is_head = |name: &str| name.starts_with("head.") || name.starts_with(Decoder::PREFIX);
    shapes
        .iter()
        .map(|(name, shape)| {
            let plus = if name.ends_with(".lora_b") { config.lora_plus } else { 1.0 };
            let head = if masks && is_head(name) { MASK_HEAD_RATE } else { 1.0 };
            let volume = if name.starts_with("volume_embed.proj.") { VOLUME_EMBED_RATE } else { 1.0 };
            TensorStep { decays: decays(name, shape), rate: plus * head * volume * layer_rate(name, config, depth) }
        })
        .collect()
}

/// Weight decay applies to matrices, not to biases, norms, tokens or positions.
fn decays(name: &str, shape: &[usize]) -> bool {
    let is_relative = name.ends_with("relative_position_bias_table");
    let is_token =
        matches!(name, "cls_token" | "dist_token" | "pos_embed" | "attn_pool.latent" | "volume_embed.depth_pos");
    shape.len() > 1 && !is_relative && !is_token
}

/// `layer_decay^(layers above)`: 1 for the head and the last norm, `layer_decay^(depth - i)` for block `i`, and
/// `layer_decay^(depth + 1)` for everything before the blocks (BEiT, arXiv 2106.08254, and MAE's fine-tuning code).
fn layer_rate(name: &str, config: &TrainConfig, depth: usize) -> f64 {
    let first = name.split('.').next().unwrap_or(name);
    let above = match first {
        "cls_token" | "dist_token" | "pos_embed" | "patch_embed" | "norm_pre" => depth + 1,
        "blocks" => {
            let index = name.split('.').nth(1).and_then(|index| index.parse::<usize>().ok());
            depth - index.expect("blocks are numbered")
        }
        _ => 0,
    };
    config.layer_decay.powi(i32::try_from(above).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Method;
    use crate::pretrain::small_vit;
    use melo_vit::{Adapter, Bottlenecks, Head, VitConfig};

    fn full(layer_decay: f64) -> Vec<(String, TensorStep)> {
        let vit = VitConfig { norm: false, fc_norm: true, ..small_vit().0 };
        let config = TrainConfig { layer_decay, ..TrainConfig::for_method(Method::Full, vit.depth) };
        let mut shapes = Head::tensor_shapes(3, vit.feature_width());
        shapes.extend(vit.tensor_shapes());
        let steps = tensor_steps(&shapes, &config, vit.depth, false);
        shapes.into_iter().map(|(name, _)| name).zip(steps).collect()
    }

    #[test]
    fn rates_fall_from_the_head_to_the_embeddings() {
        let steps = full(0.5);
        let rate = |wanted: &str| steps.iter().find(|(name, _)| name == wanted).unwrap().1.rate;
        assert_eq!([rate("head.weight"), rate("head.bias"), rate("fc_norm.weight")], [1.0; 3]);
        // `small_vit` has 8 blocks: the last is one below the head, the first eight, the embeddings nine.
        assert_eq!(rate("blocks.7.mlp.fc2.weight"), 0.5);
        assert_eq!(rate("blocks.7.norm1.bias"), 0.5);
        assert_eq!(rate("blocks.4.attn.qkv.weight"), 0.0625);
        assert_eq!(rate("blocks.0.attn.qkv.weight"), 0.00390625);
        for embedding in ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"] {
            assert_eq!(rate(embedding), 0.001953125, "{embedding}");
        }
    }

    #[test]
    fn a_decay_of_one_is_off() {
        assert!(full(1.0).iter().all(|(_, step)| step.rate == 1.0));
    }

    #[test]
    fn lora_plus_speeds_up_b_alone() {
        let (vit, _) = small_vit();
        let config = TrainConfig { lora_plus: 16.0, ..TrainConfig::for_method(Method::Lora, vit.depth) };
        let mut shapes = Adapter::init(&config.lora, &vit, 0).tensor_shapes(&vit);
        shapes.extend(Head::tensor_shapes(3, vit.feature_width()));
        let mut seen = 0;
        for ((name, _), step) in shapes.iter().zip(tensor_steps(&shapes, &config, vit.depth, false)) {
            let b = name.ends_with("lora_b");
            assert_eq!(step.rate, if b { 16.0 } else { 1.0 }, "{name}");
            assert_eq!(step.decays, name != "head.bias", "{name}");
            seen += usize::from(b);
        }
        assert_eq!(seen, 2 * vit.depth);
    }

    #[test]
    fn bottlenecks_learn_at_the_whole_rate() {
        let (vit, _) = small_vit();
        let config = TrainConfig::for_method(Method::Adapter, vit.depth);
        let shapes = Bottlenecks::init(&config.bottleneck, &vit, 0).tensor_shapes(&vit);
        for ((name, _), step) in shapes.iter().zip(tensor_steps(&shapes, &config, vit.depth, false)) {
            assert_eq!(step, TensorStep { decays: name.ends_with("weight"), rate: 1.0 }, "{name}");
        }
    }

    #[test]
    fn weight_decay_is_for_matrices() {
        for (name, step) in full(1.0) {
            let matrix = name.ends_with("weight") && !name.contains("norm");
            assert_eq!(step.decays, matrix, "{name}");
        }
    }
}
