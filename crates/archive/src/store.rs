//! Objects in stores: listed as a folder is, and fetched.

use crate::ahead::{Limits, ahead};
use crate::caught::caught;
use crate::error::Error;
use crate::place::{ObjectName, Place};
use melo_imaging::{FolderEntry, START, file_of, is_hidden, is_image_name, looks_like_image};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(not(feature = "object-store"))]
use crate::no_s3::Bucket;
#[cfg(feature = "object-store")]
use crate::s3::Bucket;

/// Objects that are asked for at once.
pub(crate) const AT_ONCE: usize = 16;
/// Objects of a listing that are looked into before they are taken: a page.
const LISTED: usize = 1000;

/// A page of a listing: keys with their sizes in bytes, and how the next page is asked for.
pub(crate) struct Page {
    pub(crate) objects: Vec<(String, u64)>,
    pub(crate) next: Option<String>,
}

/// Why there are no bytes.
#[cfg_attr(not(feature = "object-store"), expect(dead_code, reason = "without stores nothing is refused"))]
pub(crate) enum Refused {
    /// Of this object: another may be had.
    Object(String),
    /// Of whatever object: the store is away, or does not know who asks.
    Store(String),
}

/// The buckets of an archive, opened when they are named first.
#[derive(Default)]
pub(crate) struct Stores(Mutex<BTreeMap<String, Arc<Bucket>>>);

impl Stores {
    /// True where no object was named.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// A bucket, that is there.
    pub(crate) fn bucket(&self, name: &str) -> Result<Arc<Bucket>, Error> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = open.get(name) {
            return Ok(Arc::clone(bucket));
        }
        let bucket = Arc::new(Bucket::open(name)?);
        open.insert(name.to_owned(), Arc::clone(&bucket));
        Ok(bucket)
    }

    /// Goes through the objects below `prefix` in the order of their keys, told as files of a folder are; `prefix` may be an object itself.
    pub(crate) fn walk(
        &self,
        prefix: &ObjectName,
        visit: &mut dyn FnMut(FolderEntry) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let bucket = self.bucket(&prefix.bucket)?;
        let refused = |reason| Error::Store { bucket: prefix.bucket.clone(), reason };
        let key = prefix.key.as_str();
        let is_there = || match bucket.start(key, 1) {
            Ok(_) => Ok(true),
            Err(Refused::Object(_)) => Ok(false),
            Err(Refused::Store(reason)) => Err(refused(reason)),
        };
        if is_image_name(Path::new(key)) == Some(true) && is_there()? {
            return visit(FolderEntry::Image(path_of(&prefix.bucket, key)));
        }
        let within = if key.is_empty() || key.ends_with('/') { key.to_owned() } else { format!("{key}/") };
        let objects = Objects { bucket: &bucket, prefix: &within, page: Vec::new().into_iter(), next: Some(None) };
        let limits = Limits { threads: AT_ONCE, items: LISTED, bytes: u64::MAX };
        let told = |object: Result<(String, u64), Refused>, _: &dyn Fn(u64) -> bool| {
            let (key, size) = object?;
            told((&bucket, &prefix.bucket), &within, key, size)
        };
        let found = ahead(objects, limits, told, |entries| {
            let mut found = false;
            for entry in entries {
                found = true;
                visit(entry.map_err(|(Refused::Object(reason) | Refused::Store(reason))| refused(reason))?)?;
            }
            Ok::<bool, Error>(found)
        })?;
        match !found && !key.is_empty() && is_there()? {
            true => visit(FolderEntry::Image(path_of(&prefix.bucket, key))),
            false => Ok(()),
        }
    }

    /// An object whole, once there is `room` for its bytes; what concerns it alone is a reason, all else an error.
    pub(crate) fn fetch(
        &self,
        object: &ObjectName,
        room: &dyn Fn(u64) -> bool,
    ) -> Result<std::io::Result<Vec<u8>>, Error> {
        let lost = |reason| Error::Lost { object: object.to_string(), reason };
        let bucket = self.bucket(&object.bucket)?;
        match caught(|| bucket.get(&object.key, room)).map_err(lost)? {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(Refused::Store(reason)) => Err(lost(reason)),
            // A `#` may begin what is asked of the file.
            Err(Refused::Object(reason)) => match Place::of(&file_of(Path::new(&object.to_string())))? {
                Place::Object(file) if file != *object => self.fetch(&file, room),
                _ => Ok(Err(std::io::Error::other(reason))),
            },
        }
    }
}

fn path_of(bucket: &str, key: &str) -> PathBuf {
    ObjectName { bucket: bucket.to_owned(), key: key.to_owned() }.to_string().into()
}

/// What an object below the prefix `within` is, by its name, or else by its first bytes.
fn told((bucket, name): (&Bucket, &str), within: &str, key: String, size: u64) -> Result<FolderEntry, Refused> {
    let inside = key.strip_prefix(within).unwrap_or(&key).to_owned();
    if Path::new(&inside).components().any(|part| is_hidden(Path::new(&part))) {
        return Ok(FolderEntry::LeftOut(inside));
    }
    let is_image = match is_image_name(Path::new(&key)) {
        Some(known) => known,
        None if size == 0 => false,
        None => match bucket.start(&key, START) {
            Ok(start) => looks_like_image(&start),
            Err(Refused::Object(reason)) => {
                let (path, source) = (path_of(name, &key), std::io::Error::other(reason));
                return Ok(FolderEntry::Unreadable { path, name: inside, is_folder: false, source });
            }
            Err(refused) => return Err(refused),
        },
    };
    Ok(if is_image { FolderEntry::Image(path_of(name, &key)) } else { FolderEntry::LeftOut(inside) })
}

/// The objects below a prefix, page after page.
struct Objects<'a> {
    bucket: &'a Bucket,
    prefix: &'a str,
    page: std::vec::IntoIter<(String, u64)>,
    /// How the next page is asked for; none after the last.
    next: Option<Option<String>>,
}

impl Iterator for Objects<'_> {
    type Item = Result<(String, u64), Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(object) = self.page.next() {
                return Some(Ok(object));
            }
            match self.bucket.page(self.prefix, self.next.take()?, None) {
                Ok(page) => (self.page, self.next) = (page.objects.into_iter(), page.next.map(Some)),
                Err(refused) => return Some(Err(refused)),
            }
        }
    }
}
