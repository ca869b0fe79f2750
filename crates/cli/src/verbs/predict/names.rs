//! Names of the files that are written beside answers: from images and cards, never leading elsewhere, never taken twice.

use crate::Failure;
use melo::vit::folder_of;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Bytes of a file name that the image's name and each of the others may take; all together stay below 255, which is
/// the most that common file systems allow.
const STEM_BYTES: usize = 100;
const NAME_BYTES: usize = 50;

/// A folder, and the names that are taken there.
pub(super) struct Names<'a> {
    folder: &'a Path,
    /// In lower case: some file systems do not tell cases apart.
    taken: HashSet<String>,
}

impl<'a> Names<'a> {
    /// Makes the folder that `flag` names. Images that are read may lie there, whose names are taken.
    pub(super) fn open(flag: &str, folder: &'a Path, images: &[PathBuf]) -> Result<Self, Failure> {
        let refused = |reason: String| format!("{flag} {}: {reason}", folder.display());
        if folder.exists() && !folder.is_dir() {
            return Err(Failure::Usage(refused("is a file, expected a folder".to_owned())));
        }
        std::fs::create_dir_all(folder).map_err(|error| Failure::Message(refused(error.to_string())))?;
        let here = folder.canonicalize().map_err(|error| Failure::Message(refused(error.to_string())))?;
        let inside = images.iter().filter(|image| folder_of(image).canonicalize().is_ok_and(|folder| folder == here));
        let taken = inside.filter_map(|image| Some(image.file_name()?.to_string_lossy().to_lowercase())).collect();
        Ok(Names { folder, taken })
    }

    /// A file of an image, `IMAGE.A.B.ending`, that is not taken: names are reduced to letters, digits, `-`, `_` and `.`.
    pub(super) fn file(&mut self, image: &Path, parts: &[&str], ending: &str) -> PathBuf {
        let stem = image.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let names = parts.iter().map(|part| plain(part, NAME_BYTES));
        let base = std::iter::once(plain(&stem, STEM_BYTES)).chain(names).collect::<Vec<_>>().join(".");
        let numbered = |n: usize| if n == 1 { format!("{base}.{ending}") } else { format!("{base}.{n}.{ending}") };
        let free = |name: &String| self.taken.insert(name.to_lowercase());
        self.folder.join((1..).map(numbered).find(free).expect("numbers do not end"))
    }
}

/// A name as part of a file name of at most `bytes` bytes: it never begins with a dot and never leads elsewhere.
fn plain(name: &str, bytes: usize) -> String {
    let allowed = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let mut plain: String = name.chars().map(allowed).collect();
    if plain.is_empty() || plain.starts_with('.') {
        plain.insert(0, '_');
    }
    let end = (0..=bytes.min(plain.len())).rev().find(|&end| plain.is_char_boundary(end));
    plain.truncate(end.unwrap_or(0));
    plain
}
