//! Tiny models of every family, saved by their own libraries (`tools/golden/families.py`): the same logits here.

use melo_interop::{read_backbone, read_checkpoint};
use melo_vit::{DeviceSpec, Head, ImageBatch, PluginRef, TensorFile};
use std::path::{Path, PathBuf};

fn families() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families");
    let entries = std::fs::read_dir(folder).expect("golden files").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

/// f32 sums of up to 64 terms, some 60 operations one after the other in another order than PyTorch's: the roundings (6e-8
/// each) mostly cancel, and what is left is far below what one wrong constant would do.
const RELATIVE: f32 = 2e-5;

#[test]
fn every_family_gives_the_logits_of_its_own_library() {
    let families = families();
    assert!(families.len() >= 48, "golden files of {} families", families.len());
    let mut wrong = Vec::new();
    for folder in families {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let engine = match read_backbone(&folder) {
            Ok(backbone) => DeviceSpec::default().open().load(backbone).unwrap(),
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let expected = TensorFile::open(&folder.with_extension("safetensors")).unwrap();
        let shapes = expected.shapes().unwrap();
        let (pixels, classes) = (&shapes["pixels"], shapes["logits"][1]);
        let batch = ImageBatch { size: pixels[3], data: expected.read("pixels", pixels).unwrap() };
        let logits = expected.read("logits", &shapes["logits"]).unwrap();
        let backbone = engine.backbone();
        let width = backbone.config().feature_width();
        let head = backbone.classifier().cloned().unwrap_or_else(|| {
            assert_eq!(classes, width, "{name}: features where there is no classifier");
            let identity = (0..width * width).map(|i| if i / width == i % width { 1.0 } else { 0.0 }).collect();
            Head { weight: identity, bias: vec![0.0; width], decoder: None }
        });
        let bare = PluginRef { adapter: None, head: &head };
        let found = engine.logits(&batch, pixels[0], pixels[3], bare).unwrap();
        let largest = logits.iter().fold(0f32, |a, b| a.max(b.abs()));
        let difference = found.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max) / largest;
        println!("{name}: {difference:.1e}");
        if found.len() != logits.len() || difference.is_nan() || difference > RELATIVE {
            wrong.push(format!("{name}: logits differ by {difference:e}: {found:?}, expected {logits:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_checkpoint_written_in_our_own_format_is_the_same_backbone() {
    let scratch = tempfile::tempdir().unwrap();
    for folder in families() {
        let checkpoint = read_checkpoint(&folder).unwrap();
        let path = scratch.path().join("own.safetensors");
        checkpoint.write(&path, melo_vit::Storage::F32).unwrap();
        let again = read_checkpoint(&path).unwrap();
        assert_eq!((again.digest(), &again.config), (checkpoint.digest(), &checkpoint.config), "{}", folder.display());
    }
}
