//! Weights that are not a plain ViT, or whose description is missing, incomplete or a lie.

use crate::raw::{Fixture, RawFile, assert_error};
use crate::tiny;
use melo_vit::{Checkpoint, Error, Storage, VitConfig};
use serde_json::{Value, json};
use std::path::PathBuf;

/// timm weights with the JSON beside them, in a folder of their own.
struct Weights {
    path: PathBuf,
    sidecar: PathBuf,
    json: Value,
    _folder: tempfile::TempDir,
}

impl Weights {
    fn new() -> Self {
        Weights::of(&tiny::config())
    }

    fn of(config: &VitConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vit.safetensors");
        tiny::checkpoint(config, 1).write(&path, Storage::F32).unwrap();
        let mut file = RawFile::read(&path);
        file.metadata.clear();
        file.set("head.weight", &[2, 16], &[0.25; 32]);
        file.set("head.bias", &[2], &[0.5; 2]);
        file.write(&path);
        let json = json!({
            "architecture": "vit_tiny_patch4_12",
            "model_args": { "num_heads": 2 },
            "pretrained_cfg": {
                "input_size": [3, 12, 12],
                "interpolation": "bicubic",
                "crop_pct": 0.9,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
            },
        });
        let weights = Weights { sidecar: path.with_extension("json"), path, json, _folder: folder };
        weights.describe(&weights.json);
        weights
    }

    fn describe(&self, json: &Value) {
        std::fs::write(&self.sidecar, json.to_string()).unwrap();
    }

    fn refused(&self) -> Error {
        match Checkpoint::read(&self.path) {
            Err(error) => error,
            Ok(_) => panic!("{} was accepted", self.path.display()),
        }
    }

    fn refused_after(&self, change: impl FnOnce(&mut RawFile)) -> Error {
        let mut file = RawFile::read(&self.path);
        change(&mut file);
        file.write(&self.path);
        self.refused()
    }

    fn refused_after_json(&self, change: impl FnOnce(&mut Value)) -> Error {
        let mut json = self.json.clone();
        change(&mut json);
        self.describe(&json);
        self.refused()
    }
}

#[test]
fn what_was_not_changed_is_accepted() {
    let weights = Weights::new();
    let read = Checkpoint::read(&weights.path).unwrap();
    assert_eq!((&read.config, read.name.as_str()), (&tiny::config(), "vit_tiny_patch4_12"));
    assert_eq!(read.classifier.unwrap().bias, [0.5, 0.5]);
}

/// Beside the name of an architecture without them, norms inside are said in either of timm's two ways.
#[test]
fn norms_inside_that_an_argument_says_are_no_other_architecture() {
    let config = VitConfig { attn_norm: true, mlp_norm: true, ..tiny::config() };
    for names in [["scale_attn_norm", "scale_mlp_norm"], ["scale_attn_inner", "scale_mlp"]] {
        let weights = Weights::of(&config);
        let mut json = weights.json.clone();
        json["architecture"] = json!("vit_tiny_patch16_224");
        names.into_iter().for_each(|name| json["model_args"][name] = json!(true));
        weights.describe(&json);
        assert_eq!(Checkpoint::read(&weights.path).unwrap().config.mlp_norm, config.mlp_norm);
        let named = weights.refused_after_json(|json| json["architecture"] = json!("vit_tiny_patch16_224"));
        assert!(named.to_string().contains("scale_attn_inner"), "{named}");
    }
}

#[test]
fn a_plugin_is_no_backbone() {
    let fixture = Fixture::new();
    assert_error!(Checkpoint::read(&fixture.path).unwrap_err(), Error::Config { .. }, fixture.path, "plug-in");
}

#[test]
fn weights_without_a_description_are_refused() {
    let weights = Weights::new();
    std::fs::remove_file(&weights.sidecar).unwrap();
    let sidecar = weights.sidecar.display().to_string();
    assert_error!(
        weights.refused(),
        Error::NoDescription { .. },
        weights.path,
        sidecar,
        "config.json",
        "pretrained_cfg"
    );
}

