//! Tasks and versions: what is accepted, what is refused and leaves the old version serving, what outlives a restart.

use crate::common::{self, engine, file, plugin, put};
use melo_serve::{Advice, Folder, Metrics, Refusal, Registry, RegistryConfig};
use melo_vit::{Engine, Error, Plugin, Precision, ReadBy, Recalibration, SelfTest, TaskCard};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// A registry with its watched folder.
struct Room {
    folder: TempDir,
    engine: Arc<dyn Engine>,
    registry: Registry,
    watched: Folder,
}

fn open(folder: TempDir, resident_bytes: usize) -> Room {
    open_on(engine(), folder, resident_bytes)
}

fn open_on(engine: Arc<dyn Engine>, folder: TempDir, resident_bytes: usize) -> Room {
    let metrics = Arc::new(Metrics::default());
    let config = RegistryConfig {
        state: folder.path().join("state"),
        resident_bytes,
        keep_versions: 2,
        advice: Advice(|error| matches!(error, Error::NotCalibrated { .. }).then(|| "recalibrate it".to_owned())),
        ..RegistryConfig::new("")
    };
    let registry = Registry::open(config, Arc::clone(&engine), metrics, None).expect("the state is read");
    std::fs::create_dir_all(folder.path().join("plugins")).expect("a folder");
    let mut watched = Folder::new(&folder.path().join("plugins"));
    watched.look(&registry).expect("the folder is read");
    Room { folder, engine, registry, watched }
}

fn room() -> Room {
    open(tempfile::tempdir().expect("a folder"), 1 << 20)
}

impl Room {
    fn plugins(&self) -> std::path::PathBuf {
        self.folder.path().join("plugins")
    }

    fn put(&self, name: &str, task: &str, seed: u64) -> Plugin {
        let plugin = plugin(&*self.engine, task, seed);
        put(&self.plugins(), name, &file(self.engine.backbone(), &plugin));
        plugin
    }

    /// Two looks: a file counts when it has settled.
    fn look(&mut self) {
        for _ in 0..2 {
            self.watched.look(&self.registry).expect("the folder is read");
        }
    }

    fn names(&self) -> Vec<String> {
        self.registry.tasks().into_iter().map(|task| task.name).collect()
    }

    fn problem(&self, file: &str) -> String {
        self.registry.problems().get(file).cloned().unwrap_or_default()
    }

    fn restart(self) -> Room {
        open(self.ended(), 1 << 20)
    }

    /// The folder, when nothing has the state any more.
    fn ended(self) -> TempDir {
        let Room { folder, registry, .. } = self;
        drop(registry);
        folder
    }
}

fn same(found: &Plugin, expected: &Plugin) -> bool {
    found.head.bias == expected.head.bias && found.adapter.tensors() == expected.adapter.tensors()
}

#[test]
fn files_in_the_folder_come_change_and_go() {
    let mut room = room();
    let first = room.put("a", "chest", 1);
    room.watched.look(&room.registry).expect("the folder is read");
    assert!(room.names().is_empty(), "a file that may still be written is not read");
    room.look();
    assert_eq!(room.names(), ["chest"]);
    let version = room.registry.find("chest").expect("served");
    assert!(same(&room.registry.plugin(&version).expect("loads"), &first));

    let second = room.put("a", "chest", 3);
    room.look();
    let newer = room.registry.find("chest").expect("served");
    assert_ne!(newer.digest, version.digest);
    assert!(same(&room.registry.plugin(&newer).expect("loads"), &second));
    let named = room.registry.find(&format!("chest@{}", &version.digest[..8])).expect("old versions have names");
    assert!(same(&room.registry.plugin(&named).expect("loads"), &first), "and their weights");

    std::fs::remove_file(room.plugins().join("a.safetensors")).expect("removed");
    room.look();
    assert!(room.names().is_empty());
    assert!(matches!(room.registry.find("chest"), Err(Refusal::NotFound(_))));
}

