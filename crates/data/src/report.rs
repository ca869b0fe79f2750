//! What [`check`](crate::check) found, for programs and for people.

mod text;

use std::path::PathBuf;

use melo_vit::TaskKind;
use serde::Serialize;

use crate::{Note, Split};

/// A manifest and its images, examined. Displays as plain text of at most 80 columns where names permit.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CheckReport {
    /// The CSV or directory.
    pub path: PathBuf,
    /// Names of the classes, of the grades from the lowest, of the findings or of the numbers.
    pub classes: Vec<String>,
    /// What is known of each image.
    pub kind: TaskKind,
    /// Number of images.
    pub images: usize,
    /// Number of distinct patient ids; `None` if no row has one.
    pub patients: Option<usize>,
    /// Images by split: those that occur, in order, unassigned ones last.
    pub splits: Vec<SplitCount>,
    /// Sizes of the readable images, the most frequent first.
    pub sizes: Vec<SizeCount>,
    /// What was decided while the manifest was read.
    pub notes: Vec<Note>,
    /// What stops training.
    pub problems: Vec<Problem>,
    /// What makes results doubtful.
    pub warnings: Vec<Warning>,
}

/// One split, counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitCount {
    /// The split; `None` for rows without one.
    pub split: Option<Split>,
    /// Its images.
    pub images: usize,
    /// Its distinct patient ids.
    pub patients: usize,
    /// Images that show each class, `[c]`; none of numbers.
    pub images_of: Vec<usize>,
    /// Images that show none, which only multi-label allows.
    pub images_of_none: usize,
    /// Each number, `[c]`; none of classes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spreads: Vec<Spread>,
}

/// A number in a split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub least: f32,
    /// As many images are below as above.
    pub median: f32,
    /// The largest.
    pub most: f32,
}

/// How many images have one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SizeCount {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Images.
    pub images: usize,
}

