//! Where the images of a table are: beside it, or in a folder given apart, whatever machine wrote their paths.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use melo_imaging::{EXTENSIONS, file_of, images_in};

use crate::{Error, Note};

/// Images that are looked for before the paths of a table are taken as they are written.
const TRIED: usize = 16;

/// The folders in which images are looked for.
pub(crate) struct Finder<'a> {
    table: &'a Path,
    /// The folder of the table.
    beside: &'a Path,
    /// The folder that was given.
    apart: Option<&'a Path>,
    /// Files of the folder given, and of those inside it, by name and by name without extension.
    below: OnceCell<HashMap<String, Vec<PathBuf>>>,
    /// Files beside the table, by name without extension.
    siblings: OnceCell<HashMap<String, Vec<PathBuf>>>,
}

impl<'a> Finder<'a> {
    pub(crate) fn new(table: &'a Path, apart: Option<&'a Path>) -> Self {
        let beside = table.parent().unwrap_or(Path::new(""));
        Self { table, beside, apart, below: OnceCell::new(), siblings: OnceCell::new() }
    }

    /// The file of each name; those that are nowhere stay where they are written. A note where paths were cut.
    ///
    /// # Errors
    /// [`Error::Ambiguous`] for a name that two files have; [`Error::Image`] for a folder that cannot be listed.
    pub(crate) fn places(&self, names: &[(usize, &str)]) -> Result<(Vec<PathBuf>, Option<Note>), Error> {
        if let Some(apart) = self.apart.filter(|folder| !folder.is_dir()) {
            let source = std::fs::read_dir(apart).err().unwrap_or_else(|| std::io::ErrorKind::NotADirectory.into());
            return Err(Error::Read { path: apart.into(), source });
        }
        let written: Vec<PathBuf> = names.iter().map(|(_, name)| self.written(name)).collect();
        // Paths of a project's root, or of another tree: cut where none of the first is there.
        let none_there = !written.iter().take(TRIED).any(|path| is_there(path));
        let mut cut: Option<(usize, usize, &str, PathBuf)> = None;
        let mut places = Vec::with_capacity(names.len());
        for (&(line, name), written) in names.iter().zip(written) {
            let foreign = is_foreign(name);
            let bare = !has_known_extension(name);
            if !(foreign || bare || none_there || self.apart.is_some()) || is_there(&written) {
                places.push(written);
                continue;
            }
            let with_extension = if bare { self.with_extension(line, name)? } else { None };
            if let Some(found) = with_extension {
                places.push(found);
                continue;
            }
            match self.by_end(line, name, foreign || none_there || self.apart.is_some())? {
                Some(found) => {
                    let (images, ..) = cut.get_or_insert_with(|| (0, line, name, found.clone()));
                    *images += 1;
                    places.push(found);
                }
                None => places.push(written),
            }
        }
        let note = cut.map(|(images, line, written, found)| Note::Elsewhere {
            images,
            line,
            written: written.to_owned(),
            found: found.display().to_string(),
        });
        Ok((places, note))
    }

    /// Where a name says that it is: in the folder given if it is there, else beside the table.
    fn written(&self, name: &str) -> PathBuf {
        let apart = self.apart.map(|folder| folder.join(name)).filter(|path| is_there(path));
        apart.unwrap_or_else(|| match self.apart {
            Some(folder) if !is_there(&self.beside.join(name)) => folder.join(name),
            _ => self.beside.join(name),
        })
    }

    /// A name without extension, with the one that its file has.
    fn with_extension(&self, line: usize, name: &str) -> Result<Option<PathBuf>, Error> {
        let slashed = name.replace('\\', "/");
        for folder in self.apart.into_iter().chain([self.beside]) {
            let tries = EXTENSIONS.iter().flat_map(|extension| [extension.to_string(), extension.to_uppercase()]);
            let found: Vec<PathBuf> = tries
                .map(|extension| folder.join(format!("{slashed}.{extension}")))
                .filter(|path| path.is_file())
                .collect();
            if let Some(found) = self.one(line, name, &found)? {
                return Ok(Some(found));
            }
        }
        if self.apart.is_none() && !slashed.contains('/') {
            let siblings = match self.siblings.get() {
                Some(siblings) => siblings,
                None => {
                    let files = std::fs::read_dir(here(self.beside)).ok().into_iter().flatten().flatten();
                    let images = files.map(|file| file.path()).filter(|path| melo_imaging::is_image_file(path));
                    self.siblings.get_or_init(|| by_name(images.collect()))
                }
            };
            return self.one(line, name, siblings.get(name).map_or(&[], Vec::as_slice));
        }
        Ok(None)
    }

