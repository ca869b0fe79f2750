//! A compressed file of many images, unpacked once for all of them.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use melo_vit::{Preprocess, Rendering};

use crate::decode::decode_fragment;
use crate::grey::Fitted;
use crate::reference::{self, Fragment};
use crate::{Pixels, Seen, Volume, fit, nifti, volume};

/// Most bytes that are unpacked to be kept.
const MOST: u64 = 512 << 20;

/// The bytes of a compressed volume (`.nii.gz`), or of an array of an archive (`.npz`), of which a path names one image.
#[derive(Clone)]
pub struct Unpacked {
    file: PathBuf,
    member: Option<String>,
    bytes: Vec<u8>,
}

impl Unpacked {
    /// The file, or the array, that a path names a part of; `None` where nothing is gained by it: of other files, of ones that are larger
    /// than 512 MiB when unpacked, and of ones that cannot be read, which [`read_fit`](crate::read_fit) then says.
    pub fn of(path: &Path) -> Option<Self> {
        let (file, fragment) = part(path)?;
        let bytes = std::fs::read(&file).ok()?;
        Self::new(file, fragment, &bytes)
    }

    /// [`Unpacked::of`] a file held in memory, whose part `name` names.
    pub fn of_bytes(bytes: &[u8], name: &Path) -> Option<Self> {
        let (file, fragment) = reference::split(name);
        (file != name && fragment.names_one()).then(|| Self::new(file, fragment, bytes))?
    }

    fn new(file: PathBuf, fragment: Fragment, bytes: &[u8]) -> Option<Self> {
        let mut unpacked = Vec::new();
        if bytes.starts_with(&[0x1f, 0x8b]) && nifti::is_compressed(bytes) {
            flate2::read::MultiGzDecoder::new(bytes).take(MOST + 1).read_to_end(&mut unpacked).ok()?;
        } else if bytes.starts_with(b"PK") {
            let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).ok()?;
            let member = archive.by_name(&format!("{}.npy", fragment.place.member.as_ref()?)).ok()?;
            member.take(MOST + 1).read_to_end(&mut unpacked).ok()?;
        }
        let kept = !unpacked.is_empty() && unpacked.len() as u64 <= MOST;
        kept.then_some(Self { file, member: fragment.place.member, bytes: unpacked })
    }

    /// True where the path names a part of it.
    pub fn holds(&self, path: &Path) -> bool {
        part(path).is_some_and(|(file, fragment)| file == self.file && fragment.place.member == self.member)
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// What [`read_volume`](crate::read_volume) gives of a path that it [`holds`](Unpacked::holds).
    ///
    /// # Errors
    /// As there.
    pub fn volume(&self, path: &Path, rendering: &Rendering) -> Result<Volume, crate::Error> {
        let mut fragment = reference::split(path).1;
        fragment.place.member = None;
        volume::of_fragment(&self.bytes, path, &fragment, rendering)
    }

    /// What [`read_seen`](crate::read_seen) gives of a path that it [`holds`](Unpacked::holds).
    ///
    /// # Errors
    /// As there.
    pub fn decode_seen(&self, path: &Path, rendering: &Rendering) -> Result<(Pixels, Seen), crate::Error> {
        let mut fragment = reference::split(path).1;
        fragment.place.member = None;
        decode_fragment(&self.bytes, path, &fragment, rendering)
    }

    /// What [`read_fit_sized`](crate::read_fit_sized) gives of a path that it [`holds`](Unpacked::holds).
    ///
    /// # Errors
    /// As there.
    pub fn fit_sized(&self, path: &Path, spec: &Preprocess) -> Result<Fitted, crate::Error> {
        let (pixels, seen) = self.decode_seen(path, &spec.rendering)?;
        let (width, height) = (pixels.width, pixels.height);
        Ok(Fitted { pixels: fit(&pixels, spec), seen, width, height })
    }
}

impl std::fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacked").field("file", &self.file).field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// File and fragment of a path that names one image of a file.
fn part(path: &Path) -> Option<(PathBuf, Fragment)> {
    let (file, fragment) = reference::split(path);
    (file != path && fragment.names_one() && !path.exists()).then_some((file, fragment))
}
