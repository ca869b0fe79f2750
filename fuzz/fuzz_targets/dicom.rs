//! DICOM files: the data set, the image module, tables and windows, headers, directories.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_imaging::dicom;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let name = Path::new("image.dcm");
    let _ = dicom::render(bytes, name, &Default::default());
    let _ = dicom::header(bytes, name, &["PatientID", "0018,0060"]);
    let _ = dicom::directory(bytes, name);
});
