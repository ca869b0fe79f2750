//! Forest plots: an estimate with its interval a row, names above, so that they fit a phone.

use super::FONT;
use super::axis::Axis;
use super::measure::{clip, ems};
use super::series::{class, marker};
use crate::element::Element;

/// From one row to the next.
const ROW: f64 = 32.0;
/// From the top of a row to its interval.
const MARK: f64 = 21.0;
/// Room above the rows, for what the guides say.
const HEAD: f64 = 20.0;
/// Room below the rows, for ticks and title.
const FOOT: f64 = 38.0;
/// Room to the left and right of the plot, for the outermost tick labels.
const SIDE: f64 = 18.0;

/// One estimate.
#[derive(Clone, Debug, PartialEq)]
pub struct ForestRow {
    /// What it is of, at the left; cut if too long.
    pub label: String,
    /// The estimate in words, at the right.
    pub shown: String,
    /// Colour and marker.
    pub series: usize,
    /// The estimate.
    pub value: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// True for a hollow marker: the estimate decides nothing.
    pub hollow: bool,
}

/// Estimates below each other on one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    /// Its name, for those who hear it.
    pub title: String,
    /// What it shows, for the same.
    pub description: String,
    /// Width.
    pub width: f64,
    /// The axis of all rows.
    pub axis: Axis,
    /// A solid line down all rows with its label, such as no difference.
    pub zero: Option<(f64, String)>,
    /// A dashed line down all rows with its label, to the left of `zero`, such as a margin.
    pub margin: Option<(f64, String)>,
    /// The rows.
    pub rows: Vec<ForestRow>,
}

impl Forest {
    /// The chart; none if no row is finite.
    pub fn draw(&self) -> Option<Element> {
        let rows: Vec<_> = self.rows.iter().filter(|row| row.value.is_finite()).collect();
        if rows.is_empty() {
            return None;
        }
        let foot = HEAD + rows.len() as f64 * ROW;
        let picture = Element::picture(&self.title, &self.description, self.width, foot + FOOT);
        let drawn = rows.iter().enumerate().flat_map(|(i, row)| self.draw_row(row, HEAD + i as f64 * ROW));
        Some(picture.children(self.draw_axis(foot)).children(self.draw_guides(foot)).children(drawn))
    }

    fn x(&self, value: f64) -> Option<f64> {
        self.axis.share(value).map(|share| SIDE + share * (self.width - 2.0 * SIDE))
    }

    fn draw_axis(&self, foot: f64) -> Vec<Element> {
        let mut drawn = vec![Element::line("axis", (SIDE, foot), (self.width - SIDE, foot))];
        let mut used = f64::NEG_INFINITY;
        for (value, label) in self.axis.ticks() {
            let Some(x) = self.x(*value) else { continue };
            drawn.push(Element::line("axis", (x, foot), (x, foot + 4.0)));
            let half = ems(label) * FONT / 2.0;
            let centre = x.min(self.width - half).max(half);
            if centre - half >= used + 4.0 {
                drawn.push(Element::label("tick middle", centre, foot + 17.0, label.as_str()));
                used = centre + half;
            }
        }
        let title = clip(self.axis.title(), self.width / FONT);
        drawn.push(Element::label("title middle", self.width / 2.0, foot + 32.0, title));
        drawn
    }

    /// The margin's label ends at its line and that of zero starts there: they cannot meet.
    fn draw_guides(&self, foot: f64) -> Vec<Element> {
        let mut drawn = Vec::new();
        for (guide, class, anchor) in [(&self.zero, "zero", "start"), (&self.margin, "margin", "end")] {
            let Some((at, label)) = guide else { continue };
            let Some(x) = self.x(*at) else { continue };
            // Beside the intervals alone: the texts between them stay free.
            drawn.push(Element::line(class, (x, HEAD - 6.0), (x, HEAD)));
            let rows = ((foot - HEAD) / ROW).round() as usize;
            drawn.extend((0..rows).map(|row| {
                let top = HEAD + row as f64 * ROW;
                Element::line(class, (x, top + MARK - 6.0), (x, if row + 1 == rows { foot } else { top + MARK + 8.0 }))
            }));
            let width = ems(label) * FONT;
            let fits = if anchor == "start" { x + width <= self.width } else { x - width >= 0.0 };
            if fits {
                drawn.push(Element::label(&format!("tick {anchor}"), x, FONT + 1.0, label.as_str()));
            }
        }
        drawn
    }

    fn draw_row(&self, row: &ForestRow, top: f64) -> Vec<Element> {
        let mut drawn = Vec::new();
        let room = self.width / FONT - ems(&row.shown) - 1.0;
        let label = clip(&row.label, room);
        drawn.push(Element::label("row", 1.0, top + 12.0, label));
        drawn.push(Element::label("value end", self.width - 1.0, top + 12.0, row.shown.as_str()));
        let y = top + MARK;
        let class = class(row.series);
        if let (Some(low), Some(high)) = (self.x(row.low), self.x(row.high)) {
            drawn.push(Element::line(&format!("interval {class}"), (low, y), (high, y)));
            for end in [low, high] {
                drawn.push(Element::line(&format!("interval {class}"), (end, y - 3.0), (end, y + 3.0)));
            }
        }
        drawn.extend(self.x(row.value).map(|x| marker(row.series, (x, y), 3.8, row.hollow)));
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forest(value: f64) -> Forest {
        Forest {
            title: "lora against full".into(),
            description: String::new(),
            width: 340.0,
            axis: Axis::around("difference", [-0.05, 0.05], 5).unwrap(),
            zero: Some((0.0, "equal".into())),
            margin: Some((-0.02, "margin".into())),
            rows: vec![ForestRow {
                label: "a task with a name that is much too long for one line of a telephone".into(),
                shown: "+0.010 [−0.010, +0.030]".into(),
                series: 1,
                value,
                low: f64::NEG_INFINITY,
                high: 0.03,
                hollow: false,
            }],
        }
    }

    #[test]
    fn guides_leave_the_labels_free() {
        let document = forest(0.01).draw().unwrap().to_string();
        let number = |line: &str, name: &str| {
            let (_, rest) = line.split_once(&format!(" {name}=\"")).unwrap();
            rest.split('"').next().unwrap().parse::<f64>().unwrap()
        };
        let guides = document.split("<line").filter(|line| line.contains("\"zero\"") || line.contains("\"margin\""));
        let spans: Vec<_> = guides.map(|line| (number(line, "y1"), number(line, "y2"))).collect();
        assert_eq!(spans.len(), 4, "a head and a row for each of two guides");
        // A row's text is 11 px high above its baseline, and reaches 3 px below it.
        let (top, bottom) = (HEAD + 12.0 - 11.0, HEAD + 12.0 + 3.0);
        assert!(spans.iter().all(|(from, to)| *to <= top || *from >= bottom), "{spans:?}");
    }

    #[test]
    fn what_is_not_finite_has_no_mark() {
        assert_eq!(forest(f64::NAN).draw(), None);
        let svg = forest(0.01).draw().unwrap().to_string();
        assert!(!svg.contains("inf") && !svg.contains("interval"), "{svg}");
        assert!(svg.contains("…"));
    }
}
