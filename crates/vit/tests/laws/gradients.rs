//! Forward and backward against a ViT in f64: logits, loss, and the gradient of every parameter by central differences.

use crate::engines::held;
use crate::tiny;
use crate::variants::{assert_reordered, gradient_names, images, is_unseen, largest, lora, patterned, variants};
use melo_reference::Reference;
use melo_vit::{Adapter, Batch, Checkpoint, Device, Dropout, Engine, Gradients, Head, LoraConfig, Target, VitConfig};

const IMAGES: usize = 3;
const CLASSES: usize = 3;
/// 2 × 2 patches: the reference is slow.
const SIDE: usize = 8;

/// A loss with a slope of its own for every image and class.
fn loss(image: usize, logits: &[f32], d_logits: &mut [f32]) -> f64 {
    let weight = |class: usize| ((3 * image + 2 * class + 1) as f64).sin();
    let logits = || logits.iter().map(|&z| f64::from(z)).enumerate();
    d_logits.iter_mut().zip(logits()).for_each(|(d, (class, z))| *d = (weight(class) + 0.2 * z) as f32);
    logits().map(|(class, z)| weight(class) * z + 0.1 * z * z).sum()
}

/// How a model is trained.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) size: usize,
    pub(crate) dropout: Option<Dropout>,
    pub(crate) all_weights: bool,
}

/// Adapter and head alone, on the smallest images.
const PLUGIN: Setting = Setting { size: SIDE, dropout: None, all_weights: false };
const ALL_WEIGHTS: Setting = Setting { all_weights: true, ..PLUGIN };

/// Asserts logits, loss and gradients of one model against the reference.
///
/// The bound is 2e-5 of a tensor's largest slope: f32 rounds 6e-8 at each of some 60 operations on the way down and up,
/// with sums of up to 72 terms in each, and errors of erf (5e-7) come on top.
pub(crate) fn assert_gradients(
    setting: Setting,
    what: &str,
    checkpoint: &Checkpoint,
    (adapter, head): (&Adapter, &Head),
) {
    let Setting { size, dropout, all_weights } = setting;
    let config = &checkpoint.config;
    let batch = images(IMAGES, size, 5);
    let input = Batch { source: &batch, images: IMAGES, size, loss: &loss, dropout };
    let step = |engine: &dyn Engine| {
        let mut gradients = Gradients::zeros(adapter, head, config, all_weights);
        let (loss, logits) = engine.step(&input, adapter, head, &mut gradients).expect("images of this size are tiled");
        (loss, logits, gradients)
    };
    let reference = Reference.load(checkpoint.clone().freeze()).expect("f64 computes every network");
    let expected = step(&*reference);
    // The engine for GPUs does not train all weights.
    let refuses = |engine: &dyn Engine| engine.info().engine == "cuda" && all_weights;
    for engine in held(checkpoint).into_iter().filter(|engine| !refuses(&**engine)) {
        let what = format!("{what} on {}", engine.info().engine);
        assert_step(&what, (config, size, all_weights), (adapter, head), step(&*engine), &expected);
    }
}

/// Asserts logits, loss and gradients of one step.
fn assert_step(
    what: &str,
    (config, size, all_weights): (&VitConfig, usize, bool),
    (adapter, head): (&Adapter, &Head),
    (found_loss, found_logits, found): (f64, Vec<f32>, Gradients),
    (expected_loss, expected_logits, expected): &(f64, Vec<f32>, Gradients),
) {
    assert_eq!(found_logits.len(), IMAGES * head.outputs(config, size), "{what}: logits");
    for (found, expected) in found_logits.iter().zip(expected_logits) {
        assert!((found - expected).abs() <= 1e-5, "{what}: a logit is {found}, expected {expected}");
    }
    assert!((found_loss - expected_loss).abs() <= 1e-4, "{what}: loss {found_loss}, expected {expected_loss}");

    let names = gradient_names(adapter, head, config, all_weights);
    assert_eq!(found.tensors().len(), names.len(), "{what}: tensors with a gradient");
    for (name, (found, expected)) in names.iter().zip(found.tensors().into_iter().zip(expected.tensors())) {
        assert_eq!(found.len(), expected.len(), "{what}: `{name}`");
        let largest = largest(expected);
        let pooling = name.starts_with("attn_pool") || name.starts_with("fc_norm") && config.norm;
        if is_unseen(name, config) || head.blocks().is_some() && pooling {
            assert!(largest < 1e-8 && found.iter().all(|slope| slope.abs() < 1e-5), "{what}: `{name}`");
            continue;
        }
        assert!(largest > 1e-4, "{what}: slopes of `{name}` are at most {largest:e}, which proves nothing");
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (found - expected).abs();
            assert!(
                error <= 2e-5 * largest,
                "{what}: slope {at} of `{name}` is {found}, expected {expected}, off by {:e} of the largest",
                error / largest
            );
        }
    }
}

