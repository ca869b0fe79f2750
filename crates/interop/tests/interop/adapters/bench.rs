//! The golden files, and what every test does with them.

use melo_interop::{ImportSettings, Imported, import};
use melo_vit::{Checkpoint, DeviceSpec, Engine, ImageBatch, Plugin, ReadBy, SelfTest, TaskCard, TensorFile};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Classes of every golden adapter.
pub(crate) const CLASSES: usize = 3;
const IMAGES: usize = 3;
const SIZE: usize = 16;

/// Every golden adapter: its name, the family of its backbone, and alpha where its file does not say it.
pub(crate) const CASES: [(&str, &str, Option<f32>); 11] = [
    ("timm_qkv", "timm", None),
    ("timm_patterns", "timm", None),
    ("timm_layers", "timm", None),
    ("timm_regex", "timm", None),
    ("deit_qkv", "deit", None),
    ("hf_new", "hf", None),
    ("hf_old", "hf", None),
    ("hf_all_linear", "hf", None),
    ("hf_rslora_patterns", "hf", None),
    ("authors", "timm", Some(3.0)),
    ("unicad", "timm", Some(6.0)),
];

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

pub(crate) fn checkpoint(family: &str) -> Checkpoint {
    Checkpoint::read(&golden(&format!("{family}.safetensors"))).expect("the golden backbone is whole")
}

pub(crate) fn engine(family: &str) -> Arc<dyn Engine> {
    engine_of(checkpoint(family))
}

pub(crate) fn engine_of(checkpoint: Checkpoint) -> Arc<dyn Engine> {
    DeviceSpec::default().open().load(checkpoint.freeze()).expect("an engine")
}

/// Where a golden adapter lies.
pub(crate) fn adapter(name: &str) -> PathBuf {
    let file = golden(&format!("{name}.safetensors"));
    if file.exists() { file } else { golden(name) }
}

pub(crate) fn classes() -> Vec<String> {
    (0..CLASSES).map(|class| format!("finding {class}")).collect()
}

/// Imports with every word that a user would have to say.
pub(crate) fn take(path: &Path, engine: &dyn Engine, alpha: Option<f32>) -> Result<Imported, melo_interop::Error> {
    let classes = classes();
    import(
        path,
        engine,
        &ImportSettings { task: Some("golden"), classes: Some(&classes), alpha, ..ImportSettings::default() },
    )
}

/// The golden images.
pub(crate) fn images() -> ImageBatch {
    let file = TensorFile::open(&golden("logits.safetensors")).unwrap();
    ImageBatch { size: SIZE, data: file.read("input", &[IMAGES, 3, SIZE, SIZE]).unwrap() }
}

/// PyTorch's logits.
pub(crate) fn expected(name: &str) -> Vec<f32> {
    let file = TensorFile::open(&golden("logits.safetensors")).unwrap();
    file.read(&format!("logits.{name}"), &[IMAGES, CLASSES]).unwrap()
}

/// Our logits of the golden images.
pub(crate) fn logits(engine: &dyn Engine, plugin: &Plugin) -> Vec<f32> {
    engine.logits(&images(), IMAGES, SIZE, plugin.into()).expect("images of this size are tiled")
}

/// Within 1e-4 of the largest logit: f32 sums in another order differ by about 1e-6.
pub(crate) fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    let largest = expected.iter().fold(0.0f32, |top, x| top.max(x.abs()));
    assert_eq!(found.len(), expected.len(), "{what}");
    let off = found.iter().zip(expected).fold(0.0f32, |top, (a, b)| top.max((a - b).abs()));
    assert!(off <= 1e-4 * largest, "{what}: off by {off:e} of {largest}\n{found:?}\n{expected:?}");
}

/// An empty folder that outlives the test: `tools/golden/adapters.py --verify` reads it with the real libraries.
pub(crate) fn lasting(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A folder that is gone after the test.
pub(crate) fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// The self-test of a card whose temperature was set after it was taken.
pub(crate) fn read_anew(card: &TaskCard) -> Option<SelfTest> {
    let (sets, scope_limits) = (card.sets.as_ref(), card.scope_limits.as_ref());
    let by = ReadBy { temperature: card.temperature, thresholds: &card.thresholds, sets, scope_limits };
    card.self_test.clone().map(|test| test.read_by(card, by))
}