#[test]
fn a_bad_file_leaves_the_old_version_serving_and_says_why() {
    let mut room = room();
    room.put("a", "chest", 1);
    room.look();
    let version = room.registry.find("chest").expect("served").digest.clone();
    let good = std::fs::read(room.plugins().join("a.safetensors")).expect("read");
    put(&room.plugins(), "a", &good[..good.len() - 5]);
    room.look();
    assert_eq!(room.registry.find("chest").expect("still served").digest, version);
    let problem = room.problem("a.safetensors");
    assert!(!problem.is_empty() && !problem.contains("state"), "{problem}");
    put(&room.plugins(), "a", &good);
    room.look();
    assert_eq!(room.problem("a.safetensors"), "");
}

#[test]
fn a_plugin_that_fails_or_lacks_its_self_test_is_refused_by_name() {
    let mut room = room();
    let mut wrong = plugin(&*room.engine, "wrong", 1);
    wrong.head.bias[0] += 0.1;
    put(&room.plugins(), "wrong", &file(room.engine.backbone(), &wrong));
    let mut without = plugin(&*room.engine, "without", 1);
    without.card.self_test = None;
    put(&room.plugins(), "without", &file(room.engine.backbone(), &without));
    let mut idle = plugin(&*room.engine, "idle", 1);
    idle.adapter.tensors_mut().into_iter().for_each(|values| values.fill(0.0));
    put(&room.plugins(), "idle", &file(room.engine.backbone(), &idle));
    room.look();
    assert!(room.names().is_empty());
    for (name, word) in [("wrong", "self-test"), ("without", "no self-test"), ("idle", "adapter")] {
        let problem = room.problem(&format!("{name}.safetensors"));
        assert!(problem.contains(word), "{name}: {problem}");
    }
}

/// The self-test of other software in `precision`, whose answers are another's altogether.
fn foreign_test(plugin: &Plugin, engine: &str, precision: Precision) -> SelfTest {
    let own = plugin.card.self_test.clone().expect("it is finished");
    let mut test = SelfTest { engine: engine.to_owned(), precision, ..own };
    test.logits.iter_mut().chain(&mut test.bare_logits).flatten().for_each(|x| *x = 1.5 * *x + 5.0);
    test
}

fn calibration(card: &TaskCard, self_test: SelfTest) -> Recalibration {
    let (temperature, thresholds) = (3.0, vec![0.5; 3]);
    let by = ReadBy { temperature, thresholds: &thresholds, sets: None, scope_limits: None };
    Recalibration {
        self_test: self_test.read_by(card, by),
        sets: None,
        scope_limits: None,
        temperature,
        thresholds,
        images: 9,
        data_digest: String::new(),
        split_digest: String::new(),
        data: String::new(),
        date: String::new(),
        software: String::new(),
        metrics: BTreeMap::new(),
    }
}

#[test]
fn a_plugin_that_is_not_calibrated_for_this_engine_is_refused_with_what_mends_it() {
    let mut room = room();
    let mut plugin = plugin(&*room.engine, "chest", 1);
    let here = plugin.card.self_test.clone().expect("it is finished");
    plugin.card.self_test = Some(foreign_test(&plugin, "cpu", Precision::Int8));
    put(&room.plugins(), "a", &file(room.engine.backbone(), &plugin));
    room.look();
    assert!(room.names().is_empty());
    let problem = room.problem("a.safetensors");
    for part in ["task `chest`", "calibrated in int8", "answers in f32", "; recalibrate it"] {
        assert!(problem.contains(part), "{problem}");
    }
    let new = calibration(&plugin.card, here);
    plugin.card.recalibrate(new);
    put(&room.plugins(), "a", &file(room.engine.backbone(), &plugin));
    room.look();
    let version = room.registry.find("chest").expect("served");
    let bound = room.registry.plugin(&version).expect("loads");
    assert_eq!((bound.calibration().temperature, bound.calibration().made.precision), (3.0, Precision::F32));
    assert_eq!(room.registry.problems(), BTreeMap::new());
}