#[test]
fn every_parameter_s_gradient_is_its_derivative() {
    for (what, config) in variants() {
        let config = VitConfig { image_size: SIDE, ..config };
        let checkpoint = tiny::checkpoint(&config, 1);
        let adapter = tiny::adapter(&lora(3, 2.0, &Target::ALL), &config, 2);
        assert_gradients(ALL_WEIGHTS, what, &checkpoint, (&adapter, &tiny::head(CLASSES, &config, 3)));
    }
}

#[test]
fn with_bottlenecks_too_every_parameter_s_gradient_is_its_derivative() {
    for (what, config) in variants() {
        let config = VitConfig { image_size: SIDE, ..config };
        let checkpoint = tiny::checkpoint(&config, 1);
        let adapter = tiny::adapter(&lora(3, 2.0, &Target::ALL), &config, 2);
        let adapter = tiny::with_bottlenecks(adapter, 5, &[0, 1], &config, 4);
        assert_gradients(ALL_WEIGHTS, what, &checkpoint, (&adapter, &tiny::head(CLASSES, &config, 3)));
    }
}

#[test]
fn an_adapter_s_gradient_is_its_derivative_wherever_it_sits() {
    let config = VitConfig { image_size: SIDE, ..tiny::config() };
    let checkpoint = tiny::checkpoint(&config, 1);
    let head = tiny::head(CLASSES, &config, 3);
    let settings = [
        lora(4, 2.0, &[Target::Q, Target::V]),
        lora(1, 3.0, &[Target::K]),
        LoraConfig { blocks: vec![1], ..lora(2, 1.0, &Target::ALL) },
        LoraConfig { blocks: vec![0], ..lora(2, 5.0, &[Target::O, Target::Fc2]) },
        LoraConfig { blocks: vec![0], ..lora(16, 5.0, &[Target::V, Target::Fc1]) },
        LoraConfig { rslora: true, ..lora(3, 2.0, &[Target::Q, Target::Fc2]) },
        patterned(lora(2, 3.0, &Target::ALL), 1, 5),
        lora(0, 1.0, &[]),
    ];
    for setting in settings {
        let adapter = tiny::adapter(&setting, &config, 2);
        assert_gradients(PLUGIN, &format!("{setting:?}"), &checkpoint, (&adapter, &head));
    }
}

#[test]
fn a_bottleneck_s_gradient_is_its_derivative_wherever_it_sits() {
    let config = VitConfig { image_size: SIDE, ..tiny::config() };
    let checkpoint = tiny::checkpoint(&config, 1);
    let head = tiny::head(CLASSES, &config, 3);
    let early = LoraConfig { blocks: vec![0], ..lora(2, 5.0, &[Target::V, Target::Fc2]) };
    let late = LoraConfig { blocks: vec![1], ..lora(2, 5.0, &Target::ALL) };
    for lora in [lora(0, 1.0, &[]), early, late] {
        for (width, blocks) in [(1, &[0][..]), (16, &[1]), (4, &[0, 1])] {
            let adapter = tiny::with_bottlenecks(tiny::adapter(&lora, &config, 2), width, blocks, &config, 4);
            let what = format!("width {width} after {blocks:?}, {lora:?}");
            assert_gradients(PLUGIN, &what, &checkpoint, (&adapter, &head));
        }
    }
}

#[test]
fn under_dropout_gradients_are_derivatives_too() {
    let config = VitConfig { image_size: SIDE, ..tiny::config() };
    let checkpoint = tiny::checkpoint(&config, 1);
    let head = tiny::head(CLASSES, &config, 3);
    let dropout = Some(Dropout { probability: 0.3, seed: 11, step: 5 });
    for (setting, all_weights) in [
        (lora(4, 2.0, &[Target::Q, Target::V]), false),
        (LoraConfig { blocks: vec![1], ..lora(2, 1.0, &Target::ALL) }, false),
        (lora(3, 2.0, &Target::ALL), true),
    ] {
        let adapter = tiny::adapter(&setting, &config, 2);
        let what = format!("dropout, {setting:?}");
        let setting = Setting { dropout, all_weights, ..PLUGIN };
        assert_gradients(setting, &what, &checkpoint, (&adapter, &head));
    }
}

#[test]
fn gradients_are_added_to_what_is_there() {
    let config = tiny::config();
    let engine = tiny::engine(tiny::checkpoint(&config, 1));
    let (adapter, head) = (tiny::adapter(&lora(2, 1.0, &Target::ALL), &config, 2), tiny::head(CLASSES, &config, 3));
    let batch = images(IMAGES, config.image_size, 5);
    let step = Batch { source: &batch, images: IMAGES, size: config.image_size, loss: &loss, dropout: None };
    let mut gradients = Gradients::zeros(&adapter, &head, &config, false);
    engine.step(&step, &adapter, &head, &mut gradients).expect("one step");
    let once = gradients.clone();
    engine.step(&step, &adapter, &head, &mut gradients).expect("another step");
    for (twice, once) in gradients.tensors().into_iter().zip(once.tensors()) {
        assert_reordered(twice, &once.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), "twice");
    }
}
