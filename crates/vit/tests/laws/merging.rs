//! What an adapter is: nothing while `B = 0` and `Up = 0`, and the same as weights to which `(alpha / r) · B A` was added.

use crate::tiny;
use crate::variants::{assert_reordered, distance, images, largest, logits, lora, patterned, variants};
use melo_vit::{Adapter, Block, BottleneckConfig, Bottlenecks, LoraConfig, Target, VitConfig, Weights};

const CLASSES: usize = 4;

/// Adds `(alpha / r) · B A`, or `(alpha / √r) · B A`, to the frozen weights.
fn merge(weights: &mut Weights, adapter: &Adapter, config: &VitConfig) {
    let LoraConfig { alpha, rslora, rank_pattern, .. } = &adapter.config;
    for (index, (block, pairs)) in weights.blocks.iter_mut().zip(&adapter.blocks).enumerate() {
        let rank = *rank_pattern.get(&index).unwrap_or(&adapter.config.rank);
        let scale = alpha / if *rslora { (rank as f32).sqrt() } else { rank as f32 };
        let Block { qkv, proj, fc1, fc2, .. } = block;
        for (target, pair) in Target::ALL.into_iter().zip(pairs.iter()).filter_map(|(t, p)| Some((t, p.as_ref()?))) {
            let (input, out) = target.features(config);
            let (layer, first) = match target {
                Target::Q => (&mut *qkv, 0),
                Target::K => (&mut *qkv, config.width),
                Target::V => (&mut *qkv, 2 * config.width),
                Target::O => (&mut *proj, 0),
                Target::Fc1 => (&mut *fc1, 0),
                Target::Fc2 => (&mut *fc2, 0),
            };
            for (row, column) in (0..out).flat_map(|row| (0..input).map(move |column| (row, column))) {
                let product: f32 = (0..rank).map(|l| pair.b[row * rank + l] * pair.a[l * input + column]).sum();
                layer.weight[(first + row) * input + column] += scale * product;
            }
        }
    }
}

#[test]
fn with_b_zero_an_adapter_is_the_bare_backbone() {
    for (what, config) in variants() {
        let engine = tiny::engine(tiny::checkpoint(&config, 1));
        let (batch, head) = (images(5, config.image_size, 2), tiny::head(CLASSES, &config, 3));
        let adapter = Adapter::init(&lora(4, 9.0, &Target::ALL), &config, 4);
        assert!(largest(&adapter.blocks[0][0].as_ref().expect("adapted").a) > 0.0);
        let bare = logits(&*engine, &batch, None, &head);
        assert_eq!(logits(&*engine, &batch, Some(&adapter), &head), bare, "{what}");
    }
}

#[test]
fn merged_equals_unmerged() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let engine = tiny::engine(checkpoint.clone());
        let (batch, head) = (images(5, config.image_size, 2), tiny::head(CLASSES, &config, 3));
        let bare = logits(&*engine, &batch, None, &head);
        // alpha above, below and far below r: a scale rounded to an integer would be 0 for the last two.
        let settings = [
            lora(2, 5.0, &Target::ALL),
            lora(4, 3.0, &Target::ALL),
            lora(16, 1.0, &[Target::Q, Target::V]),
            LoraConfig { rslora: true, ..lora(3, 2.0, &Target::ALL) },
            patterned(lora(2, 3.0, &Target::ALL), 1, 7),
            LoraConfig { rslora: false, ..patterned(lora(8, 3.0, &[Target::K, Target::Fc2]), 0, 1) },
        ];
        for setting in settings {
            let adapter = tiny::adapter(&setting, &config, 4);
            let mut merged = checkpoint.clone();
            merge(&mut merged.weights, &adapter, &config);
            let unmerged = logits(&*engine, &batch, Some(&adapter), &head);
            let what = format!("{what}, {setting:?}");
            assert_reordered(&unmerged, &logits(&*tiny::engine(merged), &batch, None, &head), &what);
            assert!(distance(&unmerged, &bare) > 0.01 * largest(&bare), "{what}: the adapter does nothing");
        }
    }
}

#[test]
fn with_up_zero_a_bottleneck_is_the_bare_backbone() {
    for (what, config) in variants() {
        let engine = tiny::engine(tiny::checkpoint(&config, 1));
        let (batch, head) = (images(5, config.image_size, 2), tiny::head(CLASSES, &config, 3));
        let settings = BottleneckConfig { width: 6, blocks: vec![0, 1] };
        let bottlenecks = Bottlenecks::init(&settings, &config, 4);
        assert!(largest(&bottlenecks.blocks[0].as_ref().expect("adapted").down) > 0.0);
        let adapter = Adapter { bottlenecks, ..Adapter::zeros(&lora(0, 1.0, &[]), &config) };
        let bare = logits(&*engine, &batch, None, &head);
        assert_reordered(&logits(&*engine, &batch, Some(&adapter), &head), &bare, what);
        let adapter = tiny::with_bottlenecks(adapter, 6, &[0, 1], &config, 5);
        let adapted = logits(&*engine, &batch, Some(&adapter), &head);
        assert!(distance(&adapted, &bare) > 0.01 * largest(&bare), "{what}: the bottlenecks do nothing");
    }
}

#[test]
fn each_target_merges_into_its_own_rows() {
    let config = tiny::config();
    let checkpoint = tiny::checkpoint(&config, 1);
    let engine = tiny::engine(checkpoint.clone());
    let (batch, head) = (images(3, config.image_size, 2), tiny::head(CLASSES, &config, 3));
    let bare = logits(&*engine, &batch, None, &head);
    for target in Target::ALL {
        for block in 0..config.depth {
            let adapter = tiny::adapter(&LoraConfig { blocks: vec![block], ..lora(2, 3.0, &[target]) }, &config, 4);
            let mut merged = checkpoint.clone();
            merge(&mut merged.weights, &adapter, &config);
            let unmerged = logits(&*engine, &batch, Some(&adapter), &head);
            let what = format!("{target} of block {block}");
            assert_reordered(&unmerged, &logits(&*tiny::engine(merged), &batch, None, &head), &what);
            assert!(distance(&unmerged, &bare) > 1e-3 * largest(&bare), "{what}: the adapter does nothing");
        }
    }
}