#[test]
fn a_restart_in_another_precision_names_the_tasks_that_are_not_calibrated_for_it() {
    let bf16 = || common::tiny::engine_of(common::tiny::checkpoint(&common::tiny::config(), 7), Precision::Bf16, 2, 2);
    let mut room = room();
    room.put("b", "skin", 3);
    // At home in f32, and said to be something else altogether where bfloat16 is computed elsewhere.
    let mut chest = plugin(&*room.engine, "chest", 1);
    let new = calibration(&chest.card, foreign_test(&chest, "abacus", Precision::Bf16));
    chest.card.recalibrate(new);
    put(&room.plugins(), "a", &file(room.engine.backbone(), &chest));
    room.look();
    assert_eq!(
        (room.names(), room.registry.problems()),
        (vec!["chest".to_owned(), "skin".to_owned()], BTreeMap::new())
    );
    let room = open_on(bf16(), room.ended(), 1 << 20);
    assert_eq!(room.names(), ["chest", "skin"], "nothing that was accepted is lost");
    let problem = room.registry.problem_of("chest").expect("said at the start");
    for part in ["task `chest`", "calibrated in bf16 on abacus", "answers in bf16", "; recalibrate it"] {
        assert!(problem.contains(part), "{problem}");
    }
    assert_eq!(room.registry.problem_of("skin"), None);
    let Err(Refusal::Unavailable(why)) = room.registry.plugin(&room.registry.find("chest").expect("known")) else {
        panic!("used")
    };
    assert_eq!(why, problem);
    // Said again at the next start, and gone where it is at home or mended.
    let room = open_on(bf16(), room.ended(), 1 << 20);
    assert_eq!(room.registry.problem_of("chest"), Some(problem));
    let room = open(room.ended(), 1 << 20);
    assert_eq!(room.registry.problems(), BTreeMap::new());
    let room = open_on(bf16(), room.ended(), 1 << 20);
    let test = SelfTest::take(&*room.engine, &chest).expect("images of this size");
    let new = calibration(&chest.card, test);
    chest.card.recalibrate(new);
    room.registry.accept(&file(room.engine.backbone(), &chest), None, "key:admin", |_| None).expect("accepted");
    assert_eq!(room.registry.problems(), BTreeMap::new());
    assert!(room.registry.plugin(&room.registry.find("chest").expect("served")).expect("loads").is_at_home());
}

#[test]
fn a_plugin_of_another_backbone_is_refused() {
    let mut room = room();
    let other = common::tiny::engine(common::tiny::checkpoint(&common::tiny::config(), 8));
    put(&room.plugins(), "foreign", &file(other.backbone(), &plugin(&*other, "foreign", 1)));
    room.look();
    assert!(room.names().is_empty());
    assert!(room.problem("foreign.safetensors").contains("backbone"), "{}", room.problem("foreign.safetensors"));
}

#[test]
fn names_that_could_be_paths_or_lists_are_refused() {
    let mut room = room();
    for (place, task) in ["../etc", "a/b", "a,b", "a@b", "all", "", ".hidden", "über"].into_iter().enumerate() {
        room.put(&format!("f{place}"), task, 1);
        room.look();
        assert!(room.names().is_empty(), "{task}");
        assert!(room.problem(&format!("f{place}.safetensors")).contains("letters"), "{task}");
    }
    let stored = std::fs::read_dir(room.folder.path().join("state/plugins")).expect("the store").count();
    assert_eq!(stored, 0, "what is refused is not kept");
}

#[test]
fn two_files_cannot_give_one_task() {
    let mut room = room();
    room.put("a", "chest", 1);
    room.put("b", "chest", 3);
    room.look();
    assert_eq!(room.names(), ["chest"]);
    assert!(room.problem("b.safetensors").contains("a.safetensors"), "{:?}", room.registry.problems());
}

