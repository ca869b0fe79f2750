//! What to pack, and whether a folder may take it.

use std::path::Path;

use melo_vit::Preprocess;

use super::index::{self, Index, Plan};
use super::shard::{Expected, Shard};
use super::{PackError, PackOptions, describe, fit_of, shard_file};
use crate::Manifest;

/// Bytes of colour pixels that a shard should hold: large enough to be read in one go, small enough to lose.
const SHARD_BYTES: usize = 1 << 26;
const MAX_PER_SHARD: usize = 1024;

impl Plan {
    pub(super) fn new(manifest: &Manifest, spec: &Preprocess, depth: u8) -> Result<Self, PackError> {
        if manifest.rows.iter().any(|row| row.packed.is_some()) {
            return Err(PackError::SourceIsPack { path: manifest.path.clone() });
        }
        spec.check().map_err(|reason| PackError::Settings { reason })?;
        if depth != 8 {
            let reason = format!("depth {depth}: images are decoded to 8 bits a sample, and packed so; use 8");
            return Err(PackError::Settings { reason });
        }
        let preprocess = fit_of(spec);
        let side = preprocess.resize_side();
        Ok(Plan {
            manifest_digest: manifest.digest(),
            images_per_shard: (SHARD_BYTES / (3 * side * side)).clamp(1, MAX_PER_SHARD),
            preprocess,
            depth,
            images: manifest.rows.len(),
        })
    }

    /// Makes `folder`, or refuses it if it holds anything but the same pack, finished or not.
    pub(super) fn prepare(&self, folder: &Path, manifest: &Manifest, options: PackOptions) -> Result<(), PackError> {
        std::fs::create_dir_all(folder).map_err(PackError::io(folder))?;
        let ours = list(folder)?;
        if options.overwrite {
            for name in &ours {
                let path = folder.join(name);
                std::fs::remove_file(&path).map_err(PackError::io(&path))?;
            }
            return Ok(());
        }
        if folder.join(index::FILE).is_file() {
            let old = Index::read(folder)?.plan;
            if old.manifest_digest != self.manifest_digest {
                let reason = format!("digest {}, packed {}", self.manifest_digest, old.manifest_digest);
                let (path, manifest) = (folder.into(), manifest.path.clone());
                return Err(PackError::Stale { path, manifest, reason });
            }
            if old.preprocess != self.preprocess {
                let (packed, asked) = (describe(&old.preprocess), describe(&self.preprocess));
                return Err(PackError::Preprocess { path: folder.into(), packed, asked });
            }
        }
        // Of a pack in the making the first shard tells; a damaged one is made again.
        let first = Shard::open(&folder.join(shard_file(0)), self.expected(0));
        match first {
            Err(PackError::Shard { reason, .. }) if reason.contains("another manifest") => {
                Err(PackError::OtherShards { path: folder.into() })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn expected(&self, number: usize) -> Expected {
        Expected { number, images: self.images_of(number).len(), key: self.key() }
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
