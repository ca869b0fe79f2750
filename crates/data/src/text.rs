//! The bytes of a table as text, whichever program saved it.

use std::path::Path;

use encoding_rs::{Encoding, UTF_16BE, UTF_16LE, WINDOWS_1252};

use crate::{Error, Note};

/// Bytes that are looked at for text in UTF-16 without a mark.
const LOOKED_AT: usize = 512;

/// UTF-8 with or without its mark, UTF-16 (Excel's "Unicode text"), or else Windows-1252, of which Latin-1 is a part; the
/// note says which, where it is not UTF-8.
///
/// # Errors
/// [`Error::NotText`] for what is none of these.
pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<(String, Option<Note>), Error> {
    let not_text = |reason| Error::NotText { path: path.into(), reason };
    if bytes.starts_with(&[0xd0, 0xcf, 0x11, 0xe0]) {
        return Err(not_text("an Excel workbook before 2007 (.xls): save it as .xlsx or as CSV"));
    }
    if let Some(encoding) = utf_16(bytes) {
        let (text, ..) = encoding.decode(bytes);
        let note = Note::Encoding { encoding: "UTF-16".to_owned(), line: 0, text: String::new() };
        return checked(text.into_owned()).map(|text| (text, Some(note))).ok_or_else(|| not_text("binary data"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let (text, note) = match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(error) => {
            let (text, ..) = WINDOWS_1252.decode(bytes);
            let good = error.valid_up_to();
            let line = 1 + crate::csv_file::line_ends(&bytes[..good]);
            // A letter a byte, in this encoding.
            let shown = around(&text, good);
            (text.into_owned(), Some(Note::Encoding { encoding: "Windows-1252".to_owned(), line, text: shown }))
        }
    };
    checked(text).map(|text| (text, note)).ok_or_else(|| not_text("binary data"))
}

/// By its mark, or because every second byte of its beginning is zero.
fn utf_16(bytes: &[u8]) -> Option<&'static Encoding> {
    match bytes {
        [0xff, 0xfe, ..] => return Some(UTF_16LE),
        [0xfe, 0xff, ..] => return Some(UTF_16BE),
        _ => {}
    }
    let start = &bytes[..bytes.len().min(LOOKED_AT) & !1];
    let zeros = |offset: usize| start.iter().skip(offset).step_by(2).filter(|&&byte| byte == 0).count();
    let (first, second, most) = (zeros(0), zeros(1), start.len() * 2 / 5);
    match (first, second) {
        (0, second) if second > 1 && second >= most => Some(UTF_16LE),
        (first, 0) if first > 1 && first >= most => Some(UTF_16BE),
        _ => None,
    }
}

/// The text, unless it holds what no table does.
fn checked(text: String) -> Option<String> {
    (!text.contains('\0')).then_some(text)
}

/// The word at character `at`, at most twenty characters of it.
fn around(text: &str, at: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    let ends = |letter: &char| letter.is_whitespace() || [',', ';', '|', '"'].contains(letter);
    let begin = letters[..at].iter().rposition(ends).map_or(0, |end| end + 1);
    letters[begin.max(at.saturating_sub(10))..].iter().take_while(|letter| !ends(letter)).take(20).collect()
}
