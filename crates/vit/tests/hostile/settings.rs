//! Low-rank settings asked for by a program rather than a file.

use crate::tiny;
use melo_vit::{Adapter, Backbone, Error, ImageBatch, LoraConfig, Target, Workspace};

fn settings() -> LoraConfig {
    LoraConfig { rank: 4, alpha: 2.0, targets: vec![Target::Q, Target::V], blocks: vec![0, 1] }
}

fn assert_refused(lora: LoraConfig, word: &str) {
    match lora.check(&tiny::config()) {
        Err(Error::Lora(reason)) => assert!(reason.contains(word), "`{reason}` does not say `{word}`"),
        other => panic!("{lora:?} gives {other:?}"),
    }
}

#[test]
fn alpha_is_positive_and_finite() {
    for alpha in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_refused(LoraConfig { alpha, ..settings() }, "alpha");
    }
}

#[test]
fn rank_is_at_most_the_width() {
    assert_refused(LoraConfig { rank: 17, ..settings() }, "rank 17");
    assert!(LoraConfig { rank: 16, ..settings() }.check(&tiny::config()).is_ok());
}

#[test]
fn blocks_exist_and_ascend() {
    assert_refused(LoraConfig { blocks: vec![0, 2], ..settings() }, "block 2");
    assert_refused(LoraConfig { blocks: vec![1, 0], ..settings() }, "out of order");
    assert_refused(LoraConfig { blocks: vec![0, 0], ..settings() }, "repeat");
    assert_refused(LoraConfig { blocks: vec![], ..settings() }, "no block");
}

#[test]
fn targets_ascend() {
    assert_refused(LoraConfig { targets: vec![Target::V, Target::Q], ..settings() }, "out of order");
    assert_refused(LoraConfig { targets: vec![Target::Q, Target::Q], ..settings() }, "repeat");
    assert_refused(LoraConfig { targets: vec![], ..settings() }, "no target");
}

#[test]
fn alpha_below_the_rank_is_accepted_and_active() {
    let backbone = Backbone::new(tiny::checkpoint(&tiny::config(), 1));
    let head = tiny::head(2, &backbone.config, 3);
    let batch = ImageBatch { size: 12, data: (0..3 * 12 * 12).map(|i| (i as f32).sin()).collect() };
    let logits = |adapter: Option<&Adapter>| {
        backbone.forward_with(&batch, (1, 12), (adapter, &head), &Workspace::default()).unwrap()
    };
    let bare = logits(None);
    for alpha in [0.5, 1.0, 3.999] {
        let lora = LoraConfig { alpha, ..settings() };
        lora.check(&backbone.config).unwrap();
        assert_eq!(lora.scale(), alpha / 4.0);
        let adapter = tiny::adapter(&lora, &backbone.config, 2);
        let adapted = logits(Some(&adapter));
        assert!(
            adapted.iter().zip(&bare).all(|(a, b)| (a - b).abs() > 1e-4),
            "alpha {alpha}: {adapted:?}, bare {bare:?}"
        );
    }
}
