//! A row of an archive, and its columns.

use crate::image::Facts;
use melo_vit::{BoundPlugin, Decision, Precision, TaskKind};
use std::sync::Arc;

/// What an image is to a task.
pub(crate) struct Row<'a> {
    pub(crate) image: &'a Facts,
    pub(crate) plugin: &'a Arc<BoundPlugin>,
    pub(crate) decision: Option<&'a Decision>,
    pub(crate) by: &'a By,
}

/// What all rows were computed by.
pub(crate) struct By {
    pub(crate) backbone_digest: String,
    pub(crate) precision: Precision,
}

/// How a column's value is found; every one may be null.
pub(crate) enum Get {
    Text(fn(&Row) -> Option<String>),
    Whole(fn(&Row) -> Option<i64>),
    Texts(fn(&Row) -> Option<Vec<String>>),
    Numbers(fn(&Row) -> Option<Vec<f32>>),
    Number(fn(&Row) -> Option<f32>),
    Truth(fn(&Row) -> Option<bool>),
}

/// All columns, in their order.
pub(crate) const COLUMNS: [(&str, Get); 24] = [
    ("input", Get::Whole(|row| i64::try_from(row.image.number).ok())),
    ("image", Get::Text(|row| Some(row.image.path.display().to_string()))),
    ("frame", Get::Whole(|row| row.image.frame.and_then(|(number, _)| number.try_into().ok()))),
    ("frames", Get::Whole(|row| row.image.frame.and_then(|(_, count)| count.try_into().ok()))),
    ("task", Get::Text(|row| Some(row.plugin.card.task.clone()))),
    ("kind", Get::Text(|row| Some(kind(row.plugin.card.kind).to_owned()))),
    ("predicted", Get::Text(predicted)),
    ("findings", Get::Texts(findings)),
    ("set", Get::Texts(set)),
    ("in_scope", Get::Truth(|row| Some(row.decision?.scope?.in_scope))),
    ("scope_score", Get::Number(|row| Some(row.decision?.scope?.score))),
    ("classes", Get::Texts(|row| Some(row.plugin.card.classes.clone()))),
    ("probabilities", Get::Numbers(|row| numbers(row, true))),
    ("values", Get::Numbers(|row| numbers(row, false))),
    ("spread", Get::Numbers(spread)),
    ("error", Get::Text(|row| row.image.error.clone())),
    ("input_digest", Get::Text(|row| row.image.digest.clone())),
    ("sop_instance_uid", Get::Text(|row| row.image.sop_instance_uid.clone())),
    ("study_instance_uid", Get::Text(|row| row.image.study_instance_uid.clone())),
    ("patient", Get::Text(|row| row.image.patient.clone())),
    ("plugin_digest", Get::Text(|row| Some(row.plugin.digest.clone()))),
    ("backbone_digest", Get::Text(|row| Some(row.by.backbone_digest.clone()))),
    ("precision", Get::Text(|row| Some(row.by.precision.to_string()))),
    ("calibration", Get::Text(|row| Some(row.plugin.calibration().made.to_string()))),
];

/// As a card and `melo serve` write it.
fn kind(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::SingleLabel => "single_label",
        TaskKind::MultiLabel => "multi_label",
        TaskKind::Ordinal => "ordinal",
        TaskKind::Regression => "regression",
        TaskKind::Segmentation => "segmentation",
    }
}

fn predicted(row: &Row) -> Option<String> {
    let decision = row.decision.filter(|decision| decision.kind.is_one_class())?;
    row.plugin.card.classes.get(decision.best()).cloned()
}

fn findings(row: &Row) -> Option<Vec<String>> {
    let decision = row.decision.filter(|decision| decision.kind == TaskKind::MultiLabel)?;
    Some(decision.findings.iter().map(|&class| row.plugin.card.classes[class].clone()).collect())
}

/// What may be true, as [`melo_vit::NamedSet::items`].
fn set(row: &Row) -> Option<Vec<String>> {
    Some(row.decision?.set.as_ref()?.named(&row.plugin.card.classes).items())
}

/// How far the members of an ensemble are apart; none of single plug-ins.
fn spread(row: &Row) -> Option<Vec<f32>> {
    row.decision.map(|decision| decision.spread.clone()).filter(|spread| !spread.is_empty())
}

/// Probabilities or values, whichever the task has.
fn numbers(row: &Row, probabilities: bool) -> Option<Vec<f32>> {
    let decision = row.decision.filter(|decision| decision.kind.has_probabilities() == probabilities)?;
    Some(if probabilities { decision.probabilities.clone() } else { decision.values.clone() })
}
