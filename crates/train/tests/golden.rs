//! Parity with timm: logits, every gradient and ten AdamW losses of tiny ViTs, from `tools/golden/vit.py`; and both
//! explanations of them, from `tools/golden/explain.py`.
//!
//! Tolerances: both sides compute in f32 and add in different orders. Over the few hundred terms of these models that
//! moves logits by about 1e-6 and gradients by about 2e-5 of their largest value; 1e-4 and 1e-3 leave room for other
//! instruction sets, and are far below what a wrong constant (eps, GELU kind, floored alpha / r) moves them. Products of
//! three (bf16x3) keep 16 bits of a factor, and stay within the same, a loss of about one within 2⁻¹⁵. bf16 keeps 8: a factor is off by up to 2⁻⁸, and
//! what a few products in a row make of that is held to 3 % of the largest value, gradients to 6 %.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use melo_cuda::Cuda;
use melo_cuda_host::Host;
use melo_train::{AdamW, AdamWStep, TensorStep};
use melo_vit::{
    Activation, Adapter, Batch, BottleneckConfig, Bottlenecks, Checkpoint, CropMode, Device, DeviceSpec, Engine,
    ExplainMethod, FeatureKind, Features, Gradients, Head, ImageBatch, Interpolation, LoraConfig, Plugin, PluginRef,
    Pool, Precision, Preprocess, Rotary, RotaryGrid, RotaryPairs, Target, TaskCard, TaskKind, TensorFile, VitConfig,
    Weights, binary_cross_entropy, cross_entropy,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

#[derive(Deserialize)]
struct Header {
    case: String,
    depth: usize,
    d: usize,
    heads: usize,
    mlp_hidden: usize,
    patch: usize,
    image_size: usize,
    eps: f32,
    gelu: Activation,
    pool: Pool,
    pre_norm: bool,
    distilled: bool,
    rank: usize,
    alpha: f32,
    targets: Vec<Target>,
    blocks: Vec<usize>,
    #[serde(default)]
    rslora: bool,
    #[serde(default)]
    rank_pattern: BTreeMap<usize, usize>,
    #[serde(default)]
    bottleneck: usize,
    #[serde(default)]
    bottleneck_blocks: Vec<usize>,
    #[serde(default)]
    no_class_token: bool,
    #[serde(default)]
    qk_norm: bool,
    #[serde(default)]
    positions: String,
    task: String,
    label_smoothing: f64,
    lr: f64,
    weight_decay: f64,
}

enum Truth {
    Single(Vec<usize>),
    Multi(Vec<u8>),
}

/// One golden file, loaded.
struct Golden {
    header: Header,
    file: TensorFile,
    shapes: BTreeMap<String, Vec<usize>>,
    checkpoint: Checkpoint,
    adapter: Adapter,
    head: Head,
    images: ImageBatch,
    truth: Truth,
}

impl Golden {
    fn load(case: &str) -> Golden {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../vit/tests/golden/{case}.safetensors"));
        let file = TensorFile::open(&path).unwrap();
        let header: Header = serde_json::from_str(&file.metadata().unwrap()["golden"]).unwrap();
        assert_eq!(header.case, case);
        let shapes = file.shapes().unwrap();
        let has = |name: &str| shapes.contains_key(&format!("backbone.{name}"));
        let config = VitConfig {
            depth: header.depth,
            width: header.d,
            heads: header.heads,
            mlp_hidden: header.mlp_hidden,
            patch: header.patch,
            image_size: header.image_size,
            eps: header.eps,
            activation: header.gelu,
            pool: header.pool,
            pre_norm: header.pre_norm,
            norm: has("norm.weight"),
            fc_norm: has("fc_norm.weight"),
            distilled: header.distilled,
            patch_bias: has("patch_embed.proj.bias"),
            class_token: !header.no_class_token,
            qk_norm: header.qk_norm,
            registers: shapes.get("backbone.reg_token").map_or(0, |shape| shape[1]),
            layer_scale: has("blocks.0.ls1.gamma"),
            swiglu: has("blocks.0.mlp.norm.weight"),
            pos_embed: has("pos_embed"),
            rotary: match header.positions.as_str() {
                "dinov3" => Some(Rotary::DINOV3),
                "eva02" => {
                    Some(Rotary { temperature: 10000.0, grid: RotaryGrid::Numbered(3), pairs: RotaryPairs::Neighbours })
                }
                _ => None,
            },
            relative_positions: header.positions == "beit",
            attn_norm: has("blocks.0.attn.norm.weight"),
            mlp_norm: has("blocks.0.mlp.norm.weight"),
            ..VitConfig::base()
        };
        let mut weights = Weights::zeros(&config);
        let prefixed = |prefix: &str, shapes: Vec<(String, Vec<usize>)>| -> Vec<_> {
            shapes.into_iter().map(|(name, shape)| (format!("{prefix}{name}"), shape)).collect()
        };
        file.read_all(&prefixed("backbone.", config.tensor_shapes()), weights.tensors_mut()).unwrap();
        let lora = LoraConfig {
            rank: header.rank,
            alpha: header.alpha,
            targets: header.targets.clone(),
            blocks: header.blocks.clone(),
            rslora: header.rslora,
            rank_pattern: header.rank_pattern.clone(),
        };
        let bottleneck = BottleneckConfig { width: header.bottleneck, blocks: header.bottleneck_blocks.clone() };
        let bottlenecks = Bottlenecks::zeros(&bottleneck, &config);
        let mut adapter = Adapter { bottlenecks, ..Adapter::zeros(&lora, &config) };
        file.read_all(&prefixed("plugin.", adapter.tensor_shapes(&config)), adapter.tensors_mut()).unwrap();
        let classes = shapes["plugin.head.bias"][0];
        let mut head = Head::zeros(classes, config.feature_width());
        let head_shapes = Head::tensor_shapes(classes, config.feature_width());
        file.read_all(&prefixed("plugin.", head_shapes), head.tensors_mut()).unwrap();
        let size = shapes["input"][3];
        let images = ImageBatch { size, data: file.read("input", &shapes["input"]).unwrap() };
        let truth = if header.task == "single" {
            Truth::Single(read_i64(&path, "labels"))
        } else {
            Truth::Multi(file.read("labels", &shapes["labels"]).unwrap().into_iter().map(|x| x as u8).collect())
        };
        let preprocess = Preprocess {
            size,
            crop_mode: CropMode::Center,
            crop_pct: 1.0,
            interpolation: Interpolation::Bicubic,
            mean: [0.0; 3],
            std: [1.0; 3],
            crop_offset: Default::default(),
            depth: None,
            rendering: Default::default(),
        };
        let checkpoint = Checkpoint { name: case.to_owned(), config, preprocess, weights, classifier: None };
        Golden { header, shapes, file, checkpoint, adapter, head, images, truth }
    }

    fn expected(&self, name: &str) -> Vec<f32> {
        self.file.read(name, &self.shapes[name]).unwrap()
    }

    /// Loss and gradients of a head, an adapter and, with `all_weights`, the backbone.
    fn step(
        &self,
        engine: &dyn Engine,
        (adapter, head): (&Adapter, &Head),
        all_weights: bool,
    ) -> (f64, Vec<f32>, Gradients) {
        let (n, classes) = (self.images.len(), self.head.rows());
        let loss = |image: usize, logits: &[f32], d_logits: &mut [f32]| match &self.truth {
            Truth::Single(labels) => {
                let scale = 1.0 / n as f64;
                cross_entropy(logits, labels[image], self.header.label_smoothing, &[], scale, d_logits)
            }
            Truth::Multi(labels) => {
                let labels = &labels[image * classes..(image + 1) * classes];
                binary_cross_entropy(logits, labels, &[], 1.0 / (n * classes) as f64, d_logits)
            }
        };
        let batch = Batch { source: &self.images, images: n, size: self.images.size, loss: &loss, dropout: None };
        let mut gradients = Gradients::zeros(adapter, head, engine.backbone().config(), all_weights);
        let (loss, logits) = engine.step(&batch, adapter, head, &mut gradients).unwrap();
        (loss, logits, gradients)
    }
}

/// Integers are labels of the golden files only, so the library's reader does not know them.
fn read_i64(path: &Path, name: &str) -> Vec<usize> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize).collect()
}

fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{what}: off by {worst}, tolerance {tolerance}");
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |a, b| a.max(b.abs()))
}

/// How far from timm a precision may be.
struct Tolerance {
    precision: Precision,
    logits: f32,
    loss: f32,
    /// Of a gradient, relative to the largest value of its tensor.
    gradient: f32,
    /// Of a gradient that is truly zero (the key bias): what is left when terms cancel.
    zero: f32,
    ten_losses: f32,
}

impl Tolerance {
    fn of(precision: Precision, logits: &[f32]) -> Self {
        match precision {
            Precision::F32 | Precision::Bf16x3 => {
                let loss = if precision == Precision::F32 { 1e-5 } else { 3e-5 };
                Tolerance { precision, logits: 1e-4, loss, gradient: 1e-3, zero: 1e-6, ten_losses: 1e-4 }
            }
            Precision::Bf16 => {
                let logits = 0.03 * largest(logits);
                Tolerance { precision, logits, loss: logits, gradient: 0.06, zero: 1e-3, ten_losses: logits }
            }
            Precision::Int8 => {
                let logits = 0.12 * largest(logits);
                Tolerance { precision, logits, loss: logits, gradient: 0.25, zero: 4e-3, ten_losses: logits }
            }
        }
    }

    /// Compares relative to the largest value of the tensor.
    fn assert_gradient(&self, name: &str, found: &[f32], expected: &[f32]) {
        let what = format!("{name} in {}", self.precision);
        assert_close(&what, found, expected, (self.gradient * largest(expected)).max(self.zero));
    }
}