#[test]
fn what_happens_to_an_accepted_file_changes_nothing() {
    let mut room = open(tempfile::tempdir().expect("a folder"), 1);
    let chest = room.put("a", "chest", 1);
    room.put("b", "skin", 3);
    room.look();
    // Overwritten in place, as `cp` does; the registry has not looked yet, and memory holds one plug-in only.
    std::fs::write(room.plugins().join("a.safetensors"), b"half a copy").expect("written");
    let skin = room.registry.find("skin").expect("served");
    room.registry.plugin(&skin).expect("loads");
    let version = room.registry.find("chest").expect("served");
    assert!(!room.registry.is_resident(&version), "the other one took its place");
    assert!(same(&room.registry.plugin(&version).expect("loads"), &chest));
}

#[test]
fn a_stored_file_that_was_tampered_with_is_not_used() {
    let mut room = open(tempfile::tempdir().expect("a folder"), 1);
    room.put("a", "chest", 1);
    room.put("b", "skin", 3);
    room.look();
    let version = room.registry.find("chest").expect("served");
    room.registry.plugin(&room.registry.find("skin").expect("served")).expect("loads");
    let other = file(room.engine.backbone(), &plugin(&*room.engine, "chest", 5));
    let stored = room.folder.path().join("state/plugins").join(format!("{}.safetensors", version.digest));
    std::fs::write(&stored, other).expect("written");
    let Err(Refusal::Unavailable(why)) = room.registry.plugin(&version) else { panic!("used") };
    assert!(why.contains("changed"), "{why}");
}

#[test]
fn a_restart_keeps_tasks_versions_pins_and_what_the_admin_put() {
    let mut room = room();
    room.put("a", "chest", 1);
    room.put("b", "skin", 3);
    room.look();
    let first = room.registry.find("chest").expect("served").digest.clone();
    let better = file(room.engine.backbone(), &plugin(&*room.engine, "chest", 5));
    let second = room.registry.accept(&better, None, "key:admin", |_| None).expect("accepted").digest.clone();
    room.registry.pin(&format!("skin@{}", room.registry.find("skin").expect("served").digest), true).expect("pinned");
    let mut room = room.restart();
    assert_eq!(room.registry.find("chest").expect("served").digest, second, "the folder's file is older news");
    assert!(room.registry.find(&format!("chest@{first}")).is_ok());
    room.put("b", "skin", 7);
    room.look();
    let skin = room.registry.tasks().into_iter().find(|task| task.name == "skin").expect("served");
    assert!(skin.pinned && skin.versions.len() == 2 && skin.current.digest == skin.versions[0].digest);
    room.registry.pin(&format!("skin@{}", skin.versions[1].digest), false).expect("let go");
    assert_eq!(room.registry.find("skin").expect("served").digest, skin.versions[1].digest);

    std::fs::remove_file(room.plugins().join("b.safetensors")).expect("removed");
    let room = room.restart();
    assert_eq!(room.names(), ["chest"], "a file that went while nobody looked");
}

#[test]
fn old_versions_go_and_their_files_with_them() {
    let mut room = room();
    let mut digests = Vec::new();
    for seed in [1, 3, 5, 7, 9] {
        room.put("a", "chest", seed);
        room.look();
        digests.push(room.registry.find("chest").expect("served").digest.clone());
    }
    let task = &room.registry.tasks()[0];
    assert_eq!(
        task.versions.iter().map(|version| &version.digest).collect::<Vec<_>>(),
        digests[2..].iter().collect::<Vec<_>>()
    );
    assert_eq!(std::fs::read_dir(room.folder.path().join("state/plugins")).expect("the store").count(), 3);
    assert!(matches!(room.registry.find(&format!("chest@{}", digests[0])), Err(Refusal::NotFound(_))));
    assert!(matches!(room.registry.find("chest@1234567"), Err(Refusal::NotFound(_))), "7 digits are too few");
}

