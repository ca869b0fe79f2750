//! Numbers are learnt in the training images' standard deviations, and answered in their units.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use melo_data::{Augment, EpochAugment, Labels};
use melo_train::{Examples, Method, Outcome, Resume, RunOptions, Solver, Start, Task, Team, TrainConfig, train};
use melo_vit::{
    Checkpoint, Description, DeviceSpec, Engine, ImageBatch, ImageSource, Precision, Preprocess, TaskCard, TaskKind,
    VitConfig,
};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const SIZE: usize = 12;

/// Random images with the mean of their first channel, in a unit, and its double.
struct Images {
    images: ImageBatch,
    labels: Vec<Labels>,
}

impl Images {
    fn new(n: usize, seed: u64, (scale, offset): (f32, f32)) -> Self {
        let images = ImageBatch::random(n, SIZE, seed);
        let mean = |image: &[f32]| image[..SIZE * SIZE].iter().sum::<f32>() / (SIZE * SIZE) as f32;
        let numbers = images.data.chunks_exact(3 * SIZE * SIZE).map(mean);
        let labels = numbers.map(|x| Labels::Values(vec![scale * x + offset, 2.0 * x])).collect();
        Images { images, labels }
    }
}

impl Examples for Images {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn labels(&self, index: usize) -> &Labels {
        &self.labels[index]
    }

    fn size(&self) -> usize {
        SIZE
    }

    fn epoch<'a>(&'a self, order: &'a [usize], _: Option<EpochAugment<'a>>) -> Box<dyn ImageSource + 'a> {
        let image = |&index: &usize| &self.images.data[index * 3 * SIZE * SIZE..][..3 * SIZE * SIZE];
        Box::new(ImageBatch { size: SIZE, data: order.iter().flat_map(image).copied().collect() })
    }
}

fn run(unit: (f32, f32)) -> (Arc<dyn Engine>, Outcome) {
    let vit =
        VitConfig { depth: 2, width: 16, heads: 2, mlp_hidden: 24, patch: 4, image_size: SIZE, ..VitConfig::base() };
    let description = Description { name: "tiny".to_owned(), config: vit, preprocess: Preprocess::base(SIZE) };
    let spec = DeviceSpec { precision: Some(Precision::F32), threads: 2 };
    let engine = spec.open().load(Checkpoint::random(description, 3).freeze()).unwrap();
    let names = ["mean", "double"].map(str::to_owned).to_vec();
    let card = TaskCard::new(
        "task".into(),
        TaskKind::Regression,
        names,
        Preprocess::base(SIZE),
        engine.backbone().reference(),
    );
    let config = TrainConfig {
        epochs: 6,
        batch_size: 8,
        augment: Augment::none(),
        solver: Solver::AdamW,
        ..TrainConfig::for_method(Method::Linear, 2)
    };
    let (train_images, val) = (Images::new(48, 1, unit), Images::new(24, 2, unit));
    let task = Task {
        start: Start::Frozen(Arc::clone(&engine)),
        card,
        train: &train_images,
        val: &val,
        volume: None,
        team: &Team::alone(),
    };
    let stop = AtomicBool::new(false);
    let options = RunOptions { folder: None, resume: Resume::Never, stop: &stop, observer: &mut |_| () };
    (engine, train(task, &config, options).unwrap())
}

/// Answers `[n, 2]` of the finished plug-in on the validation images.
fn answers(engine: &dyn Engine, outcome: &Outcome) -> Vec<f32> {
    let val = Images::new(24, 2, (1.0, 0.0));
    engine.logits(&val.images, 24, SIZE, (&outcome.plugin).into()).unwrap()
}

#[test]
fn the_finished_plugin_answers_what_the_best_epoch_was_judged_by() {
    let unit = (40.0, 63.0);
    let (engine, outcome) = run(unit);
    let truth: Vec<f32> =
        Images::new(24, 2, unit).labels.iter().flat_map(|of| [0, 1].map(|i| of.number(i).unwrap())).collect();
    let found = answers(&*engine, &outcome);
    let mae = |number: usize| {
        let errors = found.iter().zip(&truth).skip(number).step_by(2).map(|(a, b)| f64::from((a - b).abs()));
        errors.sum::<f64>() / 24.0
    };
    let judged = outcome.best.val_mae.unwrap();
    assert!((f64::midpoint(mae(0), mae(1)) - judged).abs() < 1e-4, "{} {} {judged}", mae(0), mae(1));
    assert_eq!(outcome.best.figures()[0].0, "val_r2");
    assert!(outcome.best.val_auc_macro.is_none());
}

#[test]
fn a_number_in_another_unit_is_the_same_answer() {
    let (engine, plain) = run((1.0, 0.0));
    let (_, scaled) = run((1000.0, -500.0));
    for (a, b) in answers(&*engine, &plain).iter().zip(answers(&*engine, &scaled)).step_by(2) {
        assert!((1000.0 * a - 500.0 - b).abs() < 0.1, "{a} {b}");
    }
}

#[test]
fn the_mean_of_the_training_images_is_where_it_begins() {
    let (engine, outcome) = run((1.0, 1e4));
    assert!(answers(&*engine, &outcome).iter().step_by(2).all(|x| (x - 1e4).abs() < 3.0));
}
