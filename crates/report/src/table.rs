//! Tables with a caption, headed columns and headed groups of rows, and the cells they are made of.

use crate::Element;

/// Rows up to which a table is kept on one page of paper.
const MOST_WHOLE_ROWS: usize = 20;

/// A table of HTML.
pub struct Table {
    caption: Option<Element>,
    heads: Vec<Element>,
    columns: usize,
    groups: Vec<Element>,
    group: Element,
    rows: usize,
}

impl Table {
    /// A table of figures; the first column heads its rows.
    pub fn new(caption: &str, columns: &[&str]) -> Self {
        Self::headed(columns.iter().enumerate().map(|(i, title)| head(title, i > 0))).caption(caption)
    }

    /// A table of words, whose columns stand at the left.
    pub fn of_words(caption: &str, columns: &[&str]) -> Self {
        Self::headed(columns.iter().map(|title| head(title, false))).caption(caption)
    }

    /// A table under these cells.
    pub fn headed(heads: impl IntoIterator<Item = Element>) -> Self {
        let heads: Vec<_> = heads.into_iter().collect();
        Self {
            caption: None,
            columns: heads.len(),
            heads: vec![Element::new("tr").children(heads)],
            groups: Vec::new(),
            group: Element::new("tbody"),
            rows: 0,
        }
    }

    /// With a caption.
    #[must_use]
    pub fn caption(mut self, text: &str) -> Self {
        self.caption = Some(Element::new("caption").text(text));
        self
    }

    /// With a row of headings above, each over so many columns after the first.
    #[must_use]
    pub fn over(mut self, headings: &[String], span: usize) -> Self {
        let over = headings.iter().map(|heading| {
            Element::new("th").class("over").with("scope", "colgroup").with("colspan", span).text(heading.as_str())
        });
        self.heads.insert(0, Element::new("tr").child(Element::new("td")).children(over));
        self
    }

    /// Begins a group of rows, headed by `name`.
    pub fn group(&mut self, name: &str) {
        let head = breakable(Element::new("th").with("colspan", self.columns).with("scope", "rowgroup"), name);
        let group = Element::new("tbody").child(Element::new("tr").class("group").child(head));
        self.groups.push(std::mem::replace(&mut self.group, group));
    }

    /// One row: its first cell and as many as there are further columns.
    pub fn row(&mut self, name: Element, cells: impl IntoIterator<Item = Element>) {
        let row = Element::new("tr").child(name).children(cells);
        let group = std::mem::replace(&mut self.group, Element::new("tbody"));
        self.group = group.child(row);
        self.rows += 1;
    }

    /// The `table` alone.
    pub fn element(mut self) -> Element {
        self.groups.push(self.group);
        let groups = self.groups.into_iter().filter(|group| *group != Element::new("tbody"));
        let table = Element::new("table").children(self.caption);
        let head = (self.columns > 0).then(|| Element::new("thead").children(self.heads));
        table.children(head).children(groups)
    }

    /// The table in a box that scrolls by itself where the screen is too narrow; none without a row. Its class is `long` or
    /// `whole`, for paper.
    pub fn draw(self) -> Option<Element> {
        let long = self.rows + self.groups.len() + 1 > MOST_WHOLE_ROWS;
        (self.rows > 0).then(|| scroll(self.element().class(if long { "long" } else { "whole" })))
    }
}

/// A box that scrolls sideways by itself, with the keyboard too.
pub fn scroll(table: Element) -> Element {
    Element::new("div").class("scroll").with("tabindex", 0).child(table)
}

/// A column's heading, at the right where it is of figures. One that says nothing heads nothing: an empty cell.
pub fn head(title: &str, figures: bool) -> Element {
    let cell = if title.is_empty() { Element::new("td") } else { Element::new("th").with("scope", "col") };
    if figures { cell.class("num").text(title) } else { cell.text(title) }
}

/// The cell that heads a row.
pub fn name(text: &str) -> Element {
    breakable(Element::new("th").with("scope", "row"), text)
}

/// The same with the sample of a series before it.
pub fn name_with(sample: Element, text: &str) -> Element {
    let label = Element::new("span").class("series").child(sample);
    Element::new("th").with("scope", "row").child(label.child(breakable(Element::new("span"), text)))
}

/// `text` in `element`, where a line may end after an underscore or a slash.
pub fn breakable(element: Element, text: &str) -> Element {
    let mut pieces = text.split_inclusive(['_', '/']);
    let element = element.text(pieces.next().unwrap_or_default());
    pieces.fold(element, |element, piece| element.child(Element::new("wbr")).text(piece))
}

/// A cell of figures.
pub fn figure(text: impl Into<String>) -> Element {
    Element::new("td").class("num").text(text)
}

/// A cell of words.
pub fn words(text: impl Into<String>) -> Element {
    Element::new("td").text(text)
}

/// A figure, and something smaller below it.
pub fn figure_with(text: impl Into<String>, below: impl Into<String>) -> Element {
    figure(text).child(Element::new("small").text(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_span_the_table_and_empty_ones_are_left_out() {
        let mut table = Table::new("AUC", &["class", "lora"]);
        table.group("left_eye");
        table.row(name("a/b"), [figure("0.9")]);
        assert_eq!(
            table.draw().unwrap().to_string(),
            "<div class=\"scroll\" tabindex=\"0\"><table class=\"whole\"><caption>AUC</caption><thead><tr>\
             <th scope=\"col\">class</th><th scope=\"col\" class=\"num\">lora</th></tr>\n</thead><tbody><tr class=\"group\">\
             <th colspan=\"2\" scope=\"rowgroup\">left_<wbr/>eye</th></tr>\n<tr><th scope=\"row\">a/<wbr/>b</th>\
             <td class=\"num\">0.9</td></tr>\n</tbody></table></div>\n"
        );
        assert_eq!(Table::new("AUC", &["class"]).draw(), None);
    }

    #[test]
    fn a_table_longer_than_a_page_may_break() {
        let class = |rows: usize| {
            let mut table = Table::of_words("", &["name"]);
            (0..rows).for_each(|i| table.row(name(&i.to_string()), []));
            let drawn = table.draw().unwrap().to_string();
            drawn.contains("class=\"long\"")
        };
        assert!(!class(MOST_WHOLE_ROWS - 1) && class(MOST_WHOLE_ROWS));
    }
}
