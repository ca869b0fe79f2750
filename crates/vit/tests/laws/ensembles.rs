//! Ensembles of folds: one file, one answer, and members that come out of it as they went in.

use crate::engines::cuda_of;
use crate::tiny;
use crate::variants::{assert_reordered, lora};
use melo_vit::{
    Adapter, Engine, Ensemble, Error, Head, ImageBatch, LoraConfig, Member, MemberRecord, Plugin, PluginInfo,
    PluginRef, Precision, Scope, ScopeConfig, ScopeLimits, Segment, SelfTest, Storage, Target, TaskCard, TaskKind,
};
use std::collections::BTreeMap;
use std::sync::Arc;

const FOLDS: usize = 3;
const CLASSES: usize = 4;

fn engine() -> Arc<dyn Engine> {
    tiny::engine(tiny::checkpoint(&tiny::config(), 1))
}

/// Members of another seed each, and the ensemble of them.
fn members_and_ensemble(engine: &dyn Engine, kind: TaskKind) -> (Vec<Plugin>, Plugin) {
    let member = |seed| tiny::plugin(engine.backbone(), &lora(4, 2.0, &[Target::Q, Target::V]), CLASSES, seed);
    let members: Vec<Plugin> = [5, 17, 40].map(member).to_vec();
    let record = |images: usize| MemberRecord {
        train_images: images,
        val_images: 10,
        split_digest: format!("{images:064x}"),
        metrics: BTreeMap::from([("val_auc_macro".to_owned(), 0.5 + images as f64 / 100.0)]),
    };
    let mut ensemble = members[0].clone();
    let rest = members[1..].iter().map(|of| Member { adapter: of.adapter.clone(), head: of.head.clone() });
    ensemble.further = rest.collect();
    ensemble.card.kind = kind;
    ensemble.card.ensemble = Some(Ensemble { members: [20, 21, 22].map(record).to_vec(), cost: 1.5, shared: None });
    ensemble.card.temperature = if kind.has_probabilities() { 1.5 } else { 1.0 };
    ensemble.finish(engine, Storage::F32).expect("images of this size");
    (members, ensemble)
}

/// What each member says of the test's images, then each image's rows.
fn logits(engine: &dyn Engine, plugin: &Plugin) -> [Vec<f32>; 2] {
    SelfTest::take(engine, plugin).expect("images of this size").logits
}

#[test]
fn a_file_holds_all_members_bit_for_bit() {
    let engine = engine();
    let (members, ensemble) = members_and_ensemble(&*engine, TaskKind::SingleLabel);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ensemble.safetensors");
    ensemble.save(&path, engine.backbone().config(), Storage::F32).unwrap();
    let info = PluginInfo::read(&path).unwrap();
    assert_eq!((info.card.format, info.card.members()), (10, FOLDS));
    assert_eq!(info.parameters(), members.iter().map(Plugin::parameters).sum::<usize>());
    assert!(info.shapes.keys().all(|name| name.starts_with("members.")), "{:?}", info.shapes.keys());
    let read = Plugin::load(&path, engine.backbone()).unwrap();
    for (fold, member) in members.iter().enumerate() {
        let out = folder.path().join(format!("fold_{fold}.safetensors"));
        let card = Plugin::write_member(&path, fold, &out).unwrap();
        assert_eq!((card.ensemble, card.provenance.train_images), (None, 20 + fold));
        let alone = Plugin::load(&out, engine.backbone()).unwrap();
        for of in [&alone, &read.member(fold).unwrap()] {
            assert_eq!((of.adapter.tensors(), of.head.tensors()), (member.adapter.tensors(), member.head.tensors()));
        }
        alone.prove(&*engine).expect("its self-test is its part of the ensemble's");
    }
    read.prove(&*engine).expect("nothing has changed");
    let refused = Plugin::write_member(&path, FOLDS, folder.path().join("none").as_path()).unwrap_err();
    assert!(refused.to_string().contains("has no fold 4: its folds are 1 to 3"), "{refused}");
    let single = folder.path().join("fold_0.safetensors");
    let refused = Plugin::write_member(&single, 0, &folder.path().join("none")).unwrap_err();
    assert!(refused.to_string().contains("is a single plug-in, not an ensemble of folds"), "{refused}");
}

