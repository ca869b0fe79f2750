//! Every pass of every engine against the same pass on the reference engine, in f64: of the processor's, and of the one for GPUs, whose
//! kernels run on the processor where there is a C++20 compiler. Steps on all weights are held to it in `gradients.rs`.
//!
//! All get the same f32 weights, so what differs is the roundings of f32: 6e-8 each, through some 40 operations one after
//! the other, with sums of up to 48 terms, which mostly cancel; errors of erf (5e-7) come on top. That is 2e-5 of the
//! largest result, the bound of [`assert_reordered`].

use crate::batches::plugins;
use crate::dense;
use crate::gradients::{Setting, assert_gradients};
use crate::tiny;
use crate::variants::{assert_reordered, assert_within, images, logits, lora, variants};
use melo_cuda::Cuda;
use melo_cuda_host::Host;
use melo_reference::Reference;
use melo_vit::{
    Batch, Checkpoint, Device, Dropout, Engine, Error, ExplainMethod, Explanation, FeatureKind, Features, Gradients,
    Head, LoraConfig, Plugin, PluginRef, Pool, Precision, Segment, SelfTest, Target, VitConfig,
};
use std::sync::Arc;

/// The same network on the processor and in f64.
fn engines(checkpoint: &Checkpoint) -> [Arc<dyn Engine>; 2] {
    [tiny::engine(checkpoint.clone()), in_f64(checkpoint)]
}

/// The same network on every engine that is held to f64.
pub(crate) fn held(checkpoint: &Checkpoint) -> Vec<Arc<dyn Engine>> {
    [tiny::engine(checkpoint.clone())].into_iter().chain(cuda(checkpoint)).collect()
}

/// The engine for GPUs, with groups of two images: see [`cuda_of`].
fn cuda(checkpoint: &Checkpoint) -> Option<Arc<dyn Engine>> {
    cuda_of(checkpoint, Precision::F32, 2)
}

/// The engine for GPUs: on the processor, or with MELO_TEST_CUDA on a card. None without a C++20 compiler.
pub(crate) fn cuda_of(checkpoint: &Checkpoint, precision: Precision, group: usize) -> Option<Arc<dyn Engine>> {
    let device = match std::env::var_os("MELO_TEST_CUDA") {
        Some(_) => Cuda::open(0, Some(precision)).expect("a card"),
        None => Cuda::on(Host::open()?, Some(precision)),
    };
    let device = device.with_group(group);
    Some(device.load(checkpoint.clone().freeze()).expect("a network that it computes"))
}

/// The same network in f64.
fn in_f64(checkpoint: &Checkpoint) -> Arc<dyn Engine> {
    Reference.load(checkpoint.clone().freeze()).expect("f64 computes every network")
}

/// Smaller than the weights' own, their own, and larger.
const SIZES: [usize; 3] = [8, 12, 20];

#[test]
fn they_tell_who_they_are() {
    let [cpu, reference] = engines(&tiny::checkpoint(&tiny::config(), 1)).map(|engine| engine.info());
    assert_eq!((cpu.engine, cpu.precision, cpu.threads), ("cpu", Precision::F32, 2));
    assert_eq!((reference.engine, reference.device.as_str()), ("reference", "f64"));
    assert_eq!((reference.precision, reference.threads), (Precision::F32, 1));
    assert_eq!(Reference.info(), reference);
    assert_eq!(Reference.peak(), None);
}