/// On the processor in every precision, and on the engine for GPUs where that computes it: its kernels run on the processor, where there is a
/// C++20 compiler.
fn check(case: &str) {
    for precision in Precision::ALL {
        check_on(&*processor(precision), case);
    }
    let cards = [Precision::F32, Precision::Bf16].map(|precision| Some(Cuda::on(Host::open()?, Some(precision))));
    for card in cards.into_iter().flatten().filter(|_| !["full", "map_pool"].contains(&case)) {
        check_on(&card, case);
    }
}

fn processor(precision: Precision) -> Arc<dyn Device> {
    DeviceSpec { precision: Some(precision), threads: 0 }.open()
}

fn engine(checkpoint: Checkpoint, device: &dyn Device) -> Arc<dyn Engine> {
    device.load(checkpoint.freeze()).expect("an engine")
}

fn check_on(device: &dyn Device, case: &str) {
    let golden = Golden::load(case);
    let precision = device.info().precision;
    let tolerance = Tolerance::of(precision, &golden.expected("logits"));
    let all_weights = case == "full";
    let engine = engine(golden.checkpoint.clone(), device);
    let vit = engine.backbone().config();
    let (loss, logits, gradients) = golden.step(&*engine, (&golden.adapter, &golden.head), all_weights);
    assert_close(&format!("logits in {precision}"), &logits, &golden.expected("logits"), tolerance.logits);
    assert_close(&format!("loss in {precision}"), &[loss as f32], &golden.expected("loss"), tolerance.loss);
    let mut names: Vec<String> = Vec::new();
    let shapes = golden.adapter.tensor_shapes(vit);
    names.extend(shapes.into_iter().map(|(name, _)| format!("grad.plugin.{name}")));
    names.extend(["grad.plugin.head.weight".to_owned(), "grad.plugin.head.bias".to_owned()]);
    if all_weights {
        names.extend(vit.tensor_shapes().into_iter().map(|(name, _)| format!("grad.backbone.{name}")));
    }
    assert_eq!(names.len(), gradients.tensors().len());
    for (name, found) in names.iter().zip(gradients.tensors()) {
        tolerance.assert_gradient(name, found, &golden.expected(name));
    }
    check_ten_losses(&golden, device, &tolerance, all_weights);
}