#[test]
fn the_answer_is_the_mean_and_its_spread_the_deviation() {
    let engine = engine();
    for kind in [TaskKind::SingleLabel, TaskKind::MultiLabel, TaskKind::Ordinal, TaskKind::Regression] {
        let (members, ensemble) = members_and_ensemble(&*engine, kind);
        let raw = logits(&*engine, &ensemble);
        let temperature = ensemble.card.temperature;
        let said = members.iter().map(|member| logits(&*engine, member)).collect::<Vec<_>>();
        let bound = ensemble.bind(&*engine).unwrap();
        for (image, raw) in raw.iter().enumerate() {
            let rows: Vec<Vec<f32>> = said.iter().map(|of| of[image].clone()).collect();
            assert_eq!(raw, &rows.concat(), "the members' own logits, one behind the other");
            let decision = bound.decide(raw);
            let outputs = if kind.has_probabilities() { &decision.probabilities } else { &decision.values };
            for class in 0..CLASSES {
                let of_member = |row: &Vec<f32>| {
                    let mut row: Vec<f32> = row.iter().map(|z| z / temperature).collect();
                    kind.probabilities(&mut row);
                    f64::from(row[class])
                };
                let all: Vec<f64> = rows.iter().map(of_member).collect();
                let mean = all.iter().sum::<f64>() / FOLDS as f64;
                let variance = all.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / (FOLDS - 1) as f64;
                assert!((f64::from(outputs[class]) - mean).abs() < 1e-6, "{kind:?}: {} {mean}", outputs[class]);
                assert!((f64::from(decision.spread[class]) - variance.sqrt()).abs() < 1e-6, "{kind:?}");
            }
            // Whoever reads the mean's logits comes to the same answer.
            assert_eq!(bound.decide(&bound.mean_logits(raw.clone())).probabilities, decision.probabilities);
        }
    }
}

#[test]
fn a_member_that_is_another_is_seen() {
    let engine = engine();
    let (_, ensemble) = members_and_ensemble(&*engine, TaskKind::SingleLabel);
    let mut changed = ensemble.clone();
    changed.further[1].adapter.tensors_mut().into_iter().for_each(|tensor| tensor.fill(0.0));
    assert!(matches!(changed.prove(&*engine), Err(Error::SelfTestDiffers { .. })));
    let mut fewer = ensemble;
    fewer.further.pop();
    fewer.card.ensemble.as_mut().unwrap().members.pop();
    assert!(matches!(fewer.prove(&*engine), Err(Error::MeaningChanged { .. })), "its card says other members");
}

#[test]
fn cards_of_ensembles_that_cannot_be_are_refused() {
    let engine = engine();
    let (_, ensemble) = members_and_ensemble(&*engine, TaskKind::SingleLabel);
    let card = ensemble.card;
    card.check().unwrap();
    let refused = |change: &dyn Fn(&mut TaskCard)| {
        let mut card = card.clone();
        change(&mut card);
        card.check().unwrap_err().to_string()
    };
    let of = |card: &mut TaskCard| card.ensemble.clone().unwrap();
    let one = |card: &mut TaskCard| {
        card.ensemble = Some(Ensemble { members: of(card).members[..1].to_vec(), cost: 1.0, shared: None })
    };
    assert!(refused(&one).contains("1 members, expected 2 to 20"));
    assert!(refused(&|card| card.ensemble = Some(Ensemble { cost: f64::NAN, ..of(card) })).contains("cost NaN"));
    assert!(refused(&|card| card.format = 9).contains("format 9 has no field `ensemble`"));
    assert!(refused(&|card| card.self_test = card.of_member(0).unwrap().self_test).contains("12 finite numbers"));
}

#[test]
fn a_file_of_fewer_members_than_its_card_says_is_refused() {
    let engine = engine();
    let (_, ensemble) = members_and_ensemble(&*engine, TaskKind::SingleLabel);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ensemble.safetensors");
    ensemble.save(&path, engine.backbone().config(), Storage::F32).unwrap();
    let mut card = ensemble.card.clone();
    card.self_test = None;
    let of = card.ensemble.as_mut().unwrap();
    let record = of.members[0].clone();
    of.members.push(record);
    let more = folder.path().join("more.safetensors");
    Plugin::replace_card(&path, &card, &more).unwrap();
    match Plugin::load(&more, engine.backbone()) {
        Err(Error::MissingTensor { name, .. }) => assert!(name.starts_with("members.3."), "{name}"),
        other => panic!("{other:?}"),
    }
    card.ensemble.as_mut().unwrap().members.truncate(2);
    Plugin::replace_card(&path, &card, &more).unwrap();
    match Plugin::load(&more, engine.backbone()) {
        Err(Error::UnexpectedTensor { name, .. }) => assert!(name.starts_with("members.2."), "{name}"),
        other => panic!("{other:?}"),
    }
}

