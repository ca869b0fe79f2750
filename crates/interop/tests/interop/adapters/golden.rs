//! Every golden adapter computes what PyTorch computes with it, also after it was written and read again, and merged.

use super::bench::{
    CASES, adapter, assert_close, checkpoint, engine, engine_of, expected, lasting, logits, read_anew, take,
};
use melo_interop::{
    AuthorsFormat, Error, Layout, OnnxWeights, merge, write_authors, write_hugging_face, write_onnx, write_peft,
    write_timm,
};
use melo_vit::{Checkpoint, Engine, Plugin, PluginRef, Storage, Target, write_tensors};
use std::collections::HashMap;
use std::path::Path;

#[test]
fn imported_adapters_compute_what_pytorch_computes() {
    for (name, family, alpha) in CASES {
        let engine = engine(family);
        let imported = take(&adapter(name), &*engine, alpha).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_close(&logits(&*engine, &imported.plugin), &expected(name), name);
        let bare = Plugin {
            adapter: melo_vit::Adapter::zeros(&melo_vit::LoraConfig::none(), engine.backbone().config()),
            ..imported.plugin
        };
        let off = logits(&*engine, &bare).iter().zip(expected(name)).fold(0.0f32, |top, (a, b)| top.max((a - b).abs()));
        assert!(off > 1e-2, "{name}: its updates do nothing");
    }
}

#[test]
fn what_had_to_be_held_in_another_way_is_said() {
    let notes = |name: &str, family: &str| take(&adapter(name), &*engine(family), None).unwrap().notes.join("\n");
    assert_eq!(notes("timm_qkv", "timm"), "");
    assert_eq!(notes("hf_new", "hf"), "");
    let patterns = notes("timm_patterns", "timm");
    for part in ["blocks.0.o", "filled up with zeros", "rounded once", "a power of two"] {
        assert!(patterns.contains(part), "{part}: {patterns}");
    }
    assert!(notes("timm_regex", "timm").contains("blocks.1.q, blocks.1.k, blocks.1.v: not adapted there"));
    assert!(notes("hf_rslora_patterns", "hf").contains("blocks.0.v"));
}

#[test]
fn a_fused_adapter_moves_the_key_too() {
    let imported = take(&adapter("timm_qkv"), &*engine("timm"), None).unwrap();
    assert_eq!(imported.plugin.card.lora.targets, [Target::Q, Target::K, Target::V]);
    let [q, k, v] = [0, 1, 2].map(|target| imported.plugin.adapter.blocks[1][target].as_ref().unwrap());
    assert!(q.a == k.a && k.a == v.a && q.b != k.b);
}

#[test]
fn what_is_written_computes_the_same_here() {
    let folder = lasting("adapters");
    let mut all = Vec::new();
    for (name, family, alpha) in CASES {
        let (checkpoint, engine) = (checkpoint(family), engine(family));
        let mut plugin = take(&adapter(name), &*engine, alpha).unwrap().plugin;
        plugin.card.temperature = 1.5;
        plugin.card.self_test = read_anew(&plugin.card);
        let vit = engine.backbone().config();
        let at = |kind: &str| folder.join(format!("{name}@{kind}"));
        all.push((format!("logits.{name}"), vec![3, 3], logits(&*engine, &plugin)));

        let layouts: &[(Layout, &str)] = match family {
            "hf" => &[(Layout::Timm, "timm"), (Layout::HuggingFaceNew, "hf-new"), (Layout::HuggingFace, "hf")],
            "deit" => &[(Layout::Timm, "timm"), (Layout::HuggingFaceNew, "hf-new")],
            _ => &[(Layout::Timm, "timm")],
        };
        for &(layout, word) in layouts {
            // Old names fit transformers 4 only, which the script does not have: they are read back here.
            let out = if word == "hf" { folder.join(format!("old-{name}")) } else { at(&format!("peft-{word}")) };
            write_peft(&out, &plugin, vit, layout).unwrap();
            let again = take(&out, &*engine, None).unwrap();
            assert_eq!(again.plugin.card, plugin.card, "{name} {word}: the card travels along");
            assert_eq!(again.plugin.adapter, plugin.adapter, "{name} {word}");
            assert_eq!(again.plugin.head, plugin.head, "{name} {word}");
        }

        let merged = merge(checkpoint.clone(), &plugin).unwrap();
        write_timm(&at("merged-timm"), &merged, &plugin).unwrap();
        let read = Checkpoint::read(&at("merged-timm").join("model.safetensors")).unwrap();
        assert_eq!(read.config, merged.config, "{name}");
        assert_eq!(read.preprocess, merged.preprocess, "{name}");
        let bare = engine_of(read);
        let own = Plugin::own_classifier(bare.backbone()).expect("the plug-in's classifier came along");
        assert_close(&logits(&*bare, &own), &expected(name), &format!("{name} merged"));
        write_hugging_face(&at("merged-hf"), &merged, &plugin).unwrap();

        std::fs::create_dir(at("onnx")).unwrap();
        let beside = if family == "deit" { OnnxWeights::Beside } else { OnnxWeights::Auto };
        write_onnx(&at("onnx").join("model.onnx"), checkpoint, &plugin, beside).unwrap();
        assert_eq!(at("onnx").join("model.onnx.data").exists(), family == "deit", "{name}");

        if alpha.is_some() {
            let format = if name == "authors" { AuthorsFormat::Melo } else { AuthorsFormat::UniCad };
            std::fs::create_dir(at(name)).unwrap();
            let out = at(name).join("adapter.safetensors");
            write_authors(&out, &plugin, vit, format).unwrap();
            let again = take(&out, &*engine, alpha).unwrap().plugin;
            assert_eq!((again.adapter, again.head), (plugin.adapter, plugin.head), "{name}");
            let shapes = |path: &Path| melo_vit::TensorFile::open(path).unwrap().shapes().unwrap();
            assert_eq!(shapes(&out), shapes(&adapter(name)), "{name}: the same names and shapes");
        }
    }
    let tensors: Vec<_> = all.iter().map(|(n, s, v)| (n.clone(), s.clone(), v.as_slice())).collect();
    write_tensors(&folder.join("logits.safetensors"), &tensors, HashMap::new(), Storage::F32).unwrap();
}

