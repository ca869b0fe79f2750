//! Which files belong together: DICOMDIR (DICOM PS3.3, annex F) and folders of series.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::data_set::{DataSet, Fault};
use super::{is_dicom, tag, with_file};
use crate::Error;

/// An image that a DICOMDIR names, with what its patient, study and series records say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryRecord {
    /// The file, relative to the folder of the DICOMDIR.
    pub file: PathBuf,
    /// (0010,0020).
    pub patient_id: Option<String>,
    /// (0020,000D).
    pub study_uid: Option<String>,
    /// (0020,000E).
    pub series_uid: Option<String>,
    /// (0008,0060).
    pub modality: Option<String>,
    /// (0004,1511).
    pub instance_uid: Option<String>,
    /// (0020,0013).
    pub instance_number: Option<i64>,
}

/// The image records of a DICOMDIR, in the file's order; `name` serves only the errors.
///
/// Records are taken in the order in which every writer puts them, patient before study before series before image;
/// the offsets that link them (F.3.2.2) are not followed.
///
/// # Errors
/// [`Error::Attribute`] if it is no DICOMDIR, or a record names a file outside of its folder.
pub fn directory(bytes: &[u8], name: &Path) -> Result<Vec<DirectoryRecord>, Error> {
    with_file(bytes, name, |file| {
        if file.set.find(tag::DIRECTORY_RECORDS).is_none() {
            return Err(Fault::new(tag::DIRECTORY_RECORDS, "is missing: the file is no DICOMDIR"));
        }
        let (mut current, mut records) = (DirectoryRecord::default(), Vec::new());
        for item in file.set.items(tag::DIRECTORY_RECORDS) {
            match item.text(tag::RECORD_TYPE).as_deref() {
                Some("PATIENT") => {
                    current = DirectoryRecord { patient_id: item.text(tag::PATIENT_ID), ..Default::default() };
                }
                Some("STUDY") => current.study_uid = item.text(tag::STUDY),
                Some("SERIES") => {
                    current.series_uid = item.text(tag::SERIES);
                    current.modality = item.text(tag::MODALITY);
                }
                Some(_) if item.text(tag::REFERENCED_FILE).is_some() => records.push(DirectoryRecord {
                    file: referenced(item)?,
                    instance_uid: item.text(tag::REFERENCED_INSTANCE_IN_FILE),
                    instance_number: number(item),
                    ..current.clone()
                }),
                _ => {}
            }
        }
        Ok(records)
    })
}

fn referenced(item: &DataSet) -> Result<PathBuf, Fault> {
    let text = item.text(tag::REFERENCED_FILE).unwrap_or_default();
    let part = |part: &str| {
        let part = part.trim();
        // PS3.10, section 8.2: components are upper-case letters, digits and underscores.
        let plain = !matches!(part, "" | "." | "..") && !part.contains(['/', '\0', ':']);
        let reason = || format!("is `{}`, which is no file below the DICOMDIR", text.escape_debug());
        if plain { Ok(part.to_owned()) } else { Err(Fault::new(tag::REFERENCED_FILE, reason())) }
    };
    text.split('\\').map(part).collect()
}

fn number(set: &DataSet) -> Option<i64> {
    set.text(tag::INSTANCE_NUMBER)?.parse().ok()
}

/// The files of one series (0020,000E), in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// (0020,000E); empty if the files have none.
    pub uid: String,
    /// By place along the slice normal where every file has one, else by instance number, else by name.
    pub instances: Vec<Instance>,
}

/// A file of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Where it is.
    pub path: PathBuf,
    /// (0008,0018).
    pub uid: Option<String>,
    /// (0020,0013).
    pub number: Option<i64>,
    /// Distance along the slice normal, mm: (0020,0032) times the normal of (0020,0037).
    pub position_mm: Option<f64>,
    /// (0028,0011) and (0028,0010).
    pub sides: Option<(u16, u16)>,
}

impl Series {
    /// The series of the DICOM images among `files`, and the place of each instance among these; other files are passed over.
    ///
    /// # Errors
    /// [`Error::Attribute`] for a damaged DICOM file.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a Path, &'a [u8])>) -> Result<Vec<(Self, Vec<usize>)>, Error> {
        let mut gathered = Gathered::default();
        files.into_iter().enumerate().try_for_each(|(place, (name, bytes))| gathered.add(place, name, bytes))?;
        Ok(gathered.series())
    }

    /// Which slices are of another size than the first, in words; none where all are of one.
    pub fn of_two_sizes(&self, name: impl Fn(&Instance) -> String) -> Option<String> {
        let first = self.instances.first()?;
        let other = self.instances.iter().find(|instance| instance.sides != first.sides)?;
        let [first, other] = [first, other].map(|instance| {
            let (columns, rows) = instance.sides.unwrap_or_default();
            format!("{columns} x {rows} in {}", name(instance))
        });
        Some(format!("expected slices of one size, found {first} and {other}"))
    }
}

/// Instances by series, with their places among the files.
#[derive(Default)]
struct Gathered(BTreeMap<String, Vec<(Instance, usize)>>);

impl Gathered {
    fn add(&mut self, place: usize, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        if !is_dicom(bytes) {
            return Ok(());
        }
        let (uid, instance, pixels) = with_file(bytes, path, |file| {
            let set = &file.set;
            let instance = Instance {
                path: path.into(),
                uid: set.text(tag::INSTANCE),
                number: number(set),
                position_mm: position_mm(set)?,
                sides: set.number(tag::COLUMNS).zip(set.number(tag::ROWS)),
            };
            Ok((set.text(tag::SERIES).unwrap_or_default(), instance, set.find(tag::PIXELS).is_some()))
        })?;
        if pixels {
            self.0.entry(uid).or_default().push((instance, place));
        }
        Ok(())
    }

    fn series(self) -> Vec<(Series, Vec<usize>)> {
        let sorted = |(uid, mut instances): (String, Vec<(Instance, usize)>)| {
            instances.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
            if instances.iter().all(|(instance, _)| instance.position_mm.is_some()) {
                let place = |instance: &Instance| instance.position_mm.unwrap_or(0.0);
                instances.sort_by(|(a, _), (b, _)| place(a).total_cmp(&place(b)).then(a.number.cmp(&b.number)));
            } else {
                instances.sort_by_key(|(instance, _)| instance.number);
            }
            let (instances, places) = instances.into_iter().unzip();
            (Series { uid, instances }, places)
        };
        self.0.into_iter().map(sorted).collect()
    }
}

/// The series of the DICOM files directly in `folder`; other files are passed over.
///
/// # Errors
/// [`Error::Read`] if the folder or a file cannot be read; [`Error::Attribute`] for a damaged DICOM file.
pub fn series(folder: &Path) -> Result<Vec<Series>, Error> {
    let failed = |source| Error::Read { path: folder.into(), source };
    let mut gathered = Gathered::default();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            let bytes = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
            gathered.add(0, &path, &bytes)?;
        }
    }
    Ok(gathered.series().into_iter().map(|(series, _)| series).collect())
}

fn position_mm(set: &DataSet) -> Result<Option<f64>, Fault> {
    let (position, orientation) = (set.decimals(tag::POSITION)?, set.decimals(tag::ORIENTATION)?);
    let (Some(&[x, y, z]), Some(&[rx, ry, rz, cx, cy, cz])) = (position.as_deref(), orientation.as_deref()) else {
        return Ok(None);
    };
    Ok(Some(x * (ry * cz - rz * cy) + y * (rz * cx - rx * cz) + z * (rx * cy - ry * cx)))
}
