//! Damaged and misleading tensors, each refused by its name; nothing panics.

use super::bench::{adapter, classes, engine, golden, read_anew, take, temporary};
use super::settings::copy;
use melo_interop::{AdapterFormat, Error, ImportSettings, detect_format, import};
use melo_vit::{Storage, TensorFile, write_tensors};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn read(path: &Path) -> Tensors {
    let file = TensorFile::open(path).unwrap();
    let shapes = file.shapes().unwrap();
    shapes.into_iter().map(|(name, shape)| (name.clone(), (shape.clone(), file.read(&name, &shape).unwrap()))).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let tensors: Vec<_> = tensors.iter().map(|(n, (s, v))| (n.clone(), s.clone(), v.as_slice())).collect();
    write_tensors(path, &tensors, HashMap::new(), Storage::F32).unwrap();
}

/// The error of a golden adapter whose tensors were spoilt.
fn spoilt(name: &str, spoil: impl FnOnce(&mut Tensors)) -> String {
    let (folder, from) = (temporary(), adapter(name));
    let family = if from.is_dir() { name.split('_').next().unwrap() } else { "timm" };
    let (path, file) = if from.is_dir() {
        copy(name, folder.path());
        (folder.path().to_owned(), folder.path().join("adapter_model.safetensors"))
    } else {
        std::fs::copy(&from, folder.path().join("x.safetensors")).unwrap();
        (folder.path().join("x.safetensors"), folder.path().join("x.safetensors"))
    };
    let mut tensors = read(&file);
    spoil(&mut tensors);
    write(&file, &tensors);
    let alpha = (!from.is_dir()).then_some(3.0);
    take(&path, &*engine(family), alpha).expect_err(name).to_string()
}

const A: &str = "base_model.model.blocks.0.attn.qkv.lora_A.weight";
const B: &str = "base_model.model.blocks.0.attn.qkv.lora_B.weight";

fn assert_has(error: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| error.contains(part)), "expected {parts:?} in {error}");
}

#[test]
fn tensors_of_peft() {
    let missing = |name: &str| spoilt("timm_qkv", |tensors| drop(tensors.remove(name)));
    assert_has(&missing(A), &[A, "missing"]);
    assert_has(&missing(B), &[B, "missing"]);
    assert_has(&missing("base_model.model.head.bias"), &["head.bias", "missing"]);
    assert_has(&missing("base_model.model.head.weight"), &["head.weight", "missing"]);
    let shaped = |name: &str, shape: &[usize]| {
        spoilt("timm_qkv", |tensors| {
            let values = vec![0.5; shape.iter().product()];
            tensors.insert(name.to_owned(), (shape.to_vec(), values));
        })
    };
    assert_has(&shaped("base_model.model.fc.bias", &[3]), &["fc.weight", "missing"]);
    assert_has(&shaped(A, &[16, 3]), &[A, "[16, 3]", "[3, 16]"]);
    assert_has(&shaped(A, &[]), &[A, "[3, 16]"]);
    assert_has(&shaped(B, &[16, 3]), &[B, "[48, 3]"]);
    assert_has(&shaped("base_model.model.head.weight", &[3, 15]), &["head.weight", "[3, 16]"]);
    let cases = [
        ("blocks.0.attn.qkv.lora_A.weight", "base_model.model."),
        ("base_model.model.blocks.7.attn.qkv.lora_A.weight", "2 blocks"),
        ("base_model.model.patch_embed.proj.lora_A.weight", "only projections of the blocks"),
        ("base_model.model.blocks.0.norm1.weight", "trained as a whole"),
        ("base_model.model.blocks.0.attn.qkv.lora_magnitude_vector", "DoRA"),
        ("base_model.model.blocks.0.attn.qkv.lora_B.bias", "a bias of an update"),
        ("base_model.model.pos_embed.lora_embedding_A", "embedding"),
        ("base_model.model.head.lora_A.weight", "classifier"),
        ("base_model.model.blocks.0.attn.qkv.lora_A.other.weight", "unnamed adapter"),
        ("base_model.model.../../etc.lora_A.weight", "only projections"),
        ("base_model.model.blocks.0.mlp.fc1.lora_A.weight", "do not ask for"),
        ("base_model.model.vit.layers.0.attention.q_proj.lora_A.weight", "do not ask for"),
        ("base_model.model.classifier.weight", "classifiers of several models"),
    ];
    for (name, part) in cases {
        assert_has(&shaped(name, &[1, 1]), &[name, part]);
    }
}

