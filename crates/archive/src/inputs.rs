//! Which images: listed in an order that folders and lists alone decide, one name at a time.

use crate::error::Error;
use crate::folder::INPUTS;
use crate::names::NameWriter;
use crate::place::{ObjectName, Place};
use crate::run::Event;
use crate::store::Stores;
use melo_imaging::{FolderEntry, walk};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// How often a listing says how far it is, names.
const NEWS: u64 = 10_000;

/// Where images are named.
#[derive(Clone, Debug)]
pub enum Input {
    /// The images in a folder and in the folders inside it, in the order of [`melo_imaging::images_in`].
    Folder(PathBuf),
    /// The images below a prefix of an object store, in the order of their keys.
    Prefix(ObjectName),
    /// Images that are named elsewhere, files and objects; taken in the order of their names.
    Images(Vec<PathBuf>),
}

impl Input {
    /// A text file with an image a line, relative to its folder; empty lines are passed over.
    ///
    /// # Errors
    /// [`Error::Io`], also for what is no UTF-8.
    pub fn list(path: &Path) -> Result<Self, Error> {
        let listed = melo_imaging::read_list(path).map_err(Error::io(path))?;
        Ok(Input::Images(listed.into_iter().map(|listed| listed.path).collect()))
    }
}

/// What was listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Images.
    pub inputs: u64,
    /// SHA-256 of their names, each followed by a NUL.
    pub digest: String,
    /// Folders and files that cannot be looked at, as they are named, with the reason.
    pub unlisted: Vec<String>,
    /// Files in folders that are no images.
    pub left_out: u64,
    /// Names that came before, and were not taken again.
    pub repeated: u64,
}

/// A listing on its way.
struct Listing<'a, W: Write> {
    names: NameWriter<W>,
    /// First 16 bytes of the SHA-256 of the names so far, where one may come twice.
    seen: Option<HashSet<[u8; 16]>>,
    listed: Listed,
    stores: &'a Stores,
    stop: &'a AtomicBool,
    observer: &'a mut dyn FnMut(Event<'_>),
    /// What is being written, and the archive's folder.
    paths: (&'a Path, &'a Path),
}

/// Writes the names of all images to `file` at `path`; the archive's own, in `folder`, are passed over.
pub(crate) fn list(
    (inputs, stores): (&[Input], &Stores),
    (file, path, folder): (impl Write, &Path, &Path),
    stop: &AtomicBool,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Listed, Error> {
    let seen = (inputs.len() > 1).then(HashSet::new);
    let listed = Listed::default();
    let names = NameWriter::new(file);
    let mut listing = Listing { names, seen, listed, stores, stop, observer, paths: (path, folder) };
    inputs.iter().try_for_each(|input| listing.take(input))?;
    let Listing { names, listed, .. } = listing;
    let inputs = names.count;
    Ok(Listed { inputs, digest: names.finish().map_err(Error::io(path))?, ..listed })
}

impl<W: Write> Listing<'_, W> {
    fn take(&mut self, input: &Input) -> Result<(), Error> {
        match input {
            Input::Folder(folder) => {
                // Begins with a name, which may look like an image.
                let own = self.paths.1.join(INPUTS);
                walk(folder, &mut |entry| match entry {
                    FolderEntry::Image(path) if path == own => Ok(()),
                    FolderEntry::Unreadable { path, source, .. } if path == *folder => Err(Error::Io { path, source }),
                    entry => self.meet(entry),
                })
            }
            Input::Prefix(prefix) => self.stores.walk(prefix, &mut |entry| self.meet(entry)),
            Input::Images(images) => {
                let mut sorted: Vec<&PathBuf> = images.iter().collect();
                sorted.sort();
                sorted.dedup();
                self.listed.repeated += (images.len() - sorted.len()) as u64;
                sorted.into_iter().try_for_each(|path| match Place::of(path)? {
                    Place::Local(path) => self.add(&path),
                    Place::Object(object) => {
                        // A bucket that is not there is told before anything is computed.
                        self.stores.bucket(&object.bucket)?;
                        self.add(path)
                    }
                })
            }
        }
    }

    fn meet(&mut self, entry: FolderEntry) -> Result<(), Error> {
        match entry {
            FolderEntry::Image(path) => return self.add(&path),
            FolderEntry::LeftOut(_) => self.listed.left_out += 1,
            FolderEntry::Unreadable { path, source, .. } => {
                let named = format!("{}: {source}", path.display());
                (self.observer)(Event::Unlisted(&named));
                self.listed.unlisted.push(named);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path) -> Result<(), Error> {
        if let Some(seen) = &mut self.seen {
            let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
            let key = std::array::from_fn(|place| digest[place]);
            if !seen.insert(key) {
                self.listed.repeated += 1;
                return Ok(());
            }
        }
        self.names.add(path).map_err(Error::io(self.paths.0))?;
        if self.names.count.is_multiple_of(NEWS) {
            (self.observer)(Event::Listing { found: self.names.count });
            if self.stop.load(Ordering::Relaxed) {
                let folder = self.paths.1.to_owned();
                return Err(Error::Interrupted { done: 0, of: self.names.count, folder });
            }
        }
        Ok(())
    }
}
