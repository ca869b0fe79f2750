//! Ways between folders.

use std::path::{Component, Path, PathBuf};

/// The way from one folder to another, with `/` between and at the end; empty if they are the same, absolute if there is
/// no other.
pub fn way_between(from: &Path, to: &Path) -> String {
    let here = |path: &Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    let real = |path: &Path| here(path).canonicalize().unwrap_or_else(|_| here(path));
    let (from, to) = (real(from), real(to));
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let way: PathBuf = if shared == 0 {
        to
    } else {
        let up = from.components().skip(shared).map(|_| Component::ParentDir);
        up.chain(to.components().skip(shared)).collect()
    };
    let text = way.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/");
    if text.is_empty() { text } else { format!("{text}/") }
}
