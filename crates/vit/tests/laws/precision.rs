//! A backbone in bfloat16: nearly that in f32, in products of three very nearly, and the same to the last bit in any company.

use crate::tiny;
use crate::variants::{distance, images, largest, logits, lora, pick, variants};
use melo_kernels::cross_entropy;
use melo_vit::{Batch, Checkpoint, Gradients, LoraConfig, Precision, Target, VitConfig};

/// The tiny variants, and blocks of DeiT-Tiny on a small image.
fn models() -> Vec<(&'static str, VitConfig)> {
    let mut all = variants();
    let deit =
        VitConfig { depth: 12, width: 192, heads: 3, mlp_hidden: 768, patch: 16, image_size: 64, ..tiny::config() };
    all.push(("deit", deit));
    all
}

fn every_block(config: &VitConfig, targets: &[Target]) -> LoraConfig {
    LoraConfig { blocks: (0..config.depth).collect(), ..lora(4, 3.0, targets) }
}

/// How far a model of this depth may be from itself in f32, relative to the size of its results.
///
/// A block's six products (scores and values of attention among them) round two factors each, by 2⁻⁹ on average and at
/// random: independent errors add as the square root of their number, in the backward pass again. Three times that.
fn tolerance(config: &VitConfig, passes: usize) -> f32 {
    3.0 * ((12 * config.depth * passes) as f32).sqrt() / 512.0
}

/// What two numbers leave of a factor (2⁻¹⁶) in parts of what one does (2⁻⁸); twice that, since f32 sums differ besides.
const SPLIT: f32 = 2.0 / 256.0;

/// What rounding to 127 steps of the largest of a row leaves, in parts of what bfloat16 does: rows whose largest number is three
/// deviations lose 3 / 127 / √12 of one, where bfloat16 loses 2⁻⁹ or so.
const INTEGERS: f32 = 4.0;

/// Where the weights are the same, of two factors that are rounded one is left.
const ROWS: f32 = INTEGERS / std::f32::consts::SQRT_2;

/// Euclidean length.
fn norm(values: impl Iterator<Item = f32>) -> f32 {
    values.map(|x| x * x).sum::<f32>().sqrt()
}

#[test]
fn logits_in_bfloat16_are_nearly_those_in_f32() {
    for (what, config) in models() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let adapter = tiny::adapter(&every_block(&config, &[Target::Q, Target::V]), &config, 3);
        let head = tiny::head(16, &config, 4);
        let batch = images(4, config.image_size, 2);
        let [f32, bf16, split, int8] = Precision::ALL.map(|precision| {
            let engine = tiny::engine_of(checkpoint.clone(), precision, 2, 2);
            assert_eq!(engine.info().precision, precision);
            (logits(&*engine, &batch, Some(&adapter), &head), engine.backbone().digest().to_owned())
        });
        assert_eq!(f32.1, bf16.1, "{what}: the digest is of the weights, not of their use");
        let difference = norm(f32.0.iter().zip(&bf16.0).map(|(a, b)| a - b)) / norm(f32.0.iter().copied());
        assert!(difference > 1e-5, "{what}: nothing was rounded");
        assert!(difference < tolerance(&config, 1), "{what}: logits differ by {difference}");
        let difference = norm(f32.0.iter().zip(&int8.0).map(|(a, b)| a - b)) / norm(f32.0.iter().copied());
        println!("{what} int8 {difference} {}", tolerance(&config, 1));
        assert!(difference > 1e-4, "{what}: nothing was rounded to integers");
        assert!(difference < tolerance(&config, 1) * INTEGERS, "{what}: in int8, logits differ by {difference}");
        let difference = norm(f32.0.iter().zip(&split.0).map(|(a, b)| a - b)) / norm(f32.0.iter().copied());
        assert!(
            difference < tolerance(&config, 1) * SPLIT,
            "{what}: in products of three, logits differ by {difference}"
        );
    }
}

#[test]
fn gradients_in_bf16_are_nearly_those_in_f32() {
    for (what, config) in models() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let adapter = tiny::adapter(&every_block(&config, &Target::ALL), &config, 3);
        let head = tiny::head(3, &config, 4);
        let batch = images(4, config.image_size, 2);
        let loss = |image: usize, logits: &[f32], d: &mut [f32]| cross_entropy(logits, image % 3, 0.1, &[], 0.25, d);
        let step = Batch { source: &batch, images: 4, size: batch.size, loss: &loss, dropout: None };
        let [f32, bf16, split, int8] = Precision::ALL.map(|precision| {
            let engine = tiny::engine_of(checkpoint.clone(), precision, 2, 2);
            let mut gradients = Gradients::zeros(&adapter, &head, &config, true);
            engine.step(&step, &adapter, &head, &mut gradients).expect("one step");
            gradients.tensors().into_iter().flatten().copied().collect::<Vec<f32>>()
        });
        let difference = norm(f32.iter().zip(&bf16).map(|(a, b)| a - b)) / norm(f32.iter().copied());
        assert!(difference > 1e-5, "{what}: nothing was rounded");
        assert!(difference < tolerance(&config, 2), "{what}: gradients differ by {difference}");
        let difference = norm(f32.iter().zip(&int8).map(|(a, b)| a - b)) / norm(f32.iter().copied());
        println!("{what} int8 {difference} {}", tolerance(&config, 2));
        assert!(difference < tolerance(&config, 2) * INTEGERS, "{what}: in int8, gradients differ by {difference}");
        let difference = norm(f32.iter().zip(&split).map(|(a, b)| a - b)) / norm(f32.iter().copied());
        assert!(
            difference < tolerance(&config, 2) * SPLIT,
            "{what}: in products of three, gradients differ by {difference}"
        );
    }
}

