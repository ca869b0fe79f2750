//! Which column of a table is what, by its name.

use std::path::Path;

use csv::StringRecord;
use melo_imaging::has_image_extension;

use crate::csv_file::CsvFile;
use crate::{Error, Note, ReadOptions, Split, Warning};

/// Names of the column of images in tables of others, without regard to case and signs, the likelier before.
const PATHS: [&str; 21] = [
    "filepath",
    "filename",
    "file",
    "imagepath",
    "imagefile",
    "imagefilename",
    "imagefilepath",
    "imagename",
    "image",
    "images",
    "imageid",
    "imageindex",
    "img",
    "imgpath",
    "imgname",
    "imgid",
    "idcode",
    "isicid",
    "dicomid",
    "dicompath",
    "id",
];
/// The same of classes.
const LABELS: [&str; 18] = [
    "labels",
    "class",
    "classname",
    "classlabel",
    "classid",
    "diagnosis",
    "diagnosiscode",
    "dx",
    "target",
    "category",
    "findinglabels",
    "groundtruth",
    "gt",
    "level",
    "grade",
    "drgrade",
    "severity",
    "finding",
];
/// The same of patients: suggested, never taken.
const PATIENTS: [&str; 22] = [
    "patientid",
    "patient",
    "patientno",
    "patientnumber",
    "patientname",
    "patientuid",
    "patid",
    "pid",
    "ptid",
    "subject",
    "subjectid",
    "subjectno",
    "caseid",
    "case",
    "mrn",
    "medicalrecordnumber",
    "participant",
    "participantid",
    "person",
    "personid",
    "lesionid",
    "donorid",
];
/// The same of splits: suggested where the values are splits.
const SPLITS: [&str; 9] = ["splits", "set", "subset", "partition", "fold", "phase", "dataset", "usage", "mode"];
/// Names of the column of masks, without regard to case and signs, the likelier before: taken where the values are names of files.
const MASKS: [&str; 20] = [
    "mask",
    "maskpath",
    "maskfile",
    "maskfilename",
    "maskname",
    "masks",
    "segmentation",
    "segmentationpath",
    "segmentationfile",
    "segmentationmask",
    "segmentationfilename",
    "seg",
    "segpath",
    "segfile",
    "segmask",
    "labelmap",
    "labelmask",
    "gtmask",
    "annotationmask",
    "roimask",
];
/// Endings of masks beside those of images.
const MASK_ENDINGS: [&str; 4] = [".nii", ".nii.gz", ".npy", ".npz"];
/// Words in the names of columns that say something about the patient or the picture, not what it shows.
const ABOUT: [&str; 44] = [
    "sex",
    "gender",
    "male",
    "female",
    "age",
    "view",
    "viewposition",
    "fold",
    "split",
    "index",
    "idx",
    "unnamed",
    "id",
    "train",
    "test",
    "val",
    "valid",
    "validation",
    "subset",
    "visit",
    "year",
    "date",
    "scanner",
    "site",
    "hospital",
    "center",
    "centre",
    "institution",
    "race",
    "ethnicity",
    "laterality",
    "bmi",
    "weight",
    "height",
    "device",
    "manufacturer",
    "rater",
    "reader",
    "batch",
    "patient",
    "subject",
    "frontal",
    "ap",
    "pa",
];
/// Names that say so only as a whole.
const ABOUT_ALONE: [&str; 9] = ["left", "right", "side", "eye", "lateral", "apreview", "source", "name", "study"];

/// The columns of a table that are not labels.
#[derive(Debug)]
pub(crate) struct Roles {
    pub(crate) image: usize,
    pub(crate) split: Option<usize>,
    pub(crate) patient: Option<usize>,
    /// The column of masks.
    pub(crate) mask: Option<usize>,
    /// The column of bags.
    pub(crate) bag: Option<usize>,
    /// The column that is called `label`, if no other was asked for.
    pub(crate) label: Option<usize>,
    /// A column without a name that is passed over.
    pub(crate) unnamed: Option<usize>,
}

