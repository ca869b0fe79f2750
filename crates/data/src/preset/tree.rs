//! All files below a folder.

use std::path::{Path, PathBuf};

use super::PresetError;
use super::pattern::Pattern;

/// Folders inside folders that are looked into: sites nest less, and links may run in circles.
const MAX_DEPTH: usize = 16;

/// How many entries an error lists.
const LISTED: usize = 8;

/// The files below a folder, by their paths in it with `/`, sorted; without hidden ones and names that are not UTF-8.
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) files: Vec<String>,
}

impl Tree {
    /// # Errors
    /// [`PresetError::Folder`] for a folder that cannot be listed.
    pub(crate) fn of(root: &Path) -> Result<Self, PresetError> {
        let mut tree = Tree { root: root.into(), files: Vec::new() };
        tree.enter(root, "", 0)?;
        tree.files.sort_unstable();
        Ok(tree)
    }

    fn enter(&mut self, folder: &Path, inside: &str, depth: usize) -> Result<(), PresetError> {
        let broken = |source| PresetError::Folder { path: folder.into(), source };
        for entry in std::fs::read_dir(folder).map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') || name == "__MACOSX" {
                continue;
            }
            let kind = entry.file_type().map_err(broken)?;
            let path = entry.path();
            let is_folder = kind.is_dir() || (kind.is_symlink() && path.is_dir() && !leads_back(&path, folder));
            if is_folder && depth < MAX_DEPTH {
                self.enter(&path, &format!("{inside}{name}/"), depth + 1)?;
            } else if !path.is_dir() {
                self.files.push(format!("{inside}{name}"));
            }
        }
        Ok(())
    }

    /// The one file that the first matching of `patterns` matches; `None` if none does.
    ///
    /// # Errors
    /// [`PresetError::Ambiguous`] if it matches two.
    pub(crate) fn find(&self, patterns: &[Pattern]) -> Result<Option<&str>, PresetError> {
        for pattern in patterns {
            let mut found = self.files.iter().filter(|file| pattern.read(file).is_some());
            match (found.next(), found.next()) {
                (None, _) => {}
                (Some(file), None) => return Ok(Some(file)),
                (Some(first), Some(second)) => {
                    return Err(PresetError::Ambiguous {
                        folder: self.root.clone(),
                        pattern: pattern.to_string(),
                        first: first.clone(),
                        second: second.clone(),
                    });
                }
            }
        }
        Ok(None)
    }

    /// What lies directly in the folder, for an error: `images/, labels.csv and 3 more`.
    pub(crate) fn contents(&self) -> String {
        let first = |file: &String| match file.split_once('/') {
            Some((folder, _)) => format!("{folder}/"),
            None => file.clone(),
        };
        let mut names: Vec<String> = self.files.iter().map(first).collect();
        names.dedup();
        if names.is_empty() {
            return "no file".to_owned();
        }
        let more = names.len().saturating_sub(LISTED);
        names.truncate(LISTED);
        let listed = names.join(", ");
        if more == 0 { listed } else { format!("{listed} and {more} more") }
    }
}

/// True if the link at `path` leads to `folder` or one that holds it.
fn leads_back(path: &Path, folder: &Path) -> bool {
    match (path.canonicalize(), folder.canonicalize()) {
        (Ok(target), Ok(folder)) => folder.starts_with(target),
        _ => true,
    }
}
