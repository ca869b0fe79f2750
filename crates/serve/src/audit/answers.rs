//! The answers of a file, one after the other.

use super::file::{failed, read};
use super::record::Action;
use crate::error::Error;
use std::path::Path;

/// An answer of an audit, as far as it says what came out.
pub(crate) struct Given<'a> {
    pub(crate) n: i64,
    pub(crate) time_ms: i64,
    pub(crate) plugin_digest: &'a str,
    pub(crate) precision: &'a str,
    pub(crate) output: &'a serde_json::Value,
}

/// Hands every answer to `each`, the oldest first.
///
/// # Errors
/// [`Error::Io`], [`Error::Damaged`], [`Error::Audit`].
pub(crate) fn answers(path: &Path, mut each: impl FnMut(Given<'_>)) -> Result<(), Error> {
    let connection = read(path)?;
    let sql = "SELECT n, time_ms, plugin_digest, precision, output FROM records \
               WHERE action = ?1 AND plugin_digest IS NOT NULL ORDER BY n";
    let mut walk = || -> rusqlite::Result<()> {
        let mut select = connection.prepare(sql)?;
        let mut rows = select.query([Action::Answer.name()])?;
        while let Some(row) = rows.next()? {
            let [plugin_digest, precision, output] = [2, 3, 4].map(|column| row.get::<_, String>(column));
            let (plugin_digest, precision, output) = (plugin_digest?, precision?, output?);
            let output = serde_json::from_str(&output).unwrap_or_default();
            each(Given {
                n: row.get(0)?,
                time_ms: row.get(1)?,
                plugin_digest: &plugin_digest,
                precision: &precision,
                output: &output,
            });
        }
        Ok(())
    };
    walk().map_err(failed(path))
}
