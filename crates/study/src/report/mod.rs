//! The report that people look at: one HTML page that works offline, Markdown for a paper, and tidy CSV.
//!
//! All of it is made of [`Results`](crate::Results) alone, by pure functions; names from outside are escaped. What a study does not have
//! (several shares of the data, examples, subgroups, ...) leaves no trace in the report.

mod audit;
mod comparison;
mod costs;
mod csv;
mod curves;
mod diagnostics;
mod examples;
mod files;
mod fractions;
mod gap;
mod headline;
mod legend;
mod markdown;
mod method;
mod page;
mod part;
mod table;
mod task;
mod terminal;
mod tripod;
mod view;
mod words;

pub use csv::{arms_csv, comparisons_csv};
pub use files::{ARMS_CSV, COMPARISONS_CSV, REPORT_HTML, REPORT_MARKDOWN, RESULTS_JSON, files};
pub use markdown::markdown;
pub use page::html;
pub use terminal::summary;