#[test]
fn tensors_of_the_authors() {
    let missing = |name: &str| spoilt("unicad", |tensors| drop(tensors.remove(name)));
    assert_has(&missing("w_a_003"), &["w_a_003", "missing"]);
    assert_has(&missing("w_b_000"), &["w_b_000", "missing"]);
    assert_has(&missing("fc_16in_3out_bias"), &["fc_16in_3out_bias", "missing"]);
    assert_has(&missing("fc_16in_3out_weight"), &["fc_16in_3out_bias", "without its weight"]);
    let shaped = |name: &str, shape: &[usize]| {
        spoilt("authors", |tensors| {
            drop(tensors.insert(name.to_owned(), (shape.to_vec(), vec![0.5; shape.iter().product()])))
        })
    };
    assert_has(&shaped("w_a_000", &[16, 4]), &["w_a_000"]);
    assert_has(&shaped("w_a_000", &[4, 17]), &["w_a_000", "[4, 17]"]);
    assert_has(&shaped("w_a_000", &[0, 16]), &["w_a_000"]);
    assert_has(&shaped("w_b_001", &[4, 16]), &["w_b_001", "[16, 4]"]);
    assert_has(&shaped("w_a_004", &[4, 16]), &["w_a_004", "2 blocks"]);
    assert_has(&shaped("w_a_99999999999999999999", &[1]), &["w_a_9999"]);
    assert_has(&shaped("extra", &[1]), &["extra"]);
    assert_has(&shaped("fc_16in_4out", &[4, 16]), &["second classifier"]);
    let misnamed = spoilt("authors", |tensors| {
        let head = tensors.remove("fc_16in_3out").unwrap();
        tensors.insert("fc_16in_9999999999out".to_owned(), head);
    });
    assert_has(&misnamed, &["fc_16in_9999999999out", "[9999999999, 16]"]);
}

#[test]
fn damaged_files() {
    let folder = temporary();
    copy("timm_qkv", folder.path());
    let path = folder.path().join("adapter_model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let engine = engine("timm");
    for len in (0..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..len]).unwrap();
        let error = take(folder.path(), &*engine, None).expect_err("it is cut").to_string();
        assert_has(&error, &["adapter_model.safetensors", "not a safetensors file"]);
    }
    let mut nan = whole.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, &nan).unwrap();
    assert_has(&take(folder.path(), &*engine, None).expect_err("NaN").to_string(), &["NaN"]);
    let config = folder.path().join("adapter_config.json");
    std::fs::write(&path, &whole).unwrap();
    let text = std::fs::read(&config).unwrap();
    for len in (0..text.len() - 2).step_by(53) {
        std::fs::write(&config, &text[..len]).unwrap();
        assert_has(&take(folder.path(), &*engine, None).expect_err("cut").to_string(), &["adapter_config.json"]);
    }
    std::fs::write(&config, "[".repeat(100_000)).unwrap();
    assert_has(&take(folder.path(), &*engine, None).expect_err("deep").to_string(), &["adapter_config.json"]);
}

#[test]
fn whose_files_they_are_is_told_by_their_content() {
    assert_eq!(detect_format(&golden("timm_qkv")).unwrap(), AdapterFormat::Peft);
    assert_eq!(detect_format(&golden("unicad.safetensors")).unwrap(), AdapterFormat::Authors);
    let folder = temporary();
    assert_has(&detect_format(folder.path()).unwrap_err().to_string(), &["a folder without adapter_config.json"]);
    assert_has(&detect_format(&golden("timm.safetensors")).unwrap_err().to_string(), &["no adapter", "blocks.0"]);
    let engine = engine("timm");
    let plugin = take(&adapter("unicad"), &*engine, Some(1.0)).unwrap().plugin;
    let path = folder.path().join("own.safetensors");
    plugin.save(&path, engine.backbone().config(), Storage::F32).unwrap();
    assert_has(&detect_format(&path).unwrap_err().to_string(), &["needs no import"]);
}

/// The error of a golden adapter imported with other words.
fn said(name: &str, settings: &ImportSettings<'_>) -> Error {
    import(&adapter(name), &*engine("timm"), settings).expect_err(name)
}