#[test]
fn query_and_value_alone_leave_the_key_alone() {
    let engine = engine("timm");
    let plugin = take(&adapter("unicad"), &*engine, Some(6.0)).unwrap().plugin;
    let folder = super::bench::temporary();
    let out = folder.path().join("out");
    write_peft(&out, &plugin, engine.backbone().config(), Layout::Timm).unwrap();
    let config = std::fs::read_to_string(out.join("adapter_config.json")).unwrap();
    assert!(config.contains("\"r\": 8") && config.contains("\"lora_alpha\": 12"), "{config}");
    let file = melo_vit::TensorFile::open(&out.join("adapter_model.safetensors")).unwrap();
    let b = file.read("base_model.model.blocks.1.attn.qkv.lora_B.weight", &[48, 8]).unwrap();
    assert!(b[16 * 8..32 * 8].iter().all(|&x| x == 0.0), "the rows of the key");
    // Without our card too, the two targets are found again.
    std::fs::remove_file(out.join("melo_card.json")).unwrap();
    let again = take(&out, &*engine, None).unwrap();
    assert_eq!(again.plugin.adapter, plugin.adapter);
}

#[test]
fn a_merged_backbone_takes_the_plug_in_s_image_size() {
    let (checkpoint, engine) = (checkpoint("timm"), engine("timm"));
    let mut plugin = take(&adapter("timm_qkv"), &*engine, None).unwrap().plugin;
    plugin.card.preprocess.size = 32;
    let merged = merge(checkpoint, &plugin).unwrap();
    assert_eq!(merged.config.image_size, 32);
    let batch = melo_vit::ImageBatch { size: 32, data: (0..3 * 32 * 32).map(|i| (i as f32).sin()).collect() };
    let run =
        |engine: &dyn Engine, adapter| engine.logits(&batch, 1, 32, PluginRef { adapter, head: &plugin.head }).unwrap();
    assert_close(&run(&*engine_of(merged), None), &run(&*engine, Some(&plugin.adapter)), "32 px");
}

#[test]
fn what_a_format_cannot_hold_is_refused() {
    let engine = engine("timm");
    let vit = engine.backbone().config();
    let folder = super::bench::temporary();
    let out = folder.path().join("out");
    let plugin = take(&adapter("authors"), &*engine, Some(3.0)).unwrap().plugin;
    let refused = |error: Error, part: &str| {
        let kinds = matches!(error, Error::Unwritable { .. } | Error::AuthorsBias | Error::NotHuggingFace { .. });
        assert!(kinds && error.to_string().contains(part), "{error}");
    };
    let mut biased = plugin.clone();
    biased.head.bias[1] = 0.5;
    refused(write_authors(&out, &biased, vit, AuthorsFormat::Melo).unwrap_err(), "bias of the classifier");
    let fused = take(&adapter("timm_qkv"), &*engine, None).unwrap().plugin;
    refused(write_authors(&out, &fused, vit, AuthorsFormat::UniCad).unwrap_err(), "q k v");
    let mut bottled = plugin.clone();
    let config = melo_vit::BottleneckConfig { width: 2, blocks: vec![0] };
    bottled.adapter.bottlenecks = melo_vit::Bottlenecks::zeros(&config, vit);
    refused(write_peft(&out, &bottled, vit, Layout::Timm).unwrap_err(), "bottlenecks");
    refused(merge(checkpoint("timm"), &bottled).unwrap_err(), "bottlenecks");
    let mut probe = plugin.clone();
    probe.adapter = melo_vit::Adapter::zeros(&melo_vit::LoraConfig::none(), vit);
    refused(write_peft(&out, &probe, vit, Layout::Timm).unwrap_err(), "linear probe");
    let mut merged = merge(checkpoint("timm"), &plugin).unwrap();
    merged.config.pool = melo_vit::Pool::Avg;
    refused(write_hugging_face(&out, &merged, &plugin).unwrap_err(), "mean of the tokens");
    assert!(!out.exists(), "nothing was written");
}
