//! The audit of a data set, and the report of a study.

mod audit;
mod report;