#[test]
fn a_description_that_is_no_json_is_refused() {
    let weights = Weights::new();
    for text in ["", "{", "null", "[]", "{\"pretrained_cfg\": 3}"] {
        std::fs::write(&weights.sidecar, text).unwrap();
        assert_error!(weights.refused(), Error::Config { .. }, weights.sidecar);
    }
    std::fs::write(&weights.sidecar, [0xff, 0xfe, 0x00]).unwrap();
    assert_error!(weights.refused(), Error::Io { .. }, weights.sidecar);
}

#[test]
fn statistics_are_never_assumed() {
    let weights = Weights::new();
    for field in ["mean", "std", "crop_pct", "interpolation"] {
        let error =
            weights.refused_after_json(|json| drop(json["pretrained_cfg"].as_object_mut().unwrap().remove(field)));
        assert_error!(error, Error::Config { .. }, weights.sidecar, field);
    }
    let error = weights.refused_after_json(|json| drop(json.as_object_mut().unwrap().remove("pretrained_cfg")));
    assert_error!(error, Error::Config { .. }, weights.sidecar, "pretrained_cfg", "mean");
}

#[test]
fn preprocessing_that_is_not_supported_is_named() {
    let changes = [
        ("interpolation", json!("nearest"), "nearest"),
        ("crop_mode", json!("five"), "five"),
        ("crop_pct", json!(0.0), "crop_pct 0"),
        ("crop_pct", json!(1.2), "crop_pct 1.2"),
        ("std", json!([0.5, 0.0, 0.5]), "std"),
        ("std", json!([0.5, 0.5]), "pretrained_cfg.std"),
        ("mean", json!([0.5, 1e39, 0.5]), "pretrained_cfg.mean"),
        ("input_size", json!([3, 0, 0]), "0"),
        ("input_size", json!([3, 13, 13]), "13"),
    ];
    for (field, value, word) in changes {
        let weights = Weights::new();
        let error = weights.refused_after_json(|json| json["pretrained_cfg"][field] = value);
        assert_error!(error, Error::Config { .. }, weights.sidecar, word);
    }
}

#[test]
fn an_architecture_that_is_not_supported_is_named() {
    let changes = [
        ("act_layer", json!("relu"), "relu"),
        ("global_pool", json!("prr"), "prr"),
        ("global_pool", json!("max"), "max"),
        ("num_heads", json!(3), "num_heads"),
        ("norm_eps", json!(-1.0), "eps"),
    ];
    for (field, value, word) in changes {
        let weights = Weights::new();
        let error = weights.refused_after_json(|json| json["model_args"][field] = value);
        assert_error!(error, Error::Config { .. }, weights.path, word);
    }
}

#[test]
fn an_argument_that_changes_what_is_computed_is_refused_by_its_name() {
    let changes = [
        ("num_heads", json!(null)),
        ("pool_include_prefix", json!(true)),
        ("use_post_norm", json!(true)),
        ("gated_attn", json!(true)),
        ("attn_only_layer_scale", json!(true)),
        ("num_kv_heads", json!(2)),
        ("attn_type", json!("rope")),
        ("rope_grid_indexing", json!("xy")),
        ("rope_grid_offset", json!(0.5)),
        ("proj_bias", json!(false)),
        ("final_norm", json!(false)),
        ("pos_embed", json!("none")),
        ("in_chans", json!(1)),
        ("norm_layer", json!("rmsnorm")),
        ("embed_norm_layer", json!("layernorm")),
        ("embed_layer", json!("HybridEmbed")),
        ("block_fn", json!("ResPostBlock")),
        ("mlp_layer", json!("SwiGLUPacked")),
        ("attn_layer", json!("DiffAttention")),
        ("use_naflex", json!(true)),
        ("a_field_of_tomorrow", json!(1)),
    ];
    for (field, value) in changes {
        let weights = Weights::new();
        let error = weights.refused_after_json(|json| json["model_args"][field] = value);
        assert_error!(error, Error::Config { .. }, weights.sidecar, field);
    }
    let weights = Weights::new();
    let error = weights.refused_after_json(|json| json["architecture"] = json!("vit_base_patch16_rpn_224"));
    assert_error!(error, Error::Config { .. }, weights.sidecar, "ResPostBlock");
}

