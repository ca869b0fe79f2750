//! What the classes of a backbone's own classifier are called: by the JSON beside the weights, or because they are ImageNet's.

use crate::checkpoint::{sidecar, weights_in};
use crate::hub::locate;
use crate::huggingface::read_json;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The classes of ImageNet-1k in the order of its challenge (ILSVRC 2012, as timm's and torchvision's weights have them): the
/// first word of WordNet 3.0 for each synset, told apart where two share it.
const IMAGENET: &str = include_str!("imagenet.txt");
/// How descriptions and files name ImageNet-1k as what a classifier was trained on.
const OF_IMAGENET: [&str; 3] = ["in1k", "imagenet2012", "imagenet-1k"];

/// The names of the `classes` classes of the classifier that came with the weights at `path`, which is what
/// [`crate::read_checkpoint`] takes. `id2label` of Hugging Face goes first, then `label_names` of timm; then ImageNet's, of a
/// thousand classes whose description or file says `in1k`. None where nothing says it.
///
/// Names that are said more than once carry their number.
pub fn class_names(path: &Path, classes: usize) -> Option<Vec<String>> {
    let weights = weights_in(&locate(path).ok()?).ok()?;
    let json: Value = sidecar(&weights).and_then(|sidecar| read_json(&sidecar).ok()).unwrap_or_default();
    let names = of_hugging_face(&json, classes).or_else(|| of_timm(&json, classes));
    let names = names.or_else(|| is_imagenet(&json, path, &weights, classes).then(imagenet))?;
    Some(told_apart(names))
}

/// `id2label`; transformers writes `LABEL_7` where nobody named a class.
fn of_hugging_face(json: &Value, classes: usize) -> Option<Vec<String>> {
    let labels = json.get("id2label")?.as_object()?;
    let name = |class: usize| Some(labels.get(&class.to_string())?.as_str()?.trim().to_owned());
    let names: Vec<String> = (0..classes).map(name).collect::<Option<_>>()?;
    let unnamed = names.iter().enumerate().all(|(class, name)| *name == format!("LABEL_{class}"));
    let whole = labels.len() == classes && !unnamed && names.iter().all(|name| !name.is_empty());
    whole.then_some(names)
}

/// `label_names`, in timm's JSON or its `pretrained_cfg`.
fn of_timm(json: &Value, classes: usize) -> Option<Vec<String>> {
    let names = [json.get("label_names"), json.pointer("/pretrained_cfg/label_names")].into_iter().flatten();
    let names = names.filter_map(Value::as_array).find(|names| names.len() == classes)?;
    names.iter().map(|name| Some(name.as_str()?.to_owned())).collect()
}

fn is_imagenet(json: &Value, path: &Path, weights: &Path, classes: usize) -> bool {
    let said =
        ["/architecture", "/pretrained_cfg/tag", "/pretrained_cfg/hf_hub_id", "/pretrained_cfg/url", "/_name_or_path"];
    let said = said.into_iter().filter_map(|field| json.pointer(field)?.as_str().map(str::to_owned));
    let named = [path, weights].map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    let says_so = |text: String| OF_IMAGENET.iter().any(|word| text.to_lowercase().contains(word));
    classes == imagenet().len() && said.chain(named).any(says_so)
}

fn imagenet() -> Vec<String> {
    IMAGENET.lines().map(str::to_owned).collect()
}

fn told_apart(names: Vec<String>) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    names.iter().for_each(|name| *counts.entry(name.clone()).or_default() += 1);
    let apart = |(class, name): (usize, String)| if counts[&name] > 1 { format!("{name} ({class})") } else { name };
    names.into_iter().enumerate().map(apart).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Names of a folder with weights and this JSON.
    fn names(file: &str, json: &Value, classes: usize) -> Option<Vec<String>> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("config.json"), json.to_string()).expect("written");
        let weights = folder.path().join(file);
        std::fs::write(&weights, b"weights").expect("written");
        let [by_file, by_folder] = [weights.as_path(), folder.path()].map(|path| class_names(path, classes));
        assert_eq!(by_file, by_folder);
        by_file
    }

    #[test]
    fn a_thousand_classes_of_imagenet_have_its_names() {
        let timm =
            json!({ "architecture": "vit_tiny_patch16_224", "pretrained_cfg": { "tag": "augreg_in21k_ft_in1k" } });
        let found = names("model.safetensors", &timm, 1000).expect("names");
        assert_eq!((found[0].as_str(), found[281].as_str(), found[999].as_str()), ("tench", "tabby", "toilet tissue"));
        let mut distinct = found.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!((found.len(), distinct.len()), (1000, 1000));
        assert!(names("vit.augreg_in1k.safetensors", &json!({ "architecture": "vit" }), 1000).is_some());
    }

    #[test]
    fn other_classifiers_are_not_given_imagenets_names() {
        let in21k = json!({ "architecture": "vit_tiny_patch16_224", "pretrained_cfg": { "tag": "augreg_in21k" } });
        assert_eq!(names("model.safetensors", &in21k, 1000), None);
        let in1k = json!({ "pretrained_cfg": { "tag": "fb_in1k" } });
        assert_eq!(names("model.safetensors", &in1k, 7), None);
        assert_eq!(names("model.safetensors", &Value::Null, 1000), None);
    }

    #[test]
    fn names_beside_the_weights_go_first() {
        let labels: serde_json::Map<String, Value> = (0..1000)
            .map(|class| (class.to_string(), json!(if class < 2 { "crane".into() } else { format!("c{class}") })))
            .collect();
        let json = json!({ "id2label": labels, "_name_or_path": "vit-in1k" });
        let found = names("model.safetensors", &json, 1000).expect("names");
        assert_eq!(found[..3], ["crane (0)", "crane (1)", "c2"], "names are told apart");
        let timm = json!({ "label_names": ["benign", "malignant"] });
        assert_eq!(names("model.safetensors", &timm, 2), Some(vec!["benign".to_owned(), "malignant".to_owned()]));
    }

    #[test]
    fn labels_that_are_no_names_or_of_another_number_of_classes_are_not_taken() {
        for labels in
            [json!({ "0": "LABEL_0", "1": "LABEL_1" }), json!({ "0": "a" }), json!({ "0": "a", "1": "b", "2": "c" })]
        {
            assert_eq!(names("model.safetensors", &json!({ "id2label": labels }), 2), None);
        }
    }
}
