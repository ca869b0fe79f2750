//! Tells the binary which commit it was built from, for the lines of `melo bench`: `MELO_COMMIT` where it is set, else what
//! git says, else nothing.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=MELO_COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    let commit = std::env::var("MELO_COMMIT").ok().filter(|commit| !commit.is_empty()).or_else(commit_of_checkout);
    println!("cargo:rustc-env=MELO_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// The commit of the checkout that this crate lies in; none where it lies in somebody else's.
fn commit_of_checkout() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("rev-parse").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if git(&["--show-prefix"])? != "crates/cli/" {
        return None;
    }
    // The log of HEAD grows with every commit, checkout and rebase.
    println!("cargo:rerun-if-changed={}", git(&["--git-path", "logs/HEAD"])?);
    git(&["--short=12", "HEAD"])
}
