//! What `torch.save` writes since PyTorch 1.6: a zip archive of one pickle and the bytes of its storages.

use crate::pickle::{Id, Pickle, Value};
use half::{bf16, f16};
use melo_vit::{Error, MappedFile, TensorSource, check_finite};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use zip::{CompressionMethod, ZipArchive};

/// Most bytes of the pickle itself; the tensors lie beside it.
const MOST_PICKLE: u64 = 64 << 20;
/// Names under which training scripts keep the weights inside their checkpoints, in the order they are looked for: first as
/// timm's `load_state_dict` does, then the teacher of a self-distillation, which its authors evaluate.
const WRAPPERS: [&str; 9] =
    ["state_dict_ema", "model_ema", "state_dict", "model", "teacher", "model_state_dict", "module", "network", "net"];

/// A checkpoint of PyTorch, mapped.
pub(crate) struct TorchFile {
    path: PathBuf,
    bytes: MappedFile,
    tensors: BTreeMap<String, Tensor>,
    /// The set of weights that is read, by its keys from the root.
    pub(crate) key: Vec<String>,
    /// Other sets of weights in the file, by their keys.
    pub(crate) others: Vec<String>,
}

struct Tensor {
    kind: &'static str,
    /// The storage's bytes in the file.
    storage: Range<usize>,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl TorchFile {
    /// Reads the pickle and finds the bytes of every tensor of one set of weights, that under `key` where one is named; no
    /// tensor is decoded.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`], [`Error::WeightsKey`].
    pub(crate) fn open(path: &Path, key: Option<&str>) -> Result<Self, Error> {
        let bytes = MappedFile::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let damaged = |reason| Error::Damaged { path: path.to_owned(), format: "PyTorch checkpoint", reason };
        let (mut archive, root, pickle) = open_pickle(&bytes).map_err(damaged)?;
        let sets = Sets::of(&pickle);
        let chosen = sets.choose(key).map_err(|reason| match (key, sets.names()) {
            (Some(_), found) | (None, found) if found.len() > 1 || key.is_some() => {
                Error::WeightsKey { path: path.to_owned(), reason, found }
            }
            _ => damaged(reason),
        })?;
        let tensors = find_tensors(&bytes, &mut archive, &root, &pickle, chosen.dict).map_err(damaged)?;
        let others = sets.names().into_iter().filter(|name| *name != chosen.keys.join(".")).collect();
        let key = chosen.keys.clone();
        Ok(TorchFile { path: path.to_owned(), tensors, key, others, bytes })
    }
}

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// The archive, what its names begin with, and its pickle.
fn open_pickle(bytes: &[u8]) -> Result<(Archive<'_>, String, Pickle), String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let names: Result<Vec<String>, _> = archive.file_names().map(|name| name.map(Cow::into_owned)).collect();
    let names = names.map_err(|error| error.to_string())?;
    let pickle_name = names.iter().find(|name| name.ends_with("/data.pkl") && name.matches('/').count() == 1);
    let pickle_name = pickle_name.ok_or("no data.pkl in it")?;
    let root = pickle_name.trim_end_matches("data.pkl");
    if names.iter().any(|name| name.starts_with(&format!("{root}code/"))) {
        return Err("a TorchScript archive; save its `state_dict()` and read that".into());
    }
    let mut pickle = Vec::new();
    let entry = archive.by_name(pickle_name).map_err(|error| error.to_string())?;
    entry.take(MOST_PICKLE).read_to_end(&mut pickle).map_err(|error| error.to_string())?;
    let (root, pickle) = (root.to_owned(), Pickle::parse(&pickle)?);
    Ok((archive, root, pickle))
}

fn find_tensors(
    bytes: &[u8],
    archive: &mut Archive<'_>,
    root: &str,
    pickle: &Pickle,
    dict: Id,
) -> Result<BTreeMap<String, Tensor>, String> {
    let Value::Dict(entries) = &pickle.values[dict] else {
        return Err("no dictionary of tensors".into());
    };
    let mut tensors = BTreeMap::new();
    for (key, value) in entries {
        let (Value::Text(name), Value::Tensor { storage, offset, shape, strides }) =
            (&pickle.values[*key], &pickle.values[*value])
        else {
            continue;
        };
        let Value::Storage { kind, key, len } = &pickle.values[*storage] else {
            return Err(format!("tensor `{name}` has no storage"));
        };
        let entry = archive.by_name(&format!("{root}data/{key}")).map_err(|error| format!("storage {key}: {error}"))?;
        let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
        let stored = entry.compression() == CompressionMethod::Stored;
        let range = start.zip(usize::try_from(entry.size()).ok()).and_then(|(start, size)| {
            let end = start.checked_add(size)?;
            (stored && end <= bytes.len() && len.checked_mul(width(kind)?)? <= size).then_some(start..end)
        });
        let storage =
            range.ok_or_else(|| format!("storage {key} of tensor `{name}` is cut off, packed or of no known type"))?;
        let last = shape
            .iter()
            .zip(strides)
            .try_fold(*offset, |last, (size, stride)| last.checked_add(size.saturating_sub(1).checked_mul(*stride)?));
        let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
        // A stride of zero would make a tensor of any size out of one value.
        let fits = count.is_some_and(|count| count <= *len) && last.is_some_and(|last| last < *len);
        if !shape.contains(&0) && !fits {
            return Err(format!("tensor `{name}` reaches beyond its storage of {len} values"));
        }
        let (shape, strides) = (shape.clone(), strides.clone());
        tensors.insert(name.clone(), Tensor { kind, storage, offset: *offset, shape, strides });
    }
    Ok(tensors)
}

/// A set of weights: a dictionary that holds tensors.
#[derive(Clone)]
struct Set {
    /// Its keys from the root; none for the root itself.
    keys: Vec<String>,
    dict: Id,
    tensors: usize,
}

/// Every set of weights of a checkpoint.
struct Sets(Vec<Set>);

impl Sets {
    /// Dictionaries within dictionaries are looked through to this depth: DINOv2 keeps its teacher two deep.
    const DEPTH: usize = 3;
    /// Dictionaries of what an optimiser keeps for every parameter.
    const STATES: [&'static str; 5] =
        ["optimizer", "optimizer_state_dict", "optimizer_states", "lr_scheduler", "scaler"];

    fn of(pickle: &Pickle) -> Self {
        let (mut sets, mut seen) = (Vec::new(), HashSet::new());
        Self::collect(pickle, &[], pickle.root, &mut sets, &mut seen);
        // What else a training keeps in tensors, as a step's number or the centre of a loss, is no set of weights.
        let most = sets.iter().map(|set| set.tensors).max().unwrap_or(0);
        sets.retain(|set| 2 * set.tensors >= most);
        Sets(sets)
    }

    /// Finds the sets in a dictionary; one that is met again is passed over.
    fn collect(pickle: &Pickle, keys: &[String], dict: Id, found: &mut Vec<Set>, seen: &mut HashSet<Id>) {
        let Value::Dict(entries) = &pickle.values[dict] else { return };
        if !seen.insert(dict) {
            return;
        }
        let is_tensor = |(_, value): &&(Id, Id)| matches!(pickle.values[*value], Value::Tensor { .. });
        let tensors = entries.iter().filter(is_tensor).count();
        if tensors > 0 {
            found.push(Set { keys: keys.to_vec(), dict, tensors });
        }
        if keys.len() == Self::DEPTH {
            return;
        }
        for (key, value) in entries {
            let Value::Text(name) = &pickle.values[*key] else { continue };
            if !Self::STATES.contains(&name.as_str()) {
                let keys: Vec<String> = keys.iter().cloned().chain([name.clone()]).collect();
                Self::collect(pickle, &keys, *value, found, seen);
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|set| set.keys.join(".")).filter(|name| !name.is_empty()).collect()
    }

    /// The set under `key`; without one, that under the best known name at every depth, the root's own tensors, or the only one.
    fn choose(&self, key: Option<&str>) -> Result<&Set, String> {
        if let Some(key) = key {
            let found = self.0.iter().find(|set| set.keys.join(".") == key);
            return found.ok_or_else(|| format!("no weights under `{key}`"));
        }
        let rank = |set: &&Set| -> Option<Vec<usize>> {
            set.keys.iter().map(|key| WRAPPERS.iter().position(|known| known == key)).collect()
        };
        if let Some(known) = self.0.iter().filter(|set| !set.keys.is_empty() && rank(set).is_some()).min_by_key(rank) {
            return Ok(known);
        }
        match self.0.as_slice() {
            [] => Err("no tensor in it".into()),
            [root, ..] if root.keys.is_empty() => Ok(root),
            [only] => Ok(only),
            _ => Err("several sets of weights, none under a name that says which counts".into()),
        }
    }
}

/// Bytes of one value.
fn width(kind: &str) -> Option<usize> {
    Some(match kind {
        "torch.DoubleStorage" | "torch.LongStorage" => 8,
        "torch.FloatStorage" | "torch.IntStorage" => 4,
        "torch.HalfStorage" | "torch.BFloat16Storage" => 2,
        "torch.BoolStorage" | "torch.ByteStorage" => 1,
        _ => return None,
    })
}

impl TensorSource for TorchFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>, Error> {
        Ok(self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect())
    }

    fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, Error> {
        let path = self.path.clone();
        let Some(tensor) = self.tensors.get(name) else {
            return Err(Error::MissingTensor { path, name: name.to_owned() });
        };
        if tensor.shape != expected {
            let (expected, found) = (expected.to_vec(), tensor.shape.clone());
            return Err(Error::Shape { path, name: name.to_owned(), expected, found });
        }
        let bytes = &self.bytes[tensor.storage.clone()];
        let at = |index: usize| -> Option<f32> {
            Some(match tensor.kind {
                "torch.FloatStorage" => f32::from_le_bytes(bytes.as_chunks().0[index]),
                "torch.HalfStorage" => f16::from_le_bytes(bytes.as_chunks().0[index]).to_f32(),
                "torch.BFloat16Storage" => bf16::from_le_bytes(bytes.as_chunks().0[index]).to_f32(),
                "torch.DoubleStorage" => f64::from_le_bytes(bytes.as_chunks().0[index]) as f32,
                _ => return None,
            })
        };
        let values: Option<Vec<f32>> = match is_contiguous(&tensor.shape, &tensor.strides) {
            true => (tensor.offset..tensor.offset + expected.iter().product::<usize>()).map(at).collect(),
            false => indices(tensor).map(at).collect(),
        };
        let dtype = || Error::DType { path: path.clone(), name: name.to_owned(), found: tensor.kind.to_owned() };
        check_finite(&path, name, values.ok_or_else(dtype)?)
    }
}

/// True where row-major order is that of the storage.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected *= size;
        fits
    })
}

