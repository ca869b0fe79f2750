//! `open_clip_config.json`, as open_clip 2 and 3 write it, in the words of timm's `config.json`.
//!
//! Meanings and defaults as in open_clip's `CLIPVisionCfg`, `TimmModel` and `PreprocessCfg`. Every field of the vision tower is read, known
//! to change no feature, or refused by its name; nothing of the text tower is looked at.

use melo_vit::{Fields, Invalid};
use serde_json::{Map, Value, json};

/// Fields of any `vision_cfg` on which no feature depends: training's noise, first values, and the projection.
const FREE: [&str; 10] = [
    "timm_model_pretrained",
    "timm_proj",
    "timm_proj_bias",
    "timm_drop",
    "timm_drop_path",
    "patch_dropout",
    "output_tokens",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "n_queries",
];
/// Fields of open_clip's own towers.
const OWN: [&str; 16] = [
    "image_size",
    "layers",
    "width",
    "head_width",
    "mlp_ratio",
    "patch_size",
    "ls_init_value",
    "attentional_pool",
    "global_average_pool",
    "no_ln_pre",
    "input_patchnorm",
    "pos_embed_type",
    "final_ln_after_pool",
    "pool_type",
    "act_kwargs",
    "norm_kwargs",
];

/// The description as timm would give it, where it is open_clip's; any other as it is.
///
/// # Errors
/// [`Invalid`] that names a field.
pub(crate) fn description(json: Value) -> Result<Value, Invalid> {
    if json.get("model_cfg").is_none() {
        return Ok(json);
    }
    let top = Fields::of("", &json)?;
    top.all_in(&[&["model_cfg", "preprocess_cfg"]])?;
    let model = Fields::of("model_cfg.", &json["model_cfg"])?;
    let vision = Fields::of("model_cfg.vision_cfg.", &json["model_cfg"]["vision_cfg"])?;
    let (architecture, arguments) = match vision.text("timm_model_name")? {
        Some(name) => (name, of_timm(&vision)?),
        None => ("", of_own(&vision, model.truth("quick_gelu")?.unwrap_or(false))?),
    };
    let cfg = preprocessing(&json["preprocess_cfg"], vision.side("image_size")?.unwrap_or(224))?;
    Ok(json!({ "architecture": architecture, "model_args": arguments, "pretrained_cfg": cfg }))
}

/// Arguments of a model of timm's.
fn of_timm(vision: &Fields<'_>) -> Result<Map<String, Value>, Invalid> {
    vision.all_in(&[&FREE, &["timm_model_name", "timm_pool", "image_size"]])?;
    let mut arguments = Map::new();
    if let Some(side) = vision.side("image_size")? {
        arguments.insert("img_size".to_owned(), json!(side));
    }
    match vision.text("timm_pool")?.unwrap_or("avg") {
        // The model's own.
        "" => {}
        pool => {
            arguments.insert("global_pool".to_owned(), json!(pool));
            if pool == "avg" {
                // Pooling is changed after the model is built: its norm stays where it was.
                arguments.insert("fc_norm".to_owned(), json!(false));
            }
        }
    }
    Ok(arguments)
}

/// Arguments of open_clip's own tower.
fn of_own(vision: &Fields<'_>, quick_gelu: bool) -> Result<Map<String, Value>, Invalid> {
    vision.all_in(&[&FREE, &OWN])?;
    for name in ["attentional_pool", "global_average_pool", "no_ln_pre", "input_patchnorm", "final_ln_after_pool"] {
        vision.only(name, &json!(false), "this is not supported")?;
    }
    vision.only("pos_embed_type", &json!("learnable"), "only learnt positions are supported")?;
    vision.only("pool_type", &json!("tok"), "only the class token is supported")?;
    for name in ["act_kwargs", "norm_kwargs"] {
        vision.only(name, &json!({}), "this is not supported")?;
    }
    let width = vision.count("width")?.unwrap_or(768);
    let head = vision.count("head_width")?.unwrap_or(64);
    if head == 0 || !width.is_multiple_of(head) {
        return Err(vision.wrong("head_width", &json!(head), &format!("width {width} is no multiple of it")));
    }
    let mut arguments = Map::new();
    let mut say = |name: &str, value: Value| arguments.insert(name.to_owned(), value);
    say("embed_dim", json!(width));
    say("num_heads", json!(width / head));
    say("depth", json!(vision.count("layers")?.unwrap_or(12)));
    say("patch_size", json!(vision.side("patch_size")?.unwrap_or(16)));
    say("mlp_ratio", json!(vision.number("mlp_ratio")?.unwrap_or(4.0)));
    say("img_size", json!(vision.side("image_size")?.unwrap_or(224)));
    say("norm_eps", json!(1e-5));
    say("act_layer", json!(if quick_gelu { "quick_gelu" } else { "gelu" }));
    Ok(arguments)
}