#[test]
fn forward_with_mixed_plugins() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let (engines, reference) = (held(&checkpoint), in_f64(&checkpoint));
        let plugins = plugins(reference.backbone());
        let asked: [(std::ops::Range<usize>, &[usize]); 5] =
            [(0..1, &[0, 1, 2, 3]), (1..3, &[5, 4, 5]), (3..3, &[1]), (3..4, &[]), (4..6, &[7, 6])];
        let segment = |(images, numbers): &(std::ops::Range<usize>, &[usize])| Segment {
            images: images.clone(),
            plugins: numbers.iter().map(|&number| (&plugins[number]).into()).collect(),
        };
        let segments: Vec<Segment<'_>> = asked.iter().map(segment).collect();
        for size in SIZES {
            let batch = images(6, size, 2);
            let forward = |engine: &Arc<dyn Engine>| engine.forward(&batch, size, &segments).expect("a tiled size");
            let expected = forward(&reference);
            let shape = |logits: &[Vec<Vec<f32>>]| -> Vec<Vec<usize>> {
                logits.iter().map(|plugins| plugins.iter().map(Vec::len).collect()).collect()
            };
            assert_eq!(shape(&expected), [vec![3, 2, 5, 1], vec![4, 14, 4], vec![0], vec![], vec![4, 8]]);
            for engine in &engines {
                let (found, what) = (forward(engine), format!("{what} at {size} on {}", engine.info().engine));
                assert_eq!(shape(&found), shape(&expected));
                // A single logit may be a sum that cancels: the share is of the largest of all.
                assert_within(1e-5, &found.concat().concat(), &expected.concat().concat(), &what);
            }
        }
    }
}

/// Behind the outputs, of plug-ins that part from the trunk at different blocks, heads on patch tokens among them, of several of them in
/// one group, and of one segment with a plug-in each.
#[test]
fn intermediates() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let reference = in_f64(&checkpoint);
        let (plugins, dense) = (plugins(reference.backbone()), dense::heads(&config));
        let dense = dense.iter().map(|(adapter, head)| PluginRef { adapter: adapter.as_ref(), head });
        let all: Vec<PluginRef<'_>> = plugins.iter().map(PluginRef::from).chain(dense).collect();
        let shared: [(std::ops::Range<usize>, &[usize]); 3] =
            [(0..1, &[0, 1, 8, 2, 3]), (1..2, &[]), (2..4, &[5, 4, 10, 7, 6, 9])];
        let single: [(std::ops::Range<usize>, &[usize]); 3] = [(0..1, &[1]), (1..3, &[5]), (3..4, &[10])];
        for (asked, size, group) in [(shared, 8, 16), (single, 12, 2)] {
            let on_gpu = cuda_of(&checkpoint, Precision::F32, group);
            let engines: Vec<_> = [tiny::engine(checkpoint.clone())].into_iter().chain(on_gpu).collect();
            let segment = |(images, numbers): &(std::ops::Range<usize>, &[usize])| Segment {
                images: images.clone(),
                plugins: numbers.iter().map(|&number| all[number]).collect(),
            };
            let (segments, batch) = (asked.iter().map(segment).collect::<Vec<_>>(), images(4, size, 2));
            let asked = segments.iter().flat_map(|segment| &segment.plugins);
            let outputs: Vec<usize> = asked.map(|plugin| plugin.head.outputs(&config, size)).collect();
            for blocks in [&[0][..], &[1], &[0, 1]] {
                let of = |engine: &Arc<dyn Engine>, blocks: &[usize]| {
                    engine.forward_intermediates(&batch, size, &segments, blocks).expect("a tiled size").concat()
                };
                let (expected, width) = (of(&reference, blocks), blocks.len() * config.intermediate_width());
                for engine in &engines {
                    let (found, plain) = (of(engine, blocks), of(engine, &[]));
                    let what = format!("{what} at {size}: {blocks:?} on {}", engine.info().engine);
                    for (answer, &outputs) in outputs.iter().enumerate() {
                        let (found, plain) = (&found[answer], &plain[answer]);
                        assert_eq!(found.len(), plain.len() / outputs * (outputs + width), "{what}");
                        assert_within(1e-5, found, &expected[answer], &what);
                        let rows = found.chunks_exact(outputs + width).map(|row| &row[..outputs]).collect::<Vec<_>>();
                        // Blocks are shared up to the last one that is kept: on the processor in f32 sums may be in another order.
                        match engine.info().engine {
                            "cpu" => assert_reordered(&rows.concat(), plain, &what),
                            _ => assert_eq!(&rows.concat(), plain, "{what}"),
                        }
                    }
                }
            }
        }
    }
}