/// Ten full-batch AdamW steps on everything that is trained, decay on all of it.
fn check_ten_losses(golden: &Golden, device: &dyn Device, tolerance: &Tolerance, all_weights: bool) {
    let mut checkpoint = golden.checkpoint.clone();
    let (mut adapter, mut head) = (golden.adapter.clone(), golden.head.clone());
    let mut optimizer: Option<AdamW> = None;
    let mut losses = Vec::new();
    for _ in 0..10 {
        let engine = engine(checkpoint.clone(), device);
        let (loss, _, gradients) = golden.step(&*engine, (&adapter, &head), all_weights);
        losses.push(loss as f32);
        let gradients = gradients.tensors();
        let optimizer = optimizer.get_or_insert_with(|| AdamW::new(gradients.iter().map(|g| g.len())));
        let mut parameters = adapter.tensors_mut();
        parameters.extend(head.tensors_mut());
        if all_weights {
            parameters.extend(checkpoint.weights.tensors_mut());
        }
        let step = AdamWStep::new(golden.header.lr, golden.header.weight_decay);
        optimizer.step(parameters, &gradients, &vec![TensorStep::WHOLE; gradients.len()], step);
    }
    let what = format!("ten losses in {}", tolerance.precision);
    assert_close(&what, &losses, &golden.expected("losses"), tolerance.ten_losses);
}

/// The bare backbone's features through its own classifier.
fn check_own_classifier(case: &str) {
    let golden = Golden::load(case);
    let classes = golden.shapes["own_logits"][1];
    let d = golden.header.d;
    let read = |name: &str, shape: &[usize]| golden.file.read(&format!("backbone.{name}"), shape).unwrap();
    let mut head =
        Head { weight: read("head.weight", &[classes, d]), bias: read("head.bias", &[classes]), decoder: None };
    if golden.header.distilled {
        let dist = Head {
            weight: read("head_dist.weight", &[classes, d]),
            bias: read("head_dist.bias", &[classes]),
            decoder: None,
        };
        let rows = head.weight.chunks_exact(d).zip(dist.weight.chunks_exact(d));
        head.weight = rows.flat_map(|(a, b)| a.iter().chain(b)).map(|w| w / 2.0).collect();
        head.bias = head.bias.iter().zip(&dist.bias).map(|(a, b)| (a + b) / 2.0).collect();
    }
    let engine = engine(golden.checkpoint.clone(), &*processor(Precision::F32));
    let (images, size) = (golden.images.len(), golden.images.size);
    let bare = PluginRef { adapter: None, head: &head };
    let logits = engine.logits(&golden.images, images, size, bare).unwrap();
    assert_close("own logits", &logits, &golden.expected("own_logits"), 1e-4);
}

#[test]
fn query_and_value_on_the_class_token() {
    check("qv_token");
}

#[test]
fn every_target_with_alpha_below_rank() {
    check("all_targets");
}

#[test]
fn mean_pooling_with_many_findings() {
    check("avg_pool_multi");
}

#[test]
fn clip_with_quick_gelu_and_a_norm_before_the_blocks() {
    check("clip_like");
    check_own_classifier("clip_like");
}

#[test]
fn distilled_with_two_tokens_and_tanh_gelu() {
    check("distilled");
    check_own_classifier("distilled");
}

#[test]
fn attention_pooling_without_a_class_token() {
    check("map_pool");
}

#[test]
fn normalised_queries_and_keys() {
    check("qk_norm");
}

#[test]
fn positions_for_larger_and_smaller_images() {
    check("resized_pos");
    let golden = Golden::load("resized_pos");
    for (name, size) in [("pos_embed_resized", 24), ("pos_embed_down", 8)] {
        let Checkpoint { mut config, mut weights, .. } = golden.checkpoint.clone();
        weights.resize_positions(&mut config, size);
        assert_close(name, &weights.pos_embed, &golden.expected(name), 1e-5);
    }
}

#[test]
fn rank_stabilised_with_a_rank_of_its_own_for_a_block() {
    check("rslora_pattern");
}

#[test]
fn bottlenecks_after_the_mlps() {
    check("bottleneck");
}

#[test]
fn rotary_positions_of_dinov3() {
    check("dinov3");
}

#[test]
fn rotary_positions_of_eva_02_and_norms_inside_of_its_branches() {
    check("eva02");
}

#[test]
fn relative_positions_of_beit() {
    check("beit");
}

#[test]
fn every_weight_of_the_backbone() {
    check("full");
}

