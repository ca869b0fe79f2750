//! `pack.index`: what the manifest said, and which shards there are.

use std::path::Path;

use melo_vit::{MappedFile, TaskKind, write_atomically};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::layout::Layout;
use super::{PackError, VERSION};
use crate::{Error, Labels, ReadOptions, Split};

/// Name of the index.
pub(super) const FILE: &str = "pack.index";
const MAGIC: [u8; 8] = *b"MELOPACK";
/// Magic, version, zeros, length and checksum.
const HEADER: usize = 56;

/// The JSON of the index.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    #[serde(rename = "plan")]
    pub(super) layout: Layout,
    /// The manifest, from the pack's folder.
    pub(super) source: String,
    /// Names of its images begin in it, not beside it.
    pub(super) source_is_folder: bool,
    pub(super) multi_label: bool,
    /// What `multi_label` does not say: grades or numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<TaskKind>,
    pub(super) classes: Vec<String>,
    /// How the manifest was read.
    #[serde(default, skip_serializing_if = "ReadOptions::is_silent")]
    pub(super) reading: ReadOptions,
    pub(super) shards: Vec<ShardRecord>,
    pub(super) rows: Vec<RowRecord>,
}

/// A shard as the index knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShardRecord {
    pub(super) images: usize,
    /// Checksum that stands in its header, in hexadecimal.
    pub(super) sha256: String,
}

/// A row of the manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RowRecord {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) split: Option<Split>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) patient_id: Option<String>,
    pub(super) line: usize,
    /// Indices of the classes that it shows; none of numbers.
    pub(super) shows: Vec<usize>,
    /// Its numbers, one for each of the classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) values: Vec<f32>,
    /// Its image: `images_per_shard · shard + place`.
    pub(super) image: usize,
}

impl RowRecord {
    /// What it shows of `classes` classes.
    pub(super) fn labels(&self, classes: usize, kind: TaskKind) -> Labels {
        match (kind, self.shows.first()) {
            (TaskKind::Regression, _) => Labels::Values(self.values.clone()),
            (TaskKind::SingleLabel | TaskKind::Ordinal, Some(&class)) => Labels::Single(class),
            _ => Labels::Multi((0..classes).map(|class| u8::from(self.shows.contains(&class))).collect()),
        }
    }
}

impl Index {
    pub(super) fn kind(&self) -> TaskKind {
        self.kind.unwrap_or(if self.multi_label { TaskKind::MultiLabel } else { TaskKind::SingleLabel })
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(FILE);
        let refuse = |reason: String| PackError::Index { path: path.clone(), reason };
        let json = serde_json::to_vec(self).map_err(|error| refuse(error.to_string()))?;
        let mut bytes = Vec::with_capacity(HEADER + json.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&Sha256::digest(&json));
        bytes.extend_from_slice(&json);
        Ok(write_atomically(&path, &bytes)?)
    }

    /// Reads and checks the index of the pack in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, PackError> {
        let path = folder.join(FILE);
        let bytes = MappedFile::open(&path).map_err(PackError::io(&path))?;
        let refuse = |reason: String| PackError::Index { path: path.clone(), reason };
        let index = Self::parse(&bytes).map_err(refuse)?;
        index.check().map_err(refuse)?;
        Ok(index)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let Some((header, json)) = bytes.split_at_checked(HEADER) else {
            return Err(format!("expected at least {HEADER} bytes, found {}", bytes.len()));
        };
        if header[..8] != MAGIC {
            return Err(format!("expected MELOPACK, found \"{}\"", header[..8].escape_ascii()));
        }
        let version = u32_at(header, 8);
        if version != VERSION || u32_at(header, 12) != 0 {
            return Err(format!("expected version {VERSION}, found {version}"));
        }
        let length = u64_at(header, 16);
        if length != json.len() as u64 {
            return Err(format!("expected {length} bytes of JSON, found {}", json.len()));
        }
        if header[24..] != Sha256::digest(json)[..] {
            return Err("the checksum is another: the file is damaged".to_owned());
        }
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }

    /// Numbers that belong together but do not fit.
    fn check(&self) -> Result<(), String> {
        let (Index { layout, classes, shards, rows, .. }, kind) = (self, self.kind());
        layout.preprocess.check().map_err(|error| error.reason)?;
        if layout.depth != 8 {
            return Err(format!("expected 8 bits a sample, found {}", layout.depth));
        }
        if layout.images_per_shard == 0 || layout.shards() != shards.len() {
            let (images, per) = (layout.images, layout.images_per_shard);
            return Err(format!("{} shards do not hold {images} images, {per} in each", shards.len()));
        }
        for (index, shard) in shards.iter().enumerate() {
            let expected = layout.images_of(index).len();
            if shard.images != expected {
                return Err(format!("shard {index}: expected {expected} images, found {}", shard.images));
            }
        }
        let mut taken =
            vec![false; layout.images.min(rows.len().saturating_add(layout.images_per_shard * shards.len()))];
        for row @ RowRecord { name, image, .. } in rows {
            match taken.get_mut(*image) {
                Some(taken) if !*taken => *taken = true,
                _ => return Err(format!("\"{name}\": image {image} is outside, or another row's")),
            }
            let within = row.shows.iter().all(|&class| class < classes.len());
            let ambiguous = kind.is_one_class() && row.shows.len() != 1;
            if !within || ambiguous || !row.labels(classes.len(), kind).fits(classes.len(), kind) {
                return Err(format!("\"{name}\": labels {:?} do not fit {} classes", row.shows, classes.len()));
            }
        }
        Ok(())
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map(u32::from_le_bytes).expect("four bytes are four bytes")
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map(u64::from_le_bytes).expect("eight bytes are eight bytes")
}
