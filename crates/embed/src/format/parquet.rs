//! `features.parquet`: the table's columns, and `features`, a list of floats a row (grids row by row); what it is in the footer, under
//! `melo.embed`, with the images that could not be read under `melo.failed`.

use crate::about::{About, Failed};
use crate::error::Error;
use crate::inputs::Column;
use crate::partial::Partial;
use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as PhysicalType};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type, TypePtr};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

/// Values of a row group at most, 32 MiB.
const GROUP_VALUES: usize = 8 << 20;
/// Rows of a row group at most.
const GROUP_ROWS: usize = 8192;

pub(super) fn finish(
    output: &Path,
    about: &About,
    failed: &[Failed],
    columns: &[Column],
    partial: &mut Partial,
) -> Result<(), Error> {
    let made = partial.folder().join("parquet");
    let reason = |path: &Path| {
        let path = path.to_owned();
        move |error: ParquetError| Error::Io { path, source: std::io::Error::other(error.to_string()) }
    };
    let file = File::create(&made).map_err(Error::io(&made))?;
    let mut writer =
        SerializedFileWriter::new(file, schema(columns).map_err(reason(&made))?, properties(about, failed))
            .map_err(reason(&made))?;
    let mut rows = Rows::open(about, columns, partial)?;
    let mut left = about.rows;
    while left > 0 {
        let count = left.min((GROUP_VALUES / rows.width.max(1)).clamp(1, GROUP_ROWS));
        let group = rows.read(count)?;
        let write = |writer: &mut SerializedFileWriter<File>| {
            let mut into = writer.next_row_group()?;
            group.write(&mut into)?;
            into.close().map(drop)
        };
        write(&mut writer).map_err(reason(&made))?;
        left -= count;
    }
    let file = writer.into_inner().map_err(reason(&made))?;
    file.sync_all().map_err(Error::io(&made))?;
    std::fs::rename(&made, output).map_err(Error::io(output))
}

/// `row`, `path`, `digest`, what else is known, and `features (LIST) { list { element } }`.
fn schema(columns: &[Column]) -> Result<TypePtr, ParquetError> {
    let integer = |name: &str| {
        Type::primitive_type_builder(name, PhysicalType::INT64).with_repetition(Repetition::REQUIRED).build()
    };
    let text = |name: &str| {
        let builder = Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY);
        let builder = builder.with_logical_type(Some(LogicalType::String)).with_converted_type(ConvertedType::UTF8);
        builder.with_repetition(Repetition::REQUIRED).build()
    };
    let element = Type::primitive_type_builder("element", PhysicalType::FLOAT).with_repetition(Repetition::REQUIRED);
    let list = Type::group_type_builder("list").with_repetition(Repetition::REPEATED);
    let list = list.with_fields(vec![Arc::new(element.build()?)]).build()?;
    let features = Type::group_type_builder("features").with_repetition(Repetition::REQUIRED);
    let features = features.with_logical_type(Some(LogicalType::List)).with_converted_type(ConvertedType::LIST);
    let features = features.with_fields(vec![Arc::new(list)]).build()?;
    let mut fields = vec![integer("row")?, text("path")?, text("digest")?];
    for column in columns {
        fields.push(if column.integer { integer(&column.name)? } else { text(&column.name)? });
    }
    fields.push(features);
    let root = Type::group_type_builder("melo").with_fields(fields.into_iter().map(Arc::new).collect());
    Ok(Arc::new(root.build()?))
}

fn properties(about: &About, failed: &[Failed]) -> Arc<WriterProperties> {
    let mut facts = vec![KeyValue::new("melo.embed".to_owned(), about.json())];
    if !failed.is_empty() {
        let json = serde_json::to_string(failed).expect("plain data");
        facts.push(KeyValue::new("melo.failed".to_owned(), json));
    }
    let features = || ColumnPath::from(["features", "list", "element"].map(str::to_owned).to_vec());
    let builder = WriterProperties::builder().set_key_value_metadata(Some(facts));
    let builder = builder.set_column_dictionary_enabled(features(), false);
    Arc::new(builder.set_column_statistics_enabled(features(), EnabledStatistics::None).build())
}

/// Rows as they were collected.
struct Rows {
    values: BufReader<File>,
    table: csv::Reader<File>,
    /// Values of a row.
    width: usize,
    /// Which columns are whole numbers.
    integer: Vec<bool>,
    path: std::path::PathBuf,
}

/// Some of them, by column.
struct Group {
    columns: Vec<Values>,
    features: Vec<f32>,
    width: usize,
}

enum Values {
    Integer(Vec<i64>),
    Text(Vec<ByteArray>),
}

impl Rows {
    fn open(about: &About, columns: &[Column], partial: &Partial) -> Result<Self, Error> {
        let (values, path) = (partial.values_path(), partial.table_path());
        let open = |path: &Path| File::open(path).map_err(Error::io(path));
        let integer = [true, false, false].into_iter().chain(columns.iter().map(|column| column.integer));
        Ok(Rows {
            values: BufReader::new(open(&values)?),
            table: csv::Reader::from_reader(open(&path)?),
            width: about.shape.iter().product(),
            integer: integer.collect(),
            path,
        })
    }

    fn read(&mut self, count: usize) -> Result<Group, Error> {
        let damaged = |reason: String| Error::Partial { path: self.path.clone(), reason };
        let new = |&integer: &bool| if integer { Values::Integer(Vec::new()) } else { Values::Text(Vec::new()) };
        let mut columns: Vec<Values> = self.integer.iter().map(new).collect();
        for record in self.table.records().take(count) {
            let record = record.map_err(|error| damaged(error.to_string()))?;
            for (column, field) in columns.iter_mut().zip(&record) {
                match column {
                    Values::Integer(values) => {
                        values.push(field.parse().map_err(|_| damaged(format!("`{field}` is no whole number")))?);
                    }
                    Values::Text(values) => values.push(field.into()),
                }
            }
        }
        let mut bytes = vec![0; count * self.width * 4];
        self.values.read_exact(&mut bytes).map_err(Error::io(&self.path))?;
        let features = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Ok(Group { columns, features, width: self.width })
    }
}

impl Group {
    fn write(&self, into: &mut SerializedRowGroupWriter<'_, File>) -> Result<(), ParquetError> {
        let mut number = 0;
        while let Some(mut column) = into.next_column()? {
            match (column.untyped(), self.columns.get(number)) {
                (ColumnWriter::Int64ColumnWriter(into), Some(Values::Integer(values))) => {
                    into.write_batch(values, None, None)?;
                }
                (ColumnWriter::ByteArrayColumnWriter(into), Some(Values::Text(values))) => {
                    into.write_batch(values, None, None)?;
                }
                (ColumnWriter::FloatColumnWriter(into), None) => {
                    // A list begins where the repetition is 0.
                    let repetition: Vec<i16> =
                        (0..self.features.len()).map(|index| i16::from(!index.is_multiple_of(self.width))).collect();
                    into.write_batch(&self.features, Some(&vec![1; self.features.len()]), Some(&repetition))?;
                }
                _ => return Err(ParquetError::General("a column of another kind".to_owned())),
            }
            column.close()?;
            number += 1;
        }
        Ok(())
    }
}
