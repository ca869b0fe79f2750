//! A part: the rows of one chunk as a Parquet file, and what it says of itself in its footer under `melo.archive`.

use crate::caught::caught;
use crate::error::Error;
use crate::plan::FORMAT;
use crate::row::{COLUMNS, Get, Row};
use melo_vit::hex;
use parquet::basic::{Compression, ConvertedType, GzipLevel, LogicalType, Repetition, Type as PhysicalType};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, Type, TypePtr};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Where a footer says whose part it is.
const KEY: &str = "melo.archive";

/// What a part says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartAbout {
    pub(crate) format: String,
    /// SHA-256 of the plan.
    pub(crate) plan: String,
    /// Its number, from 0.
    pub(crate) number: u64,
    pub(crate) inputs: usize,
    pub(crate) rows: usize,
    /// Images without an answer.
    pub(crate) errors: usize,
}

impl PartAbout {
    pub(crate) fn new(plan: &str, number: u64, inputs: usize, rows: usize, errors: usize) -> Self {
        PartAbout { format: FORMAT.to_owned(), plan: plan.to_owned(), number, inputs, rows, errors }
    }
}

/// The file of these rows.
pub(crate) fn encode(rows: &[Row], about: &PartAbout) -> Result<Vec<u8>, ParquetError> {
    let mut writer = SerializedFileWriter::new(Vec::new(), schema()?, properties(about))?;
    let mut group = writer.next_row_group()?;
    for (_, get) in &COLUMNS {
        let mut column = group.next_column()?.ok_or_else(|| ParquetError::General("a column too few".to_owned()))?;
        match (column.untyped(), get) {
            (ColumnWriter::ByteArrayColumnWriter(into), Get::Text(get)) => {
                let levels = Levels::of(rows.iter().map(get));
                let values: Vec<ByteArray> = levels.values.iter().map(|value| value.as_str().into()).collect();
                into.write_batch(&values, Some(&levels.definition), None)?;
            }
            (ColumnWriter::Int64ColumnWriter(into), Get::Whole(get)) => {
                let levels = Levels::of(rows.iter().map(get));
                into.write_batch(&levels.values, Some(&levels.definition), None)?;
            }
            (ColumnWriter::FloatColumnWriter(into), Get::Number(get)) => {
                let levels = Levels::of(rows.iter().map(get));
                into.write_batch(&levels.values, Some(&levels.definition), None)?;
            }
            (ColumnWriter::BoolColumnWriter(into), Get::Truth(get)) => {
                let levels = Levels::of(rows.iter().map(get));
                into.write_batch(&levels.values, Some(&levels.definition), None)?;
            }
            (ColumnWriter::ByteArrayColumnWriter(into), Get::Texts(get)) => {
                let levels = Levels::of_lists(rows.iter().map(get));
                let values: Vec<ByteArray> = levels.values.iter().map(|value| value.as_str().into()).collect();
                into.write_batch(&values, Some(&levels.definition), Some(&levels.repetition))?;
            }
            (ColumnWriter::FloatColumnWriter(into), Get::Numbers(get)) => {
                let levels = Levels::of_lists(rows.iter().map(get));
                into.write_batch(&levels.values, Some(&levels.definition), Some(&levels.repetition))?;
            }
            _ => return Err(ParquetError::General("a column of another kind".to_owned())),
        }
        column.close()?;
    }
    group.close()?;
    writer.into_inner()
}

/// Values of a column that are there, and where (Dremel's levels, as the Parquet format defines them).
struct Levels<T> {
    values: Vec<T>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

impl<T> Levels<T> {
    fn of(found: impl Iterator<Item = Option<T>>) -> Self {
        let mut levels = Levels { values: Vec::new(), definition: Vec::new(), repetition: Vec::new() };
        for value in found {
            levels.definition.push(value.is_some().into());
            levels.values.extend(value);
        }
        levels
    }