#[test]
fn the_state_of_another_backbone_is_not_touched() {
    let mut room = room();
    room.put("a", "chest", 1);
    room.look();
    let other = common::tiny::engine(common::tiny::checkpoint(&common::tiny::config(), 8));
    let metrics = Arc::new(Metrics::default());
    let folder = room.ended();
    let state = folder.path().join("state");
    let config =
        RegistryConfig { state: state.clone(), resident_bytes: 1 << 20, keep_versions: 2, ..RegistryConfig::new("") };
    let error = Registry::open(config, other, metrics, None).err().expect("refused").to_string();
    assert!(error.contains("another state folder"), "{error}");
    assert!(Path::exists(&state.join("registry.json")));
}

#[test]
fn the_state_of_a_later_program_is_not_touched() {
    let mut room = room();
    room.put("a", "chest", 1);
    room.look();
    let folder = room.ended();
    let state = folder.path().join("state");
    let path = state.join("registry.json");
    let later = r#"{ "format": 2, "novel": true }"#;
    std::fs::write(&path, later).expect("written");
    let config = RegistryConfig { state, ..RegistryConfig::new("") };
    let error = Registry::open(config, engine(), Arc::new(Metrics::default()), None).err().expect("refused");
    assert!(error.to_string().contains("it is of format 2, this program knows 1"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), later);
}

#[test]
fn the_cap_holds_for_many_plugins_on_disk() {
    let one = file(engine().backbone(), &plugin(&*engine(), "t", 1)).len();
    let mut room = open(tempfile::tempdir().expect("a folder"), one * 3);
    for seed in 0..20 {
        room.put(&format!("f{seed}"), &format!("task{seed}"), seed);
    }
    room.look();
    assert_eq!(room.names().len(), 20);
    let resident = || {
        let tasks = room.registry.tasks();
        tasks.iter().filter(|task| room.registry.is_resident(&task.current)).count()
    };
    assert!((1..10).contains(&resident()), "{}", resident());
    for seed in 0..20 {
        let version = room.registry.find(&format!("task{seed}")).expect("served");
        assert!(same(&room.registry.plugin(&version).expect("loads"), &plugin(&*room.engine, "t", seed)));
        assert!((1..10).contains(&resident()));
    }
}

/// A finished plug-in whose card was changed afterwards.
fn changed(engine: &dyn Engine, task: &str, change: impl FnOnce(&mut melo_vit::TaskCard)) -> Vec<u8> {
    let mut plugin = plugin(engine, task, 1);
    change(&mut plugin.card);
    file(engine.backbone(), &plugin)
}

#[test]
fn a_plugin_that_asks_for_more_than_one_pass_may_take_is_refused_before_it_is_tested() {
    let mut room = room();
    room.put("good", "skin", 3);
    for (task, size) in [("wide", 4096), ("slow", 2048)] {
        put(&room.plugins(), task, &changed(&*room.engine, task, |card| card.preprocess.size = size));
    }
    let started = std::time::Instant::now();
    room.look();
    assert!(started.elapsed().as_secs() < 20);
    assert_eq!(room.names(), ["skin"], "the others are served");
    for (task, size) in [("wide", "4096"), ("slow", "2048")] {
        let problem = room.problem(&format!("{task}.safetensors"));
        for part in [format!("task `{task}`"), format!("image size {size}"), "tokens, at most 8192".to_owned()] {
            assert!(problem.contains(&part), "{problem}");
        }
    }
    let bytes = changed(&*room.engine, "wide", |card| card.preprocess.size = 4096);
    let refusal = room.registry.accept(&bytes, None, "put", |_| None).expect_err("refused");
    assert!(matches!(&refusal, Refusal::Unusable(reason) if reason.contains("4096")), "{refusal}");
}

