//! Why a preset could not be applied.

use std::path::PathBuf;

/// Why a preset file, or the folder that it was applied to, was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PresetError {
    /// No preset has this name.
    #[error("no preset \"{name}\"; there are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// All names, and the way to a file of one's own.
        known: String,
    },
    /// A preset file says what a preset cannot.
    #[error("preset {name}: {reason}")]
    Schema {
        /// The preset, or its file.
        name: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// A folder cannot be listed.
    #[error("{}: cannot be read: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A table that the preset reads is not there.
    #[error("{}: {preset}: looked for {wanted}, found {found}; name the folder that the set was unpacked into", folder.display())]
    NoTable {
        /// The folder.
        folder: PathBuf,
        /// The preset.
        preset: String,
        /// Patterns of the table.
        wanted: String,
        /// What is in the folder.
        found: String,
    },
    /// No file is an image of the set.
    #[error("{}: {preset}: looked for images {wanted}, found {found}; name the folder that the set was unpacked into", folder.display())]
    NoImages {
        /// The folder.
        folder: PathBuf,
        /// The preset.
        preset: String,
        /// Patterns of the images.
        wanted: String,
        /// What is in the folder.
        found: String,
    },
    /// Images, and tables, but no image has its row.
    #[error("{}: none of {images} images has its row in {table}: the images look like \"{image}\", the rows like \"{row}\"", folder.display())]
    NothingJoined {
        /// The folder.
        folder: PathBuf,
        /// Images found.
        images: usize,
        /// The table.
        table: String,
        /// Key of an image.
        image: String,
        /// Key of a row.
        row: String,
    },
    /// Two files could be one table.
    #[error("{}: expected one file {pattern}, found \"{first}\" and \"{second}\"", folder.display())]
    Ambiguous {
        /// The folder.
        folder: PathBuf,
        /// Pattern of the table.
        pattern: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// A table does not have a column.
    #[error("{}: expected a column \"{column}\", found {found}", path.display())]
    Column {
        /// The table.
        path: PathBuf,
        /// The column.
        column: String,
        /// The columns that it has.
        found: String,
    },
    /// Neither a table nor the names of the images give a field.
    #[error("preset {preset}: field \"{field}\" comes from no table ({tables}) and no pattern of images")]
    Field {
        /// The preset.
        preset: String,
        /// The field.
        field: String,
        /// Files of the tables that were read.
        tables: String,
    },
    /// A gzip file that does not hold what it should.
    #[error("{}: damaged gzip file: {source}", path.display())]
    Gzip {
        /// The file.
        path: PathBuf,
        /// What the decoder found.
        source: std::io::Error,
    },
    /// More text in a table than any public set has.
    #[error("{}: expected at most {limit} bytes of text", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A NumPy archive that does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// A policy for uncertain labels that says nothing here.
    #[error("preset {preset}: policy {policy}: {reason}")]
    Policy {
        /// The preset.
        preset: String,
        /// The policy.
        policy: &'static str,
        /// Why not, and which to use.
        reason: &'static str,
    },
    /// What was found cannot be trained on; the report says why.
    #[error("{}: preset {preset} found {problems} that would stop training", folder.display())]
    Problems {
        /// The folder.
        folder: PathBuf,
        /// The preset.
        preset: String,
        /// `1 problem`, `3 problems`.
        problems: String,
    },
}