#[test]
fn arguments_that_say_another_shape_than_the_weights_are_refused() {
    for (field, value) in [
        ("patch_size", json!(8)),
        ("embed_dim", json!(48)),
        ("depth", json!(12)),
        ("reg_tokens", json!(4)),
        ("mlp_ratio", json!(3.0)),
        ("qkv_bias", json!(false)),
        ("pre_norm", json!(true)),
        ("fc_norm", json!(true)),
        ("no_embed_class", json!(true)),
        ("init_values", json!(1e-5)),
        ("class_token", json!(false)),
        ("qk_norm", json!(true)),
        ("scale_attn_norm", json!(true)),
        ("scale_mlp_norm", json!(true)),
        ("scale_attn_inner", json!(true)),
        ("scale_mlp", json!(true)),
        ("swiglu_mlp", json!(true)),
        ("use_abs_pos_emb", json!(false)),
        ("use_rel_pos_bias", json!(true)),
    ] {
        let weights = Weights::new();
        let error = weights.refused_after_json(|json| json["model_args"][field] = value);
        assert_error!(error, Error::Config { .. }, weights.path, field, "the weights say");
    }
}

#[test]
fn weights_of_another_architecture_than_the_named_one_are_refused() {
    for (architecture, words) in [
        ("vit_base_patch16_clip_224", "pre_norm"),
        ("vit_small_patch14_dinov2", "init_values"),
        ("vit_base_patch16_gap_224", "class_token"),
        ("vit_base_patch16_rope_mixed_224", "RotaryEmbeddingMixed"),
        ("eva02_enormous_patch14_clip_224", "EvaBlockPostNorm"),
        ("vit_base_patch16_sapiens2", "AttentionRope"),
    ] {
        let weights = Weights::new();
        let error = weights.refused_after_json(|json| json["architecture"] = json!(architecture));
        assert!(matches!(error, Error::Config { .. }), "{error}");
        assert!(error.to_string().contains("architecture") && error.to_string().contains(words), "{error}");
    }
}

#[test]
fn rotary_positions_of_a_kind_that_is_not_known_are_refused_by_its_name() {
    for (arguments, word) in [
        (json!({ "use_rot_pos_emb": true, "rope_type": "mixed" }), "rope_type"),
        (json!({ "use_rot_pos_emb": true, "rope_type": "cat" }), "ref_feat_shape"),
        (json!({ "use_rot_pos_emb": true, "rope_type": "dinov3", "rope_temperature": -1.0 }), "temperature"),
    ] {
        let weights = Weights::new();
        let error = weights.refused_after_json(|json| {
            let said = arguments.as_object().unwrap().clone();
            json["model_args"].as_object_mut().unwrap().extend(said);
        });
        assert_error!(error, Error::Config { .. }, weights.path, word);
    }
}

#[test]
fn a_table_of_relative_positions_of_no_square_grid_is_refused() {
    for rows in [2, 3, 10, 27] {
        let weights = Weights::new();
        let error = weights.refused_after(|file| {
            file.tensors.retain(|tensor, _| tensor != "pos_embed");
            file.set("blocks.0.attn.relative_position_bias_table", &[rows, 2], &vec![0.5; 2 * rows]);
        });
        assert_error!(error, Error::Config { .. }, weights.path, "relative_position_bias_table", "a distance");
    }
}

#[test]
fn a_bias_that_is_gone_is_no_architecture() {
    for name in ["patch_embed.proj.bias", "blocks.*.attn.qkv.bias"] {
        let weights = Weights::new();
        let error = weights.refused_after(|file| {
            file.tensors.retain(|tensor, _| !tensor.ends_with(name.trim_start_matches("blocks.*.")));
        });
        assert_error!(error, Error::Config { .. }, weights.path, name);
    }
}

#[test]
fn numbers_of_classes_that_differ_are_refused() {
    let weights = Weights::new();
    let error = weights.refused_after_json(|json| {
        json["num_classes"] = json!(3);
        json["model_args"]["num_classes"] = json!(5);
    });
    assert_error!(error, Error::Config { .. }, weights.sidecar, "num_classes");
}

#[test]
fn heads_come_from_the_name_or_the_arguments_and_are_never_guessed() {
    let without = |architecture: &str| {
        let weights = Weights::new();
        weights.refused_after_json(|json| {
            json["architecture"] = json!(architecture);
            json["model_args"].as_object_mut().unwrap().remove("num_heads");
        })
    };
    for (architecture, words) in [
        ("my_vit", "timm has no architecture `my_vit`"),
        ("", "nothing names the architecture"),
        ("vit_base_patch16_224", "of width 768"),
    ] {
        let error = without(architecture).to_string();
        assert!(error.contains(words) && error.contains("num_heads"), "{error}");
    }
}

