//! Weights under the names that training frameworks give them: found, said, or asked for.

use melo_interop::{ReadSettings, read_checkpoint, read_checkpoint_with};
use melo_vit::{Error, Storage, TensorFile, write_tensors};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A tiny ViT's tensors under other names, in a folder with its description.
struct Wrapped {
    folder: tempfile::TempDir,
}

impl Wrapped {
    /// The golden model once for every prefix, with tensors that are none of it; the models after the first have other values.
    fn new(case: &str, prefixes: &[&str], strays: &[&str]) -> Self {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families").join(case);
        let folder = tempfile::tempdir().expect("golden files");
        for entry in std::fs::read_dir(&golden).expect("golden files") {
            let from = entry.expect("golden files").path();
            std::fs::copy(&from, folder.path().join(from.file_name().expect("golden files"))).expect("golden files");
        }
        let file = TensorFile::open(&golden.join("model.safetensors")).expect("golden files");
        let mut tensors = Vec::new();
        for (index, prefix) in prefixes.iter().enumerate() {
            for (name, shape) in file.shapes().expect("golden files") {
                let values =
                    file.read(&name, &shape).expect("golden files").iter().map(|x| x * (1.0 + index as f32)).collect();
                tensors.push((format!("{prefix}{name}"), shape, values));
            }
        }
        tensors.extend(strays.iter().map(|name| ((*name).to_owned(), vec![2], vec![0.0; 2])));
        let tensors: &[(String, Vec<usize>, Vec<f32>)] = &tensors;
        let named: Vec<_> = tensors.iter().map(|(n, s, v)| (n.clone(), s.clone(), v.as_slice())).collect();
        write_tensors(&folder.path().join("model.safetensors"), &named, HashMap::new(), Storage::F32)
            .expect("golden files");
        Wrapped { folder }
    }

    fn weights(&self) -> PathBuf {
        self.folder.path().join("model.safetensors")
    }

    fn read(&self, key: Option<&str>) -> Result<(String, Vec<String>), Error> {
        let settings = ReadSettings { weights_key: key.map(str::to_owned), ..ReadSettings::default() };
        read_checkpoint_with(&self.weights(), &settings).map(|read| (read.checkpoint.digest(), read.notes))
    }
}

fn digest(case: &str) -> String {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families").join(case);
    read_checkpoint(&golden).expect("golden files").digest()
}

#[test]
fn what_a_framework_puts_in_front_of_every_name_is_taken_off() {
    for case in ["timm-augreg", "hf-vit", "hf-clip-classifier", "timm-dinov2-reg4"] {
        for prefix in ["module.", "model.", "_orig_mod.", "module._orig_mod.", "network.", "net.encoder.", "backbone."]
        {
            if prefix == "backbone." && case.starts_with("hf") {
                continue;
            }
            let (found, notes) = Wrapped::new(case, &[prefix], &[])
                .read(None)
                .unwrap_or_else(|error| panic!("{case} {prefix}: {error}"));
            assert_eq!(found, digest(case), "{case} {prefix}");
            assert!(notes.is_empty(), "{case} {prefix}: {notes:?}");
        }
    }
}

#[test]
fn what_is_left_aside_is_said() {
    let wrapped = Wrapped::new("timm-augreg", &["model."], &["criterion.weight", "ema.steps"]);
    let (found, notes) = wrapped.read(None).expect("golden files");
    assert_eq!(found, digest("timm-augreg"));
    assert!(
        notes[0].contains("2 tensors") && notes[0].contains("`model.`") && notes[0].contains("criterion.weight"),
        "{notes:?}"
    );
}

#[test]
fn of_teacher_and_student_the_teacher_is_taken_and_said() {
    let wrapped = Wrapped::new("timm-augreg", &["teacher.", "student."], &[]);
    let (found, notes) = wrapped.read(None).expect("golden files");
    assert_eq!(found, digest("timm-augreg"));
    assert!(notes[0].contains("`teacher.`") && notes[0].contains("`student.`"), "{notes:?}");
    let (student, _) = wrapped.read(Some("student")).expect("golden files");
    assert_ne!(student, found);
}

#[test]
fn of_several_models_under_other_names_one_has_to_be_named() {
    let wrapped = Wrapped::new("timm-augreg", &["left.", "right."], &[]);
    let error = wrapped.read(None).unwrap_err();
    assert!(matches!(&error, Error::WeightsKey { found, .. } if found == &["left.", "right."]), "{error}");
    assert_eq!(wrapped.read(Some("left")).expect("golden files").0, digest("timm-augreg"));
    assert!(wrapped.read(Some("middle")).is_err());
}

