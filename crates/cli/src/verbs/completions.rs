//! `melo completions`: completions for a shell.

use crate::Failure;

/// Print completions for a shell
#[derive(clap::Args)]
#[command(after_help = "Example:\n  melo completions bash > ~/.local/share/bash-completion/completions/melo")]
pub(crate) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Completions of `command`.
pub(crate) fn run(args: &Args, mut command: clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "melo", &mut script);
    crate::say(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}
