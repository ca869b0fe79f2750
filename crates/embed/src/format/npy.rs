//! `features.npy`, `[rows, …]`; `features.rows.csv`, a line a row; `features.about.json`.

use super::sidecars;
use crate::about::{About, Failed};
use crate::error::Error;
use crate::partial::Partial;
use melo_npy::Header;
use melo_vit::write_atomically;
use serde::Serialize;
use std::path::Path;

/// Bytes of the header.
pub(super) const START: usize = 128;

#[derive(Serialize)]
struct Beside<'a> {
    #[serde(flatten)]
    about: &'a About,
    failed_images: &'a [Failed],
}

pub(super) fn finish(output: &Path, about: &About, failed: &[Failed], partial: &mut Partial) -> Result<(), Error> {
    let shape = std::iter::once(about.rows).chain(about.shape.iter().copied()).map(|length| length as u64).collect();
    let descr = if about.dtype == "f16" { "<f2" } else { "<f4" }.to_owned();
    let header = Header { descr, shape, fortran_order: false }.to_bytes();
    assert_eq!(header.len(), START, "the header of an array of so many axes");
    partial.write_start(&header)?;
    if let [table, beside] = &sidecars(output)[..] {
        let copy = partial.folder().join("rows.copy");
        std::fs::copy(partial.table_path(), &copy).map_err(Error::io(&copy))?;
        std::fs::rename(&copy, table).map_err(Error::io(table))?;
        let json = serde_json::to_vec_pretty(&Beside { about, failed_images: failed }).expect("plain data");
        write_atomically(beside, &json)?;
    }
    partial.values_become(output)
}
