//! Safetensors in several files, with the index that says which tensor lies where.

use melo_vit::{Error, TensorFile, TensorSource};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `model.safetensors.index.json` as Hugging Face writes it.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// A checkpoint in several safetensors files.
pub(crate) struct Sharded {
    path: PathBuf,
    shards: BTreeMap<String, TensorFile>,
    /// Shard by tensor name.
    place: BTreeMap<String, String>,
}

impl Sharded {
    /// Maps every shard that the index names; all lie in its folder.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let damaged = |reason: String| Error::Damaged { path: path.to_owned(), format: "index of shards", reason };
        let Index { weight_map } = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        let mut shards = BTreeMap::new();
        for shard in weight_map.values() {
            if Path::new(shard).file_name().is_none_or(|name| name != shard.as_str()) {
                return Err(damaged(format!("shard `{shard}` is not a file name")));
            }
            if !shards.contains_key(shard) {
                shards.insert(shard.clone(), TensorFile::open(&path.with_file_name(shard))?);
            }
        }
        Ok(Sharded { path: path.to_owned(), shards, place: weight_map })
    }
}

impl TensorSource for Sharded {
    fn path(&self) -> &Path {
        &self.path
    }

    fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>, Error> {
        let by_shard: BTreeMap<&str, _> =
            self.shards.iter().map(|(name, file)| Ok((name.as_str(), file.shapes()?))).collect::<Result<_, Error>>()?;
        let shape = |(name, shard): (&String, &String)| {
            let found = by_shard.get(shard.as_str()).and_then(|shapes| shapes.get(name));
            let missing = || Error::MissingTensor { path: self.path.with_file_name(shard), name: name.clone() };
            Ok((name.clone(), found.ok_or_else(missing)?.clone()))
        };
        self.place.iter().map(shape).collect()
    }

    fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, Error> {
        match self.place.get(name) {
            Some(shard) => self.shards[shard].read(name, expected),
            None => Err(Error::MissingTensor { path: self.path.clone(), name: name.to_owned() }),
        }
    }
}
