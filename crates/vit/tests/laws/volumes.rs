//! Volumes: their embedding against PyTorch's and against the backbone's own, embedded patches on both engines, and files.

use crate::engines::held;
use crate::tiny;
use crate::variants::{assert_reordered, assert_within, is_unseen, largest, logits, lora, variants};
use melo_reference::Reference;
use melo_vit::{
    Adapter, Batch, Checkpoint, Device, Dropout, Engine, Error, FeatureKind, Features, Gradients, Head, ImageBatch,
    ImageSource, Plugin, PluginRef, Precision, Preprocess, Segment, Storage, Target, TaskCard, VitConfig, VolumeConfig,
    VolumeEmbedding, Volumes, VoxelBatch, cross_entropy,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Mutex;

/// 2 × 2 patches of 4 pixels in 3 layers of 2 voxels.
const SIDE: usize = 8;
const DEPTH: usize = 6;
const K: usize = 2;

fn spec(size: usize, depth: usize) -> Preprocess {
    Preprocess { depth: Some(depth), mean: [0.5, 0.4, 0.3], std: [0.2, 0.25, 0.3], ..Preprocess::base(size) }
}

fn voxels(n: usize, seed: u64) -> VoxelBatch {
    let voxels = DEPTH * SIDE * SIDE;
    VoxelBatch { voxels, data: tiny::random(n * voxels, 2.0, &mut ChaCha8Rng::seed_from_u64(seed)) }
}

/// Inflated, and every tensor of it moved.
fn embedding(checkpoint: &Checkpoint) -> VolumeEmbedding {
    let config = VolumeConfig { patch_depth: K };
    let mut embedding =
        VolumeEmbedding::inflated(config, &spec(SIDE, DEPTH), &checkpoint.clone().freeze()).expect("an embedding");
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for tensor in embedding.tensors_mut() {
        let moved = tiny::random(tensor.len(), 0.2, &mut rng);
        tensor.iter_mut().zip(moved).for_each(|(x, by)| *x += by);
    }
    embedding
}

/// Networks whose positions every layer of a volume can have.
fn networks() -> Vec<(&'static str, VitConfig)> {
    variants().into_iter().filter(|(_, config)| !config.relative_positions).collect()
}

fn loss(image: usize, logits: &[f32], d_logits: &mut [f32]) -> f64 {
    let weight = |class: usize| ((3 * image + 2 * class + 1) as f64).sin();
    let logits = || logits.iter().map(|&z| f64::from(z)).enumerate();
    d_logits.iter_mut().zip(logits()).for_each(|(d, (class, z))| *d = (weight(class) + 0.2 * z) as f32);
    logits().map(|(class, z)| weight(class) * z + 0.1 * z * z).sum()
}

#[derive(Deserialize)]
struct Case {
    pre_norm: bool,
    weights: HashMap<String, Vec<f32>>,
    trained: HashMap<String, Vec<f32>>,
    voxels: Vec<f32>,
    labels: Vec<usize>,
    logits: Vec<f32>,
    loss: f64,
    gradients: HashMap<String, Vec<f32>>,
}

#[test]
fn volumes_are_embedded_and_differentiated_as_pytorch_does() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/volume.json")).expect("cases");
    assert_eq!(cases.len(), 2);
    for case in cases {
        let config =
            VitConfig { width: 8, mlp_hidden: 12, patch: 2, image_size: 8, pre_norm: case.pre_norm, ..tiny::config() };
        let mut checkpoint = tiny::checkpoint(&config, 1);
        for ((name, _), tensor) in config.tensor_shapes().iter().zip(checkpoint.weights.tensors_mut()) {
            tensor.clone_from(&case.weights[name]);
        }
        let lora = melo_vit::LoraConfig { blocks: vec![1], ..lora(2, 3.0, &[Target::Q, Target::V]) };
        let (spec, volume) = (spec(4, 6), VolumeConfig { patch_depth: 3 });
        let mut adapter = Adapter::zeros(&lora, &config);
        let mut head = Head::zeros(3, 8);
        let mut embedding = VolumeEmbedding::zeros(volume, &spec, &config);
        let names = |adapter: &Adapter, head: &Head| -> Vec<String> {
            let shapes = adapter.tensor_shapes(&config).into_iter().chain(head.shapes());
            let shapes = shapes.chain(VolumeEmbedding::tensor_shapes(volume, &spec, &config));
            shapes.map(|(name, _)| name).collect()
        };
        let names = names(&adapter, &head);
        let tensors = adapter.tensors_mut().into_iter().chain(head.tensors_mut());
        for (name, tensor) in names.iter().zip(tensors.chain(embedding.tensors_mut())) {
            let given = &case.trained[name];
            assert_eq!(given.len(), tensor.len(), "`{name}`");
            tensor.clone_from(given);
        }
        let engine = tiny::engine(checkpoint);
        let source = VoxelBatch { voxels: 6 * 4 * 4, data: case.voxels };
        let of_volume = |volume: usize, logits: &[f32], d_logits: &mut [f32]| {
            cross_entropy(logits, case.labels[volume], 0.0, &[], 1.0 / 3.0, d_logits)
        };
        let batch = Batch { source: &source, images: 3, size: 4, loss: &of_volume, dropout: None };
        let mut gradients = Gradients::zeros(&adapter, &head, &config, false);
        let mut of_embedding = embedding.zeros_like();
        let into = (&mut of_embedding, &mut gradients);
        let (loss, logits) = engine.volume_step(&batch, (&adapter, &head), &embedding, into).expect("a step");
        let what = format!("norm_pre: {}", case.pre_norm);
        assert!((loss - case.loss).abs() < 1e-5, "{what}: {loss} {}", case.loss);
        assert_reordered(&logits, &case.logits, &what);
        let found = gradients.tensors().into_iter().chain(of_embedding.tensors());
        for (name, found) in names.iter().zip(found) {
            assert_reordered(found, &case.gradients[name], &format!("{what}, `{name}`"));
        }
    }
}

