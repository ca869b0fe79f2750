//! A batch is its images, in any company, order, grouping and number of threads; and training is a reader of the backbone.

use crate::tiny;
use crate::variants::{
    assert_reordered, distance, gradient_names, images, is_unseen, largest, logits, lora, patterned, pick, variants,
};
use melo_kernels::cross_entropy;
use melo_vit::{
    Adapter, BackboneInfo, Batch, Dropout, Engine, Error, Gradients, Head, ImageBatch, ImageError, ImageSource,
    LoraConfig, Plugin, Precision, Segment, Target,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Plug-ins that differ in all that may differ on one backbone.
pub(crate) fn plugins(backbone: &BackboneInfo) -> Vec<Plugin> {
    let none = || lora(0, 1.0, &[]);
    let late = LoraConfig { blocks: vec![1], ..lora(3, 7.0, &[Target::O, Target::Fc1, Target::Fc2]) };
    let early = LoraConfig { blocks: vec![0], ..lora(16, 1.0, &[Target::K]) };
    // Low-rank settings, width and blocks of the bottlenecks, classes.
    let settings: [(LoraConfig, usize, &[usize], usize); 8] = [
        (lora(4, 2.0, &[Target::Q, Target::V]), 0, &[], 3),
        (lora(1, 3.0, &Target::ALL), 0, &[], 2),
        (none(), 6, &[0, 1], 5),
        (late, 16, &[1], 1),
        (early, 0, &[], 7),
        (patterned(lora(2, 3.0, &[Target::Q, Target::V]), 1, 5), 1, &[0], 2),
        (none(), 0, &[], 4),
        (none(), 3, &[1], 2),
    ];
    let plugin = |(seed, (lora, width, blocks, classes)): (u64, (LoraConfig, usize, &[usize], usize))| {
        let adapter = tiny::adapter(&lora, backbone.config(), seed);
        let adapter = tiny::with_bottlenecks(adapter, width, blocks, backbone.config(), seed);
        tiny::plugin_of(backbone, adapter, classes, seed)
    };
    (10..).zip(settings).map(plugin).collect()
}

/// Consecutive segments of these lengths, each with the next plug-in.
fn segments<'a>(plugins: &'a [Plugin], lengths: &[usize]) -> Vec<Segment<'a>> {
    let mut next = 0;
    let segment = |(at, len): (usize, &usize)| {
        let images = next..next + len;
        next += len;
        Segment { images, plugins: vec![(&plugins[at % plugins.len()]).into()] }
    };
    lengths.iter().enumerate().map(segment).collect()
}

#[test]
fn a_mixed_batch_equals_one_by_one() {
    // Lengths that fill groups, straddle them, share one between several plug-ins, and are empty in every place.
    let batches: [&[usize]; 7] = [
        &[1, 4, 0, 2, 6, 3],
        &[0, 0, 5, 1, 1, 0],
        &[1, 1, 1, 1, 1, 1],
        &[1, 1, 1, 2, 1, 3, 1, 1],
        &[9, 7],
        &[8, 0, 8],
        &[0, 1],
    ];
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let engine = tiny::engine(checkpoint.clone());
        let plugins = plugins(engine.backbone());
        let batch = images(16, config.image_size, 2);
        let one_by_one = |plugin: &Plugin| -> Vec<f32> {
            let alone = |image| logits(&*engine, &pick(&batch, [image]), Some(&plugin.adapter), &plugin.head);
            (0..batch.len()).flat_map(alone).collect()
        };
        let expected: Vec<Vec<f32>> = plugins.iter().map(one_by_one).collect();
        for group in [1, 2, 3, 8] {
            let engine = tiny::engine_of(checkpoint.clone(), Precision::F32, 2, group);
            for lengths in batches {
                let segments = segments(&plugins, lengths);
                let mixed = engine.forward(&batch, batch.size, &segments).expect("a batch of this size");
                assert_eq!(mixed.len(), segments.len());
                let expected = expected.iter().cycle();
                for ((Segment { images, plugins }, found), expected) in segments.iter().zip(&mixed).zip(expected) {
                    let classes = plugins[0].head.rows();
                    assert_eq!((found.len(), found[0].len()), (1, images.len() * classes));
                    // Held to the size of all of the plug-in's logits: a single one may be near zero.
                    let mut whole = expected.clone();
                    whole[images.start * classes..images.end * classes].copy_from_slice(&found[0]);
                    assert_reordered(&whole, expected, &format!("{what}: {lengths:?}, group {group}, {images:?}"));
                }
            }
        }
    }
}

