//! Backbones and plug-ins small enough for a test, random at a scale at which every part of them matters.

use melo_vit::{
    Adapter, BackboneInfo, BottleneckConfig, Bottlenecks, Checkpoint, Cpu, CropMode, Device, Engine, Head, LoraConfig,
    Plugin, Precision, Preprocess, TaskCard, TaskKind, VitConfig, Weights,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Two blocks of width 16 on 3 × 3 patches of 4 pixels.
pub(crate) fn config() -> VitConfig {
    VitConfig { depth: 2, width: 16, heads: 2, mlp_hidden: 24, patch: 4, image_size: 12, ..VitConfig::base() }
}

/// `len` values, uniform in ±`bound`.
pub(crate) fn random(len: usize, bound: f32, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-bound..bound)).collect()
}

/// Random weights: matrices keep the variance of what passes through them, norms scale by 0.5 to 1.5.
pub(crate) fn checkpoint(config: &VitConfig, seed: u64) -> Checkpoint {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = Weights::zeros(config);
    for ((name, shape), values) in config.tensor_shapes().iter().zip(weights.tensors_mut()) {
        let matrix = name.ends_with("weight") && shape.len() > 1;
        let bound = if matrix { (3.0 / shape[1..].iter().product::<usize>() as f32).sqrt() } else { 0.5 };
        let center = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
        *values = random(values.len(), bound, &mut rng).iter().map(|x| center + x).collect();
    }
    let preprocess = Preprocess {
        crop_mode: CropMode::Center,
        crop_pct: 0.9,
        std: [0.25; 3],
        ..Preprocess::base(config.image_size)
    };
    Checkpoint { name: "tiny_vit".to_owned(), config: config.clone(), preprocess, weights, classifier: None }
}

/// The processor's engine as everyone gets it: exact, with groups of two images.
pub(crate) fn engine(checkpoint: Checkpoint) -> Arc<dyn Engine> {
    engine_of(checkpoint, Precision::F32, 2, 2)
}

/// The processor's engine in this precision, on so many threads, with groups of so many images.
pub(crate) fn engine_of(checkpoint: Checkpoint, precision: Precision, threads: usize, group: usize) -> Arc<dyn Engine> {
    let cpu = Cpu::new(precision).with_threads(threads).with_group(group);
    cpu.load(checkpoint.freeze()).expect("a processor computes every network")
}

/// An adapter with `A` and `B` both random: `B = 0` would hide what `A` does.
pub(crate) fn adapter(lora: &LoraConfig, vit: &VitConfig, seed: u64) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut adapter = Adapter::zeros(lora, vit);
    adapter.tensors_mut().into_iter().for_each(|values| *values = random(values.len(), 0.4, &mut rng));
    adapter
}

/// The same adapter with random bottlenecks of this width after these blocks: `Up = 0` would hide what `Down` does.
pub(crate) fn with_bottlenecks(
    adapter: Adapter,
    width: usize,
    blocks: &[usize],
    vit: &VitConfig,
    seed: u64,
) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bottlenecks = Bottlenecks::zeros(&BottleneckConfig { width, blocks: blocks.to_vec() }, vit);
    bottlenecks.tensors_mut().into_iter().for_each(|values| *values = random(values.len(), 0.4, &mut rng));
    Adapter { bottlenecks, ..adapter }
}

/// A head with random weight and bias.
pub(crate) fn head(classes: usize, vit: &VitConfig, seed: u64) -> Head {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut head = Head::zeros(classes, vit.feature_width());
    head.tensors_mut().into_iter().for_each(|values| *values = random(values.len(), 0.5, &mut rng));
    head
}

/// A plug-in of `classes` classes with random matrices.
pub(crate) fn plugin(backbone: &BackboneInfo, lora: &LoraConfig, classes: usize, seed: u64) -> Plugin {
    plugin_of(backbone, adapter(lora, backbone.config(), seed), classes, seed)
}

/// A plug-in of `classes` classes around an adapter.
pub(crate) fn plugin_of(backbone: &BackboneInfo, adapter: Adapter, classes: usize, seed: u64) -> Plugin {
    let names = (0..classes).map(|class| format!("finding {class}")).collect();
    let preprocess = backbone.preprocess().clone();
    let card = TaskCard::new("tiny".to_owned(), TaskKind::MultiLabel, names, preprocess, backbone.reference());
    let card = TaskCard {
        lora: adapter.config.clone(),
        bottleneck: adapter.bottlenecks.config.clone(),
        temperature: 1.5,
        metrics: BTreeMap::from([("val_auc_macro".to_owned(), 0.75)]),
        metric_intervals: BTreeMap::from([("val_auc_macro".to_owned(), [0.625, 0.875])]),
        ..card
    };
    let head = head(classes, backbone.config(), seed + 1);
    Plugin::new(card, adapter, head)
}
