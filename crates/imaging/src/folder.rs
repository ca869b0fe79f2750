//! The images of a folder: known by their names or by their first bytes. What is no image is told, too.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::{Error, dicom, has_image_extension, nifti};

/// Bytes that [`looks_like_image`] is shown: more than any format needs, compressed NIfTI among them.
pub const START: u64 = 4096;
/// Folders inside folders that are looked into.
const MAX_DEPTH: usize = 64;
/// How many names a sentence lists.
const LISTED: usize = 5;

/// The files of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderFiles {
    /// Files whose names end as an image's, or that begin as one; by name, those of folders inside after the folder's own.
    pub images: Vec<PathBuf>,
    /// The others, in the same order.
    pub left_out: LeftOut,
}

/// Files of a folder that are no images; displays as `2 of 9 files are no images: labels.csv, notes.txt`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Their names in the folder, with `/`; a folder that is not looked into (hidden, or a link in a circle) ends with `/`.
    pub names: Vec<String>,
    /// All files and such folders, images too.
    pub of: usize,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = if self.of == 1 { "file" } else { "files" };
        let are = if self.names.len() == 1 { "is no image" } else { "are no images" };
        write!(f, "{} of {} {files} {are}: ", self.names.len(), self.of)?;
        let shown = self.names.iter().take(LISTED).map(|name| name.replace(|letter: char| letter.is_control(), "?"));
        f.write_str(&shown.collect::<Vec<_>>().join(", "))?;
        match self.names.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// One entry of a folder, as [`walk`] meets it.
#[derive(Debug)]
pub enum FolderEntry {
    /// A file that is to be tried as an image.
    Image(PathBuf),
    /// The name, in the folder that was asked about and with `/`, of a file that is none; of a folder that is not looked into, with `/` at
    /// the end.
    LeftOut(String),
    /// What cannot be looked at: a folder that cannot be listed, or a file of no image's name that cannot be opened.
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Its name, as of one that is left out.
        name: String,
        /// True for a folder.
        is_folder: bool,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// The images in `folder` and in the folders inside it.
///
/// Hidden files and folders (`.name`, `__MACOSX`), `DICOMDIR` and links that lead back to a folder around them are left out.
///
/// # Errors
/// [`Error::Read`] for a folder that cannot be listed.
pub fn images_in(folder: &Path) -> Result<FolderFiles, Error> {
    let mut files = FolderFiles::default();
    walk(folder, &mut |entry| {
        match entry {
            FolderEntry::Image(path) => files.images.push(path),
            FolderEntry::Unreadable { path, source, is_folder: true, .. } => return Err(Error::Read { path, source }),
            FolderEntry::LeftOut(name) | FolderEntry::Unreadable { name, .. } => files.left_out.names.push(name),
        }
        Ok(())
    })?;
    files.left_out.of = files.images.len() + files.left_out.names.len();
    Ok(files)
}

/// Goes through `folder` and the folders inside it in the order of [`images_in`], with the names of one folder in memory at a time.
///
/// # Errors
/// Those of `visit`, which end it.
pub fn walk<E>(folder: &Path, visit: &mut dyn FnMut(FolderEntry) -> Result<(), E>) -> Result<(), E> {
    enter(folder, "", 0, visit)
}

fn enter<E>(
    folder: &Path,
    inside: &str,
    depth: usize,
    visit: &mut dyn FnMut(FolderEntry) -> Result<(), E>,
) -> Result<(), E> {
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut paths: Vec<PathBuf> = match entries {
        Ok(entries) => entries.into_iter().map(|entry| entry.path()).collect(),
        Err(source) => {
            let (path, name) = (folder.into(), inside.to_owned());
            return visit(FolderEntry::Unreadable { path, name, is_folder: true, source });
        }
    };
    paths.sort();
    let (folders, plain): (Vec<PathBuf>, Vec<PathBuf>) = paths.into_iter().partition(|path| path.is_dir());
    let name = |path: &Path| format!("{inside}{}", path.file_name().unwrap_or_default().to_string_lossy());
    for path in plain {
        visit(of_file(name(&path), path))?;
    }
    for path in folders {
        let name = format!("{}/", name(&path));
        if is_hidden(&path) || depth == MAX_DEPTH || (path.is_symlink() && leads_back(&path)) {
            visit(FolderEntry::LeftOut(name))?;
        } else {
            enter(&path, &name, depth + 1, visit)?;
        }
    }
    Ok(())
}

fn of_file(name: String, path: PathBuf) -> FolderEntry {
    if is_image_file(&path) {
        return FolderEntry::Image(path);
    }
    // Opening what is no regular file may wait for ever.
    match path.is_file() && !is_hidden(&path) {
        true => match File::open(&path) {
            Err(source) => FolderEntry::Unreadable { path, name, is_folder: false, source },
            Ok(_) => FolderEntry::LeftOut(name),
        },
        false => FolderEntry::LeftOut(name),
    }
}

/// True for a file that is to be tried as an image: its name ends in one of [`EXTENSIONS`](crate::EXTENSIONS), or it
/// begins as one does. Hidden files, `DICOMDIR`, and what is no regular file, are none.
pub fn is_image_file(path: &Path) -> bool {
    // By its name also where it cannot be read: whoever reads it says why.
    is_image_name(path).unwrap_or_else(|| {
        let mut start = Vec::new();
        let read = |file: File| file.take(START).read_to_end(&mut start).ok();
        path.is_file() && File::open(path).ok().and_then(read).is_some() && looks_like_image(&start)
    })
}

/// What [`is_image_file`] says of a name alone; none where the first [`START`] bytes decide.
pub fn is_image_name(path: &Path) -> Option<bool> {
    if is_hidden(path) || path.file_name().is_some_and(|name| name.eq_ignore_ascii_case("DICOMDIR")) {
        return Some(false);
    }
    has_image_extension(path).then_some(true)
}

/// True for a name that folders hide: `.name`, or what macOS puts into archives.
pub fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "__MACOSX" || name.as_encoded_bytes().starts_with(b"."))
}

/// True if the link leads to a folder that it lies in.
fn leads_back(link: &Path) -> bool {
    match (link.canonicalize(), link.parent().map(Path::canonicalize)) {
        (Ok(target), Some(Ok(around))) => around.starts_with(target),
        _ => true,
    }
}

/// True if a file that begins with `start`, a few thousand bytes or all, may be an image: also of a format, or of a kind of
/// a format, that is not read, so that it is named instead of passed over.
pub fn looks_like_image(start: &[u8]) -> bool {
    match start {
        [0xff, 0xd8, 0xff, ..] | [0x89, b'P', b'N', b'G', ..] | [b'G', b'I', b'F', b'8', ..] => true,
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => true,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => true,
        // JPEG 2000: in its container, and bare.
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => true,
        // Two letters are too few: the reserved bytes are zero, and the header that follows is of a known length.
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, _, _, _, _, 12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0, ..] => true,
        // The name of the first entry follows its 30 bytes.
        [b'P', b'K', 3, 4, ..] => {
            let length = start.get(26..28).map_or(0, |bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
            start.get(30..30 + length).is_some_and(|name| name.ends_with(b".npy"))
        }
        // A list of numbers is no image.
        _ if start.starts_with(melo_npy::MAGIC) => {
            melo_npy::Header::read(&mut &start[..]).map_or(true, |header| header.shape.len() > 1)
        }
        _ => nifti::is_header(start) || nifti::is_compressed(start) || dicom::is_dicom(start),
    }
}