    /// Lists: 0 for none, 1 for an empty one, 2 for each value.
    fn of_lists(found: impl Iterator<Item = Option<Vec<T>>>) -> Self {
        let mut levels = Levels { values: Vec::new(), definition: Vec::new(), repetition: Vec::new() };
        for list in found {
            let defined = list.as_ref().map_or(0, |list| if list.is_empty() { 1 } else { 2 });
            let list = list.unwrap_or_default();
            let length = list.len().max(1);
            levels.definition.extend(std::iter::repeat_n(defined, length));
            levels.repetition.extend((0..length).map(|place| i16::from(place > 0)));
            levels.values.extend(list);
        }
        levels
    }
}

fn schema() -> Result<TypePtr, ParquetError> {
    let text = |name: &str, repetition| {
        let builder = Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY).with_repetition(repetition);
        builder.with_logical_type(Some(LogicalType::String)).with_converted_type(ConvertedType::UTF8).build()
    };
    let list = |name: &str, element: Type| {
        let inner = Type::group_type_builder("list").with_repetition(Repetition::REPEATED);
        let inner = inner.with_fields(vec![Arc::new(element)]).build()?;
        let outer = Type::group_type_builder(name).with_repetition(Repetition::OPTIONAL);
        let outer = outer.with_logical_type(Some(LogicalType::List)).with_converted_type(ConvertedType::LIST);
        outer.with_fields(vec![Arc::new(inner)]).build()
    };
    let number = |name: &str, physical, repetition| {
        Type::primitive_type_builder(name, physical).with_repetition(repetition).build()
    };
    let field = |(name, get): &(&str, Get)| match get {
        Get::Text(_) => text(name, Repetition::OPTIONAL),
        Get::Whole(_) => number(name, PhysicalType::INT64, Repetition::OPTIONAL),
        Get::Number(_) => number(name, PhysicalType::FLOAT, Repetition::OPTIONAL),
        Get::Truth(_) => number(name, PhysicalType::BOOLEAN, Repetition::OPTIONAL),
        Get::Texts(_) => list(name, text("element", Repetition::REQUIRED)?),
        Get::Numbers(_) => list(name, number("element", PhysicalType::FLOAT, Repetition::REQUIRED)?),
    };
    let fields = COLUMNS.iter().map(|column| Ok(Arc::new(field(column)?))).collect::<Result<_, ParquetError>>()?;
    Ok(Arc::new(Type::group_type_builder("melo").with_fields(fields).build()?))
}

fn properties(about: &PartAbout) -> Arc<WriterProperties> {
    let about = KeyValue::new(KEY.to_owned(), serde_json::to_string(about).expect("plain data"));
    let builder = WriterProperties::builder().set_key_value_metadata(Some(vec![about]));
    let builder = builder.set_compression(Compression::GZIP(GzipLevel::default()));
    let numbers = COLUMNS.iter().filter(|(_, get)| matches!(get, Get::Numbers(_)));
    let builder = numbers.fold(builder, |builder, (name, _)| {
        let path = ColumnPath::from([name, "list", "element"].map(str::to_owned).to_vec());
        let builder = builder.set_column_dictionary_enabled(path.clone(), false);
        builder.set_column_statistics_enabled(path, EnabledStatistics::None)
    });
    Arc::new(builder.build())
}

/// A file's SHA-256 and its length.
pub(crate) fn digest(path: &Path) -> Result<(String, u64), Error> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (mut hash, mut length, mut part) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        match file.read(&mut part).map_err(Error::io(path))? {
            0 => return Ok((hex(&hash.finalize()), length)),
            read => {
                hash.update(&part[..read]);
                length += read as u64;
            }
        }
    }
}

/// Reads a part to its end, checksums of its pages included.
pub(crate) fn inspect(path: &Path) -> Result<PartAbout, Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let read = caught(|| read_all(file)).and_then(|read| read.map_err(|error| error.to_string()));
    read.map_err(|reason| Error::damaged(path, reason))
}

fn read_all(file: File) -> Result<PartAbout, ParquetError> {
    let reader = SerializedFileReader::new(file)?;
    let wrong = |reason: &str| ParquetError::General(reason.to_owned());
    let metadata = reader.metadata().file_metadata();
    let about = metadata.key_value_metadata().into_iter().flatten().find(|pair| pair.key == KEY);
    let about = about.and_then(|pair| pair.value.as_deref()).ok_or_else(|| wrong("says nothing of itself"))?;
    let about: PartAbout = serde_json::from_str(about).map_err(|error| wrong(&error.to_string()))?;
    if usize::try_from(metadata.num_rows()) != Ok(about.rows) || metadata.schema() != schema()?.as_ref() {
        return Err(wrong("has other rows or columns than it says"));
    }
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        for column in 0..group.num_columns() {
            group.get_column_page_reader(column)?.try_for_each(|page| page.map(drop))?;
        }
    }
    Ok(about)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_none_empty_or_filled_has_its_levels() {
        let levels = Levels::of_lists([Some(vec![1, 2, 3]), None, Some(Vec::new()), Some(vec![4])].into_iter());
        assert_eq!(levels.values, [1, 2, 3, 4]);
        assert_eq!(levels.definition, [2, 2, 2, 0, 1, 2]);
        assert_eq!(levels.repetition, [0, 1, 1, 0, 0, 0]);
        let levels = Levels::of([Some(5), None, Some(6)].into_iter());
        assert_eq!((levels.values, levels.definition), (vec![5, 6], vec![1, 0, 1]));
    }
}