#[test]
fn a_tensor_that_would_be_ignored_is_refused_with_a_hint() {
    let cases = [
        ("blocks.1.ls1.gamma", "layer scale"),
        ("blocks.1.ls2.gamma", "layer scale"),
        ("blocks.1.attn.q_norm.weight", "query and key normalisation"),
        ("blocks.0.attn.rel_pos_h", "Segment Anything"),
        ("blocks.2.norm1.weight", "plain ViT"),
        ("decoder.weight", "plain ViT"),
    ];
    for (name, hint) in cases {
        let weights = Weights::new();
        let error = weights.refused_after(|file| file.set(name, &[16], &[1.0; 16]));
        assert_error!(error, Error::UnexpectedTensor { .. }, weights.path, name, hint);
    }
}

#[test]
fn layer_scale_and_registers_are_whole() {
    let weights = Weights::new();
    let error = weights.refused_after(|file| file.set("blocks.0.ls1.gamma", &[16], &[1.0; 16]));
    assert_error!(error, Error::MissingTensor { .. }, weights.path, "blocks.0.ls2.gamma");
    let weights = Weights::new();
    let error = weights.refused_after(|file| file.set("reg_token", &[16], &[1.0; 16]));
    assert_error!(error, Error::Shape { .. }, weights.path, "reg_token");
}

