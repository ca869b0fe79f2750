//! Where plug-ins of registries are kept.

use crate::error::Error;
use crate::reference::{OciName, digest};
use crate::{PLUGIN, SIGNATURE};
use melo_sign::sha256;
use melo_vit::write_atomically;
use std::path::{Path, PathBuf};

/// What stands beside a plug-in: the manifest it came with, whose digest is the folder's name.
const MANIFEST: &str = "manifest.json";

/// `$XDG_CACHE_HOME/melo`, or `~/.cache/melo`; none where neither is a path.
pub fn cache_folder() -> Option<PathBuf> {
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|folder| folder.is_absolute());
    Some(folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?.join("melo"))
}

/// The part of the cache of one repository: `refs/TAG` names a digest, `DIGEST/` holds what that manifest names.
pub(crate) struct Kept(PathBuf);

impl Kept {
    pub(crate) fn of(name: &OciName) -> Result<Self, Error> {
        let repository = format!("{}--{}", name.host.replace(':', "+"), name.repository.replace('/', "--"));
        Ok(Kept(cache_folder().ok_or(Error::NoCache)?.join("oci").join(repository)))
    }

    /// The digest that a tag had when it was last asked for.
    pub(crate) fn digest(&self, tag: &str) -> Option<String> {
        if let Some(digest) = digest(tag) {
            return Some(digest.to_owned());
        }
        let text = std::fs::read_to_string(self.0.join("refs").join(tag)).ok()?;
        Some(digest(text.trim())?.to_owned())
    }

    fn folder(&self, digest: &str) -> PathBuf {
        self.0.join(digest)
    }

    /// The manifest of a digest, if all of it is here.
    pub(crate) fn manifest(&self, digest: &str) -> Option<(Vec<u8>, PathBuf)> {
        let folder = self.folder(digest);
        let plugin = folder.join(PLUGIN);
        Some((std::fs::read(folder.join(MANIFEST)).ok()?, plugin.is_file().then_some(plugin)?))
    }

    /// Keeps what a manifest names, the plug-in first and the manifest last, and the tag; the plug-in's file.
    pub(crate) fn keep(
        &self,
        (tag, manifest): (&str, &[u8]),
        plugin: &[u8],
        signature: Option<&[u8]>,
    ) -> Result<PathBuf, Error> {
        let digest = sha256(manifest);
        let folder = self.folder(&digest);
        let make = |folder: &Path| std::fs::create_dir_all(folder).map_err(Error::io(folder));
        make(&folder)?;
        let path = folder.join(PLUGIN);
        write_atomically(&path, plugin)?;
        if let Some(signature) = signature {
            write_atomically(&folder.join(SIGNATURE), signature)?;
        }
        write_atomically(&folder.join(MANIFEST), manifest)?;
        if crate::reference::digest(tag).is_none() {
            make(&self.0.join("refs"))?;
            write_atomically(&self.0.join("refs").join(tag), format!("sha256:{digest}\n").as_bytes())?;
        }
        Ok(path)
    }
}