/// Places in the storage, in row-major order of the tensor.
fn indices(tensor: &Tensor) -> impl Iterator<Item = usize> {
    let count: usize = tensor.shape.iter().product();
    (0..count).map(|mut flat| {
        let mut at = tensor.offset;
        for (&size, &stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
            at += flat % size * stride;
            flat /= size;
        }
        at
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint whose root holds dictionaries of so many tensors under keys with dots for depth, and tensors of its own.
    fn checkpoint(sets: &[(&str, usize)]) -> Pickle {
        let mut values = vec![Value::Tensor { storage: 0, offset: 0, shape: vec![1], strides: vec![1] }];
        let mut root = Vec::new();
        for (keys, tensors) in sets {
            let mut entries = Vec::new();
            for index in 0..*tensors {
                values.push(Value::Text(format!("t{index}")));
                entries.push((values.len() - 1, 0));
            }
            let mut names: Vec<&str> = keys.split('.').filter(|key| !key.is_empty()).collect();
            while let Some(name) = names.pop() {
                values.push(Value::Dict(std::mem::take(&mut entries)));
                let dict = values.len() - 1;
                values.push(Value::Text(name.to_owned()));
                entries.push((values.len() - 1, dict));
            }
            root.extend(entries);
        }
        values.push(Value::Dict(root));
        Pickle { root: values.len() - 1, values }
    }

    fn chosen(sets: &[(&str, usize)], key: Option<&str>) -> Result<String, String> {
        Sets::of(&checkpoint(sets)).choose(key).map(|set| set.keys.join("."))
    }

    #[test]
    fn the_set_that_timm_takes_is_taken() {
        for (sets, expected) in [
            (&[("state_dict", 9), ("state_dict_ema", 9)][..], "state_dict_ema"),
            (&[("model", 9), ("model_ema", 9)], "model_ema"),
            (&[("model", 9), ("state_dict", 9)], "state_dict"),
            (&[("student", 9), ("teacher", 9)], "teacher"),
            (&[("student", 9), ("teacher", 9), ("state_dict", 9)], "state_dict"),
            (&[("model.state_dict", 9), ("optimizer.x", 9)], "model.state_dict"),
            (&[("", 9)], ""),
            (&[("anything", 9)], "anything"),
            (&[("teacher", 9), ("dino_loss", 1)], "teacher"),
            (&[("anything", 9), ("loss", 1), ("", 1)], "anything"),
        ] {
            assert_eq!(chosen(sets, None).as_deref(), Ok(expected), "{sets:?}");
        }
        assert!(chosen(&[("a", 9), ("b", 9)], None).is_err());
        assert!(chosen(&[], None).is_err());
    }

    #[test]
    fn a_key_names_any_set_and_no_other() {
        let sets = [("state_dict", 9), ("teacher.backbone", 9)];
        assert_eq!(chosen(&sets, Some("teacher.backbone")).as_deref(), Ok("teacher.backbone"));
        assert!(chosen(&sets, Some("student")).unwrap_err().contains("`student`"));
    }
}