#[test]
fn a_key_for_a_file_of_one_set_is_refused() {
    let plain = Wrapped::new("timm-augreg", &[""], &[]);
    assert!(matches!(plain.read(Some("model")), Err(Error::WeightsKey { .. })));
    let own = plain.folder.path().join("own.safetensors");
    read_checkpoint(&plain.weights()).expect("golden files").write(&own, Storage::F32).expect("golden files");
    let settings = ReadSettings { weights_key: Some("model".to_owned()), ..ReadSettings::default() };
    assert!(matches!(read_checkpoint_with(&own, &settings), Err(Error::WeightsKey { .. })));
}

#[test]
fn a_classifier_without_a_bias_is_said() {
    let wrapped = Wrapped::new("timm-augreg", &[""], &[]);
    let file = TensorFile::open(&wrapped.weights()).expect("golden files");
    let kept = file.shapes().expect("golden files").into_iter().filter(|(name, _)| name != "head.bias");
    let kept: Vec<_> =
        kept.map(|(name, shape)| (file.read(&name, &shape).expect("golden files"), name, shape)).collect();
    let named: Vec<_> =
        kept.iter().map(|(values, name, shape)| (name.clone(), shape.clone(), values.as_slice())).collect();
    drop(file);
    write_tensors(&wrapped.weights(), &named, HashMap::new(), Storage::F32).expect("golden files");
    let (_, notes) = wrapped.read(None).expect("golden files");
    assert!(notes.iter().any(|note| note.contains("no bias")), "{notes:?}");
}

#[test]
fn a_byte_order_mark_before_the_description_is_passed_over() {
    let wrapped = Wrapped::new("hf-vit", &[""], &[]);
    for name in ["config.json", "preprocessor_config.json"] {
        let path = wrapped.folder.path().join(name);
        let text = std::fs::read_to_string(&path).expect("golden files");
        std::fs::write(&path, format!("\u{feff}{text}")).expect("golden files");
    }
    assert_eq!(wrapped.read(None).expect("golden files").0, digest("hf-vit"));
}

#[test]
fn the_processor_may_lie_within_processor_config() {
    let wrapped = Wrapped::new("hf-vit", &[""], &[]);
    let own = wrapped.folder.path().join("preprocessor_config.json");
    let text = std::fs::read_to_string(&own).expect("golden files");
    std::fs::remove_file(&own).expect("golden files");
    let nested = wrapped.folder.path().join("processor_config.json");
    std::fs::write(&nested, format!("{{\"image_processor\": {text}, \"processor_class\": \"X\"}}"))
        .expect("golden files");
    let read = read_checkpoint(&wrapped.weights()).expect("golden files");
    assert_eq!(
        read.preprocess,
        read_checkpoint(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families/hf-vit"))
            .expect("golden files")
            .preprocess
    );
    std::fs::write(&nested, format!("{{\"image_processor\": {}}}", text.replace("\"resample\": 3", "\"resample\": 0")))
        .expect("golden files");
    let error = read_checkpoint(&wrapped.weights()).unwrap_err().to_string();
    assert!(error.contains("processor_config.json") && error.contains("resample"), "{error}");
}

#[test]
fn a_wrapper_before_some_names_only_is_taken_off_as_timm_does() {
    let wrapped = Wrapped::new("timm-augreg", &[""], &[]);
    let file = TensorFile::open(&wrapped.weights()).expect("golden files");
    let rename = |name: &str| if name.starts_with("blocks.0") { format!("module.{name}") } else { name.to_owned() };
    let kept: Vec<_> = file.shapes().expect("golden files").into_iter().collect();
    let kept: Vec<_> = kept
        .into_iter()
        .map(|(name, shape)| (rename(&name), file.read(&name, &shape).expect("golden files"), shape))
        .collect();
    let named: Vec<_> =
        kept.iter().map(|(name, values, shape)| (name.clone(), shape.clone(), values.as_slice())).collect();
    drop(file);
    write_tensors(&wrapped.weights(), &named, HashMap::new(), Storage::F32).expect("golden files");
    assert_eq!(wrapped.read(None).expect("golden files").0, digest("timm-augreg"));
}
