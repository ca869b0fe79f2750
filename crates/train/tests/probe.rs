//! A head alone, on features that are computed once, is the head that is trained on the images: to the last bit.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use melo_data::{Augment, EpochAugment, Labels};
use melo_train::{
    Error, Event, Examples, Method, Outcome, Resume, RunFolder, RunOptions, Solver, Start, Task, Team, TrainConfig,
    train,
};
use melo_vit::{
    Checkpoint, Description, DeviceSpec, ImageBatch, ImageError, ImageSource, Precision, Preprocess, TaskCard,
    TaskKind, VitConfig,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const SIZE: usize = 12;

/// Random images of three classes, counted as they are loaded.
struct Images {
    images: ImageBatch,
    labels: Vec<Labels>,
    fixed: bool,
    loaded: AtomicUsize,
}

struct View<'a> {
    images: &'a Images,
    order: &'a [usize],
}

impl Images {
    fn new(n: usize, seed: u64, fixed: bool) -> Self {
        let labels = (0..n).map(|index| Labels::Single(index % 3)).collect();
        Images { images: ImageBatch::random(n, SIZE, seed), labels, fixed, loaded: AtomicUsize::new(0) }
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

    fn is_fixed(&self) -> bool {
        self.fixed
    }

    fn epoch<'a>(&'a self, order: &'a [usize], _: Option<EpochAugment<'a>>) -> Box<dyn ImageSource + 'a> {
        Box::new(View { images: self, order })
    }
}

impl ImageSource for View<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        self.images.loaded.fetch_add(1, Ordering::Relaxed);
        self.images.images.load(self.order[index], out)
    }
}

fn config(precision: Precision) -> TrainConfig {
    TrainConfig {
        epochs: 5,
        batch_size: 7,
        precision,
        augment: Augment::none(),
        solver: Solver::AdamW,
        ..TrainConfig::for_method(Method::Linear, 2)
    }
}

/// Images of the training and validation split that were loaded, and what came of them.
fn run(
    config: &TrainConfig,
    fixed: bool,
    folder: Option<(&RunFolder, Resume)>,
    stop_after: Option<usize>,
) -> (Result<Outcome, Error>, usize) {
    let vit =
        VitConfig { depth: 2, width: 16, heads: 2, mlp_hidden: 24, patch: 4, image_size: SIZE, ..VitConfig::base() };
    let description = Description { name: "tiny".to_owned(), config: vit, preprocess: Preprocess::base(SIZE) };
    let spec = DeviceSpec { precision: Some(config.precision), threads: 2 };
    let engine = spec.open().load(Checkpoint::random(description, 3).freeze()).unwrap();
    let (train_images, val) = (Images::new(40, 1, fixed), Images::new(20, 2, fixed));
    let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
    let reference = engine.backbone().reference();
    let card = TaskCard::new("task".into(), TaskKind::SingleLabel, classes, Preprocess::base(SIZE), reference);
    let stop = AtomicBool::new(false);
    let observer = &mut |event: Event<'_>| {
        if let Event::Epoch(row) = event {
            stop.store(stop_after == Some(row.epoch), Ordering::Relaxed);
        }
    };
    let task = Task {
        start: Start::Frozen(engine),
        card,
        train: &train_images,
        val: &val,
        volume: None,
        team: &Team::alone(),
    };
    let (folder, resume) = folder.map_or((None, Resume::Never), |(folder, resume)| (Some(folder), resume));
    let outcome = train(task, config, RunOptions { folder, resume, stop: &stop, observer });
    (outcome, train_images.loaded.into_inner() + val.loaded.into_inner())
}

fn losses(outcome: &Outcome) -> Vec<[Option<f64>; 4]> {
    let row = |row: &melo_train::EpochRow| [Some(row.train_loss), Some(row.val_loss), row.val_auc_macro, row.val_acc];
    outcome.history.iter().map(row).collect()
}

#[test]
fn a_head_on_features_computed_once_is_the_head_on_the_images() {
    for precision in [Precision::F32, Precision::Bf16] {
        let config = config(precision);
        let (every_epoch, seen) = run(&config, false, None, None);
        let (once, seen_once) = run(&config, true, None, None);
        let (every_epoch, once) = (every_epoch.unwrap(), once.unwrap());
        assert_eq!((seen, seen_once), (5 * 60, 60));
        assert_eq!(once.plugin.head, every_epoch.plugin.head, "{precision}");
        assert_eq!(losses(&once), losses(&every_epoch), "{precision}");
    }
}

#[test]
fn what_changes_from_epoch_to_epoch_is_seen_in_every_epoch() {
    let augmented = TrainConfig { augment: Augment::default(), ..config(Precision::F32) };
    assert_eq!(run(&augmented, true, None, None).1, 5 * 60);
    let adapted = TrainConfig { augment: Augment::none(), epochs: 5, ..TrainConfig::for_method(Method::Lora, 2) };
    assert_eq!(run(&adapted, true, None, None).1, 5 * 60);
}

#[test]
fn a_resumed_probe_computes_features_again_and_ends_the_same() {
    let config = config(Precision::F32);
    let straight = run(&config, true, None, None).0.unwrap();
    for fixed in [true, false] {
        let place = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&place.path().join("run")).unwrap();
        let (stopped, _) = run(&config, fixed, Some((&folder, Resume::Never)), Some(2));
        assert!(matches!(stopped.unwrap_err(), Error::Interrupted { epoch: 3, .. }));
        let (resumed, seen) = run(&config, true, Some((&folder, Resume::Always)), None);
        assert_eq!(seen, 60);
        assert_eq!(resumed.unwrap().plugin.head, straight.plugin.head);
    }
}

#[test]
fn a_solved_head_sees_every_image_once_and_survives_a_stop() {
    let config = TrainConfig { solver: Solver::Lbfgs, ..config(Precision::F32) };
    let (straight, seen) = run(&config, true, None, None);
    let straight = straight.unwrap();
    assert_eq!(seen, 60);
    let c = straight.best.c.expect("it is a point on the path");
    let lowest = straight.history.iter().map(|row| row.val_loss).fold(f64::INFINITY, f64::min);
    assert_eq!(straight.best.val_loss, lowest);
    assert!(
        straight.history.windows(2).all(|pair| pair[0].train_loss >= pair[1].train_loss),
        "a weaker penalty fits closer"
    );
    let place = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(&place.path().join("run")).unwrap();
    let (stopped, _) = run(&config, true, Some((&folder, Resume::Never)), Some(2));
    assert!(matches!(stopped.unwrap_err(), Error::Interrupted { epoch: 3, .. }));
    let resumed = run(&config, true, Some((&folder, Resume::Always)), None).0.unwrap();
    assert_eq!((resumed.plugin.head, resumed.best.c), (straight.plugin.head, Some(c)));
}

#[test]
fn what_cannot_be_solved_on_features_is_refused() {
    let changing = TrainConfig { solver: Solver::Lbfgs, augment: Augment::default(), ..config(Precision::F32) };
    for (config, fixed) in [(changing, true), (TrainConfig { solver: Solver::Lbfgs, ..config(Precision::F32) }, false)]
    {
        match run(&config, fixed, None, None).0 {
            Err(Error::Setting { setting: "solver", .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}
