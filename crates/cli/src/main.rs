//! The `melo` command.

use std::process::ExitCode;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let program = std::env::current_exe().map_or_else(|_| "melo".into(), Into::into);
    melo_cli::main(std::env::args_os().collect(), vec![program]).into()
}
