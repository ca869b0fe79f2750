//! Legends and figures.

use melo_report::Element;
use melo_report::chart::swatch;

use super::view::series;
use crate::{Arm, Results};

/// Which colour, dash and marker is which method.
pub(super) fn legend(results: &Results, arms: &[&Arm]) -> Element {
    let entry = |arm: &&Arm| {
        Element::new("li").child(swatch(series(results, &arm.method))).child(Element::new("span").text(&*arm.method))
    };
    Element::new("ul").class("legend").children(arms.iter().map(entry))
}

/// A chart under its name.
pub(super) fn panel(name: &str, below: Option<String>, chart: Element) -> Element {
    let caption = Element::new("figcaption").text(name);
    let caption = caption.children(below.map(|text| Element::new("small").text(text)));
    Element::new("figure").class("panel").child(caption).child(chart)
}

/// Panels beside each other under a heading; none without one.
pub(super) fn panels(size: &str, heading: &str, note: &str, panels: Vec<Element>) -> Option<Element> {
    if panels.is_empty() {
        return None;
    }
    let note = (!note.is_empty()).then(|| Element::new("p").class("note").text(note));
    let grid = Element::new("div").class(format!("panels {size}"));
    Some(
        Element::new("div")
            .class("block")
            .with("style", format!("--n:{}", panels.len()))
            .child(Element::new("h4").text(heading))
            .children(note)
            .child(grid.children(panels)),
    )
}