/// `preprocess_cfg` as timm's `pretrained_cfg`, for a tower of images of this side.
fn preprocessing(cfg: &Value, side: usize) -> Result<Value, Invalid> {
    if cfg.is_null() {
        return Err(Invalid::new("preprocess_cfg", "no `preprocess_cfg` with mean and std"));
    }
    let fields = Fields::of("preprocess_cfg.", cfg)?;
    fields.all_in(&[&["size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"]])?;
    fields.only("mode", &json!("RGB"), "only images of three channels are supported")?;
    let side = fields.side("size")?.unwrap_or(side);
    let interpolation = match fields.text("interpolation")?.unwrap_or("bicubic") {
        // A training's; what is evaluated is bicubic.
        "random" => "bicubic",
        other => other,
    };
    let crop_mode = match fields.text("resize_mode")?.unwrap_or("shortest") {
        "shortest" => "center",
        "squash" => "squash",
        other => {
            return Err(fields.wrong("resize_mode", &json!(other), "this is not supported (shortest, squash)"));
        }
    };
    Ok(json!({
        "input_size": [3, side, side],
        "interpolation": interpolation,
        "crop_pct": 1.0,
        "crop_mode": crop_mode,
        "mean": fields.get("mean"),
        "std": fields.get("std"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vision: Value, preprocess: Value) -> Value {
        json!({
            "model_cfg": { "embed_dim": 512, "vision_cfg": vision, "text_cfg": { "hf_model_name": "microsoft/BiomedNLP" } },
            "preprocess_cfg": preprocess,
        })
    }

    fn statistics() -> Value {
        json!({ "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5] })
    }

    #[test]
    fn towers_of_timm_and_of_open_clip_are_told() {
        let biomed = json!({
            "timm_model_name": "vit_base_patch16_224",
            "timm_model_pretrained": false,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 224,
        });
        let said = description(config(biomed, statistics())).unwrap();
        assert_eq!(said["architecture"], "vit_base_patch16_224");
        assert_eq!(said["model_args"], json!({ "img_size": 224 }));
        assert_eq!(said["pretrained_cfg"]["crop_mode"], "center");
        let own = json!({ "layers": 12, "width": 768, "patch_size": 32, "image_size": 224 });
        let said = description(config(own, statistics())).unwrap();
        assert_eq!((&said["model_args"]["num_heads"], &said["model_args"]["act_layer"]), (&json!(12), &json!("gelu")));
        assert_eq!(description(json!({ "architecture": "x" })).unwrap(), json!({ "architecture": "x" }));
    }

    #[test]
    fn what_would_change_a_feature_is_refused_by_its_name() {
        let tower = || json!({ "width": 768 });
        for (field, value) in [("attentional_pool", json!(true)), ("pool_type", json!("avg")), ("new", json!(1))] {
            let mut vision = tower();
            vision[field] = value;
            let error = description(config(vision, statistics())).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        for (field, value) in [("resize_mode", json!("longest")), ("mode", json!("L")), ("new", json!(1))] {
            let mut preprocess = statistics();
            preprocess[field] = value;
            let error = description(config(tower(), preprocess)).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        let error = description(config(tower(), Value::Null)).unwrap_err().to_string();
        assert!(error.contains("preprocess_cfg"), "{error}");
    }
}
