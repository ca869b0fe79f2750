//! The files of a report: what each is called, and what stands in it.

use super::{arms_csv, comparisons_csv, html, markdown};
use crate::Results;

/// Everything that the report says, to be read by programs.
pub const RESULTS_JSON: &str = "results.json";
/// A line an arm.
pub const ARMS_CSV: &str = "arms.csv";
/// A line a comparison.
pub const COMPARISONS_CSV: &str = "comparisons.csv";
/// The report for a paper or an issue.
pub const REPORT_MARKDOWN: &str = "report.md";
/// The report for people.
pub const REPORT_HTML: &str = "report.html";

/// Every file by name with its content, the page last.
pub fn files(results: &Results) -> [(&'static str, String); 5] {
    [
        (RESULTS_JSON, serde_json::to_string_pretty(results).expect("results are plain data")),
        (ARMS_CSV, arms_csv(results)),
        (COMPARISONS_CSV, comparisons_csv(results)),
        (REPORT_MARKDOWN, markdown(results)),
        (REPORT_HTML, html(results)),
    ]
}
