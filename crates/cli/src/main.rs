//! The `melo` command.

fn main() {}