/// A name without its case and signs: `Patient ID` is `patientid`.
pub(crate) fn bare(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// True if a header has a column of images, by what was asked for or by the names that are known.
pub(crate) fn has_image_column(header: &StringRecord, options: &ReadOptions) -> bool {
    match &options.path_column {
        Some(asked) => header.iter().any(|name| name.eq_ignore_ascii_case(asked)),
        None => header.iter().any(|name| name.eq_ignore_ascii_case("path") || PATHS.contains(&bare(name).as_str())),
    }
}

impl Roles {
    /// # Errors
    /// [`Error::NoPathColumn`], [`Error::NoColumn`], [`Error::DuplicateColumn`], [`Error::UnnamedColumn`].
    pub(crate) fn of(path: &Path, file: &CsvFile, options: &ReadOptions) -> Result<(Self, Vec<Note>), Error> {
        let named = |asked: &Option<String>, usual: &str| match asked {
            Some(asked) => asked_for(path, file, asked).map(Some),
            None => only(path, file, |name| name.eq_ignore_ascii_case(usual)),
        };
        let image = Self::image_of(path, file, options)?;
        let name = &file.header[image];
        let is_usual = options.path_column.is_some() || name.eq_ignore_ascii_case("path");
        let mut notes = Vec::new();
        notes.extend((!is_usual).then(|| Note::Column { role: "path".to_owned(), column: name.to_owned() }));
        let label = match options.label_columns.is_empty() {
            true => only(path, file, |name| name.eq_ignore_ascii_case("label"))?,
            false => None,
        };
        let split = named(&options.split_column, "split")?;
        let patient = named(&options.patient_column, "patient_id")?;
        let bag = named(&options.bag_column, "bag")?;
        let mask = match &options.mask_column {
            Some(asked) => Some(asked_for(path, file, asked)?),
            None => mask_like(file, &[Some(image), split, patient, bag, label]),
        };
        if let Some(mask) = mask.filter(|&mask| options.mask_column.is_none() && file.header[mask] != *"mask") {
            notes.push(Note::Column { role: "mask".to_owned(), column: file.header[mask].to_owned() });
        }
        let mut unnamed = None;
        if let Some(index) = file.header.iter().position(str::is_empty) {
            let other = file.header.iter().skip(index + 1).position(str::is_empty);
            let counts = index == 0 && file.all(0, |value| value.parse::<u64>().is_ok());
            if other.is_some() || !(counts || file.all(index, str::is_empty)) {
                return Err(Error::UnnamedColumn { path: path.into(), column: index + 1 });
            }
            notes.extend(counts.then_some(Note::LineNumbers));
            unnamed = Some(index);
        }
        Ok((Self { image, split, patient, mask, bag, label, unnamed }, notes))
    }

    /// The column of images: the one that was asked for, `path`, or one with a name that is known.
    ///
    /// # Errors
    /// [`Error::NoPathColumn`], [`Error::NoColumn`], [`Error::DuplicateColumn`].
    pub(crate) fn image_of(path: &Path, file: &CsvFile, options: &ReadOptions) -> Result<usize, Error> {
        if let Some(asked) = &options.path_column {
            return asked_for(path, file, asked);
        }
        let usual = only(path, file, |name| name.eq_ignore_ascii_case("path"))?;
        let found = usual.or_else(|| first_of(&file.header, &PATHS));
        found.ok_or_else(|| Error::NoPathColumn { path: path.into(), header: file.names().join(",") })
    }

    /// The columns without which a line is too short.
    pub(crate) fn needed(&self) -> Vec<usize> {
        [Some(self.image), self.split, self.bag, self.label].into_iter().flatten().collect()
    }

    /// The columns that have no role yet.
    pub(crate) fn others(&self, file: &CsvFile) -> Vec<usize> {
        let taken = [Some(self.image), self.split, self.patient, self.mask, self.bag, self.label, self.unnamed];
        (0..file.header.len()).filter(|index| !taken.contains(&Some(*index))).collect()
    }

    /// Columns that look like a role which no column has.
    pub(crate) fn suggestions(
        &self,
        file: &CsvFile,
        metadata: &[usize],
        rows: &[(usize, StringRecord)],
    ) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let like = |known: &[&str]| {
            let found = metadata.iter().filter(|&&index| known.contains(&bare(&file.header[index]).as_str()));
            found.copied().collect::<Vec<usize>>()
        };
        let names = |columns: &[usize]| columns.iter().map(|&index| file.header[index].to_owned()).collect();
        let patients = like(&PATIENTS);
        if self.patient.is_none() && !patients.is_empty() {
            warnings.push(Warning::NoPatientColumn { suggested: names(&patients) });
        }
        let mut splits = like(&SPLITS);
        splits.retain(|&index| !rows.is_empty() && rows.iter().all(|(_, row)| Split::from_word(&row[index]).is_some()));
        if self.split.is_none() && !splits.is_empty() {
            warnings.push(Warning::NoSplitColumn { suggested: names(&splits) });
        }
        warnings
    }
}

