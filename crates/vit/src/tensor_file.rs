//! Safetensors in and out: mapped and checked on the way in, atomic on the way out.

use crate::error::Error;
use half::{bf16, f16};
use melo_kernels::MappedFile;
use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Metadata key that holds a plug-in's card.
pub(crate) const CARD_KEY: &str = "melo.card";
/// Metadata key under which this software's own backbones describe themselves.
pub(crate) const BACKBONE_KEY: &str = "melo.backbone";

/// How numbers are stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// 32-bit floats: bit-equal after loading.
    F32,
    /// 16-bit floats: half the bytes, 11 significant bits.
    F16,
}

impl Storage {
    /// True when `x` is a finite number in this storage.
    fn holds(self, x: f32) -> bool {
        match self {
            Storage::F32 => x.is_finite(),
            Storage::F16 => f16::from_f32(x).is_finite(),
        }
    }

    /// `x` as it is read back.
    pub fn round(self, x: f32) -> f32 {
        match self {
            Storage::F32 => x,
            Storage::F16 => f16::from_f32(x).to_f32(),
        }
    }
}

/// A tensor to be written: name, shape, values.
pub type NamedTensor<'a> = (String, Vec<usize>, &'a [f32]);

/// Named tensors of a checkpoint, in whatever files they lie.
pub trait TensorSource: Sync {
    /// The file or folder, for errors.
    fn path(&self) -> &Path;

    /// Shapes by tensor name.
    ///
    /// # Errors
    /// What is wrong with the file.
    fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>, Error>;

    /// One tensor as f32.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], [`Error::DType`], [`Error::NonFinite`].
    fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, Error>;
}

/// Checks that the tensors of these shapes are there, before anything is allocated for them.
///
/// # Errors
/// [`Error::MissingTensor`], [`Error::Shape`].
pub(crate) fn require(source: &dyn TensorSource, shapes: &[(String, Vec<usize>)]) -> Result<(), Error> {
    let found = source.shapes()?;
    for (name, expected) in shapes {
        let (path, name) = (source.path().to_owned(), name.clone());
        match found.get(&name) {
            None => return Err(Error::MissingTensor { path, name }),
            Some(found) if found != expected => {
                return Err(Error::Shape { path, name, expected: expected.clone(), found: found.clone() });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Reads the tensors of these shapes into `into`, in order.
///
/// # Errors
/// As [`TensorSource::read`].
pub(crate) fn read_all(
    source: &dyn TensorSource,
    shapes: &[(String, Vec<usize>)],
    into: Vec<&mut Vec<f32>>,
) -> Result<(), Error> {
    assert_eq!(shapes.len(), into.len(), "one destination a tensor");
    let read: Vec<_> = shapes.par_iter().map(|(name, shape)| source.read(name, shape)).collect();
    for (values, destination) in read.into_iter().zip(into) {
        *destination = values?;
    }
    Ok(())
}

/// The values, or the first that is NaN or an infinity.
///
/// # Errors
/// [`Error::NonFinite`].
pub fn check_finite(path: &Path, name: &str, values: Vec<f32>) -> Result<Vec<f32>, Error> {
    // A part at a time, so that instructions of many values look at it.
    let whole = |part: &&[f32]| part.iter().fold(true, |whole, x| whole & x.is_finite());
    let from = 1024 * values.chunks(1024).take_while(whole).count();
    match (from..values.len()).find(|&index| !values[index].is_finite()) {
        Some(index) => {
            let (path, name, value) = (path.to_owned(), name.to_owned(), values[index]);
            Err(Error::NonFinite { path, name, index, value })
        }
        None => Ok(values),
    }
}

/// A safetensors file, mapped.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    bytes: MappedFile,
}

impl TensorFile {
    /// Maps the file and checks its header.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotSafetensors`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        TensorFile::open_as(path, path)
    }

    /// As [`TensorFile::open`], of a file that errors call by another name; by none if that is empty.
    ///
    /// # Errors
    /// As [`TensorFile::open`].
    pub fn open_as(path: &Path, name: &Path) -> Result<Self, Error> {
        let bytes = MappedFile::open(path).map_err(|source| Error::Io { path: name.to_owned(), source })?;
        let file = TensorFile { path: name.to_owned(), bytes };
        file.parse()?;
        Ok(file)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn not_safetensors(&self, reason: impl ToString) -> Error {
        Error::NotSafetensors { path: self.path.clone(), reason: reason.to_string() }
    }

    fn parse(&self) -> Result<SafeTensors<'_>, Error> {
        SafeTensors::deserialize(&self.bytes).map_err(|error| self.not_safetensors(error))
    }

    /// Shapes by tensor name.
    ///
    /// # Errors
    /// [`Error::NotSafetensors`].
    pub fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>, Error> {
        Ok(self.parse()?.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect())
    }

    /// Bytes of the tensors whose names begin so.
    pub(crate) fn bytes_of(&self, prefix: &str) -> Result<usize, Error> {
        let of =
            self.parse()?.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, view)| view.data().len()).sum();
        Ok(of)
    }

    /// The header's free-form entries.
    ///
    /// # Errors
    /// [`Error::NotSafetensors`].
    pub fn metadata(&self) -> Result<HashMap<String, String>, Error> {
        let (_, metadata) = SafeTensors::read_metadata(&self.bytes).map_err(|error| self.not_safetensors(error))?;
        Ok(metadata.metadata().clone().unwrap_or_default())
    }

    /// The bytes of a file with the same tensors, bit for bit, and another free-form entry.
    pub(crate) fn with_metadata(&self, key: &str, value: String) -> Result<Vec<u8>, Error> {
        let mut metadata = self.metadata()?;
        metadata.insert(key.to_owned(), value);
        let tensors = self.parse()?.tensors();
        safetensors::serialize(tensors, Some(metadata)).map_err(|error| self.not_safetensors(error))
    }

    /// The bytes of a file with some of the tensors, bit for bit, under the names that they are given, and another free-form entry.
    pub(crate) fn renamed(
        &self,
        name: impl Fn(&str) -> Option<String>,
        key: &str,
        value: String,
    ) -> Result<Vec<u8>, Error> {
        let mut metadata = self.metadata()?;
        metadata.insert(key.to_owned(), value);
        let tensors = self.parse()?.tensors().into_iter().filter_map(|(known, view)| Some((name(&known)?, view)));
        safetensors::serialize(tensors, Some(metadata)).map_err(|error| self.not_safetensors(error))
    }

    /// One tensor as f32.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], [`Error::DType`], [`Error::NonFinite`].
    pub fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, Error> {
        let (path, name) = (self.path.clone(), name.to_owned());
        let tensors = self.parse()?;
        let Ok(view) = tensors.tensor(&name) else {
            return Err(Error::MissingTensor { path, name });
        };
        if view.shape() != expected {
            return Err(Error::Shape { path, name, expected: expected.to_vec(), found: view.shape().to_vec() });
        }
        let Some(values) = to_f32(&view) else {
            return Err(Error::DType { path, name, found: format!("{:?}", view.dtype()) });
        };
        check_finite(&path, &name, values)
    }

    /// Reads the tensors of these shapes into `into`, in order.
    ///
    /// # Errors
    /// As [`TensorFile::read`].
    pub fn read_all(&self, shapes: &[(String, Vec<usize>)], into: Vec<&mut Vec<f32>>) -> Result<(), Error> {
        read_all(self, shapes, into)
    }
}

