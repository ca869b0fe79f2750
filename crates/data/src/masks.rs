//! The masks of images, read as their images are.

use std::path::Path;

use melo_imaging::{Mask, MaskReading, dicom, file_of};

use crate::Error;

/// The mask at `mask` of the image at `image`: of a DICOM segmentation of several slices the one that refers to the image.
pub(crate) fn read(mask: &Path, image: &Path, reading: &MaskReading) -> Result<Mask, Error> {
    let bytes = std::fs::read(file_of(mask));
    let bytes = bytes.map_err(|source| melo_imaging::Error::Read { path: mask.into(), source })?;
    let mut reading = reading.clone();
    if reading.instance.is_none() && dicom::is_dicom(&bytes) {
        reading.instance = instance(image);
    }
    Ok(melo_imaging::decode_mask(&bytes, mask, &reading)?)
}

/// `SOPInstanceUID` of a DICOM image.
fn instance(image: &Path) -> Option<String> {
    let bytes = std::fs::read(file_of(image)).ok().filter(|bytes| dicom::is_dicom(bytes))?;
    dicom::header(&bytes, image, &["SOPInstanceUID"]).ok()?.into_iter().next().flatten()
}