/// Relevance of every token of every image, for every class by [`ExplainMethod::Gradient`].
///
/// The tolerance is 1e-4 of the largest patch of a row: that is 30 times what PyTorch's own f32 is off from its f64,
/// and a hundredth of what tells two classes apart.
fn check_explanations(case: &str) {
    let golden = Golden::load(case);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vit/tests/golden/explain.safetensors");
    let file = TensorFile::open(&path).unwrap();
    let shapes = file.shapes().unwrap();
    let engine = engine(golden.checkpoint.clone(), &*processor(Precision::F32));
    let backbone = engine.backbone();
    let (n, c, size) = (golden.images.len(), golden.head.rows(), golden.images.size);
    let (t, prefix) = (backbone.config().tokens(size), backbone.config().prefix_tokens());
    let classes = (0..c).map(|class| class.to_string()).collect();
    let card =
        TaskCard::new(case.into(), TaskKind::MultiLabel, classes, backbone.preprocess().clone(), backbone.reference());
    let plugin = Plugin {
        card,
        adapter: golden.adapter.clone(),
        head: golden.head.clone(),
        further: Vec::new(),
        bag: None,
        volume: None,
        scope: None,
        digest: String::new(),
    };
    let logits = golden.expected("logits");
    for (method, name, shape) in
        [(ExplainMethod::Rollout, "rollout", vec![n, t]), (ExplainMethod::Gradient, "gradient", vec![n, c, t])]
    {
        let name = format!("{case}.{name}");
        assert_eq!(shapes[&name], shape, "{name}");
        let expected = file.read(&name, &shape).unwrap();
        for (image, class) in (0..n).flat_map(|image| (0..c).map(move |class| (image, class))) {
            let pixels = &golden.images.data[image * 3 * size * size..(image + 1) * 3 * size * size];
            let found = engine.explain(pixels, size, PluginRef::from(&plugin), class, method).unwrap();
            assert_eq!(found.grid * found.grid, t - prefix);
            let row = if method == ExplainMethod::Rollout { image } else { image * c + class };
            let row = &expected[row * t..(row + 1) * t];
            let what = format!("{name} of image {image}, class {class}");
            assert_close(&what, &[found.prefix, found.values].concat(), row, 1e-4 * largest(&row[prefix..]));
            assert_close(&what, &found.logits, &logits[image * c..(image + 1) * c], 1e-4);
        }
    }
}

/// Class token, mean and grid of every block, with the final norm and without, as timm's `forward_intermediates` gives them under the
/// plug-in; and what heads read of the bare backbone.
fn check_features(case: &str) {
    let golden = Golden::load(case);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vit/tests/golden/features.safetensors");
    let file = TensorFile::open(&path).unwrap();
    let shapes = file.shapes().unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        let engine = engine(golden.checkpoint.clone(), &*processor(precision));
        let config = engine.backbone().config();
        let (n, size) = (golden.images.len(), golden.images.size);
        // As logits: of bf16 the share of the largest value.
        let tolerance = |expected: &[f32]| if precision == Precision::F32 { 1e-4 } else { 0.03 * largest(expected) };
        let of = |adapter, features| engine.features(&golden.images, n, size, adapter, features).unwrap();
        if golden.shapes.contains_key("features") {
            let expected = golden.expected("features");
            assert_close("features", &of(None, Features::pooled(config)), &expected, tolerance(&expected));
        }
        for (block, norm) in (0..config.depth).flat_map(|block| [(block, true), (block, false)]) {
            for kind in [FeatureKind::Class, FeatureKind::Mean, FeatureKind::Grid] {
                let name = format!("{case}.block{block}.{}.{kind}", if norm { "norm" } else { "raw" });
                let features = Features { kind, block, norm };
                assert_eq!(shapes[&name], [&[n][..], &features.shape(config, size)].concat(), "{name}");
                let expected = file.read(&name, &shapes[&name]).unwrap();
                let what = format!("{name} in {precision}");
                assert_close(&what, &of(Some(&golden.adapter), features), &expected, tolerance(&expected));
            }
        }
    }
}

#[test]
fn features_of_every_block() {
    ["qv_token", "avg_pool_multi", "clip_like", "distilled", "bottleneck"].into_iter().for_each(check_features);
}

#[test]
fn explanations_by_rollout_and_gradient() {
    let cases = ["qv_token", "all_targets", "avg_pool_multi", "clip_like", "distilled", "resized_pos", "full"];
    cases.into_iter().for_each(check_explanations);
}
