//! What an archive has come to: `DIR/manifest.json`, and whether the files are still that.

use crate::error::Error;
use crate::folder::{ArchiveFolder, INPUTS, MANIFEST, PLAN, foreign, names_in, part_name};
use crate::part::{PartAbout, digest, inspect};
use crate::plan::{FORMAT, Plan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// A complete archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `melo-archive-1`.
    pub format: String,
    /// SHA-256 of `plan.json`.
    pub plan: String,
    /// Images.
    pub inputs: u64,
    /// Rows of all parts: images × plug-ins.
    pub rows: u64,
    /// Images without an answer.
    pub errors: u64,
    /// Bytes of all parts.
    pub bytes: u64,
    /// The parts, in their order.
    pub parts: Vec<PartRecord>,
}

/// A part of a complete archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartRecord {
    /// Its file's name, in the archive's folder.
    pub name: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Length of the file.
    pub bytes: u64,
    /// Images.
    pub inputs: usize,
    /// Images × plug-ins.
    pub rows: usize,
    /// Images without an answer.
    pub errors: usize,
}

/// A file that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Parts of the whole archive.
    pub parts: u64,
    /// Images of the whole archive.
    pub inputs: u64,
    /// Rows of the parts that are there and whole.
    pub rows: u64,
    /// Images without an answer among them.
    pub errors: u64,
    /// Files that are not there, the manifest of an archive in the making among them.
    pub missing: Vec<String>,
    /// Files that are not as they were written.
    pub damaged: Vec<Damaged>,
    /// Files that are not the archive's.
    pub unexpected: Vec<String>,
}

impl Checked {
    /// True for an archive that is complete and whole.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.damaged.is_empty() && self.unexpected.is_empty()
    }
}

/// Reads every file of an archive again.
///
/// # Errors
/// [`Error::Io`], [`Error::Damaged`] where there is no plan to check against; what is wrong elsewhere is told.
pub fn check(folder: &Path) -> Result<Checked, Error> {
    let plan = Plan::read(&folder.join(PLAN))?;
    let digest_of_plan = plan.digest();
    let names = names_in(folder)?;
    let (mut missing, mut damaged) = (Vec::new(), Vec::new());
    let mut broken = |name: &str, reason: String| damaged.push(Damaged { name: name.to_owned(), reason });
    match digest(&folder.join(INPUTS)) {
        _ if !names.contains(INPUTS) => missing.push(INPUTS.to_owned()),
        Ok((found, _)) if found == plan.inputs_digest => {}
        Ok(_) => broken(INPUTS, "not the names that the plan was made of".to_owned()),
        Err(error) => broken(INPUTS, error.to_string()),
    }
    let mut manifest = None;
    match read_manifest(folder) {
        Ok(Some(found)) if found.plan == digest_of_plan => manifest = Some(found),
        Ok(Some(_)) => broken(MANIFEST, "of another plan".to_owned()),
        Ok(None) => missing.push(MANIFEST.to_owned()),
        Err(error) => broken(MANIFEST, error.to_string()),
    }
    let (mut rows, mut errors) = (0, 0);
    for number in 0..plan.chunks() {
        let name = part_name(number, &digest_of_plan);
        if !names.contains(&name) {
            missing.push(name);
            continue;
        }
        match checked_part(folder, (&plan, &digest_of_plan), number, manifest.as_ref()) {
            Ok(record) => {
                rows += record.rows as u64;
                errors += record.errors as u64;
            }
            Err(Error::Damaged { reason, .. }) => broken(&name, reason),
            Err(error) => broken(&name, error.to_string()),
        }
    }
    let unexpected = foreign(&names, Some(&plan));
    Ok(Checked { parts: plan.chunks(), inputs: plan.inputs, rows, errors, missing, damaged, unexpected })
}

/// The manifest, where there is one.
fn read_manifest(folder: &Path) -> Result<Option<Manifest>, Error> {
    let path = folder.join(MANIFEST);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::damaged(&path, error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path, source }),
    }
}

/// A part that is whole, of this plan, and what the manifest says where there is one.
fn checked_part(
    folder: &Path,
    (plan, digest_of_plan): (&Plan, &str),
    number: u64,
    manifest: Option<&Manifest>,
) -> Result<PartRecord, Error> {
    let name = part_name(number, digest_of_plan);
    let path = folder.join(&name);
    let (sha256, bytes) = digest(&path)?;
    let record = manifest.and_then(|manifest| manifest.parts.iter().find(|record| record.name == name));
    if record.is_some_and(|record| record.sha256 != sha256) {
        return Err(Error::damaged(&path, "its checksum is not the manifest's"));
    }
    let found = inspect(&path)?;
    let inputs = plan.inputs_of(number);
    let rows = inputs * plan.plugins.len();
    if found != PartAbout::new(digest_of_plan, number, inputs, rows, found.errors) {
        return Err(Error::damaged(&path, "of another plan, or of other images"));
    }
    Ok(PartRecord { name, sha256, bytes, inputs, rows, errors: found.errors })
}

/// Reads all parts once and writes the manifest; `fresh` are the numbers of those that were just written, which an older manifest does not
/// know.
pub(crate) fn finish(folder: &ArchiveFolder, plan: &Plan, fresh: &BTreeSet<u64>) -> Result<Manifest, Error> {
    let digest_of_plan = plan.digest();
    // A manifest that cannot be read is made anew; what it vouched for is lost.
    let older = read_manifest(folder.path()).ok().flatten();
    let mut manifest = Manifest {
        format: FORMAT.to_owned(),
        plan: digest_of_plan.clone(),
        inputs: plan.inputs,
        rows: 0,
        errors: 0,
        bytes: 0,
        parts: Vec::new(),
    };
    for number in 0..plan.chunks() {
        let older = older.as_ref().filter(|_| !fresh.contains(&number));
        let part = checked_part(folder.path(), (plan, &digest_of_plan), number, older)?;
        manifest.rows += part.rows as u64;
        manifest.errors += part.errors as u64;
        manifest.bytes += part.bytes;
        manifest.parts.push(part);
    }
    folder.sync()?;
    let mut json = serde_json::to_vec_pretty(&manifest).expect("plain data");
    json.push(b'\n');
    folder.write(MANIFEST, &json)?;
    folder.sync()?;
    Ok(manifest)
}
