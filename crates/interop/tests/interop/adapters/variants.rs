//! Merging on every architecture that some published ViT has: the same answers here, and files for
//! `tools/golden/adapters.py --verify`, which runs them in timm and ONNX Runtime.

use super::bench::{assert_close, checkpoint, classes, engine_of, lasting};
use melo_interop::{OnnxWeights, merge, write_hugging_face, write_onnx, write_timm};
use melo_vit::{
    Activation, Adapter, BackboneInfo, Checkpoint, Engine, Head, ImageBatch, LoraConfig, Plugin, PluginRef, Pool,
    Rotary, RotaryGrid, RotaryPairs, Storage, Target, TaskCard, TaskKind, VitConfig, Weights, write_tensors,
};
use std::collections::HashMap;

/// Values in ±`bound` that repeat nowhere.
fn values(len: usize, bound: f32, seed: usize) -> Vec<f32> {
    (0..len).map(|i| bound * ((i * 7919 + seed * 104_729) as f32 * 0.618_034).sin()).collect()
}

fn plugin(backbone: &BackboneInfo, kind: TaskKind) -> Plugin {
    let vit = backbone.config();
    let lora =
        LoraConfig { rank: 2, alpha: 3.0, targets: Target::ALL.into(), blocks: vec![0, 1], ..LoraConfig::none() };
    let mut adapter = Adapter::zeros(&lora, vit);
    adapter.tensors_mut().into_iter().enumerate().for_each(|(i, t)| *t = values(t.len(), 0.4, i));
    let mut head = Head::zeros(3, vit.feature_width());
    head.tensors_mut().into_iter().enumerate().for_each(|(i, t)| *t = values(t.len(), 0.5, 50 + i));
    let card = TaskCard::new("t".into(), kind, classes(), backbone.preprocess().clone(), backbone.reference());
    let card = TaskCard { lora, temperature: 0.75, ..card };
    Plugin::new(card, adapter, head)
}

