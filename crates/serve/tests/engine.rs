//! The engine room: bounds, batches, drains, and answers that are those of each request alone.

mod common;

use common::{CLOSE, backbone, expected, image, plugin};
use melo_imaging::prepare_all;
use melo_serve::{Engine, EngineConfig, Input, Metrics, Refusal};
use melo_vit::Plugin;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn engine(config: EngineConfig) -> (Engine, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    (Engine::start(Arc::new(backbone()), config, Arc::clone(&metrics)).expect("the engine starts"), metrics)
}

fn input(plugins: &[Arc<Plugin>], seed: u64) -> Input {
    let spec = &plugins[0].card.preprocess;
    let pixels = prepare_all(&image(seed), Path::new("image"), &[spec]).expect("the image is read");
    Input { size: spec.size, pixels: Arc::clone(&pixels[0]), plugins: plugins.to_vec() }
}

fn probabilities(plugin: &Plugin, logits: &[f32]) -> Vec<f32> {
    let mut values = logits.to_vec();
    plugin.card.probabilities(&mut values);
    values
}

#[test]
fn answers_in_a_mixed_batch_are_those_of_each_image_and_task_alone() {
    let backbone = backbone();
    let (engine, _) = engine(common::engine_config());
    let plugins: Vec<Arc<Plugin>> = (0..5).map(|seed| Arc::new(plugin(&backbone, "task", seed))).collect();
    let jobs: Vec<_> = (0..12_u64)
        .map(|seed| {
            let own: Vec<Arc<Plugin>> = plugins.iter().skip(seed as usize % 5).cloned().collect();
            let receiver = engine.admit(own.len()).expect("there is room").submit(vec![input(&own, seed)]);
            (seed, own, receiver)
        })
        .collect();
    for (seed, own, receiver) in jobs {
        let logits = receiver.blocking_recv().expect("an answer").expect("logits");
        for (plugin, logits) in own.iter().zip(&logits[0]) {
            common::assert_close(&probabilities(plugin, logits), &expected(&backbone, plugin, &image(seed)), "logits");
        }
    }
    assert_eq!(engine.load(), 0);
}

#[test]
fn a_full_queue_refuses_at_once_and_has_room_again_when_permits_go() {
    let (engine, _) = engine(EngineConfig { queue: 3, ..common::engine_config() });
    let first = engine.admit(2).expect("there is room");
    let Err(Refusal::Busy(wait)) = engine.admit(2) else { panic!("more than the queue holds") };
    assert!((1..=60).contains(&wait.as_secs()), "{wait:?}");
    drop(engine.admit(1).expect("there is room for one"));
    drop(first);
    drop(engine.admit(3).expect("all the room is back"));
    drop(engine.admit(100).expect("an empty queue takes a request of any size"));
}

#[test]
fn work_whose_caller_went_away_is_not_computed() {
    let backbone = backbone();
    let (engine, metrics) = engine(EngineConfig { max_wait: Duration::from_millis(200), ..common::engine_config() });
    let plugins = [Arc::new(plugin(&backbone, "task", 1))];
    // A permit that is not used keeps the batch open.
    let other = engine.admit(1).expect("there is room");
    let abandoned = engine.admit(1).expect("there is room").submit(vec![input(&plugins, 1)]);
    let kept = engine.admit(1).expect("there is room").submit(vec![input(&plugins, 2)]);
    drop(abandoned);
    kept.blocking_recv().expect("an answer").expect("logits");
    drop(other);
    let text = metrics.text(0);
    assert!(text.contains("melo_abandoned_total 1"), "{text}");
    assert!(text.contains("melo_batch_rows_sum 1"), "{text}");
}

#[test]
fn draining_answers_what_was_admitted_and_nothing_more() {
    let backbone = backbone();
    let (engine, _) = engine(common::engine_config());
    let plugins = [Arc::new(plugin(&backbone, "task", 1))];
    let early = engine.admit(1).expect("there is room").submit(vec![input(&plugins, 1)]);
    let decoding = engine.admit(1).expect("there is room");
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| engine.drain());
        common::until("the engine closes", || engine.admit(1).is_err());
        assert_eq!(engine.admit(1).err(), Some(Refusal::Stopping));
        // What was admitted before may still be submitted.
        let late = decoding.submit(vec![input(&plugins, 2)]);
        for receiver in [early, late] {
            receiver.blocking_recv().expect("an answer").expect("logits");
        }
        drained.join().expect("the engine drains");
    });
}

#[test]
fn a_request_larger_than_a_batch_is_computed() {
    let backbone = backbone();
    let (engine, _) = engine(EngineConfig { max_batch: 2, ..common::engine_config() });
    let plugins: Vec<Arc<Plugin>> = (0..5).map(|seed| Arc::new(plugin(&backbone, "task", seed))).collect();
    let receiver = engine.admit(5).expect("there is room").submit(vec![input(&plugins, 3)]);
    let logits = receiver.blocking_recv().expect("an answer").expect("logits");
    assert_eq!(logits[0].len(), 5);
    let found = probabilities(&plugins[4], &logits[0][4]);
    let wanted = expected(&backbone, &plugins[4], &image(3));
    assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= CLOSE), "{found:?} {wanted:?}");
}

#[test]
fn a_batch_of_nothing_is_refused_as_a_setting() {
    let config = EngineConfig { max_batch: 0, ..common::engine_config() };
    assert!(Engine::start(Arc::new(backbone()), config, Arc::new(Metrics::default())).is_err());
}
