//! Plug-in files whose tensors are not what their card says.

use crate::raw::{Fixture, RawFile, assert_error, info};
use crate::tiny;
use melo_vit::{Error, Plugin, Storage};
use safetensors::tensor::Dtype;

const A: &str = "blocks.1.v.lora_a";
const B: &str = "blocks.1.v.lora_b";

#[test]
fn a_plugin_of_another_backbone_is_refused_with_both_names() {
    let mut fixture = Fixture::new();
    let mut other = tiny::checkpoint(&tiny::config(), 7);
    other.name = "other_vit".to_owned();
    let expected = fixture.backbone.digest()[..12].to_owned();
    fixture.backbone = other.freeze().info().clone();
    let found = fixture.backbone.digest()[..12].to_owned();
    assert_error!(
        fixture.refused(),
        Error::BackboneMismatch { .. },
        fixture.path,
        "tiny_vit",
        "other_vit",
        expected,
        found
    );
}

#[test]
fn another_backbone_is_named_before_any_tensor() {
    let mut fixture = Fixture::new();
    fixture.backbone = info(7);
    let error = fixture.refused_after(|file| file.set(A, &[1], &[f32::NAN]));
    assert_error!(error, Error::BackboneMismatch { .. }, fixture.path);
}

#[test]
fn exchanged_a_and_b_are_refused() {
    let fixture = Fixture::new();
    let error = fixture.refused_after(|file| {
        let a = file.tensors[A].clone();
        let b = file.tensors.insert(B.to_owned(), a).unwrap();
        file.tensors.insert(A.to_owned(), b);
    });
    assert_error!(error, Error::Shape { .. }, fixture.path, A, "[16, 4]", "[4, 16]");
}

#[test]
fn a_transposed_or_flattened_tensor_is_refused() {
    let fixture = Fixture::new();
    for shape in [&[64][..], &[16, 4], &[1, 4, 16], &[4, 16, 1], &[2, 32]] {
        let error = fixture.refused_after(|file| file.set(A, shape, &[0.5; 64]));
        assert_error!(error, Error::Shape { .. }, fixture.path, A, format!("{shape:?}"), "[4, 16]");
    }
    let error = fixture.refused_after(|file| file.set(A, &[0, 16], &[]));
    assert_error!(error, Error::Shape { .. }, fixture.path, A, "[0, 16]");
}

#[test]
fn nan_and_infinity_are_refused_wherever_they_are() {
    for (name, index) in [(A, 0), (B, 63), ("head.weight", 47), ("head.bias", 2)] {
        for (value, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            let fixture = Fixture::new();
            let error = fixture.refused_after(|file| {
                file.tensors.get_mut(name).unwrap().2[4 * index..][..4].copy_from_slice(&value.to_le_bytes());
            });
            assert_error!(error, Error::NonFinite { .. }, fixture.path, name, word, format!("index {index}"));
        }
    }
}

#[test]
fn nan_in_sixteen_bits_is_refused_too() {
    for (dtype, nan) in [(Dtype::F16, 0x7e00u16), (Dtype::BF16, 0x7fc0)] {
        let fixture = Fixture::new();
        let error = fixture.refused_after(|file| {
            let mut data = vec![0; 2 * 64];
            data[2 * 5..][..2].copy_from_slice(&nan.to_le_bytes());
            file.tensors.insert(A.to_owned(), (dtype, vec![4, 16], data));
        });
        assert_error!(error, Error::NonFinite { index: 5, .. }, fixture.path, A, "NaN");
    }
}

#[test]
fn numbers_that_are_no_floats_are_refused() {
    for (dtype, bytes, word) in [(Dtype::I64, 8, "I64"), (Dtype::U8, 1, "U8"), (Dtype::BOOL, 1, "BOOL")] {
        let fixture = Fixture::new();
        let error = fixture.refused_after(|file| {
            file.tensors.insert(A.to_owned(), (dtype, vec![4, 16], vec![0; 64 * bytes]));
        });
        assert_error!(error, Error::DType { .. }, fixture.path, A, word, "F16");
    }
}

#[test]
fn an_extra_tensor_is_refused() {
    for name in ["blocks.1.k.lora_a", "blocks.2.q.lora_a", "blocks.0.attn.qkv.weight", "Head.weight", ""] {
        let fixture = Fixture::new();
        let error = fixture.refused_after(|file| file.set(name, &[1], &[0.0]));
        assert_error!(error, Error::UnexpectedTensor { .. }, fixture.path, format!("`{name}`"));
    }
}

#[test]
fn every_missing_tensor_is_named() {
    let names: Vec<String> = RawFile::read(&Fixture::new().path).tensors.into_keys().collect();
    assert_eq!(names.len(), 2 * 2 * 2 + 2);
    for name in names {
        let fixture = Fixture::new();
        let error = fixture.refused_after(|file| drop(file.tensors.remove(&name)));
        assert_error!(error, Error::MissingTensor { .. }, fixture.path, format!("`{name}`"));
    }
}