/// At every size, under dropout: adapters, bottlenecks and heads of a plug-in.
#[test]
fn step() {
    for ((what, config), size) in variants().into_iter().zip(SIZES.into_iter().cycle()) {
        let checkpoint = tiny::checkpoint(&config, 1);
        let adapter = tiny::adapter(&lora(2, 3.0, &[Target::K, Target::V, Target::Fc1]), &config, 2);
        let adapter = tiny::with_bottlenecks(adapter, 3, &[1], &config, 4);
        let dropout = Some(Dropout { probability: 0.2, seed: 3, step: 9 });
        let setting = Setting { size, dropout, all_weights: false };
        let what = format!("{what} at {size}");
        assert_gradients(setting, &what, &checkpoint, (&adapter, &tiny::head(3, &config, 3)));
    }
}

/// The gradient goes down and up again and is multiplied by attention, a block after the other: twice the bound.
#[test]
fn explain() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let (engines, reference) = (held(&checkpoint), in_f64(&checkpoint));
        let plugin = tiny::plugin(reference.backbone(), &lora(2, 5.0, &Target::ALL), 3, 2);
        let bare = PluginRef { adapter: None, head: &plugin.head };
        for (plugin, size) in [PluginRef::from(&plugin), bare].into_iter().zip([12, 8]) {
            let image = images(1, size, 3).data;
            for (class, method) in
                [(0, ExplainMethod::Rollout), (0, ExplainMethod::Gradient), (2, ExplainMethod::Gradient)]
            {
                let explain = |engine: &Arc<dyn Engine>| {
                    engine.explain(&image, size, plugin, class, method).expect("a tiled size")
                };
                let expected = explain(&reference);
                for engine in &engines {
                    let found = explain(engine);
                    let what = format!("{what} at {size}, class {class} by {method:?} on {}", engine.info().engine);
                    assert_eq!((found.grid, found.prefix.len()), (expected.grid, expected.prefix.len()), "{what}");
                    assert_reordered(&found.logits, &expected.logits, &what);
                    let all = |Explanation { values, prefix, .. }: &Explanation| [&prefix[..], values].concat();
                    assert_within(4e-5, &all(&found), &all(&expected), &what);
                }
            }
        }
    }
}

#[test]
fn embed() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let (engines, reference) = (held(&checkpoint), in_f64(&checkpoint));
        let adapter = tiny::adapter(&lora(4, 2.0, &Target::ALL), &config, 3);
        let adapter = tiny::with_bottlenecks(adapter, 5, &[0], &config, 5);
        for (size, adapter) in SIZES.into_iter().flat_map(|size| [None, Some(&adapter)].map(|adapter| (size, adapter)))
        {
            let batch = images(3, size, 2);
            let embed = |engine: &Arc<dyn Engine>| engine.embed(&batch, 3, size, adapter).expect("a tiled size");
            let expected = embed(&reference);
            assert_eq!(expected.len(), 3 * config.feature_width());
            for engine in &engines {
                let what = format!("{what} at {size}, adapted: {} on {}", adapter.is_some(), engine.info().engine);
                assert_reordered(&embed(engine), &expected, &what);
            }
        }
    }
}

#[test]
fn features() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let (engines, reference) = (held(&checkpoint), in_f64(&checkpoint));
        let adapter = tiny::adapter(&lora(4, 2.0, &Target::ALL), &config, 3);
        for (size, adapter) in SIZES.into_iter().zip([None, Some(&adapter), None]) {
            let batch = images(3, size, 2);
            for features in all_features(&config) {
                let of = |engine: &Arc<dyn Engine>| {
                    engine.features(&batch, 3, size, adapter, features).expect("a tiled size")
                };
                let (expected, shape) = (of(&reference), features.shape(&config, size));
                assert_eq!(expected.len(), 3 * shape.iter().product::<usize>(), "{what}: {features:?}");
                for engine in &engines {
                    let what = format!("{what} at {size}: {features:?} on {}", engine.info().engine);
                    assert_reordered(&of(engine), &expected, &what);
                }
            }
        }
    }
}

