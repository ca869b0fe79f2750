//! `features.safetensors`: `features` `[rows, …]`, `rows` the table as UTF-8 bytes, and where images could not be read `failed` as JSON.
//!
//! The table is a tensor, and not in the header, since every reader parses the header whole and refuses one above 100 MB, which is what half a million rows
//! take. What the file is stands in the header, under `melo.embed`. The values come first, so that they are written where they stay; room for the header is
//! kept in front of them and filled up with spaces, as the format allows.

use crate::about::{About, Failed};
use crate::error::Error;
use crate::partial::Partial;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::path::Path;

/// Bytes of the longest header that this output can come to, with the length in front, a multiple of 8.
pub(super) fn start(about: &About) -> usize {
    const MOST: usize = u64::MAX as usize;
    let most = About { rows: about.images, failed: about.images, ..about.clone() };
    let tensors = [("features", MOST), ("rows", MOST), ("failed", MOST)];
    (8 + header(&most, &tensors.map(|(name, end)| (name, vec![end], (end, end)))).len()).next_multiple_of(8)
}

/// Tensors by name, with the shape of the bytes (of `features` it is the file's) and where they lie.
fn header(about: &About, tensors: &[(&str, Vec<usize>, (usize, usize))]) -> String {
    let mut fields = Map::new();
    fields.insert("__metadata__".to_owned(), json!({"melo.embed": about.json()}));
    for (name, shape, (start, end)) in tensors {
        let (dtype, shape) = match *name {
            "features" => (about.dtype.to_uppercase(), [&[about.rows][..], &about.shape].concat()),
            _ => ("U8".to_owned(), shape.clone()),
        };
        fields.insert((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}));
    }
    Value::Object(fields).to_string()
}

pub(super) fn finish(output: &Path, about: &About, failed: &[Failed], partial: &mut Partial) -> Result<(), Error> {
    let path = partial.table_path();
    let table = File::open(&path).map_err(Error::io(&path))?;
    let length = table.metadata().map_err(Error::io(&path))?.len() as usize;
    let bytes = if about.dtype == "f16" { 2 } else { 4 };
    let values = about.rows * about.shape.iter().product::<usize>() * bytes;
    let mut tensors = vec![("features", Vec::new(), (0, values)), ("rows", vec![length], (values, values + length))];
    partial.write_end(table)?;
    if !failed.is_empty() {
        let json = serde_json::to_vec(failed).expect("plain data");
        tensors.push(("failed", vec![json.len()], (values + length, values + length + json.len())));
        partial.write_end(&json[..])?;
    }
    let start = start(about);
    let mut text = header(about, &tensors);
    assert!(8 + text.len() <= start, "the longest header is at least as long");
    text.extend(std::iter::repeat_n(' ', start - 8 - text.len()));
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text.into_bytes());
    partial.write_start(&header)?;
    partial.values_become(output)
}
