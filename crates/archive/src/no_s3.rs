//! Builds that reach no object store: no bucket can be opened.

use crate::error::Error;
use crate::store::{Page, Refused};

pub(crate) enum Bucket {}

impl Bucket {
    pub(crate) fn open(bucket: &str) -> Result<Self, Error> {
        Err(Error::NoStores { bucket: bucket.to_owned() })
    }

    pub(crate) fn page(&self, _: &str, _: Option<String>, _: Option<usize>) -> Result<Page, Refused> {
        match *self {}
    }

    pub(crate) fn start(&self, _: &str, _: u64) -> Result<Vec<u8>, Refused> {
        match *self {}
    }

    pub(crate) fn get(&self, _: &str, _: &dyn Fn(u64) -> bool) -> Result<Vec<u8>, Refused> {
        match *self {}
    }
}