/// Every kind that the network has, of every block, with and without its norm.
fn all_features(config: &VitConfig) -> Vec<Features> {
    let kinds = [FeatureKind::Class, FeatureKind::Mean, FeatureKind::Grid, FeatureKind::Pooled];
    let of_block =
        |block| kinds.into_iter().flat_map(move |kind| [true, false].map(|norm| Features { kind, block, norm }));
    (0..config.depth).flat_map(of_block).filter(|features| features.check(config).is_ok()).collect()
}

/// A block's output is the last one's of a network that ends there; norms and pooling are those of the whole network.
#[test]
fn features_of_a_block_are_those_of_a_network_that_ends_there() {
    for (what, config) in variants() {
        let whole = tiny::checkpoint(&config, 1);
        let mut cut = whole.clone();
        cut.config.depth = 1;
        cut.weights.blocks.truncate(1);
        let (size, batch) = (config.image_size, images(3, config.image_size, 2));
        let [whole, cut] = [whole, cut].map(tiny::engine);
        for features in all_features(&config).into_iter().filter(|features| features.block == 0) {
            let of = |engine: &Arc<dyn Engine>| engine.features(&batch, 3, size, None, features).expect("a tiled size");
            assert_reordered(&of(&whole), &of(&cut), &format!("{what}: {features:?}"));
        }
    }
}

/// The shortest way to what heads read, and the same asked for as features; and one image on several threads.
#[test]
fn features_that_heads_read_are_what_embed_gives_and_threads_change_nothing() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let (size, batch) = (config.image_size, images(3, config.image_size, 2));
        let engines = [(1, 1), (4, 1), (2, 2)]
            // Where rows of a product are computed in any company to the same bits: in f32 not on every instruction set.
            .map(|(threads, group)| tiny::engine_of(checkpoint.clone(), Precision::Bf16, threads, group));
        let pooled = Features::pooled(&config);
        let embedded = engines[0].embed(&batch, 3, size, None).expect("a tiled size");
        assert_eq!(engines[0].features(&batch, 3, size, None, pooled).expect("a tiled size"), embedded, "{what}");
        for features in all_features(&config) {
            for images in [1, 3] {
                let of = |engine: &Arc<dyn Engine>| engine.features(&batch, images, size, None, features);
                let [one, four, two] = engines.each_ref().map(of).map(|found| found.expect("a tiled size"));
                assert_eq!((&four, &two), (&one, &one), "{what}: {features:?} of {images}");
            }
        }
    }
}