/// Something that stops training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Problem {
    /// An image is missing or cannot be decoded.
    Unreadable {
        /// The image, as the manifest writes it.
        name: String,
        /// Its line; 0 in a directory.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A mask is missing, cannot be read, or is of another size than its image.
    Mask {
        /// The image, as the manifest writes it.
        name: String,
        /// Its line.
        line: usize,
        /// The mask, as the manifest writes it.
        mask: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The values of all masks together are not those of the classes.
    MaskClasses {
        /// What is wrong.
        reason: String,
    },
    /// The labels of a row do not fit the classes: the manifest was not made by [`Manifest::read`](crate::Manifest::read).
    BrokenLabels {
        /// The image.
        name: String,
        /// Its line; 0 in a directory.
        line: usize,
    },
    /// Train or val has no image.
    EmptySplit {
        /// The split.
        split: Split,
    },
    /// All images of train, or of val, have the same labels.
    OneClass {
        /// The split.
        split: Split,
        /// What they show; empty if nothing.
        classes: Vec<String>,
    },
}

/// Something that makes results doubtful.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Warning {
    /// Patients whose images are in more than one split: the model is tested on people whom it knows.
    PatientsAcrossSplits {
        /// Those patients, sorted.
        patients: Vec<PatientAcross>,
    },
    /// Files with the same bytes in more than one split.
    DuplicatesAcrossSplits {
        /// Groups of equal files.
        groups: Vec<Vec<DuplicateFile>>,
    },
    /// Masks of more than one class that are equal pixel by pixel, of images in more than one split.
    MasksAcrossSplits {
        /// Groups of images whose masks are equal.
        groups: Vec<Vec<DuplicateFile>>,
    },
    /// One file that is the mask of several images.
    MaskOfSeveral {
        /// The masks, with the images that they belong to.
        masks: Vec<Spelling>,
    },
    /// Files with the same bytes and different labels.
    DuplicatesDisagree {
        /// Groups of equal files.
        groups: Vec<Vec<DuplicateFile>>,
    },
    /// Files with the same bytes in one split.
    DuplicatesWithinSplit {
        /// Groups of equal files.
        groups: Vec<Vec<DuplicateFile>>,
    },
    /// Images in two splits that look the same though their files differ: saved again, resized, brightened, slightly
    /// cropped, or mirrored left to right.
    NearDuplicatesAcrossSplits {
        /// Number of such pairs.
        total: usize,
        /// The pairs, the closest first; at most 1,000.
        pairs: Vec<NearPair>,
    },
    /// The same in one split, but for images of one patient, which may look alike.
    NearDuplicatesWithinSplit {
        /// Number of such pairs.
        total: usize,
        /// The pairs, the closest first; at most 1,000.
        pairs: Vec<NearPair>,
    },
    /// Test has no image, so nothing will be reported on unseen data.
    NoTest,
    /// No image has a split: [`assign_splits`](crate::Manifest::assign_splits) will give them.
    Unassigned,
    /// Classes that no image of a split shows: their AUC is undefined there.
    ClassAbsent {
        /// Each class and split.
        classes: Vec<ClassInSplit>,
    },
    /// Findings that every image of a split shows: their AUC is undefined there.
    ClassEverywhere {
        /// Each finding and split.
        classes: Vec<ClassInSplit>,
    },
    /// Classes that one image of a split shows.
    SingleExample {
        /// Each class and split.
        classes: Vec<ClassInSplit>,
    },
    /// Classes that only one patient shows: they can be in one split only, by default train.
    SinglePatient {
        /// The classes.
        classes: Vec<String>,
    },
    /// Images with a side under 32 pixels.
    SmallImages {
        /// The images.
        names: Vec<String>,
    },
    /// Classes that programs write where nothing is known: `nan`, `None`, `N/A`.
    MissingAsClass {
        /// The classes.
        classes: Vec<Spelling>,
    },
    /// Classes that differ in case, Unicode form, spaces, dashes or letters that look alike.
    ClassesAlike {
        /// Groups of classes that may be one.
        groups: Vec<Vec<Spelling>>,
    },
    /// Findings that are called as something else is: sex, age, view, fold.
    MetadataAsFinding {
        /// The columns, with the images where they are 1.
        columns: Vec<Spelling>,
    },
    /// Classes that are dates.
    DatesAsClasses {
        /// The classes.
        classes: Vec<Spelling>,
    },
    /// Classes that are fractions, or numbers of six digits and more.
    NumbersAsClasses {
        /// The classes.
        classes: Vec<Spelling>,
    },
    /// Classes that one image shows.
    SingleImage {
        /// The classes.
        classes: Vec<Spelling>,
    },
    /// A column of classes, some of which hold a `|`: several findings of one image?
    SeveralInOne {
        /// The column.
        column: String,
        /// Images whose class holds one.
        images: usize,
    },
    /// Patients who may be one: `007` and `7`, `7.0`, `P7` and `p-07`.
    PatientsAlike {
        /// Groups of ids that may be one.
        groups: Vec<Vec<Spelling>>,
    },
    /// Ids of several images that name no patient: `nan`, `unknown`.
    NobodyAsPatient {
        /// The ids.
        patients: Vec<Spelling>,
    },
    /// Ids that a spreadsheet rounded: `1.2E+05` may be many patients.
    PatientsRounded {
        /// The ids.
        patients: Vec<Spelling>,
    },
    /// Text that was read in another encoding than it was written in.
    Garbled {
        /// Classes and ids.
        texts: Vec<Spelling>,
    },
    /// Spaces around a label or an id were cut, and it is another row's then.
    SpacesCut {
        /// The lines.
        lines: Vec<usize>,
    },
    /// No column of patients, but one that looks like it: splits are drawn by image.
    NoPatientColumn {
        /// Columns that look like it.
        suggested: Vec<String>,
    },
    /// No column of splits, but one whose values are splits.
    NoSplitColumn {
        /// Columns that look like it.
        suggested: Vec<String>,
    },
    /// Images whose samples, of more than 8 bits, use little of their range: nearly black without a window.
    LittleRange {
        /// The images.
        names: Vec<String>,
        /// The largest share of the range that one of them uses, in percent, rounded up.
        percent: u32,
    },
    /// Images that come out as one flat colour although their values differ.
    Flat {
        /// The images.
        names: Vec<String>,
    },
    /// Files of several images, of which one is taken and none is named.
    OneOfSeveral {
        /// The files.
        names: Vec<String>,
    },
}

/// A text, and the images that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Spelling {
    /// The text.
    pub text: String,
    /// Number of images.
    pub images: usize,
    /// The first five of them.
    pub rows: Vec<Place>,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The image, as the manifest writes it.
    pub name: String,
    /// Its line; 0 in a directory.
    pub line: usize,
}

/// A patient in several splits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PatientAcross {
    /// The patient.
    pub patient_id: String,
    /// The splits.
    pub splits: Vec<Split>,
}

/// One of several files that are, or look, the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DuplicateFile {
    /// The image, as the manifest writes it.
    pub name: String,
    /// Its line; 0 in a directory.
    pub line: usize,
    /// Its split.
    pub split: Option<Split>,
}

/// Two images that look the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearPair {
    /// How many of the 255 bits of their fingerprints differ, at most 34.
    pub distance: u32,
    /// True if one looks like the other mirrored left to right.
    pub mirrored: bool,
    /// The two.
    pub images: [DuplicateFile; 2],
}

/// A class in a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassInSplit {
    /// The class.
    pub class: String,
    /// The split.
    pub split: Split,
}
