//! Whether a folder may take a pack.

use std::path::Path;

use super::index::{self, Index};
use super::layout::Layout;
use super::shard::{Expected, Shard};
use super::{PackError, describe, shard_file};
use crate::Manifest;

/// Makes `folder`, or refuses it if it holds anything but the same pack, finished or not.
pub(super) fn prepare(folder: &Path, layout: &Layout, manifest: &Manifest, overwrite: bool) -> Result<(), PackError> {
    std::fs::create_dir_all(folder).map_err(PackError::io(folder))?;
    let ours = list(folder)?;
    if overwrite {
        for name in &ours {
            let path = folder.join(name);
            std::fs::remove_file(&path).map_err(PackError::io(&path))?;
        }
        return Ok(());
    }
    if folder.join(index::FILE).is_file() {
        let old = Index::read(folder)?.layout;
        if old.manifest_digest != layout.manifest_digest {
            let reason = format!("digest {}, packed {}", layout.manifest_digest, old.manifest_digest);
            let (path, manifest) = (folder.into(), manifest.path.clone());
            return Err(PackError::Stale { path, manifest, reason });
        }
        if old.preprocess != layout.preprocess {
            let (packed, asked) = (describe(&old.preprocess), describe(&layout.preprocess));
            return Err(PackError::Preprocess { path: folder.into(), packed, asked });
        }
    }
    // Of a pack in the making the first shard tells; a damaged one is made again.
    let first = Shard::open(&folder.join(shard_file(0)), Expected::of(layout, 0));
    match first {
        Err(PackError::Shard { reason, .. }) if reason.contains("another manifest") => {
            Err(PackError::OtherShards { path: folder.into() })
        }
        _ => Ok(()),
    }
}

/// The files of a pack in `folder`; refuses anything else that lies there.
fn list(folder: &Path) -> Result<Vec<String>, PackError> {
    let mut ours = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(PackError::io(folder))? {
        let name = entry.map_err(PackError::io(folder))?.file_name().to_string_lossy().into_owned();
        let shard = name.strip_suffix(".shard").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        // What a killed run left half written begins with `.melo-`.
        if shard || name == index::FILE || name.starts_with(".melo-") {
            ours.push(name);
        } else if !name.starts_with('.') {
            return Err(PackError::Occupied { path: folder.into(), found: name });
        }
    }
    Ok(ours)
}
