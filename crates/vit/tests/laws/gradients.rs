//! Forward and backward against a ViT in f64: logits, loss, and the gradient of every parameter by central differences.

use crate::reference::{Reference, names};
use crate::tiny;
use crate::variants::{assert_reordered, images, lora, patterned, variants};
use melo_vit::{
    Adapter, Backbone, Batch, Checkpoint, Dropout, Gradients, Head, ImageBatch, LoraConfig, Target, VitConfig,
    Workspace,
};
use std::collections::BTreeSet;

const IMAGES: usize = 3;
const CLASSES: usize = 3;
/// 2 × 2 patches: the reference is slow.
const SIDE: usize = 8;
/// Entries of each tensor that are moved.
const SAMPLES: usize = 24;
/// Step of the central differences: in f64 it leaves `1e-16 · loss / 1e-5` of rounding and `1e-10 · loss'''` of truncation.
const STEP: f64 = 1e-5;

/// A loss with a slope of its own for every image and class; returns it with its gradient.
fn loss(image: usize, logits: &[f64]) -> (f64, Vec<f64>) {
    let weight = |class: usize| ((3 * image + 2 * class + 1) as f64).sin();
    let terms = logits.iter().enumerate().map(|(c, z)| weight(c) * z + 0.1 * z * z);
    (terms.sum(), logits.iter().enumerate().map(|(c, z)| weight(c) + 0.2 * z).collect())
}

fn engine_loss(image: usize, logits: &[f32], d_logits: &mut [f32]) -> f64 {
    let (value, slopes) = loss(image, &logits.iter().map(|&z| f64::from(z)).collect::<Vec<_>>());
    d_logits.iter_mut().zip(slopes).for_each(|(d, slope)| *d = slope as f32);
    value
}

/// Asserts logits, loss and gradients of one model against the reference.
///
/// The bound is 2e-5 of a tensor's largest slope: f32 rounds 6e-8 at each of some 60 operations on the way down and up,
/// with sums of up to 72 terms in each, and errors of erf (5e-7) come on top.
fn assert_gradients(what: &str, checkpoint: &Checkpoint, parts: (&Adapter, &Head), all_weights: bool) {
    assert_gradients_under(None, what, checkpoint, parts, all_weights);
}

/// The same under dropout.
fn assert_gradients_under(
    dropout: Option<Dropout>,
    what: &str,
    checkpoint: &Checkpoint,
    (adapter, head): (&Adapter, &Head),
    all_weights: bool,
) {
    let Checkpoint { config, weights, .. } = checkpoint;
    let batch = images(IMAGES, config.image_size, 5);
    let backbone = Backbone::in_training(checkpoint);
    let mut gradients = Gradients::zeros(adapter, head, config, all_weights);
    let step = Batch { source: &batch, images: IMAGES, size: config.image_size, loss: &engine_loss, dropout };
    let (found_loss, found_logits) = backbone
        .step(&step, (adapter, head), &mut gradients, &mut Workspace::default())
        .expect("images of this size are tiled");

    let mut reference = Reference::new(config, weights, adapter, head);
    reference.dropout = dropout;
    let image = |i: usize, batch: &ImageBatch| {
        batch.data[i * batch.data.len() / IMAGES..][..batch.data.len() / IMAGES].to_vec()
    };
    let total = |reference: &Reference| -> f64 {
        (0..IMAGES).map(|i| loss(i, &reference.logits(i, &image(i, &batch))).0).sum()
    };
    for (i, found) in found_logits.chunks_exact(CLASSES).enumerate() {
        for (found, expected) in found.iter().zip(reference.logits(i, &image(i, &batch))) {
            let error = (f64::from(*found) - expected).abs();
            assert!(error <= 1e-5, "{what}: logit of image {i} is {found}, expected {expected}");
        }
    }
    let expected_loss = total(&reference);
    assert!((found_loss - expected_loss).abs() <= 1e-4, "{what}: loss {found_loss}, expected {expected_loss}");

    let names = names(config, adapter, head);
    let tensors = gradients.tensors();
    let compared = if all_weights { names.len() } else { adapter.tensors().len() + 2 };
    assert_eq!(tensors.len(), compared, "{what}: tensors with a gradient");
    for (name, found) in names.iter().zip(tensors) {
        let samples: BTreeSet<usize> =
            (0..SAMPLES).map(|i| i * found.len().max(SAMPLES) / SAMPLES % found.len()).collect();
        let slopes: Vec<(usize, f64)> = samples
            .into_iter()
            .map(|at| {
                let mut moved = |by: f64| {
                    reference.parameters.get_mut(name).expect("named alike")[at] += by;
                    total(&reference)
                };
                let slope = (moved(STEP) - moved(-2.0 * STEP)) / (2.0 * STEP);
                moved(STEP);
                (at, slope)
            })
            .collect();
        let largest = slopes.iter().fold(0.0, |a: f64, (_, slope)| a.max(slope.abs()));
        assert!(largest > 1e-4, "{what}: slopes of `{name}` are at most {largest:e}, which proves nothing");
        for (at, slope) in slopes {
            let error = (f64::from(found[at]) - slope).abs();
            assert!(
                error <= 2e-5 * largest,
                "{what}: slope {at} of `{name}` is {}, expected {slope}, off by {:e} of the largest",
                found[at],
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
        let head = tiny::head(CLASSES, &config, 3);
        assert_gradients(what, &checkpoint, (&adapter, &head), true);
        let adapter = tiny::with_bottlenecks(adapter, 5, &[0, 1], &config, 4);
        assert_gradients(&format!("{what}, with bottlenecks"), &checkpoint, (&adapter, &head), true);
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
        assert_gradients(&format!("{setting:?}"), &checkpoint, (&adapter, &head), false);
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
            assert_gradients(&what, &checkpoint, (&adapter, &head), false);
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
        assert_gradients_under(dropout, &what, &checkpoint, (&adapter, &head), all_weights);
    }
}

#[test]
fn gradients_are_added_to_what_is_there() {
    let config = tiny::config();
    let backbone = Backbone::new(tiny::checkpoint(&config, 1));
    let (adapter, head) = (tiny::adapter(&lora(2, 1.0, &Target::ALL), &config, 2), tiny::head(CLASSES, &config, 3));
    let batch = images(IMAGES, config.image_size, 5);
    let step = Batch { source: &batch, images: IMAGES, size: config.image_size, loss: &engine_loss, dropout: None };
    let mut workspace = Workspace::default();
    let mut gradients = Gradients::zeros(&adapter, &head, &config, false);
    backbone.step(&step, (&adapter, &head), &mut gradients, &mut workspace).expect("one step");
    let once = gradients.clone();
    backbone.step(&step, (&adapter, &head), &mut gradients, &mut workspace).expect("another step");
    for (twice, once) in gradients.tensors().into_iter().zip(once.tensors()) {
        assert_reordered(twice, &once.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), "twice");
    }
}
