//! The queue: bounds, batches, drains, and answers that are those of each request alone.

use crate::common::{self, CLOSE, engine, expected, image, plugin};
use melo_predict::{Input, Predictor, Prepared};
use melo_serve::{Asked, BatchConfig, BatchQueue, Metrics, Refusal};
use melo_vit::{BoundPlugin, Engine, Precision};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn queue(config: BatchConfig) -> (BatchQueue, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    (BatchQueue::start(Predictor::new(engine()), config, Arc::clone(&metrics)).expect("the batcher starts"), metrics)
}

/// Plug-ins of one task, each another version.
fn versions(engine: &dyn Engine) -> Vec<Arc<BoundPlugin>> {
    (0..5).map(|seed| Arc::new(plugin(engine, "task", seed).prove(engine).expect("it is at home"))).collect()
}

fn input(plugins: &[Arc<BoundPlugin>], seed: u64) -> Input {
    let specs: Vec<_> = plugins.iter().map(|plugin| &plugin.card.preprocess).collect();
    let prepared = Prepared::of_bytes(&image(seed), Path::new("image"), &specs, false).expect("the image is read");
    prepared.asking(plugins).0.swap_remove(0)
}

fn asked(plugins: &[Arc<BoundPlugin>], seed: u64) -> Asked {
    Asked { inputs: vec![input(plugins, seed)], bags: Vec::new() }
}

fn probabilities(plugin: &BoundPlugin, logits: &[f32]) -> Vec<f32> {
    plugin.decide(logits).probabilities
}

#[test]
#[should_panic(expected = "bound to another engine")]
fn a_plugin_that_is_bound_to_another_engine_is_no_input() {
    let plugins = versions(&*engine());
    let other = common::tiny::engine_of(common::tiny::checkpoint(&common::tiny::config(), 7), Precision::Bf16, 1, 1);
    let _ = Predictor::new(other).infer(&[&input(&plugins, 1)]);
}

#[test]
fn answers_in_a_mixed_batch_are_those_of_each_image_and_task_alone() {
    let engine = engine();
    let (queue, _) = queue(common::batches());
    let plugins = versions(&*engine);
    let jobs: Vec<_> = (0..12_u64)
        .map(|seed| {
            let own: Vec<Arc<BoundPlugin>> = plugins.iter().skip(seed as usize % 5).cloned().collect();
            let receiver = queue.admit("ris", own.len()).expect("there is room").submit(asked(&own, seed));
            (seed, own, receiver)
        })
        .collect();
    for (seed, own, receiver) in jobs {
        let given = receiver.blocking_recv().expect("an answer").expect("logits").given;
        for (plugin, given) in own.iter().zip(&given[0]) {
            common::assert_close(
                &probabilities(plugin, &given.logits),
                &expected(&engine, plugin, &image(seed)),
                "logits",
            );
        }
    }
    assert_eq!(queue.load(), 0);
}

#[test]
fn a_full_queue_refuses_at_once_and_has_room_again_when_permits_go() {
    let (queue, _) = queue(BatchConfig { queue: 3, ..common::batches() });
    let first = queue.admit("ris", 2).expect("there is room");
    let Err(Refusal::Full(wait)) = queue.admit("pacs", 2) else { panic!("more than the queue holds") };
    assert!((1..=60).contains(&wait.as_secs()), "{wait:?}");
    assert!(matches!(queue.admit("ris", 2), Err(Refusal::Busy(_))), "who holds most of it is refused for that");
    drop(queue.admit("pacs", 1).expect("there is room for one"));
    drop(first);
    drop(queue.admit("ris", 3).expect("all the room is back"));
    drop(queue.admit("ris", 100).expect("an empty queue takes a request of any size"));
}

#[test]
fn who_is_answered_has_room_for_the_next_request() {
    let engine = engine();
    let (queue, _) = queue(BatchConfig { queue: 1, ..common::batches() });
    let plugins = &versions(&*engine)[..1];
    for _ in 0..100 {
        let answer = queue.admit("ris", 1).expect("there is room").submit(asked(plugins, 1));
        answer.blocking_recv().expect("an answer").expect("logits");
    }
}

