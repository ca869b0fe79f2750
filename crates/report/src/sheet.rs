//! A sheet: titled tables of plain text on one page, as HTML or Markdown.

use crate::chart::STYLE as CHART_STYLE;
use crate::markdown::{legible, row};
use crate::{Element, Table, head, name, page, scroll, words};

/// A page of titled tables; every text is plain, and escaped where it is rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// Its heading.
    pub title: String,
    /// What it is, in a sentence or two.
    pub lead: String,
    /// Its tables, from the top.
    pub tables: Vec<SheetTable>,
}

/// One table of a [`Sheet`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SheetTable {
    /// Its heading.
    pub title: &'static str,
    /// What a reader must know first: a warning each.
    pub alerts: Vec<String>,
    /// Headings of its columns; of two empty ones the first column names what the second one says.
    pub head: Vec<String>,
    /// Rows of as many cells.
    pub rows: Vec<Vec<String>>,
    /// A picture of the same, which stands in its place in HTML.
    pub drawn: Option<Element>,
    /// How to read it.
    pub note: String,
}

/// Letters from which a word without a place to break, such as a digest, may break anywhere.
const LONG_WORD: usize = 32;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:var(--paper);color:var(--ink)}\
main{max-width:62rem;margin:auto;padding:1.5rem 1rem}\
h1{font-size:1.6rem;margin:0 0 .5rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:1.8rem 0 .4rem}\
.lead,.note,.alert{max-width:46rem}.note{color:var(--soft);font-size:.875rem;margin:.4rem 0}\
.alert{border-left:4px solid #c98a1b;padding:.3rem .8rem;margin:.5rem 0}\
.scroll{overflow-x:auto}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
caption{text-align:left;font-size:.875rem;color:var(--soft);padding-bottom:.3rem}\
th,td{text-align:left;vertical-align:top;padding:.25rem 1rem .25rem 0;border-bottom:1px solid #8886;font-weight:400}\
thead th{color:var(--soft);font-size:.875rem;vertical-align:bottom}\
tbody th{font-weight:600}.pairs tbody th{color:var(--soft);font-weight:400;min-width:11rem}\
.long{overflow-wrap:anywhere}\
td.heat,th.num{text-align:center;padding:.3rem .5rem;min-width:2.4rem}\
.chart{max-width:21rem}\
@media(max-width:40rem){\
.pairs tr,.pairs th,.pairs td,.stack tr,.stack tbody th,.stack td{display:block;padding-right:0}\
.pairs tr,.stack tr{padding:.35rem 0;border-bottom:1px solid #8886}.pairs th,.pairs td,.stack th,.stack td{border:0;padding-block:0}\
.pairs tbody th{font-size:.875rem}\
.stack thead,.pairs thead{display:none}.stack td{display:flex;justify-content:space-between;gap:1rem}\
.stack td::before{content:attr(data-head);color:var(--soft)}.pairs,.pairs tbody,.stack,.stack tbody{display:block}}\
@page{size:A4;margin:14mm 13mm}\
@media print{:root{color-scheme:light}body{font-size:9.5pt;line-height:1.35}main{max-width:none;padding:0}.chart{max-width:16rem}\
th,td{padding-block:.15rem}h2{break-after:avoid}tr,svg,.chart{break-inside:avoid}}";

impl Sheet {
    /// As one HTML page that needs no other file.
    pub fn html(&self) -> String {
        let title = Element::new("h1").text(self.title.as_str());
        let lead = Element::new("p").class("lead").text(self.lead.as_str());
        let main = Element::new("main").child(title).child(lead);
        let main = main.children(self.tables.iter().flat_map(SheetTable::elements));
        page(&self.title, &format!("{CHART_STYLE}{STYLE}"), Element::new("body").child(main))
    }

    /// As Markdown that is [legible] as it is.
    pub fn markdown(&self) -> String {
        let mut out = format!("# {}\n\n{}\n", legible(&self.title), legible(&self.lead));
        for SheetTable { title, alerts, head, rows, note, .. } in &self.tables {
            out += &format!("\n## {title}\n\n");
            for alert in alerts {
                out += &format!("**{}**\n\n", legible(alert));
            }
            out += &row(&head.iter().map(|cell| legible(cell)).collect::<Vec<_>>());
            out += &row(&vec!["---".to_owned(); head.len()]);
            for cells in rows {
                out += &row(&cells.iter().map(|cell| legible(cell)).collect::<Vec<_>>());
            }
            if !note.is_empty() {
                out += &format!("\n{}\n", legible(note));
            }
        }
        out
    }
}

impl SheetTable {
    /// A table of what is named and what is said of it.
    pub fn of_pairs(title: &'static str, rows: impl IntoIterator<Item = (String, String)>) -> Self {
        let rows = rows.into_iter().map(|(name, value)| vec![name, value]).collect();
        SheetTable { title, head: vec![String::new(), String::new()], rows, ..SheetTable::default() }
    }

    /// The heading, alerts, the picture or the table in a box that scrolls, and the note.
    fn elements(&self) -> Vec<Element> {
        let mut elements = vec![Element::new("h2").text(self.title)];
        elements.extend(
            self.alerts.iter().map(|alert| Element::new("p").class("alert").with("role", "note").text(alert.as_str())),
        );
        elements.push(self.drawn.clone().unwrap_or_else(|| scroll(self.table())));
        elements.extend((!self.note.is_empty()).then(|| Element::new("p").class("note").text(self.note.as_str())));
        elements
    }

    /// A table whose rows are stacked where the screen is narrow.
    fn table(&self) -> Element {
        let (pairs, unnamed) = (self.head.len() == 2, self.head.iter().all(String::is_empty));
        let heads = self.head.iter().filter(|_| !unnamed).map(|title| head(title, false));
        let mut table = Table::headed(heads);
        for row in &self.rows {
            let mut cells = row.iter().zip(&self.head);
            let first = cells.next().map_or_else(|| name(""), |(cell, _)| name(cell));
            let cell = |(cell, head): (&String, &String)| {
                let long = cell.split_whitespace().any(|word| word.chars().count() >= LONG_WORD);
                let drawn = words(unbroken(cell));
                let drawn = if long { drawn.class("long") } else { drawn };
                if pairs { drawn } else { drawn.with("data-head", head) }
            };
            table.row(first, cells.map(cell));
        }
        table.element().class(if pairs { "pairs" } else { "stack" })
    }
}

/// `text` with intervals, `[0.8, 0.95]` of two numbers, that stay on one line.
fn unbroken(text: &str) -> String {
    let mut pieces = text.split_inclusive(", ").peekable();
    let mut out = String::new();
    while let Some(piece) = pieces.next() {
        let low = piece.strip_suffix(", ").and_then(|piece| Some(piece.rsplit_once('[')?.1.parse::<f64>().is_ok()));
        let high =
            pieces.peek().is_some_and(|next| next.split_once(']').is_some_and(|(high, _)| high.parse::<f64>().is_ok()));
        match low == Some(true) && high {
            true => out.push_str(&piece.replace(", ", ",\u{a0}")),
            false => out.push_str(piece),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostile() -> Sheet {
        let rows = vec![vec!["<script>alert(1)</script>".to_owned(), "a|b\nc".to_owned()]];
        let head = vec!["Class".to_owned(), "AUC\"".to_owned()];
        let alerts = vec!["<i>".to_owned()];
        let tables = vec![SheetTable { title: "Classes", head, rows, alerts, ..SheetTable::default() }];
        Sheet { title: "<b>".into(), lead: "tiny & \"small\"".into(), tables }
    }

    #[test]
    fn names_are_text_and_never_markup() {
        let html = hostile().html();
        assert!(!html.contains("<script") && !html.contains("<b>") && !html.contains("<i>"), "{html}");
        assert!(html.contains("&lt;script>") && html.contains("tiny &amp; \"small\"</p>"), "{html}");
        let markdown = hostile().markdown();
        assert!(!markdown.contains("<script") && markdown.starts_with("# &lt;b>\n"), "{markdown}");
        assert!(markdown.contains("| a\\|b c |"), "{markdown}");
    }

    #[test]
    fn an_interval_stays_on_one_line() {
        assert_eq!(unbroken("0.9 [0.8, 0.95]"), "0.9 [0.8,\u{a0}0.95]");
        for text in ["mean [0.485, 0.456, 0.406]", "a, b", "[a, b]", "", "[0.1, ", "0.9"] {
            assert_eq!(unbroken(text), text);
        }
    }

    #[test]
    fn only_what_is_no_word_may_break_anywhere() {
        let digest = "0123456789abcdef".repeat(4);
        let pairs =
            [("Digest".to_owned(), digest), ("Input".to_owned(), "a sentence of some length, of short words".into())];
        let sheet =
            Sheet { title: String::new(), lead: String::new(), tables: vec![SheetTable::of_pairs("Use", pairs)] };
        let html = sheet.html();
        assert_eq!(html.matches("<td class=\"long\">").count(), 1, "{html}");
        assert!(!html.contains("<thead><tr><th"), "a table of pairs has no empty headers: {html}");
    }
}
