//! Heat tables: counts that stay readable as numbers, shaded by their share of the row.

use crate::element::Element;
use crate::table::Table;

/// A table of counts `[r][c]`, such as a confusion matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatTable {
    /// Its caption.
    pub caption: String,
    /// Above the row names.
    pub corner: String,
    /// Names of the rows; the columns have the same, by number.
    pub names: Vec<String>,
    /// The counts; a row may be short.
    pub counts: Vec<Vec<u64>>,
}

impl HeatTable {
    /// The table as HTML; none without a count above zero.
    pub fn draw(&self) -> Option<Element> {
        self.counts.iter().flatten().find(|count| **count > 0)?;
        let name = |i: usize| self.names.get(i).map_or("", String::as_str);
        let heading = |i: usize| {
            let heading = Element::new("th").with("scope", "col").class("num").with("title", name(i));
            heading.text((i + 1).to_string())
        };
        let corner = Element::new("th").with("scope", "col").text(self.corner.as_str());
        let heads = std::iter::once(corner).chain((0..self.counts.len()).map(heading));
        let mut table = Table::headed(heads).caption(&self.caption);
        for (i, counts) in self.counts.iter().enumerate() {
            let sum = counts.iter().sum::<u64>().max(1) as f64;
            let cell = |(j, count): (usize, &u64)| {
                let cell = Element::new("td").class(if i == j { "num heat hit" } else { "num heat" });
                cell.with("style", format!("--share:{:.2}", *count as f64 / sum)).text(count.to_string())
            };
            let head = Element::new("th").with("scope", "row").text(format!("{} {}", i + 1, name(i)));
            table.row(head, counts.iter().enumerate().map(cell));
        }
        Some(table.element().class("heat"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_shaded_by_their_share_of_the_row() {
        let mut table = HeatTable {
            caption: "lora".into(),
            corner: "true class".into(),
            names: vec!["a".into()],
            counts: vec![vec![3, 1], vec![0, 0]],
        };
        let html = table.draw().unwrap().to_string();
        assert!(html.contains("<td class=\"num heat hit\" style=\"--share:0.75\">3</td>"), "{html}");
        assert!(html.contains("<td class=\"num heat\" style=\"--share:0.25\">1</td>"));
        table.counts[0] = vec![0, 0];
        assert_eq!(table.draw(), None);
    }
}