#[test]
fn a_batch_without_images_has_no_logits() {
    let engine = tiny::engine(tiny::checkpoint(&tiny::config(), 1));
    let nothing = ImageBatch { size: 12, data: Vec::new() };
    let plugins = plugins(engine.backbone());
    let none = engine.forward(&nothing, 12, &[]).expect("nothing to do");
    assert!(none.is_empty());
    let empty = engine.forward(&nothing, 12, &segments(&plugins, &[0, 0])).expect("nothing to do");
    assert_eq!(empty, [[[]], [[]]] as [[[f32; 0]; 1]; 2]);
}

#[test]
fn segments_are_consecutive_from_image_0() {
    let engine = tiny::engine(tiny::checkpoint(&tiny::config(), 1));
    let plugins = plugins(engine.backbone());
    let batch = images(6, 12, 2);
    for ranges in [&[(1, 2)][..], &[(0, 2), (3, 4)], &[(0, 2), (1, 4)], &[(2, 4), (0, 2)]] {
        for asked in [1, 2] {
            let segment = |&(start, end): &(usize, usize)| Segment {
                images: start..end,
                plugins: plugins[..asked].iter().map(Into::into).collect(),
            };
            let segments: Vec<Segment<'_>> = ranges.iter().map(segment).collect();
            let run = || engine.forward(&batch, 12, &segments);
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "{ranges:?} with {asked} plug-ins each");
        }
    }
    engine.forward(&batch, 12, &segments(&plugins, &[2, 4])).expect("an engine survives what it refuses");
}

#[test]
fn permuting_images_permutes_outputs() {
    for (what, config) in variants() {
        let engine = tiny::engine(tiny::checkpoint(&config, 1));
        let adapter = tiny::adapter(&lora(4, 2.0, &Target::ALL), &config, 3);
        let head = tiny::head(3, &config, 4);
        let batch = images(7, config.image_size, 2);
        let order = [3, 0, 6, 5, 1, 4, 2];
        let straight = logits(&*engine, &batch, Some(&adapter), &head);
        let permuted = logits(&*engine, &pick(&batch, order), Some(&adapter), &head);
        let expected: Vec<f32> = order.iter().flat_map(|&i| &straight[3 * i..3 * (i + 1)]).copied().collect();
        assert_reordered(&permuted, &expected, what);
        assert!(distance(&permuted, &straight) > 0.1 * largest(&straight), "{what}: the images look all alike");
    }
}

fn label_loss(image: usize, logits: &[f32], d_logits: &mut [f32]) -> f64 {
    cross_entropy(logits, image % logits.len(), 0.1, &[], 0.125, d_logits)
}

/// Gradients, loss and logits of one step from zero, under dropout.
pub(crate) fn step(
    engine: &dyn Engine,
    batch: &ImageBatch,
    (adapter, head): (&Adapter, &Head),
    all_weights: bool,
) -> (Gradients, f64, Vec<f32>) {
    let mut gradients = Gradients::zeros(adapter, head, engine.backbone().config(), all_weights);
    let dropout = Some(Dropout { probability: 0.2, seed: 1, step: 2 });
    let input = Batch { source: batch, images: batch.len(), size: batch.size, loss: &label_loss, dropout };
    let (loss, logits) = engine.step(&input, adapter, head, &mut gradients).expect("one step");
    (gradients, loss, logits)
}

#[test]
fn grouping_does_not_change_gradients() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let adapter = tiny::adapter(&lora(4, 3.0, &Target::ALL), &config, 3);
        let adapter = tiny::with_bottlenecks(adapter, 5, &[1], &config, 5);
        let head = tiny::head(3, &config, 4);
        let batch = images(19, config.image_size, 2);
        for all_weights in [false, true] {
            let run = |group| {
                let engine = tiny::engine_of(checkpoint.clone(), Precision::F32, 2, group);
                step(&*engine, &batch, (&adapter, &head), all_weights)
            };
            let (expected, expected_loss, expected_logits) = run(1);
            for group in [2, 3, 8, 19, 100] {
                let (found, loss, logits) = run(group);
                assert!((loss - expected_loss).abs() < 1e-5, "{what}, group {group}");
                assert_reordered(&logits, &expected_logits, what);
                let names = gradient_names(&adapter, &tiny::head(3, &config, 3), &config, all_weights);
                for (name, (found, expected)) in names.iter().zip(found.tensors().into_iter().zip(expected.tensors())) {
                    if is_unseen(name, &config) {
                        assert!(largest(found).max(largest(expected)) < 1e-6, "{what}, group {group}, `{name}`");
                        continue;
                    }
                    assert_reordered(found, expected, &format!("{what}, group {group}, `{name}`"));
                }
            }
        }
    }
}