/// Members of which the first of two blocks' updates are the same.
fn on_a_base(engine: &dyn Engine) -> Plugin {
    let vit = engine.backbone().config();
    let base = tiny::plugin(engine.backbone(), &lora(4, 2.0, &[Target::Q, Target::V]), CLASSES, 3);
    let late = LoraConfig { blocks: vec![vit.depth - 1], ..lora(2, 6.0, &[Target::Q, Target::V]) };
    let member = |seed| {
        let adapter = base.adapter.beside(&Adapter::random(&late, vit, seed), vit);
        Member { adapter, head: Head::random(CLASSES, vit.feature_width(), seed) }
    };
    let [first, rest @ ..] = [11, 12, 13].map(member);
    let mut plugin = base.clone();
    (plugin.card.lora, plugin.adapter, plugin.head) = (first.adapter.config.clone(), first.adapter, first.head);
    plugin.further = rest.to_vec();
    let record =
        MemberRecord { train_images: 20, val_images: 10, split_digest: "0".repeat(64), metrics: BTreeMap::new() };
    plugin.card.ensemble = Some(Ensemble { members: vec![record; FOLDS], cost: 1.5, shared: Some(vit.depth - 1) });
    plugin.finish(engine, Storage::F32).expect("images of this size");
    plugin
}

/// Every member's updates of its own, none shared with another's.
fn apart(plugin: &Plugin) -> Plugin {
    let mut apart = plugin.clone();
    let further = apart.further.iter_mut().map(|member| &mut member.adapter);
    for adapter in further.chain([&mut apart.adapter]) {
        adapter.tensors_mut();
    }
    apart
}

#[test]
fn blocks_that_members_share_are_computed_once_and_change_no_bit() {
    // In bf16, and on a GPU, a row is the same in any company; on the processor in f32 sums may be in another order.
    for precision in [Precision::Bf16, Precision::F32] {
        let checkpoint = tiny::checkpoint(&tiny::config(), 1);
        let engine = tiny::engine_of(checkpoint.clone(), precision, 2, 8);
        let plugin = on_a_base(&*engine);
        let depth = engine.backbone().config().depth;
        assert!(plugin.further.iter().all(|member| member.adapter.shared_with(&plugin.adapter) == depth - 1));
        let alone = apart(&plugin);
        assert!(alone.further.iter().all(|member| member.adapter.shared_with(&alone.adapter) == 0));
        let mut scaled = plugin.adapter.clone();
        scaled.config.alpha *= 2.0;
        assert_eq!(scaled.shared_with(&plugin.adapter), 0, "the same updates at another scale");
        let other = tiny::plugin(engine.backbone(), &lora(4, 2.0, &[Target::K]), CLASSES, 8);
        let images = ImageBatch::random(3, plugin.card.preprocess.size, 1);
        let forward = |engine: &dyn Engine, plugin: &Plugin, kept: &[usize]| -> Vec<Vec<f32>> {
            let members: Vec<PluginRef<'_>> = plugin.members().collect();
            let plugins = [&members[..], &[PluginRef::from(&other)], &members[..2]].concat();
            let segments = [Segment { images: 0..2, plugins: plugins.clone() }, Segment { images: 2..3, plugins }];
            let said = engine.forward_intermediates(&images, images.size, &segments, kept);
            said.expect("images of this size").concat()
        };
        let all: Vec<usize> = (0..depth).collect();
        for engine in [engine].into_iter().chain(cuda_of(&checkpoint, precision, 8)) {
            for kept in [&[][..], &all[..1], &all[..]] {
                let [together, apart] = [&plugin, &alone].map(|plugin| forward(&*engine, plugin, kept));
                let what = format!("{precision} on {}, {kept:?}", engine.info().engine);
                match precision {
                    Precision::F32 if engine.info().engine == "cpu" => {
                        assert_reordered(&together.concat(), &apart.concat(), &what);
                    }
                    _ => assert_eq!(together, apart, "{what}"),
                }
            }
        }
    }
}

