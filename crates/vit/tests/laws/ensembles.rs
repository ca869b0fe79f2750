//! Ensembles of folds: one file, one answer, and members that come out of it as they went in.

use crate::tiny;
use crate::variants::lora;
use melo_vit::{
    Engine, Ensemble, Error, Member, MemberRecord, Plugin, PluginInfo, SelfTest, Storage, Target, TaskCard, TaskKind,
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
    ensemble.card.ensemble = Some(Ensemble { members: [20, 21, 22].map(record).to_vec(), cost: 1.5 });
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
    let one =
        |card: &mut TaskCard| card.ensemble = Some(Ensemble { members: of(card).members[..1].to_vec(), cost: 1.0 });
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
