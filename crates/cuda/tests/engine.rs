//! What the engine promises beside the laws of all engines (`vit/tests/laws/engines.rs`): groups change nothing, the same bytes again, and what
//! it does not compute is refused by name. Skipped, with a word, where there is no C++20 compiler.

use melo_cuda::Cuda;
use melo_cuda_host::Host;
use melo_vit::{
    Adapter, Batch, Checkpoint, DecoderConfig, Description, Device, Engine, Error, Gradients, Head, ImageBatch,
    ImageError, ImageSource, LoraConfig, PluginRef, Precision, Preprocess, Segment, Target, VitConfig,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

const SIDE: usize = 12;

fn config() -> VitConfig {
    VitConfig { depth: 2, width: 16, heads: 2, mlp_hidden: 24, patch: 4, image_size: SIDE, ..VitConfig::base() }
}

fn checkpoint(config: &VitConfig) -> Checkpoint {
    let description =
        Description { name: "tiny".to_owned(), config: config.clone(), preprocess: Preprocess::base(SIDE) };
    let mut checkpoint = Checkpoint::random(description, 3);
    // At the deviation that trainings begin with, such small blocks would hardly do anything.
    checkpoint.weights.tensors_mut().into_iter().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 15.0 });
    checkpoint
}

fn device(precision: Precision) -> Option<Cuda> {
    Some(Cuda::on(Host::open()?, Some(precision)))
}

fn engine(device: &Cuda) -> Arc<dyn Engine> {
    device.load(checkpoint(&config()).freeze()).expect("a network that it computes")
}

fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn images(n: usize) -> ImageBatch {
    ImageBatch { size: SIDE, data: random(n * 3 * SIDE * SIDE, 1) }
}

fn adapter(rank: usize, blocks: &[usize]) -> Adapter {
    let targets = vec![Target::Q, Target::V];
    let lora = LoraConfig { rank, alpha: 3.0, targets, blocks: blocks.to_vec(), ..LoraConfig::none() };
    let mut adapter = Adapter::zeros(&lora, &config());
    adapter.tensors_mut().into_iter().for_each(|values| *values = random(values.len(), 2));
    adapter
}

fn head(classes: usize) -> Head {
    let mut head = Head::zeros(classes, config().feature_width());
    head.tensors_mut().into_iter().for_each(|values| *values = random(values.len(), 3));
    head
}

/// A head on the patch tokens of both blocks.
fn dense_head() -> Head {
    let decoder = DecoderConfig { blocks: vec![0, 1], cells: 1, channels: 2, hidden: 0, stride: 1 };
    let mut head = Head::dense(&decoder, 2, &config(), 1);
    head.tensors_mut().into_iter().for_each(|values| *values = random(values.len(), 4));
    head
}

fn squares(_: usize, logits: &[f32], d_logits: &mut [f32]) -> f64 {
    d_logits.copy_from_slice(logits);
    logits.iter().map(|&z| 0.5 * f64::from(z).powi(2)).sum()
}

type Step = (f64, Vec<f32>, Vec<Vec<f32>>);

fn step(engine: &dyn Engine, n: usize, head: &Head) -> Step {
    let (source, adapter) = (images(n), adapter(2, &[0, 1]));
    let batch = Batch { source: &source, images: n, size: SIDE, loss: &squares, dropout: None };
    let mut gradients = Gradients::zeros(&adapter, head, &config(), false);
    let (loss, logits) = engine.step(&batch, &adapter, head, &mut gradients).expect("a step");
    (loss, logits, gradients.tensors().into_iter().cloned().collect())
}

