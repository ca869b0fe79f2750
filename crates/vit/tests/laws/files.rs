//! What is written is what is read: plug-ins bit for bit, 16-bit ones to the precision of f16, backbones by digest.

use crate::tiny;
use crate::variants::{images, logits, lora, patterned, variants};
use melo_vit::{Checkpoint, LoraConfig, Plugin, PluginInfo, Storage, Target};

fn settings() -> [LoraConfig; 5] {
    [
        lora(4, 2.0, &[Target::Q, Target::V]),
        lora(3, 7.5, &Target::ALL),
        LoraConfig { blocks: vec![1], ..lora(1, 1.0, &[Target::K, Target::Fc2]) },
        patterned(lora(2, 3.0, &[Target::Q, Target::Fc1]), 1, 5),
        lora(0, 1.0, &[]),
    ]
}

#[test]
fn save_then_load_is_bit_equal() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("task.safetensors");
    for (what, config) in variants() {
        let engine = tiny::engine(tiny::checkpoint(&config, 1));
        let plain = settings().map(|lora| tiny::adapter(&lora, &config, 2));
        let both = plain.clone().map(|adapter| tiny::with_bottlenecks(adapter, 5, &[0, 1], &config, 3));
        for adapter in plain.into_iter().chain(both) {
            let saved = tiny::plugin_of(engine.backbone(), adapter, 3, 2);
            saved.save(&path, &config, Storage::F32).expect("a folder to write to");
            let loaded = Plugin::load(&path, engine.backbone()).expect("what was saved");
            assert!(saved.head.bias.iter().all(|&b| b != 0.0));
            assert_eq!(loaded.head, saved.head, "{what}");
            assert_eq!(loaded.adapter, saved.adapter, "{what}");
            assert_eq!(loaded.card, saved.card, "{what}");
            let batch = images(2, config.image_size, 3);
            let run = |plugin: &Plugin| logits(&*engine, &batch, Some(&plugin.adapter), &plugin.head);
            assert_eq!(run(&loaded), run(&saved), "{what}");
        }
    }
}

#[test]
fn extreme_values_survive() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("task.safetensors");
    let engine = tiny::engine(tiny::checkpoint(&tiny::config(), 1));
    let mut saved = tiny::plugin(engine.backbone(), &lora(4, 2.0, &[Target::Q]), 3, 2);
    let extremes = [0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, f32::EPSILON];
    saved.head.weight[..extremes.len()].copy_from_slice(&extremes);
    saved.save(&path, engine.backbone().config(), Storage::F32).expect("a folder to write to");
    let loaded = Plugin::load(&path, engine.backbone()).expect("what was saved");
    let bits = |plugin: &Plugin| plugin.head.weight.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&loaded), bits(&saved));
}

#[test]
fn f16_keeps_eleven_bits_and_halves_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (small, large) = (folder.path().join("f16.safetensors"), folder.path().join("f32.safetensors"));
    let engine = tiny::engine(tiny::checkpoint(&tiny::config(), 1));
    let saved = tiny::plugin(engine.backbone(), &lora(4, 2.0, &Target::ALL), 3, 2);
    saved.save(&small, engine.backbone().config(), Storage::F16).expect("a folder to write to");
    saved.save(&large, engine.backbone().config(), Storage::F32).expect("a folder to write to");
    let loaded = Plugin::load(&small, engine.backbone()).expect("what was saved");
    let values = |plugin: &Plugin| -> Vec<f32> {
        [plugin.adapter.tensors(), plugin.head.tensors()].concat().into_iter().flatten().copied().collect()
    };
    let mut changed = 0;
    for (found, expected) in values(&loaded).into_iter().zip(values(&saved)) {
        // Half a unit of the eleventh bit; below 2^-14, where f16 is subnormal, half of 2^-24.
        let bound = (expected.abs() / 2048.0).max(1.0 / (1 << 25) as f32);
        assert!((found - expected).abs() <= bound, "{found} for {expected}");
        changed += usize::from(found != expected);
    }
    assert!(changed > 0, "stored in f16 indeed");
    let bytes = |path| std::fs::metadata(path).expect("written").len() as usize;
    // Offsets with fewer digits shorten the header too.
    let saving = bytes(&large) - bytes(&small);
    assert!((2 * saved.parameters()..2 * saved.parameters() + 64).contains(&saving), "{saving} bytes saved");
    loaded.save(&small, engine.backbone().config(), Storage::F16).expect("a folder to write to");
    let again = Plugin::load(&small, engine.backbone()).expect("what was saved");
    assert_eq!(values(&again), values(&loaded), "a second round trip changes nothing");
}

#[test]
fn a_file_tells_about_itself_without_its_backbone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("task.safetensors");
    let engine = tiny::engine(tiny::checkpoint(&tiny::config(), 1));
    let saved = tiny::plugin(engine.backbone(), &lora(4, 2.0, &[Target::Q, Target::V]), 3, 2);
    saved.save(&path, engine.backbone().config(), Storage::F32).expect("a folder to write to");
    let info = PluginInfo::read(&path).expect("what was saved");
    assert_eq!(info.card, saved.card);
    // Two blocks, two targets, A and B of 4 × 16; a head of 3 × 16 with its bias.
    assert_eq!((info.parameters(), saved.parameters()), (2 * 2 * 2 * 4 * 16 + 3 * 17, 2 * 2 * 2 * 4 * 16 + 3 * 17));
    assert_eq!(info.shapes["blocks.1.v.lora_a"], [4, 16]);
    assert_eq!(info.shapes["blocks.1.v.lora_b"], [16, 4]);
    assert_eq!(info.bytes as u64, std::fs::metadata(&path).expect("written").len());
    assert_eq!(info.digest, Plugin::load(&path, engine.backbone()).expect("what was saved").digest);
}

#[test]
fn a_backbone_keeps_its_digest_through_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("backbone.safetensors");
    let mut digests = Vec::new();
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        checkpoint.write(&path, Storage::F32).expect("a folder to write to");
        let read = Checkpoint::read(&path).expect("what was written");
        assert_eq!((&read.config, &read.preprocess, &read.name), (&config, &checkpoint.preprocess, &checkpoint.name));
        assert_eq!(read.weights.tensors(), checkpoint.weights.tensors(), "{what}");
        let digest = read.digest();
        assert_eq!(digest, checkpoint.digest(), "{what}");
        digests.push(digest);
    }
    let variants = digests.len();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), variants, "every architecture has a digest of its own");
}

#[test]
fn every_parameter_is_in_the_digest() {
    let config = tiny::config();
    let mut checkpoint = tiny::checkpoint(&config, 1);
    let digest = checkpoint.digest();
    for (at, (name, _)) in config.tensor_shapes().iter().enumerate() {
        let change = |checkpoint: &mut Checkpoint| {
            let mut tensors = checkpoint.weights.tensors_mut();
            let last = tensors[at].last_mut().expect("no tensor is empty");
            *last = f32::from_bits(last.to_bits() ^ 1);
        };
        change(&mut checkpoint);
        assert_ne!(checkpoint.digest(), digest, "{name}");
        change(&mut checkpoint);
    }
    checkpoint.config.eps = 1e-12;
    assert_ne!(checkpoint.digest(), digest, "eps");
}