#[test]
fn what_the_user_has_to_say() {
    let names = classes();
    let full = ImportSettings { task: Some("t"), classes: Some(&names), ..ImportSettings::default() };
    assert_has(&said("authors", &full).to_string(), &["alpha"]);
    assert_has(&said("timm_qkv", &ImportSettings { alpha: Some(1.0), ..full.clone() }).to_string(), &["says alpha"]);
    assert_has(&said("timm_qkv", &ImportSettings { task: None, ..full.clone() }).to_string(), &["task"]);
    assert_has(&said("timm_qkv", &ImportSettings { classes: None, ..full.clone() }).to_string(), &["3 classes"]);
    let two = &names[..2];
    assert_has(
        &said("timm_qkv", &ImportSettings { classes: Some(two), ..full.clone() }).to_string(),
        &["3 classes", "2 are named"],
    );
    for alpha in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert_has(&said("authors", &ImportSettings { alpha: Some(alpha), ..full.clone() }).to_string(), &["alpha is"]);
    }
    let twice = vec!["a".to_owned(); 3];
    assert_has(&said("timm_qkv", &ImportSettings { classes: Some(&twice), ..full.clone() }).to_string(), &["repeat"]);
    let head = golden("unicad.safetensors");
    assert_has(
        &said("timm_qkv", &ImportSettings { head: Some(&head), ..full }).to_string(),
        &["classifier of its own"],
    );
}

#[test]
fn a_classifier_may_come_from_another_file() {
    let (folder, engine, names) = (temporary(), engine("timm"), classes());
    let path = folder.path().join("x.safetensors");
    let mut tensors = read(&adapter("authors"));
    tensors.remove("fc_16in_3out");
    write(&path, &tensors);
    let settings =
        ImportSettings { task: Some("t"), classes: Some(&names), alpha: Some(3.0), ..ImportSettings::default() };
    let error = import(&path, &*engine, &settings).unwrap_err().to_string();
    assert_has(&error, &["no classifier"]);
    let weight = (vec![3, 16], vec![0.25; 48]);
    let head = folder.path().join("head.safetensors");
    for (given, bias) in [
        (
            Tensors::from([
                ("classifier.weight".into(), weight.clone()),
                ("classifier.bias".into(), (vec![3], vec![1.0; 3])),
            ]),
            1.0,
        ),
        (Tensors::from([("fc_16in_3out".into(), weight.clone())]), 0.0),
    ] {
        write(&head, &given);
        let plugin = import(&path, &*engine, &ImportSettings { head: Some(&head), ..settings.clone() }).unwrap().plugin;
        assert_eq!((plugin.head.weight[5], plugin.head.bias[2]), (0.25, bias));
    }
    write(&head, &Tensors::from([("something".into(), weight)]));
    let error = import(&path, &*engine, &ImportSettings { head: Some(&head), ..settings }).unwrap_err().to_string();
    assert_has(&error, &["head.safetensors", "no classifier"]);
}

#[test]
fn cards_of_others() {
    let (folder, engine) = (temporary(), engine("timm"));
    let card = folder.path().join("card.json");
    let plugin = take(&adapter("timm_qkv"), &*engine, None).unwrap().plugin;
    let mut own = plugin.card.clone();
    own.temperature = 2.5;
    own.self_test = read_anew(&own);
    let text = serde_json::to_string(&own).unwrap();
    std::fs::write(&card, &text).unwrap();
    let settings = ImportSettings { card: Some(&card), ..ImportSettings::default() };
    let again = import(&golden("timm_qkv"), &*engine, &settings).unwrap().plugin;
    assert_eq!(again.card, own);
    let other = super::bench::engine("deit");
    let error = import(&golden("deit_qkv"), &*other, &settings).unwrap_err().to_string();
    assert_has(&error, &["card.json", "belongs to backbone"]);
    let error = import(&golden("timm_qkv"), &*engine, &ImportSettings { multi_label: true, ..settings.clone() });
    assert_has(&error.unwrap_err().to_string(), &["multi-label"]);
    std::fs::write(&card, &text[..text.len() / 2]).unwrap();
    assert_has(
        &import(&golden("timm_qkv"), &*engine, &settings).unwrap_err().to_string(),
        &["card.json", "not a card"],
    );
}
