//! Reliability diagrams: how often predictions of a given confidence are right, before and after recalibration.

use super::axis::Axis;
use super::frame::Frame;
use super::lines::path;
use super::series::{class, marker};
use crate::element::{Element, coordinate};

/// Room for the histogram below the diagram.
const HISTOGRAM: f64 = 30.0;

/// One bin of confidences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// Predictions in it; an empty bin is not drawn.
    pub count: u64,
    /// Their mean confidence, in [0, 1].
    pub confidence: f64,
    /// Share of them that is right, in [0, 1].
    pub accuracy: f64,
}

/// A reliability diagram with a histogram of the confidences after recalibration.
#[derive(Clone, Debug, PartialEq)]
pub struct Reliability {
    /// Its name, for those who hear it.
    pub title: String,
    /// What it shows, for the same.
    pub description: String,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    /// Colour and marker.
    pub series: usize,
    /// Bins before, dotted with hollow markers; may be empty.
    pub before: Vec<Bin>,
    /// Bins after, solid.
    pub after: Vec<Bin>,
}

impl Reliability {
    /// The diagram; none if every bin is empty.
    pub fn draw(&self) -> Option<Element> {
        let (x, y) = (Axis::unit("confidence"), Axis::unit("share right"));
        let frame = Frame::new(self.width, self.height, (&x, &y), HISTOGRAM);
        let before = curve(&frame, self.series, &self.before, true);
        let after = curve(&frame, self.series, &self.after, false);
        if before.is_empty() && after.is_empty() {
            return None;
        }
        let picture = Element::picture(&self.title, &self.description, self.width, self.height);
        let drawn = picture.children(frame.draw()).children(diagonal(&frame));
        Some(drawn.children(before).children(after).children(self.histogram(&frame)))
    }

    /// Bars that grow downwards from the lower edge of the picture's text, as far apart as the bins.
    fn histogram(&self, frame: &Frame) -> Vec<Element> {
        let most = self.after.iter().map(|bin| bin.count).max().unwrap_or(0).max(1) as f64;
        let foot = self.height - 1.0;
        let wide = self.width / (self.after.len().max(8) as f64 * 2.2);
        let bar = |bin: &Bin| {
            let x = frame.x(bin.confidence)?;
            let high = (bin.count as f64 / most * (HISTOGRAM - 6.0)).max(0.8);
            let bar = Element::new("rect").class(format!("bar {}", class(self.series)));
            let bar = bar.with("x", coordinate(x - wide / 2.0)).with("y", coordinate(foot - high));
            Some(bar.with("width", coordinate(wide)).with("height", coordinate(high)))
        };
        self.after.iter().filter(|bin| bin.count > 0).filter_map(bar).collect()
    }
}

fn curve(frame: &Frame, series: usize, bins: &[Bin], before: bool) -> Vec<Element> {
    let places: Vec<_> =
        bins.iter().filter(|bin| bin.count > 0).filter_map(|bin| frame.at((bin.confidence, bin.accuracy))).collect();
    if places.is_empty() {
        return Vec::new();
    }
    let line = Element::new("path")
        .class(format!("{} {}", if before { "before" } else { "after" }, class(series)))
        .with("d", path(&places));
    std::iter::once(line).chain(places.iter().map(|at| marker(series, *at, 2.4, before))).collect()
}

/// From the lower left to the upper right of unit axes.
fn diagonal(frame: &Frame) -> Option<Element> {
    Some(Element::line("guide", frame.at((0.0, 0.0))?, frame.at((1.0, 1.0))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_bins_are_not_drawn() {
        let bin = |count, confidence| Bin { count, confidence, accuracy: 0.5 };
        let mut diagram = Reliability {
            title: String::new(),
            description: String::new(),
            width: 168.0,
            height: 200.0,
            series: 0,
            before: vec![bin(0, f64::NAN), bin(3, 0.4)],
            after: vec![bin(0, 0.1), bin(5, 0.6), bin(2, 0.9)],
        };
        let svg = diagram.draw().unwrap().to_string();
        assert_eq!(svg.matches("<circle").count(), 3);
        assert_eq!(svg.matches("<rect").count(), 2);
        diagram.before.clear();
        diagram.after.truncate(1);
        assert_eq!(diagram.draw(), None);
    }
}
