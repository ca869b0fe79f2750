//! Calibration and confusion.

use melo_report::Element;
use melo_report::chart::{Bin, HeatTable, Reliability};

use super::legend::panels;
use super::table::{Table, figure, name_of_series, scroll};
use super::view::series;
use super::words::number;
use crate::{Arm, ReliabilityBin, Results};

/// Reliability diagrams of `shown` and a table of all `arms`.
pub(super) fn calibration(results: &Results, shown: &[&Arm], arms: &[&Arm]) -> Vec<Element> {
    let drawn: Vec<_> = shown.iter().filter_map(|arm| diagram(results, arm)).collect();
    let note =
        "Dotted with hollow markers before, solid after temperature scaling; bars count the predictions after it.";
    let caption = "Calibration before → after temperature scaling on the validation split";
    let mut table = Table::new(caption, &["method", "temperature", "calibration error", "Brier score"]);
    for arm in arms.iter().filter(|arm| arm.calibration.temperature > 0.0) {
        let found = &arm.calibration;
        let change = |before: f64, after: f64| figure(format!("{} → {}", number(before, 3), number(after, 3)));
        table.row(
            name_of_series(&arm.method, series(results, &arm.method)),
            [
                figure(number(found.temperature, 2)),
                change(found.ece_before, found.ece_after),
                change(found.brier_before, found.brier_after),
            ],
        );
    }
    panels("small", "Reliability", note, drawn).into_iter().chain(table.draw()).collect()
}

fn diagram(results: &Results, arm: &Arm) -> Option<Element> {
    let found = &arm.calibration;
    let bins = |bins: &[ReliabilityBin]| {
        bins.iter()
            .map(|bin| Bin { count: bin.count, confidence: bin.confidence, accuracy: bin.accuracy })
            .collect::<Vec<_>>()
    };
    let diagram = Reliability {
        title: format!("{}: reliability diagram", arm.method),
        description: format!(
            "expected calibration error {} before and {} after temperature scaling",
            number(found.ece_before, 3),
            number(found.ece_after, 3)
        ),
        width: 168.0,
        height: 212.0,
        series: series(results, &arm.method),
        before: bins(&found.bins_before),
        after: bins(&found.bins_after),
    };
    Some(super::legend::panel(&arm.method, None, diagram.draw()?))
}

/// A confusion matrix for each of `arms` that has one.
pub(super) fn confusion(arms: &[&Arm]) -> Option<Element> {
    let drawn: Vec<_> = arms
        .iter()
        .filter_map(|arm| {
            let counts = arm.confusion.clone()?;
            let names = arm.per_class.iter().map(|class| class.class.clone()).collect();
            let table =
                HeatTable { caption: arm.method.clone(), corner: "true class \\ predicted".into(), names, counts };
            table.draw().map(scroll)
        })
        .collect();
    if drawn.is_empty() {
        return None;
    }
    let note = "Test images of all cells by true class (rows) and predicted class (columns, by number); shaded by the share of \
                the row.";
    Some(
        Element::new("div")
            .class("block")
            .child(Element::new("h4").text("Confusion"))
            .child(super::part::note(note))
            .child(Element::new("div").class("matrices").children(drawn)),
    )
}
