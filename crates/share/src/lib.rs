//! Plug-ins by name: pushed to and pulled from the Hugging Face hub and registries of the Open Container Initiative (OCI), kept in caches,
//! held to their digests; folders of them as a page.

mod cache;
mod credentials;
mod error;
mod gallery;
mod http;
mod hub;
mod oci;
mod readme;
mod reference;
mod registry;

pub use cache::cache_folder;
pub use error::Error;
pub use gallery::{Gallery, write_gallery};
pub use readme::Readme;
pub use reference::{OciName, Reference};

use melo_sign::beside;
use melo_vit::PluginInfo;
use std::path::{Path, PathBuf};

/// What a plug-in's file is called where it is shared, and beside it its signature and what people read.
pub(crate) const PLUGIN: &str = "plugin.safetensors";
pub(crate) const SIGNATURE: &str = "plugin.safetensors.minisig";
pub(crate) const README: &str = "README.md";

/// What is pushed.
pub(crate) struct Bundle {
    pub(crate) info: PluginInfo,
    pub(crate) plugin: Vec<u8>,
    /// Its signature, where one lies beside it.
    pub(crate) signature: Option<Vec<u8>>,
    pub(crate) readme: String,
}

/// What was found by a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// A reference to pull it by.
    pub reference: String,
    /// What is said of it, such as task and backbone, by name.
    pub facts: Vec<(String, String)>,
}

/// Pushes a plug-in's file, with the signature beside it and a model card; a reference to exactly these bytes.
///
/// # Errors
/// [`Error`]; a file that is no plug-in is not pushed.
pub fn push(file: &Path, to: &Reference, readme: &Readme) -> Result<String, Error> {
    let info = PluginInfo::read(file)?;
    let read = |path: &Path| std::fs::read(path).map_err(Error::io(path));
    let signature = beside(file);
    let signature = signature.exists().then(|| read(&signature)).transpose()?;
    let bundle = Bundle { readme: readme.of(&info, to), plugin: read(file)?, signature, info };
    match to {
        Reference::Hub { name, revision } => hub::push(name, revision.as_deref(), readme.is_private, &bundle),
        Reference::Oci(name) => oci::push(name, &bundle),
    }
}

/// The plug-in's file in the cache, fetched where it is not there or where it is to be `fresh`, with the signature beside it if it has one.
/// It is held to its digest each time.
///
/// # Errors
/// [`Error`]; [`Error::Tampered`] names what is not what it was.
pub fn pull(from: &Reference, fresh: bool) -> Result<PathBuf, Error> {
    match from {
        Reference::Hub { .. } => {
            let files = melo_interop::hub_files(from.to_string().as_ref(), &[PLUGIN, SIGNATURE, README], fresh)?;
            Ok(files.into_iter().next().expect("the first file is there"))
        }
        Reference::Oci(name) => oci::pull(name, fresh),
    }
}

/// Plug-ins on the hub of all these words.
///
/// # Errors
/// [`Error::Away`], [`Error::Refused`].
pub fn search_hub(words: &str) -> Result<Vec<Found>, Error> {
    hub::search(words)
}

/// Plug-ins of a registry, those alone that say one of these words of themselves where there are words.
///
/// # Errors
/// [`Error::Away`], [`Error::Refused`].
pub fn search_registry(host: &str, words: &str) -> Result<Vec<Found>, Error> {
    oci::search(host, words)
}
