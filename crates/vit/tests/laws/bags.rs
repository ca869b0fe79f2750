//! Bags: PyTorch's gradients, and two passes in groups as one pass over all.

use crate::tiny;
use crate::variants::{assert_reordered, images, lora};
use melo_vit::{
    BagBatch, BagConfig, BagHead, BagPooling, Batch, Dropout, Engine, Error, Gradients, Head, ImageError, ImageSource,
    Plugin, Storage, Target, cross_entropy,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Deserialize)]
struct Case {
    pooling: BagPooling,
    hidden: usize,
    positions: usize,
    width: usize,
    lengths: Vec<usize>,
    labels: Vec<usize>,
    features: Vec<f32>,
    tensors: BTreeMap<String, Vec<f32>>,
    logits: Vec<f32>,
    attention: Vec<Vec<f32>>,
    loss: f64,
    d_features: Vec<f32>,
    gradients: BTreeMap<String, Vec<f32>>,
}

/// f32 against PyTorch's f64: values of about 1 that are sums of some twenty products.
fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 2e-5 * expected.abs().max(1.0), "{what} at {at}: {found} {expected}");
    }
}

#[test]
fn bags_are_pooled_and_differentiated_as_pytorch_does() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/bag.json")).expect("cases");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let config = BagConfig { pooling: case.pooling, hidden: case.hidden, positions: case.positions };
        let mut bag = BagHead::zeros(config, case.width);
        let shapes = BagHead::tensor_shapes(config, case.width);
        for ((name, _), tensor) in shapes.iter().zip(bag.tensors_mut()) {
            tensor.clone_from(&case.tensors[name]);
        }
        let head = Head {
            weight: case.tensors["head.weight"].clone(),
            bias: case.tensors["head.bias"].clone(),
            decoder: None,
        };
        let scale = 1.0 / case.lengths.len() as f64;
        let loss = |bag: usize, logits: &[f32], d_logits: &mut [f32]| {
            cross_entropy(logits, case.labels[bag], 0.0, &[], scale, d_logits)
        };
        let mut gradients = (BagHead::zeros(config, case.width), Head::zeros(head.rows(), case.width));
        let (of_bag, of_head) = (&mut gradients.0, &mut gradients.1);
        let found = bag.step(&case.features, &case.lengths, &loss, &head, (of_bag, of_head));
        let what = case.pooling.in_words();
        assert!((found.loss - case.loss).abs() < 1e-5, "{what}: {} {}", found.loss, case.loss);
        assert_close(&found.logits, &case.logits, what);
        assert_close(&found.d_features, &case.d_features, &format!("{what}, features"));
        assert_close(&gradients.1.weight, &case.gradients["head.weight"], &format!("{what}, head"));
        assert_close(&gradients.1.bias, &case.gradients["head.bias"], &format!("{what}, bias"));
        for ((name, _), found) in shapes.iter().zip(gradients.0.tensors()) {
            assert_close(found, &case.gradients[name], &format!("{what}, {name}"));
        }
        let mut first = 0;
        for (length, expected) in case.lengths.iter().zip(&case.attention) {
            let of_bag = &case.features[first * case.width..(first + length) * case.width];
            assert_close(&bag.pool(of_bag).attention, expected, &format!("{what}, attention"));
            first += length;
        }
    }
}

/// The least of three classes, pulled at by bag.
fn loss(bag: usize, logits: &[f32], d_logits: &mut [f32]) -> f64 {
    cross_entropy(logits, bag % 3, 0.1, &[], 0.5, d_logits)
}

const LENGTHS: [usize; 3] = [41, 1, 5];
const IMAGES: usize = 47;

struct Bags {
    engine: std::sync::Arc<dyn Engine>,
    plugin: Plugin,
    bag: BagHead,
}

/// More images than a group has.
fn bags(pooling: BagPooling) -> Bags {
    let engine = tiny::engine(tiny::checkpoint(&tiny::config(), 1));
    let plugin = tiny::plugin(engine.backbone(), &lora(4, 2.0, &Target::ALL), 3, 5);
    let config = match pooling {
        BagPooling::GatedAttention => BagConfig { pooling, hidden: 7, positions: 4 },
        _ => BagConfig::of(pooling),
    };
    let mut bag = BagHead::init(config, 16, 9);
    bag.positions.iter_mut().zip(0..).for_each(|(p, at)| *p = 0.05 * ((at % 7) as f32 - 3.0));
    Bags { engine, plugin, bag }
}

impl Bags {
    fn zeros(&self) -> (BagHead, Gradients) {
        let Plugin { adapter, head, .. } = &self.plugin;
        let bag = BagHead::zeros(self.bag.config, 16);
        (bag, Gradients::zeros(adapter, head, self.engine.backbone().config(), false))
    }

