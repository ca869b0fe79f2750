//! Comparisons of methods: tasks × backbones × methods × seeds × folds, honest statistics, a report.

mod audit;
mod results;
mod shortcut;

pub use audit::audit;
pub use results::*;
pub use shortcut::{SHORTCUT_AUC, Shortcut, shortcut};
