//! `melo man`: manual pages.

use crate::Failure;
use std::path::PathBuf;

/// Write manual pages, one a verb
#[derive(clap::Args)]
#[command(after_help = "Example:\n  melo man ~/.local/share/man/man1")]
pub(crate) struct Args {
    /// The folder
    #[arg(value_name = "DIR")]
    out: PathBuf,
}

/// Pages of `command`.
pub(crate) fn run(args: &Args, command: clap::Command) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.out)
        .and_then(|()| clap_mangen::generate_to(command, &args.out))
        .map_err(|error| Failure::Message(format!("{}: {error}", args.out.display())))
}