    fn step(&self, source: &dyn ImageSource, dropout: Option<Dropout>) -> (f64, BagHead, Gradients) {
        let (mut of_bag, mut gradients) = self.zeros();
        let batch = BagBatch { source, lengths: &LENGTHS, size: 12, loss: &loss, dropout };
        let Plugin { adapter, head, .. } = &self.plugin;
        let into = (&mut of_bag, &mut gradients);
        let (loss, logits) = self.engine.bag_step(&batch, adapter, (&self.bag, head), into).expect("a step");
        assert_eq!(logits.len(), 3 * LENGTHS.len());
        (loss, of_bag, gradients)
    }
}

/// The loss of the bags as the engine answers them, for central differences.
fn loss_of(bags: &Bags, source: &dyn ImageSource) -> f64 {
    let Plugin { adapter, head, .. } = &bags.plugin;
    let of_bags = bags.engine.bag_logits(source, &LENGTHS, 12, Some(adapter), (&bags.bag, head)).expect("logits");
    of_bags.logits.chunks_exact(3).enumerate().map(|(bag, logits)| loss(bag, logits, &mut [0.0; 3])).sum()
}

#[test]
fn two_passes_in_groups_give_the_gradients_of_one() {
    for pooling in [BagPooling::GatedAttention, BagPooling::Mean, BagPooling::Max] {
        let bags = bags(pooling);
        let source = images(IMAGES, 12, 2);
        let (found, of_bag, gradients) = bags.step(&source, None);
        // One pass: all images at once, with the gradient of the features that the bags alone give.
        let Plugin { adapter, head, .. } = &bags.plugin;
        let features = bags.engine.embed(&source, IMAGES, 12, Some(adapter)).expect("features");
        let (mut one_bag, mut one) = bags.zeros();
        let of_bags = bags.bag.step(&features, &LENGTHS, &loss, head, (&mut one_bag, &mut one.head));
        let mut identity = Head::zeros(16, 16);
        (0..16).for_each(|at| identity.weight[at * 17] = 1.0);
        let mut whole = Gradients::zeros(adapter, &identity, bags.engine.backbone().config(), false);
        let given = |image: usize, _: &[f32], d: &mut [f32]| {
            d.copy_from_slice(&of_bags.d_features[image * 16..(image + 1) * 16]);
            0.0
        };
        let batch = Batch { source: &source, images: IMAGES, size: 12, loss: &given, dropout: None };
        bags.engine.step(&batch, adapter, &identity, &mut whole).expect("a step");
        assert_eq!((found, of_bag, gradients.head), (of_bags.loss, one_bag, one.head), "{pooling}");
        for (found, expected) in gradients.adapter.tensors().iter().zip(whole.adapter.tensors()) {
            let most = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let apart = found.iter().zip(expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            // Another order of 47 summands.
            assert!(most > 0.0 && apart <= 1e-5 * most, "{pooling}: {apart} of {most}");
        }
    }
}

#[test]
fn gradients_of_low_rank_matrices_are_those_of_central_differences() {
    let mut bags = bags(BagPooling::GatedAttention);
    let source = images(IMAGES, 12, 2);
    let (_, _, gradients) = bags.step(&source, None);
    let found: Vec<Vec<f32>> = gradients.adapter.tensors().into_iter().cloned().collect();
    for (tensor, found) in found.iter().enumerate() {
        let steepest = (0..found.len()).max_by(|&a, &b| found[a].abs().total_cmp(&found[b].abs())).expect("values");
        let step = 1e-2;
        let mut moved = |by: f32| {
            bags.plugin.adapter.tensors_mut()[tensor][steepest] += by;
            let loss = loss_of(&bags, &source);
            bags.plugin.adapter.tensors_mut()[tensor][steepest] -= by;
            loss
        };
        let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
        // Passes in f32, whose losses keep six digits, at steps of a hundredth.
        let found = f64::from(found[steepest]);
        assert!((found - slope).abs() < 2e-2 * slope.abs() + 2e-4, "tensor {tensor}: {found} {slope}");
    }
}

#[test]
fn both_passes_drop_the_same() {
    let bags = bags(BagPooling::Mean);
    let source = images(IMAGES, 12, 2);
    let of = |seed, step| bags.step(&source, Some(Dropout { probability: 0.3, seed, step }));
    let (first, again, other) = (of(1, 4), of(1, 4), of(1, 5));
    assert_eq!((first.0, &first.1), (again.0, &again.1));
    assert_eq!(first.2.tensors(), again.2.tensors());
    assert_ne!(first.0, other.0);
    assert_ne!(first.0, bags.step(&source, None).0);
    // Groups of one step draw masks of their own: images that are alike differ.
    let same = images(1, 12, 2);
    struct Alike<'a>(&'a dyn ImageSource);
    impl ImageSource for Alike<'_> {
        fn load(&self, _: usize, out: &mut [f32]) -> Result<(), ImageError> {
            self.0.load(0, out)
        }
    }
    let seen = Mutex::new(Vec::new());
    let dropout = Some(Dropout { probability: 0.3, seed: 1, step: 4 });
    let keep = |_: usize, logits: &[f32], d: &mut [f32]| {
        seen.lock().expect("no panic").push(logits.to_vec());
        d.fill(0.0);
        0.0
    };
    let alike = Alike(&same);
    let batch = BagBatch { source: &alike, lengths: &[1; 33], size: 12, loss: &keep, dropout };
    let (mut of_bag, mut gradients) = bags.zeros();
    let Plugin { adapter, head, .. } = &bags.plugin;
    bags.engine.bag_step(&batch, adapter, (&bags.bag, head), (&mut of_bag, &mut gradients)).expect("a step");
    let seen = seen.into_inner().expect("no panic");
    assert!(seen.len() == 33 && seen[0] != seen[32], "the first images of two groups");
}

