//! What must hold whatever the weights are: adapters with `B ≠ 0` and `alpha ≠ r`, `alpha < r` too.

mod bags;
mod batches;
mod calibrations;
mod dense;
mod engines;
mod ensembles;
mod explanations;
mod files;
mod gradients;
mod merging;
mod precision;
mod seam;
mod self_tests;
mod shared;
mod sizes;
#[path = "../tiny/mod.rs"]
mod tiny;
mod variants;
mod volumes;
