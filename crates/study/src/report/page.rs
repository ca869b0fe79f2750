//! The page around the report's parts.

use melo_report::Element;
use melo_report::chart::STYLE;
use melo_vit::INTENDED_USE;

use super::part::Part;
use super::{ARMS_CSV, COMPARISONS_CSV, audit, comparison, costs, fractions, gap, headline, method, task, tripod};
use crate::Results;

/// The page's own style, besides that of its charts.
const PAGE_STYLE: &str = include_str!("style.css");

/// The report as one HTML page that needs no other file: no script, no font, no picture from elsewhere. It is well-formed
/// XML but for its first line.
pub fn html(results: &Results) -> String {
    let mut parts: Vec<_> = [
        audit::part(results),
        comparison::part(results),
        costs::part(results),
        task::part(results),
        fractions::part(results),
        gap::part(results),
        method::part(results),
    ]
    .into_iter()
    .flatten()
    .collect();
    parts.push(tripod::part(&parts));
    let body = Element::new("body")
        .child(headline::header(results, contents(&parts)))
        .child(Element::new("main").children(parts.into_iter().enumerate().map(section)))
        .child(footer(results));
    melo_report::page(&format!("{} – study report", results.study.name), &format!("{STYLE}{PAGE_STYLE}"), body)
}

fn contents(parts: &[Part]) -> Element {
    let entry = |part: &Part| {
        Element::new("li").child(Element::new("a").with("href", format!("#{}", part.id)).text(part.heading))
    };
    Element::new("nav").with("aria-label", "Contents").child(Element::new("ol").children(parts.iter().map(entry)))
}

fn section((i, part): (usize, Part)) -> Element {
    Element::new("section")
        .with("id", part.id)
        .child(
            Element::new("h2")
                .child(Element::new("span").class("number").text(format!("{} ", i + 1)))
                .text(part.heading),
        )
        .children(part.content)
}

fn footer(results: &Results) -> Element {
    let line = format!(
        "{}. {INTENDED_USE} Figures of this report are also in {ARMS_CSV} and {COMPARISONS_CSV}.",
        results.study.software
    );
    Element::new("footer").child(Element::new("p").text(line))
}
