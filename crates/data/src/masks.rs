//! The masks of images, read as their images are.

use std::path::Path;

use melo_imaging::{IGNORE, Mask, MaskReading, dicom, file_of};
use rayon::prelude::*;

use crate::error::quoted;
use crate::{Error, Labels, Manifest, Row, Unreadable};

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

/// The value that is most often meant by "there" in masks of two values.
const WHITE: u8 = 255;

impl Manifest {
    /// The same images with the classes of their masks, which are all read; [`Reading::masks`](crate::Reading::masks) then says how. Each
    /// image's labels are then the classes that its mask shows.
    ///
    /// Values are classes by their number, 255 is ignored; where [`ReadOptions::mask_values`](crate::ReadOptions::mask_values) lists
    /// them, by their place there, and nothing is ignored but 255; where there is nothing but 0 and 255, these are two classes. Names are
    /// [`Manifest::classes`], or where there are none `background` and numbers.
    ///
    /// # Errors
    /// [`Error::Unreadable`] with *all* masks that cannot be read; [`Error::MaskClasses`] for values with gaps that nobody explained, and
    /// for more or fewer than there are names.
    pub fn with_mask_classes(&self) -> Result<Manifest, Error> {
        let asked = &self.reading.options.mask_values;
        let reading = reading_of(asked);
        let shown = |row: &Row| -> Result<Shown, Error> {
            let Some(mask) = &row.mask else { return Err(Error::NoMask { name: row.name.clone() }) };
            let mut shown = [false; 256];
            read(&mask.path, &row.path, &reading)?.labels.iter().for_each(|&label| shown[usize::from(label)] = true);
            Ok(shown)
        };
        let all: Vec<Result<Shown, Error>> = self.rows.par_iter().map(shown).collect();
        let (mut good, mut broken) = (Vec::new(), Vec::new());
        for (row, shown) in all.into_iter().enumerate() {
            match shown {
                Ok(shown) => good.push(shown),
                Err(error) => broken.push(Unreadable { row, line: self.rows[row].line, error }),
            }
        }
        if !broken.is_empty() {
            let (path, splits, images) = (self.path.clone(), Vec::new(), self.rows.len());
            return Err(Error::Unreadable { path, splits, images, broken });
        }
        let found: Vec<u8> =
            (0..=u8::MAX).filter(|&label| good.iter().any(|shown| shown[usize::from(label)])).collect();
        let (classes, reading) = self.mask_classes(found, reading)?;
        let white = asked.is_empty() && !reading.values.is_empty();
        let mut rows = self.rows.clone();
        for (row, shown) in rows.iter_mut().zip(good) {
            let has = |class: usize| shown[if white && class == 1 { usize::from(WHITE) } else { class }];
            row.labels = Labels::Multi((0..classes.len()).map(|class| u8::from(has(class))).collect());
        }
        let mut manifest = Manifest { classes, rows, ..self.clone() };
        manifest.reading.masks = Some(reading);
        Ok(manifest)
    }

    /// Names of the classes and the reading, of the labels that all masks show.
    fn mask_classes(&self, found: Vec<u8>, reading: MaskReading) -> Result<(Vec<String>, MaskReading), Error> {
        let asked = &self.reading.options.mask_values;
        let wrong = |found: &[u8], reason: String| {
            Err(Error::MaskClasses { path: self.path.clone(), found: found.to_vec(), reason })
        };
        let named = self.classes.len();
        let black_and_white = found.contains(&WHITE) && found.iter().all(|label| [0, WHITE].contains(label));
        let white = asked.is_empty() && black_and_white && [0, 2].contains(&named);
        let values: Vec<u8> = found.iter().copied().filter(|&label| label != IGNORE).collect();
        let seen = match (white, asked.len()) {
            (true, _) => 2,
            (false, 0) => values.last().map_or(0, |&last| usize::from(last) + 1),
            (false, asked) => asked,
        };
        if named > 0 && (seen > named || !asked.is_empty() && seen != named) {
            return wrong(&found, format!("expected the {named} classes {}", quoted(&self.classes)));
        }
        let absent = asked.is_empty() && named == 0 && !white && values.len() < seen;
        if absent {
            return wrong(
                &found,
                "expected every number from 0 on, or to be told which values are which class".to_owned(),
            );
        }
        if seen.max(named) < 2 {
            return wrong(&found, "expected the background and at least one more class".to_owned());
        }
        let classes = match (named, seen) {
            (0, 2) => vec!["background".to_owned(), "foreground".to_owned()],
            (0, _) => {
                (0..seen).map(|class| if class == 0 { "background".to_owned() } else { class.to_string() }).collect()
            }
            _ => self.classes.clone(),
        };
        let values = if white { [(i64::from(WHITE), 1)].into() } else { reading.values };
        let reading = MaskReading { classes: classes.len(), values, ..MaskReading::default() };
        Ok((classes, reading))
    }
}

/// Which labels a mask shows.
type Shown = [bool; 256];

/// How masks are read before their classes are known, by the values that are said to be classes, if any.
fn reading_of(values: &[i64]) -> MaskReading {
    match values.len() {
        0 => MaskReading::default(),
        classes => MaskReading { classes, values: values.iter().copied().zip(0..).collect(), ..MaskReading::default() },
    }
}
