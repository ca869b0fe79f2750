//! Measures and statistics: against other programs, and on data drawn from a known truth.

mod coverage;
mod decision_curve;
mod golden;
mod intervals;
mod million;
mod numbers_and_grades;
mod segmentation;
mod statistics;