#[test]
fn who_comes_has_a_place_beside_one_who_holds_all_the_room() {
    let (queue, _) = queue(BatchConfig { queue: 64, ..common::batches() });
    let held = |caller: &str| std::iter::from_fn(|| queue.admit(caller, 1).ok()).collect::<Vec<_>>();
    let one = held("one");
    assert_eq!(one.len(), 64, "alone all");
    assert!(queue.admit("two", 9).is_err(), "an eighth is there for others");
    let mut two = held("two");
    assert_eq!(two.len(), 1);
    // As the answers of one come, two has what one had too much.
    let (mut one, mut most) = (one, 0);
    while one.pop().is_some() {
        assert!(one.len() < 50 || queue.admit("one", 1).is_err(), "{} and {}", one.len(), two.len());
        two.extend(held("two"));
        most = most.max(one.len().min(two.len()));
        assert!(queue.admit("three", 1).is_ok(), "{} and {}", one.len(), two.len());
    }
    assert!(most >= 28, "nearly half each on the way: {most}");
    drop(one);
    // A request that is larger than a share, where nothing else waits.
    drop(two);
    let whole = queue.admit("one", 1000).expect("an empty queue takes a request of any size");
    assert!(queue.admit("one", 1).is_err() && queue.admit("two", 9).is_err());
    let place = queue.admit("two", 8).expect("an eighth is left for others");
    drop((whole, place));
    assert_eq!(queue.load(), 0);
}

#[test]
fn work_whose_caller_went_away_is_not_computed() {
    let engine = engine();
    let (queue, metrics) = queue(BatchConfig { max_wait: Duration::from_millis(200), ..common::batches() });
    let plugins = [Arc::new(plugin(&*engine, "task", 1).prove(&*engine).expect("it is at home"))];
    // A permit that is not used keeps the batch open.
    let other = queue.admit("ris", 1).expect("there is room");
    let abandoned = queue.admit("ris", 1).expect("there is room").submit(asked(&plugins, 1));
    let kept = queue.admit("ris", 1).expect("there is room").submit(asked(&plugins, 2));
    drop(abandoned);
    kept.blocking_recv().expect("an answer").expect("logits");
    drop(other);
    let text = metrics.text(0);
    assert!(text.contains("melo_abandoned_total 1"), "{text}");
    assert!(text.contains("melo_batch_rows_sum 1"), "{text}");
}

#[test]
fn draining_answers_what_was_admitted_and_nothing_more() {
    let engine = engine();
    let (queue, _) = queue(common::batches());
    let plugins = [Arc::new(plugin(&*engine, "task", 1).prove(&*engine).expect("it is at home"))];
    let early = queue.admit("ris", 1).expect("there is room").submit(asked(&plugins, 1));
    let decoding = queue.admit("ris", 1).expect("there is room");
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| queue.drain());
        common::until("the queue closes", || queue.admit("ris", 1).is_err());
        assert_eq!(queue.admit("ris", 1).err(), Some(Refusal::Stopping));
        // What was admitted before may still be submitted.
        let late = decoding.submit(asked(&plugins, 2));
        for receiver in [early, late] {
            receiver.blocking_recv().expect("an answer").expect("logits");
        }
        drained.join().expect("the queue drains");
    });
}

#[test]
fn a_request_larger_than_a_batch_is_computed() {
    let engine = engine();
    let (queue, _) = queue(BatchConfig { max_batch: 2, ..common::batches() });
    let plugins = versions(&*engine);
    let receiver = queue.admit("ris", 5).expect("there is room").submit(asked(&plugins, 3));
    let given = receiver.blocking_recv().expect("an answer").expect("logits").given;
    assert_eq!(given[0].len(), 5);
    let found = probabilities(&plugins[4], &given[0][4].logits);
    let wanted = expected(&engine, &plugins[4], &image(3));
    assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= CLOSE), "{found:?} {wanted:?}");
}

#[test]
fn a_batch_of_nothing_is_refused_as_a_setting() {
    let config = BatchConfig { max_batch: 0, ..common::batches() };
    assert!(BatchQueue::start(Predictor::new(engine()), config, Arc::new(Metrics::default())).is_err());
}