#[test]
fn groups_change_no_answer_and_gradients_by_roundings_alone() {
    for (precision, trained) in [(Precision::F32, head(3)), (Precision::Bf16, head(3)), (Precision::F32, dense_head())]
    {
        let Some(device) = device(precision) else { return };
        let (adapters, heads) =
            ([adapter(1, &[0]), adapter(5, &[1]), adapter(2, &[1])], [head(2), head(4), dense_head()]);
        let plugin = |number: usize| PluginRef { adapter: Some(&adapters[number]), head: &heads[number] };
        let segments = [
            Segment { images: 0..2, plugins: vec![plugin(2), plugin(0), plugin(1)] },
            Segment { images: 2..5, plugins: vec![plugin(1), plugin(2)] },
        ];
        let source = images(5);
        let run = |engine: &dyn Engine| engine.forward(&source, SIDE, &segments).expect("a batch");
        let whole = engine(&device);
        let (answers, (loss, logits, gradients)) = (run(&*whole), step(&*whole, 5, &trained));
        for group in [1, 2, 3] {
            let engine = engine(&device.clone().with_group(group));
            assert_eq!(run(&*engine), answers, "{precision}, groups of {group}");
            let (other_loss, other_logits, other_gradients) = step(&*engine, 5, &trained);
            assert_eq!((other_loss, other_logits), (loss, logits.clone()), "{precision}, groups of {group}");
            for (found, expected) in other_gradients.iter().zip(&gradients) {
                let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
                let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-6 * largest);
                assert!(close, "{precision}, groups of {group}");
            }
        }
        assert_eq!(step(&*whole, 5, &trained), (loss, logits, gradients), "the same bytes again");
    }
}

fn assert_refused<T>(result: Result<T, Error>, words: &str) {
    match result {
        Err(Error::Unsupported { engine: "cuda", what }) => assert!(what.contains(words), "{what}, not {words}"),
        Err(error) => panic!("{error}, not {words}"),
        Ok(_) => panic!("{words} is not refused"),
    }
}

#[test]
fn networks_that_it_does_not_compute_are_refused_by_name() {
    let wide = VitConfig { width: 256, heads: 2, ..config() };
    for (precision, config, words) in [
        (Precision::F32, wide, "attention heads of width 128"),
        (Precision::Int8, config(), "int8"),
        (Precision::Bf16x3, config(), "bf16x3"),
    ] {
        let Some(device) = device(precision) else { return };
        assert_refused(device.load(checkpoint(&config).freeze()), words);
    }
}

#[test]
fn passes_that_it_does_not_compute_are_refused_by_name_and_leave_gradients_as_they_were() {
    let Some(device) = device(Precision::F32) else { return };
    let (engine, adapter, head) = (engine(&device), adapter(2, &[0]), head(3));
    let source = images(1);
    let batch = Batch { source: &source, images: 1, size: SIDE, loss: &squares, dropout: None };
    let mut gradients = Gradients::zeros(&adapter, &head, &config(), true);
    assert_refused(engine.step(&batch, &adapter, &head, &mut gradients), "training of all weights");
    assert!(gradients.tensors().into_iter().flatten().all(|x| *x == 0.0));
}

#[test]
fn a_card_that_has_no_memory_left_says_so() {
    let Some(device) = device(Precision::F32) else { return };
    let engine = engine(&device.with_group(1_000_000));
    let adapter = adapter(2, &[0]);
    struct Endless;
    impl ImageSource for Endless {
        fn load(&self, _: usize, out: &mut [f32]) -> Result<(), ImageError> {
            out.fill(0.5);
            Ok(())
        }
    }
    let error = engine.embed(&Endless, 20_000, SIDE, Some(&adapter)).expect_err("more than the card has");
    assert!(matches!(&error, Error::Device { reason, .. } if reason.contains("out of memory")), "{error}");
    engine.embed(&images(2), 2, SIDE, Some(&adapter)).expect("the engine is as good as before");
}

#[test]
fn without_a_driver_it_says_so_in_one_line() {
    if std::env::var_os("MELO_TEST_CUDA").is_some() || std::path::Path::new("/proc/driver/nvidia").exists() {
        return;
    }
    let error = Cuda::open(0, None).expect_err("no driver").to_string();
    assert_eq!(error, "cuda:0: no NVIDIA driver is installed (libcuda.so was not found)");
}
