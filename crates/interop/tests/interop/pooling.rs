//! What heads read: another feature than a file says, and what no head here can read, refused by its name.

use melo_interop::{ReadSettings, read_checkpoint, read_checkpoint_with};
use melo_vit::{Checkpoint, DeviceSpec, Error, ImageBatch, Pool, Storage, TensorFile};
use std::fs;
use std::path::{Path, PathBuf};

fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families").join(name)
}

fn read(name: &str, pool: Pool) -> Result<(Checkpoint, Vec<String>), Error> {
    let read = read_checkpoint_with(&family(name), &ReadSettings { pool: Some(pool), ..ReadSettings::default() })?;
    Ok((read.checkpoint, read.notes))
}

/// A copy of a family whose JSON is changed.
fn changed(name: &str, json: &str, change: impl Fn(&mut serde_json::Value)) -> Error {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(family(name)).expect("a family").map(|entry| entry.expect("a file")) {
        fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("a copy");
    }
    let path = folder.path().join(json);
    let mut value = serde_json::from_str(&fs::read_to_string(&path).expect("its JSON")).expect("JSON");
    change(&mut value);
    fs::write(&path, value.to_string()).expect("another JSON");
    read_checkpoint(folder.path()).expect_err("refused")
}

/// Virchow's authors take class token and mean of the patches side by side, which their file does not say.
#[test]
fn another_feature_is_taken_where_it_is_asked_for() {
    for name in ["virchow", "virchow2"] {
        let (checkpoint, notes) = read(name, Pool::TokenAvg).unwrap();
        assert!(notes.iter().any(|note| note.contains("another feature")), "{notes:?}");
        let file = TensorFile::open(&family(name).with_extension("safetensors")).unwrap();
        let images = ImageBatch { size: 16, data: file.read("pixels", &[2, 3, 16, 16]).unwrap() };
        let expected = file.read("tokenavg", &[2, 48]).unwrap();
        let engine = DeviceSpec::default().open().load(checkpoint.freeze()).unwrap();
        let found = engine.embed(&images, 2, 16, None).unwrap();
        let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
        let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(found.len() == expected.len() && difference < 2e-5 * largest, "{name}: {difference:e}");
    }
    // No classifier reads it, and no attention pooling is left.
    let (checkpoint, _) = read("timm-siglip", Pool::Avg).unwrap();
    assert!(checkpoint.classifier.is_none() && checkpoint.weights.attn_pool.is_none());
    let (checkpoint, notes) = read("timm-augreg", Pool::Token).unwrap();
    assert!(checkpoint.classifier.is_some() && notes.is_empty(), "the feature that it says");
}

#[test]
fn a_feature_that_is_not_there_is_refused() {
    for (name, pool) in
        [("timm-gap", Pool::Token), ("hf-siglip", Pool::TokenAvg), ("timm-deit-distilled", Pool::TokenAvg)]
    {
        let error = read(name, pool).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{name}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.safetensors");
    read_checkpoint(&family("uni")).unwrap().write(&own, Storage::F32).unwrap();
    let settings = ReadSettings { pool: Some(Pool::Avg), ..ReadSettings::default() };
    let error = read_checkpoint_with(&own, &settings).unwrap_err().to_string();
    assert!(error.contains("own.safetensors") && error.contains("no other feature"), "{error}");
}

#[test]
fn what_no_head_reads_is_refused_by_its_name() {
    let arguments = |name: &'static str, value: serde_json::Value| {
        move |json: &mut serde_json::Value| json["model_args"][name] = value.clone()
    };
    for (family, name, value) in [
        ("timm-siglip", "global_pool", "prr".into()),
        ("timm-siglip", "global_pool", "max".into()),
        ("timm-siglip", "class_token", true.into()),
        ("timm-siglip", "global_pool", "avg".into()),
        ("timm-gap", "global_pool", "map".into()),
        ("timm-gap", "global_pool", "token".into()),
        ("timm-gap", "class_token", serde_json::Value::Null),
        ("timm-gap", "pool_include_prefix", true.into()),
        ("timm-qk-norm", "qk_norm", false.into()),
        ("timm-augreg", "qk_norm", true.into()),
    ] {
        let error = changed(family, "config.json", arguments(name, value.clone())).to_string();
        let word = if error.contains("attn_pool") { "attn_pool" } else { name };
        assert!(error.contains(word), "{family} with {name} {value}: {error}");
    }
    let error = changed("hf-siglip", "config.json", |json| json["model_type"] = "siglip2".into()).to_string();
    assert!(error.contains("siglip2"), "{error}");
    let error = changed("biomedclip", "open_clip_config.json", |json| {
        json["model_cfg"]["vision_cfg"]["timm_pool"] = "abs_attn".into();
    });
    assert!(error.to_string().contains("abs_attn"), "{error}");
}
