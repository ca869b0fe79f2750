//! What the software may be used for is said in one sentence, everywhere.

use crate::workplace::{embedded_backbone, melo, run};
use melo::vit::INTENDED_USE;
use std::path::{Path, PathBuf};

/// Where the repository begins.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Words that only a statement of the intended use has.
const OTHER_WORDS: [&str; 6] =
    ["medical device", "decision support", "diagnostic use", "not a diagnosis", "for diagnosis", "clinical use"];
/// Files that people read, and those that are made into what they read.
const KINDS: [&str; 8] = ["rs", "html", "js", "mjs", "json", "md", "py", "toml"];
/// Built, fetched, or not ours.
const LEFT_OUT: [&str; 4] = ["target", "node_modules", ".git", "presets"];

fn texts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let of = |path: PathBuf| match path.is_dir() {
        true if LEFT_OUT.iter().any(|name| path.ends_with(name)) => Vec::new(),
        true => texts(&path),
        false => vec![path],
    };
    paths.flat_map(of).collect()
}

#[test]
fn no_file_says_it_in_other_words() {
    let mut said = 0;
    for path in texts(Path::new(ROOT)) {
        let is_text = path.extension().is_some_and(|kind| KINDS.iter().any(|known| kind == *known));
        if !is_text || path.ends_with("intended_use.rs") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        said += usize::from(text.contains(INTENDED_USE));
        let rest = text.replace(INTENDED_USE, "").to_lowercase();
        let found: Vec<&str> = OTHER_WORDS.into_iter().filter(|words| rest.contains(words)).collect();
        assert!(found.is_empty(), "{}: {found:?} beside or instead of the sentence", path.display());
    }
    // README, the page, and the description of the API.
    assert!(said >= 3, "{said} files hold the sentence");
}

#[test]
fn every_door_says_it() {
    let read = |path: &str| std::fs::read_to_string(Path::new(ROOT).join(path)).expect(path);
    for path in ["README.md", "crates/serve/web/index.html", "crates/serve/src/http/openapi.json"] {
        assert!(read(path).contains(INTENDED_USE), "{path}");
    }
    let help = run(melo().arg("--help")).good();
    assert!(help.split_whitespace().collect::<Vec<_>>().join(" ").contains(INTENDED_USE), "{help}");
    let card = run(melo()
        .args(["plugin", "card"])
        .arg(embedded_backbone().with_file_name("phantoms").join("fundus.safetensors")))
    .good();
    assert!(card.contains(INTENDED_USE), "{card}");
}
