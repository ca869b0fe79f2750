//! Elements of HTML and SVG, escaped and closed by construction.

use std::fmt::{self, Display, Formatter};

/// HTML elements that have no content and no end tag.
const VOID: [&str; 7] = ["br", "col", "hr", "img", "link", "meta", "wbr"];
/// Elements after which a line ends, so that a page can be read and compared as text.
const LINES: [&str; 16] = [
    "div",
    "figure",
    "figcaption",
    "h1",
    "h2",
    "h3",
    "h4",
    "li",
    "meta",
    "nav",
    "p",
    "section",
    "style",
    "svg",
    "title",
    "tr",
];

/// An element with its attributes and content.
///
/// What [`Display`] writes is HTML and well-formed XML at once: each tag is closed, `&`, `<` and quotes are escaped, and
/// characters that XML forbids become U+FFFD. Names of tags and attributes are the program's own, never input.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    tag: &'static str,
    attributes: Vec<(&'static str, String)>,
    content: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    /// An empty element.
    pub fn new(tag: &'static str) -> Self {
        Self { tag, attributes: Vec::new(), content: Vec::new() }
    }

    /// With one more attribute, which must not be there yet.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Display) -> Self {
        debug_assert!(self.attributes.iter().all(|(known, _)| *known != name), "{name} twice in {}", self.tag);
        self.attributes.push((name, value.to_string()));
        self
    }

    /// With its `class` attribute.
    #[must_use]
    pub fn class(self, names: impl Display) -> Self {
        self.with("class", names)
    }

    /// With `text` after what it holds already.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.content.push(Node::Text(text.into()));
        self
    }

    /// With `element` after what it holds already.
    #[must_use]
    pub fn child(mut self, element: Element) -> Self {
        self.content.push(Node::Element(element));
        self
    }

    /// With all of `elements` after what it holds already: a list, or an `Option`.
    #[must_use]
    pub fn children(mut self, elements: impl IntoIterator<Item = Element>) -> Self {
        self.content.extend(elements.into_iter().map(Node::Element));
        self
    }

    /// A line of an SVG.
    pub(crate) fn line(class: &str, from: (f64, f64), to: (f64, f64)) -> Self {
        let at = [("x1", from.0), ("y1", from.1), ("x2", to.0), ("y2", to.1)];
        at.into_iter().fold(Self::new("line").class(class), |line, (name, value)| line.with(name, coordinate(value)))
    }

    /// A text of an SVG that starts, is centred or ends at `(x, y)`, its baseline, as `class` says.
    pub(crate) fn label(class: &str, x: f64, y: f64, text: impl Into<String>) -> Self {
        Self::new("text").class(class).with("x", coordinate(x)).with("y", coordinate(y)).text(text)
    }

    /// An SVG picture with a name and a description for those who hear it.
    pub(crate) fn picture(title: &str, description: &str, width: f64, height: f64) -> Self {
        Self::new("svg")
            .class("plot")
            .with("viewBox", format!("0 0 {} {}", coordinate(width), coordinate(height)))
            .with("width", coordinate(width))
            .with("height", coordinate(height))
            .with("role", "img")
            .child(Self::new("title").text(title))
            .child(Self::new("desc").text(description))
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.tag)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}=\"{}\"", Escaped { text: value, quotes: true })?;
        }
        if VOID.contains(&self.tag) {
            f.write_str("/>")?;
        } else {
            f.write_str(">")?;
            for node in &self.content {
                match node {
                    Node::Element(element) => element.fmt(f)?,
                    Node::Text(text) => Escaped { text, quotes: false }.fmt(f)?,
                }
            }
            write!(f, "</{}>", self.tag)?;
        }
        if LINES.contains(&self.tag) { f.write_str("\n") } else { Ok(()) }
    }
}

/// Quotes are left alone outside attributes: a style sheet is raw text, where `&quot;` would mean just that.
struct Escaped<'a> {
    text: &'a str,
    quotes: bool,
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for c in self.text.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '"' if self.quotes => f.write_str("&quot;")?,
                '\n' | '\t' => f.write_char(c)?,
                c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                    f.write_char(char::REPLACEMENT_CHARACTER)?;
                }
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A length with one decimal at the most: a tenth of a pixel.
pub(crate) fn coordinate(value: f64) -> String {
    debug_assert!(value.is_finite(), "{value} is no place in a picture");
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_are_escaped() {
        let element = Element::new("b").with("title", "\"a\" & <b>").text("</b><script>&amp;\"\u{0}\u{1b}");
        assert_eq!(
            element.to_string(),
            "<b title=\"&quot;a&quot; &amp; &lt;b>\">&lt;/b>&lt;script>&amp;amp;\"\u{fffd}\u{fffd}</b>"
        );
    }

    #[test]
    fn empty_elements_are_closed_the_way_html_wants_it() {
        assert_eq!(Element::new("td").to_string(), "<td></td>");
        assert_eq!(Element::new("img").with("alt", "").to_string(), "<img alt=\"\"/>");
    }

    #[test]
    fn coordinates_are_short() {
        for (value, text) in [(0.0, "0"), (-0.04, "0"), (12.0, "12"), (1.25, "1.2"), (-3.06, "-3.1"), (100.96, "101")] {
            assert_eq!(coordinate(value), text);
        }
    }
}