/// A step whose forward pass is in integers against one in f32 through the weights that they stand for: what is left are rows rounded
/// to integers, and bfloat16 beside them. All layers of these networks are in integers.
#[test]
fn a_step_in_integers_is_that_through_the_rounded_weights() {
    for (what, config) in models() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let mut rounded = checkpoint.clone();
        for block in &mut rounded.weights.blocks {
            for (layer, input) in [
                (&mut block.qkv, config.width),
                (&mut block.proj, config.width),
                (&mut block.fc1, config.width),
                (&mut block.fc2, config.mlp_hidden),
            ] {
                for row in layer.weight.chunks_exact_mut(input) {
                    let step = row.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0;
                    row.iter_mut().for_each(|x| *x = (*x / step).round_ties_even() * step);
                }
            }
        }
        let adapter = tiny::adapter(&every_block(&config, &Target::ALL), &config, 3);
        let head = tiny::head(3, &config, 4);
        let batch = images(4, config.image_size, 2);
        let loss = |image: usize, logits: &[f32], d: &mut [f32]| cross_entropy(logits, image % 3, 0.1, &[], 0.25, d);
        let step = Batch { source: &batch, images: 4, size: batch.size, loss: &loss, dropout: None };
        let run = |checkpoint: &Checkpoint, precision| {
            let engine = tiny::engine_of(checkpoint.clone(), precision, 2, 2);
            assert!(engine.layer_errors().iter().all(|layer| layer.integers), "{what}");
            let gradients = || {
                let mut gradients = Gradients::zeros(&adapter, &head, &config, false);
                engine.step(&step, &adapter, &head, &mut gradients).expect("one step");
                gradients.tensors().into_iter().flatten().copied().collect::<Vec<f32>>()
            };
            let first = gradients();
            assert_eq!(first, gradients(), "{what} in {precision}: a second step is the first");
            first
        };
        let (expected, found) = (run(&rounded, Precision::F32), run(&checkpoint, Precision::Int8));
        let difference = norm(expected.iter().zip(&found).map(|(a, b)| a - b)) / norm(expected.iter().copied());
        assert!(difference < tolerance(&config, 2) * ROWS, "{what}: gradients differ by {difference}");
    }
}

#[test]
fn in_bf16_grouping_and_threads_change_no_bit_of_the_logits() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let adapter = tiny::adapter(&lora(4, 2.0, &Target::ALL), &config, 3);
        let head = tiny::head(3, &config, 4);
        let batch = images(7, config.image_size, 2);
        let run = |group, threads| {
            let engine = tiny::engine_of(checkpoint.clone(), Precision::Bf16, threads, group);
            logits(&*engine, &batch, Some(&adapter), &head)
        };
        let expected = run(1, 1);
        assert!(largest(&expected) > 0.0);
        for (group, threads) in [(2, 1), (2, 3), (3, 2), (7, 1)] {
            assert_eq!(distance(&run(group, threads), &expected), 0.0, "{what}: group {group}, {threads} threads");
        }
    }
}

/// On one thread an image is one piece; on more, its tokens are cut into parts.
#[test]
fn threads_that_share_an_image_change_no_bit_of_its_logits() {
    for (what, config) in variants() {
        for precision in Precision::ALL {
            let checkpoint = tiny::checkpoint(&config, 1);
            let adapter = tiny::adapter(&lora(4, 2.0, &Target::ALL), &config, 3);
            let head = tiny::head(3, &config, 4);
            let batch = images(3, config.image_size, 2);
            let run = |images, threads| {
                let engine = tiny::engine_of(checkpoint.clone(), precision, threads, 2);
                logits(&*engine, &pick(&batch, 0..images), Some(&adapter), &head)
            };
            for (images, threads) in [(1, 2), (1, 3), (1, 40), (2, 3), (2, 5), (3, 8)] {
                let difference = distance(&run(images, threads), &run(images, 1));
                assert_eq!(difference, 0.0, "{what} in {precision}: {images} images on {threads} threads");
            }
        }
    }
}
