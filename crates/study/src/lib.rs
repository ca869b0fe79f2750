//! Comparisons of methods: tasks × backbones × methods × seeds × folds, honest statistics, a report.

mod results;

pub use results::*;