/// The column of masks by its name, if all its values are names of files or nothing.
fn mask_like(file: &CsvFile, taken: &[Option<usize>]) -> Option<usize> {
    let named = |name: &str| file.header.iter().position(|found| bare(found) == name);
    let free = MASKS.iter().find_map(|name| named(name)).filter(|&column| !taken.contains(&Some(column)))?;
    let is_file = |value: &str| {
        let file = value.split('#').next().unwrap_or(value);
        let end = file.rsplit(['/', '\\']).next().unwrap_or(file).to_ascii_lowercase();
        has_image_extension(Path::new(&end)) || MASK_ENDINGS.iter().any(|known| end.ends_with(known))
    };
    let is_mask = |value: &str| value.is_empty() || is_file(value);
    (file.all(free, is_mask) && !file.all(free, str::is_empty)).then_some(free)
}

/// The first column that has one of these names, the likelier before.
fn first_of(header: &StringRecord, known: &[&str]) -> Option<usize> {
    let bare: Vec<String> = header.iter().map(bare).collect();
    known.iter().find_map(|known| bare.iter().position(|name| name == known))
}

/// The column among `columns` whose name is that of classes.
pub(crate) fn label_like(header: &StringRecord, columns: &[usize]) -> Option<usize> {
    let name = |known: &&str| columns.iter().copied().find(|&column| bare(&header[column]) == **known);
    LABELS.iter().find_map(name)
}

/// True for a column that says something about the patient or the picture.
pub(crate) fn is_about(name: &str) -> bool {
    let bare = bare(name);
    let known = |names: &[&str]| names.contains(&bare.as_str());
    // `viewPosition` is two words, as `view_position` is.
    let mut apart = String::new();
    let mut before = ' ';
    for letter in name.chars() {
        if before.is_lowercase() && letter.is_uppercase() {
            apart.push(' ');
        }
        apart.extend(letter.to_lowercase());
        before = letter;
    }
    // A disease of the eye, not an age.
    let apart = apart.replace("age related", "").replace("age-related", "").replace("age_related", "");
    let word = |word: &str| ABOUT.contains(&word);
    known(&ABOUT_ALONE)
        || known(&PATHS)
        || known(&PATIENTS)
        || known(&SPLITS)
        || apart.split(|letter: char| !letter.is_alphanumeric()).any(word)
}

/// The column that was asked for, in any case.
pub(crate) fn asked_for(path: &Path, file: &CsvFile, asked: &str) -> Result<usize, Error> {
    let exact = only(path, file, |name| name == asked)?;
    let found = match exact {
        Some(index) => Some(index),
        None => only(path, file, |name| name.eq_ignore_ascii_case(asked))?,
    };
    found.ok_or_else(|| Error::NoColumn { path: path.into(), column: asked.to_owned(), found: file.names() })
}

/// The one column that is `wanted`.
pub(crate) fn only(path: &Path, file: &CsvFile, wanted: impl Fn(&str) -> bool) -> Result<Option<usize>, Error> {
    let mut found = file.header.iter().enumerate().filter(|(_, name)| wanted(name));
    match (found.next(), found.next()) {
        (Some(_), Some((_, second))) => Err(Error::DuplicateColumn { path: path.into(), column: second.to_owned() }),
        (first, _) => Ok(first.map(|(index, _)| index)),
    }
}
