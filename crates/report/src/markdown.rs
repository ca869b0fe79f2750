//! Markdown of GitHub's kind.

/// A row of a table, of cells that are escaped already.
pub fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// `text` on one line, with everything that Markdown or HTML would read as markup escaped.
pub fn escaped(text: &str) -> String {
    escape(text, &['\\', '`', '*', '_', '[', ']', '|', '~', '#'], true)
}

/// `text` on one line for a page that people also read as it is, in a terminal: only what would end a cell or begin a tag is
/// escaped, so that names keep their underscores.
pub fn legible(text: &str) -> String {
    escape(text, &['\\', '|'], false)
}

/// `text` without control characters, `marks` behind a backslash, and `<` as a reference, as is `&` where `references` says so.
fn escape(text: &str, marks: &[char], references: bool) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            '<' => out.push_str("&lt;"),
            '&' if references => out.push_str("&amp;"),
            c => {
                out.extend(marks.contains(&c).then_some('\\'));
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_its_cell_begins_a_tag_or_steers_a_terminal() {
        let hostile = "a_b|c\\\n<b> & *d*\u{1b}";
        assert_eq!(escaped(hostile), "a\\_b\\|c\\\\ &lt;b> &amp; \\*d\\*\u{fffd}");
        assert_eq!(legible(hostile), "a_b\\|c\\\\ &lt;b> & *d*\u{fffd}");
        assert_eq!(row(&["a".into(), "b".into()]), "| a | b |\n");
    }
}