/// A grey image, and the volume whose layers are all that image.
fn constant(depth: usize) -> (ImageBatch, VoxelBatch) {
    let (spec, area) = (spec(SIDE, depth), SIDE * SIDE);
    let level: Vec<f32> = tiny::random(area, 0.5, &mut ChaCha8Rng::seed_from_u64(3)).iter().map(|x| x + 0.5).collect();
    let channel = |c: usize| level.iter().map(move |x| (x - [0.5, 0.4, 0.3][c]) / [0.2, 0.25, 0.3][c]);
    let (mean, std) = spec.of_voxels();
    let layers = (0..depth).flat_map(|_| level.iter().map(|x| (x - mean) / std));
    let image = ImageBatch { size: SIDE, data: (0..3).flat_map(channel).collect() };
    (image, VoxelBatch { voxels: depth * area, data: layers.collect() })
}

#[test]
fn at_the_start_every_layer_of_a_constant_volume_is_the_image() {
    for (what, config) in networks() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let (image, volume) = constant(DEPTH);
        let inflated = |depth| {
            let config = VolumeConfig { patch_depth: K };
            VolumeEmbedding::inflated(config, &spec(SIDE, depth), &checkpoint.clone().freeze()).expect("an embedding")
        };
        let embedding = inflated(DEPTH);
        let (d, p, own) = (config.width, config.patch, &checkpoint.weights.patch_embed);
        let projected = |patch: usize, row: usize| {
            let (top, left) = (patch / 2 * p, patch % 2 * p);
            let pixel = |i: usize| image.data[i / (p * p) * SIDE * SIDE + (top + i / p % p) * SIDE + left + i % p];
            let weights = &own.weight[row * 3 * p * p..(row + 1) * 3 * p * p];
            let sum: f64 = weights.iter().zip(0..).map(|(w, i)| f64::from(*w) * f64::from(pixel(i))).sum();
            sum as f32 + own.bias.get(row).unwrap_or(&0.0)
        };
        let layer: Vec<f32> =
            (0..4).flat_map(|patch| (0..d).map(move |row| (patch, row))).map(|(p, r)| projected(p, r)).collect();
        let mut found = vec![0.0; 3 * layer.len()];
        embedding.forward(&volume.data, &mut found);
        assert_reordered(&found, &layer.repeat(3), what);
        // A volume of one layer goes through the whole network as its image.
        let (engine, head) = (tiny::engine(checkpoint.clone()), tiny::head(3, &config, 3));
        let adapter = tiny::adapter(&lora(2, 3.0, &Target::ALL), &config, 2);
        let expected = logits(&*engine, &image, Some(&adapter), &head);
        let plugin = PluginRef { adapter: Some(&adapter), head: &head };
        let one = engine.logits_of(&constant(K).1, (1, SIDE), plugin, Some(&inflated(K))).expect("logits");
        assert_reordered(&one, &expected, what);
    }
}

