//! One file of an archive: read once, digested, asked for its names, and prepared as predictions prepare it.

use crate::caught::caught;
use crate::patient::PatientKey;
use crate::sources::Source;
use melo_imaging::{dicom, file_of};
use melo_predict::Prepared;
use melo_vit::{Preprocess, hex};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// What identifies a DICOM instance, study and patient.
const ATTRIBUTES: [&str; 3] = ["SOPInstanceUID", "StudyInstanceUID", "PatientID"];

/// What is known of an image beside its answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Its place in the list, from 0.
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    /// SHA-256 of its file.
    pub(crate) digest: Option<String>,
    pub(crate) sop_instance_uid: Option<String>,
    pub(crate) study_instance_uid: Option<String>,
    /// The Patient ID's code.
    pub(crate) patient: Option<String>,
    /// Which image of the file, and of how many.
    pub(crate) frame: Option<(usize, usize)>,
    /// Why there is no answer.
    pub(crate) error: Option<String>,
}

/// An image as the predictor takes it; none where it is refused.
pub(crate) struct Image {
    pub(crate) facts: Facts,
    pub(crate) prepared: Option<Prepared>,
}

impl Image {
    /// Reads and prepares a file, or what was fetched of an object; whatever is wrong with it is in its facts.
    pub(crate) fn read<T>(source: Source<T>, specs: &[&Preprocess], key: Option<&PatientKey>) -> Self {
        let Source { number, path, fetched, .. } = source;
        let mut facts = Facts { number, path, ..Facts::default() };
        let prepared = match caught(|| facts.prepare(fetched, specs, key)) {
            Ok(Ok(prepared)) => {
                let place = prepared.seen.first().and_then(|seen| seen.place);
                facts.frame = place.map(|place| (place.number, place.count));
                Some(prepared)
            }
            Ok(Err(error)) => {
                facts.error = Some(error.to_string());
                None
            }
            Err(panic) => {
                facts.error = Some(format!("{}: {panic}", facts.path.display()));
                None
            }
        };
        Image { facts, prepared }
    }
}

impl Facts {
    fn prepare(
        &mut self,
        fetched: Option<std::io::Result<Vec<u8>>>,
        specs: &[&Preprocess],
        key: Option<&PatientKey>,
    ) -> Result<Prepared, melo_imaging::Error> {
        let is_object = fetched.is_some();
        let file = file_of(&self.path);
        let bytes = fetched.unwrap_or_else(|| read(&file));
        let bytes = bytes.map_err(|source| melo_imaging::Error::Read { path: self.path.clone(), source })?;
        self.digest = Some(hex(&Sha256::digest(&bytes)));
        if dicom::is_dicom(&bytes) {
            // A header that cannot be read is told by the decoder.
            let found = dicom::header(&bytes, &self.path, &ATTRIBUTES).unwrap_or_default();
            let mut found = found.into_iter();
            let mut next = || found.next().flatten();
            (self.sop_instance_uid, self.study_instance_uid) = (next(), next());
            self.patient = next().zip(key).map(|(patient, key)| key.code(&patient));
        }
        // In a name that is a file's own, `#` begins no fragment.
        match !is_object && file == self.path && self.path.as_os_str().as_encoded_bytes().contains(&b'#') {
            true => Prepared::of_file(&self.path, specs, false),
            false => Prepared::of_bytes(&bytes, &self.path, specs, false),
        }
    }
}

/// The bytes of a regular file; what waits in a pipe is never read.
pub(crate) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    match std::fs::metadata(path)?.is_file() {
        true => std::fs::read(path),
        false => Err(std::io::Error::other("not a regular file")),
    }
}