#[test]
fn every_architecture_merges() {
    let folder = lasting("variants");
    let plain = checkpoint("timm");
    let config = plain.config.clone();
    let variants = [
        (
            "clip",
            VitConfig { pre_norm: true, eps: 1e-5, patch_bias: false, activation: Activation::Quick, ..config.clone() },
        ),
        ("tanh", VitConfig { activation: Activation::Tanh, qkv_bias: false, ..config.clone() }),
        ("distilled", VitConfig { distilled: true, ..config.clone() }),
        ("patch_positions", VitConfig { pos_embed_prefix: false, ..config.clone() }),
        ("mean", VitConfig { pool: Pool::Avg, norm: false, fc_norm: true, ..config.clone() }),
        ("norm_then_mean", VitConfig { pool: Pool::Avg, ..config.clone() }),
        ("scaled_registers", VitConfig { layer_scale: true, registers: 3, pos_embed_prefix: false, ..config.clone() }),
        ("registers", VitConfig { registers: 2, ..config.clone() }),
        ("swiglu", VitConfig { layer_scale: true, swiglu: true, ..config.clone() }),
        ("token_then_norm", VitConfig { norm: false, fc_norm: true, ..config.clone() }),
        (
            "gap",
            VitConfig {
                class_token: false,
                pool: Pool::Avg,
                registers: 2,
                pos_embed_prefix: false,
                layer_scale: true,
                ..config.clone()
            },
        ),
        (
            "rotary_positions",
            VitConfig {
                registers: 2,
                pos_embed: false,
                rotary: Some(Rotary::DINOV3),
                layer_scale: true,
                ..config.clone()
            },
        ),
        ("siglip", VitConfig { class_token: false, pool: Pool::Map, activation: Activation::Tanh, ..config.clone() }),
        ("register_positions", VitConfig { registers: 2, register_positions: true, ..config.clone() }),
        ("qk_norm", VitConfig { qk_norm: true, ..config.clone() }),
        (
            "rotary_neighbours_and_norms",
            VitConfig {
                rotary: Some(Rotary {
                    temperature: 10000.0,
                    grid: RotaryGrid::Numbered(3),
                    pairs: RotaryPairs::Neighbours,
                }),
                swiglu: true,
                attn_norm: true,
                mlp_norm: true,
                ..config.clone()
            },
        ),
        (
            "rotary_positions_without_a_class_token",
            VitConfig {
                class_token: false,
                pool: Pool::Avg,
                registers: 1,
                pos_embed: false,
                rotary: Some(Rotary::DINOV3),
                qk_norm: true,
                ..config.clone()
            },
        ),
        ("relative_positions", VitConfig { pos_embed: false, relative_positions: true, pool: Pool::Avg, ..config }),
    ];
    let batch = ImageBatch { size: 16, data: values(3 * 3 * 16 * 16, 2.0, 99) };
    let mut all = vec![("input".to_owned(), vec![3, 3, 16, 16], batch.data.clone())];
    for (index, (name, config)) in variants.into_iter().enumerate() {
        let mut weights = Weights::zeros(&config);
        for (i, ((tensor, shape), w)) in config.tensor_shapes().iter().zip(weights.tensors_mut()).enumerate() {
            let matrix = tensor.ends_with("weight") && shape.len() > 1;
            let bound = if matrix { (3.0 / shape[1..].iter().product::<usize>() as f32).sqrt() } else { 0.5 };
            let centre = if tensor.contains("norm") && tensor.ends_with("weight") { 1.0 } else { 0.0 };
            *w = values(w.len(), bound, 100 * index + i).iter().map(|x| x + centre).collect();
        }
        let checkpoint = Checkpoint { name: "tiny".into(), config, weights, ..plain.clone() };
        let engine = engine_of(checkpoint.clone());
        let kind = if index % 2 == 0 { TaskKind::MultiLabel } else { TaskKind::SingleLabel };
        let plugin = plugin(engine.backbone(), kind);
        let run = |engine: &dyn Engine, adapter| {
            engine.logits(&batch, 3, 16, PluginRef { adapter, head: &plugin.head }).unwrap()
        };
        let unmerged = run(&*engine, Some(&plugin.adapter));
        let merged = merge(checkpoint.clone(), &plugin).unwrap();
        assert_close(&run(&*engine_of(merged.clone()), None), &unmerged, name);
        write_onnx(&folder.join(format!("{name}.onnx")), checkpoint, &plugin, OnnxWeights::Auto).unwrap();
        all.push((format!("logits.{name}"), vec![3, 3], unmerged));
        if merged.config.rotary.is_some() || merged.config.relative_positions {
            for error in [
                write_timm(&folder.join(name), &merged, &plugin).unwrap_err(),
                write_hugging_face(&folder.join(name), &merged, &plugin).unwrap_err(),
            ] {
                assert!(error.to_string().contains("positions"), "{name}: {error}");
            }
            continue;
        }
        let lost = match &merged.config {
            VitConfig { pool: Pool::Map, .. } => Some("attention pooling"),
            VitConfig { class_token: false, .. } => Some("mean of the tokens"),
            VitConfig { qk_norm: true, .. } => Some("query and key normalisation"),
            _ => None,
        };
        if let Some(lost) = lost {
            let error = write_hugging_face(&folder.join(name), &merged, &plugin).unwrap_err();
            assert!(error.to_string().contains(lost), "{name}: {error}");
        }
        write_timm(&folder.join(name), &merged, &plugin).unwrap();
        let read = Checkpoint::read(&folder.join(name).join("model.safetensors")).unwrap();
        if name == "registers" {
            assert!(!read.config.pos_embed_prefix, "the class token took its position in");
        } else {
            assert_eq!(read.config, merged.config, "{name}");
        }
    }
    let tensors: Vec<_> = all.iter().map(|(n, s, v)| (n.clone(), s.clone(), v.as_slice())).collect();
    write_tensors(&folder.join("logits.safetensors"), &tensors, HashMap::new(), Storage::F32).unwrap();
}
