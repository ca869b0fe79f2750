//! Low-rank settings asked for by a program rather than a file.

use crate::tiny;
use melo_vit::{Adapter, BottleneckConfig, Error, ImageBatch, LoraConfig, PluginRef, Target};
use std::collections::BTreeMap;

fn settings() -> LoraConfig {
    let targets = vec![Target::Q, Target::V];
    LoraConfig { rank: 4, alpha: 2.0, targets, blocks: vec![0, 1], ..LoraConfig::none() }
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
fn a_rank_pattern_is_about_adapted_blocks_and_possible_ranks() {
    let pattern = |block, rank| BTreeMap::from([(block, rank)]);
    let settings = || LoraConfig { blocks: vec![1], ..settings() };
    assert_refused(LoraConfig { rank_pattern: pattern(0, 2), ..settings() }, "block 0 is not among");
    assert_refused(LoraConfig { rank_pattern: pattern(7, 2), ..settings() }, "block 7 is not among");
    assert_refused(LoraConfig { rank_pattern: pattern(1, 0), ..settings() }, "rank 0 of block 1");
    assert_refused(LoraConfig { rank_pattern: pattern(1, 17), ..settings() }, "rank 17 of block 1");
    assert_refused(LoraConfig { rank_pattern: pattern(1, 2), ..LoraConfig::none() }, "without a rank");
    assert!(LoraConfig { rank_pattern: pattern(1, 16), ..settings() }.check(&tiny::config()).is_ok());
}

#[test]
fn scales_follow_each_block_s_rank() {
    let plain = LoraConfig { alpha: 6.0, rank_pattern: BTreeMap::from([(1, 9)]), ..settings() };
    let stabilised = LoraConfig { rslora: true, ..plain.clone() };
    assert_eq!([plain.rank_of(0), plain.rank_of(1)], [4, 9]);
    assert_eq!([plain.scale_of(0), plain.scale_of(1)], [1.5, 6.0 / 9.0]);
    assert_eq!([stabilised.scale_of(0), stabilised.scale_of(1)], [3.0, 2.0]);
}

#[test]
fn bottlenecks_fit_the_backbone() {
    let refused =
        |width: usize, blocks: &[usize], word: &str| match (BottleneckConfig { width, blocks: blocks.to_vec() })
            .check(&tiny::config())
        {
            Err(Error::Bottleneck(reason)) => assert!(reason.contains(word), "`{reason}` does not say `{word}`"),
            other => panic!("{width} after {blocks:?} gives {other:?}"),
        };
    refused(0, &[0], "width 0");
    refused(17, &[0], "width 17");
    refused(8, &[], "no block");
    refused(8, &[0, 2], "block 2");
    refused(8, &[1, 0], "out of order");
    refused(8, &[1, 1], "repeat");
    assert!(BottleneckConfig { width: 16, blocks: vec![0, 1] }.check(&tiny::config()).is_ok());
    assert!(BottleneckConfig::none().check(&tiny::config()).is_ok());
}

#[test]
fn alpha_below_the_rank_is_accepted_and_active() {
    let engine = tiny::engine(tiny::checkpoint(&tiny::config(), 1));
    let config = engine.backbone().config();
    let head = tiny::head(2, config, 3);
    let batch = ImageBatch { size: 12, data: (0..3 * 12 * 12).map(|i| (i as f32).sin()).collect() };
    let logits = |adapter: Option<&Adapter>| engine.logits(&batch, 1, 12, PluginRef { adapter, head: &head }).unwrap();
    let bare = logits(None);
    for alpha in [0.5, 1.0, 3.999] {
        let lora = LoraConfig { alpha, ..settings() };
        lora.check(config).unwrap();
        assert_eq!(lora.scale_of(1), alpha / 4.0);
        let adapter = tiny::adapter(&lora, config, 2);
        let adapted = logits(Some(&adapter));
        assert!(
            adapted.iter().zip(&bare).all(|(a, b)| (a - b).abs() > 1e-4),
            "alpha {alpha}: {adapted:?}, bare {bare:?}"
        );
    }
}
