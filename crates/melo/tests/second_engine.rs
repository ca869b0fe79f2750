//! The seam is one: training, study, prediction and server run on an engine that they have never heard of.

use melo::data::Cache;
use melo::serve::{Application, Caller, Config, Image, RegistryConfig, Request};
use melo::study::{CellOptions, Finished, Plan, Study, StudyFolder, analyse, run_cell};
use melo::synthetic::{Phantom, phantom};
use melo::train::Finished as Trained;
use melo::vit::{Description, Preprocess, Storage, VitConfig};
use melo::{
    Checkpoint, Device, DeviceSpec, Event, Job, Manifest, Method, MethodSettings, Plugin, Precision, Predictor,
    TrainConfig,
};
use melo_cuda::Cuda;
use melo_cuda_host::Host;
use melo_reference::Reference;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Side of the network's input, px.
const SIDE: usize = 8;
/// Images of the training, validation and test split.
const IMAGES: [(&str, usize); 3] = [("train", 8), ("val", 6), ("test", 6)];
/// How far a logit on the processor may be from one in f64: f32 sums of a few dozen terms of size 1.
const CLOSE: f32 = 1e-4;

fn reference() -> Arc<dyn Device> {
    Arc::new(Reference)
}

/// The engine for GPUs, whose kernels run on the processor; none without a C++20 compiler.
fn gpu() -> Option<Arc<dyn Device>> {
    Some(Arc::new(Cuda::on(Host::open()?, Some(Precision::F32))))
}

fn processor() -> Arc<dyn Device> {
    DeviceSpec::default().open()
}

/// A ViT of two blocks on four patches.
fn checkpoint() -> Checkpoint {
    let config =
        VitConfig { depth: 2, width: 8, heads: 2, mlp_hidden: 16, patch: 4, image_size: SIDE, ..VitConfig::base() };
    let preprocess = Preprocess { std: [0.25; 3], ..Preprocess::base(SIDE) };
    let mut checkpoint = Checkpoint::random(Description { name: "tiny".to_owned(), config, preprocess }, 3);
    // At the deviation that trainings begin with, such small blocks would hardly do anything.
    checkpoint.weights.tensors_mut().into_iter().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 15.0 });
    checkpoint
}

/// A folder with a backbone, images and their manifest.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().expect("a folder"));
        checkpoint().write(&place.at("vit.safetensors"), Storage::F32).expect("the backbone is written");
        let (kind, mut table, mut number) = (Phantom::BloodSmear, String::from("path,split,label\n"), 0);
        for (split, images) in IMAGES {
            for _ in 0..images {
                let (class, name) = (number % 2, format!("{number}.png"));
                let pixels = phantom(kind, class, number as u64, 32);
                melo::imaging::write_png(&place.at(&name), &pixels).expect("the image is written");
                table += &format!("{name},{split},{}\n", kind.classes()[class]);
                number += 1;
            }
        }
        std::fs::write(place.at("labels.csv"), table).expect("the manifest is written");
        place
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    fn train(&self, device: Arc<dyn Device>, method: Method) -> Trained {
        let backbone = melo::read_backbone(&self.at("vit.safetensors")).expect("the backbone is read");
        let settings = MethodSettings { rank: (method == Method::Lora).then_some(2), ..MethodSettings::default() };
        let config = settings.resolve(method, backbone.info().config().depth).expect("settings that fit");
        let manifest = Manifest::read(&self.at("labels.csv")).expect("the manifest is read");
        let job = Job {
            config: TrainConfig { epochs: 2, batch_size: 4, warmup_epochs: 0.0, ..config },
            task: "smear".to_owned(),
            cache: Arc::new(Cache::new(1 << 20)),
            ..Job::new(device, backbone, manifest)
        };
        job.run(&mut |_| ()).unwrap_or_else(|error| panic!("{method}: {error}"))
    }
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn it_trains_by_every_method_as_the_processor_does() {
    trains_as_the_processor(reference(), &[Method::Lora, Method::Linear, Method::Adapter, Method::Full]);
}

#[test]
fn on_a_gpu_plugins_are_trained_as_on_the_processor() {
    let Some(gpu) = gpu() else { return };
    trains_as_the_processor(gpu, &[Method::Lora, Method::Linear, Method::Adapter]);
}

