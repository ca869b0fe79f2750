//! Adapters of others, in and out: against PyTorch, as round trips, and hostile.

#![allow(clippy::unwrap_used, reason = "tests")]

mod bench;
mod golden;
mod hostile;
mod settings;
mod variants;
mod writing;