    /// The longest end of a path that is there below one of the folders; or the one file of its name below the folder given.
    fn by_end(&self, line: usize, name: &str, cut: bool) -> Result<Option<PathBuf>, Error> {
        let slashed = name.replace('\\', "/");
        let parts: Vec<&str> =
            slashed.split('/').filter(|part| !matches!(*part, "" | "." | "..") && !part.ends_with(':')).collect();
        if cut {
            for start in 0..parts.len() {
                let end = parts[start..].join("/");
                for folder in self.apart.into_iter().chain([self.beside]) {
                    let path = folder.join(&end);
                    if is_there(&path) {
                        return Ok(Some(path));
                    }
                    if !has_known_extension(&end)
                        && let Some(found) = self.with_extension(line, &end)?
                    {
                        return Ok(Some(found));
                    }
                }
            }
        }
        let (Some(apart), Some(last)) = (self.apart, parts.last()) else { return Ok(None) };
        let below = match self.below.get() {
            Some(below) => below,
            None => {
                let images = images_in(apart)?.images;
                self.below.get_or_init(|| by_name(images))
            }
        };
        self.one(line, name, below.get(*last).map_or(&[], Vec::as_slice))
    }

    /// The one file, or none.
    fn one(&self, line: usize, name: &str, found: &[PathBuf]) -> Result<Option<PathBuf>, Error> {
        match found {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            [first, second, ..] if same_file(first, second) => Ok(Some(first.clone())),
            [first, second, ..] => Err(Error::Ambiguous {
                path: self.table.into(),
                line,
                name: name.to_owned(),
                first: first.clone(),
                second: second.clone(),
            }),
        }
    }
}

/// Files by their names, and by these without extension.
fn by_name(files: Vec<PathBuf>) -> HashMap<String, Vec<PathBuf>> {
    let mut by_name: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for file in files {
        let mut names: Vec<String> = [file.file_name(), file.file_stem()]
            .into_iter()
            .flatten()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        // `volume.nii.gz` is `volume`, too.
        names.extend(names[0].strip_suffix(".nii.gz").map(str::to_owned));
        names.dedup();
        for name in names {
            by_name.entry(name).or_default().push(file.clone());
        }
    }
    by_name
}

/// On file systems without case, `a.png` and `a.PNG` are one file.
fn same_file(first: &Path, second: &Path) -> bool {
    matches!((first.canonicalize(), second.canonicalize()), (Ok(first), Ok(second)) if first == second)
}

fn is_there(path: &Path) -> bool {
    file_of(path).exists()
}

fn here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// True for a path of another machine: absolute, of Windows, or with backslashes.
fn is_foreign(name: &str) -> bool {
    let drive = name.as_bytes().get(1) == Some(&b':') && name.as_bytes()[0].is_ascii_alphabetic();
    drive || name.contains('\\') || name.starts_with('/') || name.starts_with("file:")
}

/// True if a name, or the file before its `#`, ends as an image's does; names of series are full of dots.
fn has_known_extension(name: &str) -> bool {
    let end = name.rsplit(['/', '\\']).next().unwrap_or(name);
    end.contains('#')
        || end.rsplit_once('.').is_some_and(|(stem, extension)| {
            let letters = extension.chars().any(|letter| letter.is_ascii_alphabetic());
            !stem.is_empty() && letters && (1..=5).contains(&extension.len())
        })
}

/// Two ways to write one path: `a/b.png` and `a/./b.png`.
pub(crate) fn same_way(first: &str, second: &str) -> bool {
    let parts = |name: &str| -> Vec<String> {
        let slashed = name.replace('\\', "/");
        let parts = Path::new(&slashed).components().filter(|part| *part != Component::CurDir);
        parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
    };
    first == second || parts(first) == parts(second)
}