fn trains_as_the_processor(device: Arc<dyn Device>, methods: &[Method]) {
    let (place, kind) = (Place::new(), device.info().engine);
    for &method in methods {
        let (found, expected) = (place.train(Arc::clone(&device), method), place.train(processor(), method));
        assert_eq!(found.engine.info().engine, kind);
        let card = &found.plugin.card;
        assert_eq!(card.self_test.as_ref().map(|test| test.engine.as_str()), Some(kind), "{method}");
        for (found, expected) in found.history.iter().zip(&expected.history) {
            // AdamW divides by the size of a slope, so that a slope of nearly 0 steps by its sign: the losses of a few steps
            // are far closer than single weights.
            let difference = (found.train_loss - expected.train_loss).abs();
            assert!(difference < 1e-3, "{method}: {found:?}, expected {expected:?}");
        }
        // What one engine trained is at home on the other, and certified there by its self-test.
        if method != Method::Full {
            found.plugin.self_test(&*expected.engine).unwrap_or_else(|error| panic!("{method}: {error}"));
            expected.plugin.self_test(&*found.engine).unwrap_or_else(|error| panic!("{method}: {error}"));
        }
        let trained = found.checkpoint.as_ref().map(Checkpoint::digest);
        assert_eq!(trained.is_some(), method == Method::Full);
        assert!(trained.is_none_or(|digest| digest == card.backbone.digest), "{method}");
    }
}

#[test]
fn it_predicts_and_serves_what_the_processor_does() {
    let place = Place::new();
    let plugin = place.train(processor(), Method::Lora).plugin;
    std::fs::create_dir(place.at("tasks")).expect("a folder");
    let path = place.at("tasks/smear.safetensors");
    plugin.save(&path, &checkpoint().config, Storage::F32).expect("the plug-in is written");
    let engine = |device: Arc<dyn Device>| device.load(checkpoint().freeze()).expect("an engine");

    let [found, expected] = [reference(), processor()].map(|device| {
        let predictor = Predictor::new(engine(device));
        let plugins = [predictor.plugin(&path).expect("its self-test passes")];
        predictor.predict(place.at("19.png"), &plugins).expect("an answer").swap_remove(0)
    });
    assert!(largest_difference(&found.logits, &expected.logits) < CLOSE, "{found:?}, expected {expected:?}");

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let config = Config { plugins: Some(place.at("tasks")), ..Config::new(RegistryConfig::new(place.at("state"))) };
        let server = Application::open(config, engine(reference())).await.expect("it starts");
        assert!(server.service().registry.problems().is_empty(), "{:?}", server.service().registry.problems());
        let bytes = std::fs::read(place.at("19.png")).expect("the image");
        let image = Image { name: "19.png".to_owned(), bytes: bytes.into(), sop_instance_uid: None };
        let caller = Caller { who: "test".to_owned(), via: "test", request_id: "1".to_owned(), address: None };
        let tasks = vec!["all".to_owned()];
        let request = Request {
            images: vec![image],
            slices: None,
            tasks,
            heatmap: true,
            masks: false,
            preview: true,
            frame: None,
            caller,
        };
        let answers = server.service().predict(request).await.expect("an answer");
        let answer = &answers.images[0].answers[0];
        assert_eq!(answer.logits, found.logits, "the server on the same engine");
        assert!(answer.heatmap.as_ref().is_some_and(|map| map.values.iter().any(|&value| value > 0.0)));
        server.run(async {}).await;
    });
}

#[test]
fn it_carries_a_study() {
    let place = Place::new();
    let file = place.at("study.toml");
    let text = "[study]\nname = \"second engine\"\nseeds = [0]\nmethods = [\"lora\", \"linear\"]\nreference = \"linear\"\n\
                [train]\nepochs = 2\nbatch_size = 4\n\
                [[backbone]]\nname = \"tiny\"\nweights = \"vit.safetensors\"\n\
                [[task]]\nname = \"smear\"\nlabels = \"labels.csv\"\n";
    std::fs::write(&file, text).expect("the study is written");
    let plan = Plan::read(&file).expect("a study");
    let folder = StudyFolder::create(&place.at("study")).expect("a folder");
    for cell in plan.cells() {
        let folder = folder.cell(&plan.cell_name(&cell));
        folder.create().expect("a folder");
        let mut epochs = 0;
        let options = CellOptions {
            stop: &AtomicBool::new(false),
            observer: &mut |event| epochs += usize::from(matches!(event, Event::Epoch(_))),
            peak_rss_bytes: || None,
        };
        run_cell(&plan, &cell, &folder, reference(), options).expect("a cell");
        assert!(epochs >= 2, "two epochs of low-rank updates, and the path of a head alone: {epochs}");
    }
    let cells = plan.cells().len();
    let study = Study::new(plan, folder, reference()).expect("the backbones are read");
    let finished = study.finished().expect("the results are read");
    assert_eq!(finished.len(), cells);
    let results = analyse(&study, Finished { cells: finished, failures: Vec::new() }, "a test").expect("results");
    assert_eq!(results.tasks[0].arms.len(), 2);
    let plugin = study.folder.cell(&study.plan.cell_name(&study.plan.cells()[0])).plugin();
    let engine = processor().load(checkpoint().freeze()).expect("an engine");
    let plugin = Plugin::load(&plugin, engine.backbone()).expect("the cell's plug-in");
    plugin.self_test(&*engine).expect("it is at home on the processor too");
}
