//! A self-test passes where nothing has changed, and fails on all that may go wrong unseen.

use crate::tiny;
use crate::variants::{lora, variants};
use melo_vit::{
    Engine, Error, LoraConfig, Plugin, PluginInfo, Precision, SelfTest, Storage, Target, TaskCard, TaskKind, hex,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

fn engine(precision: Precision, seed: u64) -> Arc<dyn Engine> {
    tiny::engine_of(tiny::checkpoint(&tiny::config(), seed), precision, 2, 2)
}

fn engines() -> [Arc<dyn Engine>; 4] {
    Precision::ALL.map(|precision| engine(precision, 1))
}

/// A plug-in whose adapter moves the outputs by a few tenths of them, as trained ones do.
fn finished(engine: &dyn Engine) -> Plugin {
    let mut plugin = tiny::plugin(engine.backbone(), &lora(4, 2.0, &[Target::Q, Target::V]), 3, 2);
    plugin.card.self_test = Some(SelfTest::take(engine, &plugin).expect("images of this size"));
    plugin
}

fn differs(plugin: &Plugin, engine: &dyn Engine) -> (&'static str, f32) {
    match plugin.self_test(engine) {
        Err(Error::SelfTestDiffers { part, expected, found, .. }) => (part, (expected - found).abs()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_images_are_those_of_the_specification() {
    let images = SelfTest::images(20);
    assert_eq!((images.size, images.len()), (20, 2));
    let at = |image: usize, channel: usize, y: usize, x: usize| images.data[((image * 3 + channel) * 20 + y) * 20 + x];
    // Computed from docs/plugin-format.md by other software.
    let places = [(0, 0, 0, 0), (0, 0, 7, 7), (0, 0, 0, 8), (0, 0, 8, 0), (0, 1, 0, 0), (1, 0, 0, 0), (1, 2, 19, 19)];
    assert_eq!(
        places.map(|(image, channel, y, x)| at(image, channel, y, x)),
        [-2.0, -2.0, -0.734375, -1.609375, -0.28125, 1.578125, -0.375]
    );
    assert!(images.data.iter().all(|x| (-2.0..2.0).contains(x)));
}

#[test]
fn it_passes_where_nothing_has_changed() {
    for (what, config) in variants() {
        let engine = tiny::engine(tiny::checkpoint(&config, 1));
        for rank in [0, 4] {
            let mut plugin = tiny::plugin(engine.backbone(), &lora(rank, 2.0, &Target::ALL), 3, 2);
            plugin.card.self_test = Some(SelfTest::take(&*engine, &plugin).expect("images of this size"));
            plugin.self_test(&*engine).unwrap_or_else(|error| panic!("{what}, rank {rank}: {error}"));
        }
    }
    let engines = engines();
    for (taken, precision) in engines.iter().zip(Precision::ALL) {
        let plugin = finished(&**taken);
        let test = plugin.card.self_test.as_ref().expect("just taken");
        assert_eq!((test.engine.as_str(), test.precision), ("cpu", precision));
        for run in &engines {
            plugin.self_test(&**run).unwrap_or_else(|error| panic!("{precision}, {:?}: {error}", run.info()));
        }
    }
}

#[test]
fn a_scale_that_is_off_by_5_percent_is_seen() {
    let [engine, ..] = engines();
    let mut plugin = finished(&*engine);
    plugin.adapter.config.alpha *= 1.05;
    assert_eq!(differs(&plugin, &*engine).0, "with");
}

#[test]
fn every_matrix_that_is_zero_is_seen() {
    let [engine, ..] = engines();
    let plugin = finished(&*engine);
    for at in 0..plugin.adapter.tensors().len() {
        let mut plugin = plugin.clone();
        plugin.adapter.tensors_mut()[at].fill(0.0);
        assert_eq!(differs(&plugin, &*engine).0, "with", "matrix {at}");
    }
}

#[test]
fn a_bias_is_seen_from_the_tolerance_on() {
    let engines = engines();
    for (taken, run, share) in [(0, 0, 1e-4), (2, 2, 1e-4), (0, 2, 1e-4), (1, 1, 5e-2)] {
        let plugin = finished(&*engines[taken]);
        let test = plugin.card.self_test.as_ref().expect("just taken");
        let all = test.logits.iter().chain(&test.bare_logits).flatten();
        let tolerance = share * all.fold(0f32, |most, x| most.max(x.abs()));
        let shifted = |by: f32| {
            let mut plugin = plugin.clone();
            plugin.head.bias[1] += by;
            plugin
        };
        shifted(0.9 * tolerance).self_test(&*engines[run]).expect("less than is allowed");
        assert!(differs(&shifted(1.1 * tolerance), &*engines[run]).1 > tolerance);
    }
}

#[test]
fn an_unknown_engine_is_held_to_what_processors_are() {
    let engines = engines();
    for (taken, share) in [(0, 1e-4), (1, 5e-2), (2, 1e-4)] {
        let mut plugin = finished(&*engines[taken]);
        let test = plugin.card.self_test.as_mut().expect("just taken");
        test.engine = "abacus".to_owned();
        let all = test.logits.iter().chain(&test.bare_logits).flatten();
        let tolerance = share * all.fold(0f32, |most, x| most.max(x.abs()));
        let bias = plugin.head.bias[1];
        plugin.head.bias[1] = bias + 0.9 * tolerance;
        plugin.self_test(&*engines[taken]).expect("less than is allowed");
        plugin.head.bias[1] = bias + 1.1 * tolerance;
        assert!(differs(&plugin, &*engines[taken]).1 > tolerance);
    }
}

#[test]
fn in_a_card_an_engine_is_named_unless_it_is_the_processor() {
    let test = |engine: &str| SelfTest {
        engine: engine.to_owned(),
        precision: Precision::Bf16x3,
        logits: [vec![0.5, 1.0], vec![2.0, -3.0]],
        bare_logits: [vec![0.25, 1.0], vec![2.0, -3.5]],
        meaning: BTreeMap::new(),
    };
    // What a processor writes is what was written before engines were told apart.
    let rest = r#""precision":"bf16x3","logits":[[0.5,1.0],[2.0,-3.0]],"bare_logits":[[0.25,1.0],[2.0,-3.5]]}"#;
    for (engine, json) in [("cpu", format!("{{{rest}")), ("abacus", format!(r#"{{"engine":"abacus",{rest}"#))] {
        assert_eq!(serde_json::to_string(&test(engine)).expect("plain data"), json);
        assert_eq!(serde_json::from_str::<SelfTest>(&json).expect("what was written"), test(engine));
    }
    let named = format!(r#"{{"engine":"cpu",{rest}"#);
    assert_eq!(serde_json::from_str::<SelfTest>(&named).expect("the same, said"), test("cpu"));
}

#[test]
fn another_backbone_is_seen_in_every_precision() {
    for (taken, precision) in engines().iter().zip(Precision::ALL) {
        let plugin = finished(&**taken);
        plugin.self_test(&*engine(precision, 2)).expect_err("other weights");
        let mut nearly = tiny::checkpoint(&tiny::config(), 1);
        nearly.weights.tensors_mut().into_iter().flatten().for_each(|x| *x *= 1.2);
        let nearly = tiny::engine_of(nearly, precision, 2, 2);
        plugin.self_test(&*nearly).expect_err("scaled weights");
    }
}

#[test]
fn an_adapter_that_does_nothing_is_inactive_in_every_precision() {
    for engine in &engines() {
        let engine = &**engine;
        let idle = |plugin: &Plugin| match plugin.self_test(engine) {
            Err(Error::AdapterInactive { expected, found, .. }) => (expected, found),
            other => panic!("{other:?}"),
        };
        let mut plugin = finished(engine);
        plugin.adapter.tensors_mut().into_iter().for_each(|values| values.fill(0.0));
        let (expected, found) = idle(&plugin);
        assert!(expected > 0.0 && found == 0.0, "{expected}, {found}");
        // A card that promises an adapter, and a test that was taken of one that had none already.
        plugin.card.self_test = Some(SelfTest::take(engine, &plugin).expect("images of this size"));
        assert_eq!(idle(&plugin), (0.0, 0.0));
    }
}

#[test]
fn without_a_self_test_the_error_names_the_task() {
    let [engine, ..] = engines();
    let mut plugin = finished(&*engine);
    plugin.card.self_test = None;
    let error = plugin.self_test(&*engine).expect_err("no self-test");
    assert!(matches!(error, Error::NoSelfTest { .. }));
    assert!(error.to_string().contains(&plugin.card.task), "{error}");
}

#[test]
fn it_is_taken_of_the_numbers_that_the_file_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("task.safetensors");
    let [engine, ..] = engines();
    for storage in [Storage::F32, Storage::F16] {
        let mut plugin = tiny::plugin(engine.backbone(), &lora(4, 2.0, &Target::ALL), 3, 2);
        plugin.finish(&*engine, storage).expect("images of this size");
        plugin.save(&path, engine.backbone().config(), storage).expect("a folder to write to");
        let loaded = Plugin::load(&path, engine.backbone()).expect("what was saved");
        assert_eq!(loaded.card.self_test, Some(SelfTest::take(&*engine, &loaded).expect("images of this size")));
        loaded.self_test(&*engine).expect("the same numbers");
    }
}

#[test]
fn another_card_leaves_the_tensors_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
    let [engine, ..] = engines();
    for storage in [Storage::F32, Storage::F16] {
        let plugin = tiny::plugin(engine.backbone(), &lora(4, 2.0, &Target::ALL), 3, 2);
        plugin.save(&from, engine.backbone().config(), storage).expect("a folder to write to");
        let card = TaskCard { task: "renamed".into(), format: 1, ..plugin.card.clone() };
        Plugin::replace_card(&from, &card, &to).expect("a folder to write to");
        let [old, new] = [&from, &to].map(|path| Plugin::load(path, engine.backbone()).expect("what was written"));
        assert_eq!((&new.adapter, &new.head), (&old.adapter, &old.head));
        assert_eq!(new.card, TaskCard { task: "renamed".into(), ..old.card });
        assert!(
            PluginInfo::read(&to).expect("what was written").bytes.abs_diff(std::fs::read(&from).unwrap().len()) < 16
        );
        let broken = TaskCard { temperature: -1.0, ..plugin.card.clone() };
        Plugin::replace_card(&from, &broken, &from).expect_err("a card that cannot be read back");
        Plugin::load(&from, engine.backbone()).expect("the file as it was");
    }
}

/// A card that was edited by hand: each of these would give other answers for the same logits.
#[test]
fn a_card_whose_meaning_was_changed_after_its_test_is_refused_by_field() {
    type Edit = fn(&mut TaskCard);
    let edits: [(&str, Edit); 6] = [
        ("classes", |card| card.classes.reverse()),
        ("temperature", |card| card.temperature = 0.01),
        ("thresholds", |card| card.thresholds[0] = 0.99),
        ("preprocess", |card| card.preprocess.mean[0] += 0.1),
        ("kind", |card| {
            card.kind = match card.kind {
                TaskKind::MultiLabel => TaskKind::SingleLabel,
                _ => TaskKind::MultiLabel,
            }
        }),
        ("classes, temperature", |card| {
            card.classes.reverse();
            card.temperature = 2.0;
        }),
    ];
    let engine = tiny::engine(tiny::checkpoint(&tiny::config(), 7));
    let mut plugin = tiny::plugin(engine.backbone(), &lora(4, 2.0, &[Target::Q, Target::V]), 3, 5);
    plugin.finish(&*engine, Storage::F32).expect("images of this size");
    assert_eq!(plugin.card.format_written(), 8);
    plugin.clone().prove(&*engine).expect("it is what it was");
    for (fields, edit) in edits {
        let mut edited = plugin.clone();
        edit(&mut edited.card);
        for refused in [
            edited.clone().bind(&*engine).err(),
            edited.clone().prove(&*engine).err(),
            edited.self_test(&*engine).err(),
        ] {
            let error = refused.unwrap_or_else(|| panic!("{fields} may change"));
            let Error::MeaningChanged { fields: found, .. } = &error else { panic!("{fields}: {error}") };
            assert_eq!(found.join(", "), fields);
        }
        // Cards from before know nothing of it.
        edited.card.self_test.as_mut().expect("it has one").meaning.clear();
        edited.bind(&*engine).expect("an old card");
    }
}

/// What stands in files must not change with the program that reads them.
#[test]
fn the_digests_of_a_meaning_are_those_of_compact_json() {
    let engine = tiny::engine(tiny::checkpoint(&tiny::config(), 7));
    let mut plugin = tiny::plugin(engine.backbone(), &LoraConfig::none(), 2, 5);
    plugin.card.classes = vec!["mass".to_owned(), "no mass".to_owned()];
    plugin.card.temperature = 1.25;
    plugin.card.thresholds = vec![0.5, 0.1];
    let meaning = SelfTest::take(&*engine, &plugin).expect("images of this size").meaning;
    for (field, json) in [("classes", r#"["mass","no mass"]"#), ("temperature", "1.25"), ("thresholds", "[0.5,0.1]")] {
        assert_eq!(meaning[field], hex(&Sha256::digest(json))[..16], "{field}");
    }
}
