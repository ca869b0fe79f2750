//! What every function on whole tables of scores asks of them. `what` names the scores in an error.

use crate::Error;

/// `scores [n, c]` are finite, `labels [n]` below `classes`, n > 0, c >= 2.
pub(crate) fn check_single_label(
    what: &'static str,
    scores: &[f32],
    labels: &[usize],
    classes: usize,
) -> Result<(), Error> {
    check_classes(classes, 2)?;
    if labels.is_empty() {
        return Err(Error::NoRows);
    }
    check_length(what, scores.len(), labels.len().saturating_mul(classes))?;
    if let Some((row, &found)) = labels.iter().enumerate().find(|(_, label)| **label >= classes) {
        return Err(Error::LabelOutOfRange { row, classes, found });
    }
    check_finite(scores, classes)
}

/// `scores [n, c]` are finite, `labels [n, c]` are 0 or 1, n > 0, c >= 1.
pub(crate) fn check_multi_label(
    what: &'static str,
    scores: &[f32],
    labels: &[u8],
    classes: usize,
) -> Result<(), Error> {
    check_classes(classes, 1)?;
    if labels.is_empty() {
        return Err(Error::NoRows);
    }
    if !labels.len().is_multiple_of(classes) {
        return Err(Error::Ragged { what: "labels", classes, found: labels.len() });
    }
    check_length(what, scores.len(), labels.len())?;
    if let Some(at) = labels.iter().position(|label| *label > 1) {
        let (row, class) = (at / classes, at % classes);
        return Err(Error::LabelNotBinary { row, class, found: labels[at] });
    }
    check_finite(scores, classes)
}

/// `probabilities [n, c]` are in [0, 1].
pub(crate) fn check_probabilities(probabilities: &[f32], classes: usize) -> Result<(), Error> {
    match probabilities.iter().position(|p| !(0.0..=1.0).contains(p)) {
        Some(at) => {
            let (row, class) = (at / classes, at % classes);
            Err(Error::ProbabilityOutOfRange { row, class, found: probabilities[at] })
        }
        None => Ok(()),
    }
}

fn check_classes(found: usize, expected: usize) -> Result<(), Error> {
    if found < expected { Err(Error::TooFewClasses { expected, found }) } else { Ok(()) }
}

fn check_length(what: &'static str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Length { what, expected, found }) }
}

fn check_finite(scores: &[f32], classes: usize) -> Result<(), Error> {
    match scores.iter().position(|score| !score.is_finite()) {
        Some(at) => Err(Error::ScoreNotFinite { row: at / classes, class: at % classes, found: scores[at] }),
        None => Ok(()),
    }
}
