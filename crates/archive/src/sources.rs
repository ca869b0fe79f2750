//! The images of chunks in their order, those in object stores with their bytes, fetched ahead.

use crate::ahead::{Limits, ahead};
use crate::error::Error;
use crate::place::Place;
use crate::store::{AT_ONCE, Stores};
use std::path::PathBuf;

/// Bytes of objects that wait to be decoded, and again that are decoded together; one object more may be above either.
pub(crate) const BYTES: u64 = 256 << 20;

/// An image that is to be read.
pub(crate) struct Source<T> {
    pub(crate) chunk: u64,
    /// Its place in the list, from 0.
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    /// True for the chunk's end.
    pub(crate) is_last: bool,
    /// With the first image of a chunk: what is held for it.
    pub(crate) held: Option<T>,
    /// Its bytes, or why there are none; of files nothing, which are read where they are decoded.
    pub(crate) fetched: Option<std::io::Result<Vec<u8>>>,
}

impl<T> Source<T> {
    pub(crate) fn new(chunk: u64, number: u64, path: PathBuf, is_last: bool) -> Self {
        Source { chunk, number, path, is_last, held: None, fetched: None }
    }

    fn is_object(&self) -> bool {
        matches!(Place::of(&self.path), Ok(Place::Object(_)))
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.fetched.as_ref().and_then(|bytes| bytes.as_ref().ok()).map_or(0, |bytes| bytes.len() as u64)
    }
}

/// Gives `take` the images of `named`. Objects are fetched while `at_once` earlier ones are decoded; where the first image is none, and none was
/// listed, there is nothing to do ahead.
pub(crate) fn fetched<T: Send, O>(
    stores: &Stores,
    named: impl Iterator<Item = Result<Source<T>, Error>> + Send,
    at_once: usize,
    take: impl FnOnce(&mut dyn Iterator<Item = Result<Source<T>, Error>>) -> O,
) -> O {
    let mut named = named.peekable();
    let is_object = |source: &Result<Source<T>, Error>| source.as_ref().is_ok_and(Source::is_object);
    if stores.is_empty() && !named.peek().is_some_and(is_object) {
        return take(&mut named.map(|source| fetch(stores, source?, &|_| true)));
    }
    let limits = Limits { threads: AT_ONCE, items: 2 * at_once, bytes: BYTES };
    ahead(named, limits, |source, room| fetch(stores, source?, room), take)
}

fn fetch<T>(stores: &Stores, source: Source<T>, room: &dyn Fn(u64) -> bool) -> Result<Source<T>, Error> {
    Ok(match Place::of(&source.path)? {
        Place::Object(object) => Source { fetched: Some(stores.fetch(&object, room)?), ..source },
        Place::Local(path) => Source { path, ..source },
    })
}
