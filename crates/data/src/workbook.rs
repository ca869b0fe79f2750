//! The first sheet of an Excel workbook (`.xlsx`), as a table.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use calamine::{Data, DataRef, DataType, Reader, SheetType, SheetVisible, Xlsx};
use csv::StringRecord;

use crate::{Error, Note};

/// Most columns that are looked at: Excel's own bound.
const MAX_COLUMNS: u32 = 16_384;

/// Records with the numbers of their rows, from 1.
type Rows = Vec<(usize, StringRecord)>;

/// True for the bytes of a workbook: an archive whose first entry is no array.
pub(crate) fn is_workbook(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

/// The rows of the first visible sheet, with their numbers from 1, blank ones passed over; and a note where there are more
/// sheets. Whole numbers are written without a fraction, dates as `2024-03-01`, formulas as the value that was saved.
///
/// # Errors
/// [`Error::Workbook`].
pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<(Rows, Option<Note>), Error> {
    let refuse = |reason: String| Error::Workbook { path: path.into(), reason };
    let mut book = Xlsx::new(Cursor::new(bytes)).map_err(|error| refuse(error.to_string()))?;
    let is_shown =
        |sheet: &&calamine::Sheet| sheet.typ == SheetType::WorkSheet && sheet.visible == SheetVisible::Visible;
    let sheets: Vec<String> = book.sheets_metadata().iter().filter(is_shown).map(|sheet| sheet.name.clone()).collect();
    let Some(name) = sheets.first() else { return Err(refuse("it has no sheet".to_owned())) };

    let mut rows: BTreeMap<u32, BTreeMap<u32, String>> = BTreeMap::new();
    let mut cells = book.worksheet_cells_reader(name).map_err(|error| refuse(error.to_string()))?;
    while let Some(cell) = cells.next_cell().map_err(|error| refuse(error.to_string()))? {
        let (row, column) = cell.get_position();
        let text = text(cell.get_value());
        if !text.is_empty() && column < MAX_COLUMNS {
            rows.entry(row).or_default().insert(column, text);
        }
    }
    let record = |(row, cells): (u32, BTreeMap<u32, String>)| {
        let width = cells.last_key_value().map_or(0, |(&column, _)| column + 1);
        let fields = (0..width).map(|column| cells.get(&column).map_or("", String::as_str));
        (row as usize + 1, fields.collect())
    };
    let note = (sheets.len() > 1).then(|| Note::Sheet { read: name.clone(), of: sheets.len() });
    Ok((rows.into_iter().map(record).collect(), note))
}

fn text(cell: &DataRef<'_>) -> String {
    match cell {
        DataRef::Empty => String::new(),
        DataRef::Int(number) => number.to_string(),
        // Every number of a workbook is a float; Excel shows 7, not 7.0.
        DataRef::Float(number) => number.to_string(),
        DataRef::Bool(true) => "True".to_owned(),
        DataRef::Bool(false) => "False".to_owned(),
        DataRef::String(text) => text.clone(),
        DataRef::SharedString(text) => (*text).to_owned(),
        DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => text.clone(),
        DataRef::Error(error) => error.to_string(),
        DataRef::DateTime(date) => match Data::DateTime(*date).as_datetime() {
            Some(moment) => moment.to_string().trim_end_matches(" 00:00:00").to_owned(),
            None => date.as_f64().to_string(),
        },
    }
}
