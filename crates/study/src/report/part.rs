//! What the report is made of.

use melo_report::Element;

/// One part of the report: an anchor, a heading, and what is below it.
pub(super) struct Part {
    pub(super) id: &'static str,
    pub(super) heading: &'static str,
    pub(super) content: Vec<Element>,
}

/// A paragraph.
pub(super) fn paragraph(text: impl Into<String>) -> Element {
    Element::new("p").text(text)
}

/// A paragraph of small print.
pub(super) fn note(text: impl Into<String>) -> Element {
    Element::new("p").class("note").text(text)
}