#[test]
fn a_rank_that_the_tensors_do_not_have_is_refused() {
    for rank in [1, 3, 5, 16] {
        let fixture = Fixture::new();
        let error = fixture.refused_after_card(|card| card["lora"]["rank"] = rank.into());
        assert_error!(
            error,
            Error::Shape { .. },
            fixture.path,
            "blocks.0.q.lora_a",
            "[4, 16]",
            format!("[{rank}, 16]")
        );
    }
    let fixture = Fixture::new();
    let error = fixture.refused_after_card(|card| card["lora"]["rank"] = 0.into());
    assert_error!(error, Error::UnexpectedTensor { .. }, fixture.path, "lora_a");
}

#[test]
fn a_rank_pattern_that_the_tensors_do_not_have_is_refused() {
    let fixture = Fixture::new();
    let error = fixture.refused_after_card(|card| card["lora"]["rank_pattern"] = serde_json::json!({"1": 3}));
    assert_error!(error, Error::Shape { .. }, fixture.path, "blocks.1.q.lora_a", "[4, 16]", "[3, 16]");
}

#[test]
fn a_bottleneck_s_tensors_are_held_to_the_card() {
    const DOWN: &str = "blocks.1.adapter.down.weight";
    for name in RawFile::read(&Fixture::with_bottleneck().path).tensors.into_keys() {
        let fixture = Fixture::with_bottleneck();
        let error = fixture.refused_after(|file| drop(file.tensors.remove(&name)));
        assert_error!(error, Error::MissingTensor { .. }, fixture.path, format!("`{name}`"));
        let fixture = Fixture::with_bottleneck();
        let error = fixture.refused_after(|file| {
            file.tensors.get_mut(&name).unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        });
        assert_error!(error, Error::NonFinite { .. }, fixture.path, format!("`{name}`"), "NaN");
    }
    let fixture = Fixture::with_bottleneck();
    let error = fixture.refused_after(|file| file.set(DOWN, &[16, 5], &[0.5; 80]));
    assert_error!(error, Error::Shape { .. }, fixture.path, DOWN, "[16, 5]", "[5, 16]");
    let fixture = Fixture::with_bottleneck();
    let error = fixture.refused_after_card(|card| card["bottleneck"]["width"] = 4.into());
    assert_error!(error, Error::Shape { .. }, fixture.path, DOWN, "[5, 16]", "[4, 16]");
    let fixture = Fixture::with_bottleneck();
    let error = fixture.refused_after_card(|card| card["bottleneck"]["blocks"] = [0].as_slice().into());
    assert_error!(error, Error::UnexpectedTensor { .. }, fixture.path, "blocks.1.adapter");
    let fixture = Fixture::with_bottleneck();
    let error = fixture.refused_after_card(|card| card["bottleneck"] = serde_json::json!({"width": 0, "blocks": []}));
    assert_error!(error, Error::UnexpectedTensor { .. }, fixture.path, "blocks.1.adapter");
}

#[test]
fn a_head_of_another_number_of_classes_is_refused() {
    let fixture = Fixture::new();
    let error = fixture.refused_after_card(|card| {
        card["classes"] = ["a", "b"].as_slice().into();
        card["thresholds"] = [0.5, 0.5].as_slice().into();
    });
    assert_error!(error, Error::Shape { .. }, fixture.path, "head.weight", "[3, 16]", "[2, 16]");
    let fixture = Fixture::new();
    let error = fixture.refused_after(|file| file.set("head.bias", &[2], &[0.0; 2]));
    assert_error!(error, Error::Shape { .. }, fixture.path, "head.bias", "[2]", "[3]");
    let error = fixture.refused_after(|file| file.set("head.bias", &[3, 1], &[0.0; 3]));
    assert_error!(error, Error::Shape { .. }, fixture.path, "head.bias", "[3, 1]", "[3]");
}

#[test]
fn a_backbone_file_is_no_plugin() {
    let fixture = Fixture::new();
    tiny::checkpoint(&tiny::config(), 1).write(&fixture.path, Storage::F32).unwrap();
    assert_error!(fixture.refused(), Error::Card { .. }, fixture.path, "melo.card");
}

#[test]
fn what_was_not_changed_is_accepted() {
    let fixture = Fixture::new();
    RawFile::read(&fixture.path).write(&fixture.path);
    let loaded = Plugin::load(&fixture.path, &fixture.backbone).unwrap();
    assert_eq!((loaded.adapter, loaded.head), (fixture.plugin.adapter, fixture.plugin.head));
}
