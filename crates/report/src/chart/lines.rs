//! Line charts: ROC and precision-recall curves, learning curves, curves over the share of the data.

use super::axis::Axis;
use super::curve::decimate;
use super::frame::Frame;
use super::series::{class, marker};
use crate::element::{Element, coordinate};

/// With more points than this a line has no markers: they would hide it.
const MOST_MARKS: usize = 12;

/// One line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Which series it is: its colour, dash and marker.
    pub series: usize,
    /// Its points, x ascending; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// True if the value of a point holds from the point before it on, as precision does between two recalls.
    pub steps: bool,
    /// True for a marker at each point, if they are few.
    pub marks: bool,
    /// Intervals: `(x, low, high)`.
    pub whiskers: Vec<(f64, f64, f64)>,
}

impl Line {
    /// A plain line.
    pub fn new(series: usize, points: Vec<(f64, f64)>) -> Self {
        Self { series, points, steps: false, marks: false, whiskers: Vec::new() }
    }
}

/// Lines on common axes.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    /// Its name, for those who hear it.
    pub title: String,
    /// What it shows, for the same.
    pub description: String,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// A faint line through these points to compare with, such as chance; empty for none.
    pub guide: Vec<(f64, f64)>,
    /// The lines, later ones on top.
    pub lines: Vec<Line>,
}

impl LineChart {
    /// The chart; none if no line has two points with a place.
    pub fn draw(&self) -> Option<Element> {
        let frame = Frame::new(self.width, self.height, (&self.x, &self.y), 0.0);
        let drawn: Vec<_> = self.lines.iter().filter_map(|line| draw_line(line, &frame)).flatten().collect();
        if drawn.is_empty() {
            return None;
        }
        let guide: Vec<_> = self.guide.iter().filter_map(|point| frame.at(*point)).collect();
        let guide = (guide.len() > 1).then(|| Element::new("path").class("guide").with("d", path(&guide)));
        let picture = Element::picture(&self.title, &self.description, self.width, self.height);
        Some(picture.children(frame.draw()).children(guide).children(drawn))
    }
}

/// A path through `points`, with horizontal and vertical pieces written short.
pub(super) fn path(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    let mut before: Option<(String, String)> = None;
    for (x, y) in points {
        let at = (coordinate(*x), coordinate(*y));
        match &before {
            None => path.push_str(&format!("M{} {}", at.0, at.1)),
            Some(before) if *before == at => {}
            Some(before) if before.0 == at.0 => path.push_str(&format!("V{}", at.1)),
            Some(before) if before.1 == at.1 => path.push_str(&format!("H{}", at.0)),
            Some(_) => path.push_str(&format!("L{} {}", at.0, at.1)),
        }
        before = Some(at);
    }
    path
}

fn draw_line(line: &Line, frame: &Frame) -> Option<Vec<Element>> {
    let places: Vec<_> = line.points.iter().filter_map(|point| frame.at(*point)).collect();
    if places.len() < 2 {
        return None;
    }
    let class = class(line.series);
    let vertices = if line.steps { stepped(&places) } else { places.clone() };
    let mut drawn: Vec<_> = line
        .whiskers
        .iter()
        .filter_map(|(x, low, high)| {
            let x = frame.x(*x)?;
            Some(Element::line(&format!("whisker {class}"), (x, frame.y(*low)?), (x, frame.y(*high)?)))
        })
        .collect();
    drawn.push(Element::new("path").class(format!("line {class}")).with("d", path(&decimate(&vertices))));
    if line.marks && places.len() <= MOST_MARKS {
        drawn.extend(places.iter().map(|at| marker(line.series, *at, 2.6, false)));
    }
    Some(drawn)
}

fn stepped(places: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut vertices = vec![places[0]];
    for ends in places.windows(2) {
        vertices.extend([(ends[0].0, ends[1].1), ends[1]]);
    }
    vertices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> LineChart {
        LineChart {
            title: "ROC".into(),
            description: "AUC".into(),
            width: 168.0,
            height: 178.0,
            x: Axis::unit("x"),
            y: Axis::unit("y"),
            guide: vec![(0.0, 0.0), (1.0, 1.0)],
            lines: vec![Line { steps: true, marks: true, ..Line::new(9, points) }],
        }
    }

    #[test]
    fn points_without_a_place_are_left_out() {
        let svg =
            chart(vec![(0.0, 0.2), (f64::NAN, 0.3), (0.5, f64::INFINITY), (1.0, 0.4)]).draw().unwrap().to_string();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_chart_without_a_line_is_none() {
        assert_eq!(chart(vec![]).draw(), None);
        assert_eq!(chart(vec![(0.5, 0.5)]).draw(), None);
        assert_eq!(chart(vec![(f64::NAN, 0.5), (0.5, f64::NAN)]).draw(), None);
    }

    #[test]
    fn steps_hold_the_value_of_the_later_point() {
        assert_eq!(stepped(&[(0.0, 1.0), (2.0, 3.0)]), [(0.0, 1.0), (0.0, 3.0), (2.0, 3.0)]);
        assert_eq!(path(&[(0.0, 1.0), (0.0, 3.0), (2.0, 3.0), (2.0, 3.01), (4.0, 5.0)]), "M0 1V3H2L4 5");
    }
}