impl TensorSource for TensorFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>, Error> {
        TensorFile::shapes(self)
    }

    fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, Error> {
        TensorFile::read(self, name, expected)
    }
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    match view.dtype() {
        Dtype::F64 => Some(bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect()),
        Dtype::F32 => Some(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
        Dtype::F16 => Some(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect()),
        Dtype::BF16 => Some(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect()),
        _ => None,
    }
}

/// Writes a safetensors file atomically: whole, or not at all.
///
/// # Errors
/// [`Error::Io`], and [`Error::NonFinite`] for values that would be NaN or an infinity in the file.
pub fn write_tensors(
    path: &Path,
    tensors: &[NamedTensor<'_>],
    metadata: HashMap<String, String>,
    storage: Storage,
) -> Result<(), Error> {
    check_storable(path, tensors, storage)?;
    let encoded: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, shape, values)| {
            let bytes = match storage {
                Storage::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
                Storage::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            };
            (name.clone(), shape.clone(), bytes)
        })
        .collect();
    let dtype = match storage {
        Storage::F32 => Dtype::F32,
        Storage::F16 => Dtype::F16,
    };
    let views = encoded.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(dtype, shape.clone(), bytes).expect("the bytes were made for this shape");
        (name.as_str(), view)
    });
    let bytes = safetensors::serialize(views, Some(metadata)).expect("names are unique and views are whole");
    write_atomically(path, &bytes)
}

/// Refuses values that would be NaN or an infinity in the file.
pub(crate) fn check_storable(path: &Path, tensors: &[NamedTensor<'_>], storage: Storage) -> Result<(), Error> {
    for (name, _, values) in tensors {
        if let Some(index) = values.iter().position(|&x| !storage.holds(x)) {
            let (path, name, value) = (path.to_owned(), name.clone(), values[index]);
            return Err(Error::NonFinite { path, name, index, value });
        }
    }
    Ok(())
}

/// The folder that a file lies in: `.` for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes `bytes` to a temporary file beside `path`, flushes it to the disk, and renames it into place.
///
/// # Errors
/// [`Error::Io`]; whatever stood at `path` is then untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || -> std::io::Result<()> {
        let folder = folder_of(path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(".melo-");
        // A temporary file is its owner's alone by default; a result gets what the user's umask leaves.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        file.as_file_mut().write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|source| Error::Io { path: path.to_owned(), source })
}
