//! A sheet: titled tables of plain text on one page, as HTML or Markdown.

use crate::markdown::{legible, row};
use crate::{Element, Table, page, words};

/// A page of titled tables; every text is plain, and escaped where it is rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// Its heading.
    pub title: String,
    /// What it is, in a sentence or two.
    pub lead: String,
    /// Its tables, from the top.
    pub tables: Vec<SheetTable>,
}

/// One table of a [`Sheet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SheetTable {
    /// Its heading.
    pub title: &'static str,
    /// Headings of its columns.
    pub head: Vec<&'static str>,
    /// Rows of as many cells.
    pub rows: Vec<Vec<String>>,
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;margin:0}\
main{max-width:60rem;margin:auto;padding:1.5rem 1rem}\
h1{font-size:1.6rem;margin:0 0 .5rem}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}\
.wide{overflow-x:auto}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{text-align:left;vertical-align:top;padding:.25rem 1rem .25rem 0;border-bottom:1px solid #8886;overflow-wrap:anywhere}\
@media print{:root{color-scheme:light}h2{break-after:avoid}tr{break-inside:avoid}}";

impl Sheet {
    /// As one HTML page that needs no other file.
    pub fn html(&self) -> String {
        let title = Element::new("h1").text(self.title.as_str());
        let main = Element::new("main").child(title).child(Element::new("p").text(self.lead.as_str()));
        let main = main.children(self.tables.iter().flat_map(SheetTable::elements));
        page(&self.title, STYLE, Element::new("body").child(main))
    }

    /// As Markdown that is [legible] as it is.
    pub fn markdown(&self) -> String {
        let mut out = format!("# {}\n\n{}\n", legible(&self.title), legible(&self.lead));
        for SheetTable { title, head, rows } in &self.tables {
            let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
            out += &format!("\n## {title}\n\n{}", row(&head));
            out += &row(&vec!["---".to_owned(); head.len()]);
            for cells in rows {
                out += &row(&cells.iter().map(|cell| legible(cell)).collect::<Vec<_>>());
            }
        }
        out
    }
}

impl SheetTable {
    /// The heading, and the table in a box that scrolls.
    fn elements(&self) -> [Element; 2] {
        let mut table = Table::headed(self.head.iter().map(|title| Element::new("th").text(*title)));
        for row in &self.rows {
            let mut cells = row.iter().map(|cell| words(cell.as_str()));
            table.row(cells.next().unwrap_or_else(|| words("")), cells);
        }
        [Element::new("h2").text(self.title), Element::new("div").class("wide").child(table.element())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostile() -> Sheet {
        let rows = vec![vec!["<script>alert(1)</script>".to_owned(), "a|b\nc".to_owned()]];
        let tables = vec![SheetTable { title: "Classes", head: vec!["Class", "AUC"], rows }];
        Sheet { title: "<b>".into(), lead: "tiny & \"small\"".into(), tables }
    }

    #[test]
    fn names_are_text_and_never_markup() {
        let html = hostile().html();
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        assert!(html.contains("&lt;script>") && html.contains("<p>tiny &amp; \"small\"</p>"), "{html}");
        let markdown = hostile().markdown();
        assert!(!markdown.contains("<script") && markdown.starts_with("# &lt;b>\n"), "{markdown}");
        assert!(markdown.contains("| a\\|b c |"), "{markdown}");
    }
}
