//! Bars from zero, names and values above them, so that they fit a phone.

use super::FONT;
use super::measure::{clip, ems};
use super::series::class;
use crate::element::{Element, coordinate};

/// From one bar to the next.
const ROW: f64 = 32.0;

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it is of; cut if too long.
    pub label: String,
    /// Its value in words.
    pub shown: String,
    /// Colour.
    pub series: usize,
    /// Its length.
    pub value: f64,
}

/// Bars below each other on one linear scale that starts at zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// Its name, for those who hear it.
    pub title: String,
    /// What it shows, for the same.
    pub description: String,
    /// Width.
    pub width: f64,
    /// The bars; those that are negative or not finite are left out.
    pub bars: Vec<Bar>,
}

impl Bars {
    /// The chart; none if no bar is longer than zero.
    pub fn draw(&self) -> Option<Element> {
        let bars: Vec<_> = self.bars.iter().filter(|bar| bar.value.is_finite() && bar.value >= 0.0).collect();
        let longest = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
        if longest == 0.0 {
            return None;
        }
        let height = bars.len() as f64 * ROW + 2.0;
        let picture = Element::picture(&self.title, &self.description, self.width, height);
        Some(picture.children(bars.iter().enumerate().flat_map(|(i, bar)| {
            let top = i as f64 * ROW;
            let room = self.width / FONT - ems(&bar.shown) - 1.0;
            let long = |class: &str, width: f64| {
                Element::new("rect")
                    .class(class)
                    .with("x", 0)
                    .with("y", coordinate(top + 16.0))
                    .with("width", coordinate(width))
                    .with("height", 9)
                    .with("rx", 1.5)
            };
            [
                Element::label("row", 1.0, top + 12.0, clip(&bar.label, room)),
                Element::label("value end", self.width - 1.0, top + 12.0, bar.shown.as_str()),
                long("band", self.width),
                long(&format!("bar {}", class(bar.series)), (bar.value / longest * self.width).max(1.5)),
            ]
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion_and_none_is_invisible() {
        let bar = |value: f64| Bar { label: "lora".into(), shown: String::new(), series: 0, value };
        let bars = |values: &[f64]| Bars {
            title: String::new(),
            description: String::new(),
            width: 300.0,
            bars: values.iter().copied().map(bar).collect(),
        };
        let svg = bars(&[200.0, 100.0, 1e-3, f64::NAN]).draw().unwrap().to_string();
        let widths: Vec<_> = svg.split("bar s0").skip(1).map(|bar| bar.split("width=\"").nth(1).unwrap()).collect();
        assert_eq!(widths.len(), 3);
        assert!(widths[0].starts_with("300\"") && widths[1].starts_with("150\"") && widths[2].starts_with("1.5\""));
        assert_eq!(bars(&[0.0, f64::INFINITY]).draw(), None);
    }
}