#[test]
fn every_missing_tensor_is_named() {
    for (name, _) in tiny::config().tensor_shapes() {
        // Without one of these it is another architecture, of which other tensors are missing or too many.
        if name.ends_with("qkv.bias") || name.ends_with("proj.bias") && name.starts_with("patch") {
            continue;
        }
        let weights = Weights::new();
        let error = weights.refused_after(|file| drop(file.tensors.remove(&name)));
        match &error {
            Error::MissingTensor { name: missing, .. } => assert_eq!(missing, &name),
            // A block without its projection is none, and what is left of it belongs nowhere.
            Error::UnexpectedTensor { name: left, .. } if name.ends_with("qkv.weight") => {
                assert!(left.starts_with("blocks."), "{left}");
            }
            Error::Config { reason, .. } => {
                let word = match name.as_str() {
                    "blocks.0.attn.qkv.weight" => "depth 0",
                    "norm.weight" => "`norm`",
                    other => other,
                };
                assert!(reason.contains(word), "{name}: {reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
        assert_error!(error, _, weights.path);
    }
}

#[test]
fn a_wrong_shape_is_refused() {
    let cases: [(&str, &[usize]); 5] = [
        ("blocks.1.attn.qkv.weight", &[16, 48]),
        ("blocks.1.mlp.fc1.weight", &[23, 16]),
        ("blocks.0.norm1.weight", &[15]),
        ("cls_token", &[1, 16]),
        ("norm.bias", &[16, 1]),
    ];
    for (name, shape) in cases {
        let weights = Weights::new();
        let error = weights.refused_after(|file| file.set(name, shape, &vec![0.5; shape.iter().product()]));
        assert_error!(error, Error::Shape { .. }, weights.path, name, format!("{shape:?}"));
    }
}

#[test]
fn a_shape_that_hides_the_architecture_is_refused() {
    let cases: [(&str, &[usize], &str); 7] = [
        ("patch_embed.proj.weight", &[16, 1, 4, 4], "three-channel"),
        ("patch_embed.proj.weight", &[16, 48], "patch_embed.proj.weight"),
        ("patch_embed.proj.weight", &[16, 3, 4, 2], "4 × 2"),
        ("pos_embed", &[1, 8, 16], "8 positions"),
        ("pos_embed", &[10, 16], "pos_embed"),
        ("blocks.0.mlp.fc1.weight", &[24], "blocks.0.mlp.fc1.weight"),
        ("fc_norm.weight", &[16], "fc_norm"),
    ];
    for (name, shape, word) in cases {
        let weights = Weights::new();
        let error = weights.refused_after(|file| file.set(name, shape, &vec![0.5; shape.iter().product()]));
        assert_error!(error, Error::Config { .. }, weights.path, word);
    }
}

/// A tensor without values may claim any other side at no cost: nothing may be allocated by it.
#[test]
fn a_shape_is_believed_only_with_its_values() {
    let cases: [(&str, &[usize], &str); 6] = [
        ("blocks.0.mlp.fc1.weight", &[1 << 58, 0], "blocks.0.mlp.fc1.weight"),
        ("blocks.0.mlp.fc1.weight", &[0, 16], "blocks.0.mlp.fc1.weight"),
        ("blocks.0.mlp.fc1.weight", &[1 << 16, 0], "blocks.0.mlp.fc1.weight"),
        ("pos_embed", &[0, (1 << 50) + 1, 16], "image_size"),
        ("pos_embed", &[1, usize::MAX, 0], "pos_embed"),
        ("head.weight", &[1 << 58, 0], "head.weight"),
    ];
    for (name, shape, word) in cases {
        let weights = Weights::new();
        let error = weights.refused_after(|file| file.set(name, shape, &[]));
        assert_error!(error, Error::Shape { .. } | Error::Config { .. }, weights.path, word);
    }
}

#[test]
fn nan_in_weights_is_refused() {
    for (name, _) in tiny::config().tensor_shapes().iter().chain(&[("head.bias".to_owned(), vec![2])]) {
        let weights = Weights::new();
        let error = weights.refused_after(|file| {
            file.tensors.get_mut(name).unwrap().2[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
        });
        assert_error!(error, Error::NonFinite { index: 1, .. }, weights.path, format!("`{name}`"), "NaN");
    }
}

#[test]
fn a_classifier_of_another_width_is_refused() {
    let weights = Weights::new();
    let error = weights.refused_after(|file| file.set("head.weight", &[2, 8], &[0.5; 16]));
    assert_error!(error, Error::Shape { .. }, weights.path, "head.weight", "[2, 8]");
    let error = weights.refused_after(|file| file.set("head.weight", &[32], &[0.5; 32]));
    assert_error!(error, Error::Shape { .. }, weights.path, "head.weight", "[32]");
    let weights = Weights::new();
    let error = weights.refused_after(|file| drop(file.tensors.remove("head.bias")));
    assert_error!(error, Error::MissingTensor { .. }, weights.path, "head.bias");
    let distilled = Weights::of(&VitConfig { distilled: true, ..tiny::config() });
    assert_error!(distilled.refused(), Error::MissingTensor { .. }, distilled.path, "head_dist.weight");
}

#[test]
fn a_file_of_our_own_that_contradicts_itself_is_refused() {
    let changes = [
        ("heads", json!(0)),
        ("heads", json!(3)),
        ("patch", json!(0)),
        ("patch", json!(5)),
        ("image_size", json!(0)),
        ("image_size", json!(13)),
        ("depth", json!(0)),
        ("depth", json!(u64::MAX)),
        ("width", json!(0)),
        ("width", json!(u64::MAX)),
        ("mlp_hidden", json!(0)),
        ("mlp_hidden", json!(1u64 << 60)),
        ("image_size", json!(1u64 << 62)),
        ("eps", json!(-1.0)),
        ("fc_norm", json!(true)),
        ("novel", json!(1)),
    ];
    for (field, value) in changes {
        let weights = Weights::new();
        tiny::checkpoint(&tiny::config(), 1).write(&weights.path, Storage::F32).unwrap();
        let word = format!("{field} = {value}");
        let error = weights.refused_after(|file| {
            let mut json: Value = serde_json::from_str(&file.metadata["melo.backbone"]).unwrap();
            json["config"][field] = value;
            file.metadata.insert("melo.backbone".to_owned(), json.to_string());
        });
        assert!(matches!(error, Error::Config { .. }), "{word}: {error:?}");
        let message = error.to_string();
        assert!(message.contains(&weights.path.display().to_string()) && message.contains(field), "{word}: {message}");
    }
    let weights = Weights::new();
    let error = weights.refused_after(|file| drop(file.metadata.insert("melo.backbone".to_owned(), "{".to_owned())));
    assert_error!(error, Error::Config { .. }, weights.path, "melo.backbone");
}
