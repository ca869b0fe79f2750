//! Google's Vision Transformers (`vision_transformer`, augreg): NumPy archives of Flax parameters, seen under timm's names.
//!
//! Flax keeps matrices as `[in, out]`, convolutions as `[height, width, in, out]`, and heads on an axis of their own.

use melo_npy::Header;
use melo_vit::{Error, MappedFile, TensorSource, check_finite};
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// A NumPy archive.
pub(crate) struct NpzFile {
    path: PathBuf,
    bytes: MappedFile,
    /// Array and order of axes by timm's name.
    tensors: BTreeMap<String, Array>,
    /// Attention heads.
    pub(crate) heads: usize,
}

struct Array {
    /// The entry's name in the archive; three of them for q, k and v.
    entries: Vec<String>,
    /// Shape as stored, of one entry.
    stored: Vec<usize>,
    layout: Layout,
}

/// How a stored array becomes timm's.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// As it is; axes are joined or put in front where timm's shape is another.
    Same,
    /// `[in, out]`, after joining the axes of the heads, to `[out, in]`.
    Transposed,
    /// `[height, width, in, out]` to `[out, in, height, width]`.
    Convolution,
}

impl NpzFile {
    /// Reads the headers of all arrays.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`], [`Error::UnexpectedTensor`], [`Error::MissingTensor`].
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let bytes = MappedFile::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let damaged = |reason: String| Error::Damaged { path: path.to_owned(), format: "NumPy archive", reason };
        let shapes = headers(&bytes).map_err(damaged)?;
        let heads = shapes.iter().find(|(name, _)| name.ends_with("query/kernel")).and_then(|(_, shape)| shape.get(1));
        let heads = *heads.ok_or_else(|| damaged("no `query/kernel`: not the weights of Google's ViT".into()))?;
        let mut tensors: BTreeMap<String, Array> = BTreeMap::new();
        for (entry, stored) in shapes {
            let Some((timm, layout)) = place(&entry) else {
                let hint = "no part of Google's ViT has this name".to_owned();
                return Err(Error::UnexpectedTensor { path: path.to_owned(), name: entry, hint });
            };
            let array =
                tensors.entry(timm).or_insert_with(|| Array { entries: Vec::new(), stored: stored.clone(), layout });
            if array.stored != stored {
                let (expected, found) = (array.stored.clone(), stored);
                return Err(Error::Shape { path: path.to_owned(), name: entry, expected, found });
            }
            array.entries.push(entry);
        }
        for (timm, array) in &mut tensors {
            let parts = ["query", "key", "value"];
            array.entries.sort_by_key(|entry| parts.iter().position(|part| entry.contains(part)));
            if timm.contains("qkv") && array.entries.len() != 3 {
                return Err(Error::MissingTensor {
                    path: path.to_owned(),
                    name: format!("query, key or value of {timm}"),
                });
            }
        }
        Ok(NpzFile { path: path.to_owned(), bytes, tensors, heads })
    }
}

/// timm's name of an entry, and how its array becomes timm's.
fn place(entry: &str) -> Option<(String, Layout)> {
    let name = ["opt/target/", "params/"].iter().find_map(|prefix| entry.strip_prefix(prefix)).unwrap_or(entry);
    let top = match name {
        "cls" => Some(("cls_token", Layout::Same)),
        "embedding/kernel" => Some(("patch_embed.proj.weight", Layout::Convolution)),
        "embedding/bias" => Some(("patch_embed.proj.bias", Layout::Same)),
        "Transformer/posembed_input/pos_embedding" => Some(("pos_embed", Layout::Same)),
        "Transformer/encoder_norm/scale" => Some(("norm.weight", Layout::Same)),
        "Transformer/encoder_norm/bias" => Some(("norm.bias", Layout::Same)),
        "head/kernel" => Some(("head.weight", Layout::Transposed)),
        "head/bias" => Some(("head.bias", Layout::Same)),
        _ => None,
    };
    if let Some((timm, layout)) = top {
        return Some((timm.to_owned(), layout));
    }
    let (block, inner) = name.strip_prefix("Transformer/encoderblock_")?.split_once('/')?;
    let block: usize = block.parse().ok()?;
    let (module, parameter) = inner.rsplit_once('/')?;
    let module = match module {
        "LayerNorm_0" => "norm1",
        "LayerNorm_2" => "norm2",
        "MlpBlock_3/Dense_0" => "mlp.fc1",
        "MlpBlock_3/Dense_1" => "mlp.fc2",
        "MultiHeadDotProductAttention_1/out" => "attn.proj",
        "MultiHeadDotProductAttention_1/query"
        | "MultiHeadDotProductAttention_1/key"
        | "MultiHeadDotProductAttention_1/value" => "attn.qkv",
        _ => return None,
    };
    let (parameter, layout) = match parameter {
        "kernel" => ("weight", Layout::Transposed),
        "scale" => ("weight", Layout::Same),
        "bias" => ("bias", Layout::Same),
        _ => return None,
    };
    Some((format!("blocks.{block}.{module}.{parameter}"), layout))
}

