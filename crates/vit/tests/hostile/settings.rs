//! Settings asked for by a program rather than a file.

use crate::tiny;
use melo_vit::rendering::{Frame, Plane, Rendering, Slice, Window};
use melo_vit::{
    Adapter, BottleneckConfig, Description, Error, ImageBatch, Invalid, LoraConfig, ModelDescription, PluginRef, Pool,
    Preprocess, Target, TaskCard, VitConfig,
};
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

fn assert_invalid(found: Result<(), Invalid>, field: &str, reason: &str) {
    let invalid = found.expect_err(reason);
    assert_eq!((invalid.field, invalid.to_string().as_str()), (field, reason));
}

#[test]
fn an_impossible_network_is_named_by_its_field() {
    let vit = tiny::config;
    assert_invalid(VitConfig { depth: 0, ..vit() }.check(), "depth", "depth 0 is not in 1 to 65536");
    assert_invalid(VitConfig { heads: 3, ..vit() }.check(), "heads", "width 16 is not a multiple of 3 heads");
    let uneven = VitConfig { image_size: 13, ..vit() };
    assert_invalid(uneven.check(), "image_size", "image_size 13 is not a multiple of patch 4");
    assert_invalid(VitConfig { eps: 0.0, ..vit() }.check(), "eps", "eps 0 is not positive");
    let many = VitConfig { registers: 70_000, ..vit() };
    assert_invalid(many.check(), "registers", "70000 registers are more than 65536");
    let both = VitConfig { fc_norm: true, ..vit() };
    assert_invalid(both.check(), "fc_norm", "norm and fc_norm exclude each other");
    let two = VitConfig { pool: Pool::TokenAvg, distilled: true, ..vit() };
    assert_invalid(two.check(), "pool", "pooling tokenavg goes with neither fc_norm nor a distillation token");
}

#[test]
fn an_impossible_preprocessing_is_named_by_its_field() {
    let spec = || tiny::checkpoint(&tiny::config(), 1).preprocess;
    assert_invalid(Preprocess { size: 0, ..spec() }.check(), "size", "preprocess: size 0 is not in 1 to 4096");
    let none = Preprocess { crop_pct: 0.0, ..spec() };
    assert_invalid(none.check(), "crop_pct", "preprocess: crop_pct 0 is not in (0, 1]");
    let far = Preprocess { crop_pct: 0.001, ..spec() };
    assert_invalid(far.check(), "crop_pct", "preprocess: crop_pct 0.001 asks for 12000 px, more than 8192");
    let mean = Preprocess { mean: [0.5, f32::INFINITY, 0.5], ..spec() };
    assert_invalid(mean.check(), "mean", "preprocess: mean [0.5, inf, 0.5] is not finite");
    let std = Preprocess { std: [0.0; 3], ..spec() };
    assert_invalid(std.check(), "std", "preprocess: std [0.0, 0.0, 0.0] is not positive");
    let window = Window::Values { center: 1.0, width: 0.0 };
    let flat = Preprocess { rendering: Rendering { window, ..Rendering::default() }, ..spec() };
    let reason = "`center=1,width=0`: expected a finite center and a width above 0";
    assert_invalid(flat.check(), "window", &format!("preprocess: rendering: window {reason}"));
    let uneven =
        Description { name: String::new(), config: tiny::config(), preprocess: Preprocess { size: 14, ..spec() } };
    assert_invalid(uneven.check(), "size", "image size 14 is not a multiple of the patch size 4");
}

#[test]
fn an_impossible_card_is_named_by_its_field() {
    let engine = tiny::engine(tiny::checkpoint(&tiny::config(), 1));
    let card = || tiny::plugin(engine.backbone(), &settings(), 2, 1).card;
    assert!(card().check().is_ok());
    assert_invalid(TaskCard { format: 13, ..card() }.check(), "format", "format 13 is not known, expected 1 to 12");
    let cold = TaskCard { temperature: 0.0, ..card() };
    assert_invalid(cold.check(), "temperature", "temperature 0 is not positive");
    let none = TaskCard { thresholds: vec![], ..card() };
    assert_eq!(none.check().expect_err("no threshold").field, "thresholds");
    let none = TaskCard { classes: vec![], ..card() };
    assert_eq!(none.check().expect_err("no class").field, "classes");
}

#[test]
fn a_text_that_stands_for_no_rendering_is_named_by_its_field() {
    assert_invalid("0".parse::<Frame>().map(drop), "frame", "`0` is no frame: first, middle, or a number from 1");
    assert_invalid("up".parse::<Plane>().map(drop), "plane", "`up` is no plane: axial, coronal, sagittal");
    assert_invalid("-1".parse::<Slice>().map(drop), "slice", "`-1` is no slice: middle, or an index from 0");
    let low = "`percentile=9,1`: expected 0 <= low < high <= 100";
    assert_invalid("percentile=9,1".parse::<Window>().map(drop), "window", low);
    let forms = "auto, minmax, index=N, name=NAME, center=C,width=W, percentile=LOW,HIGH";
    let presets = "preset={lung, mediastinum, soft-tissue, liver, bone, brain, subdural, stroke, angio}";
    let none = format!("`lung` is no window: {forms}, {presets}");
    assert_invalid("lung".parse::<Window>().map(drop), "window", &none);
}

#[test]
fn what_a_description_lacks_is_named_by_its_field() {
    let said = |json: &str| {
        let described = ModelDescription::new(serde_json::from_str(json).unwrap()).expect("a description");
        described.preprocess(12).map(drop)
    };
    assert_invalid(said("{}"), "pretrained_cfg", "no `pretrained_cfg` with mean and std");
    let bicubic = r#"{"pretrained_cfg": {"interpolation": "bicubic"}}"#;
    assert_invalid(said(bicubic), "crop_pct", "`pretrained_cfg.crop_pct` is missing");
    let empty = ModelDescription::new(serde_json::json!({})).expect("a description");
    let none = VitConfig::infer(&BTreeMap::new(), &empty).map(drop);
    let name = "patch_embed.proj.weight";
    assert_invalid(none, name, &format!("not a timm ViT: tensor `{name}` is missing"));
}
