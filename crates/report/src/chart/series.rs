//! The eight ways to draw a series: a colour, a dash and a marker each, told apart without seeing colours.

use crate::element::{Element, coordinate};

/// Number of distinct series; the next one looks like the first.
pub const SERIES: usize = 8;

/// Class of a series' lines and markers in [`STYLE`](super::STYLE).
pub(super) fn class(series: usize) -> String {
    format!("s{}", series % SERIES)
}

/// The marker of `series` with its centre at `(x, y)`; a hollow one shows the paper.
pub(super) fn marker(series: usize, (x, y): (f64, f64), size: f64, hollow: bool) -> Element {
    let class = format!("mark {}{}", class(series), if hollow { " hollow" } else { "" });
    if series.is_multiple_of(SERIES) {
        return Element::new("circle")
            .class(class)
            .with("cx", coordinate(x))
            .with("cy", coordinate(y))
            .with("r", coordinate(size));
    }
    let path: String = corners(series % SERIES)
        .iter()
        .enumerate()
        .map(|(i, (dx, dy))| {
            let command = if i == 0 { 'M' } else { 'L' };
            format!("{command}{} {}", coordinate(x + dx * size), coordinate(y + dy * size))
        })
        .collect();
    Element::new("path").class(class).with("d", path + "Z")
}

/// Corners of a marker around its centre, in units of its size.
fn corners(series: usize) -> &'static [(f64, f64)] {
    match series {
        1 => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        2 => &[(0.0, -1.2), (1.15, 0.85), (-1.15, 0.85)],
        3 => &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
        4 => &[(0.0, 1.2), (1.15, -0.85), (-1.15, -0.85)],
        5 => &[(-1.2, -0.45), (1.2, -0.45), (1.2, 0.45), (-1.2, 0.45)],
        6 => &[(-0.45, -1.2), (0.45, -1.2), (0.45, 1.2), (-0.45, 1.2)],
        _ => &[(0.0, -1.2), (1.1, -0.4), (0.7, 1.0), (-0.7, 1.0), (-1.1, -0.4)],
    }
}

/// A small sample of `series` for a legend beside its name: its line and its marker.
pub fn swatch(series: usize) -> Element {
    Element::new("svg")
        .class("swatch")
        .with("viewBox", "0 0 30 12")
        .with("width", 30)
        .with("height", 12)
        .with("aria-hidden", "true")
        .child(Element::line(&format!("line {}", class(series)), (1.0, 6.0), (29.0, 6.0)))
        .child(marker(series, (15.0, 6.0), 3.5, false))
}

#[cfg(test)]
mod tests {
    use super::super::STYLE;

    /// WCAG's relative luminance of `#rrggbb`.
    fn luminance(hex: &str) -> f64 {
        let channel = |at: usize| {
            let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    fn contrast(a: f64, b: f64) -> f64 {
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// The colours of one of the two themes, by name.
    fn colours(theme: usize) -> std::collections::BTreeMap<&'static str, &'static str> {
        let block = STYLE.split(":root {").nth(theme + 1).unwrap().split('}').next().unwrap();
        block.split(';').filter_map(|line| line.trim().strip_prefix("--")?.split_once(": ")).collect()
    }

    #[test]
    fn every_theme_has_the_contrast_of_wcag_aa() {
        for theme in [0, 1] {
            let colours = colours(theme);
            let of = |name: &str| luminance(colours[name]);
            for text in ["ink", "soft"] {
                for ground in ["paper", "band"] {
                    let found = contrast(of(text), of(ground));
                    assert!(found >= 4.5, "theme {theme}: {text} on {ground} is {found:.2}");
                }
            }
            for series in 0..super::SERIES {
                let found = contrast(of(&format!("s{series}")), of("paper"));
                assert!(found >= 3.0, "theme {theme}: s{series} is {found:.2}");
            }
        }
    }

    #[test]
    fn counts_can_be_read_on_the_hottest_cell() {
        // Half of the heat over the paper, mixed in sRGB as a browser does.
        for theme in [0, 1] {
            let colours = colours(theme);
            let mix = |at: usize| {
                let value = |name: &str| u32::from_str_radix(&colours[name][at..at + 2], 16).unwrap();
                (value("paper") + value("heat")) / 2
            };
            let hottest = format!("#{:02x}{:02x}{:02x}", mix(1), mix(3), mix(5));
            let found = contrast(luminance(colours["ink"]), luminance(&hottest));
            assert!(found >= 4.5, "theme {theme}: {found:.2}");
        }
    }

    #[test]
    fn the_style_sheet_can_stand_in_a_page() {
        assert!(!STYLE.contains(['<', '&']));
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    }
}
