//! `melo quickstart`.

use crate::Failure;

/// Quickstart
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    Ok(())
}
