//! Images that a method was surest about.

use melo_report::Element;

use super::words::number;
use crate::{Example, TaskResults};

/// Hits and then misses; none without an image.
pub(super) fn block(task: &TaskResults) -> Option<Element> {
    let groups: Vec<_> = [("Surest and right", true), ("Surest and wrong", false)]
        .into_iter()
        .filter_map(|(heading, correct)| {
            let of_kind: Vec<_> = task
                .examples
                .iter()
                .filter(|example| example.correct == correct && !example.overlay_png.is_empty())
                .map(figure)
                .collect();
            (!of_kind.is_empty()).then(|| {
                Element::new("div")
                    .class("block")
                    .child(Element::new("h4").text(heading))
                    .child(Element::new("div").class("examples").children(of_kind))
            })
        })
        .collect();
    let method = &task.examples.first()?.method;
    let text = format!("Test images with the regions that {method} looked at; probabilities are calibrated.");
    (!groups.is_empty()).then(|| Element::new("div").class("block").children(groups).child(super::part::note(text)))
}

fn figure(example: &Example) -> Element {
    let said = format!("{} ({})", example.predicted, number(example.probability, 2));
    let alt = format!("{}: shows {}, taken for {said}", example.image, example.truth);
    let line =
        |what: &str, text: &str| Element::new("span").child(Element::new("b").text(what)).text(format!(" {text}"));
    Element::new("figure")
        .child(
            Element::new("img")
                .with("src", format!("data:image/png;base64,{}", example.overlay_png))
                .with("alt", alt)
                .with("loading", "lazy"),
        )
        .child(
            Element::new("figcaption")
                .child(line("is", &example.truth))
                .child(line("said", &said))
                .child(melo_report::breakable(Element::new("small"), &example.image)),
        )
}
