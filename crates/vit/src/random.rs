//! Random weights: for measurements, which need no knowledge, and for the start of a pre-training.
//!
//! Every tensor draws from a stream of its own, so that the values depend on the seed alone and not on the threads.

use crate::adapter::{Adapter, LoraConfig};
use crate::checkpoint::{Checkpoint, Description};
use crate::config::VitConfig;
use crate::head::Head;
use crate::image::ImageBatch;
use crate::weights::Weights;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::sync::Arc;

/// Deviation of timm's `init_weights_vit_timm`.
const WEIGHT_DEVIATION: f32 = 0.02;
/// Deviation of `B`: with `A` uniform in ±1/√in it makes an update about half as large as what it is added to.
const UPDATE_DEVIATION: f32 = 0.2;
/// Deviation of a logit on a normalised feature: probabilities differ from image to image and are far from 0 and 1.
const LOGIT_DEVIATION: f32 = 2.0;

/// A normal variable within two standard deviations (Box–Muller, drawn again when outside).
pub fn truncated_normal(rng: &mut ChaCha8Rng) -> f32 {
    loop {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let value = radius * (std::f64::consts::TAU * rng.random::<f64>()).cos();
        if value.abs() <= 2.0 {
            return value as f32;
        }
    }
}

fn fill(values: &mut [f32], deviation: f32, seed: u64, stream: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    values.iter_mut().for_each(|x| *x = deviation * truncated_normal(&mut rng));
}

impl Checkpoint {
    /// Weights as timm's before any training: matrices, tokens and positions normal with deviation 0.02, cut at two
    /// deviations; norms and layer scales 1, every bias 0. Without a classifier.
    pub fn random(description: Description, seed: u64) -> Self {
        let Description { name, config, preprocess } = description;
        let mut weights = Weights::zeros(&config);
        let shapes = config.tensor_shapes();
        let tensors = weights.tensors_mut();
        shapes.par_iter().zip(tensors).enumerate().for_each(|(stream, ((name, shape), tensor))| {
            if shape.len() > 1 {
                fill(tensor, WEIGHT_DEVIATION, seed, stream as u64);
            } else if name.ends_with("gamma") || name.contains("norm") && name.ends_with("weight") {
                tensor.fill(1.0);
            }
        });
        Checkpoint { name, config, preprocess, weights, classifier: None }
    }
}

impl Adapter {
    /// `A` as [`Adapter::init`], `B` normal with deviation 0.2: it changes every answer, as a trained one does.
    pub fn random(config: &LoraConfig, vit: &VitConfig, seed: u64) -> Self {
        let mut adapter = Adapter::init(config, vit, seed);
        let pairs = adapter.blocks.iter_mut().flat_map(Arc::make_mut).flatten();
        pairs.zip(1..).for_each(|(pair, stream)| fill(&mut pair.b, UPDATE_DEVIATION, seed, stream));
        adapter
    }
}

impl Head {
    /// Logits of a normalised feature have deviation 2; no bias.
    pub fn random(classes: usize, feature_width: usize, seed: u64) -> Self {
        let mut head = Head::zeros(classes, feature_width);
        fill(&mut head.weight, LOGIT_DEVIATION / (feature_width as f32).sqrt(), seed, u64::MAX);
        head
    }
}

impl ImageBatch {
    /// `n` images of side `size` pixels as if normalised: values normal with deviation 1.
    pub fn random(n: usize, size: usize, seed: u64) -> Self {
        let len = 3 * size * size;
        let mut data = vec![0.0; n * len];
        data.par_chunks_exact_mut(len).enumerate().for_each(|(image, values)| fill(values, 1.0, seed, image as u64));
        ImageBatch { size, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Target;

    fn tiny() -> Description {
        Description::named("vit_tiny_patch16_32").unwrap()
    }

    fn lora() -> LoraConfig {
        LoraConfig {
            rank: 4,
            alpha: 4.0,
            targets: vec![Target::Q, Target::V],
            blocks: vec![0, 5],
            ..LoraConfig::none()
        }
    }

    #[test]
    fn weights_are_a_function_of_the_seed_whatever_the_threads() {
        let with = |threads: usize, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Checkpoint::random(tiny(), seed).digest())
        };
        assert_eq!(with(1, 7), with(3, 7));
        assert_ne!(with(1, 7), with(1, 8));
    }

    #[test]
    fn weights_are_distributed_as_timm_s() {
        let weights = Checkpoint::random(tiny(), 0).weights;
        let block = &weights.blocks[3];
        for values in [&block.qkv.weight, &weights.patch_embed.weight] {
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            let deviation = (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt();
            // Cut at two deviations, a normal variable keeps 0.880 of its own; 110,000 draws estimate that to 0.3 %.
            assert!(mean.abs() < 2e-4 && (deviation / 0.02 - 0.880).abs() < 0.01, "{mean} {deviation}");
            assert!(values.iter().all(|x| x.abs() <= 0.04));
        }
        assert!(block.norm1.gamma.iter().all(|&x| x == 1.0) && block.fc1.bias.iter().all(|&x| x == 0.0));
        assert_ne!(weights.blocks[0].qkv.weight, weights.blocks[1].qkv.weight);
    }

    #[test]
    fn a_random_adapter_changes_every_adapted_projection_and_no_other() {
        let vit = tiny().config;
        let (first, second) = (Adapter::random(&lora(), &vit, 1), Adapter::random(&lora(), &vit, 2));
        let adapted: Vec<_> = first.blocks.iter().flat_map(|updates| updates.iter().flatten()).collect();
        assert_eq!(adapted.len(), 4);
        assert!(adapted.iter().all(|pair| pair.b.iter().any(|&b| b != 0.0)));
        assert_ne!(adapted[0].b, adapted[1].b);
        assert_ne!(first, second);
        assert_ne!(Head::random(3, 192, 1), Head::random(3, 192, 2));
    }
}