/// Keeps what the engine gives back.
struct Kept<'a> {
    volumes: Volumes<'a>,
    d_patches: Mutex<Vec<Vec<f32>>>,
}

impl ImageSource for Kept<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), melo_vit::ImageError> {
        self.volumes.load(index, out)
    }

    fn layers(&self) -> Option<usize> {
        self.volumes.layers()
    }

    fn take_gradient(&self, index: usize, d_patches: &[f32]) {
        let mut all = self.d_patches.lock().expect("one test");
        assert!(all[index].is_empty(), "a gradient twice");
        all[index] = d_patches.to_vec();
    }
}

#[test]
fn embedded_patches_are_the_same_on_all_engines() {
    for (number, (what, config)) in networks().into_iter().enumerate() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let embedding = embedding(&checkpoint);
        let (engines, reference) = (held(&checkpoint), Reference.load(checkpoint.freeze()).expect("f64"));
        let (source, head) = (voxels(3, 2), tiny::head(3, &config, 3));
        // From the second block on, and from the first: the gradient goes to the input all the same.
        let lora = melo_vit::LoraConfig { blocks: vec![number % 2], ..lora(2, 3.0, &[Target::Q, Target::V]) };
        let adapter = tiny::adapter(&lora, &config, 2);
        let dropout = (number % 3 == 0).then_some(Dropout { probability: 0.2, seed: 3, step: 9 });
        let run = |engine: &std::sync::Arc<dyn Engine>| {
            let d_patches = Mutex::new(vec![Vec::new(); 3]);
            let kept = Kept { volumes: Volumes { voxels: &source, embedding: &embedding }, d_patches };
            let batch = Batch { source: &kept, images: 3, size: SIDE, loss: &loss, dropout };
            let mut gradients = Gradients::zeros(&adapter, &head, &config, false);
            let (_, logits) = engine.step(&batch, &adapter, &head, &mut gradients).expect("a step");
            let embedded = engine.embed(&kept, 3, SIDE, Some(&adapter)).expect("features");
            let mean = Features { kind: FeatureKind::Mean, block: 0, norm: false };
            let of_block = engine.features(&kept, 3, SIDE, Some(&adapter), mean).expect("features");
            let [plugin, bare] = [Some(&adapter), None].map(|adapter| PluginRef { adapter, head: &head });
            let segments = [
                Segment { images: 0..2, plugins: vec![plugin, bare] },
                Segment { images: 2..3, plugins: vec![plugin] },
            ];
            let with = engine.forward_intermediates(&kept, SIDE, &segments, &[0, 1]).expect("logits");
            let gradients: Vec<Vec<f32>> = gradients.tensors().into_iter().cloned().collect();
            let features = [embedded, of_block, with.concat().concat()];
            (logits, features, gradients, kept.d_patches.into_inner().expect("one test").concat())
        };
        let expected = run(&reference);
        for engine in &engines {
            let (found, what) = (run(engine), format!("{what} on {}", engine.info().engine));
            assert_within(1e-5, &found.0, &expected.0, &format!("{what}: logits"));
            for (found, expected) in found.1.iter().zip(&expected.1) {
                assert_reordered(found, expected, &format!("{what}: features"));
            }
            let names = adapter.tensor_shapes(&config).into_iter().chain(head.shapes());
            for (((name, _), found), expected) in
                names.zip(&found.2).zip(&expected.2).filter(|((n, _), _)| !is_unseen(&n.0, &config))
            {
                assert!(largest(expected) > 1e-4, "{what}: `{name}` proves nothing");
                assert_reordered(found, expected, &format!("{what}: `{name}`"));
            }
            assert_eq!(found.3.len(), 3 * 3 * 4 * config.width);
            assert_reordered(&found.3, &expected.3, &format!("{what}: patches"));
        }
    }
}

