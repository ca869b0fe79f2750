//! The figures as tidy CSV (RFC 4180), one line an arm or a comparison, at full precision; what is undefined is empty.

use crate::{Estimate, Results};
use melo_data::spreadsheet::row;

/// [`ARMS_CSV`](super::ARMS_CSV): one line an arm with every figure that is one number.
pub fn arms_csv(results: &Results) -> String {
    let head = [
        "task",
        "multi_label",
        "classes",
        "backbone",
        "method",
        "data_fraction",
        "cells",
        "auc",
        "auc_low",
        "auc_high",
        "acc",
        "acc_low",
        "acc_high",
        "val_auc",
        "temperature",
        "ece_before",
        "ece_after",
        "brier_before",
        "brier_after",
        "trainable_parameters",
        "trainable_percent",
        "stored_bytes",
        "peak_rss_bytes",
        "seconds_per_epoch",
        "epochs",
        "best_epoch",
        "seconds",
        "balanced_acc",
        "balanced_acc_low",
        "balanced_acc_high",
        "f1_macro",
        "images_per_s",
    ];
    let mut table = Csv::new(&head);
    for task in &results.tasks {
        for arm in &task.arms {
            let (calibration, cost) = (&arm.calibration, &arm.cost);
            let mut fields = vec![
                task.name.clone(),
                task.multi_label.to_string(),
                task.classes.len().to_string(),
                arm.backbone.clone(),
                arm.method.clone(),
                number(arm.data_fraction),
                arm.auc_per_cell.len().to_string(),
            ];
            fields.extend(estimate(arm.auc.as_ref()));
            fields.extend(estimate(arm.acc.as_ref()));
            fields.push(number(arm.val_auc));
            let calibration = [
                calibration.temperature,
                calibration.ece_before,
                calibration.ece_after,
                calibration.brier_before,
                calibration.brier_after,
            ];
            fields.extend(calibration.map(number));
            fields.push(cost.trainable_parameters.to_string());
            fields.push(number(cost.trainable_percent));
            fields.extend([cost.stored_bytes, cost.peak_rss_bytes].map(|bytes| bytes.to_string()));
            fields.extend([cost.seconds_per_epoch, cost.epochs, cost.best_epoch, cost.seconds].map(number));
            fields.extend(estimate(arm.balanced_acc.as_ref()));
            fields.extend([arm.f1_macro.map_or(String::new(), number), number(cost.images_per_s)]);
            table.record(&fields);
        }
    }
    table.text()
}

/// [`COMPARISONS_CSV`](super::COMPARISONS_CSV): one line a method, backbone and task against the reference.
pub fn comparisons_csv(results: &Results) -> String {
    let head = [
        "task",
        "backbone",
        "method",
        "reference",
        "difference",
        "difference_low",
        "difference_high",
        "p",
        "p_holm",
        "p_delong",
        "p_inferior",
        "p_inferior_holm",
        "margin",
        "verdict",
        "p_worse_holm",
    ];
    let mut table = Csv::new(&head);
    for task in &results.tasks {
        for found in &task.comparisons {
            let names = [&task.name, &found.backbone, &found.method, &found.reference];
            let mut fields = names.map(String::clone).to_vec();
            fields.extend(estimate(Some(&found.difference)));
            fields.extend([found.p, found.p_holm, found.p_delong.unwrap_or(f64::NAN)].map(number));
            fields.extend([found.p_inferior, found.p_inferior_holm, results.study.margin].map(number));
            fields.extend([found.verdict.word().replace('-', "_"), number(found.p_worse_holm)]);
            table.record(&fields);
        }
    }
    table.text()
}

fn estimate(found: Option<&Estimate>) -> [String; 3] {
    found.map_or_else(Default::default, |found| [found.value, found.low, found.high].map(number))
}

/// The shortest text that reads back as `value`; empty for what is not finite.
fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}

/// Records under `head`, as text.
struct Csv(csv::Writer<Vec<u8>>);

impl Csv {
    fn new(head: &[&str]) -> Self {
        let writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
        let mut table = Self(writer);
        table.record(head);
        table
    }

    fn record(&mut self, fields: &[impl AsRef<str>]) {
        self.0.write_record(row(fields)).expect("memory takes every record, and records are of equal length");
    }

    fn text(self) -> String {
        let bytes = self.0.into_inner().expect("memory takes every record");
        String::from_utf8(bytes).expect("fields are text")
    }
}
