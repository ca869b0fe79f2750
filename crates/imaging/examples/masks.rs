//! Masks read and written for `tools/masks/verify.py`, which holds them to other software.
//!
//! ```text
//! masks read MASK…                   a line a mask: columns, rows, CRC-32 of the labels
//! masks image IMAGE MASK             the mask of a DICOM image, picked by its instance: the same line
//! masks write FOLDER MASK [SOURCE]   mask.png; mask.nii.gz, in the space of SOURCE if that is NIfTI; mask.dcm, of SOURCE if that is DICOM
//! ```

use std::error::Error;
use std::path::Path;

use melo_imaging::{
    Mask, MaskReading, MaskVolume, Segment, SegmentCode, SegmentationAbout, dicom, read_mask, write_mask_dicom,
    write_mask_png,
};
use melo_vit::Rendering;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["read", ref masks @ ..] => {
            for mask in masks {
                tell(mask, &read_mask(Path::new(mask), &MaskReading::default())?);
            }
        }
        ["image", image, mask] => {
            let bytes = std::fs::read(image)?;
            let instance = dicom::header(&bytes, Path::new(image), &["SOPInstanceUID"])?.swap_remove(0);
            tell(mask, &read_mask(Path::new(mask), &MaskReading { instance, ..MaskReading::default() })?);
        }
        ["write", folder, mask] => write(Path::new(folder), Path::new(mask), None)?,
        ["write", folder, mask, source] => write(Path::new(folder), Path::new(mask), Some(Path::new(source)))?,
        _ => return Err("expected read MASK…, image IMAGE MASK, or write FOLDER MASK [SOURCE]".into()),
    }
    Ok(())
}

fn tell(path: &str, mask: &Mask) {
    println!("{} {} {:08x} {path}", mask.width, mask.height, libdeflater::crc32(&mask.labels));
}

fn write(folder: &Path, mask: &Path, source: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let mask = read_mask(mask, &MaskReading::default())?;
    write_mask_png(&folder.join("mask.png"), &mask)?;
    let source = source.map(|path| std::fs::read(path).map(|bytes| (path, bytes))).transpose()?;
    let is_dicom = source.as_ref().is_some_and(|(_, bytes)| dicom::is_dicom(bytes));
    let mut volume = match &source {
        Some((path, bytes)) if !is_dicom => MaskVolume::like(bytes, path)?,
        _ => MaskVolume::of_image(mask.width, mask.height)?,
    };
    volume.put(&mask, &Rendering::default())?;
    volume.write(&folder.join("mask.nii.gz"))?;
    if let Some((path, bytes)) = source.filter(|_| is_dicom) {
        let code = |value: &str, meaning: &str| SegmentCode {
            value: value.to_owned(),
            scheme: "SCT".to_owned(),
            meaning: meaning.to_owned(),
        };
        let coded = [code("49755003", "Morphologically Abnormal Structure"), code("41329004", "Polyp")];
        let about = SegmentationAbout {
            segments: vec![
                Segment { label: "polyp".to_owned(), codes: Some(coded) },
                Segment { label: "Gefäß".to_owned(), codes: None },
                Segment { label: "never seen".to_owned(), codes: None },
            ],
            instance_uid: "2.25.1234567890".to_owned(),
            series_uid: "2.25.1234567891".to_owned(),
            series_description: "melo test".to_owned(),
            algorithm: "polyps".to_owned(),
            model_name: "melo predict".to_owned(),
            serial_number: "0123456789abcdef".to_owned(),
            software_versions: env!("CARGO_PKG_VERSION").to_owned(),
            date: "20260101".to_owned(),
            time: "120000".to_owned(),
        };
        write_mask_dicom(&folder.join("mask.dcm"), &mask, &bytes, path, 0, &about)?;
    }
    Ok(())
}
