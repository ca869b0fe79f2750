//! What became of a result that was sent.

use std::path::PathBuf;

/// Why a result was not delivered.
#[derive(Debug)]
pub(super) enum Undelivered {
    /// The receiver cannot be reached, or takes nothing now.
    Link(String),
    /// The receiver refuses this one.
    Object(String),
}

/// A file and what became of it.
pub(super) type Delivery = (PathBuf, Result<(), Undelivered>);