/// As several processes compute them: to the last bit, on any number of threads, and where all weights are trained those of as many threads.
#[test]
fn lanes_computed_apart_and_added_in_order_are_the_step() {
    let config = tiny::config();
    let checkpoint = tiny::checkpoint(&config, 1);
    let adapter = tiny::adapter(&lora(4, 3.0, &Target::ALL), &config, 3);
    let head = tiny::head(3, &config, 4);
    for (images_of_batch, all_weights) in [(53, false), (53, true), (5, false), (0, false)] {
        let batch = images(images_of_batch, config.image_size, 2);
        let of = |threads| tiny::engine_of(checkpoint.clone(), Precision::F32, threads, 1);
        let (expected, expected_loss, expected_logits) = step(&*of(16), &batch, (&adapter, &head), all_weights);
        for engine in [of(1), of(3)] {
            let zeros = || Gradients::zeros(&adapter, &head, &config, all_weights);
            let dropout = Some(Dropout { probability: 0.2, seed: 1, step: 2 });
            let input = Batch { source: &batch, images: batch.len(), size: batch.size, loss: &label_loss, dropout };
            let lanes = engine.lanes(batch.len());
            assert_eq!(lanes, images_of_batch.min(16));
            let (mut sum, mut loss, mut logits) = (zeros(), 0.0, Vec::new());
            for range in [0..lanes / 3, lanes / 3..lanes] {
                let mut parts = vec![zeros(); range.len()];
                // What was there before does not count.
                parts.iter_mut().flat_map(Gradients::tensors_mut).for_each(|tensor| tensor.fill(7.0));
                let found = engine.step_lanes(&input, &adapter, &head, range, &mut parts).expect("some lanes");
                for (part, (of_lane, more)) in parts.iter().zip(found) {
                    let tensors = sum.tensors_mut().into_iter().zip(part.tensors());
                    tensors.for_each(|(sum, part)| sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part));
                    loss += of_lane;
                    logits.extend(more);
                }
            }
            assert_eq!((loss, logits), (expected_loss, expected_logits.clone()));
            assert_eq!(sum.tensors(), expected.tensors(), "{images_of_batch} images");
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let config = tiny::config();
    let checkpoint = tiny::checkpoint(&config, 1);
    let on = |threads| tiny::engine_of(checkpoint.clone(), Precision::F32, threads, 2);
    let adapter = tiny::adapter(&lora(4, 3.0, &Target::ALL), &config, 3);
    let adapter = tiny::with_bottlenecks(adapter, 5, &[1], &config, 5);
    let head = tiny::head(3, &config, 4);
    // More groups than lanes of gradients, so that a lane holds several.
    let batch = images(53, config.image_size, 2);
    let run = |threads, all| step(&*on(threads), &batch, (&adapter, &head), all);
    let (expected, loss, expected_logits) = run(1, false);
    let (all_expected, ..) = run(1, true);
    for threads in [2, 3] {
        for _ in 0..3 {
            let (found, found_loss, found_logits) = run(threads, false);
            assert_eq!(found.tensors(), expected.tensors(), "{threads} threads");
            assert_eq!((found_loss, &found_logits), (loss, &expected_logits), "{threads} threads");
        }
        let (found, found_loss, found_logits) = run(threads, true);
        assert_eq!(found_logits, expected_logits);
        assert!((found_loss - loss).abs() < 1e-9);
        for (index, (found, expected)) in found.tensors().into_iter().zip(all_expected.tensors()).enumerate() {
            assert_reordered(found, expected, &format!("all weights, {threads} threads, tensor {index}"));
        }
        let plugins = plugins(on(1).backbone());
        let segments = segments(&plugins, &[1, 30, 0, 2, 20]);
        let forward = |threads| on(threads).forward(&batch, batch.size, &segments).expect("one batch");
        assert_eq!(forward(threads), forward(1), "{threads} threads");
    }
}

#[test]
fn one_engine_serves_trainings_of_every_shape() {
    let config = tiny::config();
    let checkpoint = tiny::checkpoint(&config, 1);
    let shared = tiny::engine(checkpoint.clone());
    let batch = images(5, config.image_size, 2);
    let trainings = [
        (lora(4, 3.0, &[Target::Q]), 3, false),
        (lora(4, 3.0, &[Target::Q, Target::V]), 3, false),
        (lora(4, 3.0, &[Target::K, Target::V]), 3, false),
        (lora(2, 3.0, &[Target::K, Target::V]), 3, false),
        (lora(2, 3.0, &[Target::K, Target::V]), 2, false),
        (lora(2, 3.0, &[Target::K, Target::V]), 2, true),
        (lora(0, 1.0, &[]), 2, false),
    ];
    for (lora, classes, all_weights) in trainings {
        let (adapter, head) = (tiny::adapter(&lora, &config, 3), tiny::head(classes, &config, 4));
        let fresh = tiny::engine(checkpoint.clone());
        let (expected, ..) = step(&*fresh, &batch, (&adapter, &head), all_weights);
        let (found, ..) = step(&*shared, &batch, (&adapter, &head), all_weights);
        assert!(found.tensors() == expected.tensors(), "{lora:?}, {classes} classes, all weights: {all_weights}");
    }
}

#[test]
fn training_leaves_the_backbone_alone() {
    let config = tiny::config();
    let checkpoint = tiny::checkpoint(&config, 1);
    let engine = tiny::engine(checkpoint.clone());
    let digest = engine.backbone().digest().to_owned();
    let batch = images(8, config.image_size, 2);
    let probe = tiny::head(3, &config, 9);
    let before = logits(&*engine, &batch, None, &probe);
    let mut adapter = Adapter::init(&lora(4, 2.0, &[Target::Q, Target::V]), &config, 3);
    let mut head = Head::zeros(3, config.feature_width());
    let mut losses = Vec::new();
    for _ in 0..5 {
        let (gradients, loss, _) = step(&*engine, &batch, (&adapter, &head), false);
        losses.push(loss);
        let trained = adapter.tensors_mut().into_iter().chain(head.tensors_mut());
        for (values, slopes) in trained.zip(gradients.tensors()) {
            values.iter_mut().zip(slopes).for_each(|(value, slope)| *value -= 0.1 * slope);
        }
    }
    assert!(losses.is_sorted_by(|a, b| a > b), "training goes downhill: {losses:?}");
    assert!(adapter.blocks.iter().all(|b| b[0].as_ref().is_some_and(|q| largest(&q.b) > 0.0)), "B has moved");
    assert_eq!(logits(&*engine, &batch, None, &probe), before);
    assert_eq!(engine.backbone().digest(), digest);
    assert_eq!(checkpoint.digest(), digest);
}

/// A source whose image 3 cannot be read.
struct Broken(ImageBatch);

impl ImageSource for Broken {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        if index == 3 { Err("truncated JPEG".into()) } else { self.0.load(index, out) }
    }
}

#[test]
fn an_unreadable_image_is_named_and_gradients_stay_unchanged() {
    let config = tiny::config();
    let checkpoint = tiny::checkpoint(&config, 1);
    let engine = tiny::engine(checkpoint.clone());
    let (adapter, head) = (tiny::adapter(&lora(4, 3.0, &Target::ALL), &config, 3), tiny::head(3, &config, 4));
    let source = Broken(images(5, config.image_size, 2));
    let mut gradients = Gradients::zeros(&adapter, &head, &config, false);
    let input = Batch { source: &source, images: 5, size: config.image_size, loss: &label_loss, dropout: None };
    let error = engine.step(&input, &adapter, &head, &mut gradients).expect_err("image 3 is broken");
    assert!(matches!(&error, Error::Image { index: 3, source } if source.to_string() == "truncated JPEG"), "{error}");
    assert!(gradients.tensors().into_iter().flatten().all(|&x| x == 0.0));
    // The next step must not see what the broken one left behind.
    let (found, ..) = step(&*engine, &source.0, (&adapter, &head), false);
    let (expected, ..) = step(&*tiny::engine(checkpoint), &source.0, (&adapter, &head), false);
    assert!(found.tensors() == expected.tensors());
}