impl Array {
    /// `(in, out)` of a stored matrix whose heads are joined.
    fn matrix(&self) -> Option<(usize, usize)> {
        match self.stored[..] {
            [input, out] => Some((input, out)),
            // Of q, k and v the heads are outputs, of the projection that follows they are inputs.
            [d, heads, width] if self.entries.len() == 3 => Some((d, heads.checked_mul(width)?)),
            [heads, width, out] => Some((heads.checked_mul(width)?, out)),
            _ => None,
        }
    }

    fn shape(&self, timm: &str) -> Option<Vec<usize>> {
        let parts = self.entries.len();
        Some(match (self.layout, &self.stored[..]) {
            (Layout::Convolution, &[y, x, input, out]) => vec![out, input, y, x],
            (Layout::Convolution, _) => return None,
            (Layout::Transposed, _) => {
                let (input, out) = self.matrix()?;
                vec![parts.checked_mul(out)?, input]
            }
            (Layout::Same, shape) if timm.ends_with("_token") || timm == "pos_embed" => shape.to_vec(),
            (Layout::Same, shape) => vec![shape.iter().try_fold(parts, |product, size| product.checked_mul(*size))?],
        })
    }
}

impl TensorSource for NpzFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>, Error> {
        let shape = |(timm, array): (&String, &Array)| match array.shape(timm) {
            Some(shape) => Ok((timm.clone(), shape)),
            None => {
                let (name, found) = (array.entries[0].clone(), array.stored.clone());
                let hint = format!("an array of shape {found:?} cannot be `{timm}`");
                Err(Error::UnexpectedTensor { path: self.path.clone(), name, hint })
            }
        };
        self.tensors.iter().map(shape).collect()
    }

    fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, Error> {
        let path = self.path.clone();
        let Some(array) = self.tensors.get(name) else {
            return Err(Error::MissingTensor { path, name: name.to_owned() });
        };
        let found = array.shape(name).unwrap_or_default();
        if found != expected {
            return Err(Error::Shape { path, name: name.to_owned(), expected: expected.to_vec(), found });
        }
        let mut values = Vec::new();
        for entry in &array.entries {
            let part = values_of(&self.bytes, entry, &array.stored).map_err(|reason| Error::Damaged {
                path: path.clone(),
                format: "NumPy archive",
                reason,
            })?;
            match (array.layout, array.matrix(), &array.stored[..]) {
                (Layout::Transposed, Some((input, out)), _) => values.extend(transpose(&part, input, out)),
                (Layout::Convolution, _, &[y, x, input, out]) => {
                    // `[y, x, in, out]` is `[y·x·in, out]`; its transpose `[out, y·x, in]` has the inputs last.
                    for kernel in transpose(&part, y * x * input, out).chunks_exact(y * x * input) {
                        values.extend(transpose(kernel, y * x, input));
                    }
                }
                _ => values.extend(part),
            }
        }
        check_finite(&path, name, values)
    }
}

/// `[rows, columns]` to `[columns, rows]`.
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// Shape of every array by its name, from the headers alone.
fn headers(bytes: &[u8]) -> Result<BTreeMap<String, Vec<usize>>, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let mut shapes = BTreeMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| error.to_string())?;
        let full = entry.name().map_err(|error| error.to_string())?.into_owned();
        let Some(name) = full.strip_suffix(".npy").map(str::to_owned) else {
            return Err(format!("`{full}` is no array"));
        };
        let shape = header(&mut entry).map_err(|reason| format!("array `{name}`: {reason}"))?;
        shapes.insert(name, shape);
    }
    Ok(shapes)
}

/// Reads the header of an array of little-endian f32 in C order: its shape.
fn header(reader: &mut impl Read) -> Result<Vec<usize>, String> {
    let Header { descr, shape, .. } = Header::read(reader).map_err(|error| format!("{error}, expected '<f4'"))?;
    if descr != "<f4" {
        return Err(format!("holds '{}', expected '<f4'", descr.escape_debug()));
    }
    shape.into_iter().map(|side| usize::try_from(side).map_err(|_| format!("has a side of `{side}`"))).collect()
}

fn values_of(bytes: &[u8], entry: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let wrong = |error: &dyn ToString| format!("array `{entry}`: {}", error.to_string());
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| wrong(&error))?;
    let mut file = archive.by_name(&format!("{entry}.npy")).map_err(|error| wrong(&error))?;
    let claimed = file.size();
    header(&mut file)?;
    let len = shape.iter().try_fold(4u64, |len, size| len.checked_mul(*size as u64));
    let len = len.filter(|len| *len <= claimed).ok_or_else(|| wrong(&"is cut off"))?;
    let mut raw = Vec::new();
    // Not allocated by what the entry claims: what cannot be unpacked is not there.
    file.take(len).read_to_end(&mut raw).map_err(|error| wrong(&error))?;
    if raw.len() as u64 != len {
        return Err(wrong(&"is cut off"));
    }
    Ok(raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}
