//! What can be wrong with a manifest, or with settings.

use std::path::PathBuf;

use melo_vit::TaskKind;

use crate::{PackError, PresetError, Split, Unreadable};

/// What a manifest may look like; ends the errors about its header.
const LAYOUTS: &str = "expected a header of columns, separated by commas, semicolons or tabs: \"path,split,label,patient_id\", \
    or \"path,split,FINDING,FINDING,...,patient_id\" with 0 or 1 below each finding \
    (split and patient_id may be left out)";

/// Why a manifest, or a setting, was refused. Lines count from 1, as editors do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manifest is missing or may not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The manifest, or the folder inside it.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A split that is needed holds no image.
    #[error("{}: no image is in the {split} split", path.display())]
    EmptySplit {
        /// The manifest.
        path: PathBuf,
        /// The split.
        split: Split,
    },
    /// Images that cannot be read.
    #[error("{}: {} of {images} images in {} cannot be read{}", path.display(), broken.len(), words(splits), first(broken))]
    Unreadable {
        /// The manifest.
        path: PathBuf,
        /// The splits that were read.
        splits: Vec<Split>,
        /// Images in them.
        images: usize,
        /// All that cannot be read, by line.
        broken: Vec<Unreadable>,
    },
    /// The CSV holds bytes that are not UTF-8.
    #[error("{}, line {line}: expected UTF-8 text, found other bytes; save the file as \"CSV UTF-8\"", path.display())]
    NotUtf8 {
        /// The manifest.
        path: PathBuf,
        /// Line of the first such byte.
        line: usize,
    },
    /// The header has no column `path`.
    #[error("{}: no column \"path\"; {LAYOUTS}; found \"{header}\"", path.display())]
    NoPathColumn {
        /// The manifest.
        path: PathBuf,
        /// First line that is not blank.
        header: String,
    },
    /// The header has neither `label` nor a finding.
    #[error("{}: no column of labels; {LAYOUTS}; found \"{header}\"", path.display())]
    NoLabelColumn {
        /// The manifest.
        path: PathBuf,
        /// The header.
        header: String,
    },
    /// The table is no text, and no workbook that is read.
    #[error("{}: expected a table (CSV or .xlsx), found {reason}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is.
        reason: &'static str,
    },
    /// The workbook cannot be read.
    #[error("{}: expected an Excel workbook (.xlsx): {reason}", path.display())]
    Workbook {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A column that may hold the classes stands beside others that may be findings.
    #[error(
        "{}: column \"{label}\" may hold the classes, or {} may be findings: expected one of both", path.display(), quoted(findings)
    )]
    TwoReadings {
        /// The manifest.
        path: PathBuf,
        /// The column that may hold the classes.
        label: String,
        /// Those that may be findings.
        findings: Vec<String>,
    },
    /// Two files have the name of one image.
    #[error("{}, line {line}: \"{name}\" may be {} or {}", path.display(), first.display(), second.display())]
    Ambiguous {
        /// The manifest.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The image, as the manifest writes it.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A table beside the manifest lists none of its images.
    #[error(
        "{}: lists none of the {images} images: expected names such as {}, found {}",
        path.display(), quoted(expected), quoted(found)
    )]
    NothingMatched {
        /// The table.
        path: PathBuf,
        /// Images that were looked for.
        images: usize,
        /// The first few of them.
        expected: Vec<String>,
        /// The first few that the table lists.
        found: Vec<String>,
    },
    /// Two columns have one name.
    #[error("{}: expected every column once, found \"{column}\" twice", path.display())]
    DuplicateColumn {
        /// The manifest.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// A column has no name.
    #[error("{}: expected a name for every column, column {column} has none", path.display())]
    UnnamedColumn {
        /// The manifest.
        path: PathBuf,
        /// The column, counted from 1.
        column: usize,
    },
    /// A header, or folders, but no image.
    #[error("{}: expected at least one image, found none", path.display())]
    NoRows {
        /// The manifest.
        path: PathBuf,
    },
    /// A line has more or fewer fields than the header.
    #[error("{}, line {line}: expected {expected} fields as in the header, found {found}", path.display())]
    FieldCount {
        /// The manifest.
        path: PathBuf,
        /// The line.
        line: usize,
        /// Columns of the header.
        expected: usize,
        /// Fields of the line.
        found: usize,
    },
    /// The path of an image is empty.
    #[error("{}, line {line}: expected the path of an image, found nothing", path.display())]
    EmptyPath {
        /// The manifest.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// An image is listed twice.
    #[error("{}, line {line}: expected every image once, \"{name}\" is on line {first} already, {says}", path.display())]
    DuplicatePath {
        /// The manifest.
        path: PathBuf,
        /// The second line.
        line: usize,
        /// The first line.
        first: usize,
        /// The image.
        name: String,
        /// In what the lines differ.
        says: String,
    },
    /// The bag of an image is empty.
    #[error("{}, line {line}: expected the name of a bag, found nothing", path.display())]
    EmptyBag {
        /// The manifest.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// Images of one bag that contradict each other, or that are none.
    #[error("{}{}: bag \"{bag}\": {reason}", path.display(), at(*line))]
    Bag {
        /// The manifest.
        path: PathBuf,
        /// The line; 0 in a directory.
        line: usize,
        /// The bag.
        bag: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// Volumes were asked for of a pack.
    #[error("{}: a pack holds images; volumes are read from their files", path.display())]
    VolumesOfPack {
        /// The pack.
        path: PathBuf,
    },
    /// Volumes were to be taken apart, and every file holds one image.
    #[error("{}: expected volumes, folders of series or files of several frames, every file holds one image", path.display())]
    NoVolumes {
        /// The manifest.
        path: PathBuf,
    },
    /// A volume or folder that cannot be taken apart into the images of a bag.
    #[error("{}: {reason}", path.display())]
    NoBag {
        /// The file or folder.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// A word in column `split` that names no split.
    #[error("{}, line {line}: expected split train, val or test, found \"{found}\"", path.display())]
    UnknownSplit {
        /// The manifest.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The word.
        found: String,
    },
    /// The label of an image is empty.
    #[error("{}, line {line}: expected a label, found nothing", path.display())]
    EmptyLabel {
        /// The manifest.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// A finding is neither absent (0) nor present (1).
    #[error("{}, line {line}, column \"{column}\": expected 0 or 1, found \"{found}\"", path.display())]
    NotBinary {
        /// The manifest.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The finding.
        column: String,
        /// The value.
        found: String,
    },
    /// A row without a mask, of a manifest without labels.
    #[error("{}, line {line}: expected the name of a mask, found nothing", path.display())]
    EmptyMask {
        /// The manifest.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// Masks are asked for, and no column names them.
    #[error("{}: expected a column of masks, found {header}", path.display())]
    NoMaskColumn {
        /// The manifest.
        path: PathBuf,
        /// Its columns.
        header: String,
    },
    /// The values in masks do not say which classes there are.
    #[error("{}: the masks hold the values {}: {reason}", path.display(), numbers(found))]
    MaskClasses {
        /// The manifest.
        path: PathBuf,
        /// All values, without the ignored one.
        found: Vec<u8>,
        /// What is unclear.
        reason: String,
    },
    /// An image that has no mask, of a split that is to be segmented.
    #[error("{name}: the manifest names no mask")]
    NoMask {
        /// The image, as the manifest writes it.
        name: String,
    },
    /// All images have the same labels, so there is nothing to learn.
    #[error("{}: expected at least two classes, every image is {found}", path.display())]
    OneClass {
        /// The manifest.
        path: PathBuf,
        /// The label that all share.
        found: String,
    },
    /// A directory that holds no folder a class.
    #[error("{}: expected a folder for each class, or train, val and test with such folders, found none", path.display())]
    NoClassFolders {
        /// The directory.
        path: PathBuf,
    },
    /// Folders of splits and others side by side.
    #[error("{}: expected either splits or classes, found \"{split}\" beside \"{other}\"", path.display())]
    SplitBesideClass {
        /// The directory.
        path: PathBuf,
        /// A folder named as a split.
        split: String,
        /// A folder that is not.
        other: String,
    },
    /// Two folders mean one split, such as `val` and `valid`.
    #[error("{}: expected one folder a split, found \"{first}\" and \"{second}\"", path.display())]
    DuplicateSplit {
        /// The directory.
        path: PathBuf,
        /// One folder.
        first: String,
        /// The other.
        second: String,
    },
    /// An image beside the class folders, or in a folder inside one.
    #[error("{}: expected images directly in class folders, found \"{found}\"", path.display())]
    Misplaced {
        /// The directory.
        path: PathBuf,
        /// Image or folder that is not in its place.
        found: String,
    },
    /// A class folder without an image in any split.
    #[error(
        "{}: expected an image ({}) of class \"{class}\", found none",
        path.display(),
        melo_imaging::EXTENSIONS.join(", ")
    )]
    EmptyClass {
        /// The directory.
        path: PathBuf,
        /// The class.
        class: String,
    },
    /// A name inside a directory that is not UTF-8.
    #[error("{}: expected a name in UTF-8", path.display())]
    NameNotUtf8 {
        /// The file or folder.
        path: PathBuf,
    },
    /// A label that the given classes do not have.
    #[error("{}{}: expected one of {}, found \"{class}\"", path.display(), at(*line), quoted(allowed))]
    UnknownClass {
        /// The manifest.
        path: PathBuf,
        /// First line with the label; 1 (the header) for a finding; 0 in a directory.
        line: usize,
        /// The label or finding.
        class: String,
        /// The classes.
        allowed: Vec<String>,
    },
    /// A finding that the given classes have and the manifest has not.
    #[error("{}: expected a column \"{class}\", found {}", path.display(), quoted(found))]
    MissingFinding {
        /// The manifest.
        path: PathBuf,
        /// The finding.
        class: String,
        /// The findings of the manifest.
        found: Vec<String>,
    },
    /// A public set could not be understood.
    #[error(transparent)]
    Preset(Box<PresetError>),
    /// A pack was refused, or could not be made.
    #[error(transparent)]
    Pack(Box<PackError>),
    /// An image cannot be used.
    #[error(transparent)]
    Image(#[from] melo_imaging::Error),
    /// A file could not be written.
    #[error(transparent)]
    Write(Box<melo_vit::Error>),
    /// Fractions that divide nothing.
    #[error("fractions of train, val and test: expected numbers from 0 to 1, train above 0, sum 1; found {found:?}")]
    Fractions {
        /// Train, val, test.
        found: [f64; 3],
    },
    /// More folds than patients, or fewer than two.
    #[error("{}: expected 2 to {patients} folds (there are {patients} patients), found {found}", path.display())]
    Folds {
        /// The manifest.
        path: PathBuf,
        /// Folds asked for.
        found: usize,
        /// Patients; images without one count as their own.
        patients: usize,
    },
    /// A fold that does not exist.
    #[error("fold: expected a number below {folds}, found {found}")]
    Fold {
        /// Number of folds.
        folds: usize,
        /// The fold, from 0.
        found: usize,
    },
    /// Too few patients for all three splits.
    #[error("{}: fold {fold} of {folds} has no image in {split}: expected more patients, or other folds", path.display())]
    EmptyFold {
        /// The manifest.
        path: PathBuf,
        /// Number of folds.
        folds: usize,
        /// The fold, from 0.
        fold: usize,
        /// The split without an image.
        split: Split,
    },
    /// A share of the training data that is none.
    #[error("share of the training patients: expected a number above 0, at most 1; found {found}")]
    TrainFraction {
        /// The share.
        found: f64,
    },
    /// A subset of train was asked for, and nothing is in train.
    #[error("{}: expected images in train, found none", path.display())]
    NoTrain {
        /// The manifest.
        path: PathBuf,
    },
    /// A column for subgroups that the CSV does not have.
    #[error("{}: expected a column \"{column}\", found {}", path.display(), quoted(found))]
    NoColumn {
        /// The CSV.
        path: PathBuf,
        /// The column.
        column: String,
        /// Columns of the CSV.
        found: Vec<String>,
    },
    /// A value, of a column of numbers, that is none.
    #[error("{}, line {line}, column \"{column}\": expected a number, found \"{found}\"", path.display())]
    NoNumber {
        /// The CSV.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column.
        column: String,
        /// The value.
        found: String,
    },
    /// Labels of another kind than was asked for.
    #[error("{}: expected {}, found {}", path.display(), asked.in_words(), found.in_words())]
    OtherKind {
        /// The manifest.
        path: PathBuf,
        /// What was asked for.
        asked: TaskKind,
        /// What it has.
        found: TaskKind,
    },
    /// Grades whose order nobody has said.
    #[error("{}: the order of the grades {} is not known", path.display(), quoted(classes))]
    GradesWithoutOrder {
        /// The manifest.
        path: PathBuf,
        /// The classes.
        classes: Vec<String>,
    },
    /// Grades were named for labels that are to be something else.
    #[error("{}: grades are named for labels that are to be no grades", path.display())]
    GradesOfAnotherKind {
        /// The manifest.
        path: PathBuf,
    },
    /// Bins that divide nothing.
    #[error("column \"{found}\": expected a name, or a name and ascending numbers such as \"age:40,60\"")]
    Bins {
        /// What was given.
        found: String,
    },
    /// A value, of a column to be divided into bins, that is no number.
    #[error("{}, line {line}, column \"{column}\": expected a number or nothing, found \"{found}\"", path.display())]
    NotNumber {
        /// The CSV.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column.
        column: String,
        /// The value.
        found: String,
    },
    /// A value of [`Augment`](crate::Augment) out of its range.
    #[error("augmentation: expected {field} from {min} to {max}, found {found}")]
    Augment {
        /// The value's name.
        field: &'static str,
        /// Least value.
        min: f32,
        /// Greatest value.
        max: f32,
        /// The value.
        found: f32,
    },
}

impl From<PresetError> for Error {
    fn from(error: PresetError) -> Self {
        Error::Preset(Box::new(error))
    }
}

impl From<PackError> for Error {
    fn from(error: PackError) -> Self {
        Error::Pack(Box::new(error))
    }
}

impl From<melo_vit::Error> for Error {
    fn from(error: melo_vit::Error) -> Self {
        Error::Write(Box::new(error))
    }
}

/// `, line 7`; nothing in a directory.
fn at(line: usize) -> String {
    if line == 0 { String::new() } else { format!(", line {line}") }
}

/// `"a", "b"`.
pub(crate) fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn numbers(values: &[u8]) -> String {
    values.iter().map(u8::to_string).collect::<Vec<_>>().join(", ")
}

fn words(splits: &[Split]) -> String {
    splits.iter().map(|split| split.word()).collect::<Vec<_>>().join(" and ")
}

/// The first reason, so that the message says one even where nobody lists all.
fn first(broken: &[Unreadable]) -> String {
    broken.first().map_or_else(String::new, |first| format!("; the first: {}", first.error))
}
