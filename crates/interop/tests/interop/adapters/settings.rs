//! Settings of PEFT that a plug-in cannot carry, each refused by its name.

use super::bench::{engine, golden, take, temporary};
use serde_json::{Value, json};
use std::path::Path;

/// A copy of a golden folder whose settings a test then spoils.
pub(crate) fn copy(name: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(golden(name).join(file), to.join(file)).unwrap();
    }
}

/// The error of a golden adapter with one setting changed.
fn with(name: &str, setting: &str, value: Value) -> Result<(), String> {
    let folder = temporary();
    copy(name, folder.path());
    let path = folder.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[setting] = value;
    std::fs::write(&path, config.to_string()).unwrap();
    let family = name.split('_').next().unwrap();
    take(folder.path(), &*engine(family), None).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn what_a_plug_in_cannot_carry_is_refused_by_name() {
    let cases = [
        ("peft_type", json!("IA3"), "only LORA"),
        ("peft_type", json!("ADALORA"), "only LORA"),
        ("use_dora", json!(true), "DoRA"),
        ("lora_bias", json!(true), "no bias"),
        ("bias", json!("all"), "frozen backbone"),
        ("bias", json!("lora_only"), "frozen backbone"),
        ("fan_in_fan_out", json!(true), "other way round"),
        ("init_lora_weights", json!("pissa_niter_4"), "changes the base weights"),
        ("init_lora_weights", json!("olora"), "changes the base weights"),
        ("init_lora_weights", json!("corda"), "changes the base weights"),
        ("init_lora_weights", json!("loftq"), "changes the base weights"),
        ("init_lora_weights", json!("something"), "not known"),
        ("loftq_config", json!({"loftq_bits": 4}), "changes the base weights"),
        ("trainable_token_indices", json!([1, 2]), "embedding"),
        ("target_parameters", json!(["x"]), "parameters"),
        ("megatron_config", json!({"a": 1}), "Megatron"),
        ("layer_replication", json!([[0, 2]]), "repeated"),
        ("use_qalora", json!(true), "QALoRA"),
        ("a_setting_of_tomorrow", json!(7), "not known here"),
        ("r", json!(0), "whole number"),
        ("r", json!(1.5), "whole number"),
        ("r", json!(1e300), "whole number"),
        ("r", json!("3"), "a number"),
        ("lora_alpha", json!(0), "positive"),
        ("lora_alpha", json!(-1), "positive"),
        ("lora_alpha", json!(1e300), "positive"),
        ("alpha_pattern", json!({"(?=x)": 1}), "not understood"),
        ("alpha_pattern", json!({"qkv": "x"}), "positive numbers"),
        ("rank_pattern", json!({"qkv": 1.5}), "whole ones"),
        ("rank_pattern", json!([1]), "expected an object"),
        ("target_modules", json!(null), "list of modules"),
        ("target_modules", json!([1]), "expected texts"),
        ("layers_to_transform", json!(["x"]), "numbers of layers"),
    ];
    for (setting, value, part) in cases {
        let error = with("timm_qkv", setting, value.clone()).expect_err(setting);
        assert!(error.contains(&format!("`{setting}`")) && error.contains(part), "{setting} {value}: {error}");
        assert!(error.contains("adapter_config.json"), "{error}");
    }
}

#[test]
fn what_means_nothing_for_the_result_is_passed_over() {
    for (setting, value) in [
        ("lora_dropout", json!(0.5)),
        ("init_lora_weights", json!("gaussian")),
        ("base_model_name_or_path", json!("../../somewhere")),
        ("a_setting_of_tomorrow", json!(null)),
        ("another", json!(false)),
        ("runtime_config", json!({"ephemeral_gpu_offload": false})),
    ] {
        with("timm_qkv", setting, value).unwrap_or_else(|error| panic!("{setting}: {error}"));
    }
}

#[test]
fn settings_and_tensors_must_agree() {
    let cases = [
        ("timm_qkv", "r", json!(4), &["lora_A.weight", "[4, 16]"][..]),
        ("timm_qkv", "r", json!(49), &["rank 49", "exceeds 48"]),
        ("timm_qkv", "target_modules", json!(["qkv", "fc1"]), &["blocks.0.mlp.fc1", "target_modules asks for"]),
        ("timm_qkv", "target_modules", json!(["proj"]), &["blocks.0.attn.qkv", "do not ask for"]),
        ("timm_layers", "layers_to_transform", json!([0, 1]), &["blocks.0.attn.proj", "asks for"]),
        ("timm_layers", "layers_to_transform", json!(0), &["blocks.1.attn.proj", "do not ask for"]),
        (
            "timm_regex",
            "target_modules",
            json!(r"blocks\.\d\.mlp\.fc2|blocks\.0\.attn\.qkv|.*fc1"),
            &["blocks.0.mlp.fc1"],
        ),
        ("hf_old", "target_modules", json!(["query", "value", "key", "attention.output.dense"]), &["key"]),
        ("hf_new", "target_modules", json!(["q_proj", "v_proj", "fc2"]), &["layers.0.mlp.fc2"]),
    ];
    for (name, setting, value, parts) in cases {
        let error = with(name, setting, value.clone()).expect_err(setting);
        assert!(parts.iter().all(|part| error.contains(part)), "{name} {setting} {value}: {error}");
    }
    // What regular expressions here do not understand: the tensors say which modules there are.
    with("timm_regex", "target_modules", json!(r"(?!head).*(fc2|qkv)")).unwrap();
}