/// Counts the images that a step asks for at a time: those between the first and the last of an engine's group.
struct Counted<'a> {
    source: &'a dyn ImageSource,
    asked: AtomicUsize,
}

impl ImageSource for Counted<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.source.load(index % 47, out)
    }
}

#[test]
fn a_step_reads_each_image_twice_whatever_the_length() {
    let bags = bags(BagPooling::GatedAttention);
    let source = images(47, 12, 2);
    for length in [30, 300] {
        let counted = Counted { source: &source, asked: AtomicUsize::new(0) };
        let batch = BagBatch { source: &counted, lengths: &[length], size: 12, loss: &loss, dropout: None };
        let (mut of_bag, mut gradients) = bags.zeros();
        let Plugin { adapter, head, .. } = &bags.plugin;
        bags.engine.bag_step(&batch, adapter, (&bags.bag, head), (&mut of_bag, &mut gradients)).expect("a step");
        assert_eq!(counted.asked.into_inner(), 2 * length);
    }
}

#[test]
fn bags_are_answered_alike_whatever_stands_beside_them() {
    let bags = bags(BagPooling::GatedAttention);
    let Plugin { adapter, head, .. } = &bags.plugin;
    let source = images(IMAGES, 12, 2);
    let all = bags.engine.bag_logits(&source, &LENGTHS, 12, Some(adapter), (&bags.bag, head)).expect("logits");
    let len = 3 * 12 * 12;
    let mut first = 0;
    for (index, length) in LENGTHS.into_iter().enumerate() {
        let data = source.data[first * len..(first + length) * len].to_vec();
        let alone = melo_vit::ImageBatch { size: 12, data };
        let one = bags.engine.bag_logits(&alone, &[length], 12, Some(adapter), (&bags.bag, head)).expect("logits");
        // On slow instruction sets products sum in an order that depends on the other rows.
        assert_reordered(&one.logits, &all.logits[index * 3..(index + 1) * 3], "logits");
        assert_reordered(&one.attention[0], &all.attention[index], "attention");
        first += length;
    }
    // A bag of one is its image.
    let alone = bags.engine.logits(&source, 47, 12, (&bags.plugin).into()).expect("logits");
    assert_reordered(&all.logits[3..6], &alone[41 * 3..42 * 3], "a bag of one");
}

fn bag_plugin(pooling: BagPooling) -> (std::sync::Arc<dyn Engine>, Plugin) {
    let Bags { engine, plugin, bag } = bags(pooling);
    let card = melo_vit::TaskCard { bag: Some(bag.config), ..plugin.card };
    let mut plugin = Plugin { card, bag: Some(bag), ..plugin };
    plugin.finish(&*engine, Storage::F32).expect("a self-test");
    (engine, plugin)
}

#[test]
fn a_plug_in_of_bags_comes_back_as_it_was() {
    for pooling in [BagPooling::GatedAttention, BagPooling::Mean, BagPooling::Max] {
        let (engine, plugin) = bag_plugin(pooling);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bags.safetensors");
        plugin.save(&path, engine.backbone().config(), Storage::F32).expect("written");
        let read = Plugin::load(&path, engine.backbone()).expect("read");
        assert_eq!((read.card.format, &read.bag, &read.head), (8, &plugin.bag, &plugin.head));
        assert_eq!(read.parameters(), plugin.parameters());
        assert!(matches!(read.refuse_bags(), Err(Error::AnswersForBags { task }) if task == "tiny"));
        read.prove(&*engine).expect("the same answers");
    }
}

#[test]
fn the_self_test_holds_the_pooling_too() {
    let (engine, plugin) = bag_plugin(BagPooling::GatedAttention);
    let mut other = plugin.clone();
    other.bag.as_mut().expect("bags").score.iter_mut().for_each(|w| *w = -*w);
    assert!(matches!(other.self_test(&*engine), Err(Error::SelfTestDiffers { image: 0, .. })));
}
