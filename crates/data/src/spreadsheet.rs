//! Cells that a spreadsheet shows and never computes: names of files and patients come from outside, and `=HYPERLINK(…)` is one, too.

use std::borrow::Cow;

/// A text as a cell of a table that people open: with `'` in front where a spreadsheet would take it for a formula. Numbers stay as they are.
pub fn cell(text: &str) -> Cow<'_, str> {
    match begins_a_formula(text) {
        true => Cow::Owned(format!("'{text}")),
        false => Cow::Borrowed(text),
    }
}

/// A row, or a head, of such cells.
pub fn row<T: AsRef<str>>(fields: impl IntoIterator<Item = T>) -> Vec<String> {
    fields.into_iter().map(|text| cell(text.as_ref()).into_owned()).collect()
}

/// A relative path as such a cell: with `./` in front, so that it still leads to the file.
pub fn path_cell(path: &str) -> Cow<'_, str> {
    match begins_a_formula(path) {
        true => Cow::Owned(format!("./{path}")),
        false => Cow::Borrowed(path),
    }
}

fn begins_a_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) && text.parse::<f64>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_text_and_numbers_are_numbers() {
        for formula in ["=HYPERLINK(\"http://x\")", "+1+1", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "-", "="]
        {
            assert_eq!(cell(formula), format!("'{formula}"));
            assert_eq!(path_cell(formula), format!("./{formula}"));
        }
        for plain in ["", "-1.5", "+3e-4", "-inf", "film.png", "a=b", "'=1", "./=1.png"] {
            assert_eq!((cell(plain), path_cell(plain)), (plain.into(), plain.into()));
        }
        assert_eq!(row(["path", "=A1", "-1.5"]), ["path", "'=A1", "-1.5"]);
    }
}