/// In f64 but for the embedding, whose roundings (6e-8) are divided by steps of 2e-2.
#[test]
fn the_embedding_s_gradient_is_its_derivative() {
    let config = tiny::config();
    let checkpoint = tiny::checkpoint(&config, 1);
    let (embedding, source, head) = (embedding(&checkpoint), voxels(2, 5), tiny::head(3, &config, 3));
    let adapter = tiny::adapter(&lora(2, 3.0, &[Target::Q, Target::V]), &config, 2);
    let reference = Reference.load(checkpoint.clone().freeze()).expect("f64");
    let of_engine = |engine: std::sync::Arc<dyn Engine>| {
        let mut of_embedding = embedding.zeros_like();
        let mut gradients = Gradients::zeros(&adapter, &head, &config, false);
        let batch = Batch { source: &source, images: 2, size: SIDE, loss: &loss, dropout: None };
        let into = (&mut of_embedding, &mut gradients);
        engine.volume_step(&batch, (&adapter, &head), &embedding, into).expect("a step");
        of_embedding
    };
    let all: Vec<VolumeEmbedding> = held(&checkpoint).into_iter().map(of_engine).collect();
    let at = |embedding: &VolumeEmbedding| -> f64 {
        let plugin = PluginRef { adapter: Some(&adapter), head: &head };
        let logits = reference.logits_of(&source, (2, SIDE), plugin, Some(embedding)).expect("logits");
        logits.chunks_exact(3).enumerate().map(|(image, of)| loss(image, of, &mut [0.0; 3])).sum()
    };
    for (number, slopes) in all.iter().flat_map(|of_embedding| of_embedding.tensors().into_iter().enumerate()) {
        let bound = 1e-3 * largest(slopes);
        assert!(bound > 1e-5, "tensor {number} proves nothing");
        for place in (0..slopes.len()).step_by(slopes.len() / 13 + 1) {
            let moved = |by: f32| {
                let mut moved = embedding.clone();
                moved.tensors_mut()[number][place] += by;
                at(&moved)
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            let error = (slope - f64::from(slopes[place])).abs();
            assert!(error <= f64::from(bound), "{number} at {place}: {} expected {slope}", slopes[place]);
        }
    }
}

#[test]
fn threads_and_groups_change_no_gradient() {
    let config = tiny::config();
    let checkpoint = tiny::checkpoint(&config, 1);
    let (embedding, source, head) = (embedding(&checkpoint), voxels(37, 5), tiny::head(3, &config, 3));
    let adapter = tiny::adapter(&lora(2, 3.0, &[Target::Q, Target::V]), &config, 2);
    let step = |threads: usize, group: usize, volumes: &[usize]| {
        let engine = tiny::engine_of(checkpoint.clone(), Precision::F32, threads, group);
        let mut of_embedding = embedding.zeros_like();
        let mut gradients = Gradients::zeros(&adapter, &head, &config, false);
        for &count in volumes {
            let batch = Batch { source: &source, images: count, size: SIDE, loss: &loss, dropout: None };
            let into = (&mut of_embedding, &mut gradients);
            engine.volume_step(&batch, (&adapter, &head), &embedding, into).expect("a step");
        }
        let all = gradients.tensors().into_iter().chain(of_embedding.tensors()).cloned().collect::<Vec<_>>();
        all.concat()
    };
    let expected = step(1, 1, &[37]);
    assert_eq!(step(4, 1, &[37]), expected);
    assert_reordered(&step(2, 2, &[37]), &expected, "groups of two");
    let mut twice = expected.clone();
    twice.iter_mut().for_each(|x| *x *= 2.0);
    assert_reordered(&step(2, 1, &[37, 37]), &twice, "gradients are added");
}

#[test]
fn several_plugins_on_embedded_patches_are_answered_as_alone() {
    let config = tiny::config();
    let checkpoint = tiny::checkpoint(&config, 1);
    let (embedding, source) = (embedding(&checkpoint), voxels(3, 5));
    let volumes = Volumes { voxels: &source, embedding: &embedding };
    for engine in held(&checkpoint) {
        let plugins = [2, 3].map(|seed| tiny::plugin(engine.backbone(), &lora(2, 3.0, &[Target::Q]), 3, seed));
        let segments = [Segment { images: 0..3, plugins: plugins.iter().map(Into::into).collect() }];
        let together = engine.forward(&volumes, SIDE, &segments).expect("logits").swap_remove(0);
        for (plugin, found) in plugins.iter().zip(together) {
            let alone = engine.logits(&volumes, 3, SIDE, plugin.into()).expect("logits");
            assert_reordered(&found, &alone, "together");
        }
    }
}

fn plugin() -> (std::sync::Arc<dyn Engine>, Plugin) {
    let checkpoint = tiny::checkpoint(&tiny::config(), 1);
    let volume = Some(embedding(&checkpoint));
    let engine = tiny::engine(checkpoint);
    let plugin = tiny::plugin(engine.backbone(), &lora(2, 3.0, &[Target::Q, Target::V]), 3, 5);
    let card = TaskCard { volume: Some(VolumeConfig { patch_depth: K }), preprocess: spec(SIDE, DEPTH), ..plugin.card };
    let mut plugin = Plugin { card, volume, ..plugin };
    plugin.finish(&*engine, Storage::F32).expect("a self-test");
    (engine, plugin)
}

#[test]
fn a_plug_in_of_volumes_comes_back_as_it_was() {
    let (engine, plugin) = plugin();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("volumes.safetensors");
    plugin.save(&path, engine.backbone().config(), Storage::F32).expect("written");
    let read = Plugin::load(&path, engine.backbone()).expect("read");
    assert_eq!((read.card.format, &read.volume, &read.head), (8, &plugin.volume, &plugin.head));
    assert_eq!(read.parameters(), plugin.parameters());
    assert!(matches!(read.refuse_volumes(), Err(Error::AnswersForVolumes { task }) if task == "tiny"));
    read.prove(&*engine).expect("the same answers");
    let mut other = plugin.clone();
    other.volume.as_mut().expect("volumes").positions.iter_mut().for_each(|z| *z *= -2.0);
    assert!(matches!(other.self_test(&*engine), Err(Error::SelfTestDiffers { .. })));
}

#[test]
fn cards_of_volumes_that_contradict_themselves_are_refused() {
    let (_, plugin) = plugin();
    let card = TaskCard { format: 8, ..plugin.card };
    let wrong = [
        (TaskCard { format: 7, ..card.clone() }, "format 7 has no field `volume`"),
        (
            TaskCard { volume: Some(VolumeConfig { patch_depth: 4 }), ..card.clone() },
            "a depth of 6 voxels is not a multiple of the patch's 4",
        ),
        (TaskCard { volume: Some(VolumeConfig { patch_depth: 0 }), ..card.clone() }, "not a multiple"),
        (TaskCard { volume: None, ..card.clone() }, "a depth belongs to tasks of volumes"),
        (TaskCard { preprocess: Preprocess::base(SIDE), ..card.clone() }, "the preprocessing is of images"),
        (TaskCard { bag: Some(melo_vit::BagConfig::default()), ..card.clone() }, "masks and bags are of images"),
        (
            TaskCard { preprocess: Preprocess { depth: Some(0), ..spec(SIDE, DEPTH) }, ..card.clone() },
            "depth 0 is not in 1",
        ),
        (TaskCard { preprocess: Preprocess { crop_pct: 0.9, ..spec(SIDE, DEPTH) }, ..card.clone() }, "squeezed"),
        (TaskCard { preprocess: spec(4096, 4096), ..card.clone() }, "voxels"),
    ];
    for (card, words) in wrong {
        let error = card.check().expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
    card.check().expect("as it was");
}

#[test]
fn relative_positions_take_no_volumes() {
    let config = VitConfig { relative_positions: true, pos_embed: false, ..tiny::config() };
    let checkpoint = tiny::checkpoint(&config, 1);
    let volume = VolumeConfig { patch_depth: K };
    let refused = VolumeEmbedding::inflated(volume, &spec(SIDE, DEPTH), &checkpoint.clone().freeze());
    assert!(matches!(&refused, Err(Error::Volume { reason }) if reason.contains("BEiT")), "{refused:?}");
    let plain = embedding(&tiny::checkpoint(&tiny::config(), 1));
    let source = voxels(1, 2);
    for engine in held(&checkpoint).into_iter().chain([Reference.load(checkpoint.freeze()).expect("f64")]) {
        let volumes = Volumes { voxels: &source, embedding: &plain };
        assert!(matches!(engine.embed(&volumes, 1, SIDE, None), Err(Error::Volume { .. })));
    }
}
