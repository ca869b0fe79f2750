//! The answer and the main table for a terminal.

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
    for sentence in answer(results).into_iter().chain(unfinished_sentence(results)) {
        out.push_str(&format!("\n{sentence}\n"));
    }
    out
}
