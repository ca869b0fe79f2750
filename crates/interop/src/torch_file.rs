//! What `torch.save` writes since PyTorch 1.6: a zip archive of one pickle and the bytes of its storages.

use crate::pickle::{Id, Pickle, Value};
use half::{bf16, f16};
use melo_vit::{Error, MappedFile, TensorSource, check_finite};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use zip::{CompressionMethod, ZipArchive};

/// Most bytes of the pickle itself; the tensors lie beside it.
const MOST_PICKLE: u64 = 64 << 20;
/// Names under which training scripts keep the weights inside their checkpoints, in the order they are looked for.
const WRAPPERS: [&str; 5] = ["state_dict", "model", "teacher", "model_state_dict", "module"];

/// A checkpoint of PyTorch, mapped.
pub(crate) struct TorchFile {
    path: PathBuf,
    bytes: MappedFile,
    tensors: BTreeMap<String, Tensor>,
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
    /// Reads the pickle and finds the bytes of every tensor; no tensor is decoded.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`].
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let bytes = MappedFile::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let tensors = find_tensors(&bytes).map_err(|reason| Error::Damaged {
            path: path.to_owned(),
            format: "PyTorch checkpoint",
            reason,
        })?;
        Ok(TorchFile { path: path.to_owned(), bytes, tensors })
    }
}

fn find_tensors(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
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
    let pickle = Pickle::parse(&pickle)?;
    let dict = state_dict(&pickle);
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
    if tensors.is_empty() { Err("no tensor in it".into()) } else { Ok(tensors) }
}

/// The dictionary of tensors: the root, or what training scripts wrap it in.
fn state_dict(pickle: &Pickle) -> Id {
    let mut dict = pickle.root;
    while let Some(inner) = WRAPPERS.iter().find_map(|key| pickle.get(dict, key)) {
        if !matches!(pickle.values[inner], Value::Dict(_)) || inner <= dict {
            break;
        }
        dict = inner;
    }
    dict
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
