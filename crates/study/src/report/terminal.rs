//! The answer and the main table for a terminal.

use super::comparison::{collapse_sentences, few_sentences};
use super::headline::{answer, compared, unfinished_sentence};
use super::markdown::comparisons;
use crate::Results;

/// What was compared, every arm with its figures and verdict in aligned columns, and the answer.
pub fn summary(results: &Results) -> String {
    let rows = comparisons(results);
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = format!("{}\n\n", compared(results));
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out.push_str(&format!(
        "\nVerdicts are against the margin of {} and go by p values after Holm's correction over tasks; p (Holm) is of no difference.\n",
        results.study.margin
    ));
    if rows.iter().any(|row| row.iter().any(|cell| cell.ends_with('†'))) {
        out.push_str("† The task's interval alone would say more.\n");
    }
    for sentence in collapse_sentences(results) {
        out.push_str(&format!("\nWARNING: {sentence}\n"));
    }
    for sentence in few_sentences(results) {
        out.push_str(&format!("\nnote: {sentence}\n"));
    }
    for sentence in answer(results).into_iter().chain(unfinished_sentence(results)) {
        out.push_str(&format!("\n{sentence}\n"));
    }
    out
}
