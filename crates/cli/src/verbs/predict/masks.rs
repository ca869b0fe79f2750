//! Masks beside the answers, of tasks that give them: class indices as PNG, NIfTI or DICOM SEG, and laid over the image.

use super::names::Names;
use crate::{Failure, note};
use clap::ValueEnum;
use melo::imaging::{MaskVolume, dicom, file_of, mask_overlay, write_mask_dicom, write_mask_png, write_png};
use melo::predict::{Prediction, Predictor, Prepared, segmentation_about};
use melo::vit::rendering::Slice;
use melo::vit::{BoundPlugin, Rendering, TaskKind};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Share of the colour of a class: enough to stand out, little enough to see the tissue below.
const OPACITY: f32 = 0.4;

#[derive(clap::Args)]
pub(crate) struct MaskArgs {
    /// Write the masks of tasks that give them into this folder, as IMAGE.TASK.png and IMAGE.TASK.overlay.png
    #[arg(id = "masks", long = "masks", value_name = "DIR")]
    pub(super) folder: Option<PathBuf>,
    /// Forms of the masks; DICOM segmentations are of DICOM images alone
    #[arg(
        long = "mask-format",
        value_enum,
        value_name = "FORM,…",
        value_delimiter = ',',
        default_value = "png,overlay",
        requires = "masks"
    )]
    formats: Vec<Format>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// Class indices with a palette, IMAGE.TASK.png
    Png,
    /// Colours and outlines over the image, IMAGE.TASK.overlay.png
    Overlay,
    /// Class indices in the space of the image, IMAGE.TASK.nii.gz
    Nifti,
    /// A DICOM Segmentation that refers to the image, IMAGE.TASK.dcm
    Dicom,
}

/// A mask that was written; part of the contract in `docs/json.md`.
#[derive(Clone, Serialize)]
pub(super) struct MaskFile {
    format: Format,
    #[serde(serialize_with = "crate::json_path")]
    pub(super) path: PathBuf,
}

/// Where masks go.
pub(super) struct Masks<'a> {
    names: Names<'a>,
    formats: &'a [Format],
    /// Images whose masks could not be written in a form were named.
    told: bool,
}

impl<'a> Masks<'a> {
    /// Makes the folder, where masks are asked for and some task gives them.
    pub(super) fn open(
        args: &'a MaskArgs,
        plugins: &[Arc<BoundPlugin>],
        images: &[PathBuf],
    ) -> Result<Option<Self>, Failure> {
        let Some(folder) = args.folder.as_deref() else { return Ok(None) };
        if !plugins.iter().any(|plugin| plugin.card.kind == TaskKind::Segmentation) {
            return Err(Failure::Usage("--masks: none of the plug-ins gives masks".to_owned()));
        }
        Ok(Some(Masks { names: Names::open("--masks", folder, images)?, formats: &args.formats, told: false }))
    }

    /// Writes the mask of one prediction, and says where; nothing of a task that gives none.
    pub(super) fn write(
        &mut self,
        predictor: &Predictor,
        (image, prepared, task): (&Path, &Prepared, usize),
        prediction: &Prediction,
    ) -> Result<Vec<MaskFile>, Failure> {
        let (width, height) = prepared.sides[task];
        let Some(restored) = prediction.mask(width, height) else { return Ok(Vec::new()) };
        let (mask, card) = (&restored.mask, &prediction.plugin.card);
        let mut written = Vec::new();
        for &format in self.formats {
            let ending = match format {
                Format::Png => "png",
                Format::Overlay => "overlay.png",
                Format::Nifti => "nii.gz",
                Format::Dicom => "dcm",
            };
            let bytes = match format {
                Format::Png | Format::Overlay => Vec::new(),
                Format::Nifti | Format::Dicom => std::fs::read(file_of(image))?,
            };
            if format == Format::Dicom && !dicom::is_dicom(&bytes) {
                if !std::mem::replace(&mut self.told, true) {
                    note(format_args!(
                        "note: {}: is no DICOM image, and so has no DICOM segmentation",
                        image.display()
                    ));
                }
                continue;
            }
            let path = self.names.file(image, &[&card.task], ending);
            let place = prepared.seen[task].place;
            match format {
                Format::Png => write_mask_png(&path, mask)?,
                Format::Overlay => {
                    let drawn = mask_overlay(&prepared.pixels[task], mask, OPACITY, Some(&card.preprocess));
                    write_png(&path, &drawn)?;
                }
                Format::Nifti => {
                    let mut volume = match is_volume(image) {
                        true => MaskVolume::like(&bytes, image)?,
                        false => MaskVolume::of_image(width, height)?,
                    };
                    let slice =
                        place.filter(|_| is_volume(image)).map_or(Slice::Index(0), |at| Slice::Index(at.number));
                    volume.put(mask, &Rendering { slice, ..card.preprocess.rendering.clone() })?;
                    volume.write(&path)?;
                }
                Format::Dicom => {
                    let mut about = segmentation_about(&prediction.plugin, &**predictor.engine(), &bytes, image)?;
                    about.model_name = "melo predict".to_owned();
                    (about.date, about.time) = now();
                    let frame = place.map_or(0, |place| place.number.saturating_sub(1));
                    write_mask_dicom(&path, mask, &bytes, image, frame, &about)?;
                }
            }
            written.push(MaskFile { format, path });
        }
        Ok(written)
    }
}

/// True for a file that is called a NIfTI volume.
fn is_volume(image: &Path) -> bool {
    let name = file_of(image).to_string_lossy().to_lowercase();
    name.ends_with(".nii") || name.ends_with(".nii.gz")
}

/// Date and time of day in UTC, as DICOM writes them.
fn now() -> (String, String) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() % 86_400);
    let time = format!("{:02}{:02}{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    (melo::train::today().replace('-', ""), time)
}