#[test]
fn features_that_a_network_does_not_have_are_refused_by_name() {
    let config = tiny::config();
    let batch = images(1, config.image_size, 2);
    for engine in held(&tiny::checkpoint(&config, 1)) {
        for (features, words) in [
            (Features { block: 2, ..Features::pooled(&config) }, "block 2 of a backbone whose blocks are 0 to 1"),
            (Features { norm: false, ..Features::pooled(&config) }, "what heads read has its norms"),
        ] {
            let error = engine.features(&batch, 1, config.image_size, None, features).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
        let error = engine.forward_intermediates(&batch, config.image_size, &[], &[1, 2]).expect_err("two blocks");
        assert!(matches!(&error, Error::Features(reason) if reason.contains("block 2")), "{error}");
    }
    let config = VitConfig { class_token: false, pool: Pool::Avg, ..config };
    for engine in held(&tiny::checkpoint(&config, 1)) {
        let features = Features::new(FeatureKind::Class, &config);
        let error = engine.features(&batch, 1, config.image_size, None, features).expect_err("no class token");
        assert!(matches!(&error, Error::Features(reason) if reason.contains("class token")), "{error}");
    }
}

/// A step of a head alone on features is the step on the images, to the last bit.
#[test]
fn a_step_of_the_head_on_features_is_the_step_on_the_images() {
    for (what, config) in variants() {
        for (threads, group, n) in [(1, 1, 40), (2, 1, 7), (2, 2, 21)] {
            let engine = tiny::engine_of(tiny::checkpoint(&config, 1), Precision::F32, threads, group);
            let (size, batch, head) = (config.image_size, images(n, config.image_size, 2), tiny::head(3, &config, 4));
            let none = tiny::adapter(&LoraConfig::none(), &config, 3);
            let loss = |image: usize, logits: &[f32], d_logits: &mut [f32]| {
                d_logits.copy_from_slice(logits);
                d_logits[image % 3] -= 1.0;
                f64::from(logits[image % 3])
            };
            let input = Batch { source: &batch, images: n, size, loss: &loss, dropout: None };
            let mut expected = Gradients::zeros(&none, &head, &config, false);
            let step = engine.step(&input, &none, &head, &mut expected).expect("a step");
            let features = engine.embed(&batch, n, size, None).expect("features");
            let mut found = Head::zeros(3, config.feature_width());
            let of_features = engine.head_step(&features, &loss, &head, &mut found).expect("the processor has one");
            assert_eq!(of_features, step, "{what}, {n} images");
            assert_eq!(found, expected.head, "{what}, {n} images");
            assert_eq!(engine.classify(&features, &head), step.1);
        }
    }
}

#[test]
fn with_weights() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let (engines, reference) = (held(&checkpoint), in_f64(&checkpoint));
        let weights = tiny::checkpoint(&config, 2).weights;
        let (adapter, head) = (tiny::adapter(&lora(4, 2.0, &Target::ALL), &config, 3), tiny::head(3, &config, 4));
        let batch = images(3, config.image_size, 2);
        let run = |engine: &Arc<dyn Engine>| {
            let other = engine.with_weights(&weights).expect("other weights of the same network");
            assert_eq!((other.backbone().digest(), other.info()), ("", engine.info()), "{what}");
            [other, engine.clone()].map(|engine| logits(&*engine, &batch, Some(&adapter), &head))
        };
        let expected = run(&reference);
        for found in engines.iter().map(run) {
            found.iter().zip(&expected).for_each(|(found, expected)| assert_reordered(found, expected, what));
        }
    }
}

#[test]
fn a_self_test_taken_on_one_holds_on_the_other() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let (engines, reference) = (held(&checkpoint), in_f64(&checkpoint));
        let pairs = engines.iter().flat_map(|engine| [(engine, &reference), (&reference, engine)]);
        for (taken, run) in pairs.chain([(&reference, &reference)]) {
            let (taken, run) = (&**taken, &**run);
            let mut plugin: Plugin = tiny::plugin(taken.backbone(), &lora(4, 2.0, &Target::ALL), 3, 2);
            plugin.card.self_test = Some(SelfTest::take(taken, &plugin).expect("images of this size"));
            assert_eq!(plugin.card.self_test.as_ref().map(|test| test.engine.as_str()), Some(taken.info().engine));
            plugin.self_test(run).unwrap_or_else(|error| panic!("{what}: {error}"));
            plugin.adapter.config.alpha *= 1.05;
            plugin.self_test(run).expect_err("a scale that is off by 5 %");
        }
    }
}

/// One network of a size at which groups, parts and kernels' remainders matter: three heads of 8 on 25 tokens.
#[test]
fn a_wider_network() {
    let config = VitConfig { width: 24, heads: 3, mlp_hidden: 52, image_size: 20, depth: 3, ..tiny::config() };
    let checkpoint = tiny::checkpoint(&config, 1);
    let reference = in_f64(&checkpoint);
    let plugin = tiny::plugin(reference.backbone(), &lora(5, 3.0, &Target::ALL), 5, 2);
    let batch = images(5, 20, 2);
    let run = |engine: &Arc<dyn Engine>| logits(&**engine, &batch, Some(&plugin.adapter), &plugin.head);
    let expected = run(&reference);
    held(&checkpoint).iter().for_each(|engine| assert_reordered(&run(engine), &expected, "wider"));
}
