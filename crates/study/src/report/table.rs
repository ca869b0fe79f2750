//! Tables with a caption, headed columns and headed groups of rows.

use melo_eval::plot::Element;

use super::words::{NOTHING, interval, number};
use crate::Estimate;

/// Rows up to which a table is kept on one page of paper.
const MOST_WHOLE_ROWS: usize = 20;

/// A table; the first column heads its rows.
pub(super) struct Table {
    caption: Element,
    heads: Vec<Element>,
    columns: usize,
    groups: Vec<Element>,
    group: Element,
    rows: usize,
}

impl Table {
    /// A table of figures.
    pub(super) fn new(caption: &str, columns: &[&str]) -> Self {
        Self::headed(caption, columns.iter().enumerate().map(|(i, title)| head(title, i > 0)).collect())
    }

    /// A table of words, whose columns stand at the left.
    pub(super) fn of_words(caption: &str, columns: &[&str]) -> Self {
        Self::headed(caption, columns.iter().map(|title| head(title, false)).collect())
    }

    /// A table under these cells.
    pub(super) fn headed(caption: &str, heads: Vec<Element>) -> Self {
        Self {
            caption: Element::new("caption").text(caption),
            columns: heads.len(),
            heads: vec![Element::new("tr").children(heads)],
            groups: Vec::new(),
            group: Element::new("tbody"),
            rows: 0,
        }
    }

    /// With a row of headings above, each over so many columns after the first.
    pub(super) fn over(mut self, headings: &[String], span: usize) -> Self {
        let over = headings.iter().map(|heading| {
            Element::new("th").class("over").with("scope", "colgroup").with("colspan", span).text(heading.as_str())
        });
        self.heads.insert(0, Element::new("tr").child(Element::new("td")).children(over));
        self
    }

    /// Begins a group of rows, headed by `name`.
    pub(super) fn group(&mut self, name: &str) {
        let head = breakable(Element::new("th").with("colspan", self.columns).with("scope", "rowgroup"), name);
        let group = Element::new("tbody").child(Element::new("tr").class("group").child(head));
        self.groups.push(std::mem::replace(&mut self.group, group));
    }

    /// One row: its name and as many cells as there are further columns.
    pub(super) fn row(&mut self, name: Element, cells: impl IntoIterator<Item = Element>) {
        let row = Element::new("tr").child(name).children(cells);
        let group = std::mem::replace(&mut self.group, Element::new("tbody"));
        self.group = group.child(row);
        self.rows += 1;
    }

    /// The table in a box that scrolls by itself where the screen is too narrow; none without a row.
    pub(super) fn draw(mut self) -> Option<Element> {
        if self.rows == 0 {
            return None;
        }
        self.groups.push(self.group);
        let long = self.rows + self.groups.len() > MOST_WHOLE_ROWS;
        let groups = self.groups.into_iter().filter(|group| *group != Element::new("tbody"));
        let table = Element::new("table").class(if long { "long" } else { "whole" });
        let table = table.child(self.caption).child(Element::new("thead").children(self.heads)).children(groups);
        Some(scroll(table))
    }
}

/// A box that scrolls sideways by itself, with the keyboard too.
pub(super) fn scroll(table: Element) -> Element {
    Element::new("div").class("scroll").with("tabindex", 0).child(table)
}

/// A column's heading, at the right where it is of figures.
pub(super) fn head(title: &str, figures: bool) -> Element {
    let cell = Element::new("th").with("scope", "col");
    if figures { cell.class("num").text(title) } else { cell.text(title) }
}

/// The cell that heads a row.
pub(super) fn name(text: &str) -> Element {
    breakable(Element::new("th").with("scope", "row"), text)
}

/// The same with the sample of a series.
pub(super) fn name_of_series(text: &str, series: usize) -> Element {
    let label = Element::new("span").class("series").child(melo_eval::plot::swatch(series));
    Element::new("th").with("scope", "row").child(label.child(breakable(Element::new("span"), text)))
}

/// `text` in `element`, where a line may end after an underscore or a slash.
fn breakable(element: Element, text: &str) -> Element {
    let mut pieces = text.split_inclusive(['_', '/']);
    let element = element.text(pieces.next().unwrap_or_default());
    pieces.fold(element, |element, piece| element.child(Element::new("wbr")).text(piece))
}

/// A cell of figures.
pub(super) fn figure(text: impl Into<String>) -> Element {
    Element::new("td").class("num").text(text)
}

/// A cell of words.
pub(super) fn words(text: impl Into<String>) -> Element {
    Element::new("td").text(text)
}

/// A figure, and something smaller below it.
pub(super) fn figure_with(text: impl Into<String>, below: impl Into<String>) -> Element {
    figure(text).child(Element::new("small").text(below))
}

/// An estimate with its interval below it; `undefined` and why where there is none.
pub(super) fn estimate(found: Option<&Estimate>, note: Option<&str>) -> Element {
    match (found.filter(|found| found.value.is_finite()), note) {
        (Some(found), Some(note)) => figure_with(number(found.value, 3), interval(found)).child(remark(note)),
        (Some(found), None) => figure_with(number(found.value, 3), interval(found)),
        (None, Some(note)) => figure("undefined").child(remark(note)),
        (None, None) => figure(NOTHING),
    }
}

fn remark(text: &str) -> Element {
    Element::new("small").class("remark").text(text)
}
