//! Scatter charts of numbers against the truth.

use super::axis::Axis;
use super::frame::Frame;
use super::series::marker;
use crate::element::Element;

/// Answers against the truth, both axes with one scale, and the line on which they are equal.
#[derive(Clone, Debug, PartialEq)]
pub struct Scatter {
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
    /// Title of the axis of the truth.
    pub truth: String,
    /// Title of the axis of the answers.
    pub answer: String,
    /// Truth and answer of each point.
    pub points: Vec<(f64, f64)>,
}

/// Ticks of either axis.
const TICKS: usize = 5;

impl Scatter {
    /// The chart; none without a finite point.
    pub fn draw(&self) -> Option<Element> {
        let values = || self.points.iter().flat_map(|&(truth, answer)| [truth, answer]);
        let (x, y) = (Axis::around(&self.truth, values(), TICKS)?, Axis::around(&self.answer, values(), TICKS)?);
        let frame = Frame::new(self.width, self.height, (&x, &y), 0.0);
        let ends = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| (v.min(least), v.max(most)));
        let equal = frame.at((ends.0, ends.0)).zip(frame.at((ends.1, ends.1)));
        let equal = equal.map(|(from, to)| Element::line("diagonal", from, to));
        let points: Vec<Element> =
            self.points.iter().filter_map(|&at| Some(marker(self.series, frame.at(at)?, 2.4, true))).collect();
        if points.is_empty() {
            return None;
        }
        let picture = Element::picture(&self.title, &self.description, self.width, self.height);
        Some(picture.children(frame.draw()).children(equal).children(points))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_without_a_place_are_not_drawn() {
        let mut chart = Scatter {
            title: String::new(),
            description: String::new(),
            width: 300.0,
            height: 300.0,
            series: 0,
            truth: "truth".into(),
            answer: "answer".into(),
            points: vec![(20.0, 30.0), (60.0, 55.0), (f64::NAN, 40.0)],
        };
        let svg = chart.draw().unwrap().to_string();
        assert_eq!((svg.matches("<circle").count(), svg.matches("diagonal").count()), (2, 1));
        chart.points.clear();
        assert_eq!(chart.draw(), None);
    }
}
