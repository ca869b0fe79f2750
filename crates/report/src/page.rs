//! The skeleton that every page shares.

use crate::Element;

/// A page of this title and style sheet around `body`, its `body` element: well-formed XML but for its first line, for light
/// and dark screens of any width.
///
/// `style` stands in the page as raw text: it must hold neither `<` nor `&`.
pub fn page(title: &str, style: &str, body: Element) -> String {
    debug_assert!(!style.contains(['<', '&']), "a style sheet is raw text");
    let meta =
        |name: &'static str, content: &'static str| Element::new("meta").with("name", name).with("content", content);
    let head = Element::new("head")
        .child(Element::new("meta").with("charset", "utf-8"))
        .child(meta("viewport", "width=device-width, initial-scale=1"))
        .child(meta("color-scheme", "light dark"))
        .child(Element::new("title").text(title))
        .child(Element::new("style").text(style));
    let html = Element::new("html").with("lang", "en").child(head).child(body);
    format!("<!DOCTYPE html>\n{html}")
}
