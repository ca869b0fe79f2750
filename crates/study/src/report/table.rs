//! Cells of a study's tables.

use melo_report::Element;
use melo_report::chart::swatch;

use super::words::{NOTHING, interval, number, signed, signed_interval};
use crate::Estimate;

pub(super) use melo_report::{Table, figure, figure_with, head, name, scroll, words};

/// The cell that heads a row, with the sample of a series.
pub(super) fn name_of_series(text: &str, series: usize) -> Element {
    melo_report::name_with(swatch(series), text)
}

/// An estimate with its interval below it; `undefined` and why where there is none.
pub(super) fn estimate(found: Option<&Estimate>, note: Option<&str>) -> Element {
    match (found.filter(|found| found.value.is_finite()), note) {
        (Some(found), Some(note)) => figure_with(number(found.value, 3), interval(found)).child(remark(note)),
        (Some(found), None) => figure_with(number(found.value, 3), interval(found)),
        (None, Some(note)) => figure("undefined").child(remark(note)),
        (None, None) => figure(NOTHING),
    }
}

/// A difference with its interval below it.
pub(super) fn difference(found: Option<&Estimate>) -> Element {
    found.map_or_else(|| figure(NOTHING), |found| figure_with(signed(found.value), signed_interval(found)))
}

pub(super) fn remark(text: &str) -> Element {
    Element::new("small").class("remark").text(text)
}
