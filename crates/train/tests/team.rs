//! Several ranks, here threads of one process, train what one process trains: to the last bit.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use melo_data::{Cache, Manifest};
use melo_imaging::{Mask, Pixels, write_mask_png, write_png};
use melo_synthetic::{Phantom, phantom};
use melo_train::{
    Conclusion, Error, Event, Finished, Job, Method, Resume, RunFolder, RunOptions, Team, TeamError, TrainConfig,
    Transport,
};
use melo_vit::{
    BagConfig, BagPooling, Checkpoint, Description, DeviceSpec, Error as VitError, Preprocess, Storage, VitConfig,
    VolumeConfig,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// Side of the network's input, px.
const SIDE: usize = 8;
/// Examples of the splits: neither is a multiple of any number of ranks.
const EXAMPLES: [(&str, usize); 3] = [("train", 13), ("val", 7), ("test", 5)];

/// A channel from each rank to each other one.
#[derive(Debug)]
struct Channels {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl Channels {
    fn of(size: usize) -> Vec<Channels> {
        let mut of: Vec<Channels> = (0..size).map(|rank| Channels { rank, to: Vec::new(), from: Vec::new() }).collect();
        for from in 0..size {
            for to in 0..size {
                let (sender, receiver) = channel();
                of[from].to.push(sender);
                of[to].from.push(Mutex::new(receiver));
            }
        }
        of
    }

    fn put(&self, to: usize, bytes: Vec<u8>) -> Result<(), TeamError> {
        self.to[to].send(bytes).map_err(|_| TeamError::Lost { reason: format!("rank {to} is gone") })
    }

    fn take(&self, from: usize) -> Result<Vec<u8>, TeamError> {
        let received = self.from[from].lock().unwrap().recv();
        received.map_err(|_| TeamError::Lost { reason: format!("rank {from} is gone") })
    }
}

impl Transport for Channels {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn host(&self) -> String {
        format!("host-{}", self.rank)
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, TeamError> {
        (0..self.size()).try_for_each(|to| self.put(to, mine.to_vec()))?;
        (0..self.size()).map(|from| self.take(from)).collect()
    }

    fn send(&self, to: usize, values: &[f32]) -> Result<(), TeamError> {
        self.put(to, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn receive(&self, from: usize, values: &mut [f32]) -> Result<(), TeamError> {
        let bytes = self.take(from)?;
        assert_eq!(bytes.len(), 4 * values.len());
        let sent = bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        values.iter_mut().zip(sent).for_each(|(value, sent)| *value = sent);
        Ok(())
    }

    fn broadcast(&self, from: usize, values: &mut [f32]) -> Result<(), TeamError> {
        match from == self.rank {
            true => (0..self.size()).filter(|&to| to != from).try_for_each(|to| self.send(to, values)),
            false => self.receive(from, values),
        }
    }
}

/// What each of so many ranks makes of its team.
fn on_ranks<T: Send>(size: usize, run: impl Fn(Arc<Team>) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let run = &run;
        let ranks = Channels::of(size).into_iter().map(|channels| Team::new(Box::new(channels)));
        let ranks: Vec<_> = ranks.map(|team| scope.spawn(move || run(team))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Images(Method),
    Bags,
    Masks,
    Volumes,
}

/// A folder with a backbone, and images in every form.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        let [mut images, mut bags, mut masks, mut volumes] =
            ["path,split,label\n", "path,split,label,bag\n", "path,mask,split\n", "path,split,label\n"]
                .map(str::to_owned);
        let mut number = 0;
        for (split, examples) in EXAMPLES {
            for _ in 0..examples {
                let (class, kind) = (number % 2, Phantom::BloodSmear);
                let label = kind.classes()[class];
                for view in 0..2 {
                    let name = format!("{number}-{view}.png");
                    write_png(&place.at(&name), &phantom(kind, class, (2 * number + view) as u64, 24)).unwrap();
                    bags += &format!("{name},{split},{label},b{number}\n");
                }
                images += &format!("{number}-0.png,{split},{label}\n");
                let (image, mask) = boxed(number);
                write_png(&place.at(format!("m{number}.png")), &image).unwrap();
                write_mask_png(&place.at(format!("m{number}_mask.png")), &mask).unwrap();
                masks += &format!("m{number}.png,m{number}_mask.png,{split}\n");
                std::fs::write(place.at(format!("v{number}.npy")), volume(number)).unwrap();
                volumes += &format!("v{number}.npy,{split},{label}\n");
                number += 1;
            }
        }
        for (name, table) in [("images", images), ("bags", bags), ("masks", masks), ("volumes", volumes)] {
            std::fs::write(place.at(format!("{name}.csv")), table).unwrap();
        }
        place
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    fn job(&self, kind: Kind, team: Arc<Team>, threads: usize) -> Job {
        let method = if let Kind::Images(method) = kind { method } else { Method::Lora };
        let table = match kind {
            Kind::Images(_) => "images.csv",
            Kind::Bags => "bags.csv",
            Kind::Masks => "masks.csv",
            Kind::Volumes => "volumes.csv",
        };
        let config = TrainConfig::for_method(method, 2);
        let bag = (kind == Kind::Bags).then(|| BagConfig::of(BagPooling::Mean));
        let volume = (kind == Kind::Volumes).then_some(VolumeConfig { patch_depth: 4 });
        let lora_dropout = if method == Method::Lora { 0.2 } else { 0.0 };
        let device = DeviceSpec { threads, ..DeviceSpec::default() }.open();
        let manifest = Manifest::read(&self.at(table)).unwrap();
        let job = Job::new(device, checkpoint().freeze(), manifest);
        Job {
            config: TrainConfig { epochs: 3, batch_size: 5, bag, volume, lora_dropout, ..config },
            preprocess: Preprocess { depth: volume.map(|_| SIDE), ..job.preprocess },
            task: "task".to_owned(),
            cache: Arc::new(Cache::new(1 << 20)),
            team,
            ..job
        }
    }
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

/// A dark image with a bright box, and its mask.
fn boxed(number: usize) -> (Pixels, Mask) {
    let (width, height, left) = (20, 16, number % 10);
    let labels: Vec<u8> =
        (0..width * height).map(|at| u8::from((left..left + 8).contains(&(at % width)) && at / width > 6)).collect();
    let rgb = labels.iter().enumerate().flat_map(|(at, &label)| [if label == 1 { 220 } else { (at % 60) as u8 }; 3]);
    (Pixels { width, height, rgb: rgb.collect() }, Mask { width, height, labels })
}

/// A NumPy file of a volume, brighter in one class.
fn volume(number: usize) -> Vec<u8> {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({SIDE}, {SIDE}, {SIDE}), }}");
    let padding = 64 - (11 + header.len()) % 64;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(((header.len() + padding + 1) as u16).to_le_bytes());
    bytes.extend(format!("{header}{}\n", " ".repeat(padding)).bytes());
    bytes.extend((0..SIDE.pow(3)).map(|at| ((at * 37 + number * 11) % 90 + number % 2 * 100) as u8));
    bytes
}

/// What became of a training that has to be the same everywhere.
fn result(place: &Place, finished: &Finished, name: &str) -> (Vec<u8>, Option<String>, Vec<String>) {
    let path = place.at(format!("{name}.safetensors"));
    finished.plugin.save(&path, &finished.engine.backbone().config().clone(), Storage::F32).unwrap();
    let row = |row: &melo_train::EpochRow| format!("{:?}", (row.train_loss, row.val_loss, row.figures(), row.best));
    let rows = finished.history.iter().map(row).collect();
    (std::fs::read(path).unwrap(), finished.checkpoint.as_ref().map(Checkpoint::digest), rows)
}

fn trained(place: &Place, kind: Kind, team: Arc<Team>, threads: usize) -> (Vec<u8>, Option<String>, Vec<String>) {
    let name = format!("{:?}", std::thread::current().id());
    let finished = place.job(kind, Arc::clone(&team), threads).run(&mut |_| ());
    let finished = finished.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    assert_eq!(team.conclude(None), Conclusion::Done);
    result(place, &finished, &name)
}

#[test]
fn a_plugin_does_not_depend_on_the_number_of_ranks() {
    let place = Place::new();
    let methods = [Method::Lora, Method::Adapter, Method::Linear].map(Kind::Images);
    for kind in methods.into_iter().chain([Kind::Bags, Kind::Masks, Kind::Volumes]) {
        let alone = trained(&place, kind, Team::alone(), 2);
        for size in 1..=4 {
            for (rank, found) in on_ranks(size, |team| trained(&place, kind, team, 1)).into_iter().enumerate() {
                assert!(found == alone, "{kind:?}: rank {rank} of {size}: {:?}, alone {:?}", found.2, alone.2);
            }
        }
    }
}

/// More ranks than images of a batch, of a split, and lanes.
#[test]
fn ranks_without_work_change_nothing() {
    let place = Place::new();
    let alone = trained(&place, Kind::Images(Method::Lora), Team::alone(), 2);
    assert!(
        on_ranks(17, |team| trained(&place, Kind::Images(Method::Lora), team, 1)).iter().all(|found| *found == alone)
    );
}

/// All weights are trained in as many lanes as there are threads, by ranks in 16.
#[test]
fn full_fine_tuning_is_that_of_any_number_of_ranks_and_of_sixteen_threads() {
    let place = Place::new();
    let alone = trained(&place, Kind::Images(Method::Full), Team::alone(), 16);
    for size in 1..=4 {
        let found = on_ranks(size, |team| trained(&place, Kind::Images(Method::Full), team, 2));
        assert!(found.iter().all(|found| *found == alone), "{size} ranks");
    }
}

/// Runs to the end, or until an epoch is done; only rank 0 has the folder.
fn resumed(place: &Place, method: Method, team: &Arc<Team>, stop_after: Option<usize>) -> Result<Finished, Error> {
    let folder = team.leads().then(|| RunFolder::create(&place.at(format!("{method}.run"))).unwrap());
    let stop = AtomicBool::new(false);
    let observer = &mut |event: Event<'_>| {
        if let Event::Epoch(row) = event {
            // One that is told is enough.
            stop.store(stop_after == Some(row.epoch) && team.rank() + 1 == team.size(), Ordering::Relaxed);
        }
    };
    let ready = place.job(Kind::Images(method), Arc::clone(team), 2).prepare(observer)?;
    let (folder, resume) = (folder.as_ref(), Resume::Always);
    ready.run(RunOptions { folder, resume, stop: &stop, observer })
}

#[test]
fn a_training_goes_on_with_another_number_of_ranks() {
    let place = Place::new();
    for (method, threads) in [(Method::Lora, 2), (Method::Linear, 2), (Method::Full, 16)] {
        let alone = trained(&place, Kind::Images(method), Team::alone(), threads);
        for (size, epoch) in [(3, 1), (1, 2)] {
            let stopped = on_ranks(size, |team| {
                let error = resumed(&place, method, &team, Some(epoch)).unwrap_err().to_string();
                (error, team.conclude(Some("stopped")))
            });
            for (rank, (error, conclusion)) in stopped.into_iter().enumerate() {
                assert!(error.contains(&format!("stopped in epoch {}", epoch + 1)), "{error}");
                assert_eq!(conclusion, Conclusion::Failed { speaks: rank == 0 });
            }
        }
        let found = on_ranks(2, |team| {
            let finished = resumed(&place, method, &team, None).unwrap();
            result(&place, &finished, &format!("{:?}", std::thread::current().id()))
        });
        assert!(found.iter().all(|found| *found == alone), "{method}");
    }
}

/// The message of each rank that speaks.
fn spoken(results: Vec<(String, Conclusion)>) -> Vec<(usize, String)> {
    let mut spoken = Vec::new();
    for (rank, (message, conclusion)) in results.into_iter().enumerate() {
        match conclusion {
            Conclusion::Failed { speaks: true } => spoken.push((rank, message)),
            Conclusion::Failed { speaks: false } => {}
            Conclusion::Done => panic!("rank {rank} knows of no failure"),
        }
    }
    spoken
}

fn ended(team: &Team, result: Result<Finished, Error>) -> (String, Conclusion) {
    let message = result.err().map(|error| error.to_string());
    let conclusion = team.conclude(message.as_deref());
    (message.unwrap_or_default(), conclusion)
}

#[test]
fn broken_images_are_told_once_and_all_of_them() {
    let place = Place::new();
    for broken in ["0-0.png", "12-0.png"] {
        std::fs::write(place.at(broken), "no image").unwrap();
    }
    let results = on_ranks(3, |team| {
        let result = place.job(Kind::Images(Method::Lora), Arc::clone(&team), 1).run(&mut |_| ());
        ended(&team, result)
    });
    let spoken = spoken(results);
    let alone = place.job(Kind::Images(Method::Lora), Team::alone(), 1).run(&mut |_| ()).unwrap_err();
    assert_eq!(spoken, [(0, alone.to_string())]);
    assert!(spoken[0].1.contains("2 of 20"), "{spoken:?}");
}

/// The same files but for one, as on a disk of its own.
#[test]
fn an_image_that_one_rank_cannot_read_ends_all() {
    let (place, other) = (Place::new(), Place::new());
    std::fs::write(other.at("9-0.png"), "no image").unwrap();
    let results = on_ranks(3, |team| {
        let place = if team.rank() == 2 { &other } else { &place };
        let result = place.job(Kind::Images(Method::Lora), Arc::clone(&team), 1).run(&mut |_| ());
        ended(&team, result)
    });
    let spoken = spoken(results);
    assert!(matches!(&spoken[..], [(2, message)] if message.contains("9-0.png")), "{spoken:?}");
}

/// A file that goes away in the course of the training, and only where one rank looks.
#[test]
fn an_image_that_is_lost_on_the_way_ends_all() {
    let places = [Place::new(), Place::new(), Place::new()];
    let results = on_ranks(3, |team| {
        let place = &places[team.rank()];
        let mut job = place.job(Kind::Images(Method::Lora), Arc::clone(&team), 1);
        // Nothing is kept: every image is read again.
        job.cache = Arc::new(Cache::new(0));
        let result = job.run(&mut |event| {
            if matches!(event, Event::Started { .. }) && team.rank() == 1 {
                (0..20).for_each(|number| std::fs::remove_file(place.at(format!("{number}-0.png"))).unwrap());
            }
        });
        ended(&team, result)
    });
    let spoken = spoken(results);
    assert!(matches!(&spoken[..], [(1, message)] if message.contains("-0.png")), "{spoken:?}");
}

/// Test figures are not needed: a broken test image costs them on all ranks, and nothing else.
#[test]
fn a_broken_test_image_costs_the_test_figures_on_all_ranks() {
    let place = Place::new();
    std::fs::write(place.at("24-0.png"), "no image").unwrap();
    let alone = trained(&place, Kind::Images(Method::Lora), Team::alone(), 1);
    assert!(
        on_ranks(3, |team| trained(&place, Kind::Images(Method::Lora), team, 1)).iter().all(|found| *found == alone)
    );
}

#[test]
fn ranks_with_other_jobs_are_told_by_name() {
    let place = Place::new();
    type Change = fn(&mut Job);
    let changes: [(&str, Change); 5] = [
        ("setting `seed`", |job| job.config.seed = 9),
        ("setting `mean`", |job| job.preprocess.mean = [0.4; 3]),
        ("the outputs", |job| job.storage = Storage::F16),
        ("the data (digest of names and labels)", |job| job.manifest.rows[3].name = "other.png".to_owned()),
        ("the backbone (digest)", |job| {
            let mut other = checkpoint();
            other.weights.tensors_mut()[0][0] += 1.0;
            job.backbone = other.freeze();
        }),
    ];
    for (what, change) in changes {
        let results = on_ranks(3, |team| {
            let mut job = place.job(Kind::Images(Method::Lora), Arc::clone(&team), 1);
            if team.rank() == 1 {
                change(&mut job);
            }
            ended(&team, job.run(&mut |_| ()))
        });
        let spoken = spoken(results);
        let named = format!("rank 1 on host-1 differs from rank 0 in {what}: ");
        assert!(matches!(&spoken[..], [(0, message)] if message.starts_with(&named)), "{spoken:?}");
    }
}

#[test]
fn a_failure_after_the_training_is_told_by_its_rank() {
    let results = on_ranks(3, |team| {
        let failed = (team.rank() == 1).then_some("a full disk");
        (failed.unwrap_or_default().to_owned(), team.conclude(failed))
    });
    assert_eq!(spoken(results), [(1, "a full disk".to_owned())]);
}

#[test]
fn a_rank_that_is_gone_ends_the_others() {
    let found = on_ranks(3, |team| match team.rank() {
        1 => None,
        _ => team.gather::<VitError>("a step", Ok(vec![1])).err().map(|error| error.to_string()),
    });
    assert!(found[0].as_ref().is_some_and(|error| error.contains("rank 1 is gone")), "{found:?}");
}

#[test]
fn ranks_at_different_places_are_told() {
    let found = on_ranks(2, |team| {
        let what = ["a step", "a forward pass"][team.rank()];
        team.gather::<TeamError>(what, Ok(Vec::new())).unwrap_err()
    });
    let apart = |error: &TeamError| matches!(error, TeamError::Apart { rank: 1, there, here, .. } if there == "a forward pass" && here == "a step");
    assert!(found.iter().all(apart), "{found:?}");
}
