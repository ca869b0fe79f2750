//! Comparisons of methods: tasks × backbones × methods × seeds × folds, honest statistics, a report.

pub mod report;
mod results;

pub use results::*;