#[test]
fn shared_blocks_are_in_the_file_once_and_in_every_member_s_own() {
    let engine = engine();
    let plugin = on_a_base(&*engine);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ensemble.safetensors");
    plugin.save(&path, engine.backbone().config(), Storage::F32).unwrap();
    let info = PluginInfo::read(&path).unwrap();
    assert_eq!((info.card.format, info.card.shared_blocks()), (11, engine.backbone().config().depth - 1));
    assert!(info.shapes.contains_key("members.0.blocks.0.q.lora_a"));
    assert!(!info.shapes.contains_key("members.1.blocks.0.q.lora_a"));
    assert_eq!(info.parameters(), plugin.parameters());
    let read = Plugin::load(&path, engine.backbone()).unwrap();
    assert!(read.further.iter().all(|member| member.adapter.shared_with(&read.adapter) == info.card.shared_blocks()));
    assert_eq!(logits(&*engine, &read), logits(&*engine, &plugin));
    for fold in 0..FOLDS {
        let out = folder.path().join(format!("fold_{fold}.safetensors"));
        assert!(Plugin::write_member(&path, fold, &out).unwrap().format_written() < 10);
        let alone = Plugin::load(&out, engine.backbone()).unwrap();
        assert_eq!(alone.adapter, plugin.members().nth(fold).unwrap().adapter.unwrap().clone());
    }
}

#[test]
fn the_scope_is_of_all_members_and_of_blocks_that_they_share_alone() {
    let engine = engine();
    let mut plugin = on_a_base(&*engine);
    let vit = engine.backbone().config();
    let config = ScopeConfig { blocks: vec![0], dimensions: 2, points: 3, neighbour: 1 };
    let mut scope = Scope::zeros(&config, vit);
    scope.points.fill(0.5);
    plugin.scope = Some(scope);
    plugin.card.scope = Some(config.clone());
    plugin.card.scope_limits = Some(ScopeLimits { false_alarms: 0.05, limits: Some([1.0, 2.0]), patients: 20 });
    plugin.finish(&*engine, Storage::F32).expect("images of this size");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ensemble.safetensors");
    plugin.save(&path, vit, Storage::F32).unwrap();
    let info = PluginInfo::read(&path).unwrap();
    assert_eq!((info.card.format, info.parameters()), (12, plugin.parameters()));
    assert!(info.shapes.contains_key("scope.points") && !info.shapes.contains_key("members.0.scope.points"));
    let read = Plugin::load(&path, engine.backbone()).unwrap();
    assert_eq!(read.scope, plugin.scope);
    read.prove(&*engine).expect("nothing has changed");
    for fold in 0..FOLDS {
        let out = folder.path().join(format!("fold_{fold}.safetensors"));
        assert_eq!(Plugin::write_member(&path, fold, &out).unwrap().format_written(), 10);
        for alone in [Plugin::load(&out, engine.backbone()).unwrap(), plugin.member(fold).unwrap()] {
            assert_eq!((&alone.scope, &alone.card.scope_limits), (&plugin.scope, &plugin.card.scope_limits));
            alone.prove(&*engine).expect("its self-test is its part of the ensemble's");
        }
    }
    let refused = |change: &dyn Fn(&mut TaskCard)| {
        let mut card = plugin.card.clone();
        change(&mut card);
        card.check().unwrap_err().to_string()
    };
    let last = ScopeConfig { blocks: vec![0, vit.depth - 1], ..config.clone() };
    assert!(
        refused(&|card| card.scope = Some(last.clone())).contains("block 1, where the members of the ensemble differ")
    );
    assert!(refused(&|card| card.ensemble.as_mut().unwrap().shared = None).contains("block 0, where the members"));
    assert!(refused(&|card| card.format = 11).contains("format 11 has no field `scope of an ensemble`"));
}

#[test]
fn updates_beside_one_another_are_their_sum() {
    let engine = engine();
    let vit = engine.backbone().config();
    let (targets, size) = ([Target::Q, Target::V], engine.backbone().preprocess().size);
    let base = Adapter::random(&lora(4, 2.0, &targets), vit, 1);
    let late = Adapter::random(&LoraConfig { blocks: vec![vit.depth - 1], ..lora(2, 6.0, &targets) }, vit, 2);
    let both = base.beside(&late, vit);
    assert_eq!((both.config.rank_of(vit.depth - 1), both.config.rank_of(0)), (6, 4));
    let head = Head::random(CLASSES, vit.feature_width(), 3);
    let images = ImageBatch::random(2, size, 4);
    let said = |engine: &dyn Engine, adapter: &Adapter| {
        let plugins = vec![PluginRef { adapter: Some(adapter), head: &head }];
        engine.forward(&images, size, &[Segment { images: 0..2, plugins }]).expect("images of this size")
    };
    let mut merged = tiny::checkpoint(&tiny::config(), 1);
    base.merge_into(&mut merged.weights, vit);
    let on_base = tiny::engine(merged);
    for (a, b) in said(&*engine, &both)[0][0].iter().zip(&said(&*on_base, &late)[0][0]) {
        assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{a}, merged {b}");
    }
}
