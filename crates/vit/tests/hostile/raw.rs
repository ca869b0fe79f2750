//! A safetensors file taken apart, so that one thing in it can be wrong; and what every refusal must say.

use crate::tiny;
use melo_vit::{BackboneInfo, Error, LoraConfig, Plugin, Storage, Target};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Type, shape and bytes of a tensor.
pub(crate) type RawTensor = (Dtype, Vec<usize>, Vec<u8>);

/// Everything in a file.
pub(crate) struct RawFile {
    pub(crate) tensors: BTreeMap<String, RawTensor>,
    pub(crate) metadata: HashMap<String, String>,
}

impl RawFile {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |(name, view): (&str, TensorView<'_>)| {
            (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        RawFile { tensors: file.iter().map(tensor).collect(), metadata: header.metadata().clone().unwrap_or_default() }
    }

    pub(crate) fn write(&self, path: &Path) {
        let views = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, data))| (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
        std::fs::write(path, safetensors::serialize(views, Some(self.metadata.clone())).unwrap()).unwrap();
    }

    /// Replaces a tensor by f32 values.
    pub(crate) fn set(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.insert(name.to_owned(), (Dtype::F32, shape.to_vec(), data));
    }
}

/// A file with this header, length first, and these bytes after it.
pub(crate) fn write_header(path: &Path, header: &str, data: &[u8]) {
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(path, [&length, header.as_bytes(), data].concat()).unwrap();
}

/// The tiny backbone of this seed, without its weights.
pub(crate) fn info(seed: u64) -> BackboneInfo {
    tiny::checkpoint(&tiny::config(), seed).freeze().info().clone()
}

/// A backbone and a good plug-in for it in a folder of their own: rank 4 on q and v of width 16, three classes.
pub(crate) struct Fixture {
    pub(crate) backbone: BackboneInfo,
    pub(crate) plugin: Plugin,
    pub(crate) path: PathBuf,
    pub(crate) folder: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task.safetensors");
        let backbone = info(1);
        let targets = vec![Target::Q, Target::V];
        let lora = LoraConfig { rank: 4, alpha: 2.0, targets, blocks: vec![0, 1], ..LoraConfig::none() };
        Fixture::of(folder, path, tiny::plugin(&backbone, &lora, 3, 2), backbone)
    }

    /// One with a bottleneck of width 5 after block 1 and nothing else.
    pub(crate) fn with_bottleneck() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task.safetensors");
        let backbone = info(1);
        let bare = tiny::adapter(&LoraConfig::none(), backbone.config(), 2);
        let adapter = tiny::with_bottlenecks(bare, 5, &[1], backbone.config(), 2);
        Fixture::of(folder, path, tiny::plugin_of(&backbone, adapter, 3, 2), backbone)
    }

    fn of(folder: tempfile::TempDir, path: PathBuf, plugin: Plugin, backbone: BackboneInfo) -> Self {
        plugin.save(&path, backbone.config(), Storage::F32).unwrap();
        Fixture { backbone, plugin, path, folder }
    }

    /// Loads the file, which must be refused.
    pub(crate) fn refused(&self) -> Error {
        match Plugin::load(&self.path, &self.backbone) {
            Err(error) => error,
            Ok(_) => panic!("{} was accepted", self.path.display()),
        }
    }

    /// The same after a change to the file's tensors or metadata.
    pub(crate) fn refused_after(&self, change: impl FnOnce(&mut RawFile)) -> Error {
        let mut file = RawFile::read(&self.path);
        change(&mut file);
        file.write(&self.path);
        self.refused()
    }

    /// The same after a change to the card.
    pub(crate) fn refused_after_card(&self, change: impl FnOnce(&mut Value)) -> Error {
        self.change_card(change);
        self.refused()
    }

    /// Changes the card in the file.
    pub(crate) fn change_card(&self, change: impl FnOnce(&mut Value)) {
        let mut file = RawFile::read(&self.path);
        let mut card: Value = serde_json::from_str(&file.metadata["melo.card"]).unwrap();
        change(&mut card);
        file.metadata.insert("melo.card".to_owned(), card.to_string());
        file.write(&self.path);
    }

    /// Names of the files in the folder.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Asserts the variant of an error, and that its message names the file and every one of some words.
macro_rules! assert_error {
    ($error:expr, $variant:pat, $path:expr $(, $word:expr)* $(,)?) => {{
        let error: melo_vit::Error = $error;
        let message = error.to_string();
        assert!(matches!(error, $variant), "expected {}, found {error:?}", stringify!($variant));
        let path = std::path::Path::new(&$path).display().to_string();
        for word in [path.as_str() $(, AsRef::<str>::as_ref(&$word))*] {
            assert!(message.contains(word), "`{message}` does not name `{word}`");
        }
    }};
}
pub(crate) use assert_error;
