//! How rows are hashed; the bytes are specified in `docs/audit.md`.

use super::record::Record;
use melo_vit::hex;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Names the encoding, so that no other use of SHA-256 can be mistaken for it.
const DOMAIN: &[u8] = b"melo-audit-1";

/// What stands before the first row.
pub(super) const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The hashed columns, in order; `hash` follows them.
pub(super) const COLUMNS: [&str; 14] = [
    "n",
    "time_ms",
    "action",
    "request_id",
    "who",
    "via",
    "input_digest",
    "sop_instance_uid",
    "task",
    "plugin_digest",
    "backbone_digest",
    "precision",
    "output",
    "prev_hash",
];

/// A value of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
}

/// SHA-256 over the hashed columns of a row, in hexadecimal digits.
pub(super) fn hash(fields: &[Field]) -> String {
    let mut digest = Sha256::new();
    digest.update(DOMAIN);
    for field in fields {
        match field {
            Field::Null => digest.update(b"n"),
            Field::Integer(value) => {
                digest.update(b"i");
                digest.update(value.to_be_bytes());
            }
            Field::Text(text) => {
                digest.update(b"t");
                digest.update((text.len() as u64).to_be_bytes());
                digest.update(text.as_bytes());
            }
        }
    }
    hex(&digest.finalize())
}

/// The last row of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Its number, which is the number of rows; 0 of an empty chain.
    pub rows: i64,
    /// Its hash; 64 zeros of an empty chain.
    pub hash: String,
}

impl Head {
    pub(super) fn empty() -> Self {
        Head { rows: 0, hash: NOTHING.to_owned() }
    }
}

impl std::fmt::Display for Head {
    /// As `--expect-head` takes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.hash, self.rows)
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Its number, from 1.
    pub n: i64,
    /// When it was written, ms since 1970 in UTC.
    pub time_ms: i64,
    /// What was recorded.
    #[serde(flatten)]
    pub record: Stored,
    /// Hash of the row before.
    pub prev_hash: String,
    /// Hash of this row.
    pub hash: String,
}

/// A [`Record`] as the file holds it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stored {
    /// [`Record::action`].
    pub action: String,
    /// [`Record::request_id`].
    pub request_id: String,
    /// [`Record::who`].
    pub who: String,
    /// [`Record::via`].
    pub via: String,
    /// [`Record::input_digest`].
    pub input_digest: Option<String>,
    /// [`Record::sop_instance_uid`].
    pub sop_instance_uid: Option<String>,
    /// [`Record::task`].
    pub task: String,
    /// [`Record::plugin_digest`].
    pub plugin_digest: Option<String>,
    /// [`Record::backbone_digest`].
    pub backbone_digest: String,
    /// [`Record::precision`].
    pub precision: String,
    /// [`Record::output`].
    pub output: serde_json::Value,
}

/// Hands a row's hashed columns to `use_fields`, in order.
pub(super) fn with_fields<T>(
    (n, time_ms, prev_hash): (i64, i64, &str),
    record: &Record,
    use_fields: impl FnOnce(&[Field; COLUMNS.len()]) -> T,
) -> T {
    let output = record.output.to_string();
    use_fields(&[
        Field::Integer(n),
        Field::Integer(time_ms),
        Field::Text(record.action.name()),
        Field::Text(&record.request_id),
        Field::Text(&record.who),
        Field::Text(&record.via),
        record.input_digest.as_deref().map_or(Field::Null, Field::Text),
        record.sop_instance_uid.as_deref().map_or(Field::Null, Field::Text),
        Field::Text(&record.task),
        record.plugin_digest.as_deref().map_or(Field::Null, Field::Text),
        Field::Text(&record.backbone_digest),
        Field::Text(&record.precision),
        Field::Text(&output),
        Field::Text(prev_hash),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_the_one_of_the_docs() {
        // printf 'melo-audit-1i\0\0\0\0\0\0\0\1nt\0\0\0\0\0\0\0\2hi' | sha256sum
        let fields = [Field::Integer(1), Field::Null, Field::Text("hi")];
        assert_eq!(hash(&fields), "e9bb1007a76a25674f4b47f78af4d12dd6bbd264b074d344dc7c8c1ad91965cd");
    }

    #[test]
    fn no_two_rows_share_an_encoding() {
        let text = |a, b| hash(&[Field::Text(a), Field::Text(b)]);
        assert_ne!(text("ab", "c"), text("a", "bc"));
        assert_ne!(text("", "a"), text("a", ""));
        assert_ne!(hash(&[Field::Null]), hash(&[Field::Text("")]));
        assert_ne!(hash(&[Field::Integer(1)]), hash(&[Field::Text("\0\0\0\0\0\0\0\u{1}")]));
    }
}