#[test]
fn a_plugin_that_ended_the_process_is_named_and_not_tested_again() {
    let mut room = room();
    room.put("a", "chest", 1);
    room.put("b", "skin", 3);
    room.look();
    let digest = room.registry.find("chest").expect("served").digest.clone();
    let bytes = std::fs::read(room.plugins().join("a.safetensors")).expect("read");
    let note = room.folder.path().join(format!("state/plugins/{digest}.tries"));
    assert!(!note.exists(), "a test that ends leaves nothing");
    // As a process leaves it that ended in the test: once may have been the power.
    std::fs::write(&note, ".").expect("written");
    let room = room.restart();
    assert!(room.registry.plugin(&room.registry.find("chest").expect("known")).is_ok() && !note.exists());
    std::fs::write(&note, "..").expect("written");
    let room = room.restart();
    let problem = room.problem("chest");
    assert!(problem.contains("ended 2 times in its self-test") && problem.contains(&digest), "{problem}");
    let refusal = room.registry.plugin(&room.registry.find("chest").expect("known")).expect_err("refused");
    assert!(matches!(&refusal, Refusal::Unavailable(reason) if reason.contains("task `chest`")), "{refusal}");
    assert!(room.registry.plugin(&room.registry.find("skin").expect("served")).is_ok(), "the others are served");
    // Nor where it comes anew.
    room.registry.remove("chest").expect("removed");
    let refusal = room.registry.accept(&bytes, None, "put", |_| None).expect_err("refused");
    assert!(matches!(&refusal, Refusal::Unusable(reason) if reason.contains("ended 2 times")), "{refusal}");
    assert!(note.exists(), "being refused is not being tested");
    std::fs::remove_file(&note).expect("removed");
    assert!(room.registry.accept(&bytes, None, "put", |_| None).is_ok(), "unless someone decides so");
}

#[test]
fn a_plugin_too_slow_for_the_time_of_a_request_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let config =
        RegistryConfig { self_test: std::time::Duration::ZERO, ..RegistryConfig::new(folder.path().join("state")) };
    let engine = engine();
    let registry = Registry::open(config, Arc::clone(&engine), Arc::new(Metrics::default()), None).expect("opened");
    let bytes = file(engine.backbone(), &plugin(&*engine, "chest", 1));
    let reason = registry.accept(&bytes, None, "put", |_| None).expect_err("refused").to_string();
    assert!(reason.contains("task `chest`: its self-test of 4 passes of 12 px took"), "{reason}");
}

#[test]
fn a_damaged_stored_plugin_is_told_and_heals_where_its_file_is_still_there() {
    let mut room = room();
    let first = room.put("a", "chest", 1);
    room.put("b", "skin", 3);
    room.look();
    let version = room.registry.find("chest").expect("served");
    let stored = room.folder.path().join(format!("state/plugins/{}.safetensors", version.digest));
    let mut bytes = std::fs::read(&stored).expect("read");
    *bytes.last_mut().expect("bytes") ^= 1;
    let kept = std::fs::read(room.plugins().join("a.safetensors")).expect("read");
    std::fs::remove_file(room.plugins().join("a.safetensors")).expect("removed");
    room.registry.pin("chest", true).expect("pinned");
    std::fs::write(&stored, &bytes).expect("damaged");
    let room = room.restart();
    let version = room.registry.find("chest").expect("known");
    assert!(room.registry.plugin(&version).is_err());
    assert!(room.problem("chest").contains("task `chest`"), "{:?}", room.registry.problems());
    put(&room.plugins(), "a", &kept);
    let room = room.restart();
    assert!(same(&room.registry.plugin(&version).expect("whole again"), &first));
    assert_eq!(room.problem("chest"), "");
}

#[test]
fn two_servers_do_not_share_a_state_and_what_a_killed_one_left_is_swept() {
    let room = room();
    let state = room.folder.path().join("state");
    let open = || Registry::open(RegistryConfig::new(&state), engine(), Arc::new(Metrics::default()), None);
    let error = open().err().expect("refused").to_string();
    assert!(error.contains("another process") && error.contains("state"), "{error}");
    let _folder = room.ended();
    let litter = [state.join(".melo-index"), state.join("plugins/.melo-half")];
    litter.iter().for_each(|path| std::fs::write(path, "half").expect("written"));
    open().expect("opened");
    assert!(litter.iter().all(|path| !path.exists()));
}
