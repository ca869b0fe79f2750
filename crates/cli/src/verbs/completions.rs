//! `melo completions`: completions for a shell.

use crate::{Cli, Failure};
use clap::CommandFactory;

/// Print completions for a shell
#[derive(clap::Args)]
#[command(after_help = "Example:\n  melo completions bash > ~/.local/share/bash-completion/completions/melo")]
pub(crate) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "melo", &mut script);
    crate::say(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}
