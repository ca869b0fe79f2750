//! The frame of a chart: where the plot lies in the picture, grid, ticks and titles.

use super::FONT;
use super::axis::Axis;
use super::measure::{clip, ems};
use crate::element::Element;

/// From the plot's lower edge to the baseline of its tick labels: below the lowest label of the other axis.
const TICK_BASELINE: f64 = 17.0;
/// From the plot's lower edge to the baseline of the axis title.
const TITLE_BASELINE: f64 = 32.0;
/// Between two labels, at the least.
const GAP: f64 = 5.0;

/// A plot inside a picture: `left`, `right`, `top` and `bottom` are its edges.
pub(super) struct Frame<'a> {
    width: f64,
    left: f64,
    right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    x: &'a Axis,
    y: &'a Axis,
}

impl<'a> Frame<'a> {
    /// A frame that leaves room for the labels of both axes, and `below` more at the picture's lower end.
    pub(super) fn new(width: f64, height: f64, (x, y): (&'a Axis, &'a Axis), below: f64) -> Self {
        let top = if y.title().is_empty() { 8.0 } else { 25.0 };
        let foot = if x.title().is_empty() { 22.0 } else { 37.0 };
        let last = x.ticks().last().map_or(0.0, |(_, label)| ems(label) * FONT / 2.0);
        let (left, right) = (y.label_width() + 7.0, width - last.clamp(4.0, 24.0));
        Self { width, left, right, top, bottom: height - foot - below, x, y }
    }

    /// Pixel column of `value`.
    pub(super) fn x(&self, value: f64) -> Option<f64> {
        self.x.share(value).map(|share| self.left + share * (self.right - self.left))
    }

    /// Pixel row of `value`.
    pub(super) fn y(&self, value: f64) -> Option<f64> {
        self.y.share(value).map(|share| self.bottom - share * (self.bottom - self.top))
    }

    /// Both; none if either has no place.
    pub(super) fn at(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        Some((self.x(x)?, self.y(y)?))
    }

    /// Grid, ticks and titles.
    pub(super) fn draw(&self) -> Vec<Element> {
        let mut drawn = Vec::new();
        self.draw_y(&mut drawn);
        self.draw_x(&mut drawn);
        let room = self.width / FONT;
        if !self.y.title().is_empty() {
            drawn.push(Element::label("title", 0.0, FONT, clip(self.y.title(), room)));
        }
        if !self.x.title().is_empty() {
            let title = clip(self.x.title(), room);
            let half = ems(&title) * FONT / 2.0;
            let centre = ((self.left + self.right) / 2.0).min(self.width - half).max(half);
            drawn.push(Element::label("title middle", centre, self.bottom + TITLE_BASELINE, title));
        }
        drawn
    }

    fn draw_y(&self, drawn: &mut Vec<Element>) {
        let mut above = f64::INFINITY;
        for (value, label) in self.y.ticks() {
            let Some(y) = self.y(*value) else { continue };
            drawn.push(Element::line("grid", (self.left, y), (self.right, y)));
            if above - y >= FONT + 2.0 {
                drawn.push(Element::label("tick end", self.left - 5.0, y + 0.35 * FONT, label.as_str()));
                above = y;
            }
        }
    }

    fn draw_x(&self, drawn: &mut Vec<Element>) {
        drawn.push(Element::line("axis", (self.left, self.bottom), (self.right, self.bottom)));
        let half = |label: &str| ems(label) * FONT / 2.0;
        // The last label is the end of the range: it keeps its place, those before it give way.
        let limit = self.x.ticks().last().map_or(0.0, |(_, label)| self.right - half(label));
        let mut used = f64::NEG_INFINITY;
        for (i, (value, label)) in self.x.ticks().iter().enumerate() {
            let Some(x) = self.x(*value) else { continue };
            drawn.push(Element::line("axis", (x, self.bottom), (x, self.bottom + 4.0)));
            let centre = x.min(self.width - half(label)).max(half(label));
            let last = i + 1 == self.x.ticks().len();
            if centre - half(label) >= used + GAP && (last || centre + half(label) <= limit - GAP) {
                drawn.push(Element::label("tick middle", centre, self.bottom + TICK_BASELINE, label.as_str()));
                used = centre + half(label);
            }
        }
    }
}
